"""[[campaign]] of a coalition file: read, compared with what there is, written; and what of it may still change."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.awards import OnLimit
from domain.terms import Campaign, Configuration
from domain.values import MICRO_PER_UNIT, OPERATOR_CODE, OPERATOR_ID, POINTS_MAX
from partners.toml_section import CODE, CODE_HINT, FIRST_DAY, MONEY_MAX_MICRO, RATE_MAX_MICRO, Section, plain

MULTIPLIER_MAX_MICRO = 1000 * MICRO_PER_UNIT
SHARE_MIN_PPM = 10_000
"""Smallest share of a funder: one in a hundred."""

ON_LIMITS = (OnLimit.DECLINE, OnLimit.PARTIAL, OnLimit.OPERATOR_FUNDED)
"""Behaviours of a campaign's own budget: it has no base award that could be kept, and no overdraft."""

GIVES = ("multiplier", "bonus_points", "points_per_unit")


@dataclass(frozen=True, slots=True)
class CampaignSection:
    """One campaign; fields as those of ``domain.terms.Campaign``, with codes in the place of ids.

    ``partners`` None: at every till. ``limit_micro`` None: no budget of its own.
    """

    code: str
    name: str
    begins: date
    ends: date
    partners: list[str] | None
    multiplier_micro: int | None
    bonus_points: int | None
    min_amount_micro: int
    rate_micro: int | None
    include_categories: list[str]
    include_products: list[str]
    max_points: int | None
    funding: dict[str, int]
    limit_micro: int | None
    on_limit: str | None
    alert_at_ppm: int | None

    @property
    def starts(self) -> date:
        """First day, as other things that last call it."""
        return self.begins


@dataclass(frozen=True, slots=True)
class StoredCampaign(CampaignSection):
    """A campaign of the database, as the file would say it."""

    id: int


class CampaignChange(Protocol):
    """A campaign as it is and as it shall be; None: it is not."""

    @property
    def old(self) -> StoredCampaign | None:
        """As it is."""

    @property
    def new(self) -> CampaignSection | None:
        """As the file has it."""


# ---------------------------------------------------------------- reading


def parse_campaigns(root: Section, partner_codes: Iterable[str], currency_digits: int) -> tuple[CampaignSection, ...]:
    """The file's campaigns, in its order; problems are kept by the root section."""
    known, found = sorted(partner_codes), []
    for number, table in enumerate(root.tables("campaign", "[[campaign]]"), start=1):
        code = table.get("code")
        where = f'campaign "{code}"' if isinstance(code, str) else f"campaign number {number}"
        found.append(_campaign(Section(table, where, KEYS, root.problems), known, currency_digits))
    for code in sorted({one.code for one in found if one.code}):
        if sum(one.code == code for one in found) > 1:
            root.refuse(f'campaign "{code}" stands there more than once')
    return tuple(found)


KEYS = (
    "code", "name", "from", "to", "partners", *GIVES, "min_amount", "include_categories", "include_products",
    "max_points", "funding", "budget",
)  # fmt: skip


def _campaign(section: Section, known: Sequence[str], digits: int) -> CampaignSection:
    starts, last = section.day("from"), section.day("to")
    if section.sound and last < starts:
        section.refuse("to lies before from")
    if sum(section.has(key) for key in GIVES) != 1:
        section.refuse(f"needs exactly one of {', '.join(GIVES)}")
    if section.has("min_amount") and not section.has("bonus_points"):
        section.refuse("min_amount needs bonus_points")
    if (section.has("include_categories") or section.has("include_products")) and not section.has("points_per_unit"):
        section.refuse("include_categories and include_products need points_per_unit")
    multiplier = section.micro("multiplier", MULTIPLIER_MAX_MICRO) if section.has("multiplier") else None
    if multiplier is not None and section.sound and multiplier <= MICRO_PER_UNIT:
        section.refuse('multiplier must be more than 1: with "2" the member gets twice the base points')
    limit, on_limit, alert_at = _budget(section, digits)
    return CampaignSection(
        code=section.text("code", form=CODE, hint=CODE_HINT),
        name=section.text("name"),
        begins=starts,
        ends=(last if section.sound else FIRST_DAY) + timedelta(days=1),
        partners=_partners(section, known),
        multiplier_micro=multiplier,
        bonus_points=section.whole("bonus_points", 1, POINTS_MAX) if section.has("bonus_points") else None,
        min_amount_micro=section.micro("min_amount", MONEY_MAX_MICRO, digits=digits, default=0),
        rate_micro=section.micro("points_per_unit", RATE_MAX_MICRO) if section.has("points_per_unit") else None,
        include_categories=section.texts("include_categories"),
        include_products=section.texts("include_products"),
        max_points=section.whole("max_points", 0, POINTS_MAX) if section.has("max_points") else None,
        funding=_funding(section, known),
        limit_micro=limit,
        on_limit=on_limit,
        alert_at_ppm=alert_at,
    )


def _partners(section: Section, known: Sequence[str]) -> list[str] | None:
    if not section.has("partners"):
        return None
    codes = section.texts("partners")
    if not codes:
        section.refuse("partners names nobody: list codes, or leave it out for every till")
    _check_known(section, "partners", codes, known)
    return codes


def _check_known(section: Section, key: str, codes: Iterable[str], known: Sequence[str]) -> None:
    for code in codes:
        if code not in known:
            section.refuse(f'{key} names "{code}", which is no partner of the file')


def _funding(section: Section, known: Sequence[str]) -> dict[str, int]:
    """Shares in millionths by the funders' codes, in their order."""
    tables = section.tables("funding", 'funding = [{ partner = "…", share = "0.6" }, …]')
    if not tables:
        section.refuse("funding is missing: who pays for the points?")
    shares: dict[str, int] = {}
    for number, table in enumerate(tables, start=1):
        part = Section(
            table, f"{section.where}, funding number {number}", ("partner", "operator", "share"), section.problems
        )
        by_operator = part.has("operator") and part.flag("operator", default=False)
        if by_operator == part.has("partner"):
            part.refuse('needs either partner = "CODE" or operator = true')
        code = OPERATOR_CODE if by_operator else part.text("partner", default="")
        if not by_operator and code:
            _check_known(part, "partner", [code], known)
        share_ppm = part.micro("share", MICRO_PER_UNIT, default=1 if len(tables) == 1 else None)
        if part.sound and share_ppm < SHARE_MIN_PPM:
            part.refuse(f"share must be at least {plain(SHARE_MIN_PPM)}")
        if code in shares:
            part.refuse(f'"{code}" pays twice: give one share')
        shares[code] = share_ppm
        section.sound &= part.sound
    if section.sound and sum(shares.values()) != MICRO_PER_UNIT:
        section.refuse(f"the shares of funding sum to {plain(sum(shares.values()))}, not to 1")
    return dict(sorted(shares.items()))


def _budget(section: Section, digits: int) -> tuple[int | None, str | None, int | None]:
    table = section.table.get("budget")
    if table is None:
        return None, None, None
    if not isinstance(table, dict):
        section.refuse("budget must be a table, written [campaign.budget]")
        return None, None, None
    part = Section(table, f"{section.where}, budget", ("limit", "on_limit", "alert_at"), section.problems)
    limit = part.micro("limit", MONEY_MAX_MICRO, digits=digits)
    on_limit = part.choice("on_limit", ON_LIMITS, default=OnLimit.DECLINE)
    alert_at = part.micro("alert_at", MICRO_PER_UNIT) if part.has("alert_at") else None
    section.sound &= part.sound
    return limit, on_limit, alert_at


def stored_campaigns(current: Configuration | None) -> list[StoredCampaign]:
    """What the database has, as the file would say it."""
    if current is None:
        return []
    codes = {partner.id: partner.code for partner in current.partners.values()} | {OPERATOR_ID: OPERATOR_CODE}
    return [_stored(campaign, codes) for campaign in current.campaigns]


def _stored(campaign: Campaign, codes: Mapping[int, str]) -> StoredCampaign:
    budget = campaign.budget
    return StoredCampaign(
        id=campaign.id,
        code=campaign.code,
        name=campaign.name,
        begins=campaign.starts,
        ends=campaign.ends,
        partners=None if campaign.partner_ids is None else sorted(codes[one] for one in campaign.partner_ids),
        multiplier_micro=campaign.multiplier_micro,
        bonus_points=campaign.bonus_points,
        min_amount_micro=campaign.min_amount_micro,
        rate_micro=campaign.rate_micro,
        include_categories=campaign.include_categories,
        include_products=campaign.include_products,
        max_points=campaign.max_points,
        funding={codes[funder_id]: share_ppm for funder_id, share_ppm in campaign.funding},
        limit_micro=None if budget is None else budget.limit_micro,
        on_limit=None if budget is None else budget.on_limit,
        alert_at_ppm=None if budget is None else budget.alert_at_ppm,
    )


# ---------------------------------------------------------------- what may change

MAY_CHANGE = frozenset({"name", "to", "limit", "on_limit", "alert_at"})
"""Keys that may change of a campaign that awarded points: its end not before one of them, its limit if it has one."""

WINDOW_SQL = text(
    """
    SELECT b.consumed_micro + b.reserved_micro FROM budget AS b JOIN budget_plan AS p ON p.id = b.plan_id
     WHERE p.campaign_id = :id
    """
)


async def budget_refusal(connection: AsyncConnection, old: StoredCampaign, new: CampaignSection | None) -> str | None:
    """Why the campaign's own budget cannot become what the file says, if it cannot: a window that was used stays."""
    used_micro = (await connection.execute(WINDOW_SQL, {"id": old.id})).scalar()
    if used_micro is None:
        return None
    if new is None or new.limit_micro is None:
        return f"campaign {old.code}: its budget was used: keep it in the file, with an earlier `to`"
    if new.limit_micro < used_micro:
        limit, used = plain(new.limit_micro), plain(used_micro)
        return f"campaign {old.code}: limit {limit} is below the {used} consumed and reserved: raise it"
    return None


# ---------------------------------------------------------------- writing

COLUMNS = (
    "code", "name", "partner_ids", "multiplier_micro", "bonus_points", "min_amount_micro", "rate_micro",
    "include_categories", "include_products", "max_points", "funder_ids", "shares_ppm",
)  # fmt: skip
INSERT_SQL = text(
    f"INSERT INTO campaign (valid, {', '.join(COLUMNS)})"  # noqa: S608 (constants of this module)
    f" VALUES (daterange(:begins, :ends), {', '.join(f':{column}' for column in COLUMNS)}) RETURNING id"
)
UPDATE_SQL = text(
    f"UPDATE campaign SET valid = daterange(:begins, :ends), {', '.join(f'{c} = :{c}' for c in COLUMNS)}"  # noqa: S608 (constants of this module)
    " WHERE id = :id"
)
DELETE_SQL = text("DELETE FROM campaign WHERE id = :id")
INSERT_PLAN_SQL = text(
    """
    INSERT INTO budget_plan (campaign_id, valid, per_period, limit_micro, overdraft_micro, on_limit, after_period,
                             alert_at_ppm, funding)
    VALUES (:id, daterange(:begins, :ends), false, :limit_micro, 0, :on_limit, 'CREDIT_CURRENT', :alert_at_ppm,
            'POSTPAID')
    """
)
UPDATE_PLAN_SQL = text(
    """
    UPDATE budget_plan
       SET valid = daterange(:begins, :ends), limit_micro = :limit_micro, on_limit = :on_limit,
           alert_at_ppm = :alert_at_ppm
     WHERE campaign_id = :id
    """
)
DELETE_PLAN_SQL = text("DELETE FROM budget_plan WHERE campaign_id = :id")
UPDATE_WINDOW_SQL = text(
    """
    UPDATE budget AS b
       SET limit_micro = p.limit_micro,
           alerted_at = CASE WHEN b.consumed_micro + b.reserved_micro
                                  >= div(p.limit_micro::numeric * p.alert_at_ppm, 1000000)
                             THEN coalesce(b.alerted_at, :now) END
      FROM budget_plan AS p
     WHERE p.id = b.plan_id AND p.campaign_id = :id
    """
)


async def write_campaign(
    connection: AsyncConnection, change: CampaignChange, partner_ids: Mapping[str, int], now: datetime
) -> None:
    """Creates, changes or deletes one campaign with its own budget; the ledger has allowed it."""
    old, new = change.old, change.new
    if new is None:
        assert old is not None
        await connection.execute(DELETE_PLAN_SQL, {"id": old.id})
        await connection.execute(DELETE_SQL, {"id": old.id})
        return
    values = _parameters(new, partner_ids) | ({} if old is None else {"id": old.id})
    if old is None:
        values["id"] = (await connection.execute(INSERT_SQL, values)).scalar_one()
    else:
        await connection.execute(UPDATE_SQL, values)
    has_plan, wants_plan = old is not None and old.limit_micro is not None, new.limit_micro is not None
    if has_plan or wants_plan:
        statement = DELETE_PLAN_SQL if not wants_plan else UPDATE_PLAN_SQL if has_plan else INSERT_PLAN_SQL
        await connection.execute(statement, values)
        await connection.execute(UPDATE_WINDOW_SQL, {"id": values["id"], "now": now})


def _parameters(new: CampaignSection, partner_ids: Mapping[str, int]) -> dict[str, Any]:
    ids = {**partner_ids, OPERATOR_CODE: OPERATOR_ID}
    return {field.name: getattr(new, field.name) for field in fields(new)} | {
        "partner_ids": None if new.partners is None else [ids[code] for code in new.partners],
        "funder_ids": [ids[code] for code in new.funding],
        "shares_ppm": list(new.funding.values()),
    }
