"""Who is calling: scopes, the principal behind a bearer token, and the cache of verified tokens.

Tokens are opaque and stored as SHA-256 digests (``api.oauth`` issues them); an indexed look-up verifies all those that
wait for one.
"""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from api.gathering import Gatherer
from domain.database import POSTING_ROLE, Database
from domain.periods import Clock
from domain.values import OPERATOR_ID

log = logging.getLogger(__name__)

PARTNER_SCOPES: Mapping[str, str] = MappingProxyType(
    {
        "members:read": "Look up members and their balances",
        "members:write": "Enroll members",
        "points:earn": "Award points for purchases",
        "points:burn": "Burn members' points",
        "points:reverse": "Reverse the partner's own purchases and burns",
        "partner:read": "Read the partner's stores, terms, budgets and transactions",
        "settlement:read": "Read settlement periods and the partner's statements",
        "settlement:dispute": "Dispute lines of the partner's statements",
        "reports:read": "Read the partner's performance reports",
    }
)
"""What a partner's client may be granted, always within that partner; a line for people each."""

OPERATOR_SCOPES: Mapping[str, str] = MappingProxyType(
    {
        "program:read": "Read the programme's configuration",
        "program:write": "Change programme, partners, terms, budgets and earn rules",
        "members:admin": "Correct, merge and close members",
        "points:adjust": "Adjust members' points",
        "settlement:operate": "Close periods and release statements",
        "recon:operate": "Reconcile payments",
        "audit:read": "Read the audit trail, and the status of every client's tokens",
    }
)
"""What only an operator's client may be granted; a line for people each."""

READ_SCOPES = frozenset({"members:read", "partner:read", "settlement:read", "reports:read"})
"""The partner scopes that only read. Every operator client holds all of them, over all partners, asked for or
not."""

TOKEN_PREFIX = "coa_at_"  # noqa: S105 (the public part, by which secret scanners know our tokens)
TOKEN_FORM = re.compile(rf"{TOKEN_PREFIX}[A-Za-z0-9_-]{{43}}")
REALM = "coalition"

CACHE_ENTRIES_MAX = 10_000
CACHE_SECONDS = 5

REVOCATION_CHANNEL = "coalition_revoked"
TOKEN_REVOKED = "token"  # noqa: S105 (first word of a notification; a digest in hex follows)
CLIENT_REVOKED = "client"

DIGEST_HEX = re.compile(r"[0-9a-f]{64}")

NOTIFY_REVOKED_SQL = text("SELECT pg_notify(:channel, :payload)")

VERIFY_TOKENS_SQL = text(
    """
    SELECT t.digest, t.client_id, c.partner_id, t.scopes, t.expires_at
      FROM oauth_token AS t JOIN oauth_client AS c ON c.client_id = t.client_id
     WHERE t.digest = ANY(CAST(:digests AS bytea[]))
       AND t.expires_at > :now AND t.revoked_at IS NULL AND c.revoked_at IS NULL
    """
)


@dataclass(frozen=True, slots=True)
class Principal:
    """The client behind a verified token. ``partner_id`` 0 is the operator; ``expires_at`` ends the token."""

    client_id: str
    partner_id: int
    scopes: frozenset[str]
    expires_at: datetime

    @property
    def is_operator(self) -> bool:
        """Whether the client is the operator's, who sees every partner."""
        return self.partner_id == OPERATOR_ID

    def has(self, scope: str) -> bool:
        """Whether the token allows ``scope``; an operator's always allows the read scopes."""
        return scope in self.scopes or (self.is_operator and scope in READ_SCOPES)


def grantable_scopes(*, operator: bool) -> frozenset[str]:
    """What a client of this kind may be granted; the operator's: its own scopes and every read scope."""
    return frozenset(OPERATOR_SCOPES) | READ_SCOPES if operator else frozenset(PARTNER_SCOPES)


def implied_scopes(scopes: Iterable[str], *, operator: bool) -> list[str]:
    """These scopes with what comes with them (the operator's read scopes), each once, alphabetically."""
    return sorted(set(scopes) | READ_SCOPES if operator else set(scopes))


def secret_digest(secret: str) -> bytes:
    """SHA-256 of a token or client secret: what the database and the cache hold instead of it."""
    return hashlib.sha256(secret.encode()).digest()


def bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The token of exactly one ``Authorization: Bearer <token>`` header (RFC 6750 2.1), or None.

    ``headers`` are ASGI's: lower-case names. Query string and body are never looked at: they end up in logs.
    """
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) != 1:
        return None
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    token = token.strip(" ")
    return token if scheme.lower() == "bearer" and TOKEN_FORM.fullmatch(token) else None


def challenge(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The ``WWW-Authenticate`` of a 401: says "invalid_token" only to who sent one (RFC 6750 3.1)."""
    if any(name == b"authorization" for name, _ in headers):
        reason = "The access token is malformed, unknown, expired or revoked"
        return f'Bearer realm="{REALM}", error="invalid_token", error_description="{reason}"'
    return f'Bearer realm="{REALM}"'


class Authenticator:
    """Turns bearer tokens into principals, and remembers good ones for a moment.

    The cache holds at most 10,000 verified tokens by digest, each for at most 5 seconds and never past its
    expiry; tokens that failed are not remembered. Expiry follows ``clock``, as all business time does. The 5
    seconds follow ``monotonic``: they bound how long a lost notification keeps a revoked token alive, and a
    clock that is held, set back or corrected must not stretch that.
    """

    def __init__(self, database: Database, clock: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._cache: dict[bytes, tuple[Principal, float]] = {}
        self._forgotten = 0
        # Tokens leave the cache all the time; look-ups of their own would take the connections from the posting queue.
        self._gatherer = Gatherer(self._read, "token reader")

    async def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal | None:
        """The principal of a request by its ASGI headers; None when token or header are missing or bad."""
        token = bearer_token(headers)
        return None if token is None else await self.verify(token)

    async def verify(self, token: str) -> Principal | None:
        """The principal of a token, or None when it is unknown, expired or revoked, or its client is."""
        digest = secret_digest(token)
        return self._remembered(digest) or await self._look_up(digest)

    def remembered(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal | None:
        """The principal of a request if its token was verified a moment ago; None says nothing."""
        token = bearer_token(headers)
        return None if token is None else self._remembered(secret_digest(token))

    def _remembered(self, digest: bytes) -> Principal | None:
        cached = self._cache.get(digest)
        if cached is None:
            return None
        principal, until = cached
        if self._monotonic() < until and self._clock() < principal.expires_at:
            return principal
        del self._cache[digest]
        return None

    async def _look_up(self, digest: bytes) -> Principal | None:
        until = self._monotonic() + CACHE_SECONDS
        forgotten = self._forgotten
        principal = await self._gatherer.find(digest)
        if principal is None:
            return None
        # A revocation that arrived during the look-up may be younger than the row that was read.
        if forgotten == self._forgotten:
            while len(self._cache) >= CACHE_ENTRIES_MAX:
                # Entries all live equally long, so the first one in is the one nearest its end.
                del self._cache[next(iter(self._cache))]
            self._cache[digest] = (principal, until)
        return principal

    async def _read(self, digests: Sequence[bytes]) -> Mapping[bytes, Principal]:
        async with self._database.posting() as connection:
            rows = await connection.execute(VERIFY_TOKENS_SQL, {"digests": digests, "now": self._clock()})
        return {
            row.digest: Principal(row.client_id, row.partner_id, frozenset(row.scopes), row.expires_at) for row in rows
        }

    def forget_token(self, digest: bytes) -> None:
        """Drops one token from the cache: it was revoked."""
        self._forgotten += 1
        self._cache.pop(digest, None)

    def forget_client(self, client_id: str) -> None:
        """Drops a client's tokens from the cache: the client was revoked."""
        self._forgotten += 1
        self._cache = {digest: entry for digest, entry in self._cache.items() if entry[0].client_id != client_id}

    def forget_all(self) -> None:
        """Empties the cache: revocations may have been missed."""
        self._forgotten += 1
        self._cache.clear()


def revocation_notice(kind: str, name: str) -> dict[str, str]:
    """Parameters of NOTIFY_REVOKED_SQL: TOKEN_REVOKED with a digest in hex, or CLIENT_REVOKED with an id."""
    return {"channel": REVOCATION_CHANNEL, "payload": f"{kind} {name}"}


class RevocationListener:
    """Hears what other processes revoke and drops it from the authenticator's cache.

    Holds one connection of its own. When it is lost, the cache is emptied, and again once the next one
    listens: what was revoked in between was told to nobody here.
    """

    def __init__(
        self,
        database: Database,
        authenticator: Authenticator,
        retry_seconds: float = 1.0,
        heartbeat_seconds: float = 5.0,
    ) -> None:
        self._authenticator = authenticator
        self._retry_seconds = retry_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._task: asyncio.Task[None] | None = None
        self._engine = create_async_engine(
            database.urls.posting,
            poolclass=NullPool,
            connect_args={"server_settings": {"role": POSTING_ROLE, "application_name": REVOCATION_CHANNEL}},
        )
        self.listening = asyncio.Event()

    def start(self) -> None:
        """Starts listening in the background; ``listening`` is set while notifications arrive."""
        assert self._task is None
        self._task = asyncio.create_task(self._run(), name=REVOCATION_CHANNEL)

    async def stop(self) -> None:
        """Ends the listening and closes the connection."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._engine.dispose()

    async def _run(self) -> None:
        while True:
            try:
                await self._listen_until_lost()
            except Exception as error:  # noqa: BLE001 (whatever it was, listening goes on; driver errors share no root)
                log.warning("lost the connection that hears revocations, trying again: %r", error)
            self._authenticator.forget_all()
            await asyncio.sleep(self._retry_seconds)

    async def _listen_until_lost(self) -> None:
        async with self._engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            lost = asyncio.Event()
            driver.add_termination_listener(lambda _connection: lost.set())
            await driver.add_listener(REVOCATION_CHANNEL, self._heard)
            self._authenticator.forget_all()
            self.listening.set()
            try:
                while not lost.is_set():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(lost.wait(), self._heartbeat_seconds)
                        break
                    # A peer that vanished without a word is noticed only by asking it something.
                    await driver.execute("SELECT 1", timeout=self._heartbeat_seconds)
            finally:
                self.listening.clear()

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        kind, _, name = str(payload).partition(" ")
        if kind == TOKEN_REVOKED and DIGEST_HEX.fullmatch(name):
            self._authenticator.forget_token(bytes.fromhex(name))
        elif kind == CLIENT_REVOKED:
            self._authenticator.forget_client(name)
        else:
            # Another release may speak otherwise; forgetting too much costs a look-up, too little a breach.
            self._authenticator.forget_all()
