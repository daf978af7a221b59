"""More than the platform can take: what fits is posted once, the rest is refused at once, in the schema's own form."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import graphql
import httpx2
import pytest
from graphql import GraphQLNonNull, GraphQLObjectType, GraphQLUnionType
from graphql.execution import Executor
from sqlalchemy import text

from api.graphql import view
from api.graphql.context import Context
from api.graphql.overload import QUEUED, REFUSAL_FIELDS
from api.graphql.schema import schema
from domain import commands
from domain.commands import Burn, Earn
from domain.database import Database
from tests.api.graphql_shop import BURN, EARN, Caller, Shop, open_shop, purchase

KEYS_SQL = text("SELECT idempotency_key FROM command WHERE kind = 'EARN' ORDER BY id")
WAITING_SQL = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
SOON_SECONDS = 30
BALANCE = 'query { member(by: { card: "card-1" }) { balance { available } } }'


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    async with open_shop(database) as opened:
        yield opened


async def until(holds: Callable[[], bool]) -> None:
    """Waits for something that must come soon."""
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited for nothing")


async def sent(till: Caller, key: str) -> tuple[httpx2.Response, Any]:
    """Sends a purchase of 100.00; the response, and what it says of the purchase."""
    answer = await till.send(EARN, {"input": purchase(key)})
    return answer, answer.json()["data"]["earn"]


async def test_what_fits_is_posted_once_and_the_rest_refused_at_once(
    shop: Shop, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = await shop.caller()
    await till.enroll()
    queue = shop.services.queue
    monkeypatch.setattr(queue, "_queue_max", 5)
    async with asyncio.timeout(SOON_SECONDS), database.posting() as holder, database.posting() as watching:
        await holder.execute(text("SELECT FROM account FOR UPDATE"))
        accepted = [asyncio.create_task(sent(till, "in the batch"))]
        while not (await watching.execute(WAITING_SQL)).scalar():  # noqa: ASYNC110 (the database sends no event)
            await asyncio.sleep(0.01)
        for number in range(5):
            accepted.append(asyncio.create_task(sent(till, f"waiting-{number}")))
            await until(lambda: queue.length == len(accepted) - 1)

        refused = [await sent(till, f"beyond-{number}") for number in range(3)]
        assert not any(task.done() for task in accepted)
        assert (await watching.execute(KEYS_SQL)).scalars().all() == []
    receipts = [(await task)[1] for task in accepted]

    for number, (answer, result) in enumerate(refused):
        assert (answer.status_code, answer.json().keys()) == (200, {"data"})
        assert result == {
            "__typename": "Refusal",
            "code": "OVERLOADED",
            "message": "too many commands are waiting: send this one again in a moment, with the same key",
            "field": None,
            "retryable": True,
            "refusedKey": f"beyond-{number}",
        }
    fitting = ["in the batch", *(f"waiting-{number}" for number in range(5))]
    assert [(receipt["idempotencyKey"], receipt["points"], receipt["replayed"]) for receipt in receipts] == [
        (key, 100, False) for key in fitting
    ]
    async with database.posting() as connection:
        assert (await connection.execute(KEYS_SQL)).scalars().all() == fitting

    again = [await till.earn(key) for key in [*fitting, "beyond-0", "beyond-1", "beyond-2"]]
    assert [receipt["replayed"] for receipt in again] == [True] * 6 + [False] * 3
    assert [receipt["transaction"] for receipt in again[:6]] == [receipt["transaction"] for receipt in receipts]
    assert (await till.run(BALANCE))["member"]["balance"]["available"] == 900


# --- The short way answers what the long way would --------------------------------------------------

BURN_INPUT = {key: value for key, value in purchase("b").items() if key != "amount"} | {"points": 1}
LITERAL = """{ idempotencyKey: "literal", member: { card: "card-1" }, reference: "r",
  amount: { amount: "1.00", currency: "EUR" }, occurredAt: "2017-03-15T12:00:00Z" }"""
WITH_FRAGMENTS = """
mutation Till($input: EarnInput!) { first: earn(input: $input) { ...Answer kind: __typename } }
fragment Answer on EarnResult { ... on EarnReceipt { points } ...Refused ... { __typename } }
fragment Refused on Refusal { idempotencyKey why: code message }
"""
SHORT: dict[str, tuple[str, dict[str, Any]]] = {
    "earn": (EARN, {"input": purchase("k")}),
    "burn": (BURN, {"input": BURN_INPUT}),
    "fragments and aliases": (WITH_FRAGMENTS, {"input": purchase("k")}),
    "nothing asked of a refusal": (
        "mutation ($i: EarnInput!) { earn(input: $i) { ... on EarnReceipt { points } } }",
        {"i": purchase("k")},
    ),
    "literals": (
        "mutation { earn(input: LITERAL) { ... on Refusal { idempotencyKey } } }".replace("LITERAL", LITERAL),
        {},
    ),
    "literals with a variable": (
        "mutation ($k: String!) { earn(input: LITERAL) { ... on Refusal { idempotencyKey } } }".replace(
            "LITERAL", LITERAL.replace('"literal"', "$k")
        ),
        {"k": "given"},
    ),
    "earnMany": (
        "mutation ($i: [EarnInput!]!) { earnMany(inputs: $i) { ... on Refusal { retryable idempotencyKey } } }",
        {"i": [purchase("k1"), purchase("k2")]},
    ),
    "earnMany of none": (
        "mutation ($i: [EarnInput!]!) { earnMany(inputs: $i) { __typename } }",
        {"i": []},
    ),
    "enrollMember": (
        'mutation { enrollMember(input: { idempotencyKey: "e", card: "c" }) { ... on Refusal { code field } } }',
        {},
    ),
    "reverse": (
        """mutation { reverse(input: { idempotencyKey: "r", originalKey: "k", occurredAt: "2017-03-15T12:00:00Z" }) {
             ... on Refusal { code idempotencyKey } } }""",
        {},
    ),
    "burnMany": (
        """mutation ($i: [BurnInput!]!) { burnMany(inputs: $i) { ... on BurnReceipt { points } ...R } }
           fragment R on Refusal { idempotencyKey code }""",
        {"i": [BURN_INPUT, BURN_INPUT | {"idempotencyKey": "b2"}]},
    ),
    "authorizeBurn": (
        """mutation ($i: BurnInput!) { authorizeBurn(input: $i) { ... on AuthorizeBurnResult { __typename }
             ... on Refusal { code idempotencyKey } } }""",
        {"i": BURN_INPUT},
    ),
    "captureBurn and voidBurn": (
        """mutation ($at: DateTime!) {
             captureBurn(input: { idempotencyKey: "c", originalKey: "k", occurredAt: $at }) {
               ... on Refusal { message } }
             voidBurn(input: { idempotencyKey: "v", originalKey: "k", occurredAt: $at }) { ... on VoidBurnResult {
               ... on Refusal { field idempotencyKey } } } }""",
        {"at": "2017-03-15T12:00:00Z"},
    ),
    "reverseMany": (
        """mutation ($at: DateTime!) {
             reverseMany(inputs: [{ idempotencyKey: "r", originalKey: "k", occurredAt: $at }]) {
               ... on Refusal { code idempotencyKey } } }""",
        {"at": "2017-03-15T12:00:00Z"},
    ),
    "several fields": (
        """mutation ($i: EarnInput!, $b: BurnInput!) { burn(input: $b) { ... on Refusal { idempotencyKey } }
             again: burn(input: $b) { __typename } earn(input: $i) { ... on Refusal { idempotencyKey } } }""",
        {"i": purchase("k"), "b": BURN_INPUT},
    ),
}
LONG: dict[str, tuple[str, dict[str, Any]]] = {
    "a directive inside": (
        "mutation ($i: EarnInput!, $b: Boolean!) { earn(input: $i) { ... on Refusal @include(if: $b) { code } } }",
        {"i": purchase("k"), "b": False},
    ),
    "a directive on the field": (
        "mutation ($i: EarnInput!, $b: Boolean!) { earn(input: $i) @skip(if: $b) { __typename } }",
        {"i": purchase("k"), "b": True},
    ),
    "a fragment of fields": (
        "mutation ($i: EarnInput!) { ... { earn(input: $i) { __typename } } }",
        {"i": purchase("k")},
    ),
    "one field named twice": (
        """mutation ($i: EarnInput!) { earn(input: $i) { ... on Refusal { code } }
             earn(input: $i) { ... on Refusal { retryable } } }""",
        {"i": purchase("k")},
    ),
    "a key that is none": (EARN, {"input": purchase("k") | {"idempotencyKey": 7}}),
    "no input": (EARN, {}),
    "one key of two is missing": (
        "mutation ($i: [EarnInput!]!) { earnMany(inputs: $i) { __typename } }",
        {"i": [purchase("k"), {}]},
    ),
    "a default": (
        "mutation ($i: EarnInput! = LITERAL) { earn(input: $i) { ... on Refusal { idempotencyKey } } }".replace(
            "LITERAL", LITERAL
        ),
        {},
    ),
}


async def full(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> tuple[Caller, list[int]]:
    """A till at a full queue, and a list that grows with every execution."""
    till = await shop.caller()
    monkeypatch.setattr(shop.services.queue, "_queue_max", 0)
    executions: list[int] = []

    def noted(*arguments: Any, **options: Any) -> Any:
        executions.append(1)
        return graphql.execute(*arguments, **options)

    monkeypatch.setattr(view, "execute", noted)
    return till, executions


@pytest.mark.parametrize("name", SHORT)
async def test_a_refusal_that_was_not_executed_is_the_same_to_the_byte(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    till, executions = await full(shop, monkeypatch)
    short = await till.send(*SHORT[name])
    assert not executions
    monkeypatch.setattr(view, "turned_away", lambda *_: None)
    long = await till.send(*SHORT[name])
    assert executions
    assert (short.status_code, short.content) == (long.status_code, long.content)
    assert "errors" not in short.json()


@pytest.mark.parametrize("name", LONG)
async def test_what_only_execution_can_tell_is_executed(shop: Shop, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    till, executions = await full(shop, monkeypatch)
    answer = await till.send(*LONG[name])
    assert len(executions) == 1
    result = answer.json()
    expected: dict[str, Any] = {
        "a directive inside": {"earn": {}},
        "a directive on the field": {},
        "a fragment of fields": {"earn": {"__typename": "Refusal"}},
        "one field named twice": {"earn": {"code": "OVERLOADED", "retryable": True}},
        "a default": {"earn": {"idempotencyKey": "literal"}},
    }
    if name in expected:
        assert result == {"data": expected[name]}
    else:
        assert {error["extensions"]["code"] for error in result["errors"]} == {"BAD_USER_INPUT"}


async def test_who_may_not_is_told_so_first(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop.services.queue, "_queue_max", 0)
    nobody = Caller(shop.http, "coa_at_" + "x" * 43)
    assert (await nobody.send(*SHORT["earn"])).status_code == 401
    reader = await shop.caller(scopes=["members:read"])
    assert [error["extensions"]["code"] for error in await reader.errors(*SHORT["earn"])] == ["FORBIDDEN"]


async def test_every_refusal_counts_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[type] = []

    class Observer:
        def batch_posted(self, *_: object) -> None:
            raise AssertionError("nothing is posted")

        def turned_away(self, kind: type) -> None:
            counted.append(kind)

    till, _ = await full(shop, monkeypatch)
    monkeypatch.setattr(shop.services.queue, "_observer", Observer())
    await till.send(*SHORT["earnMany"])
    await till.send(*LONG["one key of two is missing"])
    await till.send(*LONG["a fragment of fields"])
    await till.send(*SHORT["several fields"])
    assert counted == [Earn, Earn, Earn, Burn, Burn, Earn]


NOT_QUEUED = {
    "closePeriod", "proposeAdjustment", "proposePointsAdjustment", "proposeOverdraft", "proposeWriteOff",
    "approveProposal", "rejectProposal", "withdrawProposal", "recordPayment", "topUpBudget", "disputeStatement",
    "recordDeposit", "proposeDepositPayout", "proposeDefault",
    "decideDispute", "withdrawDispute",
}  # fmt: skip
"""What is done seldom: it waits for nobody, or (an approval of points) may be executed to be refused."""


def test_the_short_way_knows_the_schema() -> None:
    made = schema._schema
    refusal, mutation = made.type_map["Refusal"], made.mutation_type
    assert isinstance(refusal, GraphQLObjectType)
    assert mutation is not None
    assert REFUSAL_FIELDS.keys() == {"__typename", *refusal.fields}
    assert QUEUED.keys() == mutation.fields.keys() - NOT_QUEUED
    for name, (_, argument, union) in QUEUED.items():
        answer: Any = mutation.fields[name].type
        while not isinstance(answer, GraphQLUnionType):
            answer = answer.of_type
        assert answer.name == union
        assert list(mutation.fields[name].args) == [argument]
        assert isinstance(mutation.fields[name].args[argument].type, GraphQLNonNull)


# --- Queries, tokens, memory ----------------------------------------------------------------


async def test_no_more_queries_at_a_time_than_the_limit(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "QUERIES_MAX", 1)
    till = await shop.caller()
    await till.enroll()
    find = shop.services.members.find
    going_on, asked = asyncio.Event(), asyncio.Event()

    async def held(key: Any) -> Any:
        asked.set()
        await going_on.wait()
        return await find(key)

    monkeypatch.setattr(shop.services.members, "find", held)
    first = asyncio.create_task(till.send(BALANCE))
    async with asyncio.timeout(SOON_SECONDS):
        await asked.wait()
        second = await till.send(BALANCE)
    assert second.status_code == 200
    assert second.json() == {
        "errors": [
            {
                "message": "too many queries are being answered: ask again in a moment",
                "extensions": {"code": "OVERLOADED", "retryable": True},
            }
        ],
        "data": None,
    }
    assert (await till.earn("k"))["points"] == 100, "commands are bounded by their queue alone"
    going_on.set()
    assert "errors" not in (await first).json()
    assert "errors" not in (await till.send(BALANCE)).json()


async def test_tokens_that_are_asked_for_together_are_looked_up_together(shop: Shop) -> None:
    tills = [await shop.caller() for _ in range(20)]
    unknown = Caller(shop.http, "coa_at_" + "x" * 43)
    shop.services.authenticator.forget_all()
    with shop.statements() as seen:
        answers = await asyncio.gather(*[caller.send("{ viewer { kind } }") for caller in [*tills, *tills, unknown]])
    assert [answer.status_code for answer in answers] == [200] * 40 + [401]
    assert len([statement for statement in seen if "FROM oauth_token AS t" in statement]) == 1
    ids = [(await caller.run("{ viewer { clientId } }"))["viewer"]["clientId"] for caller in tills]
    assert len(set(ids)) == 20, "each got its own"


async def test_a_request_leaves_nothing_to_the_garbage_collector(shop: Shop) -> None:
    till = await shop.caller()
    await till.enroll()
    left: list[object] = []
    for key in ("to know the documents", "k"):
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            assert (await till.earn(key))["points"] == 100
            assert "errors" not in (await till.send(BALANCE)).json()
            gc.collect()
            left = [one for one in gc.garbage if isinstance(one, Executor | Context | commands.Posted)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
    assert left == []
