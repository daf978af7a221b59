"""The coalition's configuration as values: programme, partners, stores, terms, budget plans, earn rules, campaigns.

``partners`` edits these rows, everybody else reads them as one immutable ``Configuration`` with a version. Dates are
local days of the programme's time zone; a range includes ``starts`` and excludes ``ends`` (None: open).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from itertools import groupby
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import text

from domain.database import Connection, Database
from domain.periods import Calendar, ExpiryPolicy, PeriodKind, local_date, local_midnight, lot_expiry, year_end_expiry
from domain.values import OPERATOR_ID, micro_per_minor

PAID_FIRST = "PAID_FIRST"
"""Risk class of a partner whose purchases earn nothing usable before their money came in."""

BASE_RULE_CODE = "base"
"""Code of the earn rule that is decided first and that BASE_ONLY keeps."""

PREPAID = "PREPAID"
"""Funding of a budget that is paid in before points are awarded; POSTPAID is a credit."""


@dataclass(frozen=True)
class Programme:
    """What holds for the whole coalition. ``point_value_micro`` is what a point is worth to a member when burned."""

    name: str
    currency: str
    currency_digits: int
    timezone: str
    region: str
    point_value_micro: int
    period: str
    expiry: str
    expiry_months: int | None
    expiry_years: int | None
    rolling_lots: bool
    """Whether there may be lots whose expiry moves with the use of their account, under this policy or an earlier."""

    grace_days: int
    max_backdate_days: int
    member_transfers: bool
    transfer_max_points: int | None
    transfer_max_points_per_day: int | None
    claw_back: str
    negative_limit_points: int | None
    hold_minutes: int
    advice_days: int
    dispute_days: int
    call_days: int
    minimum_settlement_micro: int
    version: int
    issue_ends: date | None = None
    """Last day on which points are issued anywhere; None: it goes on."""

    burn_ends: date | None = None
    """Last day on which points are burned: whatever is left then is past."""

    @cached_property
    def zone(self) -> ZoneInfo:
        """The programme's time zone."""
        return ZoneInfo(self.timezone)

    @property
    def minimum_settlement_minor(self) -> int:
        """Smallest amount that is paid: what is due below it is left to the partner's next statement."""
        return self.minimum_settlement_micro // micro_per_minor(self.currency_digits)

    @cached_property
    def burn_ends_at(self) -> datetime | None:
        """First instant at which every lot is past; None: each by its own date."""
        return None if self.burn_ends is None else local_midnight(self.burn_ends + timedelta(days=1), self.zone)

    @cached_property
    def calendar(self) -> Calendar:
        """The programme's settlement periods."""
        return Calendar(PeriodKind(self.period), self.zone)

    def lot_expiry(self, earned_at: datetime) -> datetime:
        """First instant at which points that are earned then are past, by today's policy."""
        if self.expiry == ExpiryPolicy.YEAR_END:
            assert self.expiry_years is not None, "the database keeps policy and figures together"
            return year_end_expiry(earned_at, self.expiry_years, self.zone)
        assert self.expiry_months is not None, "the database keeps policy and figures together"
        return lot_expiry(earned_at, self.expiry_months, self.zone)

    @property
    def rolling_months(self) -> int | None:
        """How far each use of the account moves the expiry of points that are earned now; None: not at all."""
        return self.expiry_months if self.expiry == ExpiryPolicy.ROLLING else None


@dataclass(frozen=True, slots=True)
class Partner:
    """A merchant of the coalition; ``state`` is ACTIVE or SUSPENDED.

    ``risk`` PAID_FIRST: points of its purchases, and bonuses that it pays, wait until the operator says that it has the
    money.
    """

    id: int
    code: str
    name: str
    category: str
    state: str
    reference_unique: bool
    risk: str = "NORMAL"
    hold_minutes: int | None = None
    """How long its authorizations hold points; None: as the programme says."""

    suspended_burns: str = "CAPTURE"
    """What of burning goes on while it is suspended: all (ALLOW), captures of earlier holds (CAPTURE), or nothing."""

    leaves_on: date | None = None
    """Last day on which points are issued and burned there; None: it stays."""

    run_off_until: date | None = None
    """Last day on which what it issued before comes back to it; its period's statement is the final one."""

    deposit_required_micro: int = 0
    """What it must leave with the operator; known to the operator and to itself."""

    def has_left(self, day: date) -> bool:
        """Whether the day is after its last one."""
        return self.leaves_on is not None and day > self.leaves_on


@dataclass(frozen=True, slots=True)
class Store:
    """A place of a partner, or its web shop; ``code`` is unique per partner."""

    id: int
    partner_id: int
    code: str
    name: str


@dataclass(frozen=True, slots=True)
class Terms:
    """One version of a partner's contract; prices are per point (SETTLEMENT.md c.1: i, s, r, beta, F).

    ``pending_days`` is the return window: points are pending until it is over. ``reversal_days``: for how many local
    days after its own a purchase or a burn may be reversed; None: for ever.
    """

    id: int
    partner_id: int
    starts: date
    ends: date | None
    issue_price_micro: int
    service_fee_micro: int
    reimbursement_micro: int
    breakage_share_ppm: int
    fixed_fee_micro: int
    pending_days: int = 0
    reversal_days: int | None = None

    @property
    def gross_price_micro(self) -> int:
        """Charge per awarded point, g = i + s: what an award draws on the budget."""
        return self.issue_price_micro + self.service_fee_micro

    def charge_price_micro(self, funder_id: int) -> int:
        """Charge per point to whoever funds it: the operator pays no fee to itself."""
        return self.issue_price_micro if funder_id == OPERATOR_ID else self.gross_price_micro


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """How a partner's budget windows are made: one per period, or a single one over the plan's dates.

    A PREPAID one is a float: its window's limit is what it opened with (``limit_micro``) and every top-up since. A
    campaign's own budget is such a plan with a single window; its ``partner_id`` is 0.
    """

    id: int
    partner_id: int
    starts: date
    ends: date | None
    per_period: bool
    limit_micro: int
    overdraft_micro: int
    on_limit: str
    after_period: str
    alert_at_ppm: int | None
    funding: str

    @property
    def is_prepaid(self) -> bool:
        """Whether its window is a float."""
        return self.funding == PREPAID

    def is_alert(self, limit_micro: int, used_micro: int) -> bool:
        """Whether a window with that limit is in alert once that much of it is consumed and reserved."""
        return self.alert_at_ppm is not None and used_micro >= limit_micro * self.alert_at_ppm // 1_000_000


@dataclass(frozen=True, slots=True)
class EarnRule:
    """Points of a purchase: floor(eligible amount x rate), at most ``max_points``. The one coded "base" comes first."""

    id: int
    partner_id: int
    code: str
    starts: date
    ends: date | None
    rate_micro: int
    max_points: int | None
    exclude_categories: list[str]
    exclude_products: list[str]


@dataclass(frozen=True, slots=True)
class Campaign:
    """A bonus for purchases of some days at some tills (``partner_ids`` None: at all), paid by one funder or several.

    It gives one of three: ``multiplier_micro`` times the base rule's points (the bonus is what goes beyond them),
    ``bonus_points`` for a purchase of ``min_amount_micro`` or more, or ``rate_micro`` points per unit of what is
    included. ``funding`` holds (funder, share in millionths) by the funders' codes; the shares sum to one. ``budget``
    is its own plan, None where each funder's own budget pays. The id is negative: a rule's never is, and awards name
    either in one column.
    """

    id: int
    code: str
    name: str
    starts: date
    ends: date
    partner_ids: tuple[int, ...] | None
    multiplier_micro: int | None
    bonus_points: int | None
    min_amount_micro: int
    rate_micro: int | None
    include_categories: list[str]
    include_products: list[str]
    max_points: int | None
    funding: tuple[tuple[int, int], ...]
    budget: BudgetPlan | None


@dataclass(frozen=True, slots=True)
class TaxRate:
    """Tax added to one kind of a partner's statement lines, which ``code`` names."""

    id: int
    partner_id: int
    code: str
    starts: date
    ends: date | None
    rate_ppm: int


Version = TypeVar("Version", Terms, BudgetPlan, EarnRule, TaxRate)


def in_force(versions: Sequence[Version], day: date) -> Version | None:
    """The one version whose dates contain ``day``; the database keeps them from overlapping."""
    for version in versions:
        if version.starts <= day and (version.ends is None or day < version.ends):
            return version
    return None


@dataclass(frozen=True)
class Configuration:
    """Everything that prices a command, of one version; keys are partner ids, lists ascend by start.

    Campaigns are in the order in which they were set up, which is that of deciding.
    """

    programme: Programme
    partners: dict[int, Partner]
    stores: dict[int, Store]
    terms: dict[int, tuple[Terms, ...]]
    budget_plans: dict[int, tuple[BudgetPlan, ...]]
    earn_rules: dict[int, tuple[EarnRule, ...]]
    campaigns: tuple[Campaign, ...] = ()
    tax_rates: dict[int, tuple[TaxRate, ...]] = field(default_factory=dict)

    @cached_property
    def partners_by_code(self) -> dict[str, Partner]:
        """Partners by their code."""
        return {partner.code: partner for partner in self.partners.values()}

    @cached_property
    def stores_by_code(self) -> dict[tuple[int, str], Store]:
        """Stores by partner id and code."""
        return {(store.partner_id, store.code): store for store in self.stores.values()}

    @cached_property
    def terms_by_id(self) -> dict[int, Terms]:
        """Every terms version by its id."""
        return {version.id: version for versions in self.terms.values() for version in versions}

    @cached_property
    def rules_by_id(self) -> dict[int, EarnRule]:
        """Every earn rule version by its id."""
        return {version.id: version for versions in self.earn_rules.values() for version in versions}

    @cached_property
    def plans_by_id(self) -> dict[int, BudgetPlan]:
        """Every budget plan version of a partner, and every campaign's own, by its id."""
        of_partners = {version.id: version for versions in self.budget_plans.values() for version in versions}
        return of_partners | {one.budget.id: one.budget for one in self.campaigns if one.budget is not None}

    @cached_property
    def campaigns_by_id(self) -> dict[int, Campaign]:
        """Every campaign by its id."""
        return {campaign.id: campaign for campaign in self.campaigns}

    def campaigns_at(self, partner_id: int, occurred_at: datetime) -> list[Campaign]:
        """The campaigns that ran at the partner's tills then, in the order of decision."""
        running = self._campaigns_at_tills.get(partner_id)
        if not running:
            return []
        day = local_date(occurred_at, self.programme.zone)
        return [campaign for campaign in running if campaign.starts <= day < campaign.ends]

    @cached_property
    def _campaigns_at_tills(self) -> dict[int, list[Campaign]]:
        return {
            partner_id: found
            for partner_id in self.partners
            if (found := [c for c in self.campaigns if c.partner_ids is None or partner_id in c.partner_ids])
        }

    def award_codes(self, rule_id: int | None) -> tuple[str | None, str | None]:
        """(earn rule, campaign) that an award names, by their codes: one of them, or neither."""
        if rule_id is None:
            return None, None
        if rule_id in self.campaigns_by_id:
            return None, self.campaigns_by_id[rule_id].code
        return self.rules_by_id[rule_id].code, None

    @cached_property
    def has_floats(self) -> bool:
        """Whether any partner has, or had, a prepaid budget."""
        return any(plan.is_prepaid for plan in self.plans_by_id.values())

    @property
    def first_terms_from(self) -> date | None:
        """Start of the earliest terms of any partner; None without terms."""
        return min((versions[0].starts for versions in self.terms.values() if versions), default=None)

    def hold_minutes(self, partner_id: int) -> int:
        """How long an authorization of this partner holds its points."""
        own = self.partners[partner_id].hold_minutes
        return self.programme.hold_minutes if own is None else own

    def terms_at(self, partner_id: int, occurred_at: datetime) -> Terms | None:
        """The partner's terms in force when something happened (DESIGN.md section 12, item 5)."""
        return in_force(self.terms.get(partner_id, ()), local_date(occurred_at, self.programme.zone))

    def rules_at(self, partner_id: int, occurred_at: datetime) -> list[EarnRule]:
        """The partner's earn rules in force then: base first, then by id (DESIGN.md, "Decisions inside an award")."""
        day = local_date(occurred_at, self.programme.zone)
        rules = self._rules_in_order.get(partner_id, ())
        return [rule for rule in rules if rule.starts <= day and (rule.ends is None or day < rule.ends)]

    @cached_property
    def _rules_in_order(self) -> dict[int, list[EarnRule]]:
        return {
            partner_id: sorted(rules, key=lambda rule: (rule.code != BASE_RULE_CODE, rule.id))
            for partner_id, rules in self.earn_rules.items()
        }

    def plan_on(self, partner_id: int, day: date) -> BudgetPlan | None:
        """The partner's budget plan for a booking on that local day."""
        return in_force(self.budget_plans.get(partner_id, ()), day)


PROGRAMME_SQL = text(f"SELECT {', '.join(field.name for field in fields(Programme))} FROM programme")  # noqa: S608
PARTNER_COLUMNS = (
    "id, code, name, category, state, reference_unique, risk, hold_minutes, suspended_burns, leaves_on, run_off_until"
)
PARTNER_SQL = text(
    f"SELECT {PARTNER_COLUMNS}, coalesce(required_micro, 0)"  # noqa: S608 (a constant)
    "  FROM partner LEFT JOIN deposit_requirement ON partner_id = id ORDER BY id"
)
STORE_SQL = text("SELECT id, partner_id, code, name FROM store ORDER BY id")
TERMS_SQL = text(
    "SELECT id, partner_id, lower(valid), upper(valid), issue_price_micro, service_fee_micro, reimbursement_micro,"
    " breakage_share_ppm, fixed_fee_micro, pending_days, reversal_days FROM terms ORDER BY partner_id, lower(valid)"
)
BUDGET_PLAN_SQL = text(
    "SELECT id, partner_id, lower(valid), upper(valid), per_period, limit_micro, overdraft_micro, on_limit,"
    " after_period, alert_at_ppm, funding FROM budget_plan WHERE partner_id IS NOT NULL"
    " ORDER BY partner_id, lower(valid)"
)
EARN_RULE_SQL = text(
    "SELECT id, partner_id, code, lower(valid), upper(valid), rate_micro, max_points, exclude_categories,"
    " exclude_products FROM earn_rule ORDER BY partner_id, lower(valid), id"
)


CAMPAIGN_COLUMNS = (
    "id, code, name, lower(valid), upper(valid), partner_ids, multiplier_micro, bonus_points, min_amount_micro,"
    " rate_micro, include_categories, include_products, max_points, funder_ids, shares_ppm"
)
CAMPAIGN_SQL = text(f"SELECT {CAMPAIGN_COLUMNS} FROM campaign ORDER BY id DESC")  # noqa: S608 (a constant)
CAMPAIGN_PLAN_SQL = text(
    f"SELECT campaign_id, id, {OPERATOR_ID}, lower(valid), upper(valid), per_period, limit_micro, overdraft_micro,"  # noqa: S608 (a number)
    " on_limit, after_period, alert_at_ppm, funding FROM budget_plan WHERE campaign_id IS NOT NULL"
)


TAX_RATE_SQL = text(
    "SELECT id, partner_id, code, lower(valid), upper(valid), rate_ppm FROM tax_rate"
    " ORDER BY partner_id, lower(valid), id"
)


async def load_configuration(connection: Connection) -> Configuration | None:
    """The configuration as one transaction sees it; None before the first ``coalition apply``.

    Whoever needs it not to change under him holds the configuration lock in the same transaction.
    """
    programme = (await connection.execute(PROGRAMME_SQL)).all()
    if not programme:
        return None
    partners = [Partner(*row) for row in (await connection.execute(PARTNER_SQL)).all()]
    stores = [Store(*row) for row in (await connection.execute(STORE_SQL)).all()]
    terms = [Terms(*row) for row in (await connection.execute(TERMS_SQL)).all()]
    plans = [BudgetPlan(*row) for row in (await connection.execute(BUDGET_PLAN_SQL)).all()]
    rules = [EarnRule(*row) for row in (await connection.execute(EARN_RULE_SQL)).all()]
    own_plans = {row[0]: BudgetPlan(*row[1:]) for row in (await connection.execute(CAMPAIGN_PLAN_SQL)).all()}
    campaigns = [campaign_of(row, own_plans) for row in (await connection.execute(CAMPAIGN_SQL)).all()]
    return Configuration(
        Programme(*programme[0]),
        {partner.id: partner for partner in partners},
        {store.id: store for store in stores},
        _by_partner(terms),
        _by_partner(plans),
        _by_partner(rules),
        tuple(campaigns),
        _by_partner([TaxRate(*row) for row in (await connection.execute(TAX_RATE_SQL)).all()]),
    )


def campaign_of(row: Sequence[Any], own_plans: Mapping[int, BudgetPlan]) -> Campaign:
    """A row selected as CAMPAIGN_COLUMNS, with its own budget plan if it has one there."""
    *fields, funder_ids, shares_ppm = row
    campaign = Campaign(*(*fields, tuple(zip(funder_ids, shares_ppm, strict=True)), own_plans.get(row[0])))
    return campaign if campaign.partner_ids is None else replace(campaign, partner_ids=tuple(campaign.partner_ids))


def _by_partner(versions: Sequence[Version]) -> dict[int, tuple[Version, ...]]:
    return {partner_id: tuple(group) for partner_id, group in groupby(versions, key=lambda version: version.partner_id)}


class ConfigurationCache:
    """The last configuration this process loaded. Posting checks its version under the configuration lock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.held: Configuration | None = None

    async def current(self) -> Configuration | None:
        """The configuration of this moment: one small read, and a reload only when its version has changed."""
        async with self._database.posting() as connection:
            version = (await connection.execute(VERSION_SQL)).scalar()
            if version is not None and (self.held is None or self.held.programme.version != version):
                self.held = await load_configuration(connection)
        return self.held


VERSION_SQL = text("SELECT version FROM programme")
