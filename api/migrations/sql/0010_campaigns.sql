-- Campaigns: bonuses on purchases of some days at some tills, paid by one funder or by several in shares.
-- An award names its rule or its campaign in one column (transaction.rule_id, pending_award.rule_id), so campaigns have
-- negative ids: no id ever means both.

CREATE FUNCTION sum_of(parts integer[]) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT sum(part) FROM unnest(parts) AS part);

CREATE TABLE campaign (
    id                      integer GENERATED ALWAYS AS IDENTITY (MINVALUE -2147483648 MAXVALUE -1 START WITH -1 INCREMENT BY -1)
                            PRIMARY KEY CONSTRAINT campaign_id_negative CHECK (id < 0),
    code                    text NOT NULL CONSTRAINT campaign_code_unique UNIQUE,
    name                    text NOT NULL,
    valid                   daterange NOT NULL CONSTRAINT campaign_valid CHECK (NOT isempty(valid) AND NOT upper_inf(valid)),
    partner_ids             integer[] CONSTRAINT campaign_partners CHECK (cardinality(partner_ids) > 0),
    multiplier_micro        bigint CONSTRAINT campaign_multiplier CHECK (multiplier_micro BETWEEN 1000001 AND 1000000000),
    bonus_points            bigint CONSTRAINT campaign_bonus CHECK (bonus_points BETWEEN 1 AND 1000000000),
    min_amount_micro        bigint NOT NULL CONSTRAINT campaign_min_amount CHECK (min_amount_micro BETWEEN 0 AND 1000000000000000000),
    rate_micro              bigint CONSTRAINT campaign_rate CHECK (rate_micro BETWEEN 0 AND 1000000000000),
    include_categories      text[] NOT NULL,
    include_products        text[] NOT NULL,
    max_points              bigint CONSTRAINT campaign_max_points CHECK (max_points BETWEEN 0 AND 1000000000),
    funder_ids              integer[] NOT NULL,
    shares_ppm              integer[] NOT NULL,
    CONSTRAINT campaign_gives_one CHECK (num_nonnulls(multiplier_micro, bonus_points, rate_micro) = 1),
    CONSTRAINT campaign_shares CHECK (cardinality(funder_ids) = cardinality(shares_ppm) AND 10000 <= ALL (shares_ppm)
                                      AND sum_of(shares_ppm) = 1000000)
);
COMMENT ON COLUMN campaign.valid IS 'Local dates of the programme''s time zone; a purchase takes part by when it occurred';
COMMENT ON COLUMN campaign.partner_ids IS 'At whose tills it runs; null: at all';
COMMENT ON COLUMN campaign.multiplier_micro IS 'Times the points of the base rule; the bonus is what goes beyond them';
COMMENT ON COLUMN campaign.funder_ids IS 'Who pays, in the order of their codes, 0 the operator; shares_ppm holds their shares in millionths';

-- squawk-ignore ban-drop-not-null
ALTER TABLE budget_plan ALTER COLUMN partner_id DROP NOT NULL;
ALTER TABLE budget_plan ADD COLUMN campaign_id integer;
ALTER TABLE budget_plan ADD CONSTRAINT budget_plan_campaign FOREIGN KEY (campaign_id) REFERENCES campaign NOT VALID;
ALTER TABLE budget_plan VALIDATE CONSTRAINT budget_plan_campaign;
ALTER TABLE budget_plan ADD CONSTRAINT budget_plan_of_one CHECK (num_nonnulls(partner_id, campaign_id) = 1) NOT VALID;
ALTER TABLE budget_plan VALIDATE CONSTRAINT budget_plan_of_one;
CREATE UNIQUE INDEX budget_plan_campaign_unique ON budget_plan (campaign_id) WHERE campaign_id IS NOT NULL;
COMMENT ON COLUMN budget_plan.campaign_id IS 'The campaign whose own budget it is: one window, of partner 0, that every award of the campaign draws on';

GRANT SELECT, INSERT, UPDATE, DELETE ON campaign TO coalition_posting;
GRANT SELECT ON campaign TO coalition_reading;

ALTER TABLE campaign ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON campaign TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON campaign FOR SELECT TO coalition_reading USING (
    (SELECT viewer()) = 0 OR (SELECT viewer()) = ANY (funder_ids)
    OR ((SELECT viewer()) > 0 AND (partner_ids IS NULL OR (SELECT viewer()) = ANY (partner_ids))));
