-- Disputes: what a partner contests of a line of a closed statement, and what becomes of it.

CREATE TABLE dispute (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    period_id           integer NOT NULL,
    partner_id          integer NOT NULL,
    line_kind           text NOT NULL,
    amount_minor        bigint NOT NULL CONSTRAINT dispute_amount CHECK (amount_minor > 0),
    withheld_minor      bigint NOT NULL,
    reason_code         text NOT NULL CONSTRAINT dispute_reason CHECK (reason_code IN (
                        'NOT_OURS', 'WRONG_AMOUNT', 'WRONG_TERMS', 'DUPLICATE', 'GOODS_RETURNED', 'OTHER')),
    note                text NOT NULL,
    idempotency_key     text NOT NULL,
    opened_by           text NOT NULL,
    opened_at           timestamptz NOT NULL,
    state               text NOT NULL DEFAULT 'OPEN'
                        CONSTRAINT dispute_state CHECK (state IN ('OPEN', 'ACCEPTED', 'REJECTED', 'WITHDRAWN')),
    accepted_minor      bigint NOT NULL DEFAULT 0,
    decided_at          timestamptz,
    decision_note       text,
    withdrawal_key      text,
    CONSTRAINT dispute_line FOREIGN KEY (period_id, partner_id, line_kind) REFERENCES statement_line,
    CONSTRAINT dispute_key_unique UNIQUE (partner_id, idempotency_key),
    CONSTRAINT dispute_withdrawal_key_unique UNIQUE (partner_id, withdrawal_key),
    CONSTRAINT dispute_withheld CHECK (withheld_minor IN (0, -amount_minor)),
    CONSTRAINT dispute_decided CHECK ((state = 'OPEN') = (decided_at IS NULL) AND CASE state
        WHEN 'ACCEPTED' THEN accepted_minor BETWEEN 1 AND amount_minor ELSE accepted_minor = 0 END),
    CONSTRAINT dispute_withdrawn CHECK ((state = 'WITHDRAWN') = (withdrawal_key IS NOT NULL))
);
CREATE INDEX dispute_statement ON dispute (period_id, partner_id);
CREATE INDEX dispute_partner ON dispute (partner_id, id);
COMMENT ON TABLE dispute IS 'What a partner says it was charged too much, or credited too little, on one line of a closed statement';
COMMENT ON COLUMN dispute.amount_minor IS 'In the partner''s favour: what it would get if all of it were accepted';
COMMENT ON COLUMN dispute.withheld_minor IS
    'While it is open not part of what is due; signed as the line: all of a disputed charge, nothing of a credit';
COMMENT ON COLUMN dispute.accepted_minor IS 'What an adjustment of the open period credited';

CREATE TABLE dispute_transaction (
    dispute_id          bigint NOT NULL CONSTRAINT dispute_transaction_dispute REFERENCES dispute,
    command_id          bigint NOT NULL,
    partner_id          integer NOT NULL,
    PRIMARY KEY (dispute_id, command_id)
);
CREATE INDEX dispute_transaction_command ON dispute_transaction (command_id);
COMMENT ON TABLE dispute_transaction IS 'The transactions of the line that a dispute is about; none: the whole line';

-- No more of a line is disputed than it bills, however many disputes there are; each is decided once.
CREATE FUNCTION guard_dispute() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    decision text[] := ARRAY['state', 'accepted_minor', 'decided_at', 'decision_note', 'withdrawal_key'];
    billed numeric;
    disputed numeric;
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM FROM partner WHERE id = NEW.partner_id FOR NO KEY UPDATE;
        SELECT abs(l.billed_minor) INTO billed FROM statement_line AS l
         WHERE l.period_id = NEW.period_id AND l.partner_id = NEW.partner_id AND l.kind = NEW.line_kind;
        SELECT coalesce(sum(CASE d.state WHEN 'OPEN' THEN d.amount_minor ELSE d.accepted_minor END), 0) INTO disputed
          FROM dispute AS d
         WHERE d.period_id = NEW.period_id AND d.partner_id = NEW.partner_id AND d.line_kind = NEW.line_kind;
        IF disputed + NEW.amount_minor > billed THEN
            RAISE EXCEPTION 'line % of partner %: % disputed of %', NEW.line_kind, NEW.partner_id,
                disputed + NEW.amount_minor, billed USING ERRCODE = 'check_violation', CONSTRAINT = 'dispute_within_line';
        END IF;
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' OR OLD.state <> 'OPEN' OR to_jsonb(OLD) - decision <> to_jsonb(NEW) - decision THEN
        RAISE EXCEPTION 'dispute % is %: % refused', OLD.id, OLD.state, TG_OP
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'dispute_life';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER dispute_life BEFORE INSERT OR UPDATE OR DELETE ON dispute FOR EACH ROW EXECUTE FUNCTION guard_dispute();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON dispute_transaction FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ---------------------------------------------------------------- the outcome, by four eyes

ALTER TABLE proposal ADD COLUMN dispute_id bigint;
ALTER TABLE proposal ADD CONSTRAINT proposal_dispute FOREIGN KEY (dispute_id) REFERENCES dispute NOT VALID;
ALTER TABLE proposal VALIDATE CONSTRAINT proposal_dispute;
ALTER TABLE proposal DROP CONSTRAINT proposal_kind;
ALTER TABLE proposal ADD CONSTRAINT proposal_kind
    CHECK (kind IN ('ADJUSTMENT', 'POINTS', 'OVERDRAFT', 'WRITE_OFF', 'DISPUTE')) NOT VALID;
ALTER TABLE proposal VALIDATE CONSTRAINT proposal_kind;
ALTER TABLE proposal DROP CONSTRAINT proposal_reason;
ALTER TABLE proposal ADD CONSTRAINT proposal_reason CHECK (reason_code IN (
    'CORRECTION', 'AGREEMENT', 'GOODWILL', 'FRAUD', 'UNCOLLECTABLE', 'DISPUTE', 'OTHER')) NOT VALID;
ALTER TABLE proposal VALIDATE CONSTRAINT proposal_reason;
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
    END, false)) NOT VALID;
ALTER TABLE proposal VALIDATE CONSTRAINT proposal_shape;
CREATE UNIQUE INDEX proposal_of_dispute ON proposal (dispute_id) WHERE state = 'PROPOSED';
COMMENT ON COLUMN proposal.dispute_id IS 'The dispute whose outcome it is; amount_micro is then what is accepted, 0 rejects it';

ALTER TABLE adjustment ADD COLUMN dispute_id bigint;
ALTER TABLE adjustment ADD CONSTRAINT adjustment_dispute FOREIGN KEY (dispute_id) REFERENCES dispute NOT VALID;
ALTER TABLE adjustment VALIDATE CONSTRAINT adjustment_dispute;

-- ---------------------------------------------------------------- privileges

GRANT SELECT, INSERT ON dispute, dispute_transaction TO coalition_posting;
GRANT UPDATE (state, accepted_minor, decided_at, decision_note, withdrawal_key) ON dispute TO coalition_posting;
GRANT SELECT ON dispute, dispute_transaction TO coalition_reading;

ALTER TABLE dispute ENABLE ROW LEVEL SECURITY;
ALTER TABLE dispute_transaction ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON dispute TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON dispute_transaction TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON dispute FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON dispute_transaction FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));

-- ---------------------------------------------------------------- what is due, without what disputes withhold

CREATE OR REPLACE VIEW statement_balance WITH (security_invoker = true) AS
SELECT s.period_id, s.partner_id, s.due_minor, p.paid_minor, w.written_off_minor,
       s.due_minor - d.withheld_minor - p.paid_minor + w.written_off_minor AS open_minor, d.withheld_minor
  FROM statement AS s
 CROSS JOIN LATERAL (SELECT coalesce(sum(y.amount_minor), 0) AS paid_minor FROM payment AS y
                      WHERE y.period_id = s.period_id AND y.partner_id = s.partner_id) AS p
 CROSS JOIN LATERAL (SELECT div(coalesce(sum(a.amount_micro), 0),
                                power(10::numeric, 6 - (SELECT currency_digits FROM programme))) AS written_off_minor
                       FROM adjustment AS a
                      WHERE a.of_period_id = s.period_id AND a.partner_id = s.partner_id AND a.kind = 'BAD_DEBT') AS w
 CROSS JOIN LATERAL (SELECT coalesce(sum(o.withheld_minor), 0) AS withheld_minor FROM dispute AS o
                      WHERE o.period_id = s.period_id AND o.partner_id = s.partner_id AND o.state = 'OPEN') AS d;
COMMENT ON VIEW statement_balance IS
    'What is due of a closed statement, what was paid, written off and is withheld of it, and what is left open';
