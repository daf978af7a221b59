"""Rows that are not as the application wrote them: verification alone asks.

What other rows say can be compared with them (``settlement.copies``, ``settlement.places``). Whose household a member
is in, under which key a till posted, or when points expire, is said once: commands, lots and pending awards carry a
hash in the row, and of every row of the tables below each column was hashed into a seal when the posting role wrote it
(migration 0029). Who changes a row otherwise, whatever triggers sleep, leaves a seal that does not fit.
"""

from collections import defaultdict

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ledger import HASHED_COMMAND_COLUMNS, award_hash_sql, lot_hash_sql, row_hash_sql
from settlement.places import PLACES_MAX

SEALED_TABLES = {
    3: ("member", "member_identifier", "member_merge", "pool", "pool_member", "debt"),
    8: ("tax_rate", "final_statement"),
    9: (
        "installation", "programme", "partner", "store", "period", "proposal", "adjustment", "dispute",
        "dispute_transaction",
    ),
    10: ("terms", "recall"),
    11: ("budget_plan", "campaign", "budget", "overdraft", "budget_alert", "float_block"),
    12: ("early_reversal",),
    13: ("earn_rule",),
    16: (
        "payment", "deposit_requirement", "deposit_payment", "partner_default", "default_offset", "recovery",
    ),
    17: ("hold",),
}  # fmt: skip
"""By invariant, the tables on whose rows it rests and whose rows are sealed."""

BROKEN_SEALS_SQL = text(
    f"""
    SELECT t.relation, b.place
      FROM unnest(CAST(:relations AS text[])) WITH ORDINALITY AS t (relation, number)
     CROSS JOIN LATERAL broken_seals(t.relation, {PLACES_MAX + 1}) AS b (place)
     ORDER BY t.number
    """  # noqa: S608 (a number)
)
ALTERED_ROWS = {
    2: text(
        f"""
        SELECT format('lot %s of account %s was altered: earned at %s, expires at %s, grace until %s, rolling %s', l.id,
                      l.account_id, l.earned_at, l.expires_at, l.grace_until, l.rolling_months) AS place
          FROM lot AS l WHERE l.row_hash <> {lot_hash_sql("l")} ORDER BY l.id LIMIT {PLACES_MAX + 1}
        """  # noqa: S608 (constants)
    ),
    12: text(
        f"""
        SELECT format('command %s (%s, key %s) was altered', c.id, c.kind, c.idempotency_key) AS place
          FROM command AS c WHERE c.row_hash <> {row_hash_sql(HASHED_COMMAND_COLUMNS, "c")}
         ORDER BY c.id LIMIT {PLACES_MAX + 1}
        """  # noqa: S608 (constants)
    ),
    18: text(
        f"""
        SELECT format('pending award %s of account %s was altered: release at %s, waits for payment %s', p.id,
                      p.account_id, p.release_at, p.waits_for_payment) AS place
          FROM pending_award AS p WHERE p.row_hash <> {award_hash_sql("p")} ORDER BY p.id LIMIT {PLACES_MAX + 1}
        """  # noqa: S608 (constants)
    ),
}


async def seal_problems(connection: AsyncConnection) -> dict[int, list[str]]:
    """By invariant, the rows whose hash or seal is not that of what stands there: table, row and columns."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for number, statement in ALTERED_ROWS.items():
        found[number] += [row.place for row in await connection.execute(statement)]
    number_of = {relation: number for number, relations in SEALED_TABLES.items() for relation in relations}
    for row in await connection.execute(BROKEN_SEALS_SQL, {"relations": list(number_of)}):
        found[number_of[row.relation]].append(row.place)
    return found
