-- Prepaid floats: what a partner paid in, block by block, and which movement drew on which; and when budget windows came
-- to their alert threshold.

-- PREPAID meant nothing until now: such budgets were limits like any other, and stay so until the file says it again.
UPDATE budget_plan SET funding = 'POSTPAID' WHERE funding = 'PREPAID';
ALTER TABLE budget_plan ADD CONSTRAINT budget_plan_float
    CHECK (funding <> 'PREPAID' OR (NOT per_period AND overdraft_micro = 0 AND on_limit <> 'OVERDRAFT')) NOT VALID;
ALTER TABLE budget_plan VALIDATE CONSTRAINT budget_plan_float;
COMMENT ON COLUMN budget_plan.limit_micro IS 'Limit of each of its windows; of a PREPAID one what its float opens with';

CREATE TABLE float_block (
    id                  bigint PRIMARY KEY,
    budget_id           bigint NOT NULL CONSTRAINT float_block_budget REFERENCES budget,
    partner_id          integer NOT NULL,
    amount_micro        bigint NOT NULL CONSTRAINT float_block_amount CHECK (amount_micro BETWEEN 1 AND 1000000000000000000),
    used_micro          bigint NOT NULL DEFAULT 0 CONSTRAINT float_block_used CHECK (used_micro BETWEEN 0 AND amount_micro),
    occurred_at         timestamptz NOT NULL,
    recorded_at         timestamptz NOT NULL,
    entry_id            bigint CONSTRAINT float_block_entry_unique UNIQUE,
    idempotency_key     text CONSTRAINT float_block_key_unique UNIQUE,
    bank_reference      text,
    note                text,
    CONSTRAINT float_block_origin CHECK (CASE WHEN id = budget_id THEN num_nonnulls(entry_id, idempotency_key) = 0
                                              ELSE num_nonnulls(entry_id, idempotency_key) = 2 END)
) WITH (fillfactor = 50);
CREATE INDEX float_block_budget_index ON float_block (budget_id, occurred_at, id);
COMMENT ON TABLE float_block IS 'Money that a partner paid in before it awarded points: drawn on oldest first, and given back where it was drawn';
COMMENT ON COLUMN float_block.id IS 'That of its budget window for what a float opened with, which was paid before these books';
COMMENT ON COLUMN float_block.occurred_at IS 'When the money came in: the age of the block';
COMMENT ON COLUMN float_block.entry_id IS 'The DEPOSIT in partner_entry that booked the money';

CREATE TABLE float_use (
    block_id            bigint NOT NULL,
    transaction_id      bigint NOT NULL,
    drawn_by_id         bigint NOT NULL,
    account_id          bigint NOT NULL,
    partner_id          integer NOT NULL,
    amount_micro        bigint NOT NULL CONSTRAINT float_use_amount CHECK (amount_micro <> 0),
    PRIMARY KEY (block_id, transaction_id),
    CONSTRAINT float_use_sign CHECK ((amount_micro > 0) = (drawn_by_id = transaction_id))
);
CREATE INDEX float_use_drawn_by ON float_use (drawn_by_id);
COMMENT ON TABLE float_use IS 'What a movement drew on a block, or, negative, gave back of what the movement drawn_by_id had drawn';

-- ---------------------------------------------------------------- alerts

CREATE TABLE budget_alert (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    budget_id           bigint NOT NULL CONSTRAINT budget_alert_budget REFERENCES budget,
    partner_id          integer NOT NULL,
    crossed_at          timestamptz NOT NULL,
    used_micro          bigint NOT NULL,
    limit_micro         bigint NOT NULL,
    CONSTRAINT budget_alert_once UNIQUE (budget_id, crossed_at)
);
CREATE INDEX budget_alert_partner ON budget_alert (partner_id, id);
COMMENT ON TABLE budget_alert IS 'Each time a budget window came to its alert threshold from below; the last one stands while budget.alerted_at says so';
COMMENT ON COLUMN budget_alert.used_micro IS 'Consumed and reserved just after';

INSERT INTO budget_alert (budget_id, partner_id, crossed_at, used_micro, limit_micro)
SELECT id, partner_id, alerted_at, consumed_micro + reserved_micro, limit_micro FROM budget
 WHERE alerted_at IS NOT NULL ORDER BY alerted_at, id;

-- Whoever changes a window (tills, apply, top-ups) says since when it is in alert; here it is kept that it was.
CREATE FUNCTION note_alert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO budget_alert (budget_id, partner_id, crossed_at, used_micro, limit_micro)
    VALUES (NEW.id, NEW.partner_id, NEW.alerted_at, NEW.consumed_micro + NEW.reserved_micro, NEW.limit_micro)
    ON CONFLICT ON CONSTRAINT budget_alert_once DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER budget_alerted AFTER UPDATE ON budget FOR EACH ROW
    WHEN (NEW.alerted_at IS NOT NULL AND NEW.alerted_at IS DISTINCT FROM OLD.alerted_at) EXECUTE FUNCTION note_alert();

-- ---------------------------------------------------------------- privileges

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON float_use FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON budget_alert FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON float_block, float_use, budget_alert TO coalition_posting;
GRANT UPDATE (used_micro) ON float_block TO coalition_posting;
GRANT SELECT ON float_block, float_use, budget_alert TO coalition_reading;

ALTER TABLE float_block ENABLE ROW LEVEL SECURITY;
ALTER TABLE float_use ENABLE ROW LEVEL SECURITY;
ALTER TABLE budget_alert ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON float_block TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON float_use TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON budget_alert TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON float_block FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON float_use FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON budget_alert FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
