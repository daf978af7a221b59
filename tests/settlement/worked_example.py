"""The worked example of SETTLEMENT.md c.6, written by the tests' own writer."""

from dataclasses import dataclass, field
from datetime import date
from zoneinfo import ZoneInfo

from domain.database import Database
from tests.settlement.rows import Prices, noon
from tests.settlement.writer import Award, BurnDone, Writer

MARCH_FIRST = date(2017, 3, 1)
APRIL_FIRST = date(2017, 4, 1)

A = Prices("0.010000", "0.001000", "0.009000", "0.50", "50.00")
A_APRIL = Prices("0.010200", "0.001000", "0.009000", "0.50", "50.00")
B = Prices("0.010500", "0.001200", "0.009200", "0", "30.00")
C = Prices("0.012000", "0.001500", "0.009500", "0.25", "20.00")


@dataclass
class Example:
    """The coalition and what was booked in it: awards by (issuer, month), burns by (partner, issuer)."""

    writer: Writer
    awards: dict[tuple[str, int], Award] = field(default_factory=dict)
    burns: dict[tuple[str, str], BurnDone] = field(default_factory=dict)


ACCOUNTS = {"A": 1, "B": 2, "C": 3}
"""One member per issuer, so that each burn takes lots of one issuer."""


async def coalition(database: Database, zone: str = "Europe/Berlin") -> Example:
    writer = Writer(database, ZoneInfo(zone))
    await writer.programme()
    await writer.partner("A", (MARCH_FIRST, A), (APRIL_FIRST, A_APRIL), budget="1500.00")
    await writer.partner("B", (MARCH_FIRST, B), budget="600.00")
    await writer.partner("C", (MARCH_FIRST, C), budget="250.00")
    return Example(writer)


async def march(example: Example) -> None:
    writer, awards = example.writer, example.awards
    for code, points, requested in (("A", 118_000, 118_000), ("B", 40_000, 40_000), ("C", 18_518, 20_000)):
        awards[(code, 3)] = await writer.earn(
            code, points, noon(2017, 3, 2), account_id=ACCOUNTS[code], requested=requested
        )
    returned = await writer.earn("A", 2_000, noon(2017, 3, 3), account_id=ACCOUNTS["A"])
    await writer.take_back(returned, 2_000, noon(2017, 3, 20))
    matrix = {
        "A": {"A": 18_000, "B": 9_000, "C": 3_000},
        "B": {"A": 4_000, "B": 1_000},
        "C": {"A": 20_000, "B": 4_000, "C": 1_000},
    }
    for redeemer, sources in matrix.items():
        for issuer, points in sources.items():
            lots = [(awards[(issuer, 3)].lot, points)]
            example.burns[(redeemer, issuer)] = await writer.burn(redeemer, lots, noon(2017, 3, 25))


async def april(example: Example) -> None:
    writer, awards = example.writer, example.awards
    for code, points in (("A", 100_000), ("B", 30_000), ("C", 15_000)):
        awards[(code, 4)] = await writer.earn(code, points, noon(2017, 4, 2), account_id=ACCOUNTS[code])
    # The joint campaign: 1,001 points, 60 % A and 40 % C, by largest remainder; each funder's part is its own award.
    await writer.earn("A", 601, noon(2017, 4, 3), account_id=ACCOUNTS["A"])
    await writer.earn("C", 400, noon(2017, 4, 3), account_id=ACCOUNTS["C"])
    march_lots = {code: awards[(code, 3)].lot for code in "ABC"}
    await writer.take_back(awards[("A", 3)], 2_500, noon(2017, 4, 10), shortfall=500)
    await writer.refund(example.burns[("C", "B")], [(march_lots["B"], 1_000)], noon(2017, 4, 11))
    await writer.expire(march_lots["A"], 4_000, noon(2017, 4, 30))
    await writer.expire(march_lots["C"], 2_000, noon(2017, 4, 30))
    for redeemer, uses in {
        "A": [
            [(march_lots["A"], 38_000), (awards[("A", 4)].lot, 2_000)],
            [(march_lots["B"], 8_000)],
            [(march_lots["C"], 2_000)],
        ],
        "B": [[(march_lots["A"], 6_000)], [(march_lots["B"], 4_000)]],
        "C": [[(march_lots["A"], 22_000)], [(march_lots["B"], 5_000)], [(march_lots["C"], 3_000)]],
    }.items():
        for lots in uses:
            await writer.burn(redeemer, lots, noon(2017, 4, 20))
