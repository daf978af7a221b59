-- What awards drew on money that was paid in before is credited on the statement: it comes out of the deposit.

ALTER TABLE partner_entry DROP CONSTRAINT partner_entry_kind;
ALTER TABLE partner_entry ADD CONSTRAINT partner_entry_kind CHECK (kind IN (
    'FIXED_FEE', 'FLOAT_USED', 'ROUNDING', 'TAX', 'ADJUSTMENT', 'PAYMENT', 'DEPOSIT', 'DEPOSIT_USED', 'BAD_DEBT')) NOT VALID;
ALTER TABLE partner_entry VALIDATE CONSTRAINT partner_entry_kind;
DROP INDEX partner_entry_once;
CREATE UNIQUE INDEX partner_entry_once ON partner_entry (period_id, partner_id, kind, line_kind) NULLS NOT DISTINCT
    WHERE kind IN ('FIXED_FEE', 'FLOAT_USED', 'ROUNDING', 'TAX');
COMMENT ON COLUMN partner_entry.line_kind IS
    'The line that it rounds, taxes or corrects; of FLOAT_USED, PREPAID where it takes back what an earlier period credited';

ALTER TABLE period ADD COLUMN deposit_change_micro numeric(38, 0) NOT NULL DEFAULT 0;
COMMENT ON COLUMN period.deposit_change_micro IS
    'By how much its statements change what partners have paid in before: minus the sum of its FLOAT_USED';

-- A close that began before there was such an entry has booked none, and nothing that it charged is taken back as if.
ALTER TABLE period ADD COLUMN credits_floats boolean NOT NULL DEFAULT false;
ALTER TABLE period ALTER COLUMN credits_floats SET DEFAULT true;
UPDATE period SET credits_floats = true WHERE state = 'OPEN';
COMMENT ON COLUMN period.credits_floats IS
    'Whether its statements credit what its movements drew on paid blocks; false only of periods that were closed, or closing, before version 0028';

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
                 WHEN 'ADJUSTMENT' THEN 'ADJUSTMENTS' WHEN 'FLOAT_USED' THEN 'DEPOSIT' WHEN 'DEPOSIT_USED' THEN 'DEPOSIT'
                 WHEN 'BAD_DEBT' THEN 'BAD_DEBT' ELSE 'BANK' END,
     CASE WHEN p.kind IN ('FLOAT_USED', 'DEPOSIT_USED') THEN p.partner_id ELSE 0 END, -p.amount_micro)
  ) AS e (book, party_id, amount)
 WHERE e.amount <> 0;
