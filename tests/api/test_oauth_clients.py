"""Clients as the command line creates, lists and revokes them; what database and log never hold of them."""

import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from api.oauth.clients import SECRET_PREFIX, create_client, list_clients, revoke_client
from api.security import TOKEN_PREFIX
from domain.database import Database
from domain.errors import ConfigurationError
from tests.api.oauth_shop import INTROSPECT, REVOKE, START, Shop, open_shop


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    async with open_shop(database) as opened:
        yield opened


async def test_an_operator_client_needs_no_programme(database: Database) -> None:
    client = await create_client(
        database, lambda: START, partner_code=None, operator=True, scopes=["audit:read"], name="Back office"
    )
    (listed,) = await list_clients(database)
    assert listed.client_id == client.client_id
    assert (listed.name, listed.partner_code, listed.created_at, listed.revoked_at) == (
        "Back office",
        None,
        START,
        None,
    )
    assert listed.scopes == ["audit:read", "members:read", "partner:read", "reports:read", "settlement:read"]
    assert client.client_secret not in repr(client)


IMPOSSIBLE_CLIENTS: list[tuple[str | None, bool, list[str], str]] = [
    ("baker", False, ["points:earn"], "no partner 'baker'"),
    (None, False, ["points:earn"], "exactly one"),
    ("grocer", True, ["points:earn"], "exactly one"),
    ("grocer", False, ["points:eran"], "cannot have 'points:eran'; it may have: members:read "),
    ("grocer", False, ["points:earn", "program:read"], "cannot have 'program:read'"),
    ("grocer", False, [], "at least one scope"),
    (None, True, ["points:earn"], "an operator's client cannot have 'points:earn'"),
    (None, True, ["settlement:dispute"], "cannot have 'settlement:dispute'"),
]


async def test_a_client_that_cannot_be(shop: Shop) -> None:
    for code, operator, scopes, message in IMPOSSIBLE_CLIENTS:
        with pytest.raises(ConfigurationError, match=message) as refusal:
            await create_client(shop.database, shop.clock, partner_code=code, operator=operator, scopes=scopes)
        assert "\n" not in str(refusal.value)
    with pytest.raises(ConfigurationError, match="printable"):
        await create_client(
            shop.database,
            shop.clock,
            partner_code="grocer",
            operator=False,
            scopes=["points:earn"],
            name="a\0",
        )
    assert await list_clients(shop.database) == []


async def test_revoking_a_client_ends_its_tokens_only(shop: Shop) -> None:
    client, other = await shop.client("points:earn"), await shop.client("points:earn")
    token, kept = await shop.token(client), await shop.token(other)
    shop.now += timedelta(minutes=1)
    assert await revoke_client(shop.database, shop.clock, client.client_id) is True
    shop.now += timedelta(minutes=1)
    assert await revoke_client(shop.database, shop.clock, client.client_id) is True
    assert await revoke_client(shop.database, shop.clock, "coa_client_unknown") is False
    assert await shop.authenticator.verify(token) is None
    assert await shop.authenticator.verify(kept) is not None
    listed = {info.client_id: info.revoked_at for info in await list_clients(shop.database)}
    assert listed == {client.client_id: START + timedelta(minutes=1), other.client_id: None}
    revoked = await shop.rows("SELECT client_id, revoked_at FROM oauth_token WHERE revoked_at IS NOT NULL")
    assert [tuple(row) for row in revoked] == [(client.client_id, START + timedelta(minutes=1))]


# --- What must not be found -------------------------------------------------------------------------


async def test_neither_database_nor_log_holds_a_secret(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = await shop.client("points:earn")
    token = await shop.token(client)
    await shop.post(INTROSPECT, client, token=token)
    await shop.post(REVOKE, client, token=token)
    # Without the public prefix too: the secret part may itself hold the prefix's "_".
    secrets = [token, client.client_secret, token.removeprefix(TOKEN_PREFIX)]
    secrets.append(client.client_secret.removeprefix(SECRET_PREFIX))
    everything = ""
    for (table,) in await shop.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        rows = await shop.rows(f'SELECT t::text FROM "{table}" AS t')
        everything += str(rows)
    assert client.client_id in everything
    for secret in secrets:
        assert secret not in everything
        assert secret.encode().hex() not in everything
        assert secret not in caplog.text
    assert logging.getLogger("authlib").getEffectiveLevel() == logging.INFO


async def test_roles_may_do_no_more_than_they_need(shop: Shop) -> None:
    granted = await shop.rows(
        "SELECT table_name, grantee, privilege_type FROM information_schema.table_privileges"
        " WHERE table_name LIKE 'oauth%' AND grantee <> 'coalition_owner' ORDER BY 1, 2, 3"
    )
    assert [tuple(row) for row in granted] == [
        ("oauth_client", "coalition_posting", "INSERT"),
        ("oauth_client", "coalition_posting", "SELECT"),
        ("oauth_token", "coalition_posting", "DELETE"),
        ("oauth_token", "coalition_posting", "INSERT"),
        ("oauth_token", "coalition_posting", "SELECT"),
    ]
    columns = await shop.rows(
        "SELECT table_name, grantee, column_name FROM information_schema.column_privileges"
        " WHERE table_name LIKE 'oauth%' AND grantee <> 'coalition_owner' AND privilege_type = 'UPDATE'"
        " ORDER BY 1"
    )
    assert [tuple(row) for row in columns] == [
        ("oauth_client", "coalition_posting", "revoked_at"),
        ("oauth_token", "coalition_posting", "revoked_at"),
    ]
