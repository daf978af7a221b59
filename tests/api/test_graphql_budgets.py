"""Budgets over HTTP and on the command line: money paid in, what the blocks have left, alerts, and who sees them."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from api.budgeting import describe_budgets
from api.runtime import Runtime
from api.settling import close_and_describe
from domain.database import Database
from domain.terms import ConfigurationCache
from tests.api.graphql_shop import Caller, Time, open_shop
from tests.factories import apply_toml
from tests.partners.helpers import changed

FLOAT = changed(('every = "month"\n', ""), ('limit = "1500.00"', 'limit = "0"'), ("POSTPAID", "PREPAID"))
STATUS = """funding limit { amount } overdraft { amount } consumed { amount } reserved { amount } available { amount }
  alertedAt blocks { amount { amount } used { amount } left { amount } toppedUpAt bankReference note }"""
TOP_UP = f"""mutation ($input: TopUpBudgetInput!) {{ topUpBudget(input: $input) {{ __typename
  ... on ToppedUpBudget {{ partner {{ code }} block {{ amount {{ amount }} left {{ amount }} }}
                           budget {{ {STATUS} }} replayed idempotencyKey }}
  ... on Refusal {{ code field }} }} }}"""
OWN = f"{{ partner {{ budget {{ {STATUS} }} }} }}"
ALERTS = """query ($first: Int, $after: String, $partnerId: ID) {
  budgetAlerts(first: $first, after: $after, partnerId: $partnerId) {
    nodes { partner { code id } campaign periodLabel crossedAt stillAbove used { amount } limit { amount } }
    pageInfo { hasNextPage endCursor } } }"""


def payment(key: str, amount: str = "1.10", **changes: Any) -> dict[str, Any]:
    """Input of a top-up of the grocer."""
    return {
        "idempotencyKey": key,
        "partnerCode": "grocer",
        "amount": {"amount": amount, "currency": "EUR"},
        "occurredAt": "2017-03-15T11:00:00Z",
        **changes,
    }


async def pay(operator: Caller, **given: Any) -> Any:
    """The answer to a top-up."""
    return (await operator.run(TOP_UP, {"input": given}))["topUpBudget"]


def block(amount: str, used: str, left: str, at: str = "2017-03-15T11:00:00Z", **texts: str) -> dict[str, Any]:
    """A block as GraphQL shows it."""
    amounts = {name: {"amount": value} for name, value in (("amount", amount), ("used", used), ("left", left))}
    return {**amounts, "toppedUpAt": at, "bankReference": None, "note": None, **texts}


async def test_money_paid_in_is_spent_oldest_first(database: Database) -> None:
    await apply_toml(database, FLOAT)
    async with open_shop(database, is_applied=False) as shop:
        operator, till = await shop.caller(None), await shop.caller("grocer")
        await till.enroll()
        assert (await till.earn("empty"))["points"] == 0

        made = await pay(operator, **payment("p-1", bankReference="SEPA 1", note="March"))
        again = await pay(operator, **payment("p-1", bankReference="SEPA 1", note="March"))
        other = await pay(operator, **payment("p-1", "9.99"))
        await pay(operator, **payment("p-2", "2.20", occurredAt="2017-03-15T11:30:00Z"))
        earned = await till.earn("k", amount={"amount": "130.00", "currency": "EUR"})
        budget = (await till.run(OWN))["partner"]["budget"]
        described = await describe_budgets(Runtime(database, ConfigurationCache(database), shop.services.clock), None)

    assert (made["__typename"], made["partner"]["code"], made["replayed"]) == ("ToppedUpBudget", "grocer", False)
    assert made["budget"]["blocks"] == [block("1.100000", "0.000000", "1.100000", bankReference="SEPA 1", note="March")]
    assert (again["replayed"], again["block"]) == (True, made["block"])
    assert other == {"__typename": "Refusal", "code": "IDEMPOTENCY_CONFLICT", "field": "idempotencyKey"}
    assert earned["points"] == 130
    blocks = [
        block("1.100000", "1.100000", "0.000000", bankReference="SEPA 1", note="March"),
        block("2.200000", "0.330000", "1.870000", at="2017-03-15T11:30:00Z"),
    ]
    assert budget == {
        "funding": "PREPAID",
        "limit": {"amount": "3.300000"},
        "overdraft": {"amount": "0.000000"},
        "consumed": {"amount": "1.430000"},
        "reserved": {"amount": "0.000000"},
        "available": {"amount": "1.870000"},
        "alertedAt": None,
        "blocks": blocks,
    }
    [mine] = described
    assert {name: mine[name] for name in ("partner", "campaign", "window", "funding", "limit", "available")} == {
        "partner": "grocer",
        "campaign": None,
        "window": None,
        "funding": "PREPAID",
        "limit": "3.300000",
        "available": "1.870000",
    }
    assert [(one["amount"], one["used"], one["left"]) for one in mine["blocks"]] == [
        ("1.100000", "1.100000", "0.000000"),
        ("2.200000", "0.330000", "1.870000"),
    ]


async def test_what_is_paid_in_names_one_partner_with_a_float(database: Database) -> None:
    await apply_toml(database, FLOAT)
    async with open_shop(database, is_applied=False) as shop:
        operator = await shop.caller(None)
        [node] = [
            one
            for one in (await operator.run("{ partners { nodes { id code } } }"))["partners"]["nodes"]
            if one["code"] == "grocer"
        ]
        by_id = {name: value for name, value in payment("p").items() if name != "partnerCode"}
        answers = [
            await pay(operator, **payment("p", partnerId=node["id"])),
            await pay(operator, **by_id),
            await pay(operator, **payment("p", partnerCode="nobody")),
            await pay(operator, **by_id, partnerId="nonsense"),
            await pay(operator, **payment("p", partnerCode="fuel")),
            await pay(operator, **by_id, partnerId=node["id"]),
        ]
    refusal = {"__typename": "Refusal", "code": "INPUT_INVALID", "field": "partnerCode"}
    assert answers[:-1] == [refusal] * 5
    assert answers[-1]["__typename"] == "ToppedUpBudget"


async def crossings(caller: Caller, **variables: Any) -> list[tuple[str, str | None, str, bool, str]]:
    """Alerts as (partner, window, crossed at, still above, used)."""
    found = (await caller.run(ALERTS, variables))["budgetAlerts"]["nodes"]
    return [
        (one["partner"]["code"], one["periodLabel"], one["crossedAt"], one["stillAbove"], one["used"]["amount"])
        for one in found
    ]


async def test_each_crossing_of_the_threshold_is_listed_once(database: Database) -> None:
    await apply_toml(database, changed(('limit = "1500.00"', 'limit = "1.10"'), ('limit = "600.00"', 'limit = "1.17"')))
    time = Time()
    async with open_shop(database, time, is_applied=False) as shop:
        till, fuel, operator = [await shop.caller(name) for name in ("grocer", "fuel", None)]
        await till.enroll()
        await till.earn("k-1", amount={"amount": "80.00", "currency": "EUR"})
        await till.earn("k-2", amount={"amount": "5.00", "currency": "EUR"})
        time.now = time.now.replace(minute=1)
        await till.run(
            "mutation ($input: ReverseInput!) { reverse(input: $input) { __typename } }",
            {"input": {"idempotencyKey": "r", "originalKey": "k-1", "occurredAt": "2017-03-15T12:00:00Z"}},
        )
        assert [one[3] for one in await crossings(till)] == [False]
        time.now = time.now.replace(minute=2)
        await till.earn("k-3", amount={"amount": "90.00", "currency": "EUR"})
        await fuel.earn("f-1", amount={"amount": "100.00", "currency": "EUR"})

        first = ("grocer", "2017-03", "2017-03-15T12:00:00Z", False, "0.880000")
        second = ("grocer", "2017-03", "2017-03-15T12:02:00Z", True, "1.045000")
        others = ("fuel", "2017-03", "2017-03-15T12:02:00Z", True, "1.170000")
        assert await crossings(operator) == [others, second, first]
        assert await crossings(till) == [second, first]
        assert await crossings(fuel) == [others]
        page = (await operator.run(ALERTS, {"first": 2}))["budgetAlerts"]
        assert page["pageInfo"]["hasNextPage"] is True
        assert await crossings(operator, after=page["pageInfo"]["endCursor"]) == [first]
        fuels_id = page["nodes"][0]["partner"]["id"]
        assert await crossings(operator, partnerId=fuels_id) == [others]
        assert await crossings(till, partnerId=fuels_id) == []
        [error] = await operator.errors(ALERTS, {"partnerId": "nonsense"})
        assert error["extensions"]["code"] == "BAD_USER_INPUT"


async def test_tills_that_cross_together_raise_one_alert(database: Database) -> None:
    await apply_toml(database, changed(('limit = "1500.00"', 'limit = "11.00"')))
    async with open_shop(database, is_applied=False) as one, open_shop(database, is_applied=False) as two:
        tills = [await shop.caller("grocer") for shop in (one, two)]
        await tills[0].enroll()
        twenty = {"amount": "20.00", "currency": "EUR"}
        await asyncio.gather(
            *(till.earn(f"{number}-{n}", amount=twenty) for number, till in enumerate(tills) for n in range(30))
        )
        alerts = await crossings(tills[0])
    assert len(alerts) == 1
    assert alerts[0][3] is True


SETTLED = """query { settlementPeriod(label: "2017-03") { depositChange { amount } margin { amount }
  statements { partner { code } due { amount } lines { kind points exact
    transactions(first: 5) { nodes { id } } } } } }"""


async def test_what_was_paid_in_is_credited_on_the_statement(database: Database) -> None:
    await apply_toml(database, FLOAT)
    time = Time()
    async with open_shop(database, time, is_applied=False) as shop:
        operator, till = await shop.caller(None), await shop.caller("grocer")
        await till.enroll()
        await pay(operator, **payment("p-1", "2.20"))
        await till.earn("k", amount={"amount": "130.00", "currency": "EUR"})
        time.now = datetime(2017, 4, 3, 10, tzinfo=UTC)
        runtime = Runtime(database, ConfigurationCache(database), time)
        *_, closed = [await close_and_describe(runtime, label) for label in ("2017-01", "2017-02", "2017-03")]
        operator, till = await shop.caller(None), await shop.caller("grocer")
        period = (await operator.run(SETTLED))["settlementPeriod"]
        forbidden = await till.errors(SETTLED)

    assert closed["period"]["depositChange"] == {"amount": "-1.430000", "currency": "EUR"}
    assert period["depositChange"] == {"amount": "-1.430000"}
    [mine] = [one for one in period["statements"] if one["partner"]["code"] == "grocer"]
    [line] = [one for one in mine["lines"] if one["kind"] == "PREPAID"]
    assert line == {"kind": "PREPAID", "points": None, "exact": "1.430000", "transactions": {"nodes": []}}
    assert {error["extensions"]["code"] for error in forbidden} == {"FORBIDDEN"}
