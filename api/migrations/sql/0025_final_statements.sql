-- Final statements of partners that leave, and what must be found when everything with a partner is settled.

CREATE TABLE final_statement (
    period_id               integer NOT NULL,
    partner_id              integer NOT NULL,
    outstanding_points      numeric(38, 0) NOT NULL,
    outstanding_value_micro numeric(38, 0) NOT NULL,
    PRIMARY KEY (period_id, partner_id),
    CONSTRAINT final_statement_statement FOREIGN KEY (period_id, partner_id) REFERENCES statement
);
COMMENT ON TABLE final_statement IS 'Statements after which nothing is left between partner and operator: they carry nothing on';
COMMENT ON COLUMN final_statement.outstanding_points IS 'Points that the partner paid for and that members still had, available or held, when the period ended';
COMMENT ON COLUMN final_statement.outstanding_value_micro IS 'What these points are worth in the pool';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON final_statement FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER period_state_required BEFORE INSERT ON final_statement FOR EACH ROW EXECUTE FUNCTION require_period_state('CLOSING');

-- Few awards are open at a time, and these are asked for once a minute.
CREATE INDEX pending_award_of_funder ON pending_award (funder_id, release_at, account_id) WHERE open_points > 0;
CREATE INDEX pending_award_waiting ON pending_award (partner_id, release_at, account_id) WHERE open_points > 0 AND waits_for_payment;

GRANT SELECT, INSERT ON final_statement TO coalition_posting;
GRANT SELECT ON final_statement TO coalition_reading;
ALTER TABLE final_statement ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON final_statement TO coalition_posting USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON final_statement FOR SELECT TO coalition_reading USING ((SELECT viewer()) IN (0, partner_id));
