"""Periods, statements and their explanation, for a partner and for the operator."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from domain.database import Database
from tests.api.graphql_shop import Caller, Shop, Time, open_shop

APRIL = datetime(2017, 4, 2, 12, tzinfo=UTC)
CLOSE = """mutation ($label: String!, $key: String!) { closePeriod(input: {idempotencyKey: $key, label: $label}) {
  ... on ClosedPeriod { replayed idempotencyKey period { label state closedAt
      operatorNet { amount currency } poolChange { amount } margin { amount }
      certificate { sha256 previous checks { number name holds detail } } } }
  ... on Refusal { code message retryable refusedKey: idempotencyKey } } }"""
STATEMENT = """query ($label: String!, $partner: ID) { settlementStatement(label: $label, partnerId: $partner) {
  id draft partner { code } period { label state } net { amount currency } due { amount } shortfall
  lines { kind points exact priorPeriodExact billed { amount } transactions { nodes { reference movements {
      kind points party { code } issueValue serviceFee reimbursement breakageShare } } } }
  budget { lapsed { amount } limit { amount } drawn { amount } consumed { amount }
    windows { periodLabel drawn { amount } } } } }"""
MONEY_OF_LINE = {"ISSUE": "issueValue", "SERVICE_FEE": "serviceFee", "REIMBURSEMENT": "reimbursement"}


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def shop(database: Database, time: Time) -> AsyncIterator[Shop]:
    async with open_shop(database, time) as opened:
        yield opened


async def a_month(shop: Shop, time: Time) -> tuple[Caller, Caller, Caller]:
    """March: two purchases at the grocer, a burn at the fuel station; now it is April."""
    grocer, fuel = await shop.caller(), await shop.caller("fuel")
    await grocer.enroll()
    await grocer.earn("k1")
    await grocer.earn("k2", amount={"amount": "33.99", "currency": "EUR"})
    await fuel.burn("b1", 50)
    time.now = APRIL
    # Tokens live fifteen minutes, and half a month has passed.
    return await shop.caller(), await shop.caller("fuel"), await shop.caller(None)


async def test_a_period_is_closed_once_and_certified(shop: Shop, time: Time) -> None:
    _, _, operator = await a_month(shop, time)
    early = (await operator.run(CLOSE, {"label": "2017-03", "key": "c0"}))["closePeriod"]
    assert (early["code"], early["refusedKey"]) == ("EARLIER_PERIOD_OPEN", "c0")
    for label in ("2017-01", "2017-02"):
        await operator.run(CLOSE, {"label": label, "key": label})
    closed = (await operator.run(CLOSE, {"label": "2017-03", "key": "c1"}))["closePeriod"]
    assert (closed["replayed"], closed["idempotencyKey"]) == (False, "c1")
    period = closed["period"]
    assert (period["label"], period["state"], period["closedAt"]) == ("2017-03", "CLOSED", "2017-04-02T12:00:00Z")
    # Issued 133 points at 0.010 + 0.001, 50 of them burned at 0.0092; fixed fees 50 + 30 + 20.
    assert period["operatorNet"] == {"amount": "101.00", "currency": "EUR"}
    assert period["poolChange"] == {"amount": "0.830000"}
    assert period["margin"] == {"amount": "100.170000"}
    checks = period["certificate"]["checks"]
    assert all(check["holds"] and check["detail"] for check in checks)
    assert len(period["certificate"]["sha256"]) == len(period["certificate"]["previous"]) == 64
    again = (await operator.run(CLOSE, {"label": "2017-03", "key": "c1"}))["closePeriod"]
    assert again == {**closed, "replayed": True}
    running = (await operator.run(CLOSE, {"label": "2017-04", "key": "c2"}))["closePeriod"]
    assert running["code"] == "PERIOD_NOT_ENDED"


async def test_a_statement_is_explained_to_the_micro_unit(shop: Shop, time: Time) -> None:
    grocer, fuel, operator = await a_month(shop, time)
    statement = (await grocer.run(STATEMENT, {"label": "2017-03"}))["settlementStatement"]
    assert (statement["draft"], statement["partner"], statement["period"]) == (
        True,
        {"code": "grocer"},
        {"label": "2017-03", "state": "OPEN"},
    )
    lines = {line["kind"]: line for line in statement["lines"]}
    assert {kind: (line["points"], line["exact"], line["billed"]["amount"]) for kind, line in lines.items()} == {
        "ISSUE": (133, "-1.330000", "-1.33"),
        "SERVICE_FEE": (133, "-0.133000", "-0.13"),
    }
    for kind, line in lines.items():
        nodes = line["transactions"]["nodes"]
        assert [node["reference"] for node in nodes] == ["k2", "k1"]
        movements = [movement for node in nodes for movement in node["movements"]]
        assert {movement["party"]["code"] for movement in movements} == {"grocer"}
        assert sum(Decimal(movement[MONEY_OF_LINE[kind]]) for movement in movements) == Decimal(line["exact"])
    assert statement["budget"] == {
        "lapsed": {"amount": "0.000000"},
        "limit": {"amount": "1500.000000"},
        "drawn": {"amount": "1.463000"},
        "consumed": {"amount": "1.463000"},
        "windows": [{"periodLabel": "2017-03", "drawn": {"amount": "1.463000"}}],
    }
    for label in ("2017-01", "2017-02", "2017-03"):
        await operator.run(CLOSE, {"label": label, "key": label})
    final = (await grocer.run(STATEMENT, {"label": "2017-03"}))["settlementStatement"]
    assert (final["draft"], final["period"]["state"]) == (False, "CLOSED")
    assert (final["net"], final["due"]) == ({"amount": "-51.46", "currency": "EUR"}, {"amount": "-51.46"})
    fixed = next(line for line in final["lines"] if line["kind"] == "FIXED_FEE")
    assert (fixed["points"], fixed["exact"], fixed["transactions"]["nodes"]) == (None, "-50.000000", [])
    other = (await fuel.run(STATEMENT, {"label": "2017-03"}))["settlementStatement"]
    assert (other["partner"], other["net"]["amount"]) == ({"code": "fuel"}, "-29.54")
    # 1,500.00 less 1.463: what was left of March ends with it.
    assert final["budget"]["lapsed"] == {"amount": "1498.537000"}
    zero = {
        "lapsed": {"amount": "0.000000"},
        "limit": {"amount": "0.000000"},
        "drawn": {"amount": "0.000000"},
        "consumed": {"amount": "0.000000"},
    }
    assert other["budget"] == {**zero, "windows": []}


async def test_statements_are_a_partners_own(shop: Shop, time: Time) -> None:
    grocer, fuel, operator = await a_month(shop, time)
    periods = '{ settlementPeriod(label: "2017-03") { statements { partner { code } net { amount } } } }'
    seen: dict[str, Any] = {}
    for name, caller in (("grocer", grocer), ("fuel", fuel), ("operator", operator)):
        statements = (await caller.run(periods))["settlementPeriod"]["statements"]
        seen[name] = [statement["partner"]["code"] for statement in statements]
    assert seen == {"grocer": ["grocer"], "fuel": ["fuel"], "operator": ["grocer", "fuel"]}
    query = "query ($code: String) { partner(code: $code) { id } }"
    ids = {code: (await fuel.run(query, {"code": code}))["partner"]["id"] for code in ("grocer", "fuel")}
    own = await fuel.run(STATEMENT, {"label": "2017-03", "partner": ids["fuel"]})
    assert own["settlementStatement"]["partner"] == {"code": "fuel"}
    for partner in (ids["grocer"], "nonsense"):
        assert await fuel.run(STATEMENT, {"label": "2017-03", "partner": partner}) == {"settlementStatement": None}
    found = await operator.run(STATEMENT, {"label": "2017-03", "partner": ids["grocer"]})
    assert found["settlementStatement"]["partner"] == {"code": "grocer"}
    errors = await operator.errors(STATEMENT, {"label": "2017-03"})
    assert errors[0]["extensions"] == {"code": "BAD_USER_INPUT", "field": "partnerId"}
    assert await grocer.run(STATEMENT, {"label": "March"}) == {"settlementStatement": None}


async def test_a_partner_sees_a_certificate_without_the_coalitions_figures(shop: Shop, time: Time) -> None:
    grocer, _, operator = await a_month(shop, time)
    for label in ("2017-01", "2017-02", "2017-03"):
        await operator.run(CLOSE, {"label": label, "key": label})
    query = '{ settlementPeriod(label: "2017-03") { certificate { sha256 checks { holds detail } } } }'
    mine, theirs = [(await caller.run(query))["settlementPeriod"]["certificate"] for caller in (grocer, operator)]
    assert mine["sha256"] == theirs["sha256"]
    assert mine["checks"] == [{**check, "detail": ""} for check in theirs["checks"]]


async def test_periods_are_found_by_id_label_and_now(shop: Shop, time: Time) -> None:
    grocer, _, _ = await a_month(shop, time)
    query = "{ settlementPeriod { label state opensAt closesAt statements { id } } }"
    now = (await grocer.run(query))["settlementPeriod"]
    assert now == {
        "label": "2017-04",
        "state": "OPEN",
        "opensAt": "2017-03-31T22:00:00Z",
        "closesAt": "2017-04-30T22:00:00Z",
        "statements": [],
    }
    march = (await grocer.run('{ settlementPeriod(label: "2017-03") { id closesAt } }'))["settlementPeriod"]
    assert march["closesAt"] == now["opensAt"]
    by_id = "query ($id: ID!) { settlementPeriod(id: $id) { label } }"
    assert await grocer.run(by_id, {"id": march["id"]}) == {"settlementPeriod": {"label": "2017-03"}}
    assert await grocer.run(by_id, {"id": "nonsense"}) == {"settlementPeriod": None}
    assert await grocer.run('{ settlementPeriod(label: "2016-12") { label } }') == {"settlementPeriod": None}
    listing = "{ settlementPeriods { nodes { label } pageInfo { hasNextPage } } }"
    assert (await grocer.run(listing))["settlementPeriods"] == {
        "nodes": [{"label": "2017-03"}],
        "pageInfo": {"hasNextPage": False},
    }


async def test_explaining_many_lines_takes_no_more_statements(shop: Shop, time: Time) -> None:
    grocer, _, operator = await a_month(shop, time)
    document = """{ settlementPeriods(first: 3) { nodes { statements { lines { kind transactions(first: 2) {
        nodes { reference movements { kind lots { points } } } pageInfo { hasNextPage } } } } } } }"""
    counts = []
    for caller in (operator, grocer, operator, grocer):  # at first, with a look-up of the token
        with shop.statements() as seen:
            await caller.run(document)
        counts.append(len(seen))
    assert counts[2] == counts[3]


async def test_the_transactions_of_a_line_are_paged(shop: Shop, time: Time) -> None:
    grocer, _, _ = await a_month(shop, time)
    query = """query ($after: String) { settlementStatement(label: "2017-03") { lines { kind
        transactions(first: 1, after: $after) { nodes { reference } pageInfo { hasNextPage endCursor } } } } }"""
    references: list[str] = []
    after, more = None, True
    while more and len(references) < 5:
        lines = (await grocer.run(query, {"after": after}))["settlementStatement"]["lines"]
        page = next(line for line in lines if line["kind"] == "ISSUE")["transactions"]
        references += [node["reference"] for node in page["nodes"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert references == ["k2", "k1"]


async def test_a_reversal_in_the_next_month_is_of_a_prior_period(shop: Shop, time: Time) -> None:
    await a_month(shop, time)
    grocer = await shop.caller()
    reverse = """mutation ($input: ReverseInput!) { reverse(input: $input) { ... on ReversalReceipt { points
        transaction { periodLabel } } } }"""
    given = {"idempotencyKey": "r1", "originalKey": "k2", "occurredAt": "2017-04-02T12:00:00Z"}
    assert (await grocer.run(reverse, {"input": given}))["reverse"] == {
        "points": 33,
        "transaction": {"periodLabel": "2017-04"},
    }
    statement = (await grocer.run(STATEMENT, {"label": "2017-04"}))["settlementStatement"]
    lines = {line["kind"]: (line["exact"], line["priorPeriodExact"]) for line in statement["lines"]}
    assert lines == {"EARN_REVERSAL": ("0.330000", "0.330000"), "SERVICE_FEE_REFUND": ("0.033000", "0.033000")}
    prior = """{ settlementStatement(label: "2017-04") { lines { kind priorPeriods { period statementId exact } } }
        original: settlementStatement(label: "2017-03") { id } }"""
    found = await grocer.run(prior)
    assert found["settlementStatement"]["lines"] == [
        {"kind": kind, "priorPeriods": [{"period": "2017-03", "statementId": found["original"]["id"], "exact": exact}]}
        for kind, exact in (("EARN_REVERSAL", "0.330000"), ("SERVICE_FEE_REFUND", "0.033000"))
    ]
    assert statement["budget"]["drawn"] == {"amount": "-0.363000"}
    assert statement["budget"]["lapsed"] == {"amount": "0.000000"}
    assert statement["budget"]["windows"] == [{"periodLabel": "2017-04", "drawn": {"amount": "-0.363000"}}]


async def test_a_reversal_in_its_own_month_is_of_no_prior_period(shop: Shop, time: Time) -> None:
    grocer, _, _ = await a_month(shop, time)
    await grocer.earn("k3", occurredAt="2017-04-02T11:00:00Z")
    reverse = "mutation ($input: ReverseInput!) { reverse(input: $input) { ... on ReversalReceipt { points } } }"
    given = {"idempotencyKey": "r3", "originalKey": "k3", "occurredAt": "2017-04-02T12:00:00Z"}
    assert (await grocer.run(reverse, {"input": given}))["reverse"] == {"points": 100}
    prior = """{ settlementStatement(label: "2017-04") {
        lines { kind exact priorPeriodExact priorPeriods { period exact } } } }"""
    lines = (await grocer.run(prior))["settlementStatement"]["lines"]
    assert {line["kind"] for line in lines} == {"ISSUE", "SERVICE_FEE", "EARN_REVERSAL", "SERVICE_FEE_REFUND"}
    assert [(line["priorPeriodExact"], line["priorPeriods"]) for line in lines] == [("0.000000", [])] * 4


async def test_a_line_is_explained_by_movements_of_its_own_kind(shop: Shop, time: Time) -> None:
    """A partner that both awards and takes points has lines of both kinds in one period."""
    grocer, _, _ = await a_month(shop, time)
    time.now = datetime(2017, 3, 20, 12, tzinfo=UTC)
    grocer = await shop.caller()
    await grocer.burn("b2", 7, occurredAt="2017-03-20T12:00:00Z")
    query = """{ settlementStatement(label: "2017-03") { lines { kind transactions { nodes { reference } } } } }"""
    lines = (await grocer.run(query))["settlementStatement"]["lines"]
    explained = {line["kind"]: [node["reference"] for node in line["transactions"]["nodes"]] for line in lines}
    assert explained == {"ISSUE": ["k2", "k1"], "SERVICE_FEE": ["k2", "k1"], "REIMBURSEMENT": ["b2"]}
