"""What must hold of defaults, write-offs and recoveries (part of invariant 16).

Every DEPOSIT_USED and BAD_DEBT is what an approved proposal says, or what a payment recovered; and the account of every
partner in the books is what its statements leave open.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.values import micro_per_minor
from settlement.places import PLACES_MAX, find

# Each entry beside the one row that may have booked it: what that says in the entry's terms, or nulls.
ENTRIES_SQL = text(
    f"""
    SELECT CASE WHEN e.id IS NULL THEN format('%s %s of partner %s: no entry books it', d.what, d.id, d.partner_id)
                WHEN d.id IS NULL THEN format('partner entry %s (%s, partner %s) is not what an approved proposal says',
                                              e.id, e.kind, e.partner_id)
                ELSE format('partner entry %s (%s, partner %s) is not what %s %s says', e.id, e.kind, e.partner_id,
                            d.what, d.id) END AS place
      FROM (SELECT 'write-off' AS what, proposal_id AS id, entry_id, 'BAD_DEBT' AS kind, partner_id, amount_micro,
                   booked_at AS recorded_at
              FROM adjustment WHERE kind = 'BAD_DEBT'
             UNION ALL
            SELECT 'default', proposal_id, deposit_entry_id, 'DEPOSIT_USED', partner_id, deposit_micro, declared_at
              FROM partner_default WHERE deposit_micro > 0
             UNION ALL
            SELECT 'default', proposal_id, bad_debt_entry_id, 'BAD_DEBT', partner_id, bad_debt_micro, declared_at
              FROM partner_default WHERE bad_debt_micro > 0
             UNION ALL
            SELECT 'recovery by payment', r.payment_id, r.entry_id, 'BAD_DEBT', y.partner_id, -r.amount_micro,
                   y.recorded_at
              FROM recovery AS r LEFT JOIN payment AS y ON y.id = r.payment_id AND y.period_id = r.period_id) AS d
      FULL JOIN (SELECT * FROM partner_entry WHERE kind IN ('DEPOSIT_USED', 'BAD_DEBT')) AS e ON e.id = d.entry_id
     WHERE (e.kind, e.partner_id, e.amount_micro, e.recorded_at)
           IS DISTINCT FROM (d.kind, d.partner_id, d.amount_micro, d.recorded_at)
     ORDER BY coalesce(e.id, d.entry_id) LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)
PROPOSALS_SQL = text(
    f"""
    SELECT CASE WHEN d.proposal_id IS NULL
                THEN format('proposal %s (%s, partner %s) is approved, and nothing was done', p.id, p.kind,
                            p.partner_id)
                ELSE format('%s %s of partner %s is not what an approved proposal says', d.what, d.proposal_id,
                            d.partner_id) END AS place
      FROM (SELECT 'write-off' AS what, 'WRITE_OFF' AS kind, proposal_id, partner_id, of_period_id AS period_id,
                   amount_micro, 0 AS offsets_micro
              FROM adjustment WHERE kind = 'BAD_DEBT'
             UNION ALL
            SELECT 'default', 'DEFAULT', x.proposal_id, x.partner_id, x.period_id,
                   sum(x.owed_micro) OVER (PARTITION BY x.proposal_id),
                   x.offset_micro - (SELECT coalesce(sum(z.amount_micro), 0) FROM default_offset AS z
                                      WHERE z.proposal_id = x.proposal_id AND z.of_period_id = x.period_id
                                        AND z.partner_id = x.partner_id)
              FROM partner_default AS x) AS d
      FULL JOIN (SELECT * FROM proposal WHERE state = 'APPROVED' AND kind IN ('WRITE_OFF', 'DEFAULT')) AS p
        ON p.id = d.proposal_id
     WHERE (p.kind, p.partner_id, coalesce(p.of_period_id, d.period_id)) IS DISTINCT FROM
           (d.kind, d.partner_id, d.period_id)
        OR d.amount_micro > p.amount_micro OR (d.amount_micro <> p.amount_micro AND d.kind = 'WRITE_OFF')
        OR d.offsets_micro <> 0
     ORDER BY coalesce(p.id, d.proposal_id) LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)
RECOVERIES_SQL = text(
    f"""
    SELECT format('statement of partner %s for %s: %s recovered of %s written off, with %s beyond what is due',
                  b.partner_id, t.label, b.recovered_minor, b.written_off_minor, b.beyond_minor) AS place
      FROM (SELECT *, open_minor + withheld_minor + recovered_minor AS beyond_minor FROM statement_balance) AS b
      JOIN period AS t ON t.id = b.period_id
     WHERE b.recovered_minor <> least(b.written_off_minor, greatest(b.beyond_minor, 0))
     ORDER BY b.period_id, b.partner_id LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)
# Of periods that have statements: their lines are billed, so that rounding and tax are in the books too.
ACCOUNTS_SQL = text(
    f"""
    WITH billed AS (SELECT partner_id, sum(amount_micro) AS micro
                      FROM position JOIN statement USING (period_id, partner_id) GROUP BY partner_id),
         booked AS (SELECT partner_id, sum(amount_micro) AS micro FROM partner_entry
                     WHERE kind IN ('ROUNDING', 'TAX', 'PAYMENT', 'DEPOSIT_USED', 'BAD_DEBT') GROUP BY partner_id),
         balance AS (SELECT partner_id, sum(open_minor + withheld_minor) AS minor FROM statement_balance
                      GROUP BY partner_id),
         carried AS (SELECT DISTINCT ON (partner_id) partner_id, carried_on_minor AS minor FROM statement
                      ORDER BY partner_id, period_id DESC),
         account AS (SELECT p.id, coalesce(billed.micro, 0) + coalesce(booked.micro, 0) AS in_books,
                            (coalesce(balance.minor, 0) + coalesce(carried.minor, 0)) * :per_minor AS open_micro
                       FROM partner AS p LEFT JOIN billed ON billed.partner_id = p.id
                       LEFT JOIN booked ON booked.partner_id = p.id LEFT JOIN balance ON balance.partner_id = p.id
                       LEFT JOIN carried ON carried.partner_id = p.id)
    SELECT format('partner %s: its account in the books is %s micro-units, its statements leave %s open', id, in_books,
                  open_micro) AS place
      FROM account WHERE in_books <> open_micro ORDER BY id LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)


async def default_problems(connection: AsyncConnection, currency_digits: int) -> list[str]:
    """Where bad debts, uses of deposits and partners' accounts are not what was approved, paid and billed."""
    places = [
        place for one in (ENTRIES_SQL, PROPOSALS_SQL, RECOVERIES_SQL) for place in await find(connection, one, None)
    ]
    rows = await connection.execute(ACCOUNTS_SQL, {"per_minor": micro_per_minor(currency_digits)})
    return places + [row.place for row in rows]
