-- The core of the coalition ledger. Forward only: never edit after landing, add a migration.
-- Conventions: ids are whole numbers made by the application (blocks of ledger_id); 0 as a partner, funder or
-- party is the operator; 0 as a store is "no store"; money is in micro-units (1e-6 of the programme currency)
-- unless a column ends in _minor (the currency's minor unit); points are signed from the member's side.

CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE SEQUENCE ledger_id AS bigint INCREMENT BY 5000 START WITH 5000;
COMMENT ON SEQUENCE ledger_id IS 'Hands each process a block of 5000 ids, so that a batch needs no round trip for them';

-- ---------------------------------------------------------------- configuration

CREATE TABLE installation (
    only_row            boolean PRIMARY KEY DEFAULT true CONSTRAINT installation_only_row CHECK (only_row),
    secret              bytea NOT NULL CONSTRAINT installation_secret_length CHECK (length(secret) = 32)
);
INSERT INTO installation (secret) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

CREATE TABLE programme (
    only_row            boolean PRIMARY KEY DEFAULT true CONSTRAINT programme_only_row CHECK (only_row),
    name                text NOT NULL,
    currency            text NOT NULL CONSTRAINT programme_currency_form CHECK (currency ~ '^[A-Z]{3}$'),
    currency_digits     integer NOT NULL CONSTRAINT programme_digits CHECK (currency_digits BETWEEN 0 AND 4),
    timezone            text NOT NULL,
    region              text NOT NULL,
    point_value_micro   bigint NOT NULL CONSTRAINT programme_point_value CHECK (point_value_micro >= 0),
    period              text NOT NULL CONSTRAINT programme_period CHECK (period IN ('month')),
    expiry_months       integer NOT NULL CONSTRAINT programme_expiry CHECK (expiry_months BETWEEN 1 AND 1200),
    grace_days          integer NOT NULL CONSTRAINT programme_grace CHECK (grace_days BETWEEN 0 AND 3660),
    max_backdate_days   integer NOT NULL CONSTRAINT programme_backdate CHECK (max_backdate_days BETWEEN 0 AND 36600),
    version             bigint NOT NULL DEFAULT 1
);
COMMENT ON COLUMN programme.version IS 'Configuration version: raised by every apply; a batch priced with another one starts over';

CREATE TABLE partner (
    id                  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code                text NOT NULL CONSTRAINT partner_code_unique UNIQUE,
    name                text NOT NULL,
    category            text NOT NULL,
    state               text NOT NULL DEFAULT 'ACTIVE' CONSTRAINT partner_state CHECK (state IN ('ACTIVE', 'SUSPENDED')),
    reference_unique    boolean NOT NULL DEFAULT true
);

CREATE TABLE store (
    id                  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id          integer NOT NULL CONSTRAINT store_partner REFERENCES partner,
    code                text NOT NULL,
    name                text NOT NULL,
    CONSTRAINT store_code_unique UNIQUE (partner_id, code)
);

CREATE TABLE terms (
    id                      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id              integer NOT NULL CONSTRAINT terms_partner REFERENCES partner,
    valid                   daterange NOT NULL CONSTRAINT terms_valid_not_empty CHECK (NOT isempty(valid)),
    issue_price_micro       bigint NOT NULL CONSTRAINT terms_issue_price CHECK (issue_price_micro BETWEEN 0 AND 1000000000),
    service_fee_micro       bigint NOT NULL CONSTRAINT terms_service_fee CHECK (service_fee_micro BETWEEN 0 AND 1000000000),
    reimbursement_micro     bigint NOT NULL CONSTRAINT terms_reimbursement CHECK (reimbursement_micro BETWEEN 0 AND 1000000000),
    breakage_share_ppm      integer NOT NULL CONSTRAINT terms_breakage CHECK (breakage_share_ppm BETWEEN 0 AND 1000000),
    fixed_fee_micro         bigint NOT NULL CONSTRAINT terms_fixed_fee CHECK (fixed_fee_micro BETWEEN 0 AND 1000000000000000000),
    CONSTRAINT terms_no_overlap UNIQUE (partner_id, valid WITHOUT OVERLAPS)
);
COMMENT ON TABLE terms IS 'A version of a partner''s contract; valid in local dates of the programme''s time zone';

CREATE TABLE budget_plan (
    id                      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id              integer NOT NULL CONSTRAINT budget_plan_partner REFERENCES partner,
    valid                   daterange NOT NULL CONSTRAINT budget_plan_valid_not_empty CHECK (NOT isempty(valid)),
    per_period              boolean NOT NULL,
    limit_micro             bigint NOT NULL CONSTRAINT budget_plan_limit CHECK (limit_micro BETWEEN 0 AND 1000000000000000000),
    overdraft_micro         bigint NOT NULL CONSTRAINT budget_plan_overdraft CHECK (overdraft_micro BETWEEN 0 AND 1000000000000000000),
    on_limit                text NOT NULL CONSTRAINT budget_plan_on_limit
                            CHECK (on_limit IN ('DECLINE', 'PARTIAL', 'BASE_ONLY', 'OPERATOR_FUNDED', 'OVERDRAFT')),
    after_period            text NOT NULL CONSTRAINT budget_plan_after CHECK (after_period IN ('CREDIT_CURRENT', 'USE_OR_LOSE')),
    alert_at_ppm            integer CONSTRAINT budget_plan_alert CHECK (alert_at_ppm BETWEEN 0 AND 1000000),
    funding                 text NOT NULL CONSTRAINT budget_plan_funding CHECK (funding IN ('POSTPAID', 'PREPAID')),
    CONSTRAINT budget_plan_no_overlap UNIQUE (partner_id, valid WITHOUT OVERLAPS)
);

CREATE TABLE earn_rule (
    id                      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id              integer NOT NULL CONSTRAINT earn_rule_partner REFERENCES partner,
    code                    text NOT NULL,
    valid                   daterange NOT NULL CONSTRAINT earn_rule_valid_not_empty CHECK (NOT isempty(valid)),
    rate_micro              bigint NOT NULL CONSTRAINT earn_rule_rate CHECK (rate_micro BETWEEN 0 AND 1000000000000),
    max_points              bigint CONSTRAINT earn_rule_max_points CHECK (max_points BETWEEN 0 AND 1000000000),
    exclude_categories      text[] NOT NULL,
    exclude_products        text[] NOT NULL,
    CONSTRAINT earn_rule_no_overlap UNIQUE (partner_id, code, valid WITHOUT OVERLAPS)
);

-- ---------------------------------------------------------------- periods

CREATE TABLE period (
    id                  integer PRIMARY KEY,
    label               text NOT NULL CONSTRAINT period_label_unique UNIQUE,
    opens_at            timestamptz NOT NULL CONSTRAINT period_opens_unique UNIQUE,
    closes_at           timestamptz NOT NULL,
    state               text NOT NULL DEFAULT 'OPEN' CONSTRAINT period_state CHECK (state IN ('OPEN', 'CLOSING', 'CLOSED')),
    imported            boolean NOT NULL DEFAULT false,
    close_key           text CONSTRAINT period_close_key_unique UNIQUE,
    closed_at           timestamptz,
    pool_micro          numeric(38, 0),
    pool_change_micro   numeric(38, 0),
    margin_micro        numeric(38, 0),
    operator_net_minor  numeric(38, 0),
    certificate         jsonb,
    certificate_sha256  bytea,
    previous_sha256     bytea,
    CONSTRAINT period_order CHECK (opens_at < closes_at),
    CONSTRAINT period_closed_complete CHECK ((state = 'CLOSED') = (certificate_sha256 IS NOT NULL))
);
COMMENT ON COLUMN period.id IS 'Ordinal in the calendar: year * 12 + month - 1 for months; ascending in time without gaps';
COMMENT ON COLUMN period.imported IS 'History was booked here, so the first period is found by the data and not by the earliest terms';

-- ---------------------------------------------------------------- members and accounts

CREATE TABLE account (
    id                  bigint PRIMARY KEY,
    available           bigint NOT NULL CONSTRAINT account_available_not_negative CHECK (available >= 0),
    pending             bigint NOT NULL DEFAULT 0 CONSTRAINT account_pending_not_negative CHECK (pending >= 0),
    held                bigint NOT NULL DEFAULT 0 CONSTRAINT account_held_not_negative CHECK (held >= 0),
    next_expires_at     timestamptz
) WITH (fillfactor = 70);
COMMENT ON COLUMN account.next_expires_at IS 'No open lot of the account expires before this; a lower bound, null without open lots';

CREATE TABLE member (
    id                  bigint PRIMARY KEY,
    account_id          bigint NOT NULL CONSTRAINT member_account REFERENCES account,
    state               text NOT NULL DEFAULT 'ACTIVE' CONSTRAINT member_state CHECK (state IN ('ACTIVE', 'CLOSED')),
    enrolled_at         timestamptz NOT NULL,
    partner_id          integer NOT NULL,
    store_id            integer NOT NULL,
    channel             text,
    attributes          jsonb
);
COMMENT ON COLUMN member.partner_id IS 'Acquisition source: the partner that enrolled the member';
CREATE INDEX member_account_index ON member (account_id);

CREATE TABLE member_identifier (
    kind                text NOT NULL CONSTRAINT member_identifier_kind CHECK (kind IN ('card', 'email', 'phone')),
    value               text NOT NULL,
    member_id           bigint NOT NULL,
    partner_id          integer NOT NULL,
    PRIMARY KEY (kind, value)
);
CREATE INDEX member_identifier_member ON member_identifier (member_id);

-- ---------------------------------------------------------------- the ledger

CREATE TABLE command (
    id                  bigint PRIMARY KEY,
    partner_id          integer NOT NULL,
    idempotency_key     text NOT NULL,
    fingerprint         bytea NOT NULL,
    kind                text NOT NULL CONSTRAINT command_kind CHECK (kind IN ('ENROLL', 'EARN', 'BURN', 'REVERSAL', 'EXPIRY')),
    account_id          bigint NOT NULL,
    member_id           bigint NOT NULL,
    store_id            integer NOT NULL,
    reference           text,
    reference_unique    boolean NOT NULL,
    channel             text,
    amount_minor        bigint,
    eligible_minor      bigint,
    lines               text,
    points              bigint,
    whole               boolean NOT NULL,
    reverses_id         bigint,
    reason              text,
    input_digest        text,
    created_member      boolean NOT NULL,
    declined_points     bigint NOT NULL,
    occurred_at         timestamptz NOT NULL,
    recorded_at         timestamptz NOT NULL,
    period_id           integer NOT NULL,
    CONSTRAINT command_key_unique UNIQUE (partner_id, idempotency_key)
);
CREATE UNIQUE INDEX command_reference_unique ON command (partner_id, reference, kind, store_id) NULLS NOT DISTINCT WHERE reference_unique;
CREATE INDEX command_reference_free ON command (partner_id, reference, id) WHERE NOT reference_unique AND kind IN ('EARN', 'BURN');
CREATE INDEX command_reverses ON command (reverses_id) WHERE reverses_id IS NOT NULL;
CREATE INDEX command_account ON command (account_id, id);
CREATE INDEX command_partner ON command (partner_id, id);
CREATE INDEX command_period ON command (period_id);
COMMENT ON COLUMN command.whole IS 'A reversal that named no amount, lines or points: all that was left. amount_minor and points then hold what that was';
COMMENT ON COLUMN command.input_digest IS 'Keyed digest of enrolment input, so that the fingerprint covers it and no personal data stands here';
COMMENT ON COLUMN command.points IS 'Points asked for: of a burn, or of a burn refund; positive';

CREATE TABLE transaction (
    account_id              bigint NOT NULL,
    id                      bigint NOT NULL,
    command_id              bigint NOT NULL,
    kind                    text NOT NULL CONSTRAINT transaction_kind
                            CHECK (kind IN ('EARN', 'EARN_REVERSAL', 'BURN', 'BURN_REVERSAL', 'EXPIRE')),
    period_id               integer NOT NULL,
    partner_id              integer NOT NULL,
    party_id                integer NOT NULL,
    funder_id               integer,
    issuer_id               integer,
    store_id                integer NOT NULL,
    points                  bigint NOT NULL,
    requested_points        bigint NOT NULL,
    shortfall_points        bigint NOT NULL CONSTRAINT transaction_shortfall CHECK (shortfall_points >= 0),
    issue_value_micro       bigint NOT NULL,
    service_fee_micro       bigint NOT NULL,
    reimbursement_micro     bigint NOT NULL,
    breakage_share_micro    bigint NOT NULL,
    pool_value_micro        bigint NOT NULL,
    budget_id               bigint,
    budget_micro            bigint NOT NULL,
    terms_id                integer,
    rule_id                 integer,
    lot_id                  bigint,
    reverses_id             bigint,
    reverses_period_id      integer,
    occurred_at             timestamptz NOT NULL,
    recorded_at             timestamptz NOT NULL,
    row_hash                bigint NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT transaction_sign CHECK (CASE WHEN kind IN ('EARN', 'BURN_REVERSAL') THEN points >= 0 ELSE points <= 0 END)
);
CREATE INDEX transaction_command ON transaction (command_id, period_id);
CREATE INDEX transaction_reverses ON transaction (account_id, reverses_id) WHERE reverses_id IS NOT NULL;
CREATE INDEX transaction_period ON transaction (period_id, party_id, kind, command_id);
COMMENT ON COLUMN transaction.party_id IS 'Whose statement carries the money of the row: the funder of an award, the redeemer of a burn, the issuer of expired points; 0 the operator';
COMMENT ON COLUMN transaction.issue_value_micro IS 'Signed from the party''s side: an award is charged (negative), its reversal credited';
COMMENT ON COLUMN transaction.pool_value_micro IS 'Signed from the pool''s side: what the reward pool gains';
COMMENT ON COLUMN transaction.budget_micro IS 'What the row draws on budget_id; a credit is negative';

CREATE TABLE lot (
    account_id              bigint NOT NULL,
    id                      bigint NOT NULL,
    transaction_id          bigint NOT NULL,
    issuer_id               integer NOT NULL,
    funder_id               integer NOT NULL,
    terms_id                integer NOT NULL,
    price_micro             bigint NOT NULL,
    breakage_share_ppm      integer NOT NULL,
    granted                 bigint NOT NULL CONSTRAINT lot_granted CHECK (granted > 0),
    remaining               bigint NOT NULL CONSTRAINT lot_remaining CHECK (remaining BETWEEN 0 AND granted),
    reserved                bigint NOT NULL DEFAULT 0 CONSTRAINT lot_reserved CHECK (reserved >= 0),
    earned_at               timestamptz NOT NULL,
    expires_at              timestamptz NOT NULL,
    grace_until             timestamptz,
    parent_id               bigint,
    PRIMARY KEY (account_id, id)
) WITH (fillfactor = 85);
CREATE INDEX lot_open ON lot (account_id) WHERE remaining > 0;
COMMENT ON COLUMN lot.grace_until IS 'Set when a refund restores points after expires_at: they stay usable until then';

CREATE TABLE lot_use (
    account_id              bigint NOT NULL,
    id                      bigint NOT NULL,
    lot_id                  bigint NOT NULL,
    transaction_id          bigint NOT NULL,
    kind                    text NOT NULL CONSTRAINT lot_use_kind CHECK (kind IN ('BURN', 'BURN_REVERSAL', 'EARN_REVERSAL', 'EXPIRE')),
    points                  bigint NOT NULL CONSTRAINT lot_use_points CHECK (points > 0),
    period_id               integer NOT NULL,
    issuer_id               integer NOT NULL,
    funder_id               integer NOT NULL,
    redeemer_id             integer,
    price_micro             bigint NOT NULL,
    PRIMARY KEY (account_id, id)
);
CREATE INDEX lot_use_transaction ON lot_use (transaction_id);
CREATE INDEX lot_use_lot ON lot_use (account_id, lot_id);
CREATE INDEX lot_use_period ON lot_use (period_id);
COMMENT ON TABLE lot_use IS 'Which movement took points of which lot (BURN, EARN_REVERSAL, EXPIRE) or restored them (BURN_REVERSAL); points are positive';

CREATE TABLE budget (
    id                      bigint PRIMARY KEY,
    plan_id                 integer NOT NULL CONSTRAINT budget_plan_of REFERENCES budget_plan,
    partner_id              integer NOT NULL,
    period_id               integer NOT NULL,
    limit_micro             bigint NOT NULL,
    overdraft_micro         bigint NOT NULL,
    consumed_micro          bigint NOT NULL DEFAULT 0,
    reserved_micro          bigint NOT NULL DEFAULT 0 CONSTRAINT budget_reserved_not_negative CHECK (reserved_micro >= 0),
    alerted_at              timestamptz,
    CONSTRAINT budget_window_unique UNIQUE (plan_id, period_id),
    CONSTRAINT budget_not_exceeded CHECK (consumed_micro + reserved_micro <= limit_micro + overdraft_micro)
) WITH (fillfactor = 50);
CREATE INDEX budget_partner ON budget (partner_id, period_id);
COMMENT ON COLUMN budget.period_id IS 'The window of a budget per period; 0 for a single budget over all of its plan''s dates';
COMMENT ON COLUMN budget.alerted_at IS 'Since when consumed + reserved stand at or above the alert threshold; null below it';

CREATE TABLE position (
    period_id               integer NOT NULL CONSTRAINT position_period REFERENCES period,
    partner_id              integer NOT NULL,
    kind                    text NOT NULL,
    entries                 bigint NOT NULL,
    points                  numeric(38, 0) NOT NULL,
    amount_micro            numeric(38, 0) NOT NULL,
    prior_amount_micro      numeric(38, 0) NOT NULL,
    hash_sum                numeric(38, 0) NOT NULL,
    PRIMARY KEY (period_id, partner_id, kind)
) WITH (fillfactor = 50);
COMMENT ON TABLE position IS 'Running totals of a statement line; partner 0 carries POOL (every transaction of the period) and SUBSIDY (operator-funded money)';

CREATE TABLE partner_entry (
    id                      bigint PRIMARY KEY,
    period_id               integer NOT NULL,
    partner_id              integer NOT NULL,
    kind                    text NOT NULL CONSTRAINT partner_entry_kind CHECK (kind IN ('FIXED_FEE', 'ROUNDING')),
    line_kind               text,
    amount_micro            bigint NOT NULL,
    terms_id                integer,
    recorded_at             timestamptz NOT NULL,
    row_hash                bigint NOT NULL,
    CONSTRAINT partner_entry_once UNIQUE NULLS NOT DISTINCT (period_id, partner_id, kind, line_kind)
);
COMMENT ON COLUMN partner_entry.amount_micro IS 'Signed from the partner''s side; ROUNDING: billed minus exact of the line that line_kind names';

CREATE TABLE statement (
    period_id               integer NOT NULL CONSTRAINT statement_period REFERENCES period,
    partner_id              integer NOT NULL,
    net_minor               numeric(38, 0) NOT NULL,
    due_minor               numeric(38, 0) NOT NULL,
    shortfall_points        numeric(38, 0) NOT NULL,
    shortfall_value_micro   numeric(38, 0) NOT NULL,
    document                bytea NOT NULL,
    PRIMARY KEY (period_id, partner_id)
);
COMMENT ON COLUMN statement.document IS 'The canonical bytes of the statement (JSON, sorted keys) that the certificate hashes';

CREATE TABLE statement_line (
    period_id               integer NOT NULL,
    partner_id              integer NOT NULL,
    kind                    text NOT NULL,
    entries                 bigint NOT NULL,
    points                  numeric(38, 0),
    exact_micro             numeric(38, 0) NOT NULL,
    prior_exact_micro       numeric(38, 0) NOT NULL,
    billed_minor            numeric(38, 0) NOT NULL,
    PRIMARY KEY (period_id, partner_id, kind),
    CONSTRAINT statement_line_statement FOREIGN KEY (period_id, partner_id) REFERENCES statement
);

-- ---------------------------------------------------------------- what must never be, whoever asks

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation', CONSTRAINT = 'append_only';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON command FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transaction FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lot_use FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON partner_entry FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON statement FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON statement_line FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION require_open_period() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong integer;
BEGIN
    -- Once per statement over its new rows: a trigger per row costs more than the insert itself.
    SELECT min(n.period_id) INTO wrong
      FROM (SELECT DISTINCT period_id FROM new_rows) AS n LEFT JOIN period AS p ON p.id = n.period_id
     WHERE p.state IS DISTINCT FROM 'OPEN';
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'period % is not open: no row may be added to %', wrong, TG_TABLE_NAME
            USING ERRCODE = 'check_violation', CONSTRAINT = 'period_is_open';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER period_is_open AFTER INSERT ON command REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION require_open_period();
CREATE TRIGGER period_is_open AFTER INSERT ON transaction REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION require_open_period();
CREATE TRIGGER period_is_open AFTER INSERT ON lot_use REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION require_open_period();

CREATE FUNCTION require_period_state() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong integer;
BEGIN
    SELECT touched INTO wrong
      FROM unnest(ARRAY[CASE WHEN TG_OP <> 'DELETE' THEN NEW.period_id END, CASE WHEN TG_OP <> 'INSERT' THEN OLD.period_id END]) AS touched
     WHERE touched IS NOT NULL AND NOT EXISTS (SELECT FROM period WHERE id = touched AND state = TG_ARGV[0]);
    IF FOUND THEN
        RAISE EXCEPTION 'period % is not %: % of % refused', wrong, TG_ARGV[0], TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'check_violation', CONSTRAINT = 'period_state_required';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER period_state_required BEFORE INSERT OR UPDATE OR DELETE ON position FOR EACH ROW EXECUTE FUNCTION require_period_state('OPEN');
-- The rounding of the lines is known only after the audit, so it alone is booked while the period closes.
CREATE TRIGGER period_state_required BEFORE INSERT ON partner_entry FOR EACH ROW WHEN (NEW.kind <> 'ROUNDING') EXECUTE FUNCTION require_period_state('OPEN');
CREATE TRIGGER rounding_while_closing BEFORE INSERT ON partner_entry FOR EACH ROW WHEN (NEW.kind = 'ROUNDING') EXECUTE FUNCTION require_period_state('CLOSING');
CREATE TRIGGER period_state_required BEFORE INSERT ON statement FOR EACH ROW EXECUTE FUNCTION require_period_state('CLOSING');
CREATE TRIGGER period_state_required BEFORE INSERT ON statement_line FOR EACH ROW EXECUTE FUNCTION require_period_state('CLOSING');

CREATE FUNCTION guard_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a period is never deleted' USING ERRCODE = 'restrict_violation', CONSTRAINT = 'append_only';
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'OPEN' THEN
            RAISE EXCEPTION 'period % must begin OPEN', NEW.label USING ERRCODE = 'restrict_violation', CONSTRAINT = 'period_life';
        END IF;
        RETURN NEW;
    END IF;
    IF OLD.state = 'CLOSED'
       OR (OLD.state, NEW.state) NOT IN (('OPEN', 'OPEN'), ('OPEN', 'CLOSING'), ('CLOSING', 'CLOSING'), ('CLOSING', 'CLOSED'))
       OR (OLD.id, OLD.label, OLD.opens_at, OLD.closes_at) IS DISTINCT FROM (NEW.id, NEW.label, NEW.opens_at, NEW.closes_at) THEN
        RAISE EXCEPTION 'period %: % to % refused', OLD.label, OLD.state, NEW.state
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'period_life';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER period_life BEFORE INSERT OR UPDATE OR DELETE ON period FOR EACH ROW EXECUTE FUNCTION guard_period();

-- ---------------------------------------------------------------- double entry, derived (SETTLEMENT.md c.2)

CREATE VIEW ledger_entry WITH (security_invoker = true) AS
SELECT t.period_id, t.id AS transaction_id, NULL::bigint AS partner_entry_id, t.kind, e.unit, e.book, e.party_id, e.amount
  FROM transaction AS t CROSS JOIN LATERAL (VALUES
    ('POINTS', 'MEMBER', NULL::integer, t.points),
    ('POINTS', CASE t.kind WHEN 'EARN' THEN 'ISSUED' WHEN 'EARN_REVERSAL' THEN 'REVERSED' WHEN 'EXPIRE' THEN 'EXPIRED' ELSE 'BURNED' END,
               t.partner_id, -t.points),
    ('MONEY', CASE WHEN t.party_id = 0 THEN 'SUBSIDY' ELSE 'PARTNER' END, t.party_id,
              t.issue_value_micro + t.service_fee_micro + t.reimbursement_micro + t.breakage_share_micro),
    ('MONEY', 'POOL', 0, t.pool_value_micro),
    ('MONEY', 'FEES', 0, -t.service_fee_micro),
    ('MONEY', CASE t.kind WHEN 'EXPIRE' THEN 'BREAKAGE' ELSE 'SPREAD' END, 0,
              -t.issue_value_micro - t.reimbursement_micro - t.breakage_share_micro - t.pool_value_micro)
  ) AS e (unit, book, party_id, amount)
 WHERE e.amount <> 0
UNION ALL
SELECT p.period_id, NULL, p.id, p.kind, 'MONEY', e.book, e.party_id, e.amount
  FROM partner_entry AS p CROSS JOIN LATERAL (VALUES
    ('PARTNER', p.partner_id, p.amount_micro),
    (CASE p.kind WHEN 'FIXED_FEE' THEN 'FEES' ELSE 'ROUNDING' END, 0, -p.amount_micro)
  ) AS e (book, party_id, amount)
 WHERE e.amount <> 0;
COMMENT ON VIEW ledger_entry IS 'Every row of transaction and partner_entry as double entries after the journal table; each expansion sums to zero per unit';

-- ---------------------------------------------------------------- privileges

GRANT USAGE ON SCHEMA public TO coalition_posting, coalition_reading;
GRANT USAGE ON SEQUENCE ledger_id TO coalition_posting;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO coalition_posting;
GRANT INSERT ON programme, partner, store, terms, budget_plan, earn_rule, period, account, member, member_identifier,
    command, transaction, lot, lot_use, budget, position, partner_entry, statement, statement_line TO coalition_posting;
GRANT UPDATE ON programme, partner, store, terms, budget_plan, earn_rule, period, account, member, lot, budget, position TO coalition_posting;
GRANT UPDATE, DELETE ON member_identifier TO coalition_posting;
GRANT DELETE ON terms, budget_plan, earn_rule TO coalition_posting;
-- Issuer and price of a lot are for the operator and its issuer only (lot_use has them, behind a policy); balances need the rest.
GRANT SELECT (account_id, id, granted, remaining, reserved, earned_at, expires_at, grace_until) ON lot TO coalition_reading;
GRANT SELECT ON programme, partner, store, terms, budget_plan, earn_rule, period, account, member, member_identifier,
    command, transaction, lot_use, budget, position, partner_entry, statement, statement_line, ledger_entry TO coalition_reading;

-- Tenancy (second wall behind the resolvers): a read transaction names its viewer in coalition.viewer, a partner's id or
-- 0 for the operator. Unset means nobody: no row. The posting role serves mixed batches and is bounded by the commands.
CREATE FUNCTION viewer() RETURNS integer LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT nullif(current_setting('coalition.viewer', true), '')::integer $$;

ALTER TABLE command ENABLE ROW LEVEL SECURITY;
ALTER TABLE transaction ENABLE ROW LEVEL SECURITY;
ALTER TABLE lot_use ENABLE ROW LEVEL SECURITY;
ALTER TABLE budget ENABLE ROW LEVEL SECURITY;
ALTER TABLE budget_plan ENABLE ROW LEVEL SECURITY;
ALTER TABLE terms ENABLE ROW LEVEL SECURITY;
ALTER TABLE position ENABLE ROW LEVEL SECURITY;
ALTER TABLE partner_entry ENABLE ROW LEVEL SECURITY;
ALTER TABLE statement ENABLE ROW LEVEL SECURITY;
ALTER TABLE statement_line ENABLE ROW LEVEL SECURITY;

CREATE POLICY everything ON command TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON transaction TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON lot_use TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON budget TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON budget_plan TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON terms TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON position TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON partner_entry TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON statement TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON statement_line TO coalition_posting USING (true) WITH CHECK (true);

CREATE POLICY own_rows ON command FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON transaction FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id, party_id));
CREATE POLICY own_rows ON lot_use FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, issuer_id, redeemer_id));
CREATE POLICY own_rows ON budget FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON budget_plan FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON terms FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON position FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON partner_entry FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON statement FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON statement_line FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
