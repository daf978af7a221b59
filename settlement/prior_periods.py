"""What lines correct of earlier, closed statements: their prior-period part by original period."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from domain.commands import MovementKind
from domain.database import Database
from domain.positions import MONEY_LINES, LineKind
from settlement.prepaid import IS_PRIOR, USES_FROM
from settlement.reading import StatementKey


@dataclass(frozen=True, slots=True)
class PriorPart:
    """The part of a line that corrects what one earlier period booked, at the terms of then."""

    kind: LineKind
    period_id: int
    exact_micro: int


PRIOR_COLUMNS = ("issue_value_micro", "service_fee_micro", "reimbursement_micro", "breakage_share_micro")
PRIOR_MOVEMENTS_SQL = text(
    f"""
    SELECT t.period_id, t.party_id, t.kind, t.reverses_period_id, {", ".join(f"sum(t.{c})" for c in PRIOR_COLUMNS)}
      FROM transaction AS t
      JOIN unnest(CAST(:period_ids AS integer[]), CAST(:partner_ids AS integer[])) AS asked (period_id, partner_id)
        ON asked.period_id = t.period_id AND asked.partner_id = t.party_id
     WHERE t.kind IN ('EARN_REVERSAL', 'OVERDRAW', 'BURN_REVERSAL') AND t.reverses_period_id < t.period_id
     GROUP BY t.period_id, t.party_id, t.kind, t.reverses_period_id
    """  # noqa: S608 (columns of this application)
)
PRIOR_ADJUSTMENTS_SQL = text(
    """
    SELECT a.period_id, a.partner_id, a.of_period_id, sum(a.amount_micro)
      FROM adjustment AS a
      JOIN unnest(CAST(:period_ids AS integer[]), CAST(:partner_ids AS integer[])) AS asked (period_id, partner_id)
        ON asked.period_id = a.period_id AND asked.partner_id = a.partner_id
     WHERE a.kind = 'ADJUSTMENT' AND a.of_period_id IS NOT NULL
     GROUP BY a.period_id, a.partner_id, a.of_period_id
    """
)
PRIOR_FLOATS_SQL = text(
    f"""
    SELECT p.id, u.partner_id, o.id, sum(u.amount_micro)
    {USES_FROM}
      JOIN unnest(CAST(:period_ids AS integer[]), CAST(:partner_ids AS integer[])) AS asked (period_id, partner_id)
        ON asked.period_id = p.id AND asked.partner_id = u.partner_id
     WHERE b.entry_id IS NOT NULL AND {IS_PRIOR}
     GROUP BY p.id, u.partner_id, o.id HAVING sum(u.amount_micro) <> 0
    """
)


async def prior_periods_of_statements(
    database: Database, viewer_id: int, keys: Sequence[StatementKey]
) -> dict[StatementKey, list[PriorPart]]:
    """By statement, the parts of its lines that correct what earlier periods booked: by line and period."""
    asked = {"period_ids": [key[0] for key in keys], "partner_ids": [key[1] for key in keys]}
    parts: defaultdict[tuple[StatementKey, LineKind, int], int] = defaultdict(int)
    async with database.reading(viewer_id) as connection:
        for period_id, partner_id, kind, original_id, *amounts in await connection.execute(PRIOR_MOVEMENTS_SQL, asked):
            columns = dict(zip(PRIOR_COLUMNS, map(int, amounts), strict=True))
            for line, column in MONEY_LINES[MovementKind(kind)]:
                parts[((period_id, partner_id), line, original_id)] += columns[column]
        for statement, line in ((PRIOR_ADJUSTMENTS_SQL, LineKind.ADJUSTMENT), (PRIOR_FLOATS_SQL, LineKind.PREPAID)):
            for period_id, partner_id, original_id, amount_micro in await connection.execute(statement, asked):
                parts[((period_id, partner_id), line, original_id)] += int(amount_micro)
    found: defaultdict[StatementKey, list[PriorPart]] = defaultdict(list)
    for (key, line, original_id), exact_micro in sorted(parts.items()):
        found[key].append(PriorPart(line, original_id, exact_micro))
    return {key: found[key] for key in keys}
