"""Administration of API clients, for the command line: create, list, revoke."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import text

from api.oauth.methods import AUTH_METHODS
from api.security import (
    CLIENT_REVOKED,
    NOTIFY_REVOKED_SQL,
    grantable_scopes,
    implied_scopes,
    revocation_notice,
    secret_digest,
)
from domain.database import Database
from domain.errors import ConfigurationError
from domain.periods import Clock
from domain.values import OPERATOR_ID

CLIENT_PREFIX = "coa_client_"
SECRET_PREFIX = "coa_cs_"  # noqa: S105 (the public part, by which secret scanners know our secrets)
SECRET_BYTES = 32
CLIENT_ID_BYTES = 12
NAME_LENGTH_MAX = 200

PARTNER_ID_SQL = text("SELECT id FROM partner WHERE code = :code")

INSERT_CLIENT_SQL = text(
    """
    INSERT INTO oauth_client (client_id, secret_digest, name, partner_id, scopes, auth_methods, created_at)
    VALUES (:client_id, :secret_digest, :name, :partner_id,
            CAST(:scopes AS text[]), CAST(:auth_methods AS text[]), :now)
    """
)

LIST_CLIENTS_SQL = text(
    """
    SELECT c.client_id, c.name, p.code, c.scopes, c.created_at, c.revoked_at
      FROM oauth_client AS c LEFT JOIN partner AS p ON p.id = c.partner_id
     ORDER BY c.created_at, c.client_id
    """
)

REVOKE_CLIENT_SQL = text(
    """
    UPDATE oauth_client SET revoked_at = coalesce(revoked_at, :now)
     WHERE client_id = :client_id RETURNING client_id
    """
)

REVOKE_TOKENS_SQL = text("UPDATE oauth_token SET revoked_at = :now WHERE client_id = :client_id AND revoked_at IS NULL")


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client just created. The secret is known here and nowhere else: show it once."""

    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A client without its secret. ``partner_code`` None is the operator's; ``revoked_at`` None is in use."""

    client_id: str
    name: str
    partner_code: str | None
    scopes: Sequence[str]
    created_at: datetime
    revoked_at: datetime | None


async def create_client(
    database: Database,
    clock: Clock,
    *,
    partner_code: str | None,
    operator: bool,
    scopes: Iterable[str],
    name: str = "",
) -> NewClient:
    """Creates a client of one partner, or of the operator (which needs no programme yet).

    An operator's client gets every read scope on top. Raises ConfigurationError for an unknown partner, an
    unknown scope, or one that this kind of client may not have.
    """
    if operator == (partner_code is not None):
        raise ConfigurationError("a client belongs to one partner or to the operator: name exactly one of them")
    granted = _checked_scopes(scopes, operator=operator)
    if len(name) > NAME_LENGTH_MAX or not name.isprintable():
        raise ConfigurationError(f"the name must be printable and at most {NAME_LENGTH_MAX} characters long")
    client = NewClient(
        CLIENT_PREFIX + secrets.token_hex(CLIENT_ID_BYTES),
        SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES),
    )
    async with database.posting() as connection:
        partner_id: int | None = OPERATOR_ID
        if partner_code is not None:
            partner_id = (await connection.execute(PARTNER_ID_SQL, {"code": partner_code})).scalar()
        if partner_id is None:
            raise ConfigurationError(f"there is no partner {partner_code!r}: create it with `coalition apply` first")
        await connection.execute(
            INSERT_CLIENT_SQL,
            {
                "client_id": client.client_id,
                "secret_digest": secret_digest(client.client_secret),
                "name": name,
                "partner_id": partner_id,
                "scopes": granted,
                "auth_methods": list(AUTH_METHODS),
                "now": clock(),
            },
        )
    return client


def _checked_scopes(scopes: Iterable[str], *, operator: bool) -> list[str]:
    granted = implied_scopes(scopes, operator=operator)
    allowed = grantable_scopes(operator=operator)
    kind = "an operator's client" if operator else "a partner's client"
    wrong = [scope for scope in granted if scope not in allowed]
    if wrong:
        one_line = ", ".join(ascii(scope) for scope in wrong)
        raise ConfigurationError(f"{kind} cannot have {one_line}; it may have: {' '.join(sorted(allowed))}")
    if not granted:
        raise ConfigurationError(f"{kind} needs at least one scope of: {' '.join(sorted(allowed))}")
    return granted


async def list_clients(database: Database) -> list[ClientInfo]:
    """Every client, revoked ones too, oldest first."""
    async with database.posting() as connection:
        return [ClientInfo(*row) for row in await connection.execute(LIST_CLIENTS_SQL)]


async def revoke_client(database: Database, clock: Clock, client_id: str) -> bool:
    """Revokes a client and its tokens, in every running process; False when there is no such client.

    Revoking again changes nothing and is True.
    """
    async with database.posting() as connection:
        parameters = {"client_id": client_id, "now": clock()}
        if (await connection.execute(REVOKE_CLIENT_SQL, parameters)).scalar() is None:
            return False
        await connection.execute(REVOKE_TOKENS_SQL, parameters)
        await connection.execute(NOTIFY_REVOKED_SQL, revocation_notice(CLIENT_REVOKED, client_id))
    return True
