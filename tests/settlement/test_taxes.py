"""Tax on statement lines: computed on what is billed, booked with the close, and outside of the margin."""

from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from domain.database import Database
from domain.positions import Contribution, LineKind
from domain.values import OPERATOR_ID
from settlement.closing import close_period
from settlement.lines import Billing, TaxPart, settle
from settlement.reading import lines_of_statements, period_figures, statements_of_periods, taxes_of_statements
from settlement.verifying import verify
from tests.settlement.rows import noon
from tests.settlement.test_closing import At
from tests.settlement.worked_example import Example

Tamper = Callable[[str], Awaitable[None]]
MARCH = 2017 * 12 + 2
RATES = """
    INSERT INTO tax_rate (partner_id, code, valid, rate_ppm) VALUES
        (1, 'SERVICE_FEE', '[2017-01-01,2017-04-01)', 190000), (1, 'SERVICE_FEE', '[2017-04-01,)', 210000),
        (1, 'SERVICE_FEE_REFUND', '[2017-01-01,)', 190000), (1, 'FIXED_FEE', '[2017-03-31,)', 190000),
        (1, 'BREAKAGE_SHARE', '[2017-01-01,)', 190000), (2, 'SERVICE_FEE', '[2017-03-01,2017-03-31)', 190000),
        (3, 'ISSUE', '[2017-01-01,)', 0), (3, 'REIMBURSEMENT', '[2017-01-01,)', 77000)
"""


async def with_rates(database: Database) -> None:
    async with database.posting() as connection:
        await connection.execute(text(RATES))


async def test_tax_is_computed_on_what_is_billed_at_the_rates_of_the_last_day(
    database: Database, at: At, booked_march: Example
) -> None:
    await with_rates(database)
    drafts = {one.partner_id: one for one in (await statements_of_periods(database, 0, [MARCH]))[MARCH]}
    # The fixed fee is booked with the close: 19 % of -120.00 + 2.00 so far.
    assert drafts[1].net_minor == -102_800 - 2_280 + 38
    closed = await close_period(database, at(noon(2017, 4, 1)), "2017-03", "march")
    statements = {one.partner_id: one for one in (await statements_of_periods(database, 0, [MARCH]))[MARCH]}
    # A: 19 % of -120.00, +2.00 and -50.00; B: its rate ended a day early; C: 0 % of -222.22, 7.7 % of 237.50 = 18.2875.
    assert {partner_id: one.net_minor for partner_id, one in statements.items()} == {
        1: -107_800 - 2_280 + 38 - 950, 2: -45_200, 3: -3_250 + 1_829,
    }  # fmt: skip
    keys = [(MARCH, partner_id) for partner_id in (1, 2, 3)]
    assert list((await taxes_of_statements(database, OPERATOR_ID, keys)).values()) == [
        [
            TaxPart(LineKind.SERVICE_FEE, 190_000, -12_000, -2_280),
            TaxPart(LineKind.SERVICE_FEE_REFUND, 190_000, 200, 38),
            TaxPart(LineKind.FIXED_FEE, 190_000, -5_000, -950),
        ],
        [],
        [TaxPart(LineKind.ISSUE, 0, -22_222, 0), TaxPart(LineKind.REIMBURSEMENT, 77_000, 23_750, 1_829)],
    ]
    assert await taxes_of_statements(database, 2, keys[:1]) == {keys[0]: []}
    lines = {line.kind: line for line in (await lines_of_statements(database, OPERATOR_ID, keys))[keys[0]]}
    tax = lines[LineKind.TAX]
    assert (tax.entries, tax.points, tax.exact_micro, tax.billed_minor) == (3, None, -31_920_000, -3_192)
    figures = (await period_figures(database, [MARCH]))[MARCH]
    assert (figures.operator_net_minor, figures.tax_micro) == (156_250 + 3_192 - 1_829, 31_920_000 - 18_290_000)
    assert (figures.pool_change_micro, figures.margin_micro) == (1_207_216_000, 355_284_000)
    async with database.reading(OPERATOR_ID) as connection:
        entries = await connection.execute(
            text("SELECT book, sum(amount) FROM ledger_entry WHERE kind = 'TAX' GROUP BY 1 ORDER BY 1")
        )
        assert [(row[0], int(row[1])) for row in entries] == [("PARTNER", -13_630_000), ("TAX", 13_630_000)]
        stated = await connection.execute(text("SELECT certificate -> 'totals' ->> 'tax' FROM period"))
        assert stated.scalar() == "13.630000"
    assert closed.period.certificate is not None
    (check,) = [check for check in closed.period.certificate.checks if check.number == 6]
    assert check.detail == "operator net 1576.130000 = pool change 1207.216000 + margin 355.284000 + tax 13.630000"
    assert (await verify(database, at(noon(2017, 4, 1)))).holds


async def test_a_closed_statement_keeps_its_rates(database: Database, at: At, booked_march: Example) -> None:
    await with_rates(database)
    await close_period(database, at(noon(2017, 4, 1)), "2017-03", "march")
    async with database.posting() as connection:
        await connection.execute(text("DELETE FROM tax_rate WHERE partner_id = 3"))
        await connection.execute(text("UPDATE tax_rate SET rate_ppm = 500000 WHERE partner_id = 1"))
    assert (await verify(database, at(noon(2017, 4, 1)))).holds
    await close_period(database, at(noon(2017, 5, 1)), "2017-04", "april")
    nets = [one.net_minor for one in (await statements_of_periods(database, 0, [MARCH + 1]))[MARCH + 1]]
    assert nets == [-7_500, -3_000, -2_000]
    assert (await verify(database, at(noon(2017, 5, 1)))).holds


@pytest.mark.parametrize(
    ("change", "numbers", "says"),
    [
        (
            "UPDATE statement_tax SET tax_minor = 39 WHERE kind = 'SERVICE_FEE_REFUND'",
            {8},
            "statement of A for 2017-03, tax on SERVICE_FEE_REFUND",
        ),
        (
            "UPDATE statement_tax SET rate_ppm = 200000 WHERE kind = 'SERVICE_FEE'",
            {6, 8, 15},
            "statement of A for 2017-03",
        ),
        ("DELETE FROM statement_tax WHERE partner_id = 3", {6, 8, 15}, "statement of C for 2017-03"),
        (
            "UPDATE partner_entry SET amount_micro = -950 WHERE kind = 'TAX' AND line_kind = 'FIXED_FEE'",
            {8, 9, 16},
            "tax on FIXED_FEE: TAX has -0.000950, the line makes -9.500000",
        ),
        ("DELETE FROM partner_entry WHERE kind = 'TAX' AND line_kind = 'ISSUE'", {8}, "TAX has nothing"),
        ("UPDATE period SET tax_micro = 0", {6}, "stored tax 0 instead of 13630000"),
    ],
)
async def test_what_was_changed_after_the_close_is_named(
    database: Database, at: At, booked_march: Example, tamper: Tamper, change: str, numbers: set[int], says: str
) -> None:
    await with_rates(database)
    await close_period(database, at(noon(2017, 4, 1)), "2017-03", "march")
    await tamper(change)
    report = await verify(database, at(noon(2017, 4, 1)))
    failed = {check.number: check.detail for check in report.checks if not check.holds}
    assert set(failed) == numbers, failed
    assert any(says in detail for detail in failed.values()), failed


@given(
    amounts=st.dictionaries(
        st.tuples(st.integers(1, 4), st.sampled_from([LineKind.ISSUE, LineKind.SERVICE_FEE, LineKind.REIMBURSEMENT])),
        st.tuples(st.integers(-(10**12), 10**12), st.integers(0, 1_000_000)),
    ),
    minimum=st.integers(0, 10**6),
    carried=st.dictionaries(st.integers(1, 4), st.integers(-(10**6), 10**6)),
)
def test_net_tax_and_what_is_carried_add_up(
    amounts: dict[tuple[int, LineKind], tuple[int, int]], minimum: int, carried: dict[int, int]
) -> None:
    positions = {key: Contribution(*key, 1, 0, amount, 0, 0) for key, (amount, _) in amounts.items()}
    rates = {key: rate for key, (_, rate) in amounts.items()}
    plain = {one.partner_id: one for one in settle(positions, 2)}
    for one in settle(positions, 2, Billing(carried, minimum, rates)):
        without = plain[one.partner_id]
        assert one.net_minor == without.net_minor + one.tax_minor
        assert sum(tax.taxable_minor for tax in one.taxes) == without.net_minor
        assert sum(line.billed_minor for line in one.lines) == one.due_minor
        assert one.due_minor == one.net_minor + one.carried_in_minor - one.carried_on_minor
        assert one.carried_in_minor == carried.get(one.partner_id, 0)
        assert one.due_minor == 0 or (abs(one.due_minor) >= minimum and one.carried_on_minor == 0)
        assert abs(one.carried_on_minor) < max(minimum, 1)
        for tax in one.taxes:
            assert 2 * abs(tax.tax_minor * 1_000_000 - tax.taxable_minor * tax.rate_ppm) <= 1_000_000
