"""A changed budget and the windows that it has: their limits, their alerts, and the plan they belong to."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from sqlalchemy import text

from domain.commands import Amount, Posted
from domain.database import Database
from domain.terms import Configuration
from partners.apply import apply_coalition
from partners.coalition_file import parse_coalition
from settlement.top_ups import TopUp, top_up_budget
from tests.factories import COALITION_TOML, MID_MARCH, a_purchase, an_enrolment, apply_toml, fixed_clock, open_till
from tests.partners.helpers import changed, refusal, sold

MID_APRIL = datetime(2017, 4, 15, 12, tzinfo=UTC)
MONTHLY_BUDGET = """
[[partner.budget]]
from = {day}
every = "month"
limit = "{limit}"
on_limit = "PARTIAL"
alert_at = "0.80"
"""
GROCER_RULE = '[[partner.earn_rule]]\ncode = "base"'
BELOW = "budget of grocer from {}: limit {} is below the {} consumed and reserved in its window {}:"
RAISE_IT = " raise it, or give the new limit a budget with a later `from`"
NEW_KIND = " `every` and `to` need a budget with a new `from`"
Row = tuple[date, int, int, int, int, datetime | None]


async def windows(database: Database) -> list[Row]:
    """Start of the plan, period (of the year, 0: single), limit, overdraft, consumed in micro-units, alert."""
    async with database.posting() as connection:
        return [
            tuple(row)
            for row in await connection.execute(
                text(
                    "SELECT lower(o.valid), b.period_id % 12 + CASE b.period_id WHEN 0 THEN 0 ELSE 1 END,"
                    " b.limit_micro, b.overdraft_micro, b.consumed_micro, b.alerted_at"
                    " FROM budget AS b JOIN budget_plan AS o ON o.id = b.plan_id ORDER BY b.partner_id, b.period_id"
                )
            )
        ]


def with_budget(day: str, limit: str) -> str:
    """The worked example with another budget of the grocer after its first."""
    return changed((GROCER_RULE, MONTHLY_BUDGET.format(day=day, limit=limit) + GROCER_RULE))


async def set_state(database: Database, label: str, state: str) -> None:
    async with database.posting() as connection:
        await connection.execute(
            text("UPDATE period SET state = :state WHERE label = :label"), {"state": state, "label": label}
        )


async def sell_more(database: Database, configuration: Configuration, key: str, at: datetime = MID_MARCH) -> Posted:
    async with open_till(database, at) as till:
        posted = await till.post(a_purchase(configuration, key, occurred_at=at))
    assert isinstance(posted, Posted)
    return posted


async def test_a_limit_reaches_the_window_that_is_open(database: Database) -> None:
    # 100 points at 0.011 each.
    await sold(database)
    january = date(2017, 1, 1)
    assert await windows(database) == [(january, 3, 1_500_000_000, 0, 1_100_000, None)]

    configuration = await apply_toml(database, changed(('limit = "1500.00"', 'limit = "2.00"')))

    assert await windows(database) == [(january, 3, 2_000_000, 0, 1_100_000, None)]
    assert (await sell_more(database, configuration, "second")).points == 81


async def test_an_overdraft_reaches_the_window_too(database: Database) -> None:
    usual = 'limit = "1500.00"\non_limit = "PARTIAL"'
    overdrawn = 'limit = "{}"\non_limit = "OVERDRAFT"\napproved_overdraft = "{}"'
    first = await apply_toml(database, changed((usual, overdrawn.format("1500.00", "2.00"))))
    async with open_till(database) as till:
        await till.post(an_enrolment(first))
    await sell_more(database, first, "first")

    configuration = await apply_toml(database, changed((usual, overdrawn.format("1.00", "1.20"))))

    assert await windows(database) == [(date(2017, 1, 1), 3, 1_000_000, 1_200_000, 1_100_000, MID_MARCH)]
    assert (await sell_more(database, configuration, "second")).points == 100


async def test_a_limit_never_falls_below_what_was_consumed(database: Database) -> None:
    await sold(database)

    assert await refusal(database, changed(('limit = "1500.00"', 'limit = "1.09"'))) == [
        BELOW.format("2017-01-01", "1.09", "1.1", "2017-03") + RAISE_IT
    ]
    await apply_toml(database, changed(('limit = "1500.00"', 'limit = "1.10"')))
    assert await windows(database) == [(date(2017, 1, 1), 3, 1_100_000, 0, 1_100_000, MID_MARCH)]


@pytest.mark.parametrize(
    ("limit", "alert_at", "alerted"),
    [("1.37", "0.80", True), ("1.38", "0.80", False), ("1500.00", "0", True), ("2.00", "0.55", True)],
)
async def test_the_alert_follows_the_new_threshold(
    database: Database, limit: str, alert_at: str, alerted: bool
) -> None:
    await sold(database)
    toml = changed(('limit = "1500.00"', f'limit = "{limit}"'), ('alert_at = "0.80"', f'alert_at = "{alert_at}"'))

    await apply_coalition(database, parse_coalition(toml), clock=fixed_clock(MID_APRIL))

    assert [row[-1] for row in await windows(database)] == [MID_APRIL if alerted else None]


async def test_an_alert_keeps_its_time_and_ends_with_the_threshold(database: Database) -> None:
    await sold(database)
    tight = changed(('limit = "1500.00"', 'limit = "1.20"'))
    await apply_toml(database, tight)

    file = parse_coalition(tight.replace('limit = "1.20"', 'limit = "1.25"'))
    await apply_coalition(database, file, clock=fixed_clock(MID_APRIL))
    kept = await windows(database)
    await apply_toml(database, changed(('limit = "1500.00"', 'limit = "1.20"'), ('alert_at = "0.80"\n', "")))

    assert [row[-1] for row in kept] == [MID_MARCH]
    assert [row[-1] for row in await windows(database)] == [None]


async def test_the_window_of_a_closed_period_stays_as_it_is(database: Database) -> None:
    await sold(database)
    configuration = await apply_toml(database)
    await sell_more(database, configuration, "april", MID_APRIL)
    await set_state(database, "2017-03", "CLOSING")

    await apply_toml(database, changed(('limit = "1500.00"', 'limit = "1.20"')))

    january = date(2017, 1, 1)
    assert await windows(database) == [
        (january, 3, 1_500_000_000, 0, 1_100_000, None),
        (january, 4, 1_200_000, 0, 1_120_000, MID_MARCH),
    ]
    assert await refusal(database, changed(('limit = "1500.00"', 'limit = "1.11"'))) == [
        BELOW.format("2017-01-01", "1.11", "1.12", "2017-04") + RAISE_IT
    ]


async def test_a_new_budget_takes_over_the_open_window_of_its_period(database: Database) -> None:
    await sold(database)

    configuration = await apply_toml(database, with_budget("2017-03-01", "2.00"))

    march = date(2017, 3, 1)
    assert [(plan.starts, plan.ends) for plan in configuration.budget_plans[1]] == [
        (date(2017, 1, 1), march),
        (march, None),
    ]
    assert await windows(database) == [(march, 3, 2_000_000, 0, 1_100_000, None)]
    assert (await sell_more(database, configuration, "second")).points == 81
    assert await windows(database) == [(march, 3, 2_000_000, 0, 1_991_000, MID_MARCH)]


async def test_a_new_budget_is_no_way_around_what_was_consumed(database: Database) -> None:
    await sold(database)

    assert await refusal(database, with_budget("2017-03-01", "1.00")) == [
        BELOW.format("2017-01-01", "1", "1.1", "2017-03") + RAISE_IT
    ]


async def test_a_new_budget_cannot_take_over_a_closed_window(database: Database) -> None:
    await sold(database)
    await set_state(database, "2017-03", "CLOSING")

    assert await refusal(database, with_budget("2017-03-01", "2000")) == [
        "budget of grocer from 2017-01-01: its window 2017-03 is closed: the next budget must start later"
    ]
    await apply_toml(database, with_budget("2017-04-01", "2000"))
    assert await windows(database) == [(date(2017, 1, 1), 3, 1_500_000_000, 0, 1_100_000, None)]


async def test_a_window_keeps_its_kind_and_its_cover(database: Database) -> None:
    await sold(database)
    single = changed(('from = 2017-01-01\nevery = "month"', "from = 2017-01-01\nto = 2017-12-31"))
    uncovered = changed((GROCER_RULE, MONTHLY_BUDGET.format(day="2017-03-01", limit="9") + GROCER_RULE))
    uncovered = uncovered.replace('from = 2017-03-01\nevery = "month"', "from = 2017-03-01\nto = 2017-03-31")

    assert await refusal(database, single) == [
        "budget of grocer from 2017-01-01: its window 2017-03 was used:" + NEW_KIND
    ]
    assert await refusal(database, uncovered) == [
        "budget of grocer from 2017-01-01: its window 2017-03 was used: a budget per period must cover 2017-03-01"
    ]


async def test_a_single_budget_has_one_window_over_all_its_days(database: Database) -> None:
    single = changed(('from = 2017-01-01\nevery = "month"', "from = 2017-03-01\nto = 2017-04-30"))
    configuration = await apply_toml(database, single)
    async with open_till(database) as till:
        await till.post(an_enrolment(configuration))
    await sell_more(database, configuration, "march")
    await sell_more(database, configuration, "april", MID_APRIL)
    await set_state(database, "2017-03", "CLOSING")

    await apply_toml(database, single.replace('limit = "1500.00"', 'limit = "3.00"'))

    march = date(2017, 3, 1)
    assert await windows(database) == [(march, 0, 3_000_000, 0, 2_220_000, None)]
    assert await refusal(database, single.replace('limit = "1500.00"', 'limit = "2.21"')) == [
        BELOW.format("2017-03-01", "2.21", "2.22", "from 2017-03-01") + RAISE_IT
    ]


async def test_other_partners_windows_are_left_alone(database: Database) -> None:
    await sold(database)
    await sold(database, partner="fuel", key="fuel")
    before = await windows(database)

    await apply_toml(database, COALITION_TOML.replace('limit = "600.00"', 'limit = "700.00"'))

    assert await windows(database) == [before[0], (date(2017, 1, 1), 3, 700_000_000, 0, 1_170_000, None)]


FLOAT = (('every = "month"\n', ""), ('funding = "POSTPAID"', 'funding = "PREPAID"'))


async def test_a_float_keeps_what_was_paid_in_whatever_the_file_changes(database: Database) -> None:
    configuration = await apply_toml(database, changed(*FLOAT, ('limit = "1500.00"', 'limit = "1.10"')))
    async with open_till(database) as till:
        await till.post(an_enrolment(configuration))
        assert isinstance(await till.post(a_purchase(configuration, "k")), Posted)
    payment = TopUp("top", configuration.partners_by_code["grocer"].id, Amount(Decimal("1.10"), "EUR"), MID_MARCH)
    await top_up_budget(database, fixed_clock(), payment)
    single, grocer = date(2017, 1, 1), (FLOAT[0], FLOAT[1], ('limit = "1500.00"', 'limit = "1.10"'))
    assert await windows(database) == [(single, 0, 2_200_000, 0, 1_100_000, None)]

    await apply_toml(database, changed(*grocer, ('alert_at = "0.80"', 'alert_at = "0.50"')))

    assert await windows(database) == [(single, 0, 2_200_000, 0, 1_100_000, MID_MARCH)]
    prefix = "budget of grocer from 2017-01-01: its "
    assert await refusal(database, changed(*grocer, ('limit = "1.10"', 'limit = "5.00"'))) == [
        prefix + "float opened with 1.1, which `limit` cannot change: top it up instead"
    ]
    assert await refusal(database, COALITION_TOML) == [
        prefix + "window from 2017-01-01 was used: `funding` needs a budget with a new `from`"
    ]


async def test_a_credit_does_not_become_a_float(database: Database) -> None:
    await sold(database)
    assert await refusal(database, changed(*FLOAT)) == [
        "budget of grocer from 2017-01-01: its window 2017-03 was used: `funding` needs a budget with a new `from`"
    ]
