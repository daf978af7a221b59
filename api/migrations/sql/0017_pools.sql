-- Household pools: members who share one account.

ALTER TABLE member ADD COLUMN burn_limit bigint;
ALTER TABLE member ADD CONSTRAINT member_burn_limit CHECK (burn_limit > 0) NOT VALID;
ALTER TABLE member VALIDATE CONSTRAINT member_burn_limit;
COMMENT ON COLUMN member.burn_limit IS 'Most points that the member may burn of its pool on one local day; null: no limit, or in no pool';

CREATE TABLE pool (
    id                  bigint PRIMARY KEY,
    account_id          bigint NOT NULL CONSTRAINT pool_account REFERENCES account CONSTRAINT pool_account_unique UNIQUE,
    created_at          timestamptz NOT NULL
);
COMMENT ON TABLE pool IS 'A household: its members'' account is the pool''s as long as they are in it';

CREATE TABLE pool_member (
    command_id          bigint PRIMARY KEY,
    pool_id             bigint NOT NULL CONSTRAINT pool_member_pool REFERENCES pool,
    member_id           bigint NOT NULL,
    home_account_id     bigint NOT NULL,
    role                text NOT NULL CONSTRAINT pool_member_role CHECK (role IN ('HEAD', 'MEMBER')),
    burn_limit          bigint CONSTRAINT pool_member_limit CHECK (burn_limit > 0),
    since               timestamptz NOT NULL,
    ended_by            bigint,
    CONSTRAINT pool_member_heads_are_free CHECK (role <> 'HEAD' OR burn_limit IS NULL)
);
CREATE UNIQUE INDEX pool_member_standing ON pool_member (member_id) WHERE ended_by IS NULL;
CREATE INDEX pool_member_of_pool ON pool_member (pool_id) WHERE ended_by IS NULL;
CREATE INDEX pool_member_history ON pool_member (member_id);
CREATE INDEX pool_member_ended ON pool_member (ended_by) WHERE ended_by IS NOT NULL;
COMMENT ON TABLE pool_member IS 'Who was in which pool, in which role; a row is ended by the command that changed it or let the member leave';
COMMENT ON COLUMN pool_member.home_account_id IS 'The member''s own account, to which it goes back';

GRANT SELECT, INSERT ON pool, pool_member TO coalition_posting;
GRANT UPDATE (ended_by) ON pool_member TO coalition_posting;
GRANT SELECT ON pool, pool_member TO coalition_reading;
