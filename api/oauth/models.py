"""Clients and tokens as Authlib's endpoints ask about them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from authlib.oauth2.rfc6749 import ClientMixin, InvalidScopeError, TokenMixin

from api.security import OPERATOR_SCOPES, PARTNER_SCOPES, implied_scopes
from domain.values import OPERATOR_ID


@dataclass(frozen=True, slots=True)
class OAuthClient(ClientMixin):
    """A client that is not revoked."""

    client_id: str
    secret_digest: bytes
    partner_id: int
    scopes: Collection[str]
    auth_methods: Collection[str]

    @property
    def is_operator(self) -> bool:
        """Whether it acts for the operator."""
        return self.partner_id == OPERATOR_ID

    def get_allowed_scope(self, scope: Collection[str] | str | None) -> str:
        """The scope of a token, space-separated: the client's own when none is asked for.

        Raises InvalidScopeError for anything beyond the client's own.
        """
        if scope is None:
            return " ".join(self.scopes)
        wanted = scope.split() if isinstance(scope, str) else list(scope)
        if not wanted or not set(wanted) <= set(self.scopes):
            known = {*PARTNER_SCOPES, *OPERATOR_SCOPES}
            # Only names of ours are repeated: an answer that quotes its request is a way to smuggle text.
            beyond = [name for name in wanted if name in known and name not in self.scopes]
            reason = f"This client has no {', '.join(beyond)}" if beyond else "The scope is unknown or malformed"
            raise InvalidScopeError(f"{reason}; it may ask for: {' '.join(self.scopes)}")
        return " ".join(implied_scopes(wanted, operator=self.is_operator))

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Whether it may authenticate that way; the same at every endpoint."""
        return method in self.auth_methods

    def check_grant_type(self, grant_type: str) -> bool:
        """Whether it may use the grant: client_credentials, as every client is a system of its own."""
        return grant_type == "client_credentials"


@dataclass(frozen=True, slots=True)
class OAuthToken(TokenMixin):
    """A token's row, with its state at the request's time; revoked too when its client is."""

    digest: bytes
    client_id: str
    scopes: Collection[str]
    issued_at: datetime
    expires_at: datetime
    expired: bool
    revoked: bool

    def is_expired(self) -> bool:
        """Whether its time is over."""
        return self.expired

    def is_revoked(self) -> bool:
        """Whether it or its client was revoked."""
        return self.revoked
