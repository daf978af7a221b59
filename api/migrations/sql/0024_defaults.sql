-- Default: a due statement that its partner does not pay is covered by what the operator owes the partner, then by the
-- deposit, and the rest is bad debt. And what is paid later of what was written off.

CREATE TABLE partner_default (
    proposal_id         bigint PRIMARY KEY CONSTRAINT partner_default_proposal REFERENCES proposal,
    period_id           integer NOT NULL,
    partner_id          integer NOT NULL,
    owed_micro          bigint NOT NULL CONSTRAINT partner_default_owed CHECK (owed_micro > 0),
    offset_micro        bigint NOT NULL CONSTRAINT partner_default_offset CHECK (offset_micro >= 0),
    deposit_micro       bigint NOT NULL CONSTRAINT partner_default_deposit CHECK (deposit_micro >= 0),
    bad_debt_micro      bigint NOT NULL CONSTRAINT partner_default_bad_debt CHECK (bad_debt_micro >= 0),
    deposit_entry_id    bigint CONSTRAINT partner_default_deposit_entry_unique UNIQUE
                        CONSTRAINT partner_default_deposit_entry REFERENCES partner_entry,
    bad_debt_entry_id   bigint CONSTRAINT partner_default_bad_debt_entry_unique UNIQUE
                        CONSTRAINT partner_default_bad_debt_entry REFERENCES partner_entry,
    declared_at         timestamptz NOT NULL,
    CONSTRAINT partner_default_statement FOREIGN KEY (period_id, partner_id) REFERENCES statement,
    CONSTRAINT partner_default_whole CHECK (owed_micro = offset_micro + deposit_micro + bad_debt_micro),
    CONSTRAINT partner_default_booked CHECK ((deposit_micro > 0) = (deposit_entry_id IS NOT NULL)
                                             AND (bad_debt_micro > 0) = (bad_debt_entry_id IS NOT NULL))
);
CREATE INDEX partner_default_of_statement ON partner_default (period_id, partner_id);
CREATE INDEX partner_default_partner ON partner_default (partner_id);
COMMENT ON TABLE partner_default IS 'What covered a statement that its partner did not pay, in this order: offset, deposit, bad debt';
COMMENT ON COLUMN partner_default.offset_micro IS
    'Out of statements of which the operator owed the partner (default_offset); both sides are its own account, so no entry';
COMMENT ON COLUMN partner_default.deposit_entry_id IS 'The DEPOSIT_USED in partner_entry, and bad_debt_entry_id the BAD_DEBT';

CREATE TABLE default_offset (
    proposal_id         bigint NOT NULL CONSTRAINT default_offset_default REFERENCES partner_default,
    period_id           integer NOT NULL,
    partner_id          integer NOT NULL,
    amount_micro        bigint NOT NULL CONSTRAINT default_offset_amount CHECK (amount_micro > 0),
    PRIMARY KEY (proposal_id, period_id),
    CONSTRAINT default_offset_statement FOREIGN KEY (period_id, partner_id) REFERENCES statement
);
CREATE INDEX default_offset_of_statement ON default_offset (period_id, partner_id);
COMMENT ON TABLE default_offset IS 'What a default took of a statement of which the operator owed the partner';

CREATE TABLE recovery (
    entry_id            bigint PRIMARY KEY CONSTRAINT recovery_entry REFERENCES partner_entry,
    payment_id          bigint NOT NULL CONSTRAINT recovery_payment_unique UNIQUE
                        CONSTRAINT recovery_payment REFERENCES payment,
    period_id           integer NOT NULL,
    partner_id          integer NOT NULL,
    amount_micro        bigint NOT NULL CONSTRAINT recovery_amount CHECK (amount_micro <> 0),
    CONSTRAINT recovery_statement FOREIGN KEY (period_id, partner_id) REFERENCES statement
);
CREATE INDEX recovery_of_statement ON recovery (period_id, partner_id);
COMMENT ON TABLE recovery IS 'What a payment brought in of a statement''s written off part: its BAD_DEBT entry takes that back';
COMMENT ON COLUMN recovery.amount_micro IS 'Positive; negative where the payment was sent back';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON partner_default FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON default_offset FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON recovery FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ---------------------------------------------------------------- what is left of a deposit

CREATE OR REPLACE FUNCTION guard_deposit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    taken bigint;
    held numeric;
BEGIN
    IF TG_TABLE_NAME = 'partner_default' THEN
        taken := NEW.deposit_micro;
    ELSE
        taken := -NEW.amount_micro;
    END IF;
    PERFORM FROM partner WHERE id = NEW.partner_id FOR NO KEY UPDATE;
    SELECT coalesce(sum(d.amount_micro), 0)
           - (SELECT coalesce(sum(u.deposit_micro), 0) FROM partner_default AS u WHERE u.partner_id = NEW.partner_id)
      INTO held FROM deposit_payment AS d WHERE d.partner_id = NEW.partner_id;
    IF held < taken THEN
        RAISE EXCEPTION 'deposit of partner %: % taken of %', NEW.partner_id, taken, held
            USING ERRCODE = 'check_violation', CONSTRAINT = 'deposit_not_negative';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deposit_held BEFORE INSERT ON partner_default FOR EACH ROW
    WHEN (NEW.deposit_micro > 0) EXECUTE FUNCTION guard_deposit();

CREATE OR REPLACE VIEW deposit_account WITH (security_invoker = true) AS
SELECT p.id AS partner_id, coalesce(r.required_micro, 0) AS required_micro,
       coalesce(d.held_micro, 0) - coalesce(u.used_micro, 0) AS held_micro,
       greatest(-coalesce(q.amount_micro, 0) - coalesce(e.amount_micro, 0), 0) AS owes_micro,
       r.required_micro > 0 OR d.partner_id IS NOT NULL OR u.partner_id IS NOT NULL AS is_used,
       u.defaulted_at
  FROM partner AS p
  LEFT JOIN deposit_requirement AS r ON r.partner_id = p.id
  LEFT JOIN (SELECT partner_id, sum(amount_micro) AS held_micro FROM deposit_payment GROUP BY partner_id) AS d
    ON d.partner_id = p.id
  LEFT JOIN (SELECT partner_id, sum(deposit_micro) AS used_micro, max(declared_at) AS defaulted_at FROM partner_default
              GROUP BY partner_id) AS u
    ON u.partner_id = p.id
  LEFT JOIN (SELECT partner_id, sum(amount_micro) AS amount_micro FROM position GROUP BY partner_id) AS q
    ON q.partner_id = p.id
  LEFT JOIN (SELECT partner_id, sum(amount_micro) AS amount_micro FROM partner_entry
              WHERE kind IN ('ROUNDING', 'TAX', 'PAYMENT', 'DEPOSIT_USED', 'BAD_DEBT') GROUP BY partner_id) AS e
    ON e.partner_id = p.id;

-- ---------------------------------------------------------------- what is left of a statement

-- Written off is never more than what its partner still owed; what comes in beyond the rest recovers it.
CREATE OR REPLACE VIEW statement_balance WITH (security_invoker = true) AS
SELECT b.period_id, b.partner_id, b.due_minor, b.paid_minor, b.written_off_minor,
       b.due_minor - b.withheld_minor - b.paid_minor + b.written_off_minor - b.recovered_minor + b.deposit_used_minor
           + b.offset_minor AS open_minor,
       b.withheld_minor, b.recovered_minor, b.deposit_used_minor, b.offset_minor
  FROM (SELECT s.period_id, s.partner_id, s.due_minor, p.paid_minor, d.withheld_minor,
               div(w.written_off_micro + f.bad_debt_micro, m.per_minor) AS written_off_minor,
               div(r.recovered_micro, m.per_minor) AS recovered_minor,
               div(f.deposit_micro, m.per_minor) AS deposit_used_minor,
               div(f.offset_micro - o.offset_micro, m.per_minor) AS offset_minor
          FROM statement AS s
         CROSS JOIN (SELECT power(10::numeric, 6 - currency_digits) AS per_minor FROM programme) AS m
         CROSS JOIN LATERAL (SELECT coalesce(sum(y.amount_minor), 0) AS paid_minor FROM payment AS y
                              WHERE y.period_id = s.period_id AND y.partner_id = s.partner_id) AS p
         CROSS JOIN LATERAL (SELECT coalesce(sum(a.amount_micro), 0) AS written_off_micro FROM adjustment AS a
                              WHERE a.of_period_id = s.period_id AND a.partner_id = s.partner_id
                                AND a.kind = 'BAD_DEBT') AS w
         CROSS JOIN LATERAL (SELECT coalesce(sum(o.withheld_minor), 0) AS withheld_minor FROM dispute AS o
                              WHERE o.period_id = s.period_id AND o.partner_id = s.partner_id AND o.state = 'OPEN') AS d
         CROSS JOIN LATERAL (SELECT coalesce(sum(x.offset_micro), 0) AS offset_micro,
                                    coalesce(sum(x.deposit_micro), 0) AS deposit_micro,
                                    coalesce(sum(x.bad_debt_micro), 0) AS bad_debt_micro FROM partner_default AS x
                              WHERE x.period_id = s.period_id AND x.partner_id = s.partner_id) AS f
         CROSS JOIN LATERAL (SELECT coalesce(sum(z.amount_micro), 0) AS offset_micro FROM default_offset AS z
                              WHERE z.period_id = s.period_id AND z.partner_id = s.partner_id) AS o
         CROSS JOIN LATERAL (SELECT coalesce(sum(v.amount_micro), 0) AS recovered_micro FROM recovery AS v
                              WHERE v.period_id = s.period_id AND v.partner_id = s.partner_id) AS r) AS b;
COMMENT ON VIEW statement_balance IS
    'What is due of a closed statement, what was paid, covered, written off and is withheld of it, and what is left open';

-- ---------------------------------------------------------------- declared by four eyes

ALTER TABLE proposal DROP CONSTRAINT proposal_kind;
ALTER TABLE proposal ADD CONSTRAINT proposal_kind
    CHECK (kind IN ('ADJUSTMENT', 'POINTS', 'OVERDRAFT', 'WRITE_OFF', 'DISPUTE', 'DEPOSIT_PAYOUT', 'DEFAULT')) NOT VALID;
ALTER TABLE proposal VALIDATE CONSTRAINT proposal_kind;
ALTER TABLE proposal DROP CONSTRAINT proposal_shape;
ALTER TABLE proposal ADD CONSTRAINT proposal_shape CHECK (coalesce(CASE
    WHEN kind = 'ADJUSTMENT' THEN amount_micro <> 0 AND num_nulls(of_period_id, of_line_kind) <> 1
        AND num_nonnulls(points, member_id, window_day, until, dispute_id) = 0
    WHEN kind = 'POINTS' THEN num_nonnulls(points, member_id) = 2
        AND num_nonnulls(amount_micro, of_period_id, of_line_kind, window_day, until, dispute_id) = 0
    WHEN kind = 'OVERDRAFT' THEN amount_micro > 0 AND window_day IS NOT NULL
        AND num_nonnulls(points, member_id, of_period_id, of_line_kind, dispute_id) = 0
    WHEN kind IN ('WRITE_OFF', 'DEFAULT') THEN amount_micro > 0 AND of_period_id IS NOT NULL
        AND num_nonnulls(points, member_id, of_line_kind, window_day, until, dispute_id) = 0
    WHEN kind = 'DISPUTE' THEN amount_micro >= 0 AND num_nulls(dispute_id, of_period_id, of_line_kind) = 0
        AND num_nonnulls(points, member_id, window_day, until) = 0
    WHEN kind = 'DEPOSIT_PAYOUT' THEN amount_micro > 0
        AND num_nonnulls(points, member_id, of_period_id, of_line_kind, window_day, until, dispute_id) = 0
    END, false)) NOT VALID;
ALTER TABLE proposal VALIDATE CONSTRAINT proposal_shape;
COMMENT ON COLUMN proposal.amount_micro IS
    'ADJUSTMENT: signed from the partner''s side; OVERDRAFT: what its window may spend beyond the limit; WRITE_OFF: what it owes and is let off; DEFAULT: what it owed then, the most that is covered; DEPOSIT_PAYOUT: what it gets back';

-- ---------------------------------------------------------------- privileges

GRANT SELECT, INSERT ON partner_default, default_offset, recovery TO coalition_posting;
GRANT SELECT ON partner_default, default_offset, recovery TO coalition_reading;

ALTER TABLE partner_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE default_offset ENABLE ROW LEVEL SECURITY;
ALTER TABLE recovery ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON partner_default TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON default_offset TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON recovery TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON partner_default FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON default_offset FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON recovery FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
