-- The risk class protects the coalition from the partner: who says that the money came in is the operator.

COMMENT ON COLUMN partner.risk IS
    'PAID_FIRST: points of its purchases, and bonuses that it pays, also wait until the operator says that it has the money';
