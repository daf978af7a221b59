-- Two-phase burns: how long an authorization holds its points, and finding authorizations and captures again.

ALTER TABLE programme ADD COLUMN hold_minutes integer NOT NULL DEFAULT 10080;
ALTER TABLE programme ADD CONSTRAINT programme_hold CHECK (hold_minutes BETWEEN 1 AND 527040) NOT VALID;
ALTER TABLE programme VALIDATE CONSTRAINT programme_hold;
COMMENT ON COLUMN programme.hold_minutes IS 'How long an authorized burn holds its points, where the partner says nothing else';

ALTER TABLE partner ADD COLUMN hold_minutes integer;
ALTER TABLE partner ADD CONSTRAINT partner_hold CHECK (hold_minutes BETWEEN 1 AND 527040) NOT VALID;
ALTER TABLE partner VALIDATE CONSTRAINT partner_hold;
COMMENT ON COLUMN partner.hold_minutes IS 'How long its own authorizations hold points; null: as the programme says';

-- A till names an authorization, or the capture that it refunds, by its own reference, unique or not.
CREATE INDEX command_reference_hold ON command (partner_id, reference, id) WHERE kind IN ('AUTHORIZATION', 'CAPTURE');
CREATE INDEX hold_partner ON hold (partner_id, id);
COMMENT ON COLUMN hold.id IS 'The id of the authorization''s command';

-- The sweep pages through what is due in this order.
DROP INDEX hold_due;
CREATE INDEX hold_due ON hold (expires_at, account_id) WHERE state = 'OPEN';
