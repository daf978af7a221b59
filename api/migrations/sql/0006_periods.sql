-- Half months and weeks as settlement periods. A programme keeps the kind that it booked in: ids are ordinals of it.

ALTER TABLE programme DROP CONSTRAINT programme_period;
ALTER TABLE programme ADD CONSTRAINT programme_period CHECK (period IN ('month', 'half_month', 'week')) NOT VALID;
ALTER TABLE programme VALIDATE CONSTRAINT programme_period;
COMMENT ON COLUMN period.id IS
    'Ordinal in the calendar, ascending in time without gaps: year * 12 + month - 1 for months, year * 24 + 2 * (month - 1)'
    ' and one more from the 16th on for half months, Mondays since the year 1 for weeks';
