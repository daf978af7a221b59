"""March of the worked example (SETTLEMENT.md c.6), over HTTP with tokens and an injected clock, to the last digit."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.database import Database
from settlement.checks import NAMES
from tests.api.graphql_shop import OPERATOR_SCOPES, Caller, Shop, open_shop

IN_MARCH = datetime(2017, 3, 15, 12, tzinfo=UTC)
IN_APRIL = datetime(2017, 4, 2, 12, tzinfo=UTC)

REVERSE = """
mutation ($input: ReverseInput!) { reverse(input: $input) { __typename
  ... on ReversalReceipt { points shortfall } ... on Refusal { code message } } }
"""
CLOSE = """
mutation ($input: ClosePeriodInput!) { closePeriod(input: $input) { __typename
  ... on ClosedPeriod { replayed period { label state operatorNet { amount } poolChange { amount } margin { amount }
    certificate { sha256 previous checks { number holds detail } } } }
  ... on Refusal { code message } } }
"""
STATEMENT = """
query ($label: String!, $partner: ID) { settlementStatement(label: $label, partnerId: $partner) {
  partner { code } net { amount currency } due { amount }
  lines { kind points exact priorPeriodExact billed { amount }
          transactions(first: 100) { nodes {
            kind partner { code } movements { kind points issueValue serviceFee reimbursement } } } }
  budget { limit { amount } consumed { amount } available { amount } } } }
"""
ISSUED = {"grocer": "120000.00", "fuel": "40000.00", "restaurant": "20000.00"}
BURNED = {
    ("grocer", "grocer"): 18_000,
    ("grocer", "fuel"): 4_000,
    ("grocer", "restaurant"): 20_000,
    ("fuel", "grocer"): 9_000,
    ("fuel", "fuel"): 1_000,
    ("fuel", "restaurant"): 4_000,
    ("restaurant", "grocer"): 3_000,
    ("restaurant", "restaurant"): 1_000,
}
LINES = {
    "grocer": {
        "ISSUE": (120_000, "-1200.000000", "-1200.00"),
        "SERVICE_FEE": (120_000, "-120.000000", "-120.00"),
        "EARN_REVERSAL": (2_000, "20.000000", "20.00"),
        "SERVICE_FEE_REFUND": (2_000, "2.000000", "2.00"),
        "REIMBURSEMENT": (30_000, "270.000000", "270.00"),
        "FIXED_FEE": (None, "-50.000000", "-50.00"),
    },
    "fuel": {
        "ISSUE": (40_000, "-420.000000", "-420.00"),
        "SERVICE_FEE": (40_000, "-48.000000", "-48.00"),
        "REIMBURSEMENT": (5_000, "46.000000", "46.00"),
        "FIXED_FEE": (None, "-30.000000", "-30.00"),
    },
    "restaurant": {
        "ISSUE": (18_518, "-222.216000", "-222.22"),
        "SERVICE_FEE": (18_518, "-27.777000", "-27.78"),
        "REIMBURSEMENT": (25_000, "237.500000", "237.50"),
        "FIXED_FEE": (None, "-20.000000", "-20.00"),
    },
}
NETS = {"grocer": "-1078.00", "fuel": "-452.00", "restaurant": "-32.50"}
BUDGETS = {"grocer": "1298.000000", "fuel": "468.000000", "restaurant": "249.993000"}


class Time:
    """A clock that tests move."""

    def __init__(self, instant: datetime) -> None:
        self.instant = instant

    def __call__(self) -> datetime:
        return self.instant


@pytest.fixture
async def march(database: Database) -> AsyncIterator[tuple[Shop, Time]]:
    """The coalition after every event of March, in April."""
    time = Time(IN_MARCH)
    async with open_shop(database, time) as shop:
        await play_march(shop)
        time.instant = IN_APRIL
        yield shop, time


async def play_march(shop: Shop) -> None:
    """One member an issuer, so that each burn takes points of the issuer that the table names."""
    tills = {code: await shop.caller(code) for code in ISSUED}
    for code, amount in ISSUED.items():
        await tills[code].enroll(f"card-{code}")
        receipt = await tills[code].earn(
            f"earn-{code}", member={"card": f"card-{code}"}, amount={"amount": amount, "currency": "EUR"}
        )
        assert receipt["points"] == {"restaurant": 18_518}.get(code, int(amount.partition(".")[0]))
        assert receipt["declinedPoints"] == {"restaurant": 1_482}.get(code, 0)
    returned = await tills["grocer"].run(
        REVERSE,
        {
            "input": {
                "idempotencyKey": "return-grocer",
                "originalKey": "earn-grocer",
                "amount": {"amount": "2000.00", "currency": "EUR"},
                "occurredAt": "2017-03-15T12:00:00Z",
            }
        },
    )
    assert returned["reverse"] == {"__typename": "ReversalReceipt", "points": 2_000, "shortfall": 0}
    for (issuer, redeemer), points in BURNED.items():
        receipt = await tills[redeemer].burn(f"burn-{issuer}-{redeemer}", points, member={"card": f"card-{issuer}"})
        assert receipt["points"] == points


async def close(operator: Caller, label: str, key: str = "close-1") -> Any:
    """Closes a period."""
    return (await operator.run(CLOSE, {"input": {"idempotencyKey": key, "label": label}}))["closePeriod"]


async def close_march(shop: Shop) -> Any:
    """Closes January and February, which are empty, and March."""
    operator = await shop.caller(None, OPERATOR_SCOPES)
    for number, label in enumerate(("2017-01", "2017-02")):
        assert (await close(operator, label, f"close-early-{number}"))["__typename"] == "ClosedPeriod"
    return await close(operator, "2017-03")


async def test_march_settles_to_the_last_digit(march: tuple[Shop, Time]) -> None:
    shop, _ = march
    closed = await close_march(shop)
    assert closed["__typename"] == "ClosedPeriod", closed
    period = closed["period"]
    assert (period["label"], period["state"], closed["replayed"]) == ("2017-03", "CLOSED", False)
    assert period["operatorNet"]["amount"] == "1562.50"
    assert period["poolChange"]["amount"] == "1207.216000"
    assert period["margin"]["amount"] == "355.284000"
    checks = period["certificate"]["checks"]
    assert [check["number"] for check in checks] == list(NAMES)
    assert all(check["holds"] for check in checks), checks
    for code, lines in LINES.items():
        await _check_statement(await shop.caller(code), code, lines)


async def _check_statement(till: Caller, code: str, lines: dict[str, tuple[int | None, str, str]]) -> None:
    statement = (await till.run(STATEMENT, {"label": "2017-03"}))["settlementStatement"]
    found = {line["kind"]: (line["points"], line["exact"], line["billed"]["amount"]) for line in statement["lines"]}
    assert found == lines
    assert statement["net"] == {"amount": NETS[code], "currency": "EUR"}
    assert statement["due"]["amount"] == NETS[code]
    assert statement["budget"]["consumed"]["amount"] == BUDGETS[code]
    assert all(line["priorPeriodExact"] == "0.000000" for line in statement["lines"])
    # "Explain this line": the transactions behind it, and what they moved, make its exact amount.
    columns = {"ISSUE": "issueValue", "SERVICE_FEE": "serviceFee", "REIMBURSEMENT": "reimbursement"}
    for line in statement["lines"]:
        if line["kind"] in columns:
            movements = [m for node in line["transactions"]["nodes"] for m in node["movements"]]
            kind = "BURN" if line["kind"] == "REIMBURSEMENT" else "EARN"
            total = sum(_micro(m[columns[line["kind"]]]) for m in movements if m["kind"] == kind)
            assert total == _micro(line["exact"]), line["kind"]


def _micro(amount: str) -> int:
    return int(amount.replace(".", ""))


async def test_a_second_close_answers_with_the_first_result(march: tuple[Shop, Time]) -> None:
    shop, _ = march
    first = await close_march(shop)
    operator = await shop.caller(None, OPERATOR_SCOPES)
    again = await close(operator, "2017-03", "another-key")
    assert again == {**first, "replayed": True}
    assert (await close(operator, "2017-04", "close-1"))["code"] == "IDEMPOTENCY_CONFLICT"
    assert (await close(operator, "2017-04", "close-april"))["code"] == "PERIOD_NOT_ENDED"


async def test_periods_close_in_order_and_after_their_end(march: tuple[Shop, Time]) -> None:
    shop, time = march
    operator = await shop.caller(None, OPERATOR_SCOPES)
    assert (await close(operator, "2017-03"))["code"] == "EARLIER_PERIOD_OPEN"
    time.instant = IN_MARCH
    assert (await close(operator, "2017-03"))["code"] == "PERIOD_NOT_ENDED"
    assert (await close(operator, "2016-12"))["code"] == "PERIOD_NOT_FOUND"
    assert (await close(operator, "March"))["code"] == "PERIOD_NOT_FOUND"
    states = await operator.run("{ settlementPeriods(first: 10) { nodes { label state } } }")
    assert all(node["state"] == "OPEN" for node in states["settlementPeriods"]["nodes"])


async def test_a_partner_neither_closes_nor_sees_another_statement(march: tuple[Shop, Time]) -> None:
    shop, _ = march
    await close_march(shop)
    till = await shop.caller("grocer")
    refused = await till.errors(CLOSE, {"input": {"idempotencyKey": "k", "label": "2017-03"}})
    assert refused[0]["extensions"]["code"] == "FORBIDDEN"
    operator = await shop.caller(None, OPERATOR_SCOPES)
    fuel = (await operator.run('{ partner(code: "fuel") { id } }'))["partner"]["id"]
    assert (await till.run(STATEMENT, {"label": "2017-03", "partner": fuel}))["settlementStatement"] is None
    seen = await till.run('{ settlementPeriod(label: "2017-03") { statements { partner { code } } } }')
    assert seen["settlementPeriod"]["statements"] == [{"partner": {"code": "grocer"}}]
