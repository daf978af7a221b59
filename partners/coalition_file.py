"""A coalition as a file: what ``coalition apply`` reads, checked as a whole, as plain values.

A version (terms, budget, earn rule) is in force from its ``from`` until the next one's ``from`` or, where it
has a ``to``, to the end of that day. Dates are local days of the programme's time zone.
"""

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from typing import TypeVar
from zoneinfo import ZoneInfo, available_timezones

from babel.core import get_global
from babel.numbers import get_currency_precision, list_currencies
from phonenumbers import SUPPORTED_REGIONS

from domain.awards import OnLimit
from domain.errors import ConfigurationError
from domain.lots import ClawBack
from domain.periods import Calendar, ExpiryPolicy, PeriodKind
from domain.positions import UNTAXED_LINES, LineKind
from domain.terms import PAID_FIRST, PREPAID
from domain.values import MICRO_DIGITS, MICRO_PER_UNIT, OPERATOR_CODE, POINTS_MAX
from partners.campaigns import CampaignSection, parse_campaigns
from partners.toml_section import CODE, CODE_HINT, MONEY_MAX_MICRO, RATE_MAX_MICRO, Section

PRICE_MAX_MICRO = 1000 * MICRO_PER_UNIT

HOLD_MINUTES = 7 * 24 * 60
"""A week: an order is sent, or a stay paid, within it; a pump says less and a hotel more."""

HOLD_MAX_MINUTES = 366 * 24 * 60
STATES = ("ACTIVE", "SUSPENDED")
SUSPENDED_BURNS = ("REFUSE", "CAPTURE", "ALLOW")
RISKS = ("NORMAL", PAID_FIRST)
AFTER_PERIOD = ("CREDIT_CURRENT", "USE_OR_LOSE")
FUNDING = ("POSTPAID", PREPAID)

NO_REGION = "ZZ"
"""Region of a programme whose time zone belongs to no country: phone numbers then need their country code."""

CURRENCY_DIGITS_MAX = 4
WINDOW_DAYS_MAX = 3660
DAYS_MAX = 366
TAXED_KINDS = tuple(kind for kind in LineKind if kind not in UNTAXED_LINES)


@dataclass(frozen=True, slots=True)
class ProgrammeSection:
    """[programme]; its fields are named and measured as those of ``domain.terms.Programme``."""

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
    issue_ends: date | None = None
    burn_ends: date | None = None


@dataclass(frozen=True, slots=True)
class StoreSection:
    """One of a partner's stores."""

    code: str
    name: str


@dataclass(frozen=True, slots=True)
class TermsSection:
    """[[partner.terms]], as ``domain.terms.Terms``; ``ends`` is exclusive, None: open."""

    starts: date
    ends: date | None
    issue_price_micro: int
    service_fee_micro: int
    reimbursement_micro: int
    breakage_share_ppm: int
    fixed_fee_micro: int
    pending_days: int = 0
    reversal_days: int | None = None


@dataclass(frozen=True, slots=True)
class BudgetSection:
    """[[partner.budget]], as ``domain.terms.BudgetPlan``."""

    starts: date
    ends: date | None
    per_period: bool
    limit_micro: int
    overdraft_micro: int
    on_limit: str
    after_period: str
    alert_at_ppm: int | None
    funding: str


@dataclass(frozen=True, slots=True)
class EarnRuleSection:
    """[[partner.earn_rule]], as ``domain.terms.EarnRule``."""

    code: str
    starts: date
    ends: date | None
    rate_micro: int
    max_points: int | None
    exclude_categories: list[str]
    exclude_products: list[str]


@dataclass(frozen=True, slots=True)
class TaxSection:
    """[[partner.tax]], as ``domain.terms.TaxRate``; ``code`` is the kind of line."""

    code: str
    starts: date
    ends: date | None
    rate_ppm: int


@dataclass(frozen=True, slots=True)
class PartnerSection:
    """[[partner]] with all that belongs to it; versions ascend by start (earn rules: per code)."""

    code: str
    name: str
    category: str
    state: str
    reference_unique: bool
    hold_minutes: int | None
    stores: tuple[StoreSection, ...]
    terms: tuple[TermsSection, ...]
    budgets: tuple[BudgetSection, ...]
    earn_rules: tuple[EarnRuleSection, ...]
    taxes: tuple[TaxSection, ...] = ()
    risk: str = "NORMAL"
    deposit_required_micro: int = 0
    suspended_burns: str = "CAPTURE"
    leaves_on: date | None = None
    run_off_until: date | None = None


@dataclass(frozen=True, slots=True)
class CoalitionFile:
    """A checked coalition file."""

    programme: ProgrammeSection
    partners: tuple[PartnerSection, ...]
    campaigns: tuple[CampaignSection, ...] = ()


def parse_coalition(text: str) -> CoalitionFile:
    """Reads and checks a coalition file.

    Raises ConfigurationError with a line per problem, each naming its place.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the file is not TOML: {error}") from error
    problems: list[str] = []
    root = Section(table, "file", ("programme", "partner", "campaign"), problems)
    programme = _programme(root)
    tables = root.tables("partner", "[[partner]]")
    partners = [_partner(one, number, programme, problems) for number, one in enumerate(tables, start=1)]
    for code in _repeated(str(one["code"]) for one in tables if "code" in one):
        root.refuse(f'partner "{code}" stands there more than once')
    digits = programme.currency_digits if programme else MICRO_DIGITS
    campaigns = parse_campaigns(root, (str(one["code"]) for one in tables if "code" in one), digits)
    if problems or programme is None:
        raise ConfigurationError("\n".join(problems))
    return CoalitionFile(programme, tuple(partner for partner in partners if partner), campaigns)


def _programme(root: Section) -> ProgrammeSection | None:
    table = root.table.get("programme")
    if not isinstance(table, dict):
        root.refuse("a [programme] table is missing")
        return None
    known = (
        "name", "currency", "timezone", "region", "point_value", "period", "expiry", "expiry_months", "expiry_years",
        "grace_days", "max_backdate_days", "member_transfers", "transfer_max_points", "transfer_max_points_per_day",
        "claw_back", "negative_limit_points", "hold_minutes", "advice_days", "dispute_days", "call_days",
        "minimum_settlement",
        "issue_ends", "burn_ends",
    )  # fmt: skip
    section = Section(table, "programme", known, root.problems)
    currency, digits = _currency(section)
    timezone = section.text("timezone")
    zones = available_timezones()
    if timezone and timezone not in zones:
        near = get_close_matches(timezone, zones, n=1)
        example = near[0] if near else "Europe/Berlin"
        section.refuse(f'timezone = "{timezone}" is no name of a time zone, such as "{example}"')
    region = section.text("region", default=_region_of(timezone))
    if region not in SUPPORTED_REGIONS and region != NO_REGION:
        section.refuse(f'region = "{region}" must be a country of two capital letters, such as "DE"')
    expiry = section.choice("expiry", tuple(ExpiryPolicy), default=ExpiryPolicy.MONTHS)
    issue_ends, burn_ends = section.last_days("issue_ends", "burn_ends", needs_both=False)
    programme = ProgrammeSection(
        name=section.text("name"),
        currency=currency,
        currency_digits=digits,
        timezone=timezone,
        region=region,
        point_value_micro=section.micro("point_value", PRICE_MAX_MICRO),
        period=section.choice("period", tuple(PeriodKind), default=PeriodKind.MONTH),
        expiry=expiry,
        expiry_months=_expiry_months(section, expiry),
        expiry_years=_expiry_years(section, expiry),
        grace_days=section.whole("grace_days", 0, 3660, default=30),
        max_backdate_days=section.whole("max_backdate_days", 0, 36600, default=30),
        member_transfers=section.flag("member_transfers", default=False),
        transfer_max_points=_whole_or_none(section, "transfer_max_points", 1, POINTS_MAX),
        transfer_max_points_per_day=_whole_or_none(section, "transfer_max_points_per_day", 1, POINTS_MAX),
        claw_back=section.choice("claw_back", tuple(ClawBack), default=ClawBack.OWN_LOT_THEN_ISSUER),
        negative_limit_points=_whole_or_none(section, "negative_limit_points", 1, POINTS_MAX),
        hold_minutes=section.whole("hold_minutes", 1, HOLD_MAX_MINUTES, default=HOLD_MINUTES),
        advice_days=section.whole("advice_days", 0, DAYS_MAX, default=0),
        dispute_days=section.whole("dispute_days", 0, DAYS_MAX, default=7),
        call_days=section.whole("call_days", 0, 2 * DAYS_MAX, default=14),
        minimum_settlement_micro=section.micro("minimum_settlement", MONEY_MAX_MICRO, digits=digits, default=0),
        issue_ends=issue_ends,
        burn_ends=burn_ends,
    )
    if programme.call_days < programme.advice_days + programme.dispute_days:
        section.refuse(
            f"call_days = {programme.call_days} lies within the dispute window: it must be at least advice_days"
            f" + dispute_days = {programme.advice_days + programme.dispute_days}"
        )
    if programme.negative_limit_points is not None and programme.claw_back != ClawBack.NEGATIVE_BALANCE:
        section.refuse(
            f'negative_limit_points bounds what members may owe: give it with claw_back = "{ClawBack.NEGATIVE_BALANCE}"'
        )
    return programme if section.sound else None


def _whole_or_none(section: Section, key: str, low: int, high: int) -> int | None:
    return section.whole(key, low, high) if section.has(key) else None


def _expiry_months(section: Section, expiry: str) -> int | None:
    if expiry != ExpiryPolicy.YEAR_END:
        return section.whole("expiry_months", 1, 1200, default=24)
    if section.has("expiry_months"):
        section.refuse('expiry = "year_end" counts whole years: give expiry_years, and no expiry_months')
    return None


def _expiry_years(section: Section, expiry: str) -> int | None:
    if expiry == ExpiryPolicy.YEAR_END:
        return section.whole("expiry_years", 0, 100)
    if section.has("expiry_years"):
        section.refuse(f'expiry = "{expiry}" counts months: give expiry_months, and no expiry_years')
    return None


def _currency(section: Section) -> tuple[str, int]:
    currency = section.text("currency")
    if currency and currency not in list_currencies():
        section.refuse(f'currency = "{currency}" is no currency of three capital letters, such as "EUR"')
        return currency, MICRO_DIGITS
    digits = get_currency_precision(currency) if currency else MICRO_DIGITS
    if currency and digits > CURRENCY_DIGITS_MAX:
        section.refuse(f'currency = "{currency}" has {digits} decimals, more than {CURRENCY_DIGITS_MAX}')
    return currency, digits


def _region_of(timezone: str) -> str:
    territories, aliases = get_global("zone_territories"), get_global("zone_aliases")
    region = territories.get(timezone) or territories.get(aliases.get(timezone, ""))
    return region if region in SUPPORTED_REGIONS else NO_REGION


def _partner(
    table: Mapping[str, object], number: int, programme: ProgrammeSection | None, problems: list[str]
) -> PartnerSection | None:
    digits = programme.currency_digits if programme else MICRO_DIGITS
    code = table.get("code")
    where = f'partner "{code}"' if isinstance(code, str) else f"partner number {number}"
    known = (
        "code", "name", "category", "state", "reference_unique", "risk", "hold_minutes", "stores", "terms", "budget",
        "earn_rule", "tax", "deposit_required", "suspended_burns", "leaves_on", "run_off_until",
    )  # fmt: skip
    section = Section(table, where, known, problems)
    if code == OPERATOR_CODE:
        section.refuse(f'code "{OPERATOR_CODE}" means the operator wherever partners are listed: take another')
    leaves_on, run_off_until = section.last_days("leaves_on", "run_off_until", needs_both=True)
    partner = PartnerSection(
        code=section.text("code", form=CODE, hint=CODE_HINT),
        name=section.text("name"),
        category=section.text("category", default="other"),
        state=section.choice("state", STATES, default="ACTIVE"),
        reference_unique=section.flag("reference_unique", default=True),
        risk=section.choice("risk", RISKS, default="NORMAL"),
        hold_minutes=_whole_or_none(section, "hold_minutes", 1, HOLD_MAX_MINUTES),
        stores=_stores(section),
        terms=_all_terms(section, digits),
        budgets=_budgets(section, digits, PeriodKind(programme.period) if programme else None),
        earn_rules=_earn_rules(section),
        taxes=_taxes(section),
        deposit_required_micro=section.micro("deposit_required", MONEY_MAX_MICRO, digits=digits, default=0),
        suspended_burns=section.choice("suspended_burns", SUSPENDED_BURNS, default="CAPTURE"),
        leaves_on=leaves_on,
        run_off_until=run_off_until,
    )
    return partner if section.sound else None


def _stores(partner: Section) -> tuple[StoreSection, ...]:
    stores = []
    tables = partner.tables("stores", 'stores = [{ code = "…", name = "…" }]')
    for number, table in enumerate(tables, start=1):
        where = f"{partner.where}, store number {number}"
        section = Section(table, where, ("code", "name"), partner.problems)
        stores.append(StoreSection(section.text("code", form=CODE, hint=CODE_HINT), section.text("name")))
    for code in _repeated(store.code for store in stores if store.code):
        partner.refuse(f'store "{code}" stands there more than once')
    return tuple(stores)


def _version_sections(partner: Section, key: str, name: str, known: Sequence[str]) -> list[Section]:
    """A Section per version of the list ``key``, named by code and start as far as they can be read."""
    sections = []
    for number, table in enumerate(partner.tables(key, f"[[partner.{key}]]"), start=1):
        code, start = table.get("code"), table.get("from")
        which = f"from {start}" if isinstance(start, date) else f"number {number}"
        label = f'{name} "{code}"' if "code" in known and isinstance(code, str) else name
        sections.append(Section(table, f"{partner.where}, {label} {which}", known, partner.problems))
    return sections


def _all_terms(partner: Section, currency_digits: int) -> tuple[TermsSection, ...]:
    known = (
        "from", "to", "issue_price", "service_fee", "reimbursement", "breakage_share", "fixed_fee", "pending_days",
        "reversal_days",
    )  # fmt: skip
    versions = []
    for section in _version_sections(partner, "terms", "terms", known):
        terms = TermsSection(
            starts=section.day("from"),
            ends=_day_after(section, "to"),
            issue_price_micro=section.micro("issue_price", PRICE_MAX_MICRO),
            service_fee_micro=section.micro("service_fee", PRICE_MAX_MICRO),
            reimbursement_micro=section.micro("reimbursement", PRICE_MAX_MICRO),
            breakage_share_ppm=section.micro("breakage_share", MICRO_PER_UNIT, default=0),
            fixed_fee_micro=section.micro("fixed_fee", MONEY_MAX_MICRO, digits=currency_digits, default=0),
            pending_days=section.whole("pending_days", 0, WINDOW_DAYS_MAX, default=0),
            reversal_days=_whole_or_none(section, "reversal_days", 0, WINDOW_DAYS_MAX),
        )
        versions.append((section, terms))
    return _in_order(versions)


def _budgets(partner: Section, currency_digits: int, period: PeriodKind | None) -> tuple[BudgetSection, ...]:
    known = (
        "from", "to", "every", "limit", "on_limit", "approved_overdraft", "after_period", "alert_at",
        "funding",
    )  # fmt: skip
    money = partial(Section.micro, high_micro=MONEY_MAX_MICRO, digits=currency_digits)
    versions = []
    for section in _version_sections(partner, "budget", "budget", known):
        per_period = section.has("every")
        funding = section.choice("funding", FUNDING, default="POSTPAID")
        if funding == PREPAID:
            # What was paid in stays the partner's when a period ends, so there is one window for all of them.
            if per_period:
                section.refuse(
                    "every: what was paid in does not end with a period; leave it out where funding is PREPAID"
                )
        elif per_period == section.has("to"):
            every = period or PeriodKind.MONTH
            section.refuse(f'needs either every = "{every}" (one budget per period) or to = DATE (a single one)')
        elif per_period:
            section.choice("every", [period] if period else tuple(PeriodKind))
        budget = BudgetSection(
            starts=section.day("from"),
            ends=_day_after(section, "to"),
            per_period=per_period,
            limit_micro=money(section, "limit", default=0 if funding == PREPAID else None),
            overdraft_micro=money(section, "approved_overdraft", default=0),
            on_limit=section.choice("on_limit", tuple(OnLimit), default=OnLimit.DECLINE),
            after_period=section.choice("after_period", AFTER_PERIOD, default="CREDIT_CURRENT"),
            alert_at_ppm=section.micro("alert_at", MICRO_PER_UNIT) if section.has("alert_at") else None,
            funding=funding,
        )
        if funding == PREPAID and budget.on_limit == OnLimit.OVERDRAFT:
            section.refuse('on_limit = "OVERDRAFT" is credit, which a PREPAID budget does not have: top it up')
        if budget.overdraft_micro and budget.on_limit != OnLimit.OVERDRAFT:
            section.refuse('approved_overdraft needs on_limit = "OVERDRAFT"')
        if per_period and period and not _begins_one(period, budget.starts):
            # Otherwise one period would have two windows of one line of plans, and a limit each.
            section.refuse(f"a budget per {_STARTS_OF[period]}, not on {budget.starts}")
        versions.append((section, budget))
    return _in_order(versions)


_STARTS_OF = {
    PeriodKind.MONTH: "month starts on the first day of a month",
    PeriodKind.HALF_MONTH: "half month starts on the 1st or the 16th of a month",
    PeriodKind.WEEK: "week starts on a Monday",
}


def _begins_one(period: PeriodKind, day: date) -> bool:
    calendar = Calendar(period, ZoneInfo("UTC"))
    return calendar.first_day(calendar.ordinal(day)) == day


def _earn_rules(partner: Section) -> tuple[EarnRuleSection, ...]:
    known = ("code", "from", "to", "points_per_unit", "max_points", "exclude_categories", "exclude_products")
    versions: dict[str, list[tuple[Section, EarnRuleSection]]] = {}
    for section in _version_sections(partner, "earn_rule", "earn rule", known):
        rule = EarnRuleSection(
            code=section.text("code", form=CODE, hint=CODE_HINT),
            starts=section.day("from"),
            ends=_day_after(section, "to"),
            rate_micro=section.micro("points_per_unit", RATE_MAX_MICRO),
            max_points=section.whole("max_points", 0, POINTS_MAX) if section.has("max_points") else None,
            exclude_categories=section.texts("exclude_categories"),
            exclude_products=section.texts("exclude_products"),
        )
        versions.setdefault(rule.code, []).append((section, rule))
    return tuple(rule for of_code in versions.values() for rule in _in_order(of_code))


def _taxes(partner: Section) -> tuple[TaxSection, ...]:
    known = ("kind", "from", "to", "rate")
    versions: dict[str, list[tuple[Section, TaxSection]]] = {}
    for section in _version_sections(partner, "tax", "tax", known):
        tax = TaxSection(
            code=section.choice("kind", TAXED_KINDS),
            starts=section.day("from"),
            ends=_day_after(section, "to"),
            rate_ppm=section.micro("rate", MICRO_PER_UNIT),
        )
        versions.setdefault(tax.code, []).append((section, tax))
    return tuple(tax for of_kind in versions.values() for tax in _in_order(of_kind))


Version = TypeVar("Version", TermsSection, BudgetSection, EarnRuleSection, TaxSection)


def _in_order(versions: Sequence[tuple[Section, Version]]) -> tuple[Version, ...]:
    """The versions of one list with their ends: their own, or where the next one starts."""
    for section, version in versions:
        if section.sound and version.ends is not None and version.ends <= version.starts:
            section.refuse("to lies before from")
    for (earlier, before), (later, after) in pairwise(versions):
        if not (earlier.sound and later.sound):
            continue
        if after.starts == before.starts:
            later.refuse("another one starts on the same day")
        elif after.starts < before.starts:
            later.refuse(f"stands after the one from {before.starts}; list them in the order of their dates")
        elif before.ends is not None and after.starts < before.ends:
            last = before.ends - timedelta(days=1)
            later.refuse(f"overlaps the one from {before.starts}, which lasts to {last}")
    following = [*(version.starts for _, version in versions[1:]), None]
    return tuple(
        replace(version, ends=version.ends or next_starts)
        for (_, version), next_starts in zip(versions, following, strict=False)  # no version, nothing to end
    )


def _day_after(section: Section, key: str) -> date | None:
    return section.day(key) + timedelta(days=1) if section.has(key) else None


def _repeated(values: Iterable[str]) -> list[str]:
    return [value for value, times in Counter(values).items() if times > 1]
