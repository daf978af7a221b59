"""Both months of the worked example (SETTLEMENT.md c.6) over HTTP: new prices, a joint campaign, expired points."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import text

from domain.database import Database
from settlement.checks import NAMES
from settlement.verifying import verify
from tests.api.graphql_shop import OPERATOR_SCOPES, Caller, Shop, open_shop
from tests.api.test_worked_example import BUDGETS, BURNED, LINES, NETS, REVERSE, Time, close
from tests.factories import COALITION_TOML, apply_toml

EARLY_MARCH = datetime(2017, 3, 1, 9, tzinfo=UTC)
MID_MARCH = datetime(2017, 3, 15, 12, tzinfo=UTC)
CAMPAIGN_DAY = datetime(2017, 4, 3, 12, tzinfo=UTC)
LATER = datetime(2017, 4, 10, 12, tzinfo=UTC)
IN_MAY = datetime(2017, 5, 2, 12, tzinfo=UTC)

# Points live one month, so that those of 1 March are past on 2 April, and those of 15 March on 16 April.
COALITION = (
    COALITION_TOML.replace("expiry_months = 24", "expiry_months = 1")
    + """
[[campaign]]
code = "easter"
name = "Easter table"
from = 2017-04-03
to = 2017-04-03
partners = ["grocer"]
multiplier = "1.1"
funding = [{ partner = "grocer", share = "0.6" }, { partner = "restaurant", share = "0.4" }]
"""
)
CODES = ("grocer", "fuel", "restaurant")

STATEMENT = """{ settlementStatement(label: "%s") { net { amount } due { amount } shortfall shortfallValue { amount }
  lines { kind points exact priorPeriodExact billed { amount }
    transactions(first: 100) { nodes { kind partner { code } amount { amount } reference
      movements { points campaign issueValue serviceFee } } } }
  budget { consumed { amount } } } }"""
APRIL_LINES = {
    "grocer": {
        "ISSUE": (100_601, "-1026.130200", "0.000000", "-1026.13"),
        "SERVICE_FEE": (100_601, "-100.601000", "0.000000", "-100.60"),
        "EARN_REVERSAL": (2_500, "25.000000", "25.000000", "25.00"),
        "SERVICE_FEE_REFUND": (2_500, "2.500000", "2.500000", "2.50"),
        "REIMBURSEMENT": (50_000, "450.000000", "0.000000", "450.00"),
        "BREAKAGE_SHARE": (4_000, "20.000000", "0.000000", "20.00"),
        "FIXED_FEE": (None, "-50.000000", "0.000000", "-50.00"),
    },
    "fuel": {
        "ISSUE": (30_000, "-315.000000", "0.000000", "-315.00"),
        "SERVICE_FEE": (30_000, "-36.000000", "0.000000", "-36.00"),
        "REIMBURSEMENT": (10_000, "92.000000", "0.000000", "92.00"),
        "FIXED_FEE": (None, "-30.000000", "0.000000", "-30.00"),
    },
    "restaurant": {
        "ISSUE": (15_400, "-184.800000", "0.000000", "-184.80"),
        "SERVICE_FEE": (15_400, "-23.100000", "0.000000", "-23.10"),
        "REIMBURSEMENT": (30_000, "285.000000", "0.000000", "285.00"),
        "BURN_REVERSAL": (1_000, "-9.500000", "-9.500000", "-9.50"),
        "BREAKAGE_SHARE": (2_000, "6.000000", "0.000000", "6.00"),
        "FIXED_FEE": (None, "-20.000000", "0.000000", "-20.00"),
    },
}
APRIL_NETS = {"grocer": "-679.23", "fuel": "-289.00", "restaurant": "53.60"}
APRIL_BUDGETS = {"grocer": "1099.231200", "fuel": "351.000000", "restaurant": "207.900000"}


class Month:
    """Events of one moment: purchases, burns and reversals that must be accepted for exactly so many points."""

    def __init__(self, tills: dict[str, Caller], at: datetime) -> None:
        self.tills = tills
        self.at = at.isoformat().replace("+00:00", "Z")

    async def earn(self, code: str, card: str, points: int, *, granted: int | None = None, bonus: int = 0) -> str:
        """A purchase of so many euros at a point each; its key."""
        key = f"{self.at}-{code}-{card}"
        await self.tills[code].enroll(card)
        amount = {"amount": f"{points}.00", "currency": "EUR"}
        receipt = await self.tills[code].earn(key, member={"card": card}, amount=amount, occurredAt=self.at)
        got = points if granted is None else granted
        assert (receipt["points"], receipt["declinedPoints"]) == (got + bonus, points - got), receipt
        return key

    async def burn(self, code: str, card: str, points: int) -> str:
        """A burn of so many points; its key."""
        key = f"{self.at}-burn-{code}-{card}"
        receipt = await self.tills[code].burn(key, points, member={"card": card}, occurredAt=self.at)
        assert receipt["points"] == points, receipt
        return key

    async def reverse(self, code: str, original: str, **how: Any) -> tuple[int, int]:
        """A return or a refund; (points, shortfall)."""
        given = {"idempotencyKey": f"{self.at}-back-{original}", "originalKey": original, "occurredAt": self.at, **how}
        answer = (await self.tills[code].run(REVERSE, {"input": given}))["reverse"]
        assert answer["__typename"] == "ReversalReceipt", answer
        return answer["points"], answer["shortfall"]


async def play_march(shop: Shop, time: Time) -> tuple[str, str]:
    """March, and the keys of what April takes back: a sale of the grocer's, and a burn at the restaurant."""
    time.instant = EARLY_MARCH
    early = Month({code: await shop.caller(code) for code in CODES}, EARLY_MARCH)
    await early.earn("grocer", "idle-a", 4_000)
    await early.earn("restaurant", "idle-c", 2_000)
    time.instant = MID_MARCH
    march = Month({code: await shop.caller(code) for code in CODES}, MID_MARCH)
    sale = await march.earn("grocer", "returning", 3_000)
    big = await march.earn("grocer", "card-grocer", 113_000)
    await march.earn("fuel", "card-fuel", 40_000)
    await march.earn("restaurant", "card-restaurant", 18_000, granted=16_518)
    assert await march.reverse("grocer", big, amount={"amount": "2000.00", "currency": "EUR"}) == (2_000, 0)
    burns = {cell: await march.burn(cell[1], f"card-{cell[0]}", points) for cell, points in BURNED.items()}
    return sale, burns[("fuel", "restaurant")]


async def play_april(shop: Shop, time: Time, sale: str, burn: str) -> None:
    """April after the close of March: each burn takes the points of the issuer that the example names."""
    time.instant = CAMPAIGN_DAY
    tills = {code: await shop.caller(code) for code in CODES}
    await Month(tills, CAMPAIGN_DAY).earn("grocer", "easter", 10_010, bonus=1_001)
    time.instant = LATER
    april = Month({code: await shop.caller(code) for code in CODES}, LATER)
    await april.earn("grocer", "april-a", 87_990)
    await april.earn("grocer", "idle-a", 2_000)
    await april.earn("fuel", "april-b", 30_000)
    await april.earn("restaurant", "april-c", 13_000)
    await april.earn("restaurant", "idle-c", 2_000)
    await april.burn("grocer", "returning", 500)
    assert await april.reverse("grocer", sale) == (2_500, 500)
    assert await april.reverse("restaurant", burn, points=1_000) == (1_000, 0)
    # A burn finds what is past: 4,000 points of the grocer's and 2,000 of the restaurant's.
    await april.burn("grocer", "idle-a", 2_000)
    await april.burn("grocer", "idle-c", 2_000)
    for code, card, points in (
        ("grocer", "card-grocer", 37_500), ("fuel", "card-grocer", 6_000), ("restaurant", "card-grocer", 22_000),
        ("grocer", "card-fuel", 8_000), ("fuel", "card-fuel", 4_000), ("restaurant", "card-fuel", 5_000),
        ("restaurant", "card-restaurant", 3_000),
    ):  # fmt: skip
        await april.burn(code, card, points)


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[tuple[Shop, Time]]:
    await apply_toml(database, COALITION)
    time = Time(EARLY_MARCH)
    async with open_shop(database, time, is_applied=False) as opened:
        yield opened, time


async def closed(shop: Shop, *labels: str) -> Any:
    """Closes these periods; the last one, with every invariant holding."""
    operator = await shop.caller(None, OPERATOR_SCOPES)
    answer: Any = None
    for label in labels:
        answer = await close(operator, label, f"close-{label}")
        assert answer["__typename"] == "ClosedPeriod", answer
    checks = answer["period"]["certificate"]["checks"]
    assert [(check["number"], check["holds"]) for check in checks] == [(number, True) for number in NAMES]
    return answer["period"] | {"details": {check["number"]: check["detail"] for check in checks}}


async def statements(shop: Shop, label: str) -> dict[str, Any]:
    """Each partner's statement, as it reads it itself."""
    query = STATEMENT % label
    return {code: (await (await shop.caller(code)).run(query))["settlementStatement"] for code in CODES}


def told(statement: Any) -> dict[str, tuple[int | None, str, str, str]]:
    """Lines by kind: points, exact, of which prior periods', billed."""
    return {
        line["kind"]: (line["points"], line["exact"], line["priorPeriodExact"], line["billed"]["amount"])
        for line in statement["lines"]
    }


async def in_alert(database: Database) -> set[str]:
    """Partners whose window stands at or above its threshold, with its month."""
    sql = """SELECT p.code || ' ' || t.label FROM budget AS b JOIN partner AS p ON p.id = b.partner_id
               JOIN period AS t ON t.id = b.period_id WHERE b.alerted_at IS NOT NULL"""
    async with database.posting() as connection:
        return set((await connection.execute(text(sql))).scalars())


async def test_two_months_settle_to_the_last_digit(shop: tuple[Shop, Time], database: Database) -> None:
    opened, time = shop
    sale, burn = await play_march(opened, time)
    time.instant = datetime(2017, 4, 2, 12, tzinfo=UTC)
    march = await closed(opened, "2017-01", "2017-02", "2017-03")
    assert (march["operatorNet"]["amount"], march["poolChange"]["amount"], march["margin"]["amount"]) == (
        "1562.50",
        "1207.216000",
        "355.284000",
    )
    for code, statement in (await statements(opened, "2017-03")).items():
        assert told(statement) == {kind: (*line[:2], "0.000000", line[2]) for kind, line in LINES[code].items()}
        assert statement["net"]["amount"] == NETS[code]
        assert statement["budget"]["consumed"]["amount"] == BUDGETS[code]
    assert await in_alert(database) == {"grocer 2017-03", "restaurant 2017-03"}

    await play_april(opened, time, sale, burn)
    assert await in_alert(database) == {"grocer 2017-03", "restaurant 2017-03", "restaurant 2017-04"}
    time.instant = IN_MAY
    april = await closed(opened, "2017-04")
    assert (april["operatorNet"]["amount"], april["poolChange"]["amount"], april["margin"]["amount"]) == (
        "914.63",
        "528.530200",
        "386.099800",
    )
    assert april["details"][4] == (
        "116518 opening + 146001 issued + 1000 restored - 90000 burned - 2500 reversed - 6000 expired = 165019 closing"
    )
    assert april["details"][5] == "pool 1735.746200"
    found = await statements(opened, "2017-04")
    assert {code: told(statement) for code, statement in found.items()} == APRIL_LINES
    assert {code: statement["net"]["amount"] for code, statement in found.items()} == APRIL_NETS
    assert {code: statement["due"]["amount"] for code, statement in found.items()} == APRIL_NETS
    assert {code: one["budget"]["consumed"]["amount"] for code, one in found.items()} == APRIL_BUDGETS
    assert {code: (one["shortfall"], one["shortfallValue"]["amount"]) for code, one in found.items()} == {
        "grocer": (500, "5.000000"),
        "fuel": (0, "0.000000"),
        "restaurant": (0, "0.000000"),
    }
    gross = sum(abs(Fraction(line["billed"]["amount"])) for one in found.values() for line in one["lines"])
    nets = sum(abs(Fraction(one["net"]["amount"])) for one in found.values())
    assert round((1 - nets / gross) * 1000) == 618  # netting efficiency 61.8 %
    report = await verify(database, time)
    assert report.holds, [check for check in report.checks if not check.holds]


async def test_each_funder_of_the_joint_bonus_finds_its_part_behind_its_issue_line(shop: tuple[Shop, Time]) -> None:
    opened, time = shop
    sale, burn = await play_march(opened, time)
    await play_april(opened, time, sale, burn)
    parts = {}
    for code, statement in (await statements(opened, "2017-04")).items():
        [issue] = [line for line in statement["lines"] if line["kind"] == "ISSUE"]
        parts[code] = [
            (node["partner"]["code"], node["amount"] and node["amount"]["amount"], each["points"], each["issueValue"])
            for node in issue["transactions"]["nodes"]
            for each in node["movements"]
            if each["campaign"] == "easter"
        ]
        own = [each for node in issue["transactions"]["nodes"] for each in node["movements"] if each["issueValue"]]
        assert sum(Fraction(each["issueValue"]) for each in own) == Fraction(issue["exact"])
    # 600.6 and 400.4 points: 601 at 0.0102 and 400 at 0.0120. The grocer sees the other's points, and not its money.
    assert parts == {
        "grocer": [("grocer", "10010.00", 601, "-6.130200"), ("grocer", "10010.00", 400, None)],
        "fuel": [],
        "restaurant": [("grocer", None, 400, "-4.800000")],
    }
