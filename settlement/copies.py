"""What side tables copy of the ledger, compared with it: verification alone makes these joins.

A copy that changes behind the application's back costs money later: the terms of a pending award price its
confirmation, the share of a lot its expiry, an overdraft what may be spent, a dispute what is due.
"""

from collections import defaultdict

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.places import PLACES_MAX

COPIES = {
    2: """
    SELECT format('lot %s of account %s: earned at %s, share of breakage %s, but its award and its terms say %s and %s',
                  l.id, l.account_id, l.earned_at, l.breakage_share_ppm, coalesce(p.earned_at, m.occurred_at),
                  t.breakage_share_ppm) AS place
      FROM lot AS l
      JOIN transaction AS m ON m.account_id = l.account_id AND m.id = l.transaction_id
      LEFT JOIN terms AS t ON t.id = l.terms_id
      LEFT JOIN pending_award AS p ON p.account_id = l.account_id AND p.id = l.id
     WHERE l.parent_id IS NULL AND (l.breakage_share_ppm, l.earned_at)
           IS DISTINCT FROM (t.breakage_share_ppm, coalesce(p.earned_at, m.occurred_at))
     ORDER BY l.id
    """,
    3: """
    SELECT format('account %s: next expiry %s, but points of it end at %s', a.id,
                  coalesce(a.next_expires_at::text, 'never'), l.ends) AS place
      FROM account AS a
      JOIN (SELECT account_id, min(greatest(expires_at, grace_until)) AS ends FROM lot WHERE remaining > 0
             GROUP BY account_id) AS l ON l.account_id = a.id
     WHERE a.next_expires_at > l.ends OR a.next_expires_at IS NULL
     ORDER BY a.id
    """,
    9: """
    SELECT format('transaction %s (%s) is of partner %s, its command %s of partner %s', t.id, t.kind, t.partner_id,
                  c.id, c.partner_id) AS place
      FROM transaction AS t JOIN command AS c ON c.id = t.command_id
     WHERE t.partner_id <> c.partner_id
     UNION ALL
    SELECT format('dispute %s of partner %s is %s, but no approved proposal says so', d.id, d.partner_id, d.state)
      FROM dispute AS d LEFT JOIN proposal AS p ON p.dispute_id = d.id AND p.state = 'APPROVED' AND p.kind = 'DISPUTE'
     WHERE (d.state IN ('ACCEPTED', 'REJECTED')) <> (p.id IS NOT NULL)
        OR (p.id IS NOT NULL AND (p.partner_id, p.of_period_id, p.of_line_kind)
                                 IS DISTINCT FROM (d.partner_id, d.period_id, d.line_kind))
    """,
    11: """
    SELECT format('overdraft %s of budget %s is not what an approved proposal says', coalesce(o.proposal_id, p.id),
                  o.budget_id) AS place
      FROM overdraft AS o
      FULL JOIN (SELECT * FROM proposal WHERE kind = 'OVERDRAFT' AND state = 'APPROVED') AS p ON p.id = o.proposal_id
      LEFT JOIN budget AS b ON b.id = o.budget_id
     WHERE (o.partner_id, o.amount_micro, o.until, b.partner_id)
           IS DISTINCT FROM (p.partner_id, p.amount_micro, p.until, p.partner_id)
     UNION ALL
    SELECT format('pending award %s of account %s reserves %s micro-units for %s points', p.id, p.account_id,
                  p.reserved_micro, p.open_points)
      FROM pending_award AS p JOIN terms AS t ON t.id = p.terms_id
     WHERE p.reserved_micro <> CASE WHEN p.budget_id IS NULL THEN 0 ELSE p.open_points
           * (t.issue_price_micro + CASE WHEN p.funder_id = 0 THEN 0 ELSE t.service_fee_micro END) END
     UNION ALL
    SELECT format('block %s of partner %s is not what its float and its deposit say', f.id, f.partner_id)
      FROM float_block AS f
      LEFT JOIN budget AS b ON b.id = f.budget_id
      LEFT JOIN partner_entry AS e ON e.id = f.entry_id
     WHERE f.partner_id IS DISTINCT FROM b.partner_id
        OR (f.entry_id IS NOT NULL AND (e.kind, e.partner_id, e.amount_micro, e.recorded_at)
                                       IS DISTINCT FROM ('DEPOSIT', f.partner_id, f.amount_micro, f.recorded_at))
    """,
    13: """
    SELECT format('use %s (%s) is of period %s and redeemer %s, its transaction %s of period %s and partner %s', u.id,
                  u.kind, u.period_id, u.redeemer_id, t.id, t.period_id, t.partner_id) AS place
      FROM lot_use AS u JOIN transaction AS t ON t.account_id = u.account_id AND t.id = u.transaction_id
     WHERE (u.period_id, u.redeemer_id) IS DISTINCT FROM
           (t.period_id, CASE WHEN u.kind IN ('BURN', 'HOLD', 'CAPTURE', 'RELEASE', 'BURN_REVERSAL')
                              THEN t.partner_id END)
     ORDER BY u.id
    """,
    16: """
    SELECT format('dispute %s of partner %s withholds %s of line %s', d.id, d.partner_id, d.withheld_minor,
                  coalesce(l.billed_minor::text, 'that does not exist')) AS place
      FROM dispute AS d
      LEFT JOIN statement_line AS l
        ON l.period_id = d.period_id AND l.partner_id = d.partner_id AND l.kind = d.line_kind
      LEFT JOIN statement AS s ON s.period_id = d.period_id AND s.partner_id = d.partner_id
     WHERE d.withheld_minor IS DISTINCT FROM CASE WHEN l.billed_minor < 0 AND s.carried_on_minor = 0
                                                  THEN -d.amount_minor WHEN l.billed_minor IS NOT NULL THEN 0 END
        OR d.amount_minor > abs(l.billed_minor)
    """,
    17: """
    SELECT format('hold %s is of partner %s, its authorization %s of partner %s', h.id, h.partner_id, t.command_id,
                  t.partner_id) AS place
      FROM hold AS h JOIN transaction AS t ON t.account_id = h.account_id AND t.id = h.transaction_id
     WHERE (h.id, h.partner_id) <> (t.command_id, t.partner_id)
    """,
    18: """
    SELECT format('pending award %s of account %s is not as transaction %s granted it', p.id, p.account_id, t.id)
           AS place
      FROM pending_award AS p
      JOIN transaction AS t ON t.account_id = p.account_id AND t.id = p.transaction_id
      LEFT JOIN command AS c ON c.id = t.command_id
     WHERE (p.command_id, p.member_id, p.partner_id, p.issuer_id, p.funder_id, p.terms_id, p.rule_id, p.earned_at)
           IS DISTINCT FROM (t.command_id, c.member_id, t.partner_id, t.issuer_id, t.funder_id, t.terms_id, t.rule_id,
                             t.occurred_at)
    """,
}
"""By invariant, the places at which a copy differs."""


async def copy_problems(connection: AsyncConnection) -> dict[int, list[str]]:
    """By invariant, where side tables are not what the ledger, or an approved proposal, says."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for number, body in COPIES.items():
        for row in await connection.execute(text(f"{body} LIMIT {PLACES_MAX + 1}")):
            found[number].append(row.place)
    return found
