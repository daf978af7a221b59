"""What a close writes: partner entries, statements with their lines, and the period's end."""

from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ledger import HASHED_PARTNER_ENTRY_COLUMNS, row_hash_sql
from domain.loading import ID_BLOCK_SIZE, next_id_block
from settlement.documents import Statement

INSERT_ENTRIES_SQL = text(
    f"""
    INSERT INTO partner_entry ({", ".join(HASHED_PARTNER_ENTRY_COLUMNS)}, row_hash)
    SELECT {", ".join(HASHED_PARTNER_ENTRY_COLUMNS)}, {row_hash_sql(HASHED_PARTNER_ENTRY_COLUMNS, "e")}
      FROM (SELECT id, CAST(:period_id AS integer) AS period_id, partner_id, kind, line_kind, amount_micro, terms_id,
                   CAST(:recorded_at AS timestamptz) AS recorded_at
              FROM unnest(CAST(:ids AS bigint[]), CAST(:partner_ids AS integer[]), CAST(:kinds AS text[]),
                          CAST(:line_kinds AS text[]), CAST(:amounts_micro AS bigint[]), CAST(:terms_ids AS integer[]))
                AS given (id, partner_id, kind, line_kind, amount_micro, terms_id)) AS e
     ORDER BY id
    RETURNING partner_id, amount_micro, row_hash
    """  # noqa: S608 (column names of the ledger)
)
INSERT_STATEMENTS_SQL = text(
    """
    INSERT INTO statement
           (period_id, partner_id, net_minor, due_minor, shortfall_points, shortfall_value_micro, document,
            carried_in_minor, carried_on_minor)
    SELECT :period_id, partner_id, net::numeric, due::numeric, points::numeric, value::numeric, document,
           carried_in::numeric, carried_on::numeric
      FROM unnest(CAST(:partner_ids AS integer[]), CAST(:nets AS text[]), CAST(:dues AS text[]),
                  CAST(:points AS text[]), CAST(:values AS text[]), CAST(:documents AS bytea[]),
                  CAST(:carried_ins AS text[]), CAST(:carried_ons AS text[]))
        AS new (partner_id, net, due, points, value, document, carried_in, carried_on)
    """
)
INSERT_LINES_SQL = text(
    """
    INSERT INTO statement_line
           (period_id, partner_id, kind, entries, points, exact_micro, prior_exact_micro, billed_minor)
    SELECT :period_id, partner_id, kind, entries, points::numeric, exact::numeric, prior::numeric, billed::numeric
      FROM unnest(CAST(:partner_ids AS integer[]), CAST(:kinds AS text[]), CAST(:entries AS bigint[]),
                  CAST(:points AS text[]), CAST(:exacts AS text[]), CAST(:priors AS text[]), CAST(:billed AS text[]))
        AS new (partner_id, kind, entries, points, exact, prior, billed)
    """
)
INSERT_TAXES_SQL = text(
    """
    INSERT INTO statement_tax (period_id, partner_id, kind, rate_ppm, taxable_minor, tax_minor)
    SELECT :period_id, partner_id, kind, rate_ppm, taxable::numeric, tax::numeric
      FROM unnest(CAST(:partner_ids AS integer[]), CAST(:kinds AS text[]), CAST(:rates_ppm AS integer[]),
                  CAST(:taxables AS text[]), CAST(:taxes AS text[]))
        AS new (partner_id, kind, rate_ppm, taxable, tax)
    """
)
INSERT_FINALS_SQL = text(
    """
    INSERT INTO final_statement (period_id, partner_id, outstanding_points, outstanding_value_micro)
    SELECT :period_id, partner_id, points::numeric, value::numeric
      FROM unnest(CAST(:partner_ids AS integer[]), CAST(:points AS text[]), CAST(:values AS text[]))
        AS new (partner_id, points, value)
    """
)
CLOSE_PERIOD_SQL = text(
    """
    UPDATE period
       SET state = 'CLOSED', closed_at = :closed_at, pool_micro = CAST(CAST(:pool_micro AS text) AS numeric),
           pool_change_micro = CAST(CAST(:pool_change_micro AS text) AS numeric),
           margin_micro = CAST(CAST(:margin_micro AS text) AS numeric),
           operator_net_minor = CAST(CAST(:operator_net_minor AS text) AS numeric),
           certificate = CAST(CAST(:certificate AS text) AS jsonb), certificate_sha256 = :sha256,
           previous_sha256 = :previous, advice_at = :advice_at, dispute_until = :dispute_until, due_at = :due_at,
           minimum_minor = :minimum_minor, tax_micro = CAST(CAST(:tax_micro AS text) AS numeric),
           receivable_change_micro = CAST(CAST(:receivable_change_micro AS text) AS numeric),
           deposit_change_micro = CAST(CAST(:deposit_change_micro AS text) AS numeric)
     WHERE id = :id
    """
)

PartnerEntry = tuple[int, str, str | None, int, int | None]
"""Partner id, kind, line kind, amount in micro-units from the partner's side, terms id."""


async def write_entries(
    connection: AsyncConnection, period_id: int, recorded_at: datetime, entries: Sequence[PartnerEntry]
) -> list[tuple[int, int, int]]:
    """Books partner entries; answers (partner id, amount_micro, row hash) of each."""
    if not entries:
        return []
    blocks = [await next_id_block(connection) for _ in range(0, len(entries), ID_BLOCK_SIZE)]
    return await _insert_entries(connection, period_id, recorded_at, list(chain.from_iterable(blocks)), entries)


async def write_entry(
    connection: AsyncConnection, period_id: int, recorded_at: datetime, entry: PartnerEntry
) -> tuple[int, int]:
    """Books one partner entry; answers its id and row hash."""
    ids = await next_id_block(connection)
    [(_, _, row_hash)] = await _insert_entries(connection, period_id, recorded_at, ids, [entry])
    return ids[0], row_hash


async def _insert_entries(
    connection: AsyncConnection,
    period_id: int,
    recorded_at: datetime,
    ids: Sequence[int],
    entries: Sequence[PartnerEntry],
) -> list[tuple[int, int, int]]:
    partner_ids, kinds, line_kinds, amounts_micro, terms_ids = zip(*entries, strict=True)
    rows = await connection.execute(
        INSERT_ENTRIES_SQL,
        {
            "period_id": period_id,
            "recorded_at": recorded_at,
            "ids": list(ids[: len(entries)]),
            "partner_ids": list(partner_ids),
            "kinds": list(kinds),
            "line_kinds": list(line_kinds),
            "amounts_micro": list(amounts_micro),
            "terms_ids": list(terms_ids),
        },
    )
    return [(row.partner_id, row.amount_micro, row.row_hash) for row in rows]


async def write_statements(connection: AsyncConnection, period_id: int, statements: Sequence[Statement]) -> None:
    """Stores statements with their lines and taxes."""
    await connection.execute(
        INSERT_STATEMENTS_SQL,
        {
            "period_id": period_id,
            "partner_ids": [one.settled.partner_id for one in statements],
            "nets": [str(one.settled.net_minor) for one in statements],
            "dues": [str(one.settled.due_minor) for one in statements],
            "points": [str(one.shortfall.points) for one in statements],
            "values": [str(one.shortfall.value_micro) for one in statements],
            "documents": [one.document for one in statements],
            "carried_ins": [str(one.settled.carried_in_minor) for one in statements],
            "carried_ons": [str(one.settled.carried_on_minor) for one in statements],
        },
    )
    lines = [(one.settled.partner_id, line) for one in statements for line in one.settled.lines]
    await connection.execute(
        INSERT_LINES_SQL,
        {
            "period_id": period_id,
            "partner_ids": [partner_id for partner_id, _ in lines],
            "kinds": [line.kind.value for _, line in lines],
            "entries": [line.entries for _, line in lines],
            "points": [None if line.points is None else str(line.points) for _, line in lines],
            "exacts": [str(line.exact_micro) for _, line in lines],
            "priors": [str(line.prior_exact_micro) for _, line in lines],
            "billed": [str(line.billed_minor) for _, line in lines],
        },
    )
    await _write_taxes(connection, period_id, statements)
    finals = [(one.settled.partner_id, one.outstanding) for one in statements if one.outstanding is not None]
    await connection.execute(
        INSERT_FINALS_SQL,
        {
            "period_id": period_id,
            "partner_ids": [partner_id for partner_id, _ in finals],
            "points": [str(outstanding.points) for _, outstanding in finals],
            "values": [str(outstanding.value_micro) for _, outstanding in finals],
        },
    )


async def _write_taxes(connection: AsyncConnection, period_id: int, statements: Sequence[Statement]) -> None:
    taxes = [(one.settled.partner_id, tax) for one in statements for tax in one.settled.taxes]
    await connection.execute(
        INSERT_TAXES_SQL,
        {
            "period_id": period_id,
            "partner_ids": [partner_id for partner_id, _ in taxes],
            "kinds": [tax.kind.value for _, tax in taxes],
            "rates_ppm": [tax.rate_ppm for _, tax in taxes],
            "taxables": [str(tax.taxable_minor) for _, tax in taxes],
            "taxes": [str(tax.tax_minor) for _, tax in taxes],
        },
    )


async def close_row(connection: AsyncConnection, values: dict[str, Any]) -> None:
    """Ends the period: its figures, certificate and place in the chain; nothing of it changes any more."""
    await connection.execute(CLOSE_PERIOD_SQL, values)
