-- Reversals that arrive before what they reverse, at tills that were offline: kept until their original arrives.

CREATE TABLE early_reversal (
    id                  bigint PRIMARY KEY,
    partner_id          integer NOT NULL,
    idempotency_key     text NOT NULL,
    fingerprint         bytea NOT NULL,
    original_key        text,
    reference           text,
    kind                text CONSTRAINT early_reversal_kind CHECK (kind IN ('EARN', 'BURN')),
    store_id            integer NOT NULL,
    amount_minor        bigint,
    lines               text,
    points              bigint,
    reason              text,
    occurred_at         timestamptz NOT NULL,
    recorded_at         timestamptz NOT NULL,
    expires_at          timestamptz NOT NULL,
    state               text NOT NULL DEFAULT 'WAITING'
                        CONSTRAINT early_reversal_state CHECK (state IN ('WAITING', 'POSTED', 'REFUSED', 'EXPIRED')),
    command_id          bigint,
    refusal_code        text,
    CONSTRAINT early_reversal_names_one CHECK ((original_key IS NULL) <> (reference IS NULL)),
    CONSTRAINT early_reversal_outcome CHECK (
        (command_id IS NOT NULL) = (state = 'POSTED') AND (refusal_code IS NOT NULL) = (state = 'REFUSED'))
);
CREATE UNIQUE INDEX early_reversal_key ON early_reversal (partner_id, idempotency_key) WHERE state = 'WAITING';
CREATE INDEX early_reversal_original ON early_reversal (partner_id, original_key) WHERE state = 'WAITING';
CREATE INDEX early_reversal_reference ON early_reversal (partner_id, reference) WHERE state = 'WAITING';
CREATE INDEX early_reversal_due ON early_reversal (expires_at) WHERE state = 'WAITING';
CREATE INDEX early_reversal_partner ON early_reversal (partner_id, id);
COMMENT ON TABLE early_reversal IS 'A reversal that was sent before its original: posted together with it, or given up';
COMMENT ON COLUMN early_reversal.expires_at IS 'From here on no original can be accepted any more that happened before it';

-- What became of one is history.
CREATE FUNCTION guard_early_reversal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'reversal % is %: % refused', OLD.id, OLD.state, TG_OP
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'early_reversal_life';
END $$;
CREATE TRIGGER early_reversal_life BEFORE UPDATE ON early_reversal FOR EACH ROW WHEN (OLD.state <> 'WAITING') EXECUTE FUNCTION guard_early_reversal();

GRANT SELECT, INSERT ON early_reversal TO coalition_posting;
GRANT UPDATE (state, command_id, refusal_code) ON early_reversal TO coalition_posting;
GRANT SELECT ON early_reversal TO coalition_reading;
ALTER TABLE early_reversal ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON early_reversal TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON early_reversal FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
