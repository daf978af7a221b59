-- What a return could not take because a hold had set it aside: it is taken if the hold lets the points go.

-- What comes back makes the shortfall good: never more than the row takes.
ALTER TABLE transaction DROP CONSTRAINT transaction_shortfall;
ALTER TABLE transaction ADD CONSTRAINT transaction_shortfall CHECK (
    shortfall_points >= 0 OR (kind = 'EARN_REVERSAL' AND shortfall_points >= points)) NOT VALID;
ALTER TABLE transaction VALIDATE CONSTRAINT transaction_shortfall;
COMMENT ON COLUMN transaction.shortfall_points IS
    'Points of a return that could not be taken back and stay charged; negative: points that made such a shortfall good';

CREATE TABLE recall (
    account_id              bigint NOT NULL,
    hold_id                 bigint NOT NULL,
    lot_id                  bigint NOT NULL,
    missing_account_id      bigint NOT NULL,
    missing_id              bigint NOT NULL,
    place                   integer NOT NULL,
    taken_points            bigint NOT NULL DEFAULT 0 CONSTRAINT recall_taken CHECK (taken_points >= 0),
    PRIMARY KEY (account_id, hold_id, missing_id, lot_id)
) WITH (fillfactor = 70);
CREATE INDEX recall_missing ON recall (missing_account_id, missing_id);
COMMENT ON TABLE recall IS 'A lot of which a hold had set points aside when a return would have taken them';
COMMENT ON COLUMN recall.missing_id IS 'The movement of the return that carries the shortfall, of the account missing_account_id';
COMMENT ON COLUMN recall.place IS 'Where the lot stood among those that the return would have taken, first ones first';
COMMENT ON COLUMN recall.taken_points IS 'How many of them made the shortfall good when the hold was resolved';

-- A hold is resolved once, and so is what is taken of it.
CREATE FUNCTION guard_recall() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.taken_points <> 0
       OR (OLD.account_id, OLD.hold_id, OLD.lot_id, OLD.missing_account_id, OLD.missing_id, OLD.place)
          IS DISTINCT FROM (NEW.account_id, NEW.hold_id, NEW.lot_id, NEW.missing_account_id, NEW.missing_id, NEW.place) THEN
        RAISE EXCEPTION 'recall of hold %: % refused', OLD.hold_id, TG_OP
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'recall_life';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER recall_life BEFORE UPDATE OR DELETE ON recall FOR EACH ROW EXECUTE FUNCTION guard_recall();

GRANT SELECT, INSERT ON recall TO coalition_posting;
GRANT UPDATE (taken_points) ON recall TO coalition_posting;
GRANT SELECT ON recall TO coalition_reading;
ALTER TABLE recall ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON recall TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON recall FOR SELECT TO coalition_reading USING ((SELECT viewer()) = 0);

SELECT seal_table('recall', 'concat_ws('' '', r.account_id, r.hold_id, r.missing_id, r.lot_id)', 'taken_points');
CREATE TRIGGER seal_new AFTER INSERT ON recall REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
