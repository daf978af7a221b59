-- The full life of a point: awards that are pending first, points that are held for a burn, moved between accounts, or
-- adjusted by the operator; and the money of a partner that no account causes: tax, adjustments, payments, deposits.

ALTER TABLE command DROP CONSTRAINT command_kind;
ALTER TABLE command ADD CONSTRAINT command_kind CHECK (kind IN (
    'ENROLL', 'EARN', 'CONFIRMATION', 'BURN', 'AUTHORIZATION', 'CAPTURE', 'VOID', 'REVERSAL', 'EXPIRY', 'TRANSFER',
    'MERGE', 'UNMERGE', 'ADJUSTMENT')) NOT VALID;
ALTER TABLE command VALIDATE CONSTRAINT command_kind;
COMMENT ON COLUMN command.reverses_id IS
    'The earlier command that this one undoes (REVERSAL, UNMERGE), confirms (CONFIRMATION) or resolves (CAPTURE, VOID)';

ALTER TABLE transaction DROP CONSTRAINT transaction_kind;
ALTER TABLE transaction ADD CONSTRAINT transaction_kind CHECK (kind IN (
    'EARN', 'EARN_PENDING', 'CONFIRM', 'CANCEL', 'EARN_REVERSAL', 'BURN', 'HOLD', 'CAPTURE', 'RELEASE', 'BURN_REVERSAL',
    'EXPIRE', 'TRANSFER_OUT', 'TRANSFER_IN', 'ADJUST')) NOT VALID;
ALTER TABLE transaction VALIDATE CONSTRAINT transaction_kind;
ALTER TABLE transaction DROP CONSTRAINT transaction_sign;
ALTER TABLE transaction ADD CONSTRAINT transaction_sign CHECK (CASE
    WHEN kind IN ('EARN', 'EARN_PENDING', 'CONFIRM', 'RELEASE', 'BURN_REVERSAL', 'TRANSFER_IN') THEN points >= 0
    WHEN kind = 'ADJUST' THEN points <> 0
    ELSE points <= 0 END) NOT VALID;
ALTER TABLE transaction VALIDATE CONSTRAINT transaction_sign;
COMMENT ON COLUMN transaction.points IS
    'Signed from the member''s side. EARN_PENDING fills what is pending, CONFIRM moves it to available, CANCEL takes it'
    ' away; HOLD moves available points to held, RELEASE back, CAPTURE spends what is held';

ALTER TABLE lot_use DROP CONSTRAINT lot_use_kind;
ALTER TABLE lot_use ADD CONSTRAINT lot_use_kind CHECK (kind IN (
    'BURN', 'HOLD', 'CAPTURE', 'RELEASE', 'BURN_REVERSAL', 'EARN_REVERSAL', 'EXPIRE', 'TRANSFER_OUT', 'ADJUST')) NOT VALID;
ALTER TABLE lot_use VALIDATE CONSTRAINT lot_use_kind;
COMMENT ON TABLE lot_use IS
    'Which movement took points of which lot, set them aside (HOLD), spent what was set aside (CAPTURE), or gave them back'
    ' (RELEASE, BURN_REVERSAL); points are positive';

-- ---------------------------------------------------------------- pending awards

CREATE TABLE pending_award (
    account_id          bigint NOT NULL,
    id                  bigint NOT NULL,
    transaction_id      bigint NOT NULL,
    command_id          bigint NOT NULL,
    member_id           bigint NOT NULL,
    partner_id          integer NOT NULL,
    issuer_id           integer NOT NULL,
    funder_id           integer NOT NULL,
    terms_id            integer NOT NULL,
    rule_id             integer,
    budget_id           bigint,
    granted             bigint NOT NULL CONSTRAINT pending_award_granted CHECK (granted > 0),
    open_points         bigint NOT NULL CONSTRAINT pending_award_open CHECK (open_points BETWEEN 0 AND granted),
    reserved_micro      bigint NOT NULL CONSTRAINT pending_award_reserved CHECK (reserved_micro >= 0),
    release_at          timestamptz NOT NULL,
    waits_for_payment   boolean NOT NULL,
    earned_at           timestamptz NOT NULL,
    PRIMARY KEY (account_id, id)
) WITH (fillfactor = 70);
CREATE INDEX pending_award_command ON pending_award (command_id);
CREATE INDEX pending_award_due ON pending_award (release_at) WHERE open_points > 0 AND NOT waits_for_payment;
COMMENT ON TABLE pending_award IS 'An award that is not usable yet: confirmed into a lot, or cancelled by a return';
COMMENT ON COLUMN pending_award.id IS 'Also the id of the lot that its confirmation opens';
COMMENT ON COLUMN pending_award.reserved_micro IS 'What it still reserves of its budget; 0 where it draws on none';
COMMENT ON COLUMN pending_award.waits_for_payment IS 'Not released before the partner said that the money came in';

-- ---------------------------------------------------------------- holds

CREATE TABLE hold (
    account_id          bigint NOT NULL,
    id                  bigint NOT NULL,
    command_id          bigint NOT NULL CONSTRAINT hold_command_unique UNIQUE,
    transaction_id      bigint NOT NULL,
    partner_id          integer NOT NULL,
    points              bigint NOT NULL CONSTRAINT hold_points CHECK (points > 0),
    captured            bigint NOT NULL DEFAULT 0 CONSTRAINT hold_captured CHECK (captured >= 0),
    released            bigint NOT NULL DEFAULT 0 CONSTRAINT hold_released CHECK (released >= 0),
    state               text NOT NULL DEFAULT 'OPEN'
                        CONSTRAINT hold_state CHECK (state IN ('OPEN', 'CAPTURED', 'VOIDED', 'EXPIRED')),
    expires_at          timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT hold_resolves_once CHECK (CASE state
        WHEN 'OPEN' THEN captured = 0 AND released = 0
        WHEN 'CAPTURED' THEN captured > 0 AND captured + released = points
        ELSE captured = 0 AND released = points END)
) WITH (fillfactor = 70);
CREATE INDEX hold_due ON hold (expires_at) WHERE state = 'OPEN';
CREATE INDEX hold_account_open ON hold (account_id) WHERE state = 'OPEN';
COMMENT ON TABLE hold IS 'Points set aside by an authorization: captured once, in full or in part, or released';

-- A resolved hold is history: it neither opens again nor goes away, whoever asks.
CREATE FUNCTION guard_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.state <> 'OPEN'
       OR (OLD.account_id, OLD.id, OLD.command_id, OLD.transaction_id, OLD.partner_id, OLD.points)
          IS DISTINCT FROM (NEW.account_id, NEW.id, NEW.command_id, NEW.transaction_id, NEW.partner_id, NEW.points) THEN
        RAISE EXCEPTION 'hold % is %: % refused', OLD.id, OLD.state, TG_OP
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'hold_life';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER hold_life BEFORE UPDATE OR DELETE ON hold FOR EACH ROW EXECUTE FUNCTION guard_hold();

-- ---------------------------------------------------------------- money of a partner that no account causes

ALTER TABLE partner_entry DROP CONSTRAINT partner_entry_kind;
ALTER TABLE partner_entry ADD CONSTRAINT partner_entry_kind CHECK (kind IN (
    'FIXED_FEE', 'ROUNDING', 'TAX', 'ADJUSTMENT', 'PAYMENT', 'DEPOSIT', 'DEPOSIT_USED', 'BAD_DEBT')) NOT VALID;
ALTER TABLE partner_entry VALIDATE CONSTRAINT partner_entry_kind;
ALTER TABLE partner_entry DROP CONSTRAINT partner_entry_once;
CREATE UNIQUE INDEX partner_entry_once ON partner_entry (period_id, partner_id, kind, line_kind) NULLS NOT DISTINCT
    WHERE kind IN ('FIXED_FEE', 'ROUNDING', 'TAX');

-- ---------------------------------------------------------------- double entry, derived (SETTLEMENT.md c.2)

CREATE OR REPLACE VIEW ledger_entry WITH (security_invoker = true) AS
SELECT t.period_id, t.id AS transaction_id, NULL::bigint AS partner_entry_id, t.kind, e.unit, e.book, e.party_id, e.amount
  FROM transaction AS t CROSS JOIN LATERAL (VALUES
    ('POINTS', CASE WHEN t.kind IN ('EARN_PENDING', 'CANCEL') THEN 'PENDING' WHEN t.kind = 'CAPTURE' THEN 'RESERVED'
                    ELSE 'MEMBER' END, NULL::integer, t.points),
    ('POINTS', CASE WHEN t.kind IN ('EARN', 'EARN_PENDING') THEN 'ISSUED' WHEN t.kind = 'CONFIRM' THEN 'PENDING'
                    WHEN t.kind IN ('CANCEL', 'EARN_REVERSAL') THEN 'REVERSED'
                    WHEN t.kind IN ('HOLD', 'RELEASE') THEN 'RESERVED' WHEN t.kind = 'EXPIRE' THEN 'EXPIRED'
                    WHEN t.kind IN ('TRANSFER_OUT', 'TRANSFER_IN') THEN 'TRANSFERRED' WHEN t.kind = 'ADJUST' THEN 'ADJUSTED'
                    ELSE 'BURNED' END,
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
    (CASE p.kind WHEN 'DEPOSIT' THEN 'DEPOSIT' ELSE 'PARTNER' END, p.partner_id, p.amount_micro),
    (CASE p.kind WHEN 'FIXED_FEE' THEN 'FEES' WHEN 'ROUNDING' THEN 'ROUNDING' WHEN 'TAX' THEN 'TAX'
                 WHEN 'ADJUSTMENT' THEN 'ADJUSTMENTS' WHEN 'DEPOSIT_USED' THEN 'DEPOSIT' WHEN 'BAD_DEBT' THEN 'BAD_DEBT'
                 ELSE 'BANK' END,
     CASE p.kind WHEN 'DEPOSIT_USED' THEN p.partner_id ELSE 0 END, -p.amount_micro)
  ) AS e (book, party_id, amount)
 WHERE e.amount <> 0;

-- ---------------------------------------------------------------- privileges

GRANT SELECT, INSERT ON pending_award, hold TO coalition_posting;
GRANT UPDATE (open_points, reserved_micro, release_at, waits_for_payment) ON pending_award TO coalition_posting;
GRANT UPDATE (captured, released, state) ON hold TO coalition_posting;
GRANT SELECT ON pending_award, hold TO coalition_reading;

ALTER TABLE pending_award ENABLE ROW LEVEL SECURITY;
ALTER TABLE hold ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON pending_award TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON hold TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON pending_award FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id, funder_id));
CREATE POLICY own_rows ON hold FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
