-- Who funds a part of another partner's purchase sees that purchase: which partner, what kind, when, and its own movements
-- (their own policy). The other columns are the resolvers' to mask: row-level security knows no columns.

-- One policy and not two: whose rows they are is decided by the row itself; only what is left asks the index.
DROP POLICY own_rows ON command;
CREATE POLICY own_rows ON command FOR SELECT TO coalition_reading USING (
    (SELECT viewer()) IN (0, partner_id)
    OR EXISTS (SELECT FROM transaction AS t WHERE t.command_id = command.id AND t.party_id = (SELECT viewer())));

-- A campaign's own budget tells what every funder's points cost: the operator's to see, and a funder's that pays alone.
CREATE POLICY sole_funder ON budget_plan FOR SELECT TO coalition_reading USING (
    campaign_id IN (SELECT c.id FROM campaign AS c WHERE c.funder_ids = ARRAY[(SELECT viewer())]));
CREATE POLICY sole_funder ON budget FOR SELECT TO coalition_reading USING (
    partner_id = 0 AND plan_id IN (SELECT p.id FROM budget_plan AS p WHERE p.campaign_id IS NOT NULL));
