-- One default covers every due statement of a partner: a row for each of them, under the one proposal.

ALTER TABLE default_offset DROP CONSTRAINT default_offset_default;
ALTER TABLE default_offset DROP CONSTRAINT default_offset_pkey;
ALTER TABLE partner_default DROP CONSTRAINT partner_default_pkey;
ALTER TABLE partner_default ADD CONSTRAINT partner_default_pkey PRIMARY KEY (proposal_id, period_id);
COMMENT ON TABLE partner_default IS 'What covered a statement that its partner did not pay, in this order: offset, deposit, bad debt; a proposal may cover several';

ALTER TABLE default_offset ADD COLUMN of_period_id integer;
ALTER TABLE default_offset DISABLE TRIGGER append_only;
UPDATE default_offset AS o SET of_period_id = d.period_id FROM partner_default AS d WHERE d.proposal_id = o.proposal_id;
ALTER TABLE default_offset ENABLE TRIGGER append_only;
ALTER TABLE default_offset ADD CONSTRAINT default_offset_pkey PRIMARY KEY (proposal_id, of_period_id, period_id);
ALTER TABLE default_offset ADD CONSTRAINT default_offset_default
    FOREIGN KEY (proposal_id, of_period_id) REFERENCES partner_default NOT VALID;
ALTER TABLE default_offset VALIDATE CONSTRAINT default_offset_default;
COMMENT ON COLUMN default_offset.of_period_id IS 'The statement that was in default; period_id is the one of which the operator owed';

ALTER TABLE proposal DROP CONSTRAINT proposal_shape;
ALTER TABLE proposal ADD CONSTRAINT proposal_shape CHECK (coalesce(CASE
    WHEN kind = 'ADJUSTMENT' THEN amount_micro <> 0 AND num_nulls(of_period_id, of_line_kind) <> 1
        AND num_nonnulls(points, member_id, window_day, until, dispute_id) = 0
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
COMMENT ON COLUMN proposal.of_period_id IS
    'The closed statement that it is about, and of_line_kind its line; of a DEFAULT null: every statement that is due';

SELECT seal_table('partner_default', 'concat_ws('' '', r.proposal_id, r.period_id)');
SELECT seal_table('default_offset', 'concat_ws('' '', r.proposal_id, r.of_period_id, r.period_id)');
