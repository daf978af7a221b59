"""What is read of periods and statements: drafts before the close, the same after it, and each viewer its own."""

from collections.abc import Callable
from datetime import datetime

from domain.database import Database
from domain.periods import Clock
from domain.positions import LineKind
from domain.values import OPERATOR_ID
from settlement.budget_uses import budgets_of_statements
from settlement.closing import close_period
from settlement.reading import (
    StatementLine,
    current_period,
    lines_of_statements,
    period_by_id,
    period_by_label,
    period_figures,
    periods_page,
    statements_of_periods,
)
from tests.settlement.rows import noon
from tests.settlement.worked_example import Example, april

MARCH, APRIL = 2017 * 12 + 2, 2017 * 12 + 3
At = Callable[[datetime], Clock]
FIXED_FEES_MINOR = {1: -5_000, 2: -3_000, 3: -2_000}


async def lines(database: Database, viewer_id: int) -> dict[tuple[int, int], list[StatementLine]]:
    keys = [(MARCH, partner_id) for partner_id in (1, 2, 3)]
    return await lines_of_statements(database, viewer_id, keys)


async def test_a_draft_is_the_statement_without_the_fee_that_is_not_booked_yet(
    database: Database, at: At, booked_march: Example
) -> None:
    drafts = (await statements_of_periods(database, OPERATOR_ID, [MARCH, APRIL]))[MARCH]
    draft_lines = await lines(database, OPERATOR_ID)
    (figures,) = (await period_figures(database, [MARCH])).values()
    assert all(draft.is_draft for draft in drafts)
    assert figures.is_draft
    await close_period(database, at(noon(2017, 4, 1)), "2017-03", "key")
    statements = (await statements_of_periods(database, OPERATOR_ID, [MARCH]))[MARCH]
    assert [draft.net_minor + FIXED_FEES_MINOR[draft.partner_id] for draft in drafts] == [
        statement.net_minor for statement in statements
    ]
    final = await lines(database, OPERATOR_ID)
    assert {
        key: [line for line in found if line.kind != LineKind.FIXED_FEE] for key, found in final.items()
    } == draft_lines
    (closed_figures,) = (await period_figures(database, [MARCH])).values()
    assert figures.pool_change_micro == closed_figures.pool_change_micro
    assert figures.margin_micro + 100_000_000 == closed_figures.margin_micro
    assert figures.operator_net_minor + 10_000 == closed_figures.operator_net_minor
    assert not closed_figures.is_draft


async def test_a_draft_shows_the_shortfall(database: Database, booked_march: Example) -> None:
    await april(booked_march)
    drafts = (await statements_of_periods(database, OPERATOR_ID, [APRIL]))[APRIL]
    assert [(draft.shortfall_points, draft.shortfall_value_micro) for draft in drafts] == [
        (500, 5_000_000),
        (0, 0),
        (0, 0),
    ]


async def test_a_partner_reads_its_own_alone(database: Database, at: At, booked_march: Example) -> None:
    for is_closed in (False, True):
        if is_closed:
            await close_period(database, at(noon(2017, 4, 1)), "2017-03", "key")
        statements = await statements_of_periods(database, 2, [MARCH])
        assert [one.partner_id for one in statements[MARCH]] == [2]
        found = await lines(database, 2)
        assert [bool(found[(MARCH, partner_id)]) for partner_id in (1, 2, 3)] == [False, True, False]
        used = await budgets_of_statements(database, 2, [(MARCH, 1), (MARCH, 2)])
        assert [(use.window, use.drawn_micro, use.limit_micro) for use in used[(MARCH, 2)]] == [
            ("2017-03", 468_000_000, 600_000_000)
        ]
        assert used[(MARCH, 1)] == []
    seen_by_operator = await period_by_label(database, OPERATOR_ID, "2017-03")
    seen_by_partner = await period_by_label(database, 2, "2017-03")
    assert seen_by_operator is not None
    assert seen_by_partner is not None
    assert seen_by_operator.certificate is not None
    assert seen_by_partner.certificate is not None
    assert seen_by_partner.certificate.sha256 == seen_by_operator.certificate.sha256
    assert {check.detail for check in seen_by_partner.certificate.checks} == {""}
    assert "pool 1207.216000" in {check.detail for check in seen_by_operator.certificate.checks}


async def test_periods_are_found_by_label_id_and_time_and_paged_latest_first(
    database: Database, at: At, booked_march: Example
) -> None:
    await april(booked_march)
    march = await period_by_label(database, OPERATOR_ID, "2017-03")
    assert march is not None
    assert (march.id, march.state, march.certificate) == (MARCH, "OPEN", None)
    assert await period_by_id(database, OPERATOR_ID, MARCH) == march
    assert await current_period(database, OPERATOR_ID, at(noon(2017, 3, 31))) == march
    assert await current_period(database, OPERATOR_ID, at(noon(2017, 5, 31))) is None
    assert await period_by_label(database, OPERATOR_ID, "2017-05") is None
    assert [period.label for period in await periods_page(database, 1, 10)] == ["2017-04", "2017-03"]
    assert [period.label for period in await periods_page(database, 1, 1)] == ["2017-04"]
    assert [period.label for period in await periods_page(database, 1, 1, APRIL)] == ["2017-03"]


async def test_nothing_is_read_of_what_does_not_exist(database: Database, at: At) -> None:
    assert await current_period(database, OPERATOR_ID, at(noon(2017, 3, 31))) is None
    assert await statements_of_periods(database, OPERATOR_ID, [MARCH]) == {MARCH: []}
    (figures,) = (await period_figures(database, [MARCH])).values()
    assert (figures.operator_net_minor, figures.pool_change_micro, figures.margin_micro) == (0, 0, 0)
