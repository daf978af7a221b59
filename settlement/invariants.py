"""The invariants of SETTLEMENT.md c.7 over one snapshot of the ledger.

``check_ledger`` covers what movements, lots, accounts, budgets and commands must agree on (1 to 7, 9 to 13, 17 and 18),
``settlement.stored`` what closed statements must still say (8, 14, 15, and the hash chain of 9),
``settlement.payments`` what is paid on them (16), ``settlement.tenancy`` what a partner reads (19). A close runs all
before it commits, ``verify`` all over everything.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.commands import MovementKind
from domain.positions import MONEY_LINES, OWING, WITHOUT_MONEY, LineKind
from domain.values import OPERATOR_ID, decimal_from_micro, micro_per_minor
from settlement import places
from settlement.checks import Check, check
from settlement.debts import check_debts
from settlement.floats import check_floats
from settlement.lines import (
    NOTHING_BESIDE,
    Billing,
    differing_positions,
    operator_amount_micro,
    operator_totals,
    positions_of_movements,
    settle,
)
from settlement.places import find
from settlement.prepaid import credit_problems
from settlement.scan import BudgetRow, LedgerScan, MovementGroup


@dataclass(frozen=True, slots=True)
class Scope:
    """What is being checked. ``period_id`` None: everything, with every join; else one period and its past.

    ``left``: (pool_micro, points) that each closed period says it left, by its id; ``billings``: what statements take
    beside the positions, by period.
    """

    period_id: int | None
    period_ids: tuple[int, ...]
    currency_digits: int
    left: dict[int, tuple[int, int]]
    billings: Mapping[int, Billing] = field(default_factory=dict)

    @property
    def is_everything(self) -> bool:
        """Whether joins are made even where checksums agree."""
        return self.period_id is None

    @property
    def chained_ids(self) -> list[int]:
        """Periods that stand or will stand in the chain of closes."""
        return [period_id for period_id in self.period_ids if period_id == self.period_id or period_id in self.left]

    def left_before(self, period_id: int) -> tuple[int, int]:
        """What the close before that period says it left; nothing before the first."""
        before = [closed for closed in self.left if closed < period_id]
        return self.left[max(before)] if before else (0, 0)


class _Places:
    """Names places by the joins of ``settlement.places``: where a checksum disagrees, or where all is verified."""

    def __init__(self, connection: AsyncConnection, scope: Scope) -> None:
        self.connection = connection
        self.scope = scope

    async def named(self, suspicion: str | None, *statements: TextClause) -> list[str]:
        """Places, or the suspicion itself where no place is found; an empty one is settled by another check."""
        if suspicion is None and not self.scope.is_everything:
            return []
        found = [p for statement in statements for p in await find(self.connection, statement, self.scope.period_id)]
        return found or ([suspicion] if suspicion else [])


async def check_ledger(connection: AsyncConnection, scan: LedgerScan, scope: Scope) -> list[Check]:
    """Invariants 1 to 7, 9 to 13, 17 and 18, in order of their numbers."""
    located = _Places(connection, scope)
    return [
        await _entries_sum_to_zero(connection, scan, scope),
        await _lots_add_up(scan, located),
        await _balances_add_up(scan, located),
        _points_add_up(scan, scope),
        _pool_adds_up(scan, scope),
        _operator_adds_up(scan, scope),
        await _matrix_adds_up(scan, located),
        await _rows_as_booked(scan, scope, located),
        await _reversals_fit(scan, scope, located),
        await _budgets_add_up(connection, scan, scope),
        await _commands_as_sent(connection, scan, located),
        await _commands_add_up(scan, located),
        await _holds_resolve(scan, located),
        await _pending_stays_out(scan, located),
    ]


# ---------------------------------------------------------------- 1 to 3

ENTRY_SUMS_SQL = text(
    "SELECT period_id, unit, sum(amount) AS amount FROM ledger_entry GROUP BY period_id, unit HAVING sum(amount) <> 0"
    " ORDER BY period_id, unit"
)


async def _entries_sum_to_zero(connection: AsyncConnection, scan: LedgerScan, scope: Scope) -> Check:
    """The partners' books as the positions have them, the others as the rows have them; verify reads every entry."""
    problems = []
    for period_id in scope.period_ids:
        positions = scan.positions.get(period_id, {})
        totals = operator_totals(scan.sums(period_id), scan.entry_lines(period_id), [])
        pool = positions.get((OPERATOR_ID, LineKind.POOL))
        beside_micro = totals.deposit_change_micro - operator_amount_micro(positions, LineKind.MEMBER_RECEIVABLE)
        partners_micro = sum(p.amount_micro for (partner_id, _), p in positions.items() if partner_id != OPERATOR_ID)
        left = partners_micro + totals.margin_micro + (0 if pool is None else pool.amount_micro) + beside_micro
        if left:
            problems.append(f"period {period_id}: money entries sum to {decimal_from_micro(left)}")
        points = sum(sums.pool_points for sums in scan.sums(period_id)) - (0 if pool is None else pool.points)
        if points:
            problems.append(f"period {period_id}: points entries sum to {points}")
    if scope.is_everything:
        problems += [
            f"period {row.period_id}: {row.unit.lower()} entries sum to {row.amount}"
            for row in await connection.execute(ENTRY_SUMS_SQL)
        ]
    return check(1, problems, f"{sum(group.entries for group in scan.movements)} movements")


async def _lots_add_up(scan: LedgerScan, located: _Places) -> Check:
    wrong = _lots_and_uses_differ(scan) or any(lots.impossible for lots in scan.lots)
    found = await located.named("" if wrong else None, places.LOTS_SQL)
    lost = sum(group.points for group in scan.movements if group.kind in _BETWEEN_ACCOUNTS)
    said = f"{-lost} points left an account and reached none" if lost else None
    found += await located.named(said, places.MOVED_SQL, places.CHILDREN_SQL)
    return check(2, found, f"{sum(lots.lots for lots in scan.lots)} lots")


_BETWEEN_ACCOUNTS = (MovementKind.TRANSFER_OUT, MovementKind.TRANSFER_IN)


def _lots_and_uses_differ(scan: LedgerScan) -> bool:
    """Whether points used of some lot (2), or what its uses copy of it (7), disagree; the joins say which."""
    return sum(use.used * use.by_lot for use in scan.uses) != sum(lots.by_lot for lots in scan.lots) or sum(
        use.reserved * use.by_lot for use in scan.uses
    ) != sum(lots.reserved_by_lot for lots in scan.lots)


async def _balances_add_up(scan: LedgerScan, located: _Places) -> Check:
    accounts = scan.accounts
    wrong = (
        accounts.by_account != sum(lots.by_account for lots in scan.lots)
        or accounts.held_by_account != sum(lots.reserved_by_account for lots in scan.lots)
        or accounts.pending_by_account != sum(awards.by_account for awards in scan.pending)
        or accounts.available + accounts.held != sum(group.pool_points for group in scan.movements)
        or accounts.pending != sum(_PENDING.get(group.kind, 0) * group.points for group in scan.movements)
    )
    found = await located.named("accounts, lots and movements disagree" if wrong else None, places.ACCOUNTS_SQL)
    debts = await check_debts(located.connection, scan, is_everything=located.scope.is_everything)
    owed = f", members owe {debts.owed_points}" if debts.owed_points else ""
    fact = f"{accounts.accounts} accounts hold {accounts.available} points{owed}"
    return check(3, found + debts.problems, fact)


_PENDING = {MovementKind.EARN_PENDING: 1, MovementKind.CANCEL: 1, MovementKind.CONFIRM: -1}
"""How movements change what is pending, in terms of their points."""

# ---------------------------------------------------------------- 4 to 7


def _points_add_up(scan: LedgerScan, scope: Scope) -> Check:
    problems = []
    fact = "no period is closed"
    for period_id in scope.chained_ids:
        kinds: defaultdict[MovementKind, int] = defaultdict(int)
        for group in scan.movements:
            if group.period_id == period_id:
                kinds[group.kind] += group.pool_points
        _, opening = scope.left_before(period_id)
        closing = opening + sum(kinds.values())
        _, stated = scope.left.get(period_id, (0, closing))
        if stated != closing:
            problems.append(f"period {period_id} closed with {stated} points, not {closing}")
        fact = (
            f"{opening} opening + {kinds[MovementKind.EARN] + kinds[MovementKind.CONFIRM]} issued"
            f" + {kinds[MovementKind.BURN_REVERSAL]} restored"
            f" - {-kinds[MovementKind.BURN] - kinds[MovementKind.CAPTURE]} burned"
            f" - {-kinds[MovementKind.EARN_REVERSAL]} reversed - {-kinds[MovementKind.EXPIRE]} expired"
            f"{_adjusted(kinds)} = {closing} closing"
        )
        booked = sum(group.pool_points for group in scan.movements if group.period_id <= period_id)
        if booked != closing:
            problems.append(f"period {period_id} closes with {closing} points, all movements until then leave {booked}")
    moved = sum(group.pool_points for group in scan.movements)
    in_lots = sum(lots.remaining + lots.reserved for lots in scan.lots)
    if moved != in_lots:
        problems.append(f"movements leave {moved} points, lots hold {in_lots}")
    return check(4, problems, fact)


def _adjusted(kinds: Mapping[MovementKind, int]) -> str:
    adjusted = kinds.get(MovementKind.ADJUST, 0)
    moved = kinds.get(MovementKind.TRANSFER_IN, 0) + kinds.get(MovementKind.TRANSFER_OUT, 0)
    repaid = kinds.get(MovementKind.REPAY, 0)
    said = f" - {-repaid} paid back" if repaid else ""
    return said + (f" + {adjusted} adjusted" if adjusted else "") + (f" + {moved} between accounts" if moved else "")


def _pool_adds_up(scan: LedgerScan, scope: Scope) -> Check:
    problems = []
    for period_id in scope.chained_ids:
        change_micro = sum(group.pool_value_micro for group in scan.movements if group.period_id == period_id)
        closing_micro = scope.left_before(period_id)[0] + change_micro
        stated_micro, _ = scope.left.get(period_id, (closing_micro, 0))
        if stated_micro != closing_micro:
            stated, closing = decimal_from_micro(stated_micro), decimal_from_micro(closing_micro)
            problems.append(f"period {period_id} closed with a pool of {stated}, not {closing}")
    pool_micro = sum(group.pool_value_micro for group in scan.movements)
    lots_micro = sum(lots.value_micro for lots in scan.lots)
    if pool_micro != lots_micro:
        pool, worth = decimal_from_micro(pool_micro), decimal_from_micro(lots_micro)
        problems.append(f"movements leave a pool of {pool}, lots are worth {worth}")
    return check(5, problems, f"pool {decimal_from_micro(pool_micro)}")


def _operator_adds_up(scan: LedgerScan, scope: Scope) -> Check:
    problems = []
    fact = "no period"
    for period_id in scope.period_ids:
        billing = scope.billings.get(period_id, NOTHING_BESIDE)
        settled = settle(scan.positions.get(period_id, {}), scope.currency_digits, billing)
        totals = operator_totals(scan.sums(period_id), scan.entry_lines(period_id), settled)
        net_micro = totals.operator_net_minor * micro_per_minor(scope.currency_digits)
        net = decimal_from_micro(net_micro)
        fact = f"operator net {net} = {totals.explanation}"
        if net_micro != totals.explained_micro:
            problems.append(f"period {period_id}: operator net {net} is not {totals.explanation}")
    return check(6, problems, fact)


async def _matrix_adds_up(scan: LedgerScan, located: _Places) -> Check:
    problems = []
    rows: defaultdict[int, int] = defaultdict(int)
    columns: defaultdict[tuple[int, MovementKind, int | None], int] = defaultdict(int)
    for use in scan.uses:
        rows[use.issuer_id] += use.used * use.points
        if use.kind in _AT_A_REDEEMER:
            columns[(use.period_id, use.kind, use.redeemer_id)] += use.points
    for lots in scan.lots:
        rows[lots.issuer_id] -= lots.granted - lots.remaining - lots.reserved
    for group in scan.movements:
        if group.kind in _AT_A_REDEEMER:
            columns[(group.period_id, group.kind, group.party_id)] -= abs(group.points)
    problems += [f"issuer {issuer}: uses and lots differ by {d} points" for issuer, d in sorted(rows.items()) if d]
    problems += [
        f"period {key[0]}, {key[1]} at partner {key[2]}: uses and transactions differ by {difference} points"
        for key, difference in columns.items()
        if difference
    ]
    found = await located.named("" if problems or _lots_and_uses_differ(scan) else None, places.COPIED_SQL)
    return check(7, [*problems, *found], f"{len(scan.uses)} cells")


_AT_A_REDEEMER = (MovementKind.BURN, MovementKind.CAPTURE, MovementKind.BURN_REVERSAL)

# ---------------------------------------------------------------- 9 to 13


async def _rows_as_booked(scan: LedgerScan, scope: Scope, located: _Places) -> Check:
    """The audit: positions equal their rows, every row its hash, every command has its rows in its own period."""
    problems = []
    for period_id in scope.period_ids:
        from_rows = positions_of_movements(scan.sums(period_id), scan.entry_lines(period_id))
        problems += differing_positions(period_id, scan.positions.get(period_id, {}), from_rows)
    is_altered = any(group.altered for group in scan.movements) or any(entry.altered for entry in scan.entries)
    rows = await located.named(
        "rows were altered" if is_altered else None, places.ALTERED_TRANSACTIONS_SQL, places.ALTERED_ENTRIES_SQL
    )
    is_apart = sum(group.by_period or 0 for group in scan.commands) != scan.moved_by_period
    apart = await located.named("commands and transactions disagree" if is_apart else None, places.BOOKED_APART_SQL)
    entries = sum(
        group.entries for group in scan.movements if scope.is_everything or group.period_id == scope.period_id
    )
    approved = await located.named(
        None, places.UNAPPROVED_ENTRIES_SQL, places.UNAPPROVED_POINTS_SQL, places.DISPUTES_SQL
    )
    return check(9, [*rows, *apart, *approved, *problems], f"{entries} rows as booked")


async def _reversals_fit(scan: LedgerScan, scope: Scope, located: _Places) -> Check:
    problems = [
        f"period {group.period_id}, partner {group.party_id}: {group.kind} not at the prices of terms {group.terms_id}"
        for group in scan.movements
        if not _at_its_terms(group, scan)
    ]
    # Reversals are few: their join is made at every close.
    connection, period_id = located.connection, scope.period_id
    for statement in (places.REVERSALS_SQL, places.UNLINKED_REVERSALS_SQL):
        problems += await find(connection, statement, period_id)
    problems += await located.named(None, places.RECALLS_SQL)
    reversals = sum(group.entries for group in scan.movements if group.kind.endswith("_REVERSAL"))
    return check(10, problems, f"{reversals} reversals")


def _at_its_terms(group: MovementGroup, scan: LedgerScan) -> bool:
    """Whether the party's money is points x the prices of the group's terms; breakage is rounded per row instead."""
    if group.kind == MovementKind.EXPIRE:
        return True
    if not MONEY_LINES[group.kind]:
        return not any(group.money_micro)
    terms = None if group.terms_id is None else scan.terms.get(group.terms_id)
    if terms is None:
        return False
    is_award = group.kind in _AT_AN_ISSUE_PRICE
    by_partner = group.party_id != OPERATOR_ID
    expected = (
        -group.points * terms.issue_price_micro if is_award else 0,
        -group.points * terms.service_fee_micro if is_award and by_partner else 0,
        0 if is_award else -group.points * terms.reimbursement_micro,
    )
    return expected == (group.issue_value_micro, group.service_fee_micro, group.reimbursement_micro)


_AT_AN_ISSUE_PRICE = (MovementKind.EARN, MovementKind.CONFIRM, MovementKind.EARN_REVERSAL, MovementKind.ADJUST, *OWING)


async def _budgets_add_up(connection: AsyncConnection, scan: LedgerScan, scope: Scope) -> Check:
    drawn: defaultdict[int | None, int] = defaultdict(int)
    for group in scan.movements:
        if group.budget_micro or group.budget_id is not None:
            drawn[group.budget_id] += group.budget_micro
    reserved = {awards.budget_id: awards.reserved_micro for awards in scan.pending}
    known = {budget.id for budget in scan.budgets}
    problems = [f"{drawn[b]} micro-units are drawn on no known budget ({b})" for b in drawn if b not in known]
    problems += [
        text_
        for budget in scan.budgets
        if (text_ := _budget_problem(budget, drawn[budget.id], reserved.get(budget.id, 0)))
    ]
    floats = await check_floats(connection, is_everything=scope.is_everything)
    problems += floats.problems + await credit_problems(connection, scope.period_id)
    return check(11, problems, f"{len(scan.budgets)} windows, {floats.blocks} blocks of floats")


def _budget_problem(budget: BudgetRow, drawn_micro: int, reserved_micro: int) -> str | None:
    where = f"budget {budget.id} of partner {budget.partner_id}"
    consumed, drawn = decimal_from_micro(budget.consumed_micro), decimal_from_micro(drawn_micro)
    if budget.consumed_micro != drawn_micro:
        return f"{where}: consumed {consumed}, its entries draw {drawn}"
    if budget.reserved_micro != reserved_micro:
        reserved, pending = decimal_from_micro(budget.reserved_micro), decimal_from_micro(reserved_micro)
        return f"{where}: reserved {reserved}, its pending awards {pending}"
    limit_micro = budget.limit_micro + budget.overdraft_micro
    if budget.consumed_micro + budget.reserved_micro > limit_micro:
        return f"{where}: consumed {consumed} with reserved exceeds {decimal_from_micro(limit_micro)}"
    return None


async def _commands_as_sent(connection: AsyncConnection, scan: LedgerScan, located: _Places) -> Check:
    is_altered = any(group.altered for group in scan.commands)
    problems = await located.named("commands were altered" if is_altered else None, places.FINGERPRINTS_SQL)
    is_kept = (await connection.execute(places.KEY_INDEX_SQL)).scalar_one() == 1
    missing = None if is_kept else "the unique index command_key_unique is missing or broken"
    problems += await located.named(missing, places.DUPLICATE_KEYS_SQL)
    commands = sum(group.commands for group in scan.commands)
    recomputed = sum(group.recomputed for group in scan.commands)
    return check(12, problems, f"{commands} commands, {recomputed} fingerprints recomputed")


async def _commands_add_up(scan: LedgerScan, located: _Places) -> Check:
    moved: defaultdict[tuple[int, str], int] = defaultdict(int)
    granted = pending = 0
    asked: defaultdict[tuple[int, str], int] = defaultdict(int)
    for group in scan.movements:
        if group.kind in _GRANTING:
            granted += group.by_movement
        elif group.kind == MovementKind.EARN_PENDING:
            pending += group.by_movement
        elif group.kind not in (MovementKind.CANCEL, MovementKind.OVERDRAW):
            moved[(group.period_id, group.kind)] += group.by_movement
        if group.kind in _COMMAND_OF:
            asked[(group.period_id, _COMMAND_OF[group.kind])] += group.by_command
    for use in scan.uses:
        if use.kind in _GRANTING:
            granted += use.sign * use.by_movement
        else:
            moved[(use.period_id, use.kind)] += use.sign * use.by_movement
    for commands in scan.commands:
        kind = "TRANSFER" if commands.kind in ("MERGE", "UNMERGE") else commands.kind
        asked[(commands.period_id, kind)] -= commands.by_command
    in_scope = {commands.period_id for commands in scan.commands}
    uses = "lot uses and transactions disagree" if any(moved.values()) else None
    is_off = granted != sum(lots.by_movement for lots in scan.lots)
    is_off |= pending != sum(awards.by_movement for awards in scan.pending)
    grants = "awards and lots disagree" if is_off else None
    wrong = any(value for key, value in asked.items() if key[0] in in_scope)
    problems = await located.named(uses, places.USES_SQL)
    problems += await located.named(grants, places.GRANTS_SQL)
    problems += await located.named("commands and transactions disagree" if wrong else None, places.COMMAND_SUMS_SQL)
    return check(13, problems, f"{sum(commands.commands for commands in scan.commands)} commands")


_GRANTING = (MovementKind.EARN, MovementKind.CONFIRM, MovementKind.TRANSFER_IN, MovementKind.ADJUST)
"""Kinds of movement that open lots.

An adjustment takes out of lots where it is negative; an undone merge fills lots instead of opening them.
"""

_COMMAND_OF = {
    MovementKind.EARN: "EARN",
    MovementKind.EARN_PENDING: "EARN",
    MovementKind.CONFIRM: "CONFIRMATION",
    MovementKind.BURN: "BURN",
    MovementKind.HOLD: "AUTHORIZATION",
    MovementKind.CAPTURE: "CAPTURE",
    MovementKind.ADJUST: "ADJUSTMENT",
    MovementKind.BURN_REVERSAL: "REVERSAL",
    MovementKind.EXPIRE: "EXPIRY",
    MovementKind.TRANSFER_OUT: "TRANSFER",
    MovementKind.REPAY: "REPAYMENT",
}
"""Kinds of movement whose command says how many points it asked for, or declined; and the kind of that command.

A merge and its undoing count as transfers.
"""

# ---------------------------------------------------------------- 17, 18


async def _holds_resolve(scan: LedgerScan, located: _Places) -> Check:
    moved: defaultdict[MovementKind, int] = defaultdict(int)
    set_aside = 0
    for group in scan.movements:
        moved[group.kind] += abs(group.points)
        set_aside -= group.by_movement if group.kind == MovementKind.HOLD else 0
    held = sum(one.points for one in scan.holds)
    captured, released = (sum(one.captured for one in scan.holds), sum(one.released for one in scan.holds))
    wrong = (
        (moved[MovementKind.HOLD], moved[MovementKind.CAPTURE], moved[MovementKind.RELEASE])
        != (held, captured, released)
        or set_aside != sum(one.by_movement for one in scan.holds)
        or scan.accounts.held_by_account != sum(one.by_account for one in scan.holds)
        or any(one.state != "OPEN" and one.points != one.captured + one.released for one in scan.holds)
    )
    found = await located.named("holds and movements disagree" if wrong else None, places.HOLDS_SQL)
    return check(17, found, f"{held} held = {captured} captured + {released} released + {scan.accounts.held} open")


async def _pending_stays_out(scan: LedgerScan, located: _Places) -> Check:
    problems = [
        f"period {group.period_id}, partner {group.party_id}: {group.kind} carries money"
        for group in scan.movements
        if group.kind in WITHOUT_MONEY and any(group.money_micro)
    ]
    problems += await located.named(None, places.PENDING_SQL)
    awards = sum(one.awards for one in scan.pending)
    return check(18, problems, f"{awards} awards began pending, {scan.accounts.pending} points still are")
