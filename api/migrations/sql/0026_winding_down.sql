-- The end of the programme: a last day of issuing points, and one of burning them, after which every lot is past.

ALTER TABLE programme
    ADD COLUMN issue_ends date,
    ADD COLUMN burn_ends date,
    ADD CONSTRAINT programme_ends CHECK (burn_ends IS NULL OR coalesce(issue_ends <= burn_ends, false));
COMMENT ON COLUMN programme.issue_ends IS 'Last day, in the programme''s time zone, on which points are issued; null: it goes on';
COMMENT ON COLUMN programme.burn_ends IS 'Last day on which points are burned: from the midnight after it on every lot is past, whatever its own date';

CREATE FUNCTION points_end() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT (burn_ends + 1)::timestamp AT TIME ZONE timezone FROM programme $$;
COMMENT ON FUNCTION points_end() IS 'First instant at which every lot is past; null: each by its own date';

CREATE FUNCTION past_instant(instant timestamptz) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT CASE WHEN points_end() <= instant THEN 'infinity' ELSE instant END $$;
COMMENT ON FUNCTION past_instant(timestamptz) IS 'What lots are past then: those that end by the answer';
