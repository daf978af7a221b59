"""The reads of the till, as SQL: members, balances, transactions with their movements, partners, stores, budgets.

Everything is batched by key and bounded by the caller. Row-level security decides what a viewer's transaction sees;
the tables of members and partners have none, what a viewer may see of those is the resolvers' decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.commands import BalanceView, BudgetView, CommandKind, CommandRow, HoldView, ParkedReversal
from domain.loading import LIVE_OVERDRAFT_SQL
from domain.terms import PARTNER_COLUMNS, Partner, Store

NOBODY_ID = -1
"""A viewer to whom row-level security shows no row: for reads of tables that belong to no partner."""


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A member with the balance of its account, and what turns points into money (``value`` of a balance)."""

    id: int
    account_id: int
    state: str
    enrolled_at: datetime
    partner_id: int
    attributes: str | None
    balance: BalanceView
    point_value_micro: int
    currency: str
    currency_digits: int


@dataclass(frozen=True, slots=True)
class Expiry:
    """The points that leave an account at its next expiry."""

    points: int
    at: datetime


class MovementRow(NamedTuple):
    """One row of ``transaction`` as shown; money in micro-units, signs as the table says."""

    account_id: int
    id: int
    command_id: int
    kind: str
    partner_id: int
    party_id: int
    funder_id: int | None
    points: int
    shortfall_points: int
    issue_value_micro: int
    service_fee_micro: int
    reimbursement_micro: int
    breakage_share_micro: int
    pool_value_micro: int
    rule_code: str | None
    campaign_code: str | None


class HoldRow(NamedTuple):
    """A hold, whose points it holds, and the key of its authorization."""

    hold: HoldView
    member_id: int
    key: str


class LotUseRow(NamedTuple):
    """How many points a movement took of a lot, or gave back to it."""

    transaction_id: int
    points: int
    issuer_id: int
    price_micro: int


# "Past" is decided here and nowhere else for balances: a lot's grace, if it has one, replaces its expiry.
MEMBER_COLUMNS_SQL = """
    m.id, m.account_id, m.state, m.enrolled_at, m.partner_id, m.attributes::text,
    a.available - a.owed - CASE WHEN a.next_expires_at <= past_instant(:now) THEN
        (SELECT coalesce(sum(l.remaining), 0)::bigint FROM lot AS l
          WHERE l.account_id = a.id AND l.remaining > 0 AND coalesce(l.grace_until, l.expires_at) <= past_instant(:now))
        ELSE 0 END,
    a.pending, a.held, p.point_value_micro, p.currency, p.currency_digits
"""
MEMBER_TABLES_SQL = "member AS m JOIN account AS a ON a.id = m.account_id CROSS JOIN programme AS p"
MEMBERS_BY_IDENTIFIER_SQL = text(
    f"SELECT i.kind, i.value, {MEMBER_COLUMNS_SQL} FROM {MEMBER_TABLES_SQL}"  # noqa: S608 (constants of this module)
    " JOIN member_identifier AS i ON i.member_id = m.id"
    " JOIN unnest(CAST(:kinds AS text[]), CAST(:values AS text[])) AS wanted (kind, value)"
    " ON i.kind = wanted.kind AND i.value = wanted.value"
)
# A merged member is not listed: who stands for it is.
MEMBERS_SQL = f"SELECT {MEMBER_COLUMNS_SQL} FROM {MEMBER_TABLES_SQL} WHERE m.merged_into IS NULL"  # noqa: S608 (constants of this module)
MEMBERS_BY_ID_SQL = text(
    f"SELECT asked.id, {MEMBER_COLUMNS_SQL}"  # noqa: S608 (constants of this module)
    f"  FROM {MEMBER_TABLES_SQL} JOIN member AS asked ON m.id = coalesce(asked.merged_into, asked.id)"
    " WHERE asked.id = ANY(:ids)"
)
# Whose commands are a member's, and on which accounts: its own, those of members for whom it stands, and its pools'.
OWN_COMMANDS_SQL = """
    SELECT x.account_id, x.id FROM member AS x WHERE x.id = {member} OR x.merged_into = {member}
     UNION ALL
    SELECT unnest(ARRAY[held.home_account_id, p.account_id]), held.member_id
      FROM pool_member AS held JOIN pool AS p ON p.id = held.pool_id
     WHERE held.member_id IN (SELECT x.id FROM member AS x WHERE x.id = {member} OR x.merged_into = {member})
"""
MEMBER_CONDITIONS = {
    "dealt_with": f"EXISTS (SELECT FROM ({OWN_COMMANDS_SQL.format(member='m.id')}) AS own"
    "  JOIN command AS c ON c.account_id = own.account_id AND c.member_id = own.id AND c.partner_id = :dealt_with)",
    "before": "m.id < :before",
    "state": "m.state = :state",
    "enrolled_from": "m.enrolled_at >= :enrolled_from",
    "enrolled_to": "m.enrolled_at < :enrolled_to",
    "partner": "m.partner_id = :partner",
}
IDENTIFIERS_SQL = text(
    "SELECT member_id, kind, value FROM member_identifier"
    " WHERE member_id = ANY(:ids) AND (CAST(:supplier AS integer) IS NULL OR partner_id = :supplier)"
    " ORDER BY member_id, kind, value"
)
EXPIRIES_SQL = text(
    """
    SELECT DISTINCT ON (account_id) account_id, sum(remaining)::bigint,
           least(coalesce(grace_until, expires_at), points_end()) AS at
      FROM lot
     WHERE account_id = ANY(:ids) AND remaining > 0 AND coalesce(grace_until, expires_at) > past_instant(:now)
     GROUP BY account_id, at
     ORDER BY account_id, at
    """
)


def _member(row: Sequence[Any]) -> MemberRow:
    balance = BalanceView(row[1], row[6], row[7], row[8])
    return MemberRow(row[0], row[1], row[2], row[3], row[4], row[5], balance, row[9], row[10], row[11])


async def members_by_identifier(
    connection: AsyncConnection, identifiers: Sequence[tuple[str, str]], now: datetime
) -> dict[tuple[str, str], MemberRow]:
    """Members by their normalised identifiers (kind, value)."""
    kinds, values = [kind for kind, _ in identifiers], [value for _, value in identifiers]
    rows = await connection.execute(MEMBERS_BY_IDENTIFIER_SQL, {"kinds": kinds, "values": values, "now": now})
    return {(row[0], row[1]): _member(row[2:]) for row in rows}


async def members_by_id(connection: AsyncConnection, ids: Sequence[int], now: datetime) -> dict[int, MemberRow]:
    """Members by their ids; by the id of one that was merged, who stands for it."""
    rows = await connection.execute(MEMBERS_BY_ID_SQL, {"ids": list(ids), "now": now})
    return {row[0]: _member(row[1:]) for row in rows}


async def members_page(
    connection: AsyncConnection, conditions: Mapping[str, Any], limit: int, now: datetime
) -> list[MemberRow]:
    """Members that meet the conditions (names of MEMBER_CONDITIONS), latest id first."""
    query = _page_query(MEMBERS_SQL, "m.id", "MEMBER", *conditions)
    rows = await connection.execute(query, {**conditions, "limit": limit, "now": now})
    return [_member(row) for row in rows]


async def identifiers_of(
    connection: AsyncConnection, member_ids: Sequence[int], supplier: int | None
) -> dict[int, list[tuple[str, str]]]:
    """Identifiers (kind, value) per member; with a ``supplier``, only those that this partner supplied."""
    rows = await connection.execute(IDENTIFIERS_SQL, {"ids": list(member_ids), "supplier": supplier})
    found: dict[int, list[tuple[str, str]]] = {}
    for member_id, kind, value in rows:
        found.setdefault(member_id, []).append((kind, value))
    return found


async def next_expiries(connection: AsyncConnection, account_ids: Sequence[int], now: datetime) -> dict[int, Expiry]:
    """Per account, the earliest expiry after ``now`` and the points that go then; absent where nothing will."""
    rows = await connection.execute(EXPIRIES_SQL, {"ids": list(account_ids), "now": now})
    return {row[0]: Expiry(row[1], row[2]) for row in rows}


COMMAND_COLUMNS_SQL = """
    c.id, c.partner_id, c.idempotency_key, c.kind, c.account_id, c.member_id, c.store_id, c.reference, c.channel,
    c.amount_minor, c.points, c.reverses_id, c.reason, c.declined_points, c.occurred_at, c.recorded_at, c.period_id,
    (SELECT coalesce(sum(t.points), 0)::bigint FROM transaction AS t
      WHERE t.command_id = c.id AND t.account_id = c.account_id AND (t.kind <> 'RELEASE' OR c.kind <> 'CAPTURE'))
"""
TRANSACTIONS_SQL = f"SELECT {COMMAND_COLUMNS_SQL} FROM command AS c WHERE c.kind <> 'ENROLL'"  # noqa: S608 (constants of this module)
TRANSACTIONS_BY_ID_SQL = text(f"{TRANSACTIONS_SQL} AND c.id = ANY(:ids)")
TRANSACTION_CONDITIONS = {
    # Row-level security says the same of a partner's reads; said here, it can use an index.
    "partner": "c.partner_id = :partner",
    "before": "c.id < :before",
    "kind": "c.kind = :kind",
    "member": f"(c.account_id, c.member_id) IN ({OWN_COMMANDS_SQL.format(member=':member')})",
    "store_code": "c.store_id IN (SELECT id FROM store WHERE code = :store_code AND partner_id = c.partner_id)",
    "reference": "c.reference = :reference",
    "key": "c.idempotency_key = :key",
    "occurred_from": "c.occurred_at >= :occurred_from",
    "occurred_to": "c.occurred_at < :occurred_to",
    "recorded_from": "c.recorded_at >= :recorded_from",
    "recorded_to": "c.recorded_at < :recorded_to",
    "period": "c.period_id = :period",
}
LINE_COMMANDS_SQL = text(
    """
    SELECT line.number, page.command_id
      FROM unnest(CAST(:periods AS integer[]), CAST(:parties AS integer[]), CAST(:kinds AS text[]))
             WITH ORDINALITY AS line (period_id, party_id, kinds, number)
     CROSS JOIN LATERAL (
           SELECT DISTINCT found.command_id
             FROM unnest(string_to_array(line.kinds, ',')) AS of (kind)
            CROSS JOIN LATERAL (  -- a page of each kind: out of the index in its order, and not the whole line sorted
                  SELECT DISTINCT t.command_id FROM transaction AS t
                   WHERE t.period_id = line.period_id AND t.party_id = line.party_id AND t.kind = of.kind
                     AND t.command_id < :before
                   ORDER BY t.command_id DESC
                   LIMIT :limit) AS found
            ORDER BY found.command_id DESC
            LIMIT :limit) AS page
     ORDER BY line.number, page.command_id DESC
    """
)
MOVEMENTS_SQL = text(
    """
    SELECT t.account_id, t.id, t.command_id, t.kind, t.partner_id, t.party_id, t.funder_id, t.points,
           t.shortfall_points,
           t.issue_value_micro, t.service_fee_micro, t.reimbursement_micro, t.breakage_share_micro, t.pool_value_micro,
           r.code, k.code
      FROM transaction AS t LEFT JOIN earn_rule AS r ON r.id = t.rule_id LEFT JOIN campaign AS k ON k.id = t.rule_id
     WHERE t.command_id = ANY(:ids)
     ORDER BY t.command_id, t.id
    """
)
LOT_USES_SQL = text(
    "SELECT transaction_id, points, issuer_id, price_micro FROM lot_use WHERE transaction_id = ANY(:ids)"
    " ORDER BY transaction_id, id"
)
HOLD_COLUMNS_SQL = """
    h.account_id, h.id, h.partner_id, h.points, h.captured, h.released, h.state, h.expires_at, c.member_id,
    c.idempotency_key
"""
HOLDS_SQL = f"SELECT {HOLD_COLUMNS_SQL} FROM hold AS h JOIN command AS c ON c.id = h.command_id WHERE true"  # noqa: S608 (constants of this module)
HOLD_BY_ID_SQL = text(f"{HOLDS_SQL} AND h.account_id = :account AND h.id = :id")
HOLD_CONDITIONS = {
    "partner": "h.partner_id = :partner",
    "before": "h.command_id < :before",
    "state": "h.state = :state",
    "member": "h.account_id = (SELECT account_id FROM member WHERE id = :member) AND c.member_id = :member",
    "reference": "c.reference = :reference",
    "expires_before": "h.expires_at < :expires_before",
}
PARKED_SQL = """
    SELECT e.id, e.partner_id, e.idempotency_key, e.original_key, e.reference, e.kind, e.state, e.occurred_at,
           e.recorded_at, e.expires_at, e.command_id, e.refusal_code
      FROM early_reversal AS e WHERE true
"""
PARKED_CONDITIONS = {
    "partner": "e.partner_id = :partner",
    "before": "e.id < :before",
    "state": "e.state = :state",
    "original_key": "e.original_key = :original_key",
    "reference": "e.reference = :reference",
}
RESOLUTIONS_SQL = text(f"{TRANSACTIONS_SQL} AND c.reverses_id = ANY(:ids) AND c.kind IN ('CAPTURE', 'VOID')")
_CONDITIONS = {
    "MEMBER": MEMBER_CONDITIONS,
    "TRANSACTION": TRANSACTION_CONDITIONS,
    "HOLD": HOLD_CONDITIONS,
    "PARKED": PARKED_CONDITIONS,
}


@cache
def _page_query(select: str, order: str, table: str, *conditions: str) -> TextClause:
    """The select with these conditions, latest first; one statement per combination of filters."""
    where = "".join(f" AND {_CONDITIONS[table][name]}" for name in conditions)
    return text(f"{select}{where} ORDER BY {order} DESC LIMIT :limit")


def _command(row: Sequence[Any]) -> CommandRow:
    return CommandRow(row[0], row[1], row[2], CommandKind(row[3]), *row[4:])


async def transactions_page(connection: AsyncConnection, conditions: Mapping[str, Any], limit: int) -> list[CommandRow]:
    """Commands but enrolments that meet the conditions (names of TRANSACTION_CONDITIONS), latest id first."""
    query = _page_query(TRANSACTIONS_SQL, "c.id", "TRANSACTION", *conditions)
    return [_command(row) for row in await connection.execute(query, {**conditions, "limit": limit})]


async def transactions_by_id(connection: AsyncConnection, ids: Sequence[int]) -> dict[int, CommandRow]:
    """Commands but enrolments by their ids, as far as the viewer may see them."""
    return {row[0]: _command(row) for row in await connection.execute(TRANSACTIONS_BY_ID_SQL, {"ids": list(ids)})}


async def holds_page(connection: AsyncConnection, conditions: Mapping[str, Any], limit: int) -> list[HoldRow]:
    """Holds that meet the conditions (names of HOLD_CONDITIONS), latest id first."""
    query = _page_query(HOLDS_SQL, "h.command_id", "HOLD", *conditions)
    return [_hold(row) for row in await connection.execute(query, {**conditions, "limit": limit})]


async def hold_by_id(connection: AsyncConnection, account_id: int, hold_id: int) -> HoldRow | None:
    """One hold, as far as the viewer may see it."""
    row = (await connection.execute(HOLD_BY_ID_SQL, {"account": account_id, "id": hold_id})).one_or_none()
    return None if row is None else _hold(row)


def _hold(row: Sequence[Any]) -> HoldRow:
    width = len(HoldView._fields)
    return HoldRow(HoldView(*row[:width]), *row[width:])


async def parked_page(connection: AsyncConnection, conditions: Mapping[str, Any], limit: int) -> list[ParkedReversal]:
    """Parked reversals that meet the conditions (names of PARKED_CONDITIONS), latest id first."""
    query = _page_query(PARKED_SQL, "e.id", "PARKED", *conditions)
    rows = [ParkedReversal(*row) for row in await connection.execute(query, {**conditions, "limit": limit})]
    return [row._replace(kind=None if row.kind is None else CommandKind(row.kind)) for row in rows]


async def resolutions_of(connection: AsyncConnection, hold_ids: Sequence[int]) -> dict[int, CommandRow]:
    """The captures and voids of these holds, by the hold's id."""
    rows = map(_command, await connection.execute(RESOLUTIONS_SQL, {"ids": list(hold_ids)}))
    return {row.reverses_id: row for row in rows if row.reverses_id is not None}


async def line_commands(
    connection: AsyncConnection, lines: Sequence[tuple[int, int, Sequence[str]]], before: int, limit: int
) -> list[list[int]]:
    """Per (period id, party id, movement kinds) of a statement line, the commands that make it, latest first."""
    arguments = {
        "periods": [period_id for period_id, _, _ in lines],
        "parties": [party_id for _, party_id, _ in lines],
        "kinds": [",".join(kinds) for _, _, kinds in lines],
        "before": before,
        "limit": limit,
    }
    found: list[list[int]] = [[] for _ in lines]
    for number, command_id in await connection.execute(LINE_COMMANDS_SQL, arguments):
        found[number - 1].append(command_id)
    return found


async def movements_of(connection: AsyncConnection, command_ids: Sequence[int]) -> dict[int, list[MovementRow]]:
    """Movements per command, in the order in which they were posted."""
    found: dict[int, list[MovementRow]] = {}
    for row in await connection.execute(MOVEMENTS_SQL, {"ids": list(command_ids)}):
        found.setdefault(row[2], []).append(MovementRow(*row))
    return found


async def lot_uses_of(connection: AsyncConnection, movement_ids: Sequence[int]) -> dict[int, list[LotUseRow]]:
    """Lot uses per movement, in the order in which the lots paid."""
    found: dict[int, list[LotUseRow]] = {}
    for row in await connection.execute(LOT_USES_SQL, {"ids": list(movement_ids)}):
        found.setdefault(row[0], []).append(LotUseRow(*row))
    return found


PARTNER_COLUMNS_SQL = f"SELECT {PARTNER_COLUMNS} FROM partner"  # noqa: S608 (a constant)
PARTNERS_BY_ID_SQL = text(f"{PARTNER_COLUMNS_SQL} WHERE id = ANY(:ids)")
PARTNER_BY_CODE_SQL = text(f"{PARTNER_COLUMNS_SQL} WHERE code = :code")
PARTNERS_PAGE_SQL = text(f"{PARTNER_COLUMNS_SQL} WHERE id > :after ORDER BY id LIMIT :limit")
STORES_SQL = text(
    "SELECT id, partner_id, code, name FROM store"
    " WHERE id = ANY(:ids) OR partner_id = ANY(:partners) ORDER BY partner_id, code"
)
BUDGET_WINDOWS_SQL = text(
    f"""
    SELECT plan.partner_id, coalesce(b.limit_micro, plan.limit_micro),
           coalesce({LIVE_OVERDRAFT_SQL}, plan.overdraft_micro),
           coalesce(b.consumed_micro, 0), coalesce(b.reserved_micro, 0), b.alerted_at, plan.funding, b.id
      FROM budget_plan AS plan
      LEFT JOIN budget AS b
        ON b.plan_id = plan.id AND b.period_id = CASE WHEN plan.per_period THEN CAST(:period AS integer) ELSE 0 END
     WHERE plan.partner_id = ANY(:ids) AND plan.valid @> CAST(:day AS date)
    """  # noqa: S608 (a constant of this application)
)


async def partners_by_id(connection: AsyncConnection, ids: Sequence[int]) -> dict[int, Partner]:
    """Partners by their ids."""
    return {row[0]: Partner(*row) for row in await connection.execute(PARTNERS_BY_ID_SQL, {"ids": list(ids)})}


async def partner_by_code(connection: AsyncConnection, code: str) -> Partner | None:
    """The partner with that code."""
    row = (await connection.execute(PARTNER_BY_CODE_SQL, {"code": code})).one_or_none()
    return None if row is None else Partner(*row)


async def partners_page(connection: AsyncConnection, after: int, limit: int) -> list[Partner]:
    """Partners after that id, ascending."""
    rows = await connection.execute(PARTNERS_PAGE_SQL, {"after": after, "limit": limit})
    return [Partner(*row) for row in rows]


async def stores_of(
    connection: AsyncConnection, *, ids: Sequence[int] = (), partners: Sequence[int] = ()
) -> list[Store]:
    """Stores with these ids or of these partners, by code."""
    rows = await connection.execute(STORES_SQL, {"ids": list(ids), "partners": list(partners)})
    return [Store(*row) for row in rows]


async def budget_windows(
    connection: AsyncConnection, partner_ids: Sequence[int], day: date, period_id: int, now: datetime
) -> dict[int, BudgetView]:
    """Per partner, the budget window of that local day and period; one that nothing drew on yet is its plan."""
    arguments = {"ids": list(partner_ids), "day": day, "period": period_id, "now": now}
    return {row[0]: BudgetView(*row) for row in await connection.execute(BUDGET_WINDOWS_SQL, arguments)}
