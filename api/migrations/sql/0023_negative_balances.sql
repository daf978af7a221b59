-- Balances below zero, where the programme allows them: what a return could not take back is owed by the member until
-- later points pay it back.

ALTER TABLE programme ADD COLUMN negative_limit_points bigint;
ALTER TABLE programme DROP CONSTRAINT programme_claw_back;
ALTER TABLE programme ADD CONSTRAINT programme_claw_back
    CHECK (claw_back IN ('own_lot_then_issuer', 'all_lots', 'negative_balance')) NOT VALID;
ALTER TABLE programme VALIDATE CONSTRAINT programme_claw_back;
ALTER TABLE programme ADD CONSTRAINT programme_negative_limit CHECK (
    negative_limit_points IS NULL OR (negative_limit_points > 0 AND claw_back = 'negative_balance')) NOT VALID;
ALTER TABLE programme VALIDATE CONSTRAINT programme_negative_limit;
COMMENT ON COLUMN programme.negative_limit_points IS 'Most points that an account may owe; null: no limit';

ALTER TABLE account ADD COLUMN owed bigint NOT NULL DEFAULT 0;
ALTER TABLE account ADD CONSTRAINT account_owed_not_negative CHECK (owed >= 0) NOT VALID;
ALTER TABLE account VALIDATE CONSTRAINT account_owed_not_negative;
CREATE INDEX account_owing ON account (id) WHERE owed > 0;
COMMENT ON COLUMN account.available IS 'Points of its lots that may be used; the member sees them less what is owed';
COMMENT ON COLUMN account.owed IS 'Open points of its debts';

CREATE TABLE debt (
    account_id          bigint NOT NULL,
    id                  bigint NOT NULL,
    command_id          bigint NOT NULL,
    member_id           bigint NOT NULL,
    period_id           integer NOT NULL,
    funder_id           integer NOT NULL,
    terms_id            integer NOT NULL,
    price_micro         bigint NOT NULL,
    points              bigint NOT NULL CONSTRAINT debt_points CHECK (points > 0),
    open_points         bigint NOT NULL CONSTRAINT debt_open CHECK (open_points BETWEEN 0 AND points),
    PRIMARY KEY (account_id, id)
) WITH (fillfactor = 70);
COMMENT ON TABLE debt IS 'Points of a return that no lot gave: the funder was credited, and the member owes them until they are earned back';
COMMENT ON COLUMN debt.id IS 'The OVERDRAW movement that made it; REPAY movements name it in reverses_id';
COMMENT ON COLUMN debt.command_id IS 'The return';
COMMENT ON COLUMN debt.price_micro IS 'The issue price that the funder was credited: open points x price is the MEMBER_RECEIVABLE';

-- What is paid back stays paid back, and a debt that somebody forgives is paid by an adjustment: nothing else ends one.
CREATE FUNCTION guard_debt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR NEW.open_points > OLD.open_points
       OR (OLD.account_id, OLD.id, OLD.command_id, OLD.member_id, OLD.period_id, OLD.funder_id, OLD.terms_id,
           OLD.price_micro, OLD.points)
          IS DISTINCT FROM (NEW.account_id, NEW.id, NEW.command_id, NEW.member_id, NEW.period_id, NEW.funder_id,
                            NEW.terms_id, NEW.price_micro, NEW.points) THEN
        RAISE EXCEPTION 'debt %: % refused', OLD.id, TG_OP
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'debt_life';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER debt_life BEFORE UPDATE OR DELETE ON debt FOR EACH ROW EXECUTE FUNCTION guard_debt();

ALTER TABLE command DROP CONSTRAINT command_kind;
ALTER TABLE command ADD CONSTRAINT command_kind CHECK (kind IN (
    'ENROLL', 'EARN', 'CONFIRMATION', 'BURN', 'AUTHORIZATION', 'CAPTURE', 'VOID', 'REVERSAL', 'EXPIRY', 'TRANSFER',
    'MERGE', 'UNMERGE', 'ADJUSTMENT', 'REPAYMENT')) NOT VALID;
ALTER TABLE command VALIDATE CONSTRAINT command_kind;
COMMENT ON COLUMN command.reverses_id IS
    'The earlier command that this one undoes (REVERSAL, UNMERGE), confirms (CONFIRMATION), resolves (CAPTURE, VOID), or'
    ' whose debt it pays back (REPAYMENT)';

ALTER TABLE transaction DROP CONSTRAINT transaction_kind;
ALTER TABLE transaction ADD CONSTRAINT transaction_kind CHECK (kind IN (
    'EARN', 'EARN_PENDING', 'CONFIRM', 'CANCEL', 'EARN_REVERSAL', 'OVERDRAW', 'REPAY', 'BURN', 'HOLD', 'CAPTURE',
    'RELEASE', 'BURN_REVERSAL', 'EXPIRE', 'TRANSFER_OUT', 'TRANSFER_IN', 'ADJUST')) NOT VALID;
ALTER TABLE transaction VALIDATE CONSTRAINT transaction_kind;
COMMENT ON COLUMN transaction.points IS
    'Signed from the member''s side. EARN_PENDING fills what is pending, CONFIRM moves it to available, CANCEL takes it'
    ' away; HOLD moves available points to held, RELEASE back, CAPTURE spends what is held; OVERDRAW takes what no lot'
    ' has, REPAY takes available points for it';
COMMENT ON COLUMN transaction.issue_value_micro IS
    'Signed from the party''s side: an award is charged (negative), its reversal credited. Of a REPAY: by how much the'
    ' member owes less';

ALTER TABLE lot_use DROP CONSTRAINT lot_use_kind;
ALTER TABLE lot_use ADD CONSTRAINT lot_use_kind CHECK (kind IN (
    'BURN', 'HOLD', 'CAPTURE', 'RELEASE', 'BURN_REVERSAL', 'EARN_REVERSAL', 'REPAY', 'EXPIRE', 'TRANSFER_OUT',
    'TRANSFER_IN', 'ADJUST')) NOT VALID;
ALTER TABLE lot_use VALIDATE CONSTRAINT lot_use_kind;

ALTER TABLE period ADD COLUMN receivable_change_micro numeric(38, 0) NOT NULL DEFAULT 0;
COMMENT ON COLUMN period.receivable_change_micro IS
    'By how much members owe the operator more: credited to partners, and not got from the pool';

-- ---------------------------------------------------------------- double entry, derived (SETTLEMENT.md c.2)

CREATE OR REPLACE VIEW ledger_entry WITH (security_invoker = true) AS
SELECT t.period_id, t.id AS transaction_id, NULL::bigint AS partner_entry_id, t.kind, e.unit, e.book, e.party_id, e.amount
  FROM transaction AS t CROSS JOIN LATERAL (VALUES
    ('POINTS', CASE WHEN t.kind IN ('EARN_PENDING', 'CANCEL') THEN 'PENDING' WHEN t.kind = 'CAPTURE' THEN 'RESERVED'
                    WHEN t.kind = 'OVERDRAW' THEN 'OWED' ELSE 'MEMBER' END, NULL::integer, t.points),
    ('POINTS', CASE WHEN t.kind IN ('EARN', 'EARN_PENDING') THEN 'ISSUED' WHEN t.kind = 'CONFIRM' THEN 'PENDING'
                    WHEN t.kind IN ('CANCEL', 'EARN_REVERSAL', 'OVERDRAW') THEN 'REVERSED'
                    WHEN t.kind IN ('HOLD', 'RELEASE') THEN 'RESERVED' WHEN t.kind = 'EXPIRE' THEN 'EXPIRED'
                    WHEN t.kind IN ('TRANSFER_OUT', 'TRANSFER_IN') THEN 'TRANSFERRED' WHEN t.kind = 'ADJUST' THEN 'ADJUSTED'
                    WHEN t.kind = 'REPAY' THEN 'OWED' ELSE 'BURNED' END,
               t.partner_id, -t.points),
    ('MONEY', CASE WHEN t.kind = 'REPAY' THEN 'MEMBER_RECEIVABLE' WHEN t.party_id = 0 THEN 'SUBSIDY' ELSE 'PARTNER' END,
              t.party_id,
              t.issue_value_micro + t.service_fee_micro + t.reimbursement_micro + t.breakage_share_micro),
    ('MONEY', 'POOL', 0, t.pool_value_micro),
    ('MONEY', 'FEES', 0, -t.service_fee_micro),
    ('MONEY', CASE t.kind WHEN 'EXPIRE' THEN 'BREAKAGE' WHEN 'OVERDRAW' THEN 'MEMBER_RECEIVABLE' ELSE 'SPREAD' END, 0,
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

GRANT SELECT, INSERT ON debt TO coalition_posting;
GRANT UPDATE (open_points) ON debt TO coalition_posting;
GRANT SELECT ON debt TO coalition_reading;
ALTER TABLE debt ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON debt TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON debt FOR SELECT TO coalition_reading USING ((SELECT viewer()) = 0);
