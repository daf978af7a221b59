"""The SQL of the ledger: what a batch loads under its locks and what it writes."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import text

from domain.database import Connection
from domain.periods import PeriodSpan

HASHED_TRANSACTION_COLUMNS = (
    "account_id", "id", "command_id", "kind", "period_id", "partner_id", "party_id", "funder_id", "issuer_id",
    "store_id", "points", "requested_points", "shortfall_points", "issue_value_micro", "service_fee_micro",
    "reimbursement_micro", "breakage_share_micro", "pool_value_micro", "budget_id", "budget_micro", "terms_id",
    "rule_id", "lot_id", "reverses_id", "reverses_period_id", "occurred_at", "recorded_at",
)  # fmt: skip
"""Every column of ``transaction`` but the hash itself, in the order in which the row is hashed."""

HASHED_PARTNER_ENTRY_COLUMNS = (
    "id", "period_id", "partner_id", "kind", "line_kind", "amount_micro", "terms_id", "recorded_at",
)  # fmt: skip
"""Every column of ``partner_entry`` but the hash itself, in the order in which the row is hashed."""


def row_hash_sql(columns: Iterable[str], alias: str) -> str:
    """SQL expression of a row's 64-bit hash over these columns: the same when it is written and when it is audited."""
    return f"hash_record_extended(ROW({', '.join(f'{alias}.{column}' for column in columns)}), 0)"


HASHED_COMMAND_COLUMNS = (
    "id", "partner_id", "idempotency_key", "fingerprint", "kind", "account_id", "member_id", "store_id", "reference",
    "reference_unique", "channel", "amount_minor", "eligible_minor", "lines", "points", "whole", "reverses_id",
    "reason", "input_digest", "created_member", "declined_points", "occurred_at", "recorded_at", "period_id",
)  # fmt: skip
"""Every column of ``command`` but the hash itself, in the table's order: that of its row type."""

HASHED_LOT_COLUMNS = (
    "account_id", "id", "transaction_id", "issuer_id", "funder_id", "terms_id", "price_micro", "breakage_share_ppm",
    "granted", "earned_at", "parent_id", "rolling_months",
)  # fmt: skip
LOT_ENDS = ("expires_at", "grace_until")
HASHED_AWARD_COLUMNS = (
    "account_id", "id", "transaction_id", "command_id", "member_id", "partner_id", "issuer_id", "funder_id",
    "terms_id", "rule_id", "budget_id", "granted", "release_at", "earned_at",
)  # fmt: skip
AWARD_WAITS = ("waits_for_payment",)


def lot_hash_sql(alias: str) -> str:
    """SQL of a lot's hash: what stays and what may change are parts of their own, and an update seals its part."""
    return f"({row_hash_sql(HASHED_LOT_COLUMNS, alias)} # {row_hash_sql(LOT_ENDS, alias)})"


def award_hash_sql(alias: str) -> str:
    """SQL of a pending award's hash, made as a lot's."""
    return f"({row_hash_sql(HASHED_AWARD_COLUMNS, alias)} # {row_hash_sql(AWARD_WAITS, alias)})"


FINGERPRINT_COLUMNS_SQL = """
    c.kind,
    CASE WHEN c.kind = 'ENROLL' THEN '' ELSE c.member_id::text END,
    c.store_id::text,
    coalesce(c.reference, ''),
    coalesce(c.channel, ''),
    CASE WHEN c.whole THEN '' ELSE coalesce(c.amount_minor::text, '') END,
    CASE WHEN c.whole THEN '' ELSE coalesce(c.points::text, '') END,
    coalesce(c.lines, ''),
    coalesce(c.reverses_id::text, ''),
    coalesce(c.reason, ''),
    coalesce(c.input_digest, ''),
    CASE WHEN c.kind = 'ENROLL' THEN '' ELSE (extract(epoch FROM c.occurred_at) * 1000000)::bigint::text END
"""
FINGERPRINT_SQL = f"sha256(convert_to(concat_ws(chr(31), {FINGERPRINT_COLUMNS_SQL}), 'UTF8'))"
"""SQL twin of ``fingerprint`` over a row ``c`` of ``command``: invariant 12 recomputes with it."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS_PER_DAY = 86_400
MICRO_PER_SECOND = 1_000_000


def fingerprint(  # noqa: PLR0913 (the parts of a command's input, each by name)
    *,
    kind: str,
    member_id: int | None,
    store_id: int,
    reference: str | None = None,
    channel: str | None = None,
    amount_minor: int | None = None,
    points: int | None = None,
    lines: str | None = None,
    reverses_id: int | None = None,
    reason: str | None = None,
    input_digest: str | None = None,
    occurred_at: datetime | None = None,
) -> bytes:
    """SHA-256 of a command's normalised input: equal inputs under one key are a replay, others a conflict.

    ``amount_minor`` and ``points`` are what the caller named (None: all of it); enrolments pass no member and no time.
    """
    instant = "" if occurred_at is None else _micro_since_epoch(occurred_at)
    parts = (
        f"{kind}\x1f{'' if member_id is None else member_id}\x1f{store_id}\x1f{reference or ''}\x1f{channel or ''}\x1f"
        f"{'' if amount_minor is None else amount_minor}\x1f{'' if points is None else points}\x1f{lines or ''}\x1f"
        f"{'' if reverses_id is None else reverses_id}\x1f{reason or ''}\x1f{input_digest or ''}\x1f{instant}"
    )
    return hashlib.sha256(parts.encode()).digest()


def _micro_since_epoch(instant: datetime) -> int:
    # In whole numbers: total_seconds() is a binary fraction and would lose the last digit.
    since = instant - EPOCH
    return (since.days * SECONDS_PER_DAY + since.seconds) * MICRO_PER_SECOND + since.microseconds


ENSURE_PERIODS_SQL = text(
    """
    INSERT INTO period (id, label, opens_at, closes_at, imported)
    SELECT id, label, opens_at, closes_at, :imported
      FROM unnest(CAST(:ids AS integer[]), CAST(:labels AS text[]), CAST(:opens AS timestamptz[]),
                  CAST(:closes AS timestamptz[])) AS span (id, label, opens_at, closes_at)
     ORDER BY id
    ON CONFLICT (id) DO UPDATE SET imported = true
     WHERE EXCLUDED.imported AND NOT period.imported AND period.state <> 'CLOSED'
    """
)


async def ensure_periods(connection: Connection, spans: Iterable[PeriodSpan], *, imported: bool = False) -> None:
    """Creates the missing rows of these periods, in a transaction of its own before anything posts into them.

    ``imported`` marks them as holding history, in the transaction that books it.
    """
    ordered = sorted(spans, key=lambda span: span.id)
    await connection.execute(
        ENSURE_PERIODS_SQL,
        {
            "imported": imported,
            "ids": [span.id for span in ordered],
            "labels": [span.label for span in ordered],
            "opens": [span.opens_at for span in ordered],
            "closes": [span.closes_at for span in ordered],
        },
    )
