"""Both sides' books in one form, part by part: what must be equal after every step."""

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.database import Database
from domain.reading import members_by_identifier
from tests.model.auditor import Auditor

LOTS_SQL = """
    SELECT i.value, l.issuer_id, l.funder_id, l.price_micro, l.granted, l.remaining, l.earned_at,
           coalesce(l.grace_until, l.expires_at)
      FROM lot AS l JOIN member AS m ON m.account_id = l.account_id JOIN member_identifier AS i ON i.member_id = m.id
     ORDER BY l.id
"""
ACCOUNTS_SQL = """
    SELECT i.value, a.available FROM account AS a
      JOIN member AS m ON m.account_id = a.id JOIN member_identifier AS i ON i.member_id = m.id
"""
BUDGETS_SQL = """
    SELECT b.partner_id, p.label, b.consumed_micro FROM budget AS b JOIN period AS p ON p.id = b.period_id
     WHERE b.consumed_micro <> 0
"""
POSITIONS_SQL = """
    SELECT p.label, q.partner_id, q.kind, q.entries, q.points::bigint, q.amount_micro::bigint,
           q.prior_amount_micro::bigint FROM position AS q JOIN period AS p ON p.id = q.period_id
"""
CLOSED_SQL = "SELECT label, pool_micro::bigint, margin_micro::bigint FROM period WHERE state = 'CLOSED' ORDER BY id"
NETS_SQL = """
    SELECT p.label, s.partner_id, s.net_minor::bigint FROM statement AS s JOIN period AS p ON p.id = s.period_id
"""
LINES_SQL = """
    SELECT p.label, s.partner_id, s.kind, s.entries, coalesce(s.points, 0)::bigint, s.exact_micro::bigint,
           s.prior_exact_micro::bigint, s.billed_minor::bigint
      FROM statement_line AS s JOIN period AS p ON p.id = s.period_id
"""
DOCUMENTS_SQL = "SELECT period_id, partner_id, document FROM statement"


async def books_of_product(database: Database, codes: dict[int, str], now: datetime) -> dict[str, Any]:
    """What the tables say; ``codes`` are the partners' by id, the operator's too."""
    async with database.reading(0) as connection:
        cards = [("card", row[0]) for row in await _rows(connection, ACCOUNTS_SQL)]
        members = await members_by_identifier(connection, cards, now)
    async with database.posting("REPEATABLE READ") as connection:
        lots, closed = await _rows(connection, LOTS_SQL), await _rows(connection, CLOSED_SQL)
        nets, lines = await _rows(connection, NETS_SQL), await _rows(connection, LINES_SQL)
        return {
            "balances": {card: row.balance.available for (_, card), row in members.items()},
            "accounts": dict(await _rows(connection, ACCOUNTS_SQL)),
            "lots": [(card, codes[issuer], codes[funder], *rest) for card, issuer, funder, *rest in lots],
            "budgets": {(codes[partner], label): used for partner, label, used in await _rows(connection, BUDGETS_SQL)},
            "positions": {
                (label, codes[partner], kind): sums
                for label, partner, kind, *sums in await _rows(connection, POSITIONS_SQL)
            },
            "closed": {
                label: {
                    "lines": {(codes[row[1]], row[2]): [*row[3:]] for row in lines if row[0] == label},
                    "nets": {codes[partner]: net for period, partner, net in nets if period == label},
                    "pool": pool,
                    "margin": margin,
                }
                for label, pool, margin in closed
            },
        }


async def documents_of_product(database: Database) -> dict[tuple[int, int], bytes]:
    """The bytes of every closed statement."""
    async with database.posting() as connection:
        return {(period, partner): bytes(stored) for period, partner, stored in await _rows(connection, DOCUMENTS_SQL)}


def books_of_auditor(auditor: Auditor, now: datetime) -> dict[str, Any]:
    """The same, as the auditor has it."""
    accounts: defaultdict[str, int] = defaultdict(int, dict.fromkeys(auditor.cards, 0))
    for lot in auditor.lots:
        accounts[lot["card"]] += lot["left"]
    return {
        "balances": {card: auditor.balance(card, now) for card in auditor.cards},
        "accounts": dict(accounts),
        "lots": [
            (lot["card"], lot["issuer"], lot["funder"], lot["price"], lot["granted"], lot["left"],
             lot["earned"], lot["until"].astimezone(UTC))
            for lot in sorted(auditor.lots, key=lambda lot: bool(lot["is_history"]))
        ],
        "budgets": {window: used for window, used in auditor.consumed.items() if used},
        "positions": dict(auditor.positions),
        "closed": auditor.closed,
    }  # fmt: skip


async def _rows(connection: AsyncConnection, sql: str) -> list[Any]:
    return list((await connection.execute(text(sql))).all())
