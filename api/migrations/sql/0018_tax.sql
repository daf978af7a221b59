-- Tax on statement lines: rates per contract, kind of line and date; what each statement was taxed is booked with its close.

CREATE TABLE tax_rate (
    id                  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id          integer NOT NULL CONSTRAINT tax_rate_partner REFERENCES partner,
    code                text NOT NULL CONSTRAINT tax_rate_kind CHECK (code IN (
                        'ISSUE', 'SERVICE_FEE', 'REIMBURSEMENT', 'EARN_REVERSAL', 'SERVICE_FEE_REFUND', 'BURN_REVERSAL',
                        'BREAKAGE_SHARE', 'FIXED_FEE', 'ADJUSTMENT')),
    valid               daterange NOT NULL CONSTRAINT tax_rate_valid_not_empty CHECK (NOT isempty(valid)),
    rate_ppm            integer NOT NULL CONSTRAINT tax_rate_rate CHECK (rate_ppm BETWEEN 0 AND 1000000),
    CONSTRAINT tax_rate_no_overlap UNIQUE (partner_id, code, valid WITHOUT OVERLAPS)
);
COMMENT ON TABLE tax_rate IS 'What is added to a kind of statement line; the rate of a period is that of its last day';
COMMENT ON COLUMN tax_rate.code IS 'The kind of line that is taxed';

CREATE TABLE statement_tax (
    period_id           integer NOT NULL,
    partner_id          integer NOT NULL,
    kind                text NOT NULL,
    rate_ppm            integer NOT NULL,
    taxable_minor       numeric(38, 0) NOT NULL,
    tax_minor           numeric(38, 0) NOT NULL,
    PRIMARY KEY (period_id, partner_id, kind),
    CONSTRAINT statement_tax_statement FOREIGN KEY (period_id, partner_id) REFERENCES statement
);
COMMENT ON TABLE statement_tax IS 'The parts of a statement''s TAX line: what was billed of each kind of line, at which rate';

ALTER TABLE period ADD COLUMN tax_micro numeric(38, 0) NOT NULL DEFAULT 0;
COMMENT ON COLUMN period.tax_micro IS 'What the operator takes in tax, less what it pays; part of its net, not of its margin';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON statement_tax FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER period_state_required BEFORE INSERT ON statement_tax FOR EACH ROW EXECUTE FUNCTION require_period_state('CLOSING');
-- Tax is computed on billed lines, which like their rounding are known only after the audit.
DROP TRIGGER period_state_required ON partner_entry;
DROP TRIGGER rounding_while_closing ON partner_entry;
CREATE TRIGGER period_state_required BEFORE INSERT ON partner_entry FOR EACH ROW WHEN (NEW.kind NOT IN ('ROUNDING', 'TAX')) EXECUTE FUNCTION require_period_state('OPEN');
CREATE TRIGGER rounding_while_closing BEFORE INSERT ON partner_entry FOR EACH ROW WHEN (NEW.kind IN ('ROUNDING', 'TAX')) EXECUTE FUNCTION require_period_state('CLOSING');

GRANT SELECT, INSERT, UPDATE, DELETE ON tax_rate TO coalition_posting;
GRANT SELECT, INSERT ON statement_tax TO coalition_posting;
GRANT SELECT ON tax_rate, statement_tax TO coalition_reading;
ALTER TABLE tax_rate ENABLE ROW LEVEL SECURITY;
ALTER TABLE statement_tax ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON tax_rate TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY everything ON statement_tax TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON tax_rate FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
CREATE POLICY own_rows ON statement_tax FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
