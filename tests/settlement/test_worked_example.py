"""SETTLEMENT.md c.6 to the last digit, from rows through the close to what is read."""

import json
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import text

from domain.database import Database
from domain.periods import Clock
from domain.values import OPERATOR_ID, decimal_from_micro
from settlement.budget_uses import BudgetUse, budgets_of_statements
from settlement.checks import NAMES
from settlement.closing import close_period
from settlement.reading import (
    lines_of_statements,
    period_figures,
    statements_of_periods,
)
from settlement.verifying import verify
from tests.settlement.rows import noon
from tests.settlement.worked_example import april, coalition, march

MARCH, APRIL = 2017 * 12 + 2, 2017 * 12 + 3


async def nets(database: Database, period_id: int) -> dict[int, int]:
    statements = (await statements_of_periods(database, OPERATOR_ID, [period_id]))[period_id]
    return {statement.partner_id: statement.net_minor for statement in statements}


async def billed(database: Database, period_id: int, partner_id: int) -> dict[str, tuple[int, int, int]]:
    lines = await lines_of_statements(database, OPERATOR_ID, [(period_id, partner_id)])
    return {
        line.kind.value: (line.exact_micro, line.prior_exact_micro, line.billed_minor)
        for line in lines[(period_id, partner_id)]
    }


async def budget_use(database: Database, period_id: int, *partner_ids: int) -> dict[int, str]:
    keys = [(period_id, partner_id) for partner_id in partner_ids]
    used: dict[tuple[int, int], list[BudgetUse]] = await budgets_of_statements(database, OPERATOR_ID, keys)
    return {key[1]: str(decimal_from_micro(sum(use.drawn_micro for use in uses))) for key, uses in used.items()}


async def totals(database: Database, period_id: int) -> dict[str, object]:
    async with database.reading(OPERATOR_ID) as connection:
        row = await connection.execute(
            text("SELECT certificate->'totals' FROM period WHERE id = :id"), {"id": period_id}
        )
        stored = row.scalar_one()
    found: dict[str, object] = stored if isinstance(stored, dict) else json.loads(stored)
    return found


async def test_two_months(database: Database, at: Callable[[datetime], Clock]) -> None:
    example = await coalition(database)
    await march(example)
    closed = await close_period(database, at(noon(2017, 4, 1)), "2017-03", "close-1")
    assert not closed.replayed
    assert closed.period.state == "CLOSED"
    assert closed.period.certificate is not None
    assert [(check.number, check.holds) for check in closed.period.certificate.checks] == [
        (number, True) for number in NAMES
    ]
    a, b, c = (example.writer.partner_ids[code] for code in "ABC")
    assert await nets(database, MARCH) == {a: -107_800, b: -45_200, c: -3_250}
    assert await billed(database, MARCH, c) == {
        "ISSUE": (-222_216_000, 0, -22_222),
        "SERVICE_FEE": (-27_777_000, 0, -2_778),
        "REIMBURSEMENT": (237_500_000, 0, 23_750),
        "FIXED_FEE": (-20_000_000, 0, -2_000),
    }
    assert await billed(database, MARCH, a) == {
        "ISSUE": (-1_200_000_000, 0, -120_000),
        "SERVICE_FEE": (-120_000_000, 0, -12_000),
        "EARN_REVERSAL": (20_000_000, 0, 2_000),
        "SERVICE_FEE_REFUND": (2_000_000, 0, 200),
        "REIMBURSEMENT": (270_000_000, 0, 27_000),
        "FIXED_FEE": (-50_000_000, 0, -5_000),
    }
    assert await totals(database, MARCH) == {
        "operator_net": "1562.50",
        "tax": "0.000000",
        "member_receivable_change": "0.000000",
        "deposit_change": "0.000000",
        "pool_change": "1207.216000",
        "pool": "1207.216000",
        "margin": "355.284000",
        "fees": "293.777000",
        "spread": "61.500000",
        "breakage": "0.000000",
        "rounding": "0.007000",
        "subsidy": "0.000000",
        "adjustments": "0.000000",
        "outstanding_points": 116_518,
        "netting_efficiency_ppm": 424_175,
    }
    assert await budget_use(database, MARCH, a, b, c) == {a: "1298.000000", b: "468.000000", c: "249.993000"}
    await april(example)
    await close_period(database, at(noon(2017, 5, 1)), "2017-04", "close-2")
    assert await nets(database, APRIL) == {a: -67_923, b: -28_900, c: 5_360}
    assert await billed(database, APRIL, a) == {
        "ISSUE": (-1_026_130_200, 0, -102_613),
        "SERVICE_FEE": (-100_601_000, 0, -10_060),
        "EARN_REVERSAL": (25_000_000, 25_000_000, 2_500),
        "SERVICE_FEE_REFUND": (2_500_000, 2_500_000, 250),
        "REIMBURSEMENT": (450_000_000, 0, 45_000),
        "BREAKAGE_SHARE": (20_000_000, 0, 2_000),
        "FIXED_FEE": (-50_000_000, 0, -5_000),
    }
    assert await totals(database, APRIL) == {
        "operator_net": "914.63",
        "tax": "0.000000",
        "member_receivable_change": "0.000000",
        "deposit_change": "0.000000",
        "pool_change": "528.530200",
        "pool": "1735.746200",
        "margin": "386.099800",
        "fees": "257.201000",
        "spread": "90.900000",
        "breakage": "38.000000",
        "rounding": "-0.001200",
        "subsidy": "0.000000",
        "adjustments": "0.000000",
        "outstanding_points": 165_019,
        "netting_efficiency_ppm": 618_097,
    }
    assert await budget_use(database, APRIL, a, b, c) == {a: "1099.231200", b: "351.000000", c: "207.900000"}
    figures = await period_figures(database, [MARCH, APRIL])
    assert (figures[APRIL].operator_net_minor, figures[APRIL].pool_change_micro, figures[APRIL].margin_micro) == (
        91_463,
        528_530_200,
        386_099_800,
    )
    shortfall = (await statements_of_periods(database, OPERATOR_ID, [APRIL]))[APRIL][0]
    assert (shortfall.partner_id, shortfall.shortfall_points, shortfall.shortfall_value_micro) == (a, 500, 5_000_000)
    report = await verify(database, at(noon(2017, 5, 2)))
    assert report.holds, [check for check in report.checks if not check.holds]
    assert report.closed_labels == ("2017-03", "2017-04")


BOOKS_SQL = text(
    "SELECT book, sum(amount)::bigint FROM ledger_entry WHERE unit = 'MONEY' AND book <> 'PARTNER' GROUP BY book"
)
UNBALANCED_SQL = text(
    """
    SELECT transaction_id, partner_entry_id, unit FROM ledger_entry
     GROUP BY transaction_id, partner_entry_id, unit HAVING sum(amount) <> 0
    """
)


async def test_every_row_balances_as_double_entry_and_the_books_are_the_margin(
    database: Database, at: Callable[[datetime], Clock]
) -> None:
    example = await coalition(database)
    await march(example)
    await april(example)
    gift = await example.writer.earn("A", 1_000, noon(2017, 4, 12), by_operator=True)
    await example.writer.take_back(gift, 100, noon(2017, 4, 13))
    await example.writer.expire(gift.lot, 200, noon(2017, 4, 14))
    await close_period(database, at(noon(2017, 4, 1)), "2017-03", "close-1")
    await close_period(database, at(noon(2017, 5, 1)), "2017-04", "close-2")
    async with database.reading(OPERATOR_ID) as connection:
        kinds = (await connection.execute(text("SELECT count(DISTINCT kind) FROM ledger_entry"))).scalar_one()
        assert kinds == 7  # five movements, the fixed fee, rounding
        assert (await connection.execute(UNBALANCED_SQL)).all() == []
        books = {row[0]: row[1] for row in await connection.execute(BOOKS_SQL)}
    assert books == {
        "FEES": 293_777_000 + 257_201_000,
        "SPREAD": 61_500_000 + 90_900_000,
        "BREAKAGE": 38_000_000,
        "ROUNDING": 7_000 - 1_200,
        "POOL": 1_735_746_200 + 700 * 10_200,
        "SUBSIDY": -700 * 10_200,
    }
