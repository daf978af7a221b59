"""Authlib's authorization server over our tables, built per request around one database transaction.

Authlib is synchronous, so it runs inside ``AsyncConnection.run_sync``: on the same connection and in the
same transaction, which ``Database.posting`` commits. An OAuth error is a response here, not an exception, so
its transaction commits too.
"""

import hmac
import logging
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from authlib.oauth2 import AuthorizationServer, OAuth2Error, OAuth2Request
from authlib.oauth2.rfc6749 import InvalidClientError, InvalidRequestError, UnsupportedGrantTypeError
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from sqlalchemy import Connection, text
from starlette.responses import JSONResponse, Response

from api.oauth.endpoints import Introspection, Revocation
from api.oauth.grants import GRANTS
from api.oauth.models import OAuthClient, OAuthToken
from api.oauth.requests import FormRequest
from api.security import (
    NOTIFY_REVOKED_SQL,
    REALM,
    TOKEN_PREFIX,
    TOKEN_REVOKED,
    revocation_notice,
    secret_digest,
)

# At DEBUG, Authlib writes the tokens that it issues.
logging.getLogger("authlib").setLevel(logging.INFO)

SECRET_BYTES = 32
TOKEN_SECONDS = 15 * 60
PURGED_AT_ONCE = 100

CLIENT_SQL = text(
    """
    SELECT client_id, secret_digest, partner_id, scopes, auth_methods
      FROM oauth_client WHERE client_id = :client_id AND revoked_at IS NULL
    """
)

INSERT_TOKEN_SQL = text(
    """
    INSERT INTO oauth_token (digest, client_id, scopes, issued_at, expires_at)
    VALUES (:digest, :client_id, CAST(:scopes AS text[]), :issued_at, :expires_at)
    """
)

PURGE_TOKENS_SQL = text(
    """
    DELETE FROM oauth_token WHERE digest IN (
        SELECT digest FROM oauth_token WHERE expires_at <= :now
         ORDER BY expires_at LIMIT :at_most FOR UPDATE SKIP LOCKED)
    """
)
"""Each new token sweeps away a few dead ones, so the table stays small without a job. Rows that another
sweep holds are skipped: waiting for them would gain nothing."""

TOKEN_SQL = text(
    """
    SELECT t.digest, t.client_id, t.scopes, t.issued_at, t.expires_at,
           :now >= t.expires_at, coalesce(t.revoked_at, c.revoked_at) IS NOT NULL
      FROM oauth_token AS t JOIN oauth_client AS c ON c.client_id = t.client_id
     WHERE t.digest = :digest
    """
)

REVOKE_TOKEN_SQL = text("UPDATE oauth_token SET revoked_at = :now WHERE digest = :digest AND revoked_at IS NULL")


class CoalitionServer(AuthorizationServer):
    """The authorization server of one request. ``revoked``: what to drop from the cache afterwards."""

    def __init__(self, connection: Connection, now: datetime, issuer: str) -> None:
        super().__init__()
        self.connection = connection
        self.now = now
        self.issuer = issuer
        self.revoked: list[bytes] = []
        self.register_client_auth_method("client_secret_basic", authenticate_basic)
        self.register_client_auth_method("client_secret_post", authenticate_post)
        self.register_token_generator(
            "default",
            BearerTokenGenerator(_new_token, expires_generator=lambda _client, _grant: TOKEN_SECONDS),
        )
        for grant in GRANTS:
            self.register_grant(grant)
        self.register_endpoint(Revocation)
        self.register_endpoint(Introspection)

    def issue_token(self, request: FormRequest) -> Response:
        """What the token endpoint answers."""
        if "grant_type" not in request.form:
            return error_response(InvalidRequestError("Send the parameter grant_type"))
        response: object = self.create_token_response(request)
        assert isinstance(response, Response)
        return response

    def answer(self, endpoint: str, request: FormRequest) -> Response:
        """What the revocation or the introspection endpoint answers."""
        response = self.create_endpoint_response(endpoint, request)  # type: ignore[no-untyped-call] # stub
        assert isinstance(response, Response)
        return response

    def query_client(self, client_id: str) -> OAuthClient | None:  # type: ignore[override] # the stub forgets None
        """The client, unless it is unknown or revoked."""
        row = self.connection.execute(CLIENT_SQL, {"client_id": client_id}).one_or_none()
        return None if row is None else OAuthClient(*row)

    def save_token(self, token: Mapping[str, str | int], request: OAuth2Request) -> None:
        """Stores the digest of a new token, and purges a few expired ones."""
        assert isinstance(request.client, OAuthClient)
        self.connection.execute(PURGE_TOKENS_SQL, {"now": self.now, "at_most": PURGED_AT_ONCE})
        self.connection.execute(
            INSERT_TOKEN_SQL,
            {
                "digest": secret_digest(str(token["access_token"])),
                "client_id": request.client.client_id,
                "scopes": str(token["scope"]).split(),
                "issued_at": self.now,
                "expires_at": self.now + timedelta(seconds=int(token["expires_in"])),
            },
        )

    def query_token(self, value: str) -> OAuthToken | None:
        """The token by its value, in whatever state; straight from the database."""
        parameters = {"digest": secret_digest(value), "now": self.now}
        row = self.connection.execute(TOKEN_SQL, parameters).one_or_none()
        return None if row is None else OAuthToken(*row)

    def revoke_token(self, digest: bytes) -> None:
        """Ends a token now and tells every process, at the commit; a revoked one stays as it is."""
        if self.connection.execute(REVOKE_TOKEN_SQL, {"digest": digest, "now": self.now}).rowcount:
            self.connection.execute(NOTIFY_REVOKED_SQL, revocation_notice(TOKEN_REVOKED, digest.hex()))
            self.revoked.append(digest)

    def create_oauth2_request(self, request: OAuth2Request) -> OAuth2Request:
        """The request itself: ``read_request`` made it before the transaction began."""
        return request

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Authlib announces its steps here, and nobody listens."""

    def handle_response(self, status: int, body: Mapping[str, object], headers: Mapping[str, str]) -> Response:
        """Authlib's answer as Starlette's."""
        return JSONResponse(body, status, dict(headers))

    def handle_error_response(self, request: OAuth2Request, error: OAuth2Error) -> Response:
        """An OAuth error as Starlette's response."""
        return error_response(error)


def error_response(error: OAuth2Error) -> Response:
    """The answer of RFC 6749 5.2 to an error, with a description that says what to do."""
    status, body, headers = error()
    headers = dict(headers)
    if isinstance(error, InvalidClientError):
        # One answer to an unknown client and a wrong secret, by header and by body: nothing to probe.
        status = 401
        headers["WWW-Authenticate"] = f'Basic realm="{REALM}", charset="UTF-8"'
        body["error_description"] = (
            "Client authentication failed: send a valid client_id and client_secret, "
            "either by HTTP Basic or in the body"
        )
    elif isinstance(error, UnsupportedGrantTypeError):
        known = ", ".join(str(grant.GRANT_TYPE) for grant in GRANTS)
        body["error_description"] = f"Supported grant types: {known}"
    return JSONResponse(body, status, headers)


QueryClient = Callable[[str], OAuthClient | None]


def authenticate_basic(query_client: QueryClient, request: FormRequest) -> OAuthClient | None:
    """``client_secret_basic``: id and secret in the Authorization header."""
    return None if request.basic is None else _authenticated(query_client, *request.basic)


def authenticate_post(query_client: QueryClient, request: FormRequest) -> OAuthClient | None:
    """``client_secret_post``: id and secret in the body."""
    client_id, secret = request.form.get("client_id"), request.form.get("client_secret")
    return None if client_id is None or secret is None else _authenticated(query_client, client_id, secret)


def _authenticated(query_client: QueryClient, client_id: str, secret: str) -> OAuthClient | None:
    client = query_client(client_id)
    # An unknown client takes the same steps as a known one, so that time does not tell which ids exist.
    expected = bytes(len(secret_digest(""))) if client is None else client.secret_digest
    return client if hmac.compare_digest(secret_digest(secret), expected) else None


def _new_token(**_: object) -> str:
    return TOKEN_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
