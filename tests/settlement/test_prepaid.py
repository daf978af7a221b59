"""Prepaid floats in the month end: what was paid in before is not paid again, to the micro-unit."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import RefusalCode, Refused
from domain.ledger import HASHED_PARTNER_ENTRY_COLUMNS, row_hash_sql
from domain.positions import LineKind
from domain.values import OPERATOR_ID
from settlement import closing
from settlement.closing import close_period
from settlement.prior_periods import PriorPart, prior_periods_of_statements
from settlement.reading import PeriodFigures, period_figures
from tests.domain.books import check_books
from tests.domain.conftest import OpenTill, open_till
from tests.domain.floats import failing, paid_in, prepaid
from tests.domain.tills import APRIL, MARCH, Till

__all__ = ["open_till"]

Tamper = Callable[[str], Awaitable[None]]

LINES = """
    SELECT l.kind, l.entries, l.points, l.exact_micro, l.prior_exact_micro, l.billed_minor FROM statement_line AS l
      JOIN partner AS p ON p.id = l.partner_id WHERE l.period_id = :id AND p.code = 'grocer' ORDER BY l.kind
"""
DUE = """
    SELECT s.net_minor, s.due_minor FROM statement AS s JOIN partner AS p ON p.id = s.partner_id
     WHERE s.period_id = :id AND p.code = 'grocer'
"""
BOOKS = """
    SELECT book, sum(amount)::bigint FROM ledger_entry
     WHERE unit = 'MONEY' GROUP BY 1 HAVING sum(amount) <> 0 ORDER BY 1
"""
FLOAT_USED = "SELECT period_id, line_kind, amount_micro FROM partner_entry WHERE kind = 'FLOAT_USED' ORDER BY 1, 2"


async def closed(till: Till, *labels: str) -> dict[int, str]:
    """Closes periods; answers what the certificate of the last one says of each invariant, all of which hold."""
    *_, last = [await close_period(till.database, till.clock, label, f"close-{label}") for label in labels]
    certificate = last.period.certificate
    assert certificate is not None
    assert all(check.holds for check in certificate.checks)
    return {check.number: check.detail for check in certificate.checks}


async def march(till: Till) -> dict[int, str]:
    """Closes until March."""
    till.clock.to(2017, 4, 3)
    return await closed(till, "2017-01", "2017-02", "2017-03")


async def paid_and_awarded(open_till: OpenTill, **budget: Any) -> Till:
    """11.00 paid in, and 600 points awarded, which cost 6.60 with their fees."""
    till = await open_till(prepaid(**budget))
    await paid_in(till, "11.00")
    await till.accept(till.purchase("k1", "600.00"))
    return till


async def test_what_was_paid_in_is_not_paid_again(open_till: OpenTill) -> None:
    till = await paid_and_awarded(open_till)
    # As the fixed fee, the credit is booked when the close begins: a draft has the charges alone.
    drafts = await period_figures(till.database, [MARCH])
    assert drafts == {MARCH: PeriodFigures(660, 6_000_000, 600_000, 0, 0, 0, is_draft=True)}

    said = await march(till)

    assert await till.rows(LINES, id=MARCH) == [
        ("ISSUE", 1, 600, -6_000_000, 0, -600),
        ("PREPAID", 1, None, 6_600_000, 0, 660),
        ("SERVICE_FEE", 1, 600, -600_000, 0, -60),
    ]
    assert await till.rows(DUE, id=MARCH) == [(0, 0)]
    assert await till.rows(BOOKS) == [
        ("BANK", -11_000_000),
        ("DEPOSIT", 4_400_000),
        ("FEES", 600_000),
        ("POOL", 6_000_000),
    ]
    figures = {MARCH: PeriodFigures(0, 6_000_000, 600_000, 0, 0, -6_600_000, is_draft=False)}
    assert await period_figures(till.database, [MARCH]) == figures
    assert said[6] == "operator net 0.000000 = pool change 6.000000 + margin 0.600000 + deposit change -6.600000"
    [(totals,)] = await till.rows("SELECT certificate -> 'totals' FROM period WHERE id = :id", id=MARCH)
    assert totals["deposit_change"] == "-6.600000"
    assert await failing(till) == {}
    await check_books(till.database)


async def test_a_return_of_an_earlier_period_goes_back_into_the_deposit(open_till: OpenTill) -> None:
    till = await paid_and_awarded(open_till)
    await march(till)
    await till.accept(till.reversal("v1", "k1", amount="200.00"))
    await till.accept(till.purchase("k2", "100.00"))
    till.clock.to(2017, 5, 3)

    said = await closed(till, "2017-04")

    # 2.20 of March go back into the deposit, and are no credit in cash; 1.10 come out of it again.
    assert await till.rows(LINES, id=APRIL) == [
        ("EARN_REVERSAL", 1, 200, 2_000_000, 2_000_000, 200),
        ("ISSUE", 1, 100, -1_000_000, 0, -100),
        ("PREPAID", 2, None, -1_100_000, -2_200_000, -110),
        ("SERVICE_FEE", 1, 100, -100_000, 0, -10),
        ("SERVICE_FEE_REFUND", 1, 200, 200_000, 200_000, 20),
    ]
    assert await till.rows(DUE, id=APRIL) == [(0, 0)]
    assert await till.rows(FLOAT_USED) == [
        (MARCH, None, 6_600_000),
        (APRIL, "PREPAID", -2_200_000),
        (APRIL, None, 1_100_000),
    ]
    assert dict(await till.rows(BOOKS))["DEPOSIT"] == 5_500_000
    assert said[6] == "operator net 0.000000 = pool change -1.000000 + margin -0.100000 + deposit change 1.100000"
    grocer = till.id_of("grocer")
    for viewer in (OPERATOR_ID, grocer):
        parts = await prior_periods_of_statements(till.database, viewer, [(APRIL, grocer)])
        assert [part for part in parts[(APRIL, grocer)] if part.kind == LineKind.PREPAID] == [
            PriorPart(LineKind.PREPAID, MARCH, -2_200_000)
        ]
    assert await failing(till) == {}
    await check_books(till.database)


async def test_what_a_float_opened_with_is_charged(open_till: OpenTill) -> None:
    till = await paid_and_awarded(open_till, limit="3.30")
    await march(till)

    assert ("PREPAID", 1, None, 3_300_000, 0, 330) in await till.rows(LINES, id=MARCH)
    assert await till.rows(DUE, id=MARCH) == [(-330, -330)]
    assert dict(await till.rows(BOOKS)) == {
        "BANK": -11_000_000,
        "DEPOSIT": 7_700_000,
        "FEES": 600_000,
        "PARTNER": -3_300_000,
        "POOL": 6_000_000,
    }
    # What goes back first is what was paid in, the last block; then what it opened with, of which nothing was credited.
    await till.accept(till.reversal("v1", "k1", amount="500.00"))
    till.clock.to(2017, 5, 3)
    await closed(till, "2017-04")
    assert ("PREPAID", 1, None, -3_300_000, -3_300_000, -330) in await till.rows(LINES, id=APRIL)
    assert await till.rows(DUE, id=APRIL) == [(220, 220)]
    assert dict(await till.rows(BOOKS))["DEPOSIT"] == 11_000_000
    assert await failing(till) == {}


async def test_a_period_that_draws_nothing_has_no_such_line(open_till: OpenTill) -> None:
    till = await paid_and_awarded(open_till)
    await till.accept(till.reversal("v1", "k1"))
    await march(till)

    kinds = [kind for kind, *_ in await till.rows(LINES, id=MARCH)]
    assert kinds == ["EARN_REVERSAL", "ISSUE", "SERVICE_FEE", "SERVICE_FEE_REFUND"]
    assert await till.rows(FLOAT_USED) == []
    assert dict(await till.rows(BOOKS)) == {"BANK": -11_000_000, "DEPOSIT": 11_000_000}
    assert await failing(till) == {}


async def test_periods_closed_before_there_was_such_a_line_are_credited_once(open_till: OpenTill) -> None:
    till = await paid_and_awarded(open_till)
    async with till.database.posting() as connection:
        await connection.execute(text(f"UPDATE period SET credits_floats = false WHERE id = {MARCH}"))
    await march(till)
    # As it was: charged in cash, though it had been paid before.
    assert await till.rows(DUE, id=MARCH) == [(-660, -660)]
    assert await till.rows(FLOAT_USED) == []

    await till.accept(till.reversal("v1", "k1", amount="200.00"))
    await till.accept(till.purchase("k2", "100.00"))
    till.clock.to(2017, 5, 3)
    await closed(till, "2017-04")
    # 6.60 of March, less the 2.20 that came back since, and 1.10 of April.
    assert ("PREPAID", 2, None, 5_500_000, 4_400_000, 550) in await till.rows(LINES, id=APRIL)
    assert await till.rows(DUE, id=APRIL) == [(660, 660)]
    assert await till.rows(FLOAT_USED) == [(APRIL, "PREPAID", 4_400_000), (APRIL, None, 1_100_000)]
    assert dict(await till.rows(BOOKS))["DEPOSIT"] == 5_500_000
    parts = await prior_periods_of_statements(till.database, OPERATOR_ID, [(APRIL, till.id_of("grocer"))])
    assert {part.kind: (part.period_id, part.exact_micro) for found in parts.values() for part in found} == {
        LineKind.EARN_REVERSAL: (MARCH, 2_000_000),
        LineKind.SERVICE_FEE_REFUND: (MARCH, 200_000),
        LineKind.PREPAID: (MARCH, 4_400_000),
    }
    assert await failing(till) == {}

    # Once; what comes back of March from then on is taken back as of any other period.
    await till.accept(till.reversal("v2", "k1", amount="100.00"))
    till.clock.to(2017, 6, 3)
    await closed(till, "2017-05")
    assert ("PREPAID", 1, None, -1_100_000, -1_100_000, -110) in await till.rows(LINES, id=APRIL + 1)
    assert await till.rows(DUE, id=APRIL + 1) == [(0, 0)]
    assert await failing(till) == {}
    await check_books(till.database)


async def test_a_close_that_credits_nothing_is_found(open_till: OpenTill, monkeypatch: pytest.MonkeyPatch) -> None:
    till = await paid_and_awarded(open_till)

    async def nothing(*_given: AsyncConnection | object) -> None:
        pass

    monkeypatch.setattr(closing, "credit_floats", nothing)
    with pytest.raises(Refused) as refused:
        await march(till)
    assert refused.value.code == RefusalCode.AUDIT_FAILED
    assert "partner 1: FLOAT_USED of 0 micro-units, its movements drew 6600000 on paid blocks" in refused.value.message


REHASH = f"UPDATE partner_entry AS e SET row_hash = {row_hash_sql(HASHED_PARTNER_ENTRY_COLUMNS, 'e')}"
FORGED = """
    INSERT INTO partner_entry (id, period_id, partner_id, kind, amount_micro, recorded_at, row_hash)
    SELECT 1, {period_id}, {partner_id}, 'FLOAT_USED', 5, recorded_at, 0 FROM partner_entry LIMIT 1
"""
BROKEN: dict[str, tuple[list[str], set[int], str]] = {
    "the entry is gone": (
        ["DELETE FROM partner_entry WHERE kind = 'FLOAT_USED'"],
        {1, 6, 8, 9, 11, 15},
        "partner 1: FLOAT_USED of 0 micro-units, its movements drew 6600000 on paid blocks",
    ),
    "the entry is another amount": (
        ["UPDATE partner_entry SET amount_micro = 6600001 WHERE kind = 'FLOAT_USED'", REHASH],
        {1, 6, 8, 9, 11, 15},
        "partner 1: FLOAT_USED of 6600001 micro-units, its movements drew 6600000 on paid blocks",
    ),
    "the entry claims to be of an earlier period": (
        ["UPDATE partner_entry SET line_kind = 'PREPAID' WHERE kind = 'FLOAT_USED'", REHASH],
        {8, 9, 11, 15},
        "partner 1: FLOAT_USED for earlier periods of 6600000 micro-units, its movements drew 0 on paid blocks",
    ),
    "another partner has one": (
        [FORGED.format(period_id=MARCH, partner_id=2), REHASH],
        {1, 6, 8, 9, 11},
        "period 2017-03, partner 2: FLOAT_USED of 5 micro-units, its movements drew 0 on paid blocks",
    ),
    "an open period has one": (
        [FORGED.format(period_id=APRIL, partner_id=1), REHASH],
        {1, 6, 9, 11},
        "period 2017-04, partner 1: FLOAT_USED of 5 micro-units, its movements drew 0 on paid blocks",
    ),
    "the period claims another change": (
        ["UPDATE period SET deposit_change_micro = 0 WHERE label = '2017-03'"],
        {6},
        "stored deposit change 0 instead of -6600000",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_credit_is_found_and_named(open_till: OpenTill, tamper: Tamper, name: str) -> None:
    statements, numbers, place = BROKEN[name]
    till = await paid_and_awarded(open_till)
    await march(till)
    await till.accept(till.purchase("k2", "100.00"))
    assert await failing(till) == {}
    for sql in statements:
        await tamper(sql)
    failed = await failing(till)
    assert set(failed) == numbers, failed
    assert place in " ".join(failed.values()), failed
