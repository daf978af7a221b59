"""What must hold of prepaid floats (part of invariant 11): blocks, their uses, windows and movements say the same."""

from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.places import PLACES_MAX, find
from settlement.scan import mix_sql

TOTALS_SQL = text(
    f"""
    SELECT f.blocks, u.by_block::text, f.used_by_block::text, f.amounts_by_window::text, w.limits_by_window::text,
           f.used_by_window::text, w.consumed_by_window::text
      FROM (SELECT coalesce(sum({mix_sql("block_id")}::numeric * amount_micro), 0) AS by_block FROM float_use) AS u,
           (SELECT count(*) AS blocks,
                   coalesce(sum({mix_sql("id")}::numeric * used_micro), 0) AS used_by_block,
                   coalesce(sum({mix_sql("budget_id")}::numeric * amount_micro), 0) AS amounts_by_window,
                   coalesce(sum({mix_sql("budget_id")}::numeric * used_micro), 0) AS used_by_window
              FROM float_block) AS f,
           (SELECT coalesce(sum({mix_sql("b.id")}::numeric * b.limit_micro), 0) AS limits_by_window,
                   coalesce(sum({mix_sql("b.id")}::numeric * b.consumed_micro), 0) AS consumed_by_window
              FROM budget AS b JOIN budget_plan AS p ON p.id = b.plan_id AND p.funding = 'PREPAID') AS w
    """  # noqa: S608 (assembled from constants of this application)
)
BLOCKS_SQL = text(
    f"""
    SELECT CASE WHEN b.id IS NULL
                THEN format('uses of block %s, which does not exist, sum to %s', u.block_id, u.used)
                WHEN b.used_micro <> coalesce(u.used, 0)
                THEN format('block %s of float %s: used %s, its uses sum to %s', b.id, b.budget_id, b.used_micro,
                            coalesce(u.used, 0)) END AS place
      FROM float_block AS b
      FULL JOIN (SELECT block_id, sum(amount_micro) AS used FROM float_use GROUP BY block_id) AS u ON u.block_id = b.id
     WHERE b.id IS NULL OR b.used_micro <> coalesce(u.used, 0)
     ORDER BY coalesce(b.id, u.block_id) LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)
WINDOWS_SQL = text(
    f"""
    SELECT format('float %s: limit %s and consumed %s, its blocks hold %s and gave %s', coalesce(w.id, f.budget_id),
                  w.limit_micro, w.consumed_micro, coalesce(f.amounts, 0), coalesce(f.gave, 0)) AS place
      FROM (SELECT b.* FROM budget AS b JOIN budget_plan AS p ON p.id = b.plan_id AND p.funding = 'PREPAID') AS w
      FULL JOIN (SELECT budget_id, sum(amount_micro) AS amounts, sum(used_micro) AS gave
                   FROM float_block GROUP BY budget_id) AS f ON f.budget_id = w.id
     WHERE (w.limit_micro::numeric, w.consumed_micro::numeric)
           IS DISTINCT FROM (coalesce(f.amounts, 0), coalesce(f.gave, 0))
     ORDER BY coalesce(w.id, f.budget_id) LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)
MOVEMENTS_SQL = text(
    f"""
    SELECT format('transaction %s draws %s on float %s, its uses of blocks say %s of float %s',
                  coalesce(t.id, u.transaction_id), t.budget_micro, t.budget_id, u.amount, u.budget_id) AS place
      FROM (SELECT m.account_id, m.id, m.budget_id, m.budget_micro, m.party_id,
                   coalesce(m.reverses_id, m.id) AS drawn_by
              FROM transaction AS m JOIN budget AS b ON b.id = m.budget_id
              JOIN budget_plan AS p ON p.id = b.plan_id AND p.funding = 'PREPAID'
             WHERE m.budget_micro <> 0) AS t
      FULL JOIN (SELECT f.account_id, f.transaction_id, f.drawn_by_id, f.partner_id, k.budget_id,
                        sum(f.amount_micro) AS amount
                   FROM float_use AS f LEFT JOIN float_block AS k ON k.id = f.block_id
                  GROUP BY f.account_id, f.transaction_id, f.drawn_by_id, f.partner_id, k.budget_id) AS u
        ON u.account_id = t.account_id AND u.transaction_id = t.id
     WHERE (t.budget_micro::numeric, t.budget_id, t.party_id, t.drawn_by)
           IS DISTINCT FROM (u.amount, u.budget_id, u.partner_id, u.drawn_by_id)
     ORDER BY coalesce(t.id, u.transaction_id) LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)


class FloatCheck(NamedTuple):
    """How many blocks there are, and where they do not add up."""

    blocks: int
    problems: list[str]


async def check_floats(connection: AsyncConnection, *, is_everything: bool) -> FloatCheck:
    """Blocks gave what their uses say; of each float they hold its limit and gave what is consumed.

    Sums tell whether all is well, joins name the places; a verification also compares each movement with its uses.
    """
    blocks, *sums = (await connection.execute(TOTALS_SQL)).one()
    given, used, held, limits, gave, consumed = map(int, sums)
    if not is_everything and (given, held, gave) == (used, limits, consumed):
        return FloatCheck(blocks, [])
    statements = (BLOCKS_SQL, WINDOWS_SQL, MOVEMENTS_SQL) if is_everything else (BLOCKS_SQL, WINDOWS_SQL)
    return FloatCheck(blocks, [place for statement in statements for place in await find(connection, statement, None)])
