"""Both sides' books of what the desk does, in one form: proposals, disputes, floats, taxes, and lives of statements."""

from collections import defaultdict
from datetime import datetime
from typing import Any

import asyncpg

from domain.database import Database
from settlement.clearing import ClearingDates, statement_state
from settlement.reading import statements_of_periods
from tests.model.desk import PER_MINOR, Desk
from tests.model.ledger import OPERATOR

PROPOSALS_SQL = (
    "SELECT kind, partner_id, state, amount_micro, points, proposed_by, decided_by FROM proposal ORDER BY id"
)
DISPUTES_SQL = """
    SELECT p.label, d.partner_id, d.line_kind, d.amount_minor, d.withheld_minor, d.state, d.accepted_minor
      FROM dispute AS d JOIN period AS p ON p.id = d.period_id ORDER BY d.id
"""
BLOCKS_SQL = """
    SELECT f.partner_id, lower(l.valid), f.occurred_at, f.amount_micro, f.used_micro, f.entry_id IS NOT NULL
      FROM float_block AS f JOIN budget AS b ON b.id = f.budget_id JOIN budget_plan AS l ON l.id = b.plan_id
     ORDER BY f.occurred_at, f.id
"""
TAXES_SQL = """
    SELECT p.label, t.partner_id, t.kind, t.taxable_minor::bigint, t.tax_minor::bigint
      FROM statement_tax AS t JOIN period AS p ON p.id = t.period_id
"""
TOTALS_SQL = """
    SELECT label, operator_net_minor::bigint, tax_micro::bigint, deposit_change_micro::bigint FROM period
     WHERE state = 'CLOSED'
"""
PERIODS_SQL = "SELECT id, label, advice_at, dispute_until, due_at FROM period WHERE state = 'CLOSED'"


async def desk_of_product(
    connection: "asyncpg.Connection[asyncpg.Record]", database: Database, codes: dict[int, str], now: datetime
) -> dict[str, Any]:
    """What the tables say, and of statements what their reader is told."""
    floats: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    for partner, begins, *block in await connection.fetch(BLOCKS_SQL):
        floats[codes[partner], str(begins)].append(tuple(block))
    periods = {row[0]: (row[1], ClearingDates(*row[2:])) for row in await connection.fetch(PERIODS_SQL)}
    statements = {}
    for period_id, found in (await statements_of_periods(database, 0, list(periods))).items():
        label, dates = periods[period_id]
        for one in found:
            state = statement_state(
                dates, now, is_draft=one.is_draft, due_minor=one.to_pay_minor, open_minor=one.open_minor
            )
            sums = (one.due_minor, one.paid_minor, one.withheld_minor, one.written_off_minor, one.recovered_minor)
            statements[label, codes[one.partner_id]] = (*sums, one.open_minor, str(state))
    return {
        "proposals": [(row[0], codes[row[1]], *row[2:]) for row in await connection.fetch(PROPOSALS_SQL)],
        "disputes": [(row[0], codes[row[1]], *row[2:]) for row in await connection.fetch(DISPUTES_SQL)],
        "floats": {key: blocks for key, blocks in floats.items() if _is_touched(blocks)},
        "taxes": {(row[0], codes[row[1]], row[2]): tuple(row[3:]) for row in await connection.fetch(TAXES_SQL)},
        "totals": {row[0]: tuple(row[1:]) for row in await connection.fetch(TOTALS_SQL)},
        "statements": statements,
    }


def desk_of_auditor(desk: Desk, now: datetime) -> dict[str, Any]:
    """The same, as the auditor has it."""
    ledger, statements = desk.ledger, desk.statements
    keys = [(label, partner) for label, closed in ledger.closed.items() for partner in closed["nets"]]
    proposals = [
        (
            one["kind"], one["partner"], one["state"], one["minor"] and one["minor"] * PER_MINOR, one.get("points"),
            one["client"], one["by"],
        )
        for one in desk.proposals
    ]  # fmt: skip
    shown = {}
    for key in keys:
        one = statements.balance(*key)
        sums = (one.due, one.paid, statements.withheld(*key), one.let_off, one.recovered)
        shown[key] = (*sums, statements.left(*key), statements.state(*key, now))
    return {
        "proposals": proposals,
        "disputes": [
            (one["label"], one["partner"], one["kind"], one["minor"], one["withheld"], one["state"], one["accepted"])
            for one in statements.disputes
        ],
        "floats": {
            (owner, begins): [tuple(block) for block in sorted(window["blocks"], key=lambda block: block[0])]
            for (owner, begins, _), window in ledger.windows.items()
            if _is_touched(window["blocks"])
        },
        "taxes": {(label, *key): parts for label, closed in ledger.taxes.items() for key, parts in closed.items()},
        "totals": {label: _totals(closed) for label, closed in ledger.closed.items()},
        "statements": shown,
    }


def _is_touched(blocks: list[Any]) -> bool:
    """Not only opened: when the product makes a row of what nobody used is its own affair."""
    return any(used or is_paid_in for _, _, used, is_paid_in in blocks)


def _totals(closed: dict[str, Any]) -> tuple[int, int, int]:
    """The operator's net, what it takes in tax, and by how much what partners had paid in before changes."""
    of_kind: defaultdict[str, int] = defaultdict(int)
    for (partner, kind), figures in closed["lines"].items():
        of_kind[kind] -= figures[2] if partner != OPERATOR else 0
    return -sum(closed["nets"].values()), of_kind["TAX"], of_kind["PREPAID"]
