-- What the operator does only with four eyes: one client proposes it, another approves it, and the approval does it.

CREATE TABLE proposal (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind                text NOT NULL
                        CONSTRAINT proposal_kind CHECK (kind IN ('ADJUSTMENT', 'POINTS', 'OVERDRAFT', 'WRITE_OFF')),
    partner_id          integer NOT NULL CONSTRAINT proposal_partner REFERENCES partner,
    amount_micro        bigint CONSTRAINT proposal_amount
                        CHECK (amount_micro BETWEEN -1000000000000000000 AND 1000000000000000000),
    points              bigint CONSTRAINT proposal_points CHECK (abs(points) BETWEEN 1 AND 1000000000),
    member_id           bigint CONSTRAINT proposal_member REFERENCES member,
    of_period_id        integer,
    of_line_kind        text,
    window_day          date,
    until               timestamptz,
    reason_code         text NOT NULL CONSTRAINT proposal_reason CHECK (reason_code IN (
                        'CORRECTION', 'AGREEMENT', 'GOODWILL', 'FRAUD', 'UNCOLLECTABLE', 'OTHER')),
    note                text NOT NULL,
    idempotency_key     text NOT NULL CONSTRAINT proposal_key_unique UNIQUE,
    proposed_by         text NOT NULL,
    proposed_at         timestamptz NOT NULL,
    state               text NOT NULL DEFAULT 'PROPOSED'
                        CONSTRAINT proposal_state CHECK (state IN ('PROPOSED', 'APPROVED', 'REJECTED', 'WITHDRAWN')),
    decided_by          text,
    decided_at          timestamptz,
    decision_note       text,
    decision_key        text CONSTRAINT proposal_decision_key_unique UNIQUE,
    CONSTRAINT proposal_shape CHECK (coalesce(CASE kind
        WHEN 'ADJUSTMENT' THEN amount_micro <> 0 AND num_nulls(of_period_id, of_line_kind) <> 1
            AND num_nonnulls(points, member_id, window_day, until) = 0
        WHEN 'POINTS' THEN num_nonnulls(points, member_id) = 2
            AND num_nonnulls(amount_micro, of_period_id, of_line_kind, window_day, until) = 0
        WHEN 'OVERDRAFT' THEN amount_micro > 0 AND window_day IS NOT NULL
            AND num_nonnulls(points, member_id, of_period_id, of_line_kind) = 0
        WHEN 'WRITE_OFF' THEN amount_micro > 0 AND of_period_id IS NOT NULL
            AND num_nonnulls(points, member_id, of_line_kind, window_day, until) = 0
        END, false)),
    CONSTRAINT proposal_decided CHECK (CASE state
        WHEN 'PROPOSED' THEN num_nonnulls(decided_by, decided_at, decision_note, decision_key) = 0
        ELSE num_nonnulls(decided_by, decided_at, decision_key) = 3 END),
    CONSTRAINT proposal_four_eyes CHECK (CASE state
        WHEN 'PROPOSED' THEN true WHEN 'WITHDRAWN' THEN decided_by = proposed_by ELSE decided_by <> proposed_by END)
);
CREATE INDEX proposal_open ON proposal (id) WHERE state = 'PROPOSED';
CREATE INDEX proposal_partner_index ON proposal (partner_id, id);
COMMENT ON TABLE proposal IS 'What one client of the operator wants done; another one approves it, which does it in the same transaction';
COMMENT ON COLUMN proposal.partner_id IS 'Whom it concerns; of POINTS, whose terms price them and who counts as their issuer';
COMMENT ON COLUMN proposal.amount_micro IS
    'ADJUSTMENT: signed from the partner''s side; OVERDRAFT: what its window may spend beyond the limit; WRITE_OFF: what it owes and is let off';
COMMENT ON COLUMN proposal.of_period_id IS 'The closed statement that it is about, and of_line_kind its line';
COMMENT ON COLUMN proposal.window_day IS 'A local day of the budget window that may be overdrawn, until that instant';

-- A proposal is decided once and never changes otherwise, whoever asks.
CREATE FUNCTION guard_proposal() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    decision text[] := ARRAY['state', 'decided_by', 'decided_at', 'decision_note', 'decision_key'];
BEGIN
    IF TG_OP = 'DELETE' OR OLD.state <> 'PROPOSED' OR to_jsonb(OLD) - decision <> to_jsonb(NEW) - decision THEN
        RAISE EXCEPTION 'proposal % is %: % refused', OLD.id, OLD.state, TG_OP
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'proposal_life';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER proposal_life BEFORE UPDATE OR DELETE ON proposal FOR EACH ROW EXECUTE FUNCTION guard_proposal();

-- ---------------------------------------------------------------- what approvals did

CREATE TABLE adjustment (
    entry_id            bigint PRIMARY KEY CONSTRAINT adjustment_entry REFERENCES partner_entry,
    proposal_id         bigint NOT NULL CONSTRAINT adjustment_proposal_unique UNIQUE
                        CONSTRAINT adjustment_proposal REFERENCES proposal,
    period_id           integer NOT NULL,
    partner_id          integer NOT NULL,
    kind                text NOT NULL CONSTRAINT adjustment_kind CHECK (kind IN ('ADJUSTMENT', 'BAD_DEBT')),
    amount_micro        bigint NOT NULL,
    reason_code         text NOT NULL,
    note                text NOT NULL,
    of_period_id        integer,
    of_line_kind        text,
    booked_at           timestamptz NOT NULL
);
CREATE INDEX adjustment_line ON adjustment (period_id, partner_id, entry_id);
CREATE INDEX adjustment_statement ON adjustment (of_period_id, partner_id) WHERE of_period_id IS NOT NULL;
COMMENT ON TABLE adjustment IS 'Why a partner entry of kind ADJUSTMENT or BAD_DEBT stands there; the partner reads it beside its statement';
COMMENT ON COLUMN adjustment.of_period_id IS 'The closed statement that it corrects or lets off, and of_line_kind its line';

CREATE TABLE overdraft (
    proposal_id         bigint PRIMARY KEY CONSTRAINT overdraft_proposal REFERENCES proposal,
    budget_id           bigint NOT NULL CONSTRAINT overdraft_budget REFERENCES budget,
    partner_id          integer NOT NULL,
    amount_micro        bigint NOT NULL CONSTRAINT overdraft_amount CHECK (amount_micro > 0),
    until               timestamptz
);
CREATE INDEX overdraft_budget_index ON overdraft (budget_id);
COMMENT ON TABLE overdraft IS 'Approved overdrafts of budget windows; budget.overdraft_micro holds their sum beside that of the plan';
COMMENT ON COLUMN overdraft.until IS 'From then on nothing more is spent out of it; what was spent before stays covered. Null: as long as the window';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON adjustment FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON overdraft FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER period_is_open AFTER INSERT ON adjustment REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION require_open_period();

-- ---------------------------------------------------------------- privileges

GRANT SELECT, INSERT ON proposal, adjustment, overdraft TO coalition_posting;
GRANT UPDATE (state, decided_by, decided_at, decision_note, decision_key) ON proposal TO coalition_posting;
GRANT SELECT ON proposal, adjustment, overdraft TO coalition_reading;

ALTER TABLE proposal ENABLE ROW LEVEL SECURITY;
ALTER TABLE adjustment ENABLE ROW LEVEL SECURITY;
ALTER TABLE overdraft ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON proposal TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON adjustment TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON overdraft TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY operator_only ON proposal FOR SELECT TO coalition_reading USING ((SELECT viewer()) = 0);
CREATE POLICY own_rows ON adjustment FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON overdraft FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
