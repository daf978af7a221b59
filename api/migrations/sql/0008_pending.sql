-- Pending points: the return window belongs to a version of the contract, what a purchase waits for besides to the partner.

ALTER TABLE terms ADD COLUMN pending_days integer NOT NULL DEFAULT 0;
ALTER TABLE terms ADD CONSTRAINT terms_pending_days CHECK (pending_days BETWEEN 0 AND 3660) NOT VALID;
ALTER TABLE terms VALIDATE CONSTRAINT terms_pending_days;
COMMENT ON COLUMN terms.pending_days IS
    'Awards are usable from the local midnight after the day of the purchase and so many days more; 0: at once';

ALTER TABLE partner ADD COLUMN risk text NOT NULL DEFAULT 'NORMAL';
ALTER TABLE partner ADD CONSTRAINT partner_risk CHECK (risk IN ('NORMAL', 'PAID_FIRST')) NOT VALID;
ALTER TABLE partner VALIDATE CONSTRAINT partner_risk;
COMMENT ON COLUMN partner.risk IS 'PAID_FIRST: awards also wait until the partner says that the money of the purchase came in';

-- What is due is read a page at a time, in this order; all awards of a day are due at the same instant.
DROP INDEX pending_award_due;
CREATE INDEX pending_award_due ON pending_award (release_at, account_id) WHERE open_points > 0 AND NOT waits_for_payment;

CREATE INDEX pending_award_open ON pending_award (account_id) WHERE open_points > 0;
