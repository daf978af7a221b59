-- Merging members that are one person, and undoing it.

ALTER TABLE member ADD COLUMN merged_into bigint;
ALTER TABLE member ADD CONSTRAINT member_merged_into FOREIGN KEY (merged_into) REFERENCES member NOT VALID;
ALTER TABLE member VALIDATE CONSTRAINT member_merged_into;
ALTER TABLE member ADD CONSTRAINT member_merged_is_closed CHECK (merged_into IS NULL OR state = 'CLOSED') NOT VALID;
ALTER TABLE member VALIDATE CONSTRAINT member_merged_is_closed;
CREATE INDEX member_merged ON member (merged_into) WHERE merged_into IS NOT NULL;
COMMENT ON COLUMN member.merged_into IS 'The member that stands for this one since a merge; never one that was merged itself';

ALTER TABLE member_identifier ADD COLUMN enrolled_member_id bigint;
CREATE INDEX member_identifier_enrolled ON member_identifier (enrolled_member_id) WHERE enrolled_member_id IS NOT NULL;
COMMENT ON COLUMN member_identifier.enrolled_member_id IS 'Whose it was before merges moved it; null where none did';

CREATE TABLE member_merge (
    command_id              bigint PRIMARY KEY,
    kept_id                 bigint NOT NULL,
    duplicate_id            bigint NOT NULL,
    kept_account_id         bigint NOT NULL,
    duplicate_account_id    bigint NOT NULL,
    undone_by               bigint,
    CONSTRAINT member_merge_of_two CHECK (kept_id <> duplicate_id)
);
CREATE UNIQUE INDEX member_merge_standing ON member_merge (duplicate_id) WHERE undone_by IS NULL;
CREATE INDEX member_merge_kept ON member_merge (kept_id) WHERE undone_by IS NULL;
COMMENT ON TABLE member_merge IS 'Each merge that was made: who stands for whom, between which accounts the points moved';
COMMENT ON COLUMN member_merge.undone_by IS 'The command that undid it';

ALTER TABLE lot_use DROP CONSTRAINT lot_use_kind;
ALTER TABLE lot_use ADD CONSTRAINT lot_use_kind CHECK (kind IN (
    'BURN', 'HOLD', 'CAPTURE', 'RELEASE', 'BURN_REVERSAL', 'EARN_REVERSAL', 'EXPIRE', 'TRANSFER_OUT', 'TRANSFER_IN',
    'ADJUST')) NOT VALID;
ALTER TABLE lot_use VALIDATE CONSTRAINT lot_use_kind;
COMMENT ON TABLE lot_use IS
    'Which movement took points of which lot, set them aside (HOLD), spent what was set aside (CAPTURE), or gave them back'
    ' (RELEASE, BURN_REVERSAL; TRANSFER_IN where an undone merge fills the lots that it had emptied); points are positive';

GRANT SELECT, INSERT ON member_merge TO coalition_posting;
GRANT UPDATE (undone_by) ON member_merge TO coalition_posting;
