-- When points expire: so many months after they were earned, so many after the account was last used, or at a year's end.

ALTER TABLE programme
    ADD COLUMN expiry text NOT NULL DEFAULT 'months'
        CONSTRAINT programme_expiry_policy CHECK (expiry IN ('months', 'rolling', 'year_end')),
    ADD COLUMN expiry_years integer CONSTRAINT programme_expiry_years CHECK (expiry_years BETWEEN 0 AND 100),
    ADD COLUMN rolling_lots boolean NOT NULL DEFAULT false,
    ALTER COLUMN expiry_months DROP NOT NULL,
    ADD CONSTRAINT programme_expiry_complete CHECK (
        (expiry_months IS NULL) = (expiry = 'year_end') AND (expiry_years IS NULL) = (expiry <> 'year_end')) NOT VALID;
ALTER TABLE programme VALIDATE CONSTRAINT programme_expiry_complete;
COMMENT ON COLUMN programme.rolling_lots IS
    'Once true always true: lots were earned while the policy was rolling, and keep it whatever the policy is now';

-- On the lot, so that a change of the policy concerns only what is earned from then on.
ALTER TABLE lot ADD COLUMN rolling_months integer CONSTRAINT lot_rolling_months CHECK (rolling_months BETWEEN 1 AND 1200);
COMMENT ON COLUMN lot.rolling_months IS
    'Each earn or burn of the account moves expires_at to this many months after it; null: expires_at stays as it is';
