-- Clients of the API and the access tokens they hold. Secrets and tokens stand here as SHA-256 digests only: they are
-- 256 random bits, so a plain digest cannot be guessed back. The posting role alone sees them; the reading role, which
-- answers queries, gets nothing.

CREATE TABLE oauth_client (
    client_id           text PRIMARY KEY,
    secret_digest       bytea NOT NULL CONSTRAINT oauth_client_secret_digest CHECK (length(secret_digest) = 32),
    name                text NOT NULL,
    partner_id          integer NOT NULL CONSTRAINT oauth_client_partner CHECK (partner_id >= 0),
    scopes              text[] NOT NULL CONSTRAINT oauth_client_scopes CHECK (cardinality(scopes) > 0),
    auth_methods        text[] NOT NULL CONSTRAINT oauth_client_auth_methods
                        CHECK (cardinality(auth_methods) > 0
                               AND auth_methods <@ ARRAY['client_secret_basic', 'client_secret_post']),
    created_at          timestamptz NOT NULL,
    revoked_at          timestamptz
);
COMMENT ON TABLE oauth_client IS 'A system that may ask for access tokens: of one partner, or of the operator';
COMMENT ON COLUMN oauth_client.partner_id IS 'Whose data the client acts for: a partner''s id, 0 the operator; never chosen by the client';
COMMENT ON COLUMN oauth_client.scopes IS 'The most that a token of the client may carry, and what it carries when none are asked for';
COMMENT ON COLUMN oauth_client.auth_methods IS 'How the client may authenticate (RFC 8414 names)';

CREATE TABLE oauth_token (
    digest              bytea PRIMARY KEY CONSTRAINT oauth_token_digest CHECK (length(digest) = 32),
    client_id           text NOT NULL CONSTRAINT oauth_token_client REFERENCES oauth_client,
    scopes              text[] NOT NULL CONSTRAINT oauth_token_scopes CHECK (cardinality(scopes) > 0),
    issued_at           timestamptz NOT NULL,
    expires_at          timestamptz NOT NULL,
    revoked_at          timestamptz,
    CONSTRAINT oauth_token_life CHECK (issued_at < expires_at)
);
CREATE INDEX oauth_token_of_client ON oauth_token (client_id);
CREATE INDEX oauth_token_expires ON oauth_token (expires_at);
COMMENT ON TABLE oauth_token IS 'An access token by its SHA-256 digest; rows past expires_at are purged when new ones are issued';
COMMENT ON COLUMN oauth_token.expires_at IS 'First instant at which the token is refused';

GRANT SELECT, INSERT ON oauth_client, oauth_token TO coalition_posting;
-- What a client or token is never changes, only that it ends.
GRANT UPDATE (revoked_at) ON oauth_client, oauth_token TO coalition_posting;
GRANT DELETE ON oauth_token TO coalition_posting;
