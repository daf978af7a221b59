-- Partners that are suspended, or leave: what of burning goes on, until when they take part, and until when they settle.

ALTER TABLE partner
    ADD COLUMN suspended_burns text NOT NULL DEFAULT 'CAPTURE'
        CONSTRAINT partner_suspended_burns CHECK (suspended_burns IN ('REFUSE', 'CAPTURE', 'ALLOW')),
    ADD COLUMN leaves_on date,
    ADD COLUMN run_off_until date,
    ADD CONSTRAINT partner_run_off
        CHECK (CASE WHEN leaves_on IS NULL THEN run_off_until IS NULL ELSE coalesce(run_off_until >= leaves_on, false) END);
COMMENT ON COLUMN partner.leaves_on IS 'Last day, in the programme''s time zone, on which points are issued and burned there; null: it stays';
COMMENT ON COLUMN partner.run_off_until IS 'Last day on which returns of what it sold are settled with it; the statement of its period is the final one';
