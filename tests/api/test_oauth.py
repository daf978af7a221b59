"""The OAuth endpoints over HTTP: what is issued, what is refused, what database and log never hold."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from urllib.parse import quote_plus

import httpx2
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from sqlalchemy import text

from api.oauth.clients import NewClient, revoke_client
from api.oauth.requests import basic_credentials
from api.security import OPERATOR_SCOPES, PARTNER_SCOPES, READ_SCOPES, secret_digest
from domain.database import Database
from domain.errors import ConfigurationError
from tests.api.oauth_shop import GRANT, INTROSPECT, REVOKE, START, TOKEN, Shop, open_shop

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    async with open_shop(database) as opened:
        yield opened


def assert_refused(answer: httpx2.Response, status: int, error: str) -> None:
    """An OAuth error as RFC 6749 5.2 wants it, that nobody may store."""
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert answer.json()["error_description"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in answer.headers) == (status == 401)


# --- Tokens -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["basic", "post"])
async def test_a_token_for_client_credentials(shop: Shop, method: str) -> None:
    client = await shop.client("points:earn", "points:burn")
    if method == "basic":
        answer = await shop.post(TOKEN, client, **GRANT)
    else:
        answer = await shop.post(TOKEN, **GRANT, client_id=client.client_id, client_secret=client.client_secret)
    token = answer.json().pop("access_token")
    assert answer.json() == {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": 900,
        "scope": "points:burn points:earn",
    }
    assert answer.headers["cache-control"] == "no-store"
    assert token.startswith("coa_at_")
    assert len(base64.urlsafe_b64decode(token.removeprefix("coa_at_") + "=")) == 32
    row = (await shop.rows("SELECT digest, client_id, scopes, issued_at, expires_at, revoked_at FROM oauth_token"))[0]
    assert tuple(row) == (
        secret_digest(token),
        client.client_id,
        ["points:burn", "points:earn"],
        START,
        START + timedelta(minutes=15),
        None,
    )


async def test_scopes_can_be_narrowed_and_never_widened(shop: Shop) -> None:
    client = await shop.client("points:earn", "points:burn", "members:read")
    answer = await shop.post(TOKEN, client, **GRANT, scope="members:read points:earn")
    assert answer.json()["scope"] == "members:read points:earn"
    for scope in ("points:reverse", "points:earn points:reverse", "program:read", "points", " ", 'x"\\y'):
        assert_refused(await shop.post(TOKEN, client, **GRANT, scope=scope), 400, "invalid_scope")
    assert len(await shop.rows("SELECT digest FROM oauth_token")) == 1
    named = await shop.post(TOKEN, client, **GRANT, scope="points:reverse")
    assert named.json()["error_description"] == (
        "This client has no points:reverse; it may ask for: members:read points:burn points:earn"
    )


async def test_an_operators_token_reads_everything(shop: Shop) -> None:
    client = await shop.client("settlement:operate", operator=True)
    reads = "members:read partner:read reports:read settlement:read"
    whole = await shop.post(TOKEN, client, **GRANT)
    assert whole.json()["scope"] == "members:read partner:read reports:read settlement:operate settlement:read"
    narrowed = await shop.post(TOKEN, client, **GRANT, scope="members:read")
    assert narrowed.json()["scope"] == reads
    assert_refused(await shop.post(TOKEN, client, **GRANT, scope="points:earn"), 400, "invalid_scope")
    principal = await shop.authenticator.verify(narrowed.json()["access_token"])
    assert principal is not None
    assert (principal.is_operator, principal.scopes) == (True, READ_SCOPES)


async def test_tokens_are_purged_once_expired_and_a_bounded_number_at_a_time(shop: Shop) -> None:
    client = await shop.client("points:earn")
    kept = secret_digest(await shop.token(client))
    shop.now -= timedelta(hours=1)
    for _ in range(3):
        await shop.token(client)
    async with shop.database.posting() as connection:
        await connection.execute(
            text(
                "INSERT INTO oauth_token SELECT sha256(int4send(n)), :client, ARRAY['points:earn'],"
                " CAST(:at AS timestamptz), CAST(:at AS timestamptz) + interval '1 minute'"
                " FROM generate_series(1, 100) AS n"
            ),
            {"client": client.client_id, "at": START - timedelta(days=1)},
        )
    assert len(await shop.rows("SELECT digest FROM oauth_token")) == 104
    shop.now = START
    await shop.token(client)
    assert len(await shop.rows("SELECT digest FROM oauth_token")) == 5
    await shop.token(client)
    left = {row.digest for row in await shop.rows("SELECT digest FROM oauth_token")}
    assert len(left) == 3
    assert kept in left


async def test_twenty_at_once(shop: Shop) -> None:
    client = await shop.client("points:earn")
    tokens = await asyncio.gather(*(shop.token(client) for _ in range(20)))
    assert len(set(tokens)) == 20
    principals = await asyncio.gather(*(shop.authenticator.verify(token) for token in tokens))
    assert {principal and principal.client_id for principal in principals} == {client.client_id}


# --- Refusals ---------------------------------------------------------------------------------------


async def test_only_the_right_secret_of_a_live_client(shop: Shop) -> None:
    client, other = await shop.client("points:earn"), await shop.client("points:earn")
    wrong = [
        NewClient(client.client_id, other.client_secret),
        NewClient(client.client_id, client.client_secret[:-1]),
        NewClient(client.client_id, ""),
        NewClient("coa_client_unknown", client.client_secret),
    ]
    answers = [await shop.post(path, pair, **GRANT, token="x") for pair in wrong for path in (TOKEN, REVOKE)]
    answers += [await shop.post(TOKEN, **GRANT)]
    answers += [
        await shop.post(TOKEN, **GRANT, client_id=pair.client_id, client_secret=pair.client_secret) for pair in wrong
    ]
    await revoke_client(shop.database, shop.clock, client.client_id)
    answers += [await shop.post(TOKEN, client, **GRANT), await shop.post(INTROSPECT, client, token="x")]
    for answer in answers:
        assert_refused(answer, 401, "invalid_client")
        assert answer.headers["www-authenticate"] == 'Basic realm="coalition", charset="UTF-8"'
    # What is wrong must not show, neither in words nor in length.
    assert len({answer.content for answer in answers}) == 1
    assert await shop.rows("SELECT digest FROM oauth_token") == []


MALFORMED_HEADERS: list[str | bytes] = [
    "Basic",
    "Basic ",
    "Basic !!!!",
    "Basic YWJj",  # abc: no colon
    "Basic Og==",  # only a colon
    "Basic YTpi=",  # wrong padding
    "Basic YTpiYw",  # none
    "Basic " + base64.b64encode(b"\xff\xfe:\xfa").decode(),
    "Basic " + base64.b64encode("ä:ö".encode()).decode(),
    "Basic " + base64.b64encode(b"a%ff:b").decode(),
    "Basic " + base64.b64encode(b"a%00:b").decode(),
    "Basic " + base64.b64encode(b"a\x00:b").decode(),
    "Basic é".encode("latin-1"),
    "Bearer coa_at_x",
    "Digest username=a",
    "\x00",
]


async def test_a_malformed_basic_header_is_an_invalid_client(shop: Shop) -> None:
    for header in MALFORMED_HEADERS:
        value = header if isinstance(header, bytes) else header.encode()
        answer = await shop.http.post(TOKEN, data=GRANT, headers=[(b"Authorization", value)])
        assert_refused(answer, 401, "invalid_client")


def test_basic_credentials_are_percent_encoded_inside() -> None:
    """RFC 6749 2.3.1, and its own example pair."""
    assert basic_credentials("basic czZCaGRSa3F0MzpnWDFmQmF0M2JW") == ("s6BhdRkqt3", "gX1fBat3bV")
    odd = "a b:c%d+e"
    encoded = base64.b64encode(f"{quote_plus(odd)}:{quote_plus(odd)}".encode()).decode()
    assert basic_credentials(f"BASIC {encoded}") == (odd, odd)


async def test_two_ways_to_authenticate_at_once(shop: Shop) -> None:
    client = await shop.client("points:earn")
    secret = client.client_secret
    assert_refused(await shop.post(TOKEN, client, **GRANT, client_secret=secret), 400, "invalid_request")
    assert_refused(await shop.post(TOKEN, client, **GRANT, client_id="other"), 400, "invalid_request")
    header = b"Basic " + base64.b64encode(f"{client.client_id}:{secret}".encode())
    twice = await shop.http.post(TOKEN, data=GRANT, headers=[(b"Authorization", header), (b"Authorization", header)])
    assert_refused(twice, 401, "invalid_client")
    assert await shop.rows("SELECT digest FROM oauth_token") == []
    assert (await shop.post(TOKEN, client, **GRANT, client_id=client.client_id)).status_code == 200


MALFORMED_REQUESTS: list[tuple[bytes, dict[str, str], str]] = [
    (b"", FORM, "invalid_request"),
    (b"grant_type=", FORM, "invalid_request"),
    (b"grant_type=client_credentials&grant_type=client_credentials", FORM, "invalid_request"),
    (b"grant_type=client_credentials&scope=&scope=points:earn", FORM, "invalid_request"),
    (b"grant_type=client_credentials&x=1&x=2", FORM, "invalid_request"),
    (b"grant_type=password", FORM, "unsupported_grant_type"),
    (b"grant_type=authorization_code&code=x", FORM, "unsupported_grant_type"),
    (b"grant_type=client_credentials&scope=%00", FORM, "invalid_request"),
    (b"grant_type=client_credentials&scope=%ff", FORM, "invalid_request"),
    (b"grant_type=client_credentials&scope=\xff", FORM, "invalid_request"),
    (b"grant_type=client_credentials&%0a=x", FORM, "invalid_request"),
    (b"grant_type=client_credentials" + b"".join(b"&p%d=1" % n for n in range(32)), FORM, "invalid_request"),
    (b'{"grant_type": "client_credentials"}', {"Content-Type": "application/json"}, "invalid_request"),
    (b"grant_type=client_credentials", {"Content-Type": "text/plain"}, "invalid_request"),
    (b"grant_type=client_credentials", {"Content-Type": "multipart/form-data"}, "invalid_request"),
    (b"grant_type=client_credentials", {}, "invalid_request"),
]


async def test_a_malformed_request(shop: Shop) -> None:
    client = await shop.client("points:earn")
    auth = (client.client_id, client.client_secret)
    for body, headers, error in MALFORMED_REQUESTS:
        answer = await shop.http.post(TOKEN, content=body, headers=headers, auth=auth)
        assert_refused(answer, 400, error)
    assert await shop.rows("SELECT digest FROM oauth_token") == []


async def test_parameters_belong_in_the_body(shop: Shop) -> None:
    client = await shop.client("points:earn")
    assert_refused(await shop.post(f"{TOKEN}?scope=points:earn", client, **GRANT), 400, "invalid_request")
    assert_refused(await shop.post(f"{REVOKE}?token=x", client, token="x"), 400, "invalid_request")
    assert (await shop.http.get(TOKEN)).status_code == 405


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit(shop: Shop, declared: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b"x" * 1024

    body = b"x" * (16 * 1024 + 1) if declared else chunks()
    assert_refused(await shop.http.post(TOKEN, content=body, headers=FORM), 413, "invalid_request")


async def test_plain_http_is_refused_except_behind_a_proxy_and_on_loopback(shop: Shop) -> None:
    client = await shop.client("points:earn")
    auth = (client.client_id, client.client_secret)
    for issuer, base_url, status in [
        ("", "http://internal.example", 400),
        ("", "https://internal.example", 200),
        ("", "http://127.0.0.1:8000", 200),
        ("", "http://localhost:8000", 200),
        ("http://localhost:8000", "http://internal.example", 200),
        ("https://coalition.example", "http://internal.example", 200),
    ]:
        async with shop.serve(issuer, base_url) as http:
            answer = await http.post(TOKEN, data=GRANT, auth=auth)
        if status == 200:
            assert answer.status_code == 200, (issuer, base_url, answer.text)
        else:
            assert_refused(answer, 400, "insecure_transport")
            assert "configure the public address" in answer.json()["error_description"]
    for issuer in (
        "http://coalition.example",
        "coalition.example",
        "https://",
        "https://x.example?a",
        "ftp://x",
    ):
        with pytest.raises(ConfigurationError, match="public address"):
            shop.serve(issuer)


# --- Revocation and introspection -------------------------------------------------------------------


async def test_revocation_ends_a_token_at_once(shop: Shop) -> None:
    client = await shop.client("points:earn")
    token, other = await shop.token(client), await shop.token(client)
    assert await shop.authenticator.verify(token) is not None
    shop.now += timedelta(seconds=1)
    for hint in ("access_token", "refresh_token", "nonsense"):
        answer = await shop.post(REVOKE, client, token=token, token_type_hint=hint)
        assert (answer.status_code, answer.json()) == (200, {})
        shop.now += timedelta(seconds=1)
    assert await shop.authenticator.verify(token) is None
    assert await shop.authenticator.verify(other) is not None
    revoked = await shop.rows("SELECT revoked_at FROM oauth_token WHERE revoked_at IS NOT NULL")
    assert [row.revoked_at for row in revoked] == [START + timedelta(seconds=1)]
    assert (await shop.post(REVOKE, client, token="unknown")).status_code == 200
    assert_refused(await shop.post(REVOKE, client), 400, "invalid_request")
    assert_refused(await shop.post(INTROSPECT, client), 400, "invalid_request")


async def test_only_its_own_client_revokes_a_token(shop: Shop) -> None:
    client, other = await shop.client("points:earn"), await shop.client("audit:read", operator=True)
    token = await shop.token(client)
    assert_refused(await shop.post(REVOKE, other, token=token), 400, "invalid_grant")
    assert_refused(await shop.post(REVOKE, token=token), 401, "invalid_client")
    assert await shop.authenticator.verify(token) is not None
    assert await shop.rows("SELECT digest FROM oauth_token WHERE revoked_at IS NOT NULL") == []


async def test_introspection_tells_the_own_client_and_the_auditor(
    shop: Shop, tamper: Callable[[str], Awaitable[None]]
) -> None:
    client, neighbour = await shop.client("points:earn"), await shop.client("members:read")
    await tamper("UPDATE oauth_client SET scopes = '{audit:read}' WHERE scopes = '{members:read}'")
    auditor, operator = await shop.client("audit:read", operator=True), await shop.client(operator=True)
    token = await shop.token(client)
    told = {
        "active": True,
        "token_type": "Bearer",
        "client_id": client.client_id,
        "sub": client.client_id,
        "scope": "points:earn",
        "iat": int(START.timestamp()),
        "exp": int(START.timestamp()) + 900,
        "iss": "https://coalition.example",
    }
    for who, expected in [
        (client, told),
        (auditor, told),
        (neighbour, {"active": False}),
        (operator, {"active": False}),
    ]:
        answer = await shop.post(INTROSPECT, who, token=token)
        assert (answer.status_code, answer.json()) == (200, expected)
        assert answer.headers["cache-control"] == "no-store"
    assert (await shop.post(INTROSPECT, client, token="unknown")).json() == {"active": False}
    async with shop.serve("") as http:
        pair = {"client_id": client.client_id, "client_secret": client.client_secret, "token": token}
        anonymous = await http.post(f"https://elsewhere.example{INTROSPECT}", data=pair)
    assert "iss" not in anonymous.json()
    assert anonymous.json()["active"] is True


@pytest.mark.parametrize("end", ["revoked", "expired", "client revoked"])
async def test_introspection_bypasses_the_cache(shop: Shop, end: str) -> None:
    client, auditor = await shop.client("points:earn"), await shop.client("audit:read", operator=True)
    token = await shop.token(client)
    assert await shop.authenticator.verify(token) is not None
    if end == "expired":
        shop.now += timedelta(minutes=15) - timedelta(microseconds=1)
        assert (await shop.post(INTROSPECT, auditor, token=token)).json()["active"] is True
        shop.now += timedelta(microseconds=1)
    else:
        table = "oauth_token" if end == "revoked" else "oauth_client"
        sql = f"UPDATE {table} SET revoked_at = :now WHERE client_id = :client"
        async with shop.database.posting() as connection:
            await connection.execute(text(sql), {"now": START, "client": client.client_id})
        assert await shop.authenticator.verify(token) is not None
    assert (await shop.post(INTROSPECT, auditor, token=token)).json() == {"active": False}


async def test_metadata_lists_what_works(shop: Shop) -> None:
    path = "/.well-known/oauth-authorization-server"
    document = (await shop.http.get(path)).json()
    described = AuthorizationServerMetadata(document)
    for member in document.keys() - {"response_types_supported"}:  # which Authlib wants to be not empty
        getattr(described, f"validate_{member}")()
    assert document["issuer"] == "https://coalition.example"
    assert document["grant_types_supported"] == ["client_credentials"]
    assert document["response_types_supported"] == []
    assert document["scopes_supported"] == [*PARTNER_SCOPES, *OPERATOR_SCOPES]
    client = await shop.client("points:earn")
    for name in ("token", "revocation", "introspection"):
        assert document[f"{name}_endpoint_auth_methods_supported"] == [
            "client_secret_basic",
            "client_secret_post",
        ]
        where = document[f"{name}_endpoint"].removeprefix("https://coalition.example")
        assert (await shop.post(where, client, **GRANT, token="x")).status_code == 200
    async with shop.serve("", "https://derived.example:8443") as http:
        derived = await http.get(path)
    assert derived.json()["token_endpoint"] == "https://derived.example:8443/oauth/token"
    assert derived.headers["cache-control"] == "no-store"
