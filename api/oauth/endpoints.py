"""What happens to a token after it was issued: revocation (RFC 7009) and introspection (RFC 7662)."""

from typing import TYPE_CHECKING, Any

from authlib.oauth2 import OAuth2Request
from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidRequestError
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from api.oauth.methods import AUTH_METHODS
from api.oauth.models import OAuthClient, OAuthToken

if TYPE_CHECKING:
    from api.oauth.server import CoalitionServer

INTROSPECT_ANY_SCOPE = "audit:read"


def _token_asked_for(server: "CoalitionServer", request: OAuth2Request) -> OAuthToken | None:
    """The token that the request names. The hint about its type is ignored: all tokens are of one type."""
    if "token" not in request.form:
        raise InvalidRequestError("Send the token in the parameter token")
    return server.query_token(request.form["token"])


class Revocation(RevocationEndpoint):
    """Ends a token of the calling client. Unknown tokens answer 200 as well: what was asked for is so."""

    server: "CoalitionServer"
    CLIENT_AUTH_METHODS = AUTH_METHODS

    def authenticate_token(self, request: OAuth2Request, client: OAuthClient) -> OAuthToken | None:
        """The token to revoke; raises InvalidGrantError when it is another client's."""
        token = _token_asked_for(self.server, request)
        if token is not None and token.client_id != client.client_id:
            raise InvalidGrantError("The token was issued to another client")
        return token

    def revoke_token(self, token: OAuthToken, request: OAuth2Request) -> None:
        """Revokes it."""
        self.server.revoke_token(token.digest)


class Introspection(IntrospectionEndpoint):
    """Tells a client about its own tokens, and an operator's client with audit:read about everybody's.

    Reads the database, never the cache. A token that is not the caller's to see is as inactive as an unknown
    one.
    """

    server: "CoalitionServer"
    CLIENT_AUTH_METHODS = AUTH_METHODS

    def authenticate_token(self, request: OAuth2Request, client: OAuthClient) -> OAuthToken | None:
        """The token, if the client may see it."""
        token = _token_asked_for(self.server, request)
        return token if token is not None and self.check_permission(token, client, request) else None

    def check_permission(self, token: OAuthToken, client: OAuthClient, request: OAuth2Request) -> bool:
        """Whether the client may see the token."""
        if token.client_id == client.client_id:
            return True
        return client.is_operator and INTROSPECT_ANY_SCOPE in client.scopes

    def introspect_token(self, token: OAuthToken) -> dict[str, Any]:
        """What is told about an active token (RFC 7662 2.2); times in whole seconds."""
        described = {
            "active": True,
            "token_type": "Bearer",
            "client_id": token.client_id,
            "sub": token.client_id,
            "scope": " ".join(token.scopes),
            "iat": int(token.issued_at.timestamp()),
            "exp": int(token.expires_at.timestamp()),
        }
        return {**described, "iss": self.server.issuer} if self.server.issuer else described
