-- What was drawn on paid blocks in periods that were closed before statements credited it (0028) is credited once: by the
-- first close from now on, in which it stands as prior, and what is returned of it afterwards is taken back as of any period.

ALTER TABLE period ADD COLUMN credits_before boolean NOT NULL DEFAULT false;
CREATE UNIQUE INDEX period_credits_before_once ON period (credits_before) WHERE credits_before;
COMMENT ON COLUMN period.credits_before IS
    'Whether its statements also credit what periods without credits_floats drew on paid blocks; of one period at most';

SELECT seal_table('period', 'r.id', 'pool_micro', 'pool_change_micro', 'margin_micro', 'operator_net_minor', 'tax_micro',
    'receivable_change_micro', 'deposit_change_micro', 'certificate_sha256', 'previous_sha256');
