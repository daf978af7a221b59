"""The authorization server's description of itself (RFC 8414): only what works."""

from urllib.parse import urlsplit

from authlib.common.security import is_secure_transport

from api.oauth.grants import GRANTS
from api.oauth.methods import AUTH_METHODS
from api.security import OPERATOR_SCOPES, PARTNER_SCOPES
from domain.errors import ConfigurationError

TOKEN_PATH = "/oauth/token"  # noqa: S105 (an address)
REVOKE_PATH = "/oauth/revoke"
INTROSPECT_PATH = "/oauth/introspect"
METADATA_PATH = "/.well-known/oauth-authorization-server"


def checked_issuer(issuer: str) -> str:
    """The configured public address without a closing slash; empty when none is configured.

    Raises ConfigurationError when clients could not use it: not https (loopback excepted), or with user,
    query or fragment.
    """
    if not issuer:
        return ""
    parts = urlsplit(issuer)
    if not is_secure_transport(issuer) or parts.query or parts.fragment or parts.username is not None:
        raise ConfigurationError(
            f"the public address {issuer!r} must be https:// with a host, without user, query and fragment "
            "(http:// on loopback only): tokens are secrets"
        )
    return issuer.rstrip("/")


def server_metadata(issuer: str) -> dict[str, object]:
    """The document for the server at ``issuer``."""
    return {
        "issuer": issuer,
        "token_endpoint": issuer + TOKEN_PATH,
        "revocation_endpoint": issuer + REVOKE_PATH,
        "introspection_endpoint": issuer + INTROSPECT_PATH,
        "grant_types_supported": [grant.GRANT_TYPE for grant in GRANTS],
        "response_types_supported": [],  # a required member, though nothing is authorized interactively
        "scopes_supported": [*PARTNER_SCOPES, *OPERATOR_SCOPES],
        "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "revocation_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "introspection_endpoint_auth_methods_supported": list(AUTH_METHODS),
    }
