-- What performance reports sum up (settlement/performance_reading.py). A closed period never changes, so its facts are
-- taken from the ledger once; open periods are read from the ledger itself. Nothing here is a source of truth: rows may be
-- deleted with their period's row in performance_period, and the next report stores them again.
-- day: the local day, in the programme's time zone, on which something happened.

CREATE TABLE performance_period (
    period_id           integer PRIMARY KEY CONSTRAINT performance_period_of REFERENCES period
);
COMMENT ON TABLE performance_period IS 'Closed periods whose facts are stored';

CREATE TABLE performance_total (
    partner_id          integer NOT NULL,
    day                 date NOT NULL,
    period_id           integer NOT NULL,
    purchases           bigint NOT NULL,
    sales_minor         numeric(38, 0) NOT NULL,
    issued              numeric(38, 0) NOT NULL,
    reversed            numeric(38, 0) NOT NULL,
    burned              numeric(38, 0) NOT NULL,
    restored            numeric(38, 0) NOT NULL,
    charge_micro        numeric(38, 0) NOT NULL,
    PRIMARY KEY (partner_id, day, period_id)
);
COMMENT ON COLUMN performance_total.sales_minor IS 'Purchases of the day less what was returned on it, whenever that was bought';
COMMENT ON COLUMN performance_total.charge_micro IS 'Issue value and fee of awards charged to the partner, positive, before reversals';

CREATE TABLE performance_activity (
    partner_id          integer NOT NULL,
    day                 date NOT NULL,
    member_id           bigint NOT NULL,
    period_id           integer NOT NULL,
    purchases           bigint NOT NULL,
    first_at            timestamptz NOT NULL,
    last_at             timestamptz NOT NULL,
    PRIMARY KEY (partner_id, day, member_id, period_id)
);
CREATE INDEX performance_activity_member ON performance_activity (member_id, day);
COMMENT ON TABLE performance_activity IS 'A member bought at a partner on a day';

CREATE TABLE performance_first (
    member_id           bigint NOT NULL,
    partner_id          integer NOT NULL,
    first_at            timestamptz NOT NULL,
    PRIMARY KEY (member_id, partner_id)
);
COMMENT ON TABLE performance_first IS 'A member''s first purchase at a partner in all stored periods';

CREATE TABLE performance_burn (
    redeemer_id         integer NOT NULL,
    issuer_id           integer NOT NULL,
    day                 date NOT NULL,
    account_id          bigint NOT NULL,
    period_id           integer NOT NULL,
    points              numeric(38, 0) NOT NULL,
    value_micro         numeric(38, 0) NOT NULL,
    issue_value_micro   numeric(38, 0) NOT NULL,
    PRIMARY KEY (redeemer_id, day, issuer_id, account_id, period_id)
);
CREATE INDEX performance_burn_issuer ON performance_burn (issuer_id, day);
COMMENT ON COLUMN performance_burn.value_micro IS 'At the redeemer''s reimbursement per point';
COMMENT ON COLUMN performance_burn.issue_value_micro IS 'At the issue price of the lots that were burned';

CREATE INDEX member_source ON member (partner_id, enrolled_at);

GRANT SELECT ON performance_period, performance_total, performance_activity, performance_first, performance_burn
    TO coalition_posting, coalition_reading;
GRANT INSERT ON performance_period, performance_total, performance_activity, performance_first, performance_burn TO coalition_posting;
GRANT UPDATE ON performance_first TO coalition_posting;

-- A report needs to know who was active at a rival, so no partner reads these rows, not even its own ones: the report is
-- computed as the operator, and what a partner may not know is taken out before it is answered.
ALTER TABLE performance_period ENABLE ROW LEVEL SECURITY;
ALTER TABLE performance_total ENABLE ROW LEVEL SECURITY;
ALTER TABLE performance_activity ENABLE ROW LEVEL SECURITY;
ALTER TABLE performance_first ENABLE ROW LEVEL SECURITY;
ALTER TABLE performance_burn ENABLE ROW LEVEL SECURITY;

CREATE POLICY everything ON performance_period TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON performance_total TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON performance_activity TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON performance_first TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON performance_burn TO coalition_posting USING (true) WITH CHECK (true);

CREATE POLICY operator_only ON performance_period FOR SELECT TO coalition_reading USING ((SELECT viewer()) = 0);
CREATE POLICY operator_only ON performance_total FOR SELECT TO coalition_reading USING ((SELECT viewer()) = 0);
CREATE POLICY operator_only ON performance_activity FOR SELECT TO coalition_reading USING ((SELECT viewer()) = 0);
CREATE POLICY operator_only ON performance_first FOR SELECT TO coalition_reading USING ((SELECT viewer()) = 0);
CREATE POLICY operator_only ON performance_burn FOR SELECT TO coalition_reading USING ((SELECT viewer()) = 0);
