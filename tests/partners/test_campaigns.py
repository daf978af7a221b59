"""Campaigns in the coalition file: read, refused, planned, applied, and what may change of one that awarded points."""

from datetime import date

import pytest

from domain.database import Database
from domain.errors import ConfigurationError
from domain.terms import BudgetPlan, Campaign, load_configuration
from partners.campaigns import CampaignSection
from partners.coalition_file import parse_coalition
from partners.plan import plan
from tests.factories import COALITION_TOML, a_purchase, an_enrolment, apply_toml, open_till
from tests.partners.helpers import everything, refusal

JOINT = """
[[campaign]]
code = "spring"
name = "Spring"
from = 2017-03-01
to = 2017-03-31
partners = ["grocer"]
multiplier = "1.1"
funding = [{ partner = "restaurant", share = "0.4" }, { partner = "grocer", share = "0.6" }]
"""
GIFT = """
[[campaign]]
code = "gift"
name = "A gift"
from = 2017-03-15
to = 2017-03-15
bonus_points = 50
min_amount = "30.00"
max_points = 40
funding = [{ operator = true }]
[campaign.budget]
limit = "100.00"
on_limit = "PARTIAL"
alert_at = "0.5"
"""
ONE_DAY = (date(2017, 3, 15), date(2017, 3, 16))


def test_a_campaign_is_read_exactly() -> None:
    joint, gift = parse_coalition(COALITION_TOML + JOINT + GIFT).campaigns

    assert joint == CampaignSection(
        code="spring", name="Spring", begins=date(2017, 3, 1), ends=date(2017, 4, 1), partners=["grocer"],
        multiplier_micro=1_100_000, bonus_points=None, min_amount_micro=0, rate_micro=None, include_categories=[],
        include_products=[], max_points=None, funding={"grocer": 600_000, "restaurant": 400_000}, limit_micro=None,
        on_limit=None, alert_at_ppm=None,
    )  # fmt: skip
    assert list(joint.funding) == ["grocer", "restaurant"]  # ties of a split go by code
    assert (gift.begins, gift.ends, gift.partners) == (*ONE_DAY, None)
    assert (gift.bonus_points, gift.min_amount_micro, gift.max_points) == (50, 30_000_000, 40)
    assert gift.funding == {"operator": 1_000_000}
    assert (gift.limit_micro, gift.on_limit, gift.alert_at_ppm) == (100_000_000, "PARTIAL", 500_000)


SPRING, BUDGET_OF_GIFT = 'campaign "spring": ', 'campaign "gift", budget: '


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('code = "spring"', "", "campaign number 1: code is missing"),
        ('name = "Spring"', "", SPRING + "name is missing"),
        ("to = 2017-03-31", "", SPRING + "to is missing"),
        ("to = 2017-03-31", "to = 2017-02-28", SPRING + "to lies before from"),
        ('code = "gift"', 'code = "spring"', 'file: campaign "spring" stands there more than once'),
        ('["grocer"]', '["grocer", "butcher"]', SPRING + 'partners names "butcher", which is no partner of the file'),
        ('["grocer"]', "[]", SPRING + "partners names nobody: list codes, or leave it out for every till"),
        ('multiplier = "1.1"', "", SPRING + "needs exactly one of multiplier, bonus_points, points_per_unit"),
        ('multiplier = "1.1"', 'multiplier = "2"\nbonus_points = 5',
         SPRING + "needs exactly one of multiplier, bonus_points, points_per_unit"),
        ('multiplier = "1.1"', 'multiplier = "1"',
         SPRING + 'multiplier must be more than 1: with "2" the member gets twice the base points'),
        ('multiplier = "1.1"', 'multiplier = "1.1"\nmin_amount = "5"', SPRING + "min_amount needs bonus_points"),
        ('multiplier = "1.1"', 'multiplier = "1.1"\ninclude_products = ["a"]',
         SPRING + "include_categories and include_products need points_per_unit"),
        ('share = "0.4"', 'share = "0.39"', SPRING + "the shares of funding sum to 0.99, not to 1"),
        ('share = "0.4"', 'share = "0.0000001"',
         'campaign "spring", funding number 1: share = "0.0000001" must have at most 6 decimals'),
        ('share = "0.4"', 'share = "0.009"', 'campaign "spring", funding number 1: share must be at least 0.01'),
        (', share = "0.4"', "", 'campaign "spring", funding number 1: share is missing'),
        ('partner = "restaurant"', 'partner = "butcher"',
         'campaign "spring", funding number 1: partner names "butcher", which is no partner of the file'),
        ('partner = "restaurant"', 'partner = "grocer"',
         'campaign "spring", funding number 2: "grocer" pays twice: give one share'),
        ('partner = "restaurant"', 'partner = "restaurant", operator = true',
         'campaign "spring", funding number 1: needs either partner = "CODE" or operator = true'),
        ("funding = [{ operator = true }]", "", 'campaign "gift": funding is missing: who pays for the points?'),
        ('limit = "100.00"', "", BUDGET_OF_GIFT + "limit is missing"),
        ('"PARTIAL"\nalert_at = "0.5"', '"OVERDRAFT"',
         BUDGET_OF_GIFT + 'on_limit = "OVERDRAFT" must be one of DECLINE, PARTIAL, OPERATOR_FUNDED'),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_its_place(old: str, new: str, problem: str) -> None:
    both = JOINT + GIFT
    assert old in both
    with pytest.raises(ConfigurationError) as caught:
        parse_coalition(COALITION_TOML + both.replace(old, new, 1))
    assert problem in str(caught.value).split("\n")


def test_a_plan_says_what_a_campaign_gives_and_who_pays() -> None:
    lines = plan(None, parse_coalition(COALITION_TOML + JOINT + GIFT)).lines()

    assert lines[-3:-1] == [
        (
            "create campaign spring: name Spring, from 2017-03-01, to 2017-03-31, partners grocer, multiplier 1.1,"
            " funding grocer 0.6, restaurant 0.4"
        ),
        (
            "create campaign gift: name A gift, from 2017-03-15, to 2017-03-15, partners all, bonus_points 50,"
            " min_amount 30, max_points 40, funding operator 1, limit 100, on_limit PARTIAL, alert_at 0.5"
        ),
    ]


def test_a_part_that_nobody_can_pay_is_warned_about() -> None:
    early = JOINT.replace("from = 2017-03-01", "from = 2016-12-24")
    no_base = COALITION_TOML.replace('code = "base"', 'code = "points"', 1)

    assert plan(None, parse_coalition(no_base + early)).warnings == [
        "campaign spring: grocer has no terms on 2016-12-24: its part will be declined then",
        "campaign spring: grocer has no budget on 2016-12-24: its part will be declined then",
        "campaign spring: restaurant has no terms on 2016-12-24: its part will be declined then",
        "campaign spring: restaurant has no budget on 2016-12-24: its part will be declined then",
        'campaign spring multiplies the rule "base", which grocer does not have',
    ]


async def test_campaigns_are_written_once_changed_and_taken_away(database: Database) -> None:
    first = await apply_toml(database, COALITION_TOML + JOINT + GIFT)
    spring = Campaign(
        -1, "spring", "Spring", date(2017, 3, 1), date(2017, 4, 1), (1,), 1_100_000, None, 0, None, [], [], None,
        ((1, 600_000), (3, 400_000)), None,
    )  # fmt: skip
    own = BudgetPlan(4, 0, *ONE_DAY, False, 100_000_000, 0, "PARTIAL", "CREDIT_CURRENT", 500_000, "POSTPAID")
    gift = Campaign(
        -2, "gift", "A gift", *ONE_DAY, None, None, 50, 30_000_000, None, [], [], 40, ((0, 1_000_000),), own
    )
    assert first.campaigns == (spring, gift)

    before = await everything(database)
    await apply_toml(database, COALITION_TOML + JOINT + GIFT)
    assert await everything(database) == before

    wine = JOINT.replace('multiplier = "1.1"', 'points_per_unit = "2"\ninclude_categories = ["wine"]')
    later = GIFT.replace("to = 2017-03-15", "to = 2017-03-20").split("[campaign.budget]")[0]
    changed = await apply_toml(database, COALITION_TOML + later + wine)
    assert [one.code for one in changed.campaigns] == ["spring", "gift"]  # in the order in which they were set up
    assert (changed.campaigns[0].multiplier_micro, changed.campaigns[0].rate_micro) == (None, 2_000_000)
    assert changed.campaigns[0].include_categories == ["wine"]
    assert (changed.campaigns[1].ends, changed.campaigns[1].budget) == (date(2017, 3, 21), None)
    again = await apply_toml(database, COALITION_TOML + later + '[campaign.budget]\nlimit = "5"')
    assert [one.budget and one.budget.limit_micro for one in again.campaigns] == [5_000_000]  # and spring is gone
    assert (await apply_toml(database)).campaigns == ()


async def sold(database: Database, toml: str) -> None:
    """One purchase of 100.00 at the grocer on 15 March, under both campaigns."""
    configuration = await apply_toml(database, toml)
    async with open_till(database) as till:
        await till.post(an_enrolment(configuration))
        await till.post(a_purchase(configuration, "sale", partner="grocer", amount="100.00"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('multiplier = "1.1"', 'multiplier = "1.2"'),
        ('partners = ["grocer"]', ""),
        ("from = 2017-03-01", "from = 2017-03-02"),
        ('multiplier = "1.1"', 'multiplier = "1.1"\nmax_points = 3'),
        ('share = "0.6"', 'share = "0.5"\n'.strip()),
        ('funding = [{ partner = "restaurant"', 'funding = [{ partner = "fuel"'),
        ("]\n[[campaign]]", ']\n[campaign.budget]\nlimit = "5"\n[[campaign]]'),
    ],
)
async def test_a_campaign_that_awarded_points_keeps_its_conditions(database: Database, old: str, new: str) -> None:
    both = (COALITION_TOML + JOINT + GIFT).replace("\n\n[[campaign]]", "\n[[campaign]]")
    await sold(database, both)
    other = both.replace(old, new, 1)
    if "0.5" in new:
        other = other.replace('share = "0.4"', 'share = "0.5"')
    assert other != both
    assert await refusal(database, other) == [
        "campaign spring already awarded 1 transaction: other conditions need another campaign"
    ]


async def test_of_a_campaign_that_awarded_points_name_end_and_limit_may_change(database: Database) -> None:
    both = COALITION_TOML + JOINT + GIFT
    await sold(database, both)
    assert await refusal(database, COALITION_TOML + GIFT) == [
        "campaign spring already awarded 1 transaction: keep it in the file, with a `to` or a later version"
    ]
    assert await refusal(database, both.replace("to = 2017-03-31", "to = 2017-03-14")) == [
        "campaign spring already awarded 1 transaction on or after 2017-03-15: it must end later"
    ]
    # 40 points at the grocer's 0.01 are 0.40; the operator pays no fee.
    assert await refusal(database, both.replace('limit = "100.00"', 'limit = "0.39"')) == [
        "campaign gift: limit 0.39 is below the 0.4 consumed and reserved: raise it"
    ]
    without = both.partition("[campaign.budget]")[0]
    assert await refusal(database, without) == [
        "campaign gift already awarded 1 transaction: other conditions need another campaign",
        "campaign gift: its budget was used: keep it in the file, with an earlier `to`",
    ]
    other = both.replace("to = 2017-03-31", "to = 2017-03-15").replace('name = "Spring"', 'name = "Early spring"')
    other = other.replace('limit = "100.00"', 'limit = "0.40"').replace('"PARTIAL"\nalert_at', '"DECLINE"\nalert_at')
    configuration = await apply_toml(database, other)
    assert [(one.name, one.ends) for one in configuration.campaigns] == [
        ("Early spring", date(2017, 3, 16)),
        ("A gift", date(2017, 3, 16)),
    ]
    async with database.posting() as connection:
        assert await load_configuration(connection) == configuration
    rows = [row for row in await everything(database) if row[0] == "budget" and row[3] == 0]
    assert [(row[5], row[9] is not None) for row in rows] == [(400_000, True)]
