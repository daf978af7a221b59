-- Points that move between members, and where a return takes points from that were spent.

ALTER TABLE programme
    ADD COLUMN member_transfers boolean NOT NULL DEFAULT false,
    ADD COLUMN transfer_max_points bigint,
    ADD COLUMN transfer_max_points_per_day bigint,
    ADD COLUMN claw_back text NOT NULL DEFAULT 'own_lot_then_issuer';
ALTER TABLE programme ADD CONSTRAINT programme_transfer_limits
    CHECK (transfer_max_points > 0 AND transfer_max_points_per_day > 0) NOT VALID;
ALTER TABLE programme VALIDATE CONSTRAINT programme_transfer_limits;
ALTER TABLE programme ADD CONSTRAINT programme_claw_back
    CHECK (claw_back IN ('own_lot_then_issuer', 'all_lots')) NOT VALID;
ALTER TABLE programme VALIDATE CONSTRAINT programme_claw_back;
COMMENT ON COLUMN programme.member_transfers IS 'Whether partners may move points between members; the operator always may';
COMMENT ON COLUMN programme.transfer_max_points IS 'Most points of one transfer by a partner; null: no limit';
COMMENT ON COLUMN programme.transfer_max_points_per_day IS 'Most points that partners move away from one member on one local day; null: no limit';
COMMENT ON COLUMN lot.parent_id IS 'The lot of another account that these points were moved out of; null where they were earned';
