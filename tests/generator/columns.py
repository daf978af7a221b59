"""Which column of which table is protected by what, and a change of it; a column in neither list fails the test."""

from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

OUTSIDE = {
    "alembic_version": "which migration ran last",
    "oauth_client": "who may call: no ledger, and secrets are digests",
    "oauth_token": "who may call, for fifteen minutes",
    "performance_activity": "facts for reports: deleted with their period's mark they are made again",
    "performance_burn": "facts for reports",
    "performance_first": "facts for reports",
    "performance_period": "facts for reports",
    "performance_total": "facts for reports",
    "pgqueuer": "jobs: what is due is found from the ledger",
    "pgqueuer_log": "jobs",
    "pgqueuer_schedules": "jobs",
    "pgqueuer_statistics": "jobs",
    "row_seal": "what verification compares with",
    "sealed_table": "what verification compares with",
}
"""Tables that are neither ledger nor money nor identity."""

FREE = {
    ("lot_use", "id"): "orders the uses of one movement; nothing refers to it",
}
"""Columns of other tables that may change without anybody being owed anything else."""

HASHED = {
    "command": "command {id} (",
    "transaction": "transaction {id} (",
    "partner_entry": "partner entry {id} (",
    "lot": "lot {id} of account",
    "pending_award": "pending award {id} of account",
}
"""Tables with a hash in each row, and how verification names one of another hash."""


class Derived(NamedTuple):
    """What other rows say: the invariant that fails, how the place is named (SQL over a row r), and the change.

    ``change`` None: one more. ``which``: the row that changes.
    """

    number: int
    named: str
    change: str | None = None
    which: str = "true"


_LOT = "format('lot %s of account', r.id)"
_ACCOUNT = "format('account %s:', r.id)"
_USE = "format('use %s (', r.id)"
_USED_LOT = "format('lot %s of account', r.lot_id)"
_POSITION = "format('period %s, partner %s, position %s', r.period_id, r.partner_id, r.kind)"
_OF_PARTNER = "p.code, d.label) FROM partner AS p, period AS d WHERE (p.id, d.id) = (r.partner_id, r.period_id)"
_STATEMENT = f"(SELECT format('statement of %s for %s', {_OF_PARTNER})"
_LINE = f"(SELECT format('statement of %s for %s, line ', {_OF_PARTNER})"
_TAX = f"(SELECT format('statement of %s for %s, tax on ', {_OF_PARTNER})"
_PERIOD = "format('period %s', r.label)"
_CHARGED = "FROM transaction AS m WHERE (m.account_id, m.id) = (r.missing_account_id, r.missing_id)"
_RECALLED = f"(SELECT format('shortfalls of transaction %s:', m.reverses_id) {_CHARGED})"
_HOLD = "format('hold %s (', r.id)"
_FIRST = "ctid = (SELECT min(ctid) FROM statement)"  # the other changes are of the last one
CLOSED = "state = 'CLOSED'"

DERIVED: dict[str, dict[str, Derived]] = {
    "lot": {"remaining": Derived(2, _LOT, which="remaining < granted"), "reserved": Derived(2, _LOT)},
    "lot_use": {
        "account_id": Derived(2, _USED_LOT, which="kind = 'BURN'"),
        "lot_id": Derived(2, _USED_LOT, which="kind = 'BURN'"),
        "transaction_id": Derived(13, "format('transaction %s (', r.transaction_id)", which="kind = 'BURN'"),
        "kind": Derived(13, "format('transaction %s (', r.transaction_id)", "'EXPIRE'", "kind = 'BURN'"),
        "points": Derived(2, _USED_LOT, which="kind = 'BURN'"),
        "period_id": Derived(13, _USE),
        "issuer_id": Derived(7, _USE, which="kind = 'BURN'"),
        "funder_id": Derived(7, _USE, which="kind = 'BURN'"),
        "redeemer_id": Derived(13, _USE, "CASE redeemer_id WHEN 1 THEN 2 ELSE 1 END"),
        "price_micro": Derived(7, _USE, which="kind = 'BURN'"),
    },
    "account": {
        "id": Derived(3, _ACCOUNT, which="available > 0"),
        "available": Derived(3, _ACCOUNT),
        "pending": Derived(3, _ACCOUNT),
        "held": Derived(3, _ACCOUNT),
        "owed": Derived(3, "format('account %s owes', r.id)"),
        "next_expires_at": Derived(3, _ACCOUNT, "NULL", "available > 0"),
    },
    "budget": {
        "consumed_micro": Derived(11, "format('budget %s of', r.id)"),
        "reserved_micro": Derived(11, "format('budget %s of', r.id)"),
    },
    "position": {
        # One more of the largest: there is no row with which it would collide.
        "period_id": Derived(9, _POSITION, which="period_id = (SELECT max(period_id) FROM position)"),
        "partner_id": Derived(9, _POSITION, which="partner_id = (SELECT max(partner_id) FROM position)"),
        "kind": Derived(9, _POSITION, "'TAX'", "kind = 'ISSUE'"),
        "entries": Derived(9, _POSITION),
        "points": Derived(9, _POSITION),
        "amount_micro": Derived(9, _POSITION),
        "prior_amount_micro": Derived(9, _POSITION),
        "hash_sum": Derived(9, _POSITION),
    },
    "pending_award": {
        "open_points": Derived(18, "format('award %s of account', r.id)"),
        "reserved_micro": Derived(11, "format('pending award %s of account', r.id)", which="open_points > 0"),
    },
    "hold": {
        "captured": Derived(17, _HOLD),
        "released": Derived(17, _HOLD),
        "state": Derived(17, _HOLD, "'VOIDED'", "state = 'OPEN'"),
    },
    "recall": {"taken_points": Derived(10, _RECALLED)},
    "debt": {"open_points": Derived(3, "format('debt %s of account', r.id)")},
    "float_block": {"used_micro": Derived(11, "format('block %s of float', r.id)")},
    "float_use": {
        "block_id": Derived(11, "format('block %s of float', r.block_id)"),
        "transaction_id": Derived(11, "format('transaction %s draws', r.transaction_id)"),
        "drawn_by_id": Derived(11, "format('transaction %s draws', r.transaction_id)"),
        "account_id": Derived(11, "format('transaction %s draws', r.transaction_id)"),
        "partner_id": Derived(11, "format('transaction %s draws', r.transaction_id)"),
        "amount_micro": Derived(11, "format('block %s of float', r.block_id)"),
    },
    "statement": {
        "period_id": Derived(8, _STATEMENT, "period_id - 1", _FIRST),
        "partner_id": Derived(8, _STATEMENT, "partner_id + 1000003", _FIRST),
        "net_minor": Derived(8, _STATEMENT, which=_FIRST),
        "due_minor": Derived(8, _STATEMENT, which=_FIRST),
        "shortfall_points": Derived(8, _STATEMENT, which=_FIRST),
        "shortfall_value_micro": Derived(8, _STATEMENT, which=_FIRST),
        "document": Derived(15, _STATEMENT, "document || '\\x00'::bytea", _FIRST),
        "carried_in_minor": Derived(8, _STATEMENT, which=_FIRST),
        "carried_on_minor": Derived(8, _STATEMENT, which=_FIRST),
    },
    "statement_line": {
        "period_id": Derived(8, _LINE),
        "partner_id": Derived(8, _LINE),
        "kind": Derived(8, _LINE, "'CARRIED_FORWARD'", "kind <> 'CARRIED_FORWARD'"),
        "entries": Derived(8, _LINE),
        "points": Derived(8, _LINE),
        "exact_micro": Derived(8, _LINE),
        "prior_exact_micro": Derived(8, _LINE),
        "billed_minor": Derived(8, _LINE),
    },
    "statement_tax": {
        "period_id": Derived(8, _TAX),
        "partner_id": Derived(8, _TAX),
        "kind": Derived(8, _TAX, "'PREPAID'"),
        "rate_ppm": Derived(15, _STATEMENT),
        "taxable_minor": Derived(8, _TAX),
        "tax_minor": Derived(8, _TAX),
    },
    "period": {
        "pool_micro": Derived(5, "format('period %s closed', r.id)", which=CLOSED),
        "pool_change_micro": Derived(6, _PERIOD, which=CLOSED),
        "margin_micro": Derived(6, _PERIOD, which=CLOSED),
        "operator_net_minor": Derived(6, _PERIOD, which=CLOSED),
        "tax_micro": Derived(6, _PERIOD, which=CLOSED),
        "receivable_change_micro": Derived(6, _PERIOD, which=CLOSED),
        "deposit_change_micro": Derived(6, _PERIOD, which=CLOSED),
        "certificate_sha256": Derived(9, _PERIOD, "'\\x00'::bytea", CLOSED),
        "previous_sha256": Derived(9, _PERIOD, "'\\x00'::bytea", CLOSED),
    },
}
"""Columns that other rows say, by table."""

NUMBERS = ("bigint", "integer", "numeric")
KEY_STEP = 1_000_003
"""How far a number moves: a key meets no other."""

COLUMNS_SQL = text(
    """
    SELECT c.relname, a.attname, format_type(a.atttypid, NULL) AS type, a.attidentity <> '' AS is_identity,
           a.attnum = ANY (i.indkey) AS is_key
      FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
     WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace ORDER BY c.relname, a.attnum
    """
)
FREE_OF_CONSTRAINTS_SQL = text(
    "SELECT format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', conrelid::regclass, conname)"
    "  FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f')"
)
IDENTITIES_SQL = text(
    "SELECT format('ALTER TABLE %s ALTER %I DROP IDENTITY', attrelid::regclass, attname) FROM pg_attribute"
    " WHERE attidentity <> '' AND attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)"
)


class Column(NamedTuple):
    """A column of the catalog."""

    table: str
    name: str
    type: str
    is_identity: bool
    is_key: bool


async def columns(connection: AsyncConnection) -> dict[str, list[Column]]:
    """Every column there is, by table."""
    found: dict[str, list[Column]] = {}
    for row in await connection.execute(COLUMNS_SQL):
        found.setdefault(row.relname, []).append(Column(*row))
    return found


async def free_of_constraints(connection: AsyncConnection) -> None:
    """Whoever is superuser can do this, too: checks, references and identities are gone."""
    for query in (FREE_OF_CONSTRAINTS_SQL, IDENTITIES_SQL):
        for (statement,) in (await connection.execute(query)).all():
            await connection.execute(text(statement))


def changed(column: Column) -> str:
    """SQL of another value of that column's type."""
    name = f'"{column.name}"'
    if column.type in NUMBERS:
        return f"coalesce({name}, 0) + {KEY_STEP}"
    return {
        "text": f"coalesce({name}, '') || 'x'",
        "boolean": f"NOT coalesce({name}, false)",
        "timestamp with time zone": f"coalesce({name}, '2017-02-01') + interval '1 hour'",
        "date": f"coalesce({name}, '2017-02-01') + 1",
        "bytea": f"coalesce({name}, '') || '\\x00'::bytea",
        "jsonb": f"""coalesce({name}, '{{}}') || '{{"forged": 1}}'""",
        "text[]": f"coalesce({name}, '{{}}') || 'x'::text",
        "integer[]": f"coalesce({name}, '{{}}') || 7",
        "daterange": f"daterange(lower({name}), coalesce(upper({name}), '2090-01-01') + 1)",
    }[column.type]


def some_value(column: Column) -> str:
    """SQL of some value, for a row of a table that has none."""
    if column.type in NUMBERS:
        return "7"
    values = {"text": "'x'", "boolean": "true", "timestamp with time zone": "timestamptz '2017-02-01'"}
    values |= {
        "date": "date '2017-02-01'",
        "bytea": "'\\x00'::bytea",
        "daterange": "'[2017-02-01,2017-03-01)'::daterange",
    }
    values |= {"text[]": "ARRAY['x']", "integer[]": "ARRAY[1]"}
    return values[column.type]
