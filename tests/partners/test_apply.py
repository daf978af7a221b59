"""Applying a coalition file: what is written, and that the same file twice writes once."""

from datetime import date

from sqlalchemy import text

from domain.commands import Posted
from domain.database import Database
from domain.terms import BudgetPlan, EarnRule, Partner, Programme, Store, Terms
from partners.apply import apply_coalition, plan_coalition
from partners.coalition_file import parse_coalition
from tests.factories import (
    COALITION_TOML,
    a_burn,
    a_purchase,
    an_enrolment,
    apply_toml,
    fixed_clock,
    open_till,
)
from tests.partners.helpers import changed, everything, refusal, sold

JANUARY, APRIL = date(2017, 1, 1), date(2017, 4, 1)
NEW_PRICES = " new prices need new terms with a new `from`"
NEW_RULE = " a new rule needs a version with a new `from`"
LATER = " let them start on 2017-01-01 or later"
KEEP = ": keep it in the file, with a `to` or a later version"


async def test_the_worked_example_is_written(database: Database) -> None:
    configuration = await apply_toml(database)

    assert configuration.programme == Programme(
        "Harbour Coalition",
        "EUR",
        2,
        "Europe/Berlin",
        "DE",
        10_000,
        "month",
        "months",
        24,
        None,
        False,
        30,
        30,
        False,
        None,
        None,
        "own_lot_then_issuer",
        None,
        10_080,
        0,
        7,
        14,
        0,
        version=1,
    )
    assert configuration.partners == {
        1: Partner(1, "grocer", "Harvest Market", "supermarket", "ACTIVE", reference_unique=True),
        2: Partner(2, "fuel", "Beacon Fuel", "fuel station", "ACTIVE", reference_unique=True),
        3: Partner(3, "restaurant", "Pier Kitchen", "restaurant", "ACTIVE", reference_unique=True),
    }
    assert configuration.stores == {
        1: Store(1, 1, "s1", "Quay Street"),
        2: Store(2, 1, "s2", "Mill Road"),
        3: Store(3, 2, "ring", "Ring Road"),
        4: Store(4, 3, "pier", "Old Pier"),
    }
    assert configuration.terms == {
        1: (
            Terms(1, 1, JANUARY, APRIL, 10_000, 1_000, 9_000, 500_000, 50_000_000),
            Terms(2, 1, APRIL, None, 10_200, 1_000, 9_000, 500_000, 50_000_000),
        ),
        2: (Terms(3, 2, JANUARY, None, 10_500, 1_200, 9_200, 0, 30_000_000),),
        3: (Terms(4, 3, JANUARY, None, 12_000, 1_500, 9_500, 250_000, 20_000_000),),
    }
    policy = (0, "PARTIAL", "CREDIT_CURRENT", 800_000, "POSTPAID")
    assert configuration.budget_plans == {
        1: (BudgetPlan(1, 1, JANUARY, None, True, 1_500_000_000, *policy),),
        2: (BudgetPlan(2, 2, JANUARY, None, True, 600_000_000, *policy),),
        3: (BudgetPlan(3, 3, JANUARY, None, True, 250_000_000, *policy),),
    }
    assert configuration.earn_rules == {
        partner_id: (EarnRule(partner_id, partner_id, "base", JANUARY, None, 1_000_000, None, [], []),)
        for partner_id in (1, 2, 3)
    }


async def test_the_same_file_again_changes_nothing(database: Database) -> None:
    await apply_toml(database, changed(("points_per_unit", 'exclude_products = ["b", "a"]\npoints_per_unit')))
    before = await everything(database)
    file = parse_coalition(changed(("points_per_unit", 'exclude_products = ["a", "b"]\npoints_per_unit')))

    again = await apply_coalition(database, file, clock=fixed_clock())

    assert (again.version, again.plan.changes, again.plan.lines()) == (1, False, ["nothing to change"])
    assert again.plan.unchanged == 18
    assert await everything(database) == before


async def test_a_plan_writes_nothing_and_says_what_apply_then_does(database: Database) -> None:
    file = parse_coalition(COALITION_TOML)

    planned = await plan_coalition(database, file, clock=fixed_clock())

    assert await everything(database) == []
    assert planned == (await apply_coalition(database, file, clock=fixed_clock())).plan


async def test_every_kind_of_change_is_written_and_told(database: Database) -> None:
    await apply_toml(database)
    toml = changed(
        ('name = "Harbour Coalition"', 'name = "Harbour Club"'),
        ('name = "Harvest Market"', 'name = "Harvest Halls"\nstate = "SUSPENDED"\nreference_unique = false'),
        ('{ code = "s2", name = "Mill Road" }', '{ code = "s3", name = "Pier" }'),
        ("from = 2017-04-01", "from = 2017-05-01"),
        ('limit = "1500.00"', 'limit = "1800.00"'),
        ('points_per_unit = "1"', 'points_per_unit = "1.5"\nmax_points = 300'),
    )

    applied = await apply_coalition(database, parse_coalition(toml), clock=fixed_clock())

    assert applied.version == 2
    assert applied.plan.lines() == [
        "change programme: name Harbour Coalition → Harbour Club",
        (
            "change partner grocer: name Harvest Market → Harvest Halls, state ACTIVE → SUSPENDED,"
            " reference_unique true → false"
        ),
        "create store s3 of grocer: name Pier",
        "change terms of grocer from 2017-01-01: to 2017-03-31 → 2017-04-30",
        (
            "create terms of grocer from 2017-05-01: to open, issue_price 0.010200, service_fee 0.001000,"
            " reimbursement 0.009000, breakage_share 0.5, fixed_fee 50, pending_days 0"
        ),
        "delete terms of grocer from 2017-04-01: it is not in the file",
        "change budget of grocer from 2017-01-01: limit 1500 → 1800",
        "change earn rule base of grocer from 2017-01-01: points_per_unit 1 → 1.5, max_points none → 300",
        "11 unchanged",
    ]
    assert applied.plan.warnings == ["store s2 of grocer is not in the file: it stays as it is"]
    configuration = await apply_toml(database, toml)
    assert configuration.programme.version == 2
    assert configuration.programme.name == "Harbour Club"
    assert configuration.partners[1].state == "SUSPENDED"
    assert [store.code for store in configuration.stores.values()] == ["s1", "s2", "ring", "pier", "s3"]
    assert [(terms.starts, terms.ends) for terms in configuration.terms[1]] == [
        (JANUARY, date(2017, 5, 1)),
        (date(2017, 5, 1), None),
    ]
    assert configuration.budget_plans[1][0].limit_micro == 1_800_000_000
    assert (configuration.earn_rules[1][0].rate_micro, configuration.earn_rules[1][0].max_points) == (1_500_000, 300)


async def test_versions_move_without_ever_overlapping(database: Database) -> None:
    await apply_toml(database)
    shortened = changed(("from = 2017-04-01", "from = 2017-03-01"))
    one = COALITION_TOML.index("[[partner.terms]]\nfrom = 2017-04-01")
    joined = COALITION_TOML[:one] + COALITION_TOML[COALITION_TOML.index("[[partner.budget]]") :]
    closed = changed(("from = 2017-01-01\nissue", "from = 2017-01-01\nto = 2017-02-28\nissue"))

    ranges = [
        [(terms.starts, terms.ends) for terms in (await apply_toml(database, toml)).terms[1]]
        for toml in (shortened, joined, closed, COALITION_TOML)
    ]

    march = date(2017, 3, 1)
    assert ranges == [
        [(JANUARY, march), (march, None)],
        [(JANUARY, None)],
        [(JANUARY, march), (APRIL, None)],
        [(JANUARY, APRIL), (APRIL, None)],
    ]


async def test_a_partner_that_the_file_leaves_out_stays(database: Database) -> None:
    before = await apply_toml(database)
    alone = COALITION_TOML[: COALITION_TOML.index('[[partner]]\ncode = "fuel"')]

    applied = await apply_coalition(database, parse_coalition(alone), clock=fixed_clock())

    assert applied.plan.lines() == ["nothing to change"]
    assert applied.plan.warnings == [
        "partner fuel is not in the file: it stays as it is",
        "partner restaurant is not in the file: it stays as it is",
    ]
    assert await apply_toml(database, alone) == before


# ---------------------------------------------------------------- what the ledger stands on


async def test_terms_that_priced_keep_their_prices(database: Database) -> None:
    await sold(database)

    assert await refusal(database, changed(('issue_price = "0.010000"', 'issue_price = "0.010001"'))) == [
        "terms of grocer from 2017-01-01 already priced 1 transaction:" + NEW_PRICES
    ]


async def test_terms_that_priced_burns_keep_their_prices(database: Database) -> None:
    await sold(database)
    configuration = await apply_toml(database)
    async with open_till(database) as till:
        assert isinstance(await till.post(a_burn(configuration, "burn", partner="restaurant")), Posted)

    assert await refusal(database, changed(('reimbursement = "0.009500"', 'reimbursement = "0.009400"'))) == [
        "terms of restaurant from 2017-01-01 already priced 1 transaction:" + NEW_PRICES
    ]


async def test_terms_that_charged_a_fixed_fee_keep_it(database: Database) -> None:
    await sold(database)
    async with database.posting() as connection:
        await connection.execute(
            text(
                "INSERT INTO partner_entry (id, period_id, partner_id, kind, amount_micro, terms_id, recorded_at,"
                " row_hash) SELECT 1, id, 2, 'FIXED_FEE', -30000000, 3, closes_at, 0 FROM period"
            )
        )

    refused = [
        await refusal(database, changed(('fixed_fee = "30.00"', 'fixed_fee = "31.00"'))),
        await refusal(
            database,
            changed(
                (
                    'from = 2017-01-01\nissue_price = "0.0105',
                    'from = 2017-01-01\nto = 2017-03-30\nissue_price = "0.0105',
                )
            ),
        ),
    ]
    until_april = changed(
        ('from = 2017-01-01\nissue_price = "0.0105', 'from = 2017-01-01\nto = 2017-03-31\nissue_price = "0.0105')
    )

    assert refused == [
        ["terms of fuel from 2017-01-01 already priced 1 fixed fee:" + NEW_PRICES],
        ["terms of fuel from 2017-01-01 already priced 1 fixed fee on or after 2017-03-31: it must end later"],
    ]
    assert (await apply_toml(database, until_april)).terms[2][0].ends == APRIL


async def test_terms_may_end_after_what_they_priced_and_not_before(database: Database) -> None:
    await sold(database)

    assert await refusal(database, changed(("from = 2017-04-01", "from = 2017-03-15"))) == [
        "terms of grocer from 2017-01-01 already priced 1 transaction on or after 2017-03-15: it must end later"
    ]
    after = await apply_toml(database, changed(("from = 2017-04-01", "from = 2017-03-16")))
    assert [terms.starts for terms in after.terms[1]] == [JANUARY, date(2017, 3, 16)]


async def test_used_versions_do_not_go(database: Database) -> None:
    await sold(database)
    toml = changed(
        ("from = 2017-01-01", "from = 2017-02-01"),
        ("from = 2017-01-01", "from = 2017-02-01"),
        ("from = 2017-01-01", "from = 2017-02-01"),
    )

    assert await refusal(database, toml) == [
        "terms of grocer from 2017-01-01 already priced 1 transaction" + KEEP,
        "earn rule base of grocer from 2017-01-01 already awarded 1 transaction" + KEEP,
        "budget of grocer from 2017-01-01: its window 2017-03 was used: keep it in the file, with a later one after it",
    ]


async def test_an_earn_rule_that_awarded_keeps_its_rate(database: Database) -> None:
    await sold(database)

    assert await refusal(database, changed(('points_per_unit = "1"', 'points_per_unit = "1"\nmax_points = 50'))) == [
        "earn rule base of grocer from 2017-01-01 already awarded 1 transaction:" + NEW_RULE
    ]
    later = (
        '[[partner.earn_rule]]\ncode = "base"\nfrom = 2017-03-16\npoints_per_unit = "2"\n\n[[partner]]\ncode = "fuel"'
    )
    configuration = await apply_toml(database, changed(('[[partner]]\ncode = "fuel"', later)))
    assert [(rule.starts, rule.rate_micro) for rule in configuration.earn_rules[1]] == [
        (JANUARY, 1_000_000),
        (date(2017, 3, 16), 2_000_000),
    ]


async def test_a_return_window_and_a_risk_class_are_written_and_told(database: Database) -> None:
    await apply_toml(database)
    toml = changed(
        ('category = "supermarket"', 'category = "supermarket"\nrisk = "PAID_FIRST"'),
        ('fixed_fee = "50.00"', 'fixed_fee = "50.00"\npending_days = 14\nreversal_days = 120'),
    )

    applied = await apply_coalition(database, parse_coalition(toml), clock=fixed_clock())

    assert applied.plan.lines() == [
        "change partner grocer: risk NORMAL → PAID_FIRST",
        "change terms of grocer from 2017-01-01: pending_days 0 → 14, reversal_days none → 120",
        "16 unchanged",
    ]
    configuration = await apply_toml(database, toml)
    assert configuration.partners[1].risk == "PAID_FIRST"
    said = [(terms.pending_days, terms.reversal_days) for terms in configuration.terms[1]]
    assert said == [(14, 120), (0, None)]


async def test_terms_and_rules_of_pending_points_keep_what_they_said(database: Database) -> None:
    toml = changed(('fixed_fee = "50.00"', 'fixed_fee = "50.00"\npending_days = 14'))
    configuration = await apply_toml(database, toml)
    async with open_till(database) as till:
        await till.post(an_enrolment(configuration))
        assert isinstance(await till.post(a_purchase(configuration, "sale")), Posted)

    assert await refusal(database, toml.replace("pending_days = 14", "pending_days = 13")) == [
        "terms of grocer from 2017-01-01 already priced 1 transaction:" + NEW_PRICES
    ]
    assert await refusal(database, changed(('points_per_unit = "1"', 'points_per_unit = "2"'), toml=toml)) == [
        "earn rule base of grocer from 2017-01-01 already awarded 1 transaction:" + NEW_RULE
    ]
    assert await refusal(database, changed(('limit = "1500.00"', 'limit = "1.00"'), toml=toml)) == [
        (
            "budget of grocer from 2017-01-01: limit 1 is below the 1.1 consumed and reserved in its window 2017-03:"
            " raise it, or give the new limit a budget with a later `from`"
        )
    ]


async def test_the_programme_keeps_its_currency_and_calendar_once_used(database: Database) -> None:
    await apply_toml(database)
    elsewhere = changed(
        ('"EUR"', '"USD"'), ("Europe/Berlin", "America/New_York"), ('period = "month"', 'period = "half_month"')
    ).replace('every = "month"', 'every = "half_month"')
    assert (await apply_toml(database, elsewhere)).programme.currency == "USD"
    await apply_toml(database)
    await sold(database)

    assert await refusal(database, elsewhere) == [
        "programme: the currency stays EUR: transactions were booked in it",
        "programme: the timezone stays Europe/Berlin: periods opened at its midnights",
        "programme: the period stays month: it was booked in",
    ]


async def test_no_terms_begin_before_a_closed_first_period(database: Database) -> None:
    await sold(database)
    earlier = '[[partner.terms]]\nfrom = {}\nissue_price = "0.02"\nservice_fee = "0"\nreimbursement = "0"\n'
    async with database.posting() as connection:
        await connection.execute(text("UPDATE period SET state = 'CLOSING' WHERE label = '2017-03'"))

    def beginning(day: str) -> str:
        return changed(("[[partner.terms]]", earlier.format(day) + "[[partner.terms]]"))

    assert await refusal(database, beginning("2016-12-01")) == [
        "terms from 2016-12-01 would open periods before 2017-03, which is closed:" + LATER
    ]

    # Where history was imported, the first period is that of the data, and terms may reach back further.
    async with database.posting() as connection:
        await connection.execute(text("UPDATE period SET imported = true"))
    configuration = await apply_toml(database, beginning("2016-12-01"))
    assert [terms.starts for terms in configuration.terms[1]] == [date(2016, 12, 1), JANUARY, APRIL]
