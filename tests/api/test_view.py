"""GraphQL over HTTP: media types, statuses and limits of the endpoint. Nothing here needs a database."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast

import httpx2
import pytest
import structlog

from api.graphql.context import Services
from api.graphql.ids import IdCodec
from api.graphql.limits import BODY_BYTES_MAX
from api.graphql.view import GraphQLEndpoint
from api.security import PARTNER_SCOPES, Principal
from tests.factories import MID_MARCH, fixed_clock

JSON = "application/json"
RESPONSE = "application/graphql-response+json"
VIEWER = "{ viewer { kind } }"
KIND = {"data": {"viewer": {"kind": "OPERATOR"}}}


class OneToken:
    """Knows one token, the operator's, with the given scopes."""

    def __init__(self, *scopes: str) -> None:
        self.principal = Principal("client", 0, frozenset(scopes), MID_MARCH)

    async def authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Principal | None:
        return self.principal if (b"authorization", b"Bearer good") in list(headers) else None


class NoProgramme:
    held = None

    async def current(self) -> None:
        return None


def endpoint(*scopes: str, body_bytes_max: int = BODY_BYTES_MAX) -> GraphQLEndpoint:
    services = Services(
        cast("Any", None),
        cast("Any", None),
        cast("Any", NoProgramme()),
        cast("Any", OneToken(*scopes)),
        fixed_clock(),
        IdCodec(b"s" * 32),
    )
    return GraphQLEndpoint(services, body_bytes_max=body_bytes_max)


def client_of(app: GraphQLEndpoint) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(cast("Any", app)),
        base_url="https://test",
        headers={"authorization": "Bearer good"},
    )


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(endpoint(*PARTNER_SCOPES, "program:read")) as client:
        yield client


def assert_error(answer: httpx2.Response, status: int, code: str, media: str = JSON) -> None:
    body = answer.json()
    assert (answer.status_code, body["errors"][0]["extensions"]["code"]) == (status, code), body
    assert answer.headers["content-type"] == f"{media}; charset=utf-8"
    assert "data" not in body
    assert body["errors"][0]["message"]


async def test_a_post_is_answered_as_json(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/graphql", json={"query": VIEWER})
    assert (answer.status_code, answer.json()) == (200, KIND)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        (RESPONSE, RESPONSE),
        (f"{RESPONSE}, {JSON};q=0.9", RESPONSE),
        (f"{RESPONSE};q=0.5, {JSON}", JSON),
        (f"{RESPONSE}, {JSON}", RESPONSE),
        (f"{JSON}, {RESPONSE}", JSON),
        (f"{RESPONSE}, */*;q=0.1", RESPONSE),
        (f"{RESPONSE};q=0, */*", JSON),
        (f"{JSON};q=0, */*", RESPONSE),
        ("text/html, application/*;q=0.2", JSON),
        (f"{RESPONSE}; charset=utf-8", RESPONSE),
        (f"{RESPONSE}; charset=latin-1, {JSON}", JSON),
        ("APPLICATION/JSON", JSON),
        (f"{RESPONSE};q=1.0, {JSON};q=0.999", RESPONSE),
    ],
)
async def test_the_answer_has_the_type_that_the_client_prefers(accept: str | None, media: str) -> None:
    async with client_of(endpoint()) as http:
        del http.headers["accept"]
        answer = await http.post(
            "/graphql", json={"query": VIEWER}, headers={} if accept is None else {"accept": accept}
        )
        assert answer.status_code == 200
        assert answer.headers["content-type"] == f"{media}; charset=utf-8"
        assert answer.json() == KIND


@pytest.mark.parametrize("accept", ["text/html", f"{JSON};q=0", "image/*", f"{RESPONSE};q=0, {JSON};q=0", "*/*;q=0"])
async def test_who_accepts_neither_type_is_told_so(http: httpx2.AsyncClient, accept: str) -> None:
    answer = await http.post("/graphql", json={"query": VIEWER}, headers={"accept": accept})
    assert_error(answer, 406, "NOT_ACCEPTABLE")


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({"authorization": ""}, 'error="invalid_token"'),
        ({"authorization": "Bearer bad"}, 'error="invalid_token"'),
        ({}, 'Bearer realm="coalition"'),
    ],
)
async def test_without_a_good_token_nothing_is_even_parsed(headers: dict[str, str], challenge: str) -> None:
    async with client_of(endpoint()) as http:
        del http.headers["authorization"]
        for body in (b"{", b'{"query": "{"}', json.dumps({"query": VIEWER}).encode()):
            answer = await http.post("/graphql", content=body, headers=headers)
            assert_error(answer, 401, "UNAUTHENTICATED")
            assert challenge in answer.headers["www-authenticate"]
            assert ("error=" in answer.headers["www-authenticate"]) == bool(headers)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_other_methods_are_not_allowed(http: httpx2.AsyncClient, method: str) -> None:
    answer = await http.request(method, "/graphql")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/graphql", "application/json; charset=latin-1", "multipart/form-data", ""],
)
async def test_a_body_of_another_type_is_not_read(http: httpx2.AsyncClient, content_type: str) -> None:
    content = json.dumps({"query": VIEWER}).encode()
    answer = await http.post(
        "/graphql", content=content, headers={"content-type": content_type} if content_type else {}
    )
    assert_error(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


async def test_utf8_may_be_said(http: httpx2.AsyncClient) -> None:
    content = json.dumps({"query": VIEWER}).encode()
    for content_type in ("application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'):
        answer = await http.post("/graphql", content=content, headers={"content-type": content_type})
        assert answer.json() == KIND


@pytest.mark.parametrize("media", [JSON, RESPONSE])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b'"text"',
        b"[]",
        b'[{"query": "{ viewer { kind } }"}]',
        b"{}",
        b'{"query": null}',
        b'{"query": ""}',
        b'{"query": 7}',
        b'{"query": ["{ viewer { kind } }"]}',
        b'{"query": "{ viewer { kind } }", "variables": []}',
        b'{"query": "{ viewer { kind } }", "variables": "x"}',
        b'{"query": "{ viewer { kind } }", "operationName": 1}',
        b'{"query": "{ viewer { kind } }", "extensions": 1}',
        b'{"query": "{ viewer { kind } }", "variables": {"a": "\\u0000"}}',
        b'{"query": "{ viewer { kind } }", "variables": {"a": [{"b\\u0000": 1}]}}',
        b'{"query": "{ viewer { kind } }", "variables": {"a": NaN}}',
        b'{"query": "\xff"}',
        b'{"query": "\\ud800"}',
        b'{"query":' + b"[" * 100_000,
    ],
)
async def test_what_is_no_request_is_400_in_both_types(http: httpx2.AsyncClient, media: str, body: bytes) -> None:
    answer = await http.post("/graphql", content=body, headers={"content-type": JSON, "accept": media})
    assert_error(answer, 400, "BAD_REQUEST", media)


@pytest.mark.parametrize(("media", "status"), [(JSON, 200), (RESPONSE, 400)])
@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"query": "{"}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "{ viewer { kind } } # \u0007"}, None),
        ({"query": "{ nothing }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "{ viewer }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "subscription { viewer { kind } }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "fragment F on Viewer { kind }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": 'query { partner(code: "\\u0000") { id } }'}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": 'query { partner(code: "\\u{0}") { id } }'}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "query A { viewer { kind } }", "operationName": "B"}, "OPERATION_NOT_FOUND"),
        ({"query": "query A { viewer { kind } } query B { viewer { kind } }"}, "OPERATION_NOT_FOUND"),
        ({"query": "query ($first: Int!) { partners(first: $first) { nodes { id } } }"}, "BAD_USER_INPUT"),
        (
            {"query": "query ($f: Int) { partners(first: $f) { nodes { id } } }", "variables": {"f": "1"}},
            "BAD_USER_INPUT",
        ),
    ],
)
async def test_a_document_that_cannot_run_is_400_or_200_by_type(
    http: httpx2.AsyncClient, media: str, status: int, request_: dict[str, Any], code: str | None
) -> None:
    answer = await http.post("/graphql", json=request_, headers={"accept": media})
    if code is None:
        assert (answer.status_code, answer.json()) == (200, KIND)
    else:
        assert_error(answer, status, code, media)


async def test_the_named_operation_runs(http: httpx2.AsyncClient) -> None:
    query = "query A { viewer { kind } } query B { viewer { clientId } }"
    answer = await http.post("/graphql", json={"query": query, "operationName": "B"})
    assert answer.json() == {"data": {"viewer": {"clientId": "client"}}}


async def test_a_get_runs_queries_only(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/graphql", params={"query": VIEWER})
    assert (answer.status_code, answer.json()) == (200, KIND)
    query = "query A($skip: Boolean!) { viewer { kind @skip(if: $skip) clientId } } query B { viewer { kind } }"
    params = {"query": query, "operationName": "A", "variables": '{"skip": true}'}
    answer = await http.get("/graphql", params=params)
    assert answer.json() == {"data": {"viewer": {"clientId": "client"}}}
    mutation = 'mutation { closePeriod(input: {idempotencyKey: "k", label: "2017-03"}) { __typename } }'
    answer = await http.get("/graphql", params={"query": mutation})
    assert_error(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "query_string",
    ["", "query=", "query=%ff", "query=%7B__typename%7D&variables=%5B%5D", "query=%7B__typename%7D&variables=x"],
)
async def test_a_get_that_is_no_request(http: httpx2.AsyncClient, query_string: str) -> None:
    assert_error(await http.get(f"/graphql?{query_string}"), 400, "BAD_REQUEST")


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_body_over_the_limit_is_413(is_declared: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 100

    async with client_of(endpoint(body_bytes_max=1000)) as http:
        content: Any = b" " * 1001 if is_declared else chunks()
        answer = await http.post("/graphql", content=content, headers={"content-type": JSON})
        assert_error(answer, 413, "PAYLOAD_TOO_LARGE")
        exactly = json.dumps({"query": VIEWER}).encode().ljust(1000)
        answer = await http.post("/graphql", content=exactly, headers={"content-type": JSON})
        assert answer.json() == KIND


async def test_a_request_id_is_taken_over_or_made(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/graphql", json={"query": VIEWER}, headers={"x-request-id": "till-7.2017_03"})
    assert answer.headers["x-request-id"] == "till-7.2017_03"
    made = set()
    for bad in ("", "a b", "x" * 129, 'in"jection'):
        answer = await http.post("/graphql", json={"query": VIEWER}, headers={"x-request-id": bad})
        made.add(answer.headers["x-request-id"])
    assert all(len(each) == 32 for each in made)
    assert len(made) == 4


async def test_missing_scopes_are_403_or_200_by_type() -> None:
    async with client_of(endpoint("program:read")) as http:
        mutation = 'mutation { closePeriod(input: {idempotencyKey: "k", label: "2017-03"}) { __typename } }'
        answer = await http.post("/graphql", json={"query": mutation})
        assert_error(answer, 200, "FORBIDDEN")
        answer = await http.post("/graphql", json={"query": mutation}, headers={"accept": RESPONSE})
        assert_error(answer, 403, "FORBIDDEN", RESPONSE)
        assert answer.json()["errors"] == [
            {
                "message": "Mutation.closePeriod needs scope settlement:operate",
                "extensions": {"code": "FORBIDDEN", "requiredScopes": [["settlement:operate"]]},
            }
        ]
        assert 'error="insufficient_scope", scope="settlement:operate"' in answer.headers["www-authenticate"]


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


async def test_a_crash_is_masked_logged_and_leaves_its_sibling_alone(logged: list[Any]) -> None:
    async with client_of(endpoint()) as http:
        answer = await http.post("/graphql", json={"query": "{ viewer { kind } partners { nodes { id } } }"})
        assert answer.status_code == 200
        body = answer.json()
        assert body["data"] is None  # partners is not null: what runs beside it is a query, and can be asked again
        request_id = answer.headers["x-request-id"]
        assert body["errors"] == [
            {
                "message": "internal error",
                "locations": [{"line": 1, "column": 19}],
                "path": ["partners"],
                "extensions": {"code": "INTERNAL_ERROR", "requestId": request_id},
            }
        ]
        assert [(entry["request_id"], entry["error"], entry["path"]) for entry in logged] == [
            (request_id, "AttributeError", "partners")
        ]


async def test_introspection_is_for_who_has_a_token(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/graphql", json={"query": "{ __schema { queryType { name } } }"})
    assert answer.json() == {"data": {"__schema": {"queryType": {"name": "Query"}}}}
