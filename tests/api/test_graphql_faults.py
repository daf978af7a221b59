"""Surprises: masked for the caller, named in the log without anybody's data, and no harm to what runs beside them."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog
from sqlalchemy import text

from domain.database import Database
from tests.api.graphql_shop import Shop, open_shop, purchase

THREE = """mutation ($a: EarnInput!, $b: EarnInput!, $c: EarnInput!) {
    a: earn(input: $a) { ... on EarnReceipt { points } }
    b: earn(input: $b) { ... on EarnReceipt { points } }
    c: earn(input: $c) { ... on EarnReceipt { points } }
}"""


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    async with open_shop(database) as opened:
        yield opened


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


async def test_a_crash_in_one_mutation_leaves_its_siblings_answers(
    shop: Shop, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    post = shop.services.queue.post

    async def failing(command: Any) -> Any:
        if command.key == "bad":
            raise RuntimeError(f"personal data of {command.member}")
        return await post(command)

    monkeypatch.setattr(shop.services.queue, "post", failing)
    variables = {"a": purchase("k1"), "b": purchase("bad"), "c": purchase("k3")}
    answer = await grocer.send(THREE, variables, **{"x-request-id": "till-7"})
    assert answer.headers["x-request-id"] == "till-7"
    assert answer.json() == {
        "errors": [
            {
                "message": "internal error",
                "locations": [{"line": 3, "column": 5}],
                "path": ["b"],
                "extensions": {"code": "INTERNAL_ERROR", "requestId": "till-7"},
            }
        ],
        "data": {"a": {"points": 100}, "b": None, "c": {"points": 100}},
    }
    (entry,) = logged
    assert (entry["request_id"], entry["error"], entry["path"]) == ("till-7", "RuntimeError", "b")
    assert any(frame.endswith(" failing") for frame in entry["frames"])
    assert "card-1" not in repr(logged)
    assert "personal" not in repr(logged)


async def test_the_databases_own_words_stay_inside(
    shop: Shop, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    grocer = await shop.caller()
    await grocer.enroll("card-of-somebody")
    monkeypatch.setattr("domain.reading.MEMBERS_BY_IDENTIFIER_SQL", text("SELECT 1 / 0, :kinds, :values, :now"))
    answer = await grocer.send('{ member(by: {card: "card-of-somebody"}) { id } viewer { kind } }')
    body = answer.json()
    request_id = answer.headers["x-request-id"]
    assert body["data"] == {"member": None, "viewer": {"kind": "PARTNER"}}
    assert [error["message"] for error in body["errors"]] == ["internal error"]
    assert body["errors"][0]["extensions"] == {"code": "INTERNAL_ERROR", "requestId": request_id}
    assert [entry["error"] for entry in logged] == ["DBAPIError"]
    assert "card-of-somebody" not in answer.text + repr(logged)


async def test_a_failed_read_of_a_member_does_not_fail_the_next(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    query = '{ member(by: {card: "card-1"}) { balance { available } } }'
    with monkeypatch.context() as patched:
        patched.setattr("domain.reading.MEMBERS_BY_IDENTIFIER_SQL", text("SELECT 1 / 0, :kinds, :values, :now"))
        assert (await grocer.send(query)).json()["data"] == {"member": None}
    assert await grocer.run(query) == {"member": {"balance": {"available": 0}}}


async def test_without_a_programme_operators_read_and_nothing_crashes(database: Database) -> None:
    async with open_shop(database, is_applied=False) as shop:
        operator = await shop.caller(None)
        document = """{
            viewer { kind partner { id } }
            member(by: {card: "x"}) { id }  members { nodes { id } }
            partner { code budget { limit { amount } } }  partners { nodes { id } }
            transactions { nodes { id } }
            settlementPeriod { label }  settlementPeriods { nodes { label } }
        }"""
        answer = await operator.run(document)
        assert answer == {
            "viewer": {"kind": "OPERATOR", "partner": None},
            "member": None,
            "members": {"nodes": []},
            "partner": {"code": "operator", "budget": None},
            "partners": {"nodes": []},
            "transactions": {"nodes": []},
            "settlementPeriod": None,
            "settlementPeriods": {"nodes": []},
        }
        close = """mutation { closePeriod(input: {idempotencyKey: "k", label: "2017-03"}) {
            ... on Refusal { code } } }"""
        assert (await operator.run(close))["closePeriod"]["code"] == "PERIOD_NOT_FOUND"
