"""One pass over each big table: the sums from which the audit and most invariants are computed.

What would need a join of two big tables (does every lot agree with its uses?) is compared by a checksum instead: both
sides sum ``quantity x mix(id)``, where ``mix`` is a 31-bit hash. One wrong quantity changes the sum; that several
wrong ones cancel out has odds of one in two thousand million. Where a checksum disagrees, ``settlement.places`` finds
the rows by a join; ``verify`` always joins.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.commands import MovementKind
from domain.database import Database
from domain.ledger import (
    FINGERPRINT_SQL,
    HASHED_PARTNER_ENTRY_COLUMNS,
    HASHED_TRANSACTION_COLUMNS,
    row_hash_sql,
)
from domain.positions import ENTRY_LINES, OUTSIDE_POOL, Contribution, LineKind, MovementSums, entry_line
from settlement.documents import BudgetDrawn, Shortfall


def mix_sql(column: str, seed: str = "0") -> str:
    """SQL of a 31-bit signed hash: times a quantity of at most 10^9 it still fits a bigint."""
    return f"(hashint8extended({column}, {seed}) >> 33)"


def lot_mix_sql(alias: str, lot_id: str) -> str:
    """SQL of a hash over a lot's id and what its uses copy of it."""
    issuer_and_funder = f"({alias}.issuer_id::bigint << 32) + {alias}.funder_id"
    seed = f"hashint8extended({issuer_and_funder}, hashint8extended({alias}.account_id, {alias}.{lot_id}))"
    return mix_sql(f"{alias}.price_micro", seed)


# A quarter of a gigabyte for hash tables: the close runs alone. More workers than the server gives of itself made it
# slower, since two connections read at once.
PLANNER_SQL = text("SELECT set_config('work_mem', '256MB', true)")

TRANSACTION_HASH_SQL = row_hash_sql(HASHED_TRANSACTION_COLUMNS, "t")
PARTNER_ENTRY_HASH_SQL = row_hash_sql(HASHED_PARTNER_ENTRY_COLUMNS, "e")


def _movements_sql(audited: str) -> TextClause:
    return text(
        f"""
        SELECT t.period_id, t.kind, t.party_id,
               coalesce(t.reverses_period_id < t.period_id, false) AS prior, t.budget_id, t.terms_id,
               count(*) AS entries, sum(t.points) AS points, sum(t.shortfall_points) AS shortfall_points,
               sum(t.issue_value_micro) AS issue_value_micro, sum(t.service_fee_micro) AS service_fee_micro,
               sum(t.reimbursement_micro) AS reimbursement_micro, sum(t.breakage_share_micro) AS breakage_share_micro,
               sum(t.pool_value_micro) AS pool_value_micro, sum(t.budget_micro) AS budget_micro,
               sum(t.row_hash) AS hash_sum,
               count(*) FILTER (WHERE {audited} AND t.row_hash <> {TRANSACTION_HASH_SQL}) AS altered,
               sum({mix_sql("t.id")} * t.points) AS by_movement,
               sum({mix_sql("t.command_id")} * CASE WHEN t.kind IN ('EARN', 'EARN_PENDING')
                   THEN t.requested_points - t.points WHEN t.reverses_id IS NULL OR t.kind = 'REPAY'
                   THEN t.requested_points ELSE t.points END) AS by_command
          FROM transaction AS t
         GROUP BY t.period_id, t.kind, t.party_id, prior, t.budget_id, t.terms_id
        """  # noqa: S608 (assembled from constants of this module)
    )


# A fingerprint costs more than everything else of a row together, so a close recomputes one in sixteen, others in each
# period, and verify all of them. Chosen by a hash: ids of commands lie a few apart, and would all share remainders.
def _commands_sql(where: str) -> TextClause:
    chosen = "hashint8extended(c.id, c.period_id) % :every = 0"
    return text(
        f"""
        SELECT c.period_id, c.kind, count(*) AS commands, count(*) FILTER (WHERE {chosen}) AS recomputed,
               count(*) FILTER (WHERE {chosen} AND c.fingerprint <> {FINGERPRINT_SQL}) AS altered,
               sum({mix_sql("c.id", "c.period_id")}) FILTER (WHERE c.kind <> 'ENROLL') AS by_period,
               sum({mix_sql("c.id")} * coalesce(c.points, c.declined_points)) AS by_command
          FROM command AS c {where}
         GROUP BY c.period_id, c.kind
        """  # noqa: S608 (assembled from constants of this module)
    )


def _moved_sql(where: str) -> TextClause:
    # Distinct pairs come out of the index transaction_command in order: no sort, no hash table of a million.
    return text(
        f"""
        SELECT coalesce(sum({mix_sql("pair.command_id", "pair.period_id")}), 0) AS by_period
          FROM (SELECT t.command_id, t.period_id FROM transaction AS t {where}
                 GROUP BY t.command_id, t.period_id) AS pair
        """  # noqa: S608 (assembled from constants of this module)
    )


MOVEMENTS_SQL = _movements_sql("t.period_id = :period_id")
ALL_MOVEMENTS_SQL = _movements_sql("true")
COMMANDS_SQL = _commands_sql("WHERE c.period_id = :period_id")
ALL_COMMANDS_SQL = _commands_sql("")
MOVED_SQL = _moved_sql("WHERE t.period_id = :period_id")
ALL_MOVED_SQL = _moved_sql("")

USES_SQL = text(
    f"""
    SELECT u.period_id, u.kind, u.issuer_id, u.redeemer_id, sum(u.points) AS points,
           sum(u.points * u.price_micro) AS value_micro,
           sum({mix_sql("u.transaction_id")} * u.points) AS by_movement,
           sum({lot_mix_sql("u", "lot_id")} * u.points) AS by_lot
      FROM lot_use AS u
     GROUP BY u.period_id, u.kind, u.issuer_id, u.redeemer_id
    """  # noqa: S608 (assembled from constants of this module)
)

LOTS_SQL = text(
    f"""
    SELECT l.issuer_id, count(*) AS lots, sum(l.granted) AS granted, sum(l.remaining) AS remaining,
           sum(l.reserved) AS reserved, sum((l.remaining + l.reserved) * l.price_micro) AS value_micro,
           count(*) FILTER (WHERE l.remaining NOT BETWEEN 0 AND l.granted OR l.reserved < 0) AS impossible,
           sum({lot_mix_sql("l", "id")} * (l.granted - l.remaining - l.reserved)) AS by_lot,
           sum({mix_sql("l.transaction_id")} * l.granted) AS by_movement,
           sum({mix_sql("l.account_id")} * l.remaining) AS by_account,
           coalesce(sum({lot_mix_sql("l", "id")} * l.reserved) FILTER (WHERE l.reserved <> 0), 0) AS reserved_by_lot,
           coalesce(sum({mix_sql("l.account_id")} * l.reserved) FILTER (WHERE l.reserved <> 0), 0)
               AS reserved_by_account
      FROM lot AS l
     GROUP BY l.issuer_id
    """  # noqa: S608 (assembled from constants of this module)
)

# An account may hold more than 10^9 points, so its products are numeric.
ACCOUNTS_SQL = text(
    f"""
    SELECT count(*) AS accounts, coalesce(sum(a.available), 0) AS available, coalesce(sum(a.pending), 0) AS pending,
           coalesce(sum(a.held), 0) AS held,
           coalesce(sum({mix_sql("a.id")}::numeric * a.available), 0) AS by_account,
           coalesce(sum({mix_sql("a.id")}::numeric * a.pending) FILTER (WHERE a.pending <> 0), 0) AS pending_by_account,
           coalesce(sum({mix_sql("a.id")}::numeric * a.held) FILTER (WHERE a.held <> 0), 0) AS held_by_account
      FROM account AS a
    """  # noqa: S608 (assembled from constants of this module)
)

PENDING_SQL = text(
    f"""
    SELECT p.budget_id, count(*) AS awards, sum(p.open_points) AS open_points, sum(p.reserved_micro) AS reserved_micro,
           sum({mix_sql("p.account_id")} * p.open_points) AS by_account,
           sum({mix_sql("p.transaction_id")} * p.granted) AS by_movement
      FROM pending_award AS p
     GROUP BY p.budget_id
    """  # noqa: S608 (assembled from constants of this module)
)
HOLDS_SQL = text(
    f"""
    SELECT h.state, count(*) AS holds, sum(h.points) AS points, sum(h.captured) AS captured,
           sum(h.released) AS released, sum({mix_sql("h.transaction_id")} * h.points) AS by_movement,
           sum({mix_sql("h.account_id")} * (h.points - h.captured - h.released)) AS by_account
      FROM hold AS h
     GROUP BY h.state
    """  # noqa: S608 (assembled from constants of this module)
)

POSITIONS_SQL = text(
    "SELECT period_id, partner_id, kind, entries, points, amount_micro, prior_amount_micro, hash_sum FROM position"
    " ORDER BY period_id, partner_id, kind"
)
PARTNER_ENTRIES_SQL = text(
    f"""
    SELECT e.period_id, e.partner_id, e.kind, e.line_kind, count(*) AS entries, sum(e.amount_micro) AS amount_micro,
           sum(e.row_hash) AS hash_sum,
           count(*) FILTER (WHERE e.row_hash <> {PARTNER_ENTRY_HASH_SQL}) AS altered
      FROM partner_entry AS e
     GROUP BY e.period_id, e.partner_id, e.kind, e.line_kind
    """  # noqa: S608 (assembled from constants of this module)
)
BUDGETS_SQL = text(
    "SELECT b.id, b.partner_id, b.limit_micro, b.overdraft_micro, b.consumed_micro, b.reserved_micro, p.label"
    "  FROM budget AS b LEFT JOIN period AS p ON p.id = b.period_id ORDER BY b.id"
)
TERMS_SQL = text("SELECT id, issue_price_micro, service_fee_micro, reimbursement_micro FROM terms")

FINGERPRINTS_ALL_MAX = 200_000
"""A close recomputes every fingerprint of a period with at most so many movements."""

FINGERPRINTS_PER_CLOSE = 16
"""Of a larger period a close recomputes one in that many; ``verify`` recomputes all of them, always."""

MOVEMENTS_OF_PERIOD_SQL = text("SELECT entries FROM position WHERE period_id = :period_id AND kind = 'POOL'")


class MovementGroup(NamedTuple):
    """Rows of ``transaction`` that share period, kind, party, prior, budget and terms; sums and checksums of them."""

    period_id: int
    kind: MovementKind
    party_id: int
    prior: bool
    budget_id: int | None
    terms_id: int | None
    entries: int
    points: int
    shortfall_points: int
    issue_value_micro: int
    service_fee_micro: int
    reimbursement_micro: int
    breakage_share_micro: int
    pool_value_micro: int
    budget_micro: int
    hash_sum: int
    altered: int
    by_movement: int
    by_command: int

    @property
    def pool_points(self) -> int:
        """By how much the points in the pool changed."""
        return self.sums.pool_points

    @property
    def money_micro(self) -> tuple[int, int, int, int, int]:
        """Its money columns, in the order in which they stand here."""
        return (
            self.issue_value_micro,
            self.service_fee_micro,
            self.reimbursement_micro,
            self.breakage_share_micro,
            self.pool_value_micro,
        )

    @property
    def sums(self) -> MovementSums:
        """The group as positions count it."""
        return MovementSums(
            self.kind,
            self.party_id,
            self.prior,
            self.entries,
            self.points,
            self.issue_value_micro,
            self.service_fee_micro,
            self.reimbursement_micro,
            self.breakage_share_micro,
            self.pool_value_micro,
            self.hash_sum,
        )


class CommandGroup(NamedTuple):
    """Commands of one period and kind."""

    period_id: int
    kind: str
    commands: int
    recomputed: int
    altered: int
    by_period: int | None
    by_command: int


class UseGroup(NamedTuple):
    """Lot uses of one period, kind, issuer and redeemer: a cell of the issuer x redeemer matrix."""

    period_id: int
    kind: MovementKind
    issuer_id: int
    redeemer_id: int | None
    points: int
    value_micro: int
    by_movement: int
    by_lot: int

    @property
    def sign(self) -> int:
        """The movement's sign turned round: 1 where points left the member, -1 where they came back."""
        return -1 if self.kind in _GIVES_BACK else 1

    @property
    def used(self) -> int:
        """1 where points left their lots, -1 where they came back, 0 where they were only set aside or set free."""
        return 0 if self.kind in OUTSIDE_POOL else self.sign

    @property
    def reserved(self) -> int:
        """1 where points of lots were set aside, -1 where what was set aside was spent or set free."""
        return _RESERVED.get(self.kind, 0)


_GIVES_BACK = (MovementKind.BURN_REVERSAL, MovementKind.RELEASE, MovementKind.TRANSFER_IN)
_RESERVED = {MovementKind.HOLD: 1, MovementKind.CAPTURE: -1, MovementKind.RELEASE: -1}


class LotGroup(NamedTuple):
    """All lots of one issuer."""

    issuer_id: int
    lots: int
    granted: int
    remaining: int
    reserved: int
    value_micro: int
    impossible: int
    by_lot: int
    by_movement: int
    by_account: int
    reserved_by_lot: int
    reserved_by_account: int


class AccountTotals(NamedTuple):
    """All accounts together."""

    accounts: int
    available: int
    pending: int
    held: int
    by_account: int
    pending_by_account: int
    held_by_account: int


class PendingGroup(NamedTuple):
    """Pending awards that reserve money of one budget window, or of none."""

    budget_id: int | None
    awards: int
    open_points: int
    reserved_micro: int
    by_account: int
    by_movement: int


class HoldGroup(NamedTuple):
    """Holds of one state."""

    state: str
    holds: int
    points: int
    captured: int
    released: int
    by_movement: int
    by_account: int


class EntryGroup(NamedTuple):
    """Rows of ``partner_entry`` that share period, partner, kind and line."""

    period_id: int
    partner_id: int
    kind: str
    line_kind: str | None
    entries: int
    amount_micro: int
    hash_sum: int
    altered: int


class BudgetRow(NamedTuple):
    """One budget window; ``window`` is its period's label, None for a single one over all of its plan."""

    id: int
    partner_id: int
    limit_micro: int
    overdraft_micro: int
    consumed_micro: int
    reserved_micro: int
    window: str | None


class TermsPrices(NamedTuple):
    """Prices per point of one terms version."""

    id: int
    issue_price_micro: int
    service_fee_micro: int
    reimbursement_micro: int


@dataclass(frozen=True, slots=True)
class LedgerScan:
    """What one snapshot of the ledger sums to."""

    movements: list[MovementGroup]
    commands: list[CommandGroup]
    moved_by_period: int
    uses: list[UseGroup]
    lots: list[LotGroup]
    accounts: AccountTotals
    pending: list[PendingGroup]
    holds: list[HoldGroup]
    entries: list[EntryGroup]
    budgets: list[BudgetRow]
    terms: dict[int, TermsPrices]
    positions: dict[int, dict[tuple[int, LineKind], Contribution]]

    def sums(self, period_id: int) -> list[MovementSums]:
        """The period's movements."""
        return [group.sums for group in self.movements if group.period_id == period_id]

    def entry_lines(self, period_id: int) -> list[Contribution]:
        """What the period's partner entries add to statement lines: fixed fees and adjustments."""
        return [
            entry_line(e.partner_id, ENTRY_LINES[e.kind], e.line_kind, e.entries, e.amount_micro, e.hash_sum)
            for e in self.entries
            if e.period_id == period_id and e.kind in ENTRY_LINES
        ]

    def drawn(self, period_id: int) -> dict[int, list[BudgetDrawn]]:
        """By partner, what the period's entries drew on each budget window."""
        sums: defaultdict[int, int] = defaultdict(int)
        for group in self.movements:
            if group.period_id == period_id and group.budget_id is not None:
                sums[group.budget_id] += group.budget_micro
        drawn: defaultdict[int, list[BudgetDrawn]] = defaultdict(list)
        for budget in self.budgets:
            if budget.id in sums:
                drawn[budget.partner_id].append(
                    BudgetDrawn(budget.id, budget.partner_id, budget.window, sums[budget.id])
                )
        return drawn

    def shortfalls(self, period_id: int) -> dict[int, Shortfall]:
        """By issuing partner, the points of returned goods that could not be taken back, at their issue price."""
        found: dict[int, Shortfall] = {}
        for group in self.movements:
            if group.period_id == period_id and group.shortfall_points and group.terms_id is not None:
                held = found.get(group.party_id, Shortfall())
                value_micro = group.shortfall_points * self.terms[group.terms_id].issue_price_micro
                found[group.party_id] = Shortfall(held.points + group.shortfall_points, held.value_micro + value_micro)
        return found


async def scan_ledger(database: Database, connection: AsyncConnection, period_id: int | None) -> LedgerScan:
    """Reads every big table once. ``period_id``: whose rows' hashes are recomputed; None: all rows, all fingerprints.

    The connection's transaction is REPEATABLE READ, and so all of it is one snapshot: also what is read beside it,
    because the movements take as long as all others together, and the server has more than one core.
    """
    everything = period_id is None
    parameters: dict[str, Any] = {} if everything else {"period_id": period_id}
    booked = 0 if everything else (await connection.execute(MOVEMENTS_OF_PERIOD_SQL, parameters)).scalar() or 0
    every = {"every": 1 if booked <= FINGERPRINTS_ALL_MAX else FINGERPRINTS_PER_CLOSE}
    movements_alone = [(ALL_MOVEMENTS_SQL if everything else MOVEMENTS_SQL, parameters)]
    all_others = [
        (ALL_COMMANDS_SQL if everything else COMMANDS_SQL, parameters | every),
        (ALL_MOVED_SQL if everything else MOVED_SQL, parameters),
        *((statement, {}) for statement in (USES_SQL, LOTS_SQL, ACCOUNTS_SQL, PENDING_SQL, HOLDS_SQL)),
        *((statement, {}) for statement in (PARTNER_ENTRIES_SQL, BUDGETS_SQL, TERMS_SQL, POSITIONS_SQL)),
    ]
    async with database.beside(connection) as other:
        beside = asyncio.create_task(_read(other, all_others))
        try:
            [movements] = await _read(connection, movements_alone)
        finally:
            # Whatever happened here: no connection goes back while it is at work.
            await asyncio.wait([beside])
    commands, moved, uses, lots, accounts, pending, holds, entries, budgets, terms, positions = beside.result()
    return LedgerScan(
        [MovementGroup(*_of_kind(row)) for row in movements],
        [CommandGroup(*_whole(row)) for row in commands],
        int(moved[0][0]),
        [UseGroup(*_of_kind(row)) for row in uses],
        [LotGroup(*_whole(row)) for row in lots],
        AccountTotals(*_whole(accounts[0])),
        [PendingGroup(*_whole(row)) for row in pending],
        [HoldGroup(*_whole(row)) for row in holds],
        [EntryGroup(*_whole(row)) for row in entries],
        [BudgetRow(*_whole(row)) for row in budgets],
        {row[0]: TermsPrices(*_whole(row)) for row in terms},
        positions_by_period(positions),
    )


async def _read(
    connection: AsyncConnection, statements: Sequence[tuple[TextClause, Mapping[str, Any]]]
) -> list[Sequence[Row[Any]]]:
    await connection.execute(PLANNER_SQL)
    return [(await connection.execute(statement, parameters)).all() for statement, parameters in statements]


def positions_by_period(rows: Iterable[Row[Any]]) -> dict[int, dict[tuple[int, LineKind], Contribution]]:
    """Rows of ``position`` with their period first, by period, partner and kind."""
    positions: defaultdict[int, dict[tuple[int, LineKind], Contribution]] = defaultdict(dict)
    for row in rows:
        key = (row.partner_id, LineKind(row.kind))
        positions[row.period_id][key] = Contribution(*key, *_whole(row[3:]))
    return positions


def _of_kind(values: Iterable[Any]) -> list[Any]:
    """The second of whole values as a kind of movement."""
    period_id, kind, *others = _whole(values)
    return [period_id, MovementKind(kind), *others]


def _whole(values: Iterable[Any]) -> list[Any]:
    # PostgreSQL's sum(bigint) is numeric and arrives as Decimal; every sum here is a whole number.
    return [int(value) if isinstance(value, Decimal) else value for value in values]
