-- Until when a partner may reverse what it posted: a part of its contract.

ALTER TABLE terms ADD COLUMN reversal_days integer;
ALTER TABLE terms ADD CONSTRAINT terms_reversal_days CHECK (reversal_days BETWEEN 0 AND 3660) NOT VALID;
ALTER TABLE terms VALIDATE CONSTRAINT terms_reversal_days;
COMMENT ON COLUMN terms.reversal_days IS
    'On how many local days after the one when it happened a purchase or a burn may be reversed; null: for ever';

SELECT seal_table('terms', 'r.id');
