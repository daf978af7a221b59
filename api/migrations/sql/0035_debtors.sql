-- Who owes points, oldest first: a list for the operator.

ALTER TABLE debt ADD COLUMN occurred_at timestamptz;
UPDATE debt SET occurred_at = t.occurred_at FROM transaction AS t WHERE t.account_id = debt.account_id AND t.id = debt.id;
ALTER TABLE debt ADD CONSTRAINT debt_occurred CHECK (occurred_at IS NOT NULL) NOT VALID;
ALTER TABLE debt VALIDATE CONSTRAINT debt_occurred;
CREATE INDEX debt_oldest ON debt (occurred_at, id) WHERE open_points > 0;
COMMENT ON COLUMN debt.occurred_at IS 'Since when it is owed: when the goods came back';

SELECT seal_table('debt', 'concat_ws('' '', r.account_id, r.id)', 'open_points');
