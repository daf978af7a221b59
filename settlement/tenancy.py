"""Partner scope (invariant 19): what the reading role shows a partner, tried on rows under the database's own policies.

Two questions, both cheap beside a close. Of the catalog: has every table that names partners a policy about its viewer,
and has the reading role no way around it? Of the rows: a sample of each table is read as the reading role with some
partner's setting, and no row may come back that is not that partner's. Aggregates above the privacy threshold are made
as the operator (``settlement.performance``) and are no policy's matter.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.database import READING_ROLE, Database
from domain.values import OPERATOR_ID
from settlement.checks import Check, check


class Extent(NamedTuple):
    """How much is tried: as how many partners (None: all), on about how many pages of each table."""

    viewers: int | None
    pages: int


AT_A_CLOSE = Extent(2, 16)
"""Other partners and other pages in each period."""

WHEN_VERIFYING = Extent(None, 64)

_PARTNER = "partner_id = v.viewer"
_PAID_ALONE = "SELECT c.id FROM campaign AS c WHERE c.funder_ids = ARRAY[v.viewer]"
_NOBODY = "false"
OWN_ROWS = {
    "budget": f"{_PARTNER} OR plan_id IN (SELECT b.id FROM budget_plan AS b WHERE b.campaign_id IN ({_PAID_ALONE}))",  # noqa: S608
    "budget_plan": f"{_PARTNER} OR campaign_id IN ({_PAID_ALONE})",
    "campaign": "v.viewer = ANY (funder_ids) OR partner_ids IS NULL OR v.viewer = ANY (partner_ids)",
    "command": (
        f"{_PARTNER} OR EXISTS (SELECT FROM transaction AS t WHERE t.command_id = r.id AND t.party_id = v.viewer)"
    ),
    "debt": _NOBODY,
    "lot_use": "v.viewer IN (issuer_id, redeemer_id)",
    "pending_award": "v.viewer IN (partner_id, funder_id)",
    "performance_activity": _NOBODY,
    "performance_burn": _NOBODY,
    "performance_first": _NOBODY,
    "performance_total": _NOBODY,
    "proposal": _NOBODY,
    "transaction": "v.viewer IN (partner_id, party_id)",
}
"""By table, which rows ``r`` are those of partner ``v.viewer``; elsewhere those with its partner_id."""

OPEN_TABLES = ("earn_rule", "store", "member", "member_identifier")
"""What every customer is told; and members, of whom resolvers choose the columns."""

EXPOSED_SQL = text(
    """
    SELECT format('table %s names partners, and the reading role sees its %s without a policy', c.relname,
                  string_agg(a.attname, ', ' ORDER BY a.attname)) AS place
      FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relkind IN ('r', 'p', 'm') AND c.relnamespace = 'public'::regnamespace AND NOT c.relrowsecurity
       AND (a.attname ~ '^(partner|party|funder|issuer|redeemer)_ids?$'
            OR (c.relname, a.attname) IN (('lot', 'price_micro'), ('lot', 'terms_id'), ('lot', 'breakage_share_ppm')))
       AND c.relname <> ALL (CAST(:open AS text[])) AND has_column_privilege(:role, c.oid, a.attnum, 'SELECT')
     GROUP BY c.relname
     UNION ALL
    SELECT format('policy %s of table %s asks nothing about the viewer', p.polname, p.polrelid::regclass)
      FROM pg_policy AS p
     WHERE p.polcmd IN ('r', '*') AND (0 = ANY (p.polroles) OR to_regrole(:role) = ANY (p.polroles)) AND p.polpermissive
       AND pg_get_expr(p.polqual, p.polrelid) !~ '\\mviewer\\('
       AND (p.polrelid::regclass::text, p.polname) <> ('budget', 'sole_funder')
     UNION ALL
    SELECT format('view %s is read with the rights of its owner', c.relname)
      FROM pg_class AS c
     WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace AND has_table_privilege(:role, c.oid, 'SELECT')
       AND NOT coalesce(c.reloptions, '{}') && ARRAY['security_invoker=true', 'security_invoker=on']
     UNION ALL
    SELECT format('role %s passes by policies', r.rolname) FROM pg_roles AS r
     WHERE r.rolname = :role AND (r.rolsuper OR r.rolbypassrls
           OR EXISTS (SELECT FROM pg_auth_members AS m WHERE m.member = r.oid)
           OR EXISTS (SELECT FROM pg_class AS c WHERE c.relowner = r.oid))
    """
)
VIEWERS_SQL = text(
    "SELECT id, code, count(*) OVER () AS partners FROM partner ORDER BY hashint8extended(id, :seed), id LIMIT :viewers"
)
# Whose rows a sample of about so many pages is taken of: every table that names partners behind a policy.
TABLES_SQL = text(
    """
    SELECT c.relname AS name, bool_or(a.attname = 'partner_id') AS has_partner,
           least(100, 100.0 * :pages * current_setting('block_size')::bigint / greatest(1, pg_relation_size(c.oid)))
               AS percent
      FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relrowsecurity
       AND a.attname ~ '^(partner|party|funder|issuer|redeemer)_ids?$'
       AND has_column_privilege(:role, c.oid, a.attnum, 'SELECT')
     GROUP BY c.oid, c.relname ORDER BY c.relname
    """
)
AS_VIEWER_SQL = text("SELECT set_config('coalition.viewer', CAST(CAST(:viewer AS integer) AS text), true)")


def _seen_sql(tables: Sequence[str]) -> TextClause:
    """What a viewer sees of the sample of each table, and how much of that is its own."""
    return text(
        " UNION ALL ".join(
            f"SELECT {number} AS number, count(*) AS seen,"  # noqa: S608 (names of the catalog, rules of this module)
            f" count(*) FILTER (WHERE {OWN_ROWS.get(name, _PARTNER)}) AS own"
            f' FROM "{name}" AS r TABLESAMPLE SYSTEM ((CAST(:percents AS numeric[]))[{number}])'
            " REPEATABLE (CAST(:seed AS numeric)) CROSS JOIN (SELECT CAST(:viewer AS integer) AS viewer) AS v"
            for number, name in enumerate(tables, 1)
        )
    )


async def check_tenancy(database: Database, connection: AsyncConnection, seed: int, extent: Extent) -> Check:
    """Invariant 19; ``connection`` reads the catalog, ``seed`` chooses partners and pages."""
    asked = {"role": READING_ROLE, "open": list(OPEN_TABLES)}
    problems = [row.place for row in await connection.execute(EXPOSED_SQL, asked)]
    viewers = (await connection.execute(VIEWERS_SQL, {"seed": seed, "viewers": extent.viewers})).all()
    tables = (await connection.execute(TABLES_SQL, {"role": READING_ROLE, "pages": extent.pages})).all()
    ruled = [table for table in tables if table.has_partner or table.name in OWN_ROWS]
    problems += [
        f"table {table.name} names partners, and no rule says whose rows they are"
        for table in tables
        if table not in ruled
    ]
    statement = _seen_sql([table.name for table in ruled])
    sample = {"percents": [table.percent for table in ruled], "seed": seed}
    read = 0
    async with database.reading(OPERATOR_ID) as reader:
        for viewer, code, _ in viewers:
            await reader.execute(AS_VIEWER_SQL, {"viewer": viewer})
            for number, seen, own in await reader.execute(statement, {**sample, "viewer": viewer}):
                read += seen
                if seen != own:
                    name = ruled[number - 1].name
                    problems.append(f"partner {code} reads {seen - own} rows of table {name} that are not its own")
    tried = f"{len(viewers)} of {viewers[0].partners} partners" if viewers else "no partner"
    return check(19, problems, f"tried as {tried}: {read} rows of {len(ruled)} tables, each its own")
