"""Bearer tokens as the rest of the application meets them: header, principal, cache and revocation."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, text

from api import security
from api.oauth.clients import revoke_client
from api.security import (
    OPERATOR_SCOPES,
    PARTNER_SCOPES,
    READ_SCOPES,
    Authenticator,
    Principal,
    RevocationListener,
    bearer_token,
    challenge,
    grantable_scopes,
    secret_digest,
)
from domain.database import Database
from tests.api.oauth_shop import REVOKE, START, Shop, open_shop

TOKEN = "coa_at_" + "a" * 43
SOME_DAY = datetime(2026, 3, 2, tzinfo=UTC)


# --- Scopes and headers -----------------------------------------------------------------------------


def test_who_may_hold_what() -> None:
    assert " ".join(PARTNER_SCOPES) == (
        "members:read members:write points:earn points:burn points:reverse partner:read"
        " settlement:read settlement:dispute reports:read"
    )
    assert " ".join(OPERATOR_SCOPES) == (
        "program:read program:write members:admin points:adjust settlement:operate recon:operate audit:read"
    )
    assert grantable_scopes(operator=False) == set(PARTNER_SCOPES)
    assert grantable_scopes(operator=True) == set(OPERATOR_SCOPES) | READ_SCOPES
    assert all(line and "\n" not in line for line in (*PARTNER_SCOPES.values(), *OPERATOR_SCOPES.values()))


def test_an_operator_always_reads_and_a_partner_only_what_it_holds() -> None:
    held = frozenset({"program:read"})
    operator, partner = Principal("a", 0, held, SOME_DAY), Principal("b", 7, held, SOME_DAY)
    every = {*PARTNER_SCOPES, *OPERATOR_SCOPES}
    assert {scope for scope in every if operator.has(scope)} == READ_SCOPES | held
    assert {scope for scope in every if partner.has(scope)} == held
    assert (operator.is_operator, partner.is_operator) == (True, False)


@pytest.mark.parametrize(
    ("values", "token"),
    [
        ([f"Bearer {TOKEN}"], TOKEN),
        ([f"bearer {TOKEN}"], TOKEN),
        ([f"BEARER   {TOKEN} "], TOKEN),
        ([], None),
        ([""], None),
        ([TOKEN], None),
        (["Bearer"], None),
        (["Bearer "], None),
        ([f"Bearer{TOKEN}"], None),
        ([f"Bearer\t{TOKEN}"], None),
        ([f"Basic {TOKEN}"], None),
        ([f"Bearer {TOKEN}\n"], None),
        ([f"Bearer {TOKEN}, Bearer {TOKEN}"], None),
        ([f"Bearer {TOKEN}x"], None),
        ([f"Bearer {TOKEN[:-1]}"], None),
        ([f"Bearer {TOKEN[:-1]}é"], None),
        ([f"Bearer {TOKEN}", f"Bearer {TOKEN}"], None),
    ],
)
def test_the_header_is_read_strictly(values: list[str], token: str | None) -> None:
    headers = [(b"host", b"x"), *((b"authorization", value.encode("latin-1")) for value in values)]
    assert bearer_token(headers) == token
    assert ('error="invalid_token"' in challenge(headers)) == bool(values)
    assert challenge(headers).startswith('Bearer realm="coalition"')


# --- The cache --------------------------------------------------------------------------------------


class Bench:
    """A shop with a token, whose timer stands too, and which counts look-ups."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.seconds = 100.0
        self.look_ups = 0
        self.authenticator = self.another()

    def another(self) -> Authenticator:
        """An authenticator of another process."""
        return Authenticator(self.shop.database, self.shop.clock, lambda: self.seconds)

    def count(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.look_ups += "FROM oauth_token AS t" in statement

    async def execute(self, sql: str, **parameters: object) -> None:
        async with self.shop.database.posting() as connection:
            await connection.execute(text(sql), parameters)


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with open_shop(database) as shop:
        opened = Bench(shop)
        event.listen(database._posting.sync_engine, "before_cursor_execute", opened.count)
        yield opened


async def test_a_token_becomes_a_principal(bench: Bench) -> None:
    client = await bench.shop.client("points:earn", "points:burn")
    token = await bench.shop.token(client, scope="points:burn")
    headers = [(b"authorization", f"Bearer {token}".encode())]
    principal = await bench.authenticator.authenticate(headers)
    assert principal == Principal(client.client_id, 1, frozenset({"points:burn"}), START + timedelta(minutes=15))
    assert await bench.authenticator.authenticate([]) is None
    assert await bench.authenticator.authenticate([(b"authorization", f"Bearer {TOKEN}".encode())]) is None
    assert token not in repr(vars(bench.authenticator))


async def test_a_good_token_is_remembered_for_five_seconds(bench: Bench) -> None:
    token = await bench.shop.token(await bench.shop.client("points:earn"))
    for seconds, look_ups in [(0.0, 1), (4.999, 1), (0.001, 2), (4.999, 2), (0.002, 3)]:
        bench.seconds += seconds
        assert await bench.authenticator.verify(token) is not None
        assert bench.look_ups == look_ups


async def test_a_bad_token_is_not_remembered(bench: Bench) -> None:
    client = await bench.shop.client("points:earn")
    assert await bench.authenticator.verify(TOKEN) is None
    assert await bench.authenticator.verify(TOKEN) is None
    assert bench.look_ups == 2
    await bench.execute(
        "INSERT INTO oauth_token VALUES (:digest, :client, ARRAY['points:earn'], :at, :until)",
        digest=secret_digest(TOKEN), client=client.client_id, at=START, until=START + timedelta(minutes=1),
    )  # fmt: skip
    assert await bench.authenticator.verify(TOKEN) is not None


async def test_a_token_ends_with_its_client(bench: Bench) -> None:
    """Also one that was issued while the client was being revoked, which revoked no such token."""
    client = await bench.shop.client("points:earn")
    token = await bench.shop.token(client)
    await bench.execute("UPDATE oauth_client SET revoked_at = :now", now=START)
    assert await bench.authenticator.verify(token) is None


async def test_a_token_ends_exactly_at_fifteen_minutes_even_in_the_cache(bench: Bench) -> None:
    token = await bench.shop.token(await bench.shop.client("points:earn"))
    bench.shop.now = START + timedelta(minutes=15) - timedelta(microseconds=1)
    assert await bench.authenticator.verify(token) is not None
    bench.shop.now = START + timedelta(minutes=15)
    assert await bench.authenticator.verify(token) is None
    assert await bench.another().verify(token) is None


async def test_the_cache_is_bounded_and_drops_the_oldest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "CACHE_ENTRIES_MAX", 3)
    client = await bench.shop.client("points:earn")
    tokens = [await bench.shop.token(client) for _ in range(5)]
    for token in tokens:
        assert await bench.authenticator.verify(token) is not None
    assert list(bench.authenticator._cache) == [secret_digest(token) for token in tokens[2:]]


async def test_a_revocation_during_a_look_up_wins(bench: Bench) -> None:
    token = await bench.shop.token(await bench.shop.client("points:earn"))

    def revoke(*_: object) -> None:
        bench.authenticator.forget_token(secret_digest(token))

    engine = bench.shop.database._posting.sync_engine
    event.listen(engine, "after_cursor_execute", revoke)
    assert await bench.authenticator.verify(token) is not None
    event.remove(engine, "after_cursor_execute", revoke)
    assert bench.authenticator._cache == {}


# --- Revocation, here and elsewhere -----------------------------------------------------------------


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happened():  # noqa: ASYNC110 (a cache tells nobody when it changes)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(
    bench: Bench, authenticator: Authenticator, retry_seconds: float = 0.05
) -> AsyncIterator[RevocationListener]:
    listener = RevocationListener(bench.shop.database, authenticator, retry_seconds)
    listener.start()
    async with asyncio.timeout(20):
        await listener.listening.wait()
    yield listener
    await listener.stop()
    assert not listener.listening.is_set()


async def test_a_revoked_token_is_dropped_here_at_once_and_elsewhere_by_notification(bench: Bench) -> None:
    client = await bench.shop.client("points:earn")
    token, kept = await bench.shop.token(client), await bench.shop.token(client)
    here, there, deaf = bench.shop.authenticator, bench.another(), bench.another()
    async with listening(bench, there):
        for authenticator in (here, there, deaf):
            assert await authenticator.verify(token) is not None
            assert await authenticator.verify(kept) is not None
        await bench.shop.post(REVOKE, client, token=token)
        assert await here.verify(token) is None
        await until(lambda: secret_digest(token) not in there._cache)
        assert await there.verify(token) is None
        assert list(there._cache) == [secret_digest(kept)]
    # Without a notification, the five seconds are the limit.
    assert await deaf.verify(token) is not None
    bench.seconds += 5
    assert await deaf.verify(token) is None


async def test_a_revoked_client_is_dropped_by_notification(bench: Bench) -> None:
    client, other = await bench.shop.client("points:earn"), await bench.shop.client("points:earn")
    tokens = [await bench.shop.token(client), await bench.shop.token(client)]
    kept = await bench.shop.token(other)
    async with listening(bench, bench.authenticator):
        for token in (*tokens, kept):
            assert await bench.authenticator.verify(token) is not None
        await revoke_client(bench.shop.database, bench.shop.clock, client.client_id)
        await until(lambda: list(bench.authenticator._cache) == [secret_digest(kept)])
        assert [await bench.authenticator.verify(token) for token in tokens] == [None, None]
        # What is not understood empties the cache: better a look-up too many.
        assert await bench.authenticator.verify(kept) is not None
        await bench.execute("SELECT pg_notify('coalition_revoked', 'token nonsense')")
        await until(lambda: not bench.authenticator._cache)


KILL_LISTENERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'coalition_revoked' AND datname = current_database()"
)


async def test_a_lost_connection_empties_the_cache_at_once(
    bench: Bench, tamper: Callable[[str], Awaitable[None]]
) -> None:
    token = await bench.shop.token(await bench.shop.client("points:earn"))
    async with listening(bench, bench.authenticator, retry_seconds=3600) as listener:
        assert await bench.authenticator.verify(token) is not None
        await tamper(KILL_LISTENERS)
        await until(lambda: not bench.authenticator._cache)
        assert not listener.listening.is_set()


async def test_what_was_remembered_before_listening_is_forgotten(bench: Bench) -> None:
    token = await bench.shop.token(await bench.shop.client("points:earn"))
    assert await bench.authenticator.verify(token) is not None
    async with listening(bench, bench.authenticator):
        assert bench.authenticator._cache == {}


async def test_a_lost_connection_is_replaced(bench: Bench, tamper: Callable[[str], Awaitable[None]]) -> None:
    client = await bench.shop.client("points:earn")
    token = await bench.shop.token(client)
    async with listening(bench, bench.authenticator) as listener:
        for _ in range(2):
            assert await bench.authenticator.verify(token) is not None
            await tamper(KILL_LISTENERS)
            await until(lambda: not bench.authenticator._cache)
            async with asyncio.timeout(20):
                await listener.listening.wait()
        assert await bench.authenticator.verify(token) is not None
        await bench.shop.post(REVOKE, client, token=token)
        await until(lambda: not bench.authenticator._cache)
        assert await bench.authenticator.verify(token) is None


async def test_the_listener_holds_one_connection_and_leaves_nothing_behind(bench: Bench) -> None:
    sql = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'coalition_revoked' AND datname = current_database()"
    )
    async with listening(bench, bench.authenticator):
        assert [row.count for row in await bench.shop.rows(sql)] == [1]
    deadline = time.monotonic() + 20
    while [row.count for row in await bench.shop.rows(sql)] != [0]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
