"""What a changed budget plan means for the windows it already has: the database's ``budget`` rows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.database import PERIOD_LOCK_CLASS
from domain.periods import Calendar
from domain.terms import PREPAID, BudgetPlan
from partners.coalition_file import BudgetSection, CoalitionFile
from partners.plan import Plan
from partners.toml_section import plain

OPEN_PERIODS_SQL = text(
    """
    SELECT DISTINCT b.period_id
      FROM budget AS b JOIN partner AS p ON p.id = b.partner_id JOIN period AS t ON t.id = b.period_id
     WHERE p.code = ANY(CAST(:codes AS text[])) AND t.state = 'OPEN'
     ORDER BY b.period_id
    """
)
SHARE_PERIOD_SQL = text(f"SELECT pg_advisory_xact_lock_shared({PERIOD_LOCK_CLASS}, :period_id)")
LOCK_WINDOWS_SQL = text(
    """
    SELECT b.id FROM budget AS b JOIN partner AS p ON p.id = b.partner_id
     WHERE p.code = ANY(CAST(:codes AS text[]))
     ORDER BY b.id FOR NO KEY UPDATE OF b
    """
)
WINDOWS_SQL = text(
    """
    SELECT b.id, p.code, lower(o.valid), o.per_period, b.period_id, coalesce(t.state, 'OPEN') = 'OPEN',
           CASE o.funding WHEN 'PREPAID' THEN o.limit_micro END,
           b.limit_micro, b.overdraft_micro, b.consumed_micro + b.reserved_micro, b.alerted_at,
           coalesce((SELECT sum(a.amount_micro) FROM overdraft AS a WHERE a.budget_id = b.id), 0)::bigint
      FROM budget AS b JOIN partner AS p ON p.id = b.partner_id JOIN budget_plan AS o ON o.id = b.plan_id
      LEFT JOIN period AS t ON t.id = b.period_id
     WHERE p.code = ANY(CAST(:codes AS text[]))
     ORDER BY b.id
    """
)
UPDATE_WINDOWS_SQL = text(
    """
    UPDATE budget AS b
       SET plan_id = o.id, limit_micro = w.limit_micro, overdraft_micro = w.overdraft_micro,
           alerted_at = w.alerted_at
      FROM unnest(CAST(:ids AS bigint[]), CAST(:starts AS date[]), CAST(:limits AS bigint[]),
                  CAST(:overdrafts AS bigint[]), CAST(:alerts AS timestamptz[]))
        AS w (id, starts, limit_micro, overdraft_micro, alerted_at), budget_plan AS o
     WHERE b.id = w.id AND o.partner_id = b.partner_id AND lower(o.valid) = w.starts
    """
)


@dataclass(frozen=True, slots=True)
class Window:
    """One budget window as it stands; a single one of its plan never closes, and begins with it.

    ``opened_with_micro``: of a float, what it began with; None for any other window.
    ``approved_micro``: overdrafts that were approved for it (``partners.overdrafts``); a new plan leaves them.
    """

    id: int
    partner_code: str
    plan_starts: date
    per_period: bool
    first_day: date
    label: str
    is_open: bool
    opened_with_micro: int | None
    limit_micro: int
    overdraft_micro: int
    used_micro: int
    alerted_at: datetime | None
    approved_micro: int


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """What one window becomes, and the start of the plan that it belongs to from now on."""

    id: int
    plan_starts: date
    limit_micro: int
    overdraft_micro: int
    alerted_at: datetime | None


async def lock_windows(connection: AsyncConnection, plan: Plan) -> None:
    """Keeps the windows that the plan may change as they are, and their open periods from closing.

    The order is that of posting: configuration (held by the caller), periods ascending, windows by id.
    """
    codes = {"codes": _codes(plan)}
    for period_id in (await connection.execute(OPEN_PERIODS_SQL, codes)).scalars().all():
        await connection.execute(SHARE_PERIOD_SQL, {"period_id": period_id})
    await connection.execute(LOCK_WINDOWS_SQL, codes)


async def load_windows(connection: AsyncConnection, plan: Plan, calendar: Calendar) -> list[Window]:
    """The windows of every partner whose budgets the plan changes.

    In a statement after the locks: the one that waited for a lock still sees what was there before.
    """
    return [
        Window(
            window_id,
            code,
            starts,
            per_period,
            calendar.first_day(period_id) if per_period else starts,
            calendar.label(period_id) if per_period else f"from {starts}",
            *rest,
        )
        for window_id, code, starts, per_period, period_id, *rest in await connection.execute(
            WINDOWS_SQL, {"codes": _codes(plan)}
        )
    ]


def _codes(plan: Plan) -> list[str]:
    return sorted({change.partner_code for change in plan.budgets})


def decide_windows(
    windows: Sequence[Window], file: CoalitionFile, now: datetime
) -> tuple[list[WindowUpdate], list[str]]:
    """What the windows become under the file's budgets, and a line per refusal.

    A window of an open period follows the plan that the file has for that period; one of a closed period
    stays as it is. No limit may fall below what a window, open or closed, has consumed and reserved.
    """
    budgets = {partner.code: partner.budgets for partner in file.partners}
    updates, refusals = [], []
    for window in windows:
        target = _target(window, budgets[window.partner_code])
        if isinstance(target, str):
            refusals.append(f"budget of {window.partner_code} from {window.plan_starts}: {target}")
        elif window.is_open:
            update = WindowUpdate(
                window.id,
                target.starts,
                _limit_micro(window, target),
                target.overdraft_micro + window.approved_micro,
                _alerted_at(window, target, now),
            )
            updates.append(update)
    return updates, refusals


def _target(window: Window, budgets: Sequence[BudgetSection]) -> BudgetSection | str:
    """The budget that the window belongs to from now on, or why there is none."""
    target = next((budget for budget in budgets if budget.starts == window.plan_starts), None)
    if target is None:
        return f"its window {window.label} was used: keep it in the file, with a later one after it"
    if (unlike := _unlike(window, target)) is not None:
        return unlike
    if window.per_period and target.ends is not None and target.ends <= window.first_day:
        if not window.is_open:
            return f"its window {window.label} is closed: the next budget must start later"
        target = next((one for one in budgets if one.starts <= window.first_day and _lasts(one, window)), None)
        if target is None or not target.per_period:
            return f"its window {window.label} was used: a budget per period must cover {window.first_day}"
    limit_micro = _limit_micro(window, target) + target.overdraft_micro + window.approved_micro
    if limit_micro < window.used_micro:
        limit, used = plain(limit_micro), plain(window.used_micro)
        return (
            f"limit {limit} is below the {used} consumed and reserved in its window {window.label}:"
            " raise it, or give the new limit a budget with a later `from`"
        )
    return target


def _unlike(window: Window, budget: BudgetSection) -> str | None:
    """What of a budget cannot become another once it has a window; None where it stays."""
    opened_micro = window.opened_with_micro
    if (budget.funding == PREPAID) != (opened_micro is not None):
        return f"its window {window.label} was used: `funding` needs a budget with a new `from`"
    if budget.per_period != window.per_period:
        return f"its window {window.label} was used: `every` and `to` need a budget with a new `from`"
    if opened_micro not in (None, budget.limit_micro):
        return f"its float opened with {plain(opened_micro or 0)}, which `limit` cannot change: top it up instead"
    return None


def _lasts(budget: BudgetSection, window: Window) -> bool:
    return budget.ends is None or window.first_day < budget.ends


def _limit_micro(window: Window, budget: BudgetSection) -> int:
    """The window's limit under that budget: of a float it is what was paid in, whatever the file says."""
    return budget.limit_micro if window.opened_with_micro is None else window.limit_micro


def _alerted_at(window: Window, budget: BudgetSection, now: datetime) -> datetime | None:
    plan = BudgetPlan(id=0, partner_id=0, **asdict(budget))
    if not plan.is_alert(_limit_micro(window, budget), window.used_micro):
        return None
    return window.alerted_at or now


async def update_windows(connection: AsyncConnection, updates: Sequence[WindowUpdate]) -> int:
    """Writes the windows, after their plans; answers how many rows were written."""
    result = await connection.execute(
        UPDATE_WINDOWS_SQL,
        {
            "ids": [update.id for update in updates],
            "starts": [update.plan_starts for update in updates],
            "limits": [update.limit_micro for update in updates],
            "overdrafts": [update.overdraft_micro for update in updates],
            "alerts": [update.alerted_at for update in updates],
        },
    )
    return result.rowcount
