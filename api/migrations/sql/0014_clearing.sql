-- The clearing calendar, and payments: which statement each of them pays.

ALTER TABLE programme
    ADD COLUMN advice_days integer NOT NULL DEFAULT 0 CONSTRAINT programme_advice CHECK (advice_days BETWEEN 0 AND 366),
    ADD COLUMN dispute_days integer NOT NULL DEFAULT 7 CONSTRAINT programme_dispute CHECK (dispute_days BETWEEN 0 AND 366),
    ADD COLUMN call_days integer NOT NULL DEFAULT 14 CONSTRAINT programme_call CHECK (call_days BETWEEN 0 AND 732),
    ADD COLUMN minimum_settlement_micro bigint NOT NULL DEFAULT 0 CONSTRAINT programme_minimum_settlement
        CHECK (minimum_settlement_micro BETWEEN 0 AND 1000000000000000000);
COMMENT ON COLUMN programme.advice_days IS 'Calendar days from a period''s end to the day on which statements are advised';
COMMENT ON COLUMN programme.dispute_days IS 'Calendar days from the advice on in which a statement may be disputed';
COMMENT ON COLUMN programme.call_days IS 'Calendar days from a period''s end to the day on which what is due is to be paid';

ALTER TABLE period
    ADD COLUMN advice_at timestamptz,
    ADD COLUMN dispute_until timestamptz,
    ADD COLUMN due_at timestamptz,
    ADD COLUMN minimum_minor bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN period.due_at IS 'The calendar as it was when the period was closed; null where that was before there was one';
COMMENT ON COLUMN period.minimum_minor IS 'The smallest amount that its statements let be paid';

ALTER TABLE statement
    ADD COLUMN carried_in_minor numeric(38, 0) NOT NULL DEFAULT 0,
    ADD COLUMN carried_on_minor numeric(38, 0) NOT NULL DEFAULT 0;
COMMENT ON COLUMN statement.carried_in_minor IS 'What the partner''s statement before left, being too little to be paid';
COMMENT ON COLUMN statement.carried_on_minor IS 'What this one leaves to the next; due = net + carried in - carried on';

CREATE TABLE payment (
    id                  bigint PRIMARY KEY,
    idempotency_key     text NOT NULL CONSTRAINT payment_key_unique UNIQUE,
    partner_id          integer NOT NULL,
    period_id           integer NOT NULL,
    amount_minor        bigint NOT NULL CONSTRAINT payment_amount CHECK (amount_minor <> 0),
    value_date          date NOT NULL,
    bank_reference      text NOT NULL,
    recorded_at         timestamptz NOT NULL,
    recorded_by         text NOT NULL,
    CONSTRAINT payment_statement FOREIGN KEY (period_id, partner_id) REFERENCES statement
);
CREATE INDEX payment_of_statement ON payment (period_id, partner_id);
COMMENT ON TABLE payment IS 'A payment between operator and partner, as the bank booked it; pays the statement of one period';
COMMENT ON COLUMN payment.id IS 'Also the id of the partner entry that books it';
COMMENT ON COLUMN payment.amount_minor IS 'Signed as the statement''s due: positive where the operator paid, so minus its partner entry';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON payment FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What is left of a closed statement, signed as its due.
CREATE VIEW statement_balance WITH (security_invoker = true) AS
SELECT s.period_id, s.partner_id, s.due_minor, p.paid_minor, w.written_off_minor,
       s.due_minor - p.paid_minor + w.written_off_minor AS open_minor
  FROM statement AS s
 CROSS JOIN LATERAL (SELECT coalesce(sum(y.amount_minor), 0) AS paid_minor FROM payment AS y
                      WHERE y.period_id = s.period_id AND y.partner_id = s.partner_id) AS p
 CROSS JOIN LATERAL (SELECT div(coalesce(sum(a.amount_micro), 0),
                                power(10::numeric, 6 - (SELECT currency_digits FROM programme))) AS written_off_minor
                       FROM adjustment AS a
                      WHERE a.of_period_id = s.period_id AND a.partner_id = s.partner_id AND a.kind = 'BAD_DEBT') AS w;
COMMENT ON VIEW statement_balance IS 'What is due of a closed statement, what was paid and written off of it, and what is left open';

GRANT SELECT ON statement_balance TO coalition_posting, coalition_reading;
GRANT SELECT, INSERT ON payment TO coalition_posting;
GRANT SELECT ON payment TO coalition_reading;
ALTER TABLE payment ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON payment TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON payment FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
