"""Half months and weeks: what is booked, which budget window pays, and the close, across borders of the calendar."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from domain.commands import Posted
from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.values import OPERATOR_ID
from settlement.closing import close_period
from settlement.reading import current_period, statements_of_periods
from settlement.verifying import verify
from tests.factories import COALITION_TOML, a_purchase, an_enrolment, apply_toml, fixed_clock, open_till

LAST_INSTANT = timedelta(microseconds=1)


def divided(kind: str, first_day: str) -> str:
    """The worked example, with periods of that kind and everything from that day on."""
    return COALITION_TOML.replace('"month"', f'"{kind}"').replace("2017-01-01", first_day)


async def windows(database: Database) -> list[tuple[str, int]]:
    async with database.posting() as connection:
        found = await connection.execute(
            text(
                "SELECT p.label, b.consumed_micro FROM budget AS b JOIN period AS p ON p.id = b.period_id ORDER BY b.id"
            )
        )
        return [(row.label, row.consumed_micro) for row in found]


@pytest.mark.parametrize(
    ("kind", "first_day", "border", "before", "after"),
    [
        # Summer time begins on the week's last day.
        ("week", "2017-03-20", datetime(2017, 3, 26, 22, tzinfo=UTC), "2017-W12", "2017-W13"),
        ("half_month", "2017-03-01", datetime(2017, 3, 15, 23, tzinfo=UTC), "2017-03-H1", "2017-03-H2"),
        ("half_month", "2017-03-16", datetime(2017, 3, 31, 22, tzinfo=UTC), "2017-03-H2", "2017-04-H1"),
        ("month", "2017-03-01", datetime(2017, 3, 31, 22, tzinfo=UTC), "2017-03", "2017-04"),
    ],
)
async def test_either_side_of_the_border_has_its_own_window_and_statement(
    database: Database, kind: str, first_day: str, border: datetime, before: str, after: str
) -> None:
    configuration = await apply_toml(database, divided(kind, first_day))
    for number, instant in enumerate((border - LAST_INSTANT, border)):
        async with open_till(database, instant) as till:
            await till.post(an_enrolment(configuration, partner="restaurant"))
            posted = await till.post(
                a_purchase(
                    configuration, f"sale-{number}", partner="restaurant", amount="20000.00", occurred_at=instant
                )
            )
        assert isinstance(posted, Posted)
        assert posted.command.declined_points == 1_482  # 250.00 pays for 18,518 points, in each of the two
    assert await windows(database) == [(before, 249_993_000), (after, 249_993_000)]

    with pytest.raises(Refused) as early:
        await close_period(database, fixed_clock(border - LAST_INSTANT), before, "early")
    assert early.value.code == RefusalCode.PERIOD_NOT_ENDED
    with pytest.raises(Refused) as unordered:
        await close_period(database, fixed_clock(border + timedelta(days=40)), after, "unordered")
    assert unordered.value.code == RefusalCode.EARLIER_PERIOD_OPEN
    assert before in unordered.value.message
    closed = await close_period(database, fixed_clock(border), before, "first")
    assert (closed.period.label, closed.period.closes_at) == (before, border)
    statements = (await statements_of_periods(database, OPERATOR_ID, [closed.period.id]))[closed.period.id]
    # 18,518 points at 0.012 and 0.0015, the fixed fee of 20.00; the others their fixed fees alone.
    assert [one.net_minor for one in statements] == [-5_000, -3_000, -22_222 - 2_778 - 2_000]
    running = await current_period(database, OPERATOR_ID, fixed_clock(border))
    assert running is not None
    assert (running.label, running.opens_at) == (after, border)
    following = await close_period(database, fixed_clock(running.closes_at), after, "second")
    assert following.period.certificate is not None
    assert closed.period.certificate is not None
    assert following.period.certificate.previous == closed.period.certificate.sha256
    assert (await verify(database, fixed_clock(running.closes_at))).holds


@pytest.mark.parametrize("label", ["2017-03", "2017-03-H1", "2017-W60"])
async def test_a_label_of_another_calendar_names_no_period(database: Database, label: str) -> None:
    await apply_toml(database, divided("week", "2017-03-20"))
    with pytest.raises(Refused) as caught:
        await close_period(database, fixed_clock(), label, "key")
    assert caught.value.code == RefusalCode.PERIOD_NOT_FOUND
    assert caught.value.message == 'a period is named by its label, such as "2017-W10"'


async def test_no_period_is_closed_before_a_coalition_is_applied(database: Database) -> None:
    with pytest.raises(Refused) as caught:
        await close_period(database, fixed_clock(), "2017-03", "key")
    assert caught.value.code == RefusalCode.PERIOD_NOT_FOUND
