"""Where it is wrong: the joins that name the rows at which an invariant fails.

A close runs one only when a checksum disagrees, ``verify`` runs them all. Each answers at most PLACES_MAX + 1 lines.
"""

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.adjusting import ADJUSTMENT_KEY_PREFIX
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
UNAPPROVED_ENTRIES_SQL = _places(
    """
    SELECT format('partner entry %s (%s, partner %s) is not what an approved proposal says', e.id, e.kind,
                  coalesce(r.code, e.partner_id::text)) AS place
      FROM partner_entry AS e
      LEFT JOIN adjustment AS a ON a.entry_id = e.id
      LEFT JOIN proposal AS p ON p.id = a.proposal_id
      LEFT JOIN partner AS r ON r.id = e.partner_id
     WHERE e.kind = 'ADJUSTMENT' AND (p.state, p.partner_id, p.amount_micro, a.partner_id, a.amount_micro, a.period_id)
           IS DISTINCT FROM ('APPROVED', e.partner_id, e.amount_micro, e.partner_id, e.amount_micro, e.period_id)
    """,
    "e.id",
)
UNAPPROVED_POINTS_SQL = _places(
    f"""
    SELECT format('command %s (ADJUSTMENT) is not what an approved proposal says', c.id) AS place
      FROM command AS c
      JOIN (SELECT command_id, sum(points) AS points FROM transaction WHERE kind = 'ADJUST' GROUP BY command_id) AS t
        ON t.command_id = c.id
      LEFT JOIN proposal AS p ON c.idempotency_key = '{ADJUSTMENT_KEY_PREFIX}' || p.id AND p.kind = 'POINTS'
     WHERE c.kind = 'ADJUSTMENT' AND (p.state, p.points) IS DISTINCT FROM ('APPROVED', t.points)
    """,  # noqa: S608 (a constant)
    "c.id",
)
DISPUTES_SQL = _places(
    """
    SELECT format('dispute %s of partner %s: %s accepted, %s micro-units credited', d.id, d.partner_id,
                  d.accepted_minor, coalesce(a.amount_micro, 0)) AS place
      FROM dispute AS d
      LEFT JOIN (SELECT j.dispute_id, sum(j.amount_micro) AS amount_micro
                   FROM adjustment AS j JOIN proposal AS p ON p.id = j.proposal_id AND p.kind = 'DISPUTE'
                  GROUP BY j.dispute_id) AS a
        ON a.dispute_id = d.id
     WHERE d.accepted_minor * power(10::numeric, 6 - (SELECT currency_digits FROM programme))
           <> coalesce(a.amount_micro, 0)
    """,
    "d.id",
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
     WHERE c.id IS NULL OR t.id IS NULL OR c.recorded_at <> t.recorded_at
        OR (c.account_id <> t.account_id AND c.kind NOT IN ('TRANSFER', 'MERGE', 'UNMERGE'))
    """,  # noqa: S608 (assembled from constants)
    "coalesce(c.id, t.command_id), t.id",
)
LOTS_SQL = _places(
    """
    SELECT format('lot %s of account %s: granted %s, used %s, remaining %s, reserved %s',
                  coalesce(l.id, u.lot_id), coalesce(l.account_id, u.account_id), l.granted,
                  coalesce(u.used, 0), l.remaining, l.reserved) AS place
      FROM lot AS l
      FULL JOIN (SELECT account_id, lot_id,
                        sum(CASE WHEN kind IN ('BURN_REVERSAL', 'TRANSFER_IN') THEN -points
                             WHEN kind IN ('HOLD', 'RELEASE') THEN 0 ELSE points END) AS used,
                        sum(CASE WHEN kind = 'HOLD' THEN points WHEN kind IN ('CAPTURE', 'RELEASE') THEN -points
                             ELSE 0 END) AS reserved
                   FROM lot_use GROUP BY account_id, lot_id) AS u
        ON u.account_id = l.account_id AND u.lot_id = l.id
     WHERE l.id IS NULL OR l.granted - l.remaining - l.reserved <> coalesce(u.used, 0)
        OR l.reserved <> coalesce(u.reserved, 0)
        OR l.remaining NOT BETWEEN 0 AND l.granted OR l.reserved < 0
    """,
    "coalesce(l.id, u.lot_id)",
)
# Per command, and not only in sum: what left one account arrived at another as points of the same kind.
MOVED_SQL = _places(
    """
    SELECT format('command %s moves %s points of issuer %s, funder %s, price %s, but %s arrive', command_id, sum(sent),
                  issuer_id, funder_id, price_micro, sum(arrived)) AS place
      FROM (SELECT t.command_id, u.issuer_id, u.funder_id, u.price_micro, u.points AS sent, 0 AS arrived
              FROM lot_use AS u JOIN transaction AS t ON t.account_id = u.account_id AND t.id = u.transaction_id
             WHERE u.kind = 'TRANSFER_OUT'
             UNION ALL
            SELECT t.command_id, l.issuer_id, l.funder_id, l.price_micro, 0, l.granted
              FROM lot AS l JOIN transaction AS t ON t.account_id = l.account_id AND t.id = l.transaction_id
             WHERE l.parent_id IS NOT NULL
             UNION ALL
            SELECT t.command_id, u.issuer_id, u.funder_id, u.price_micro, 0, u.points
              FROM lot_use AS u JOIN transaction AS t ON t.account_id = u.account_id AND t.id = u.transaction_id
             WHERE u.kind = 'TRANSFER_IN') AS moved
     GROUP BY command_id, issuer_id, funder_id, price_micro
    HAVING sum(sent) <> sum(arrived)
    """,
    "command_id, issuer_id, funder_id, price_micro",
)
CHILDREN_SQL = _places(
    """
    SELECT format('lot %s of account %s is not of the kind of its parent %s', l.id, l.account_id, l.parent_id) AS place
      FROM lot AS l LEFT JOIN lot AS p ON p.id = l.parent_id
     WHERE l.parent_id IS NOT NULL
       AND (l.issuer_id, l.funder_id, l.terms_id, l.price_micro, l.breakage_share_ppm, l.earned_at)
           IS DISTINCT FROM (p.issuer_id, p.funder_id, p.terms_id, p.price_micro, p.breakage_share_ppm, p.earned_at)
    """,
    "l.id",
)
ACCOUNTS_SQL = _places(
    """
    SELECT format('account %s: available %s, pending %s, held %s; its lots remain %s and reserve %s,'
                  ' its pending awards have %s, its movements sum to %s and %s pending',
                  coalesce(a.id, l.account_id, t.account_id), a.available, a.pending, a.held, coalesce(l.remaining, 0),
                  coalesce(l.reserved, 0), coalesce(p.points, 0), coalesce(t.points, 0),
                  coalesce(t.pending, 0)) AS place
      FROM account AS a
      FULL JOIN (SELECT account_id, sum(remaining) AS remaining, sum(reserved) AS reserved
                   FROM lot GROUP BY account_id) AS l
        ON l.account_id = a.id
      FULL JOIN (SELECT account_id,
                        sum(CASE WHEN kind IN ('EARN_PENDING', 'CANCEL', 'HOLD', 'RELEASE', 'OVERDRAW') THEN 0
                                 ELSE points END)
                            AS points,
                        sum(CASE WHEN kind IN ('EARN_PENDING', 'CANCEL') THEN points
                                 WHEN kind = 'CONFIRM' THEN -points ELSE 0 END) AS pending
                   FROM transaction GROUP BY account_id) AS t
        ON t.account_id = coalesce(a.id, l.account_id)
      LEFT JOIN (SELECT account_id, sum(open_points) AS points FROM pending_award GROUP BY account_id) AS p
        ON p.account_id = coalesce(a.id, l.account_id, t.account_id)
     WHERE a.id IS NULL OR a.available <> coalesce(l.remaining, 0) OR a.held <> coalesce(l.reserved, 0)
        OR a.pending <> coalesce(p.points, 0) OR a.pending <> coalesce(t.pending, 0)
        OR a.available + a.held <> coalesce(t.points, 0)
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
      FROM (SELECT * FROM transaction WHERE kind NOT IN ('EARN', 'EARN_PENDING', 'CONFIRM', 'CANCEL', 'OVERDRAW',
                                                         'TRANSFER_IN')
                AND (kind <> 'ADJUST' OR points < 0)) AS t
      FULL JOIN (SELECT account_id, transaction_id, kind, min(redeemer_id) AS redeemer_id, min(period_id) AS period_id,
                        sum(CASE WHEN kind IN ('BURN_REVERSAL', 'RELEASE') THEN points ELSE -points END) AS points,
                        sum(CASE WHEN kind IN ('HOLD', 'RELEASE', 'TRANSFER_OUT') THEN 0
                                 WHEN kind = 'BURN_REVERSAL' THEN points ELSE -points END * price_micro) AS value
                   FROM lot_use WHERE kind <> 'TRANSFER_IN' GROUP BY account_id, transaction_id, kind) AS u
        ON u.account_id = t.account_id AND u.transaction_id = t.id AND u.kind = t.kind
     WHERE t.id IS NULL OR t.points <> coalesce(u.points, 0) OR t.pool_value_micro <> coalesce(u.value, 0)
        OR t.period_id <> coalesce(u.period_id, t.period_id)
        OR (t.kind IN ('BURN', 'CAPTURE', 'BURN_REVERSAL') AND u.redeemer_id IS DISTINCT FROM t.party_id)
    """,
    "coalesce(t.id, u.transaction_id)",
)
GRANTS_SQL = _places(
    """
    SELECT format('award %s grants %s points, its lot holds %s', coalesce(t.id, l.transaction_id), t.points,
                  coalesce(l.granted, 0)) AS place
      FROM (SELECT * FROM transaction WHERE kind IN ('EARN', 'EARN_PENDING', 'CONFIRM', 'TRANSFER_IN')
                OR (kind = 'ADJUST' AND points > 0)) AS t
      FULL JOIN (SELECT account_id, transaction_id, sum(granted) AS granted
                   FROM (SELECT account_id, transaction_id, granted FROM lot
                          UNION ALL SELECT account_id, transaction_id, granted FROM pending_award
                          UNION ALL SELECT account_id, transaction_id, points FROM lot_use
                                     WHERE kind = 'TRANSFER_IN') AS opened
                  GROUP BY account_id, transaction_id) AS l
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
                   sum(points) FILTER (WHERE kind NOT IN ('EARN_REVERSAL', 'OVERDRAW', 'CANCEL', 'RELEASE')) AS asked,
                   sum(points) FILTER (WHERE kind = 'TRANSFER_OUT') AS sent
              FROM transaction GROUP BY command_id) AS t
        ON t.command_id = c.id
     WHERE {_in_scope("c.period_id")}
       AND CASE c.kind WHEN 'EARN' THEN t.requested - t.points <> c.declined_points
                       WHEN 'REVERSAL' THEN coalesce(t.asked, 0) <> coalesce(c.points, 0)
                       WHEN 'CONFIRMATION' THEN t.points <> c.points
                       WHEN 'CAPTURE' THEN t.asked <> -c.points
                       WHEN 'ADJUSTMENT' THEN abs(t.points) <> c.points
                       WHEN 'VOID' THEN false
                       ELSE CASE WHEN c.kind IN ('TRANSFER', 'MERGE', 'UNMERGE')
                                 THEN t.points <> 0 OR t.sent IS DISTINCT FROM -c.points
                                 ELSE t.points <> -c.points END END
    """,  # noqa: S608 (assembled from constants)
    "c.id",
)
# At other prices than its original's it is bent too: value x points crosswise is exact, a division would not be.
_BENT = """(CASE r.kind WHEN 'OVERDRAW' THEN 'EARN_REVERSAL' ELSE r.kind END, r.party_id, r.terms_id,
               r.reverses_period_id)
              IS DISTINCT FROM (CASE o.kind WHEN 'CONFIRM' THEN 'EARN' WHEN 'CAPTURE' THEN 'BURN' ELSE o.kind END
                                || '_REVERSAL', o.party_id, o.terms_id, o.period_id)
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
     WHERE r.reverses_id IS NOT NULL AND r.kind <> 'REPAY'
     GROUP BY r.account_id, r.reverses_id, o.id, o.points
    HAVING bool_or({_in_scope("r.period_id")})
       AND (o.id IS NULL OR bool_or({_BENT}) OR sum(abs(r.points) + r.shortfall_points) > abs(o.points))
    """,  # noqa: S608 (assembled from constants)
    "r.reverses_id",
)
RECALLS_SQL = _places(
    """
    SELECT format('shortfalls of transaction %s: %s points made good, holds brought %s of them',
                  coalesce(t.reverses_id, r.reverses_id), coalesce(t.points, 0), coalesce(r.points, 0)) AS place
      FROM (SELECT account_id, reverses_id, -sum(shortfall_points) AS points
              FROM transaction WHERE shortfall_points < 0 GROUP BY account_id, reverses_id) AS t
      FULL JOIN (SELECT m.account_id, m.reverses_id, sum(taken_points) AS points
                   FROM recall JOIN transaction AS m ON m.account_id = missing_account_id AND m.id = missing_id
                  GROUP BY m.account_id, m.reverses_id) AS r
        ON r.account_id = t.account_id AND r.reverses_id = t.reverses_id
     WHERE coalesce(t.points, 0) <> coalesce(r.points, 0)
    """,
    "coalesce(t.reverses_id, r.reverses_id)",
)
UNLINKED_REVERSALS_SQL = _places(
    f"""
    SELECT format('transaction %s (%s) names no original', t.id, t.kind) AS place
      FROM transaction AS t
     WHERE {_in_scope("t.period_id")} AND t.kind IN ('EARN_REVERSAL', 'OVERDRAW', 'BURN_REVERSAL')
       AND t.reverses_id IS NULL
    """,  # noqa: S608 (assembled from constants)
    "t.id",
)
HOLDS_SQL = _places(
    """
    SELECT format('hold %s (%s): %s held, %s captured, %s released; its movements hold %s, capture %s, release %s',
                  coalesce(h.id, t.id), h.state, h.points, h.captured, h.released, coalesce(-t.points, 0),
                  coalesce(r.captured, 0), coalesce(r.released, 0)) AS place
      FROM hold AS h
      FULL JOIN (SELECT * FROM transaction WHERE kind = 'HOLD') AS t
        ON t.account_id = h.account_id AND t.id = h.transaction_id
      LEFT JOIN (SELECT c.reverses_id AS command_id, -sum(m.points) FILTER (WHERE m.kind = 'CAPTURE') AS captured,
                        sum(m.points) FILTER (WHERE m.kind = 'RELEASE') AS released
                   FROM command AS c JOIN transaction AS m ON m.command_id = c.id
                  WHERE c.kind IN ('CAPTURE', 'VOID') GROUP BY c.reverses_id) AS r
        ON r.command_id = coalesce(h.command_id, t.command_id)
     WHERE h.id IS NULL OR t.id IS NULL OR h.points <> -t.points OR h.command_id <> t.command_id
        OR h.captured <> coalesce(r.captured, 0) OR h.released <> coalesce(r.released, 0)
        OR (h.state <> 'OPEN' AND h.captured + h.released <> h.points)
    """,
    "coalesce(h.id, t.id)",
)
PENDING_SQL = _places(
    """
    SELECT format('award %s of account %s: granted %s, open %s, confirmed %s, its lot holds %s', p.id, p.account_id,
                  p.granted, p.open_points, coalesce(t.confirmed, 0), coalesce(l.granted, 0)) AS place
      FROM pending_award AS p
      LEFT JOIN lot AS l ON l.account_id = p.account_id AND l.id = p.id
      LEFT JOIN LATERAL (SELECT sum(m.points) FILTER (WHERE m.kind = 'CONFIRM') AS confirmed,
                                -sum(m.points) FILTER (WHERE m.kind = 'CANCEL') AS cancelled
                           FROM transaction AS m
                          WHERE m.account_id = p.account_id AND m.lot_id = p.id
                            AND m.kind IN ('CONFIRM', 'CANCEL')) AS t
        ON true
     WHERE p.open_points <> p.granted - coalesce(t.confirmed, 0) - coalesce(t.cancelled, 0)
        OR coalesce(l.granted, 0) <> coalesce(t.confirmed, 0) OR (l.id IS NOT NULL AND p.open_points > 0)
    """,
    "p.id",
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
