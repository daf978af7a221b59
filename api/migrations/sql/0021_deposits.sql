-- Deposits: what a partner must leave with the operator against what it may come to owe, and what it paid in and got back.

CREATE TABLE deposit_requirement (
    partner_id          integer PRIMARY KEY CONSTRAINT deposit_requirement_partner REFERENCES partner,
    required_micro      bigint NOT NULL CONSTRAINT deposit_requirement_amount
                        CHECK (required_micro BETWEEN 0 AND 1000000000000000000)
);
COMMENT ON TABLE deposit_requirement IS
    'The deposit that the coalition file asks of a partner; beside the partner, because no rival may read it';

CREATE TABLE deposit_payment (
    id                  bigint PRIMARY KEY,
    idempotency_key     text CONSTRAINT deposit_payment_key_unique UNIQUE,
    proposal_id         bigint CONSTRAINT deposit_payment_proposal_unique UNIQUE
                        CONSTRAINT deposit_payment_proposal REFERENCES proposal,
    partner_id          integer NOT NULL CONSTRAINT deposit_payment_partner REFERENCES partner,
    amount_micro        bigint NOT NULL CONSTRAINT deposit_payment_amount
                        CHECK (amount_micro <> 0 AND abs(amount_micro) <= 1000000000000000000),
    value_date          date,
    bank_reference      text NOT NULL,
    recorded_at         timestamptz NOT NULL,
    recorded_by         text NOT NULL,
    CONSTRAINT deposit_payment_origin CHECK (CASE WHEN amount_micro > 0
        THEN num_nonnulls(idempotency_key, value_date) = 2 AND proposal_id IS NULL
        ELSE num_nonnulls(idempotency_key, value_date) = 0 AND proposal_id IS NOT NULL END)
);
CREATE UNIQUE INDEX deposit_payment_reference_unique ON deposit_payment (partner_id, bank_reference) WHERE amount_micro > 0;
CREATE INDEX deposit_payment_partner_index ON deposit_payment (partner_id, id);
COMMENT ON TABLE deposit_payment IS 'Money paid into a partner''s deposit, as the bank booked it, or out of it, as a proposal was approved';
COMMENT ON COLUMN deposit_payment.id IS 'Also the id of the partner entry that books it';
COMMENT ON COLUMN deposit_payment.amount_micro IS 'Positive: paid in; negative: paid out';
COMMENT ON COLUMN deposit_payment.bank_reference IS 'What the bank calls it; of money paid out, what the transfer is to carry';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON deposit_payment FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What is there is paid out once, whoever asks, and however many at a time.
CREATE FUNCTION guard_deposit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    held numeric;
BEGIN
    PERFORM FROM partner WHERE id = NEW.partner_id FOR NO KEY UPDATE;
    SELECT coalesce(sum(d.amount_micro), 0) INTO held FROM deposit_payment AS d WHERE d.partner_id = NEW.partner_id;
    IF held + NEW.amount_micro < 0 THEN
        RAISE EXCEPTION 'deposit of partner %: % taken of %', NEW.partner_id, -NEW.amount_micro, held
            USING ERRCODE = 'check_violation', CONSTRAINT = 'deposit_not_negative';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deposit_held BEFORE INSERT ON deposit_payment FOR EACH ROW
    WHEN (NEW.amount_micro < 0) EXECUTE FUNCTION guard_deposit();

-- A partner's deposit. What it owes is what its books say, open periods and disputes included: minus the sum of PARTNER in
-- ledger_entry. Positions have the lines of statements, the other entries are added.
CREATE VIEW deposit_account WITH (security_invoker = true) AS
SELECT p.id AS partner_id, coalesce(r.required_micro, 0) AS required_micro, coalesce(d.held_micro, 0) AS held_micro,
       greatest(-coalesce(q.amount_micro, 0) - coalesce(e.amount_micro, 0), 0) AS owes_micro,
       r.required_micro > 0 OR d.partner_id IS NOT NULL AS is_used
  FROM partner AS p
  LEFT JOIN deposit_requirement AS r ON r.partner_id = p.id
  LEFT JOIN (SELECT partner_id, sum(amount_micro) AS held_micro FROM deposit_payment GROUP BY partner_id) AS d
    ON d.partner_id = p.id
  LEFT JOIN (SELECT partner_id, sum(amount_micro) AS amount_micro FROM position GROUP BY partner_id) AS q
    ON q.partner_id = p.id
  LEFT JOIN (SELECT partner_id, sum(amount_micro) AS amount_micro FROM partner_entry
              WHERE kind IN ('ROUNDING', 'TAX', 'PAYMENT', 'DEPOSIT_USED', 'BAD_DEBT') GROUP BY partner_id) AS e
    ON e.partner_id = p.id;
COMMENT ON VIEW deposit_account IS 'By partner: the deposit asked of it, the one held, and what it owes by the books of this moment';

-- ---------------------------------------------------------------- paying out, by four eyes

ALTER TABLE proposal DROP CONSTRAINT proposal_kind;
ALTER TABLE proposal ADD CONSTRAINT proposal_kind
    CHECK (kind IN ('ADJUSTMENT', 'POINTS', 'OVERDRAFT', 'WRITE_OFF', 'DISPUTE', 'DEPOSIT_PAYOUT')) NOT VALID;
ALTER TABLE proposal VALIDATE CONSTRAINT proposal_kind;
ALTER TABLE proposal DROP CONSTRAINT proposal_shape;
ALTER TABLE proposal ADD CONSTRAINT proposal_shape CHECK (coalesce(CASE kind
    WHEN 'ADJUSTMENT' THEN amount_micro <> 0 AND num_nulls(of_period_id, of_line_kind) <> 1
        AND num_nonnulls(points, member_id, window_day, until, dispute_id) = 0
    WHEN 'POINTS' THEN num_nonnulls(points, member_id) = 2
        AND num_nonnulls(amount_micro, of_period_id, of_line_kind, window_day, until, dispute_id) = 0
    WHEN 'OVERDRAFT' THEN amount_micro > 0 AND window_day IS NOT NULL
        AND num_nonnulls(points, member_id, of_period_id, of_line_kind, dispute_id) = 0
    WHEN 'WRITE_OFF' THEN amount_micro > 0 AND of_period_id IS NOT NULL
        AND num_nonnulls(points, member_id, of_line_kind, window_day, until, dispute_id) = 0
    WHEN 'DISPUTE' THEN amount_micro >= 0 AND num_nulls(dispute_id, of_period_id, of_line_kind) = 0
        AND num_nonnulls(points, member_id, window_day, until) = 0
    WHEN 'DEPOSIT_PAYOUT' THEN amount_micro > 0
        AND num_nonnulls(points, member_id, of_period_id, of_line_kind, window_day, until, dispute_id) = 0
    END, false)) NOT VALID;
ALTER TABLE proposal VALIDATE CONSTRAINT proposal_shape;

-- ---------------------------------------------------------------- privileges

GRANT SELECT, INSERT, UPDATE ON deposit_requirement TO coalition_posting;
GRANT SELECT, INSERT ON deposit_payment TO coalition_posting;
GRANT SELECT ON deposit_requirement, deposit_payment, deposit_account TO coalition_reading;
GRANT SELECT ON deposit_account TO coalition_posting;

ALTER TABLE deposit_requirement ENABLE ROW LEVEL SECURITY;
ALTER TABLE deposit_payment ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON deposit_requirement TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON deposit_payment TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON deposit_requirement FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON deposit_payment FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
