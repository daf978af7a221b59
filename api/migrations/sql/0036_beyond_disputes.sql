-- An adjustment may name the dispute that it answers: what is accepted of one never exceeds the line, and a partner that was
-- credited too little may be right about more.

DROP INDEX proposal_of_dispute;
CREATE UNIQUE INDEX proposal_of_dispute ON proposal (dispute_id) WHERE state = 'PROPOSED' AND kind = 'DISPUTE';

ALTER TABLE proposal DROP CONSTRAINT proposal_shape;
ALTER TABLE proposal ADD CONSTRAINT proposal_shape CHECK (coalesce(CASE
    WHEN kind = 'ADJUSTMENT' THEN amount_micro <> 0 AND num_nulls(of_period_id, of_line_kind) <> 1
        AND (dispute_id IS NULL OR of_line_kind IS NOT NULL)
        AND num_nonnulls(points, member_id, window_day, until) = 0
    WHEN kind = 'POINTS' THEN num_nonnulls(points, member_id) = 2
        AND num_nonnulls(amount_micro, of_period_id, of_line_kind, window_day, until, dispute_id) = 0
    WHEN kind = 'OVERDRAFT' THEN amount_micro > 0 AND window_day IS NOT NULL
        AND num_nonnulls(points, member_id, of_period_id, of_line_kind, dispute_id) = 0
    WHEN kind = 'WRITE_OFF' THEN amount_micro > 0 AND of_period_id IS NOT NULL
        AND num_nonnulls(points, member_id, of_line_kind, window_day, until, dispute_id) = 0
    WHEN kind = 'DEFAULT' THEN amount_micro > 0
        AND num_nonnulls(points, member_id, of_line_kind, window_day, until, dispute_id) = 0
    WHEN kind = 'DISPUTE' THEN amount_micro >= 0 AND num_nulls(dispute_id, of_period_id, of_line_kind) = 0
        AND num_nonnulls(points, member_id, window_day, until) = 0
    WHEN kind = 'DEPOSIT_PAYOUT' THEN amount_micro > 0
        AND num_nonnulls(points, member_id, of_period_id, of_line_kind, window_day, until, dispute_id) = 0
    END, false)) NOT VALID;
ALTER TABLE proposal VALIDATE CONSTRAINT proposal_shape;
COMMENT ON COLUMN proposal.dispute_id IS
    'The dispute whose outcome it is; amount_micro is then what is accepted, 0 rejects it. Of an ADJUSTMENT the dispute that it answers beside that';
