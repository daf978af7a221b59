"""Where it is wrong: the joins that name the rows at which an invariant fails.

A close runs one only when a checksum disagrees, ``verify`` runs them all. Each answers at most PLACES_MAX + 1 lines.
"""

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ledger import FINGERPRINT_SQL
from settlement.scan import PARTNER_ENTRY_HASH_SQL, TRANSACTION_HASH_SQL

PLACES_MAX = 20
"""Most rows that one check names; the rest is counted as "and more"."""


def _places(body: str, order: str) -> TextClause:
    return text(f"{body} ORDER BY {order} LIMIT {PLACES_MAX + 1}")


def _in_scope(column: str) -> str:
    return f"(CAST(:period_id AS integer) IS NULL OR {column} = CAST(:period_id AS integer))"


ALTERED_TRANSACTIONS_SQL = _places(
    f"""
    SELECT format('transaction %s (command %s, %s, partner %s) was altered', t.id, t.command_id, t.kind,
                  coalesce(p.code, 'operator')) AS place
      FROM transaction AS t LEFT JOIN partner AS p ON p.id = t.partner_id
     WHERE {_in_scope("t.period_id")} AND t.row_hash <> {TRANSACTION_HASH_SQL}
    """,  # noqa: S608 (assembled from constants)
    "t.id",
)
ALTERED_ENTRIES_SQL = _places(
    f"""
    SELECT format('partner entry %s (%s, partner %s) was altered', e.id, e.kind, coalesce(p.code, 'operator')) AS place
      FROM partner_entry AS e LEFT JOIN partner AS p ON p.id = e.partner_id
     WHERE {_in_scope("e.period_id")} AND e.row_hash <> {PARTNER_ENTRY_HASH_SQL}
    """,  # noqa: S608 (assembled from constants)
    "e.id",
)
BOOKED_APART_SQL = _places(
    f"""
    SELECT CASE WHEN t.id IS NULL THEN format('command %s (%s) has no transaction in its period', c.id, c.kind)
                WHEN c.id IS NULL THEN format('transaction %s (%s) has no command %s in its period', t.id, t.kind,
                                            t.command_id)
                ELSE format('transaction %s and its command %s differ in account or time', t.id, c.id) END AS place
      FROM (SELECT * FROM command AS c WHERE {_in_scope("c.period_id")} AND c.kind <> 'ENROLL') AS c
      FULL JOIN (SELECT * FROM transaction AS t WHERE {_in_scope("t.period_id")}) AS t
        ON t.command_id = c.id AND t.period_id = c.period_id
     WHERE c.id IS NULL OR t.id IS NULL OR c.account_id <> t.account_id OR c.recorded_at <> t.recorded_at
    """,  # noqa: S608 (assembled from constants)
    "coalesce(c.id, t.command_id), t.id",
)
LOTS_SQL = _places(
    """
    SELECT format('lot %s of account %s: granted %s, used %s, remaining %s, reserved %s',
                  coalesce(l.id, u.lot_id), coalesce(l.account_id, u.account_id), l.granted,
                  coalesce(u.used, 0), l.remaining, l.reserved) AS place
      FROM lot AS l
      FULL JOIN (SELECT account_id, lot_id, sum(CASE kind WHEN 'BURN_REVERSAL' THEN -points ELSE points END) AS used
                   FROM lot_use GROUP BY account_id, lot_id) AS u
        ON u.account_id = l.account_id AND u.lot_id = l.id
     WHERE l.id IS NULL OR l.granted - l.remaining - l.reserved <> coalesce(u.used, 0)
        OR l.remaining NOT BETWEEN 0 AND l.granted OR l.reserved < 0
    """,
    "coalesce(l.id, u.lot_id)",
)
ACCOUNTS_SQL = _places(
    """
    SELECT format('account %s: available %s, pending %s, held %s; its lots remain %s and reserve %s, its movements'
                  ' sum to %s',
                  coalesce(a.id, l.account_id, t.account_id), a.available, a.pending, a.held, coalesce(l.remaining, 0),
                  coalesce(l.reserved, 0), coalesce(t.points, 0)) AS place
      FROM account AS a
      FULL JOIN (SELECT account_id, sum(remaining) AS remaining, sum(reserved) AS reserved
                   FROM lot GROUP BY account_id) AS l
        ON l.account_id = a.id
      FULL JOIN (SELECT account_id, sum(points) AS points FROM transaction GROUP BY account_id) AS t
        ON t.account_id = coalesce(a.id, l.account_id)
     WHERE a.id IS NULL OR a.available <> coalesce(l.remaining, 0) OR a.held <> coalesce(l.reserved, 0)
        OR a.pending <> 0        OR a.available + a.held <> coalesce(t.points, 0)
    """,
    "coalesce(a.id, l.account_id, t.account_id)",
)
COPIED_SQL = _places(
    """
    SELECT format('use %s (%s, transaction %s) copies issuer %s, funder %s, price %s of lot %s, which has %s, %s, %s',
                  u.id, u.kind, u.transaction_id, u.issuer_id, u.funder_id, u.price_micro, u.lot_id,
                  l.issuer_id, l.funder_id, l.price_micro) AS place
      FROM lot_use AS u LEFT JOIN lot AS l ON l.account_id = u.account_id AND l.id = u.lot_id
     WHERE (u.issuer_id, u.funder_id, u.price_micro) IS DISTINCT FROM (l.issuer_id, l.funder_id, l.price_micro)
    """,
    "u.id",
)
USES_SQL = _places(
    """
    SELECT format('transaction %s (%s) moves %s points worth %s, its lot uses %s worth %s',
                  coalesce(t.id, u.transaction_id), coalesce(t.kind, u.kind), t.points, t.pool_value_micro,
                  coalesce(u.points, 0), coalesce(u.value, 0)) AS place
      FROM (SELECT * FROM transaction WHERE kind <> 'EARN') AS t
      FULL JOIN (SELECT account_id, transaction_id, kind, min(redeemer_id) AS redeemer_id, min(period_id) AS period_id,
                        sum(CASE kind WHEN 'BURN_REVERSAL' THEN points ELSE -points END) AS points,
                        sum(CASE kind WHEN 'BURN_REVERSAL' THEN points ELSE -points END * price_micro) AS value
                   FROM lot_use GROUP BY account_id, transaction_id, kind) AS u
        ON u.account_id = t.account_id AND u.transaction_id = t.id AND u.kind = t.kind
     WHERE t.id IS NULL OR t.points <> coalesce(u.points, 0) OR t.pool_value_micro <> coalesce(u.value, 0)
        OR t.period_id <> coalesce(u.period_id, t.period_id)
        OR (t.kind IN ('BURN', 'BURN_REVERSAL') AND u.redeemer_id IS DISTINCT FROM t.party_id)
    """,
    "coalesce(t.id, u.transaction_id)",
)
GRANTS_SQL = _places(
    """
    SELECT format('award %s grants %s points, its lot holds %s', coalesce(t.id, l.transaction_id), t.points,
                  coalesce(l.granted, 0)) AS place
      FROM (SELECT * FROM transaction WHERE kind = 'EARN') AS t
      FULL JOIN (SELECT account_id, transaction_id, sum(granted) AS granted
                   FROM lot GROUP BY account_id, transaction_id) AS l
        ON l.account_id = t.account_id AND l.transaction_id = t.id
     WHERE t.id IS NULL OR t.points <> coalesce(l.granted, 0)
    """,
    "coalesce(t.id, l.transaction_id)",
)
COMMAND_SUMS_SQL = _places(
    f"""
    SELECT format('command %s (%s): points %s, declined %s; its transactions move %s of %s requested', c.id,
                  c.kind, coalesce(c.points::text, 'unnamed'), c.declined_points, t.points, t.requested) AS place
      FROM command AS c
      JOIN (SELECT command_id, sum(points) AS points, sum(requested_points) AS requested,
                   sum(points) FILTER (WHERE kind <> 'EARN_REVERSAL') AS asked
              FROM transaction GROUP BY command_id) AS t
        ON t.command_id = c.id
     WHERE {_in_scope("c.period_id")}
       AND CASE c.kind WHEN 'EARN' THEN t.requested - t.points <> c.declined_points
                       WHEN 'REVERSAL' THEN coalesce(t.asked, 0) <> coalesce(c.points, 0)
                       ELSE t.points <> -c.points END
    """,  # noqa: S608 (assembled from constants)
    "c.id",
)
# At other prices than its original's it is bent too: value x points crosswise is exact, a division would not be.
_BENT = """(r.kind, r.party_id, r.terms_id, r.reverses_period_id)
              IS DISTINCT FROM (o.kind || '_REVERSAL', o.party_id, o.terms_id, o.period_id)
        OR r.issue_value_micro::numeric * o.points <> o.issue_value_micro::numeric * r.points
        OR r.service_fee_micro::numeric * o.points <> o.service_fee_micro::numeric * r.points
        OR r.reimbursement_micro::numeric * o.points <> o.reimbursement_micro::numeric * r.points"""
REVERSALS_SQL = _places(
    f"""
    SELECT CASE WHEN o.id IS NULL
                THEN format('transaction %s reverses %s, which does not exist', min(r.id), r.reverses_id)
                WHEN bool_or({_BENT})
                THEN format('a reversal of transaction %s carries another party, terms, price or period', o.id)
                ELSE format('reversals of transaction %s undo %s of %s points', o.id,
                            sum(abs(r.points) + r.shortfall_points), abs(o.points)) END AS place
      FROM transaction AS r LEFT JOIN transaction AS o ON o.account_id = r.account_id AND o.id = r.reverses_id
     WHERE r.reverses_id IS NOT NULL
     GROUP BY r.account_id, r.reverses_id, o.id, o.points
    HAVING bool_or({_in_scope("r.period_id")})
       AND (o.id IS NULL OR bool_or({_BENT}) OR sum(abs(r.points) + r.shortfall_points) > abs(o.points))
    """,  # noqa: S608 (assembled from constants)
    "r.reverses_id",
)
UNLINKED_REVERSALS_SQL = _places(
    f"""
    SELECT format('transaction %s (%s) names no original', t.id, t.kind) AS place
      FROM transaction AS t
     WHERE {_in_scope("t.period_id")} AND t.kind IN ('EARN_REVERSAL', 'BURN_REVERSAL') AND t.reverses_id IS NULL
    """,  # noqa: S608 (assembled from constants)
    "t.id",
)
FINGERPRINTS_SQL = _places(
    f"""
    SELECT format('command %s (%s, key %s) does not match its fingerprint', c.id, c.kind, c.idempotency_key) AS place
      FROM command AS c WHERE {_in_scope("c.period_id")} AND c.fingerprint <> {FINGERPRINT_SQL}
    """,  # noqa: S608 (assembled from constants)
    "c.id",
)
DUPLICATE_KEYS_SQL = _places(
    """
    SELECT format('key %s of partner %s stands on commands %s', c.idempotency_key, c.partner_id,
                  string_agg(c.id::text, ', ')) AS place
      FROM command AS c GROUP BY c.partner_id, c.idempotency_key HAVING count(*) > 1
    """,
    "c.partner_id, c.idempotency_key",
)
# The index behind the constraint is what keeps keys unique; a close trusts it where it stands and is whole.
KEY_INDEX_SQL = text(
    "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('command_key_unique') AND indisunique AND indisvalid"
)


async def find(connection: AsyncConnection, statement: TextClause, period_id: int | None) -> list[str]:
    """The places that one statement names, in words."""
    parameters = {"period_id": period_id} if "period_id" in statement.compile().params else {}
    return [row.place for row in await connection.execute(statement, parameters)]
