"""Both sides' books in one form, part by part: what must be equal after every step."""

from collections import Counter
from datetime import datetime
from typing import Any

import asyncpg

from domain.database import Database
from domain.reading import members_by_identifier
from tests.model.auditor import Auditor
from tests.model.owing import owed

ACCOUNTS_SQL = "SELECT id, available, pending, held, owed FROM account"
DEBTS_SQL = "SELECT account_id, funder_id, price_micro, points, open_points FROM debt"
CARDS_SQL = "SELECT i.value, m.account_id FROM member_identifier AS i JOIN member AS m ON m.id = i.member_id"
LOTS_SQL = """
    SELECT account_id, issuer_id, funder_id, price_micro, granted, remaining, reserved, earned_at,
           expires_at, grace_until, parent_id IS NOT NULL FROM lot
"""
AWARDS_SQL = "SELECT account_id, funder_id, open_points, release_at, waits_for_payment FROM pending_award"
HOLDS_SQL = "SELECT account_id, partner_id, points, captured, state, expires_at FROM hold"
PARKED_SQL = "SELECT partner_id, idempotency_key, state || coalesce(' ' || refusal_code, '') FROM early_reversal"
BUDGETS_SQL = """
    SELECT coalesce('campaign ' || c.code, w.code), coalesce(p.label, ''), b.consumed_micro, b.reserved_micro,
           b.limit_micro, b.overdraft_micro, b.alerted_at,
           CAST(ARRAY(SELECT ARRAY[f.amount_micro, f.used_micro] FROM float_block AS f
                       WHERE f.budget_id = b.id ORDER BY f.occurred_at, f.id) AS text)
      FROM budget AS b JOIN budget_plan AS l ON l.id = b.plan_id LEFT JOIN campaign AS c ON c.id = l.campaign_id
      LEFT JOIN partner AS w ON w.id = l.partner_id LEFT JOIN period AS p ON p.id = b.period_id
     WHERE b.consumed_micro <> 0 OR b.reserved_micro <> 0 OR b.alerted_at IS NOT NULL
"""
POSITIONS_SQL = """
    SELECT p.label, q.partner_id, q.kind, q.entries, q.points::bigint, q.amount_micro::bigint,
           q.prior_amount_micro::bigint FROM position AS q JOIN period AS p ON p.id = q.period_id
"""
CLOSED_SQL = """
    SELECT label, pool_micro::bigint, margin_micro::bigint, receivable_change_micro::bigint,
           ARRAY[advice_at, dispute_until, due_at] FROM period WHERE state = 'CLOSED' ORDER BY id
"""
NETS_SQL = """
    SELECT p.label, s.partner_id, s.net_minor::bigint, s.due_minor::bigint, s.carried_on_minor::bigint
      FROM statement AS s JOIN period AS p ON p.id = s.period_id
"""
FINALS_SQL = """
    SELECT p.label, f.partner_id, f.outstanding_points::bigint, f.outstanding_value_micro::bigint
      FROM final_statement AS f JOIN period AS p ON p.id = f.period_id
"""
LINES_SQL = """
    SELECT p.label, s.partner_id, s.kind, s.entries, coalesce(s.points, 0)::bigint, s.exact_micro::bigint,
           s.prior_exact_micro::bigint, s.billed_minor::bigint
      FROM statement_line AS s JOIN period AS p ON p.id = s.period_id
"""
DOCUMENTS_SQL = "SELECT period_id, partner_id, document FROM statement"


async def balances_of_product(database: Database, cards: list[str], now: datetime) -> dict[str, Any]:
    """What members are shown."""
    async with database.reading(0) as connection:
        members = await members_by_identifier(connection, [("card", card) for card in cards], now)
    return {"balances": {card: row.balance[1:4] for (_, card), row in members.items()}}


async def books_of_product(
    connection: "asyncpg.Connection[asyncpg.Record]", codes: dict[int, str], accounts: dict[int, str]
) -> dict[str, Any]:
    """What the tables say; ``codes`` are the partners' by id, the operator's too, ``accounts`` the auditor's names."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        closed = await _rows(connection, CLOSED_SQL)
        nets, lines = await _rows(connection, NETS_SQL), await _rows(connection, LINES_SQL)
        finals = await _rows(connection, FINALS_SQL)
        return {
            "cards": {card: accounts[account] for card, account in await _rows(connection, CARDS_SQL)},
            "accounts": {accounts[one]: tuple(sums) for one, *sums in await _rows(connection, ACCOUNTS_SQL)},
            "lots": Counter(
                (accounts[account], codes[issuer], codes[funder], *rest)
                for account, issuer, funder, *rest in await _rows(connection, LOTS_SQL)
            ),
            "awards": Counter((accounts[a], codes[f], *rest) for a, f, *rest in await _rows(connection, AWARDS_SQL)),
            "holds": Counter((accounts[a], codes[p], *rest) for a, p, *rest in await _rows(connection, HOLDS_SQL)),
            "debts": Counter((accounts[a], codes[f], *rest) for a, f, *rest in await _rows(connection, DEBTS_SQL)),
            "parked": Counter((codes[p], *rest) for p, *rest in await _rows(connection, PARKED_SQL)),
            "budgets": {(owner, label): tuple(sums) for owner, label, *sums in await _rows(connection, BUDGETS_SQL)},
            "positions": {
                (label, codes[partner], kind): sums
                for label, partner, kind, *sums in await _rows(connection, POSITIONS_SQL)
            },
            "closed": {
                label: {
                    "lines": {(codes[row[1]], row[2]): [*row[3:]] for row in lines if row[0] == label},
                    "nets": {codes[row[1]]: row[2] for row in nets if row[0] == label},
                    "due": {codes[row[1]]: row[3] for row in nets if row[0] == label},
                    "left": {codes[row[1]]: row[4] for row in nets if row[0] == label},
                    "pool": pool,
                    "margin": margin,
                    "lent": lent,
                    "dates": tuple(dates),
                    "finals": {codes[row[1]]: (*row[2:],) for row in finals if row[0] == label},
                }
                for label, pool, margin, lent, dates in closed
            },
        }


async def documents_of_product(connection: "asyncpg.Connection[asyncpg.Record]") -> dict[tuple[int, int], bytes]:
    """The bytes of every closed statement."""
    return {(period, partner): bytes(stored) for period, partner, stored in await _rows(connection, DOCUMENTS_SQL)}


def books_of_auditor(auditor: Auditor, now: datetime) -> dict[str, Any]:
    """The same, as the auditor has it."""
    names = set(auditor.account_of) | {f"pool {name}" for name in auditor.pools}
    return {
        "balances": {card: auditor.balance(auditor.account(card), now) for card in auditor.account_of},
        "cards": {card: auditor.account(card) for card in auditor.account_of},
        "accounts": {name: _account(auditor, name) for name in names},
        "lots": Counter(
            (lot["account"], lot["issuer"], lot["funder"], lot["price"], lot["granted"], lot["left"], lot["held"],
             lot["earned"], lot["expires"], lot["until"] if lot["grace"] else None, lot["parent"] is not None)
            for lot in auditor.lots
        ),
        "awards": Counter(
            (one["account"], one["funder"], one["open"], one["release"], one["waits"]) for one in auditor.awards
        ),
        "holds": Counter(
            (one["account"], one["partner"], one["points"], one["captured"], one["state"], one["until"])
            for one in auditor.holds
        ),
        "debts": Counter(
            (one["account"], one["funder"], one["price"], one["points"], one["open"]) for one in auditor.debts
        ),
        "parked": Counter((*one["key"], one["state"]) for one in auditor.parked),
        "budgets": {
            (owner, label): (
                one["consumed"], one["reserved"], one["limit"], one["overdraft"], one["alerted"], _blocks(one),
            )
            for (owner, _, label), one in auditor.windows.items()
            if one["consumed"] or one["reserved"] or one["alerted"]
        },
        "positions": dict(auditor.positions),
        "closed": auditor.closed,
    }  # fmt: skip


def _account(auditor: Auditor, name: str) -> tuple[int, int, int, int]:
    """Available points, expired ones that nobody booked included; pending, held and owed ones."""
    _, pending, held = auditor.balance(name, auditor.now)
    return sum(lot["left"] for lot in auditor.lots if lot["account"] == name), pending, held, owed(auditor, name)


def _blocks(window: dict[str, Any]) -> str:
    blocks = sorted(window["blocks"], key=lambda block: block[0])
    return f"{{{','.join(f'{{{amount},{used}}}' for _, amount, used, _ in blocks)}}}"


async def _rows(connection: "asyncpg.Connection[asyncpg.Record]", sql: str) -> list[Any]:
    return [tuple(row) for row in await connection.fetch(sql)]
