"""Single rows of the ledger by plain SQL, each with what must move along with it: the lower half of the writer."""

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.commands import MovementKind
from domain.database import Database
from domain.ledger import (
    HASHED_COMMAND_COLUMNS,
    HASHED_TRANSACTION_COLUMNS,
    ensure_periods,
    fingerprint,
    lot_hash_sql,
    row_hash_sql,
)
from domain.periods import Calendar, PeriodKind
from domain.positions import MovementSums, contributions


def micro(amount: str) -> int:
    return int(Decimal(amount) * 1_000_000)


@dataclass(frozen=True)
class Prices:
    issue: str = "0.010000"
    fee: str = "0.001000"
    reimbursement: str = "0.009000"
    breakage: str = "0.50"
    fixed: str = "0"


@dataclass
class PartnerTerms:
    id: int
    starts: date
    prices: Prices


@dataclass
class Lot:
    id: int
    account_id: int
    issuer: str
    funder_id: int
    terms: PartnerTerms
    remaining: int

    @property
    def price_micro(self) -> int:
        return micro(self.terms.prices.issue)


@dataclass
class Rows:
    """Writes rows into one database, in the transaction of the caller."""

    database: Database
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("Europe/Berlin"))
    partner_ids: dict[str, int] = field(default_factory=dict)
    budget_limits: dict[str, tuple[int, str]] = field(default_factory=dict)
    accounts: set[int] = field(default_factory=set)
    ids: Any = field(default_factory=lambda: count(1))
    imported: bool = False

    @property
    def calendar(self) -> Calendar:
        return Calendar(PeriodKind.MONTH, self.zone)

    async def _period(self, connection: AsyncConnection, at: datetime) -> int:
        period_id = self.calendar.containing(at)
        await ensure_periods(connection, [self.calendar.span(period_id)], imported=self.imported)
        return period_id

    async def _account(self, connection: AsyncConnection, account_id: int, at: datetime) -> None:
        if account_id not in self.accounts:
            self.accounts.add(account_id)
            await insert(connection, "account", id=account_id, available=0, pending=0, held=0)
            await insert(
                connection,
                "member",
                id=account_id,
                account_id=account_id,
                state="ACTIVE",
                enrolled_at=at.isoformat(),
                partner_id=0,
                store_id=0,
            )

    async def _command(  # one row's columns
        self,
        connection: AsyncConnection,
        kind: str,
        code: str,
        account_id: int,
        at: datetime,
        *,
        amount_minor: int | None = None,
        points: int | None = None,
        declined: int = 0,
        reverses: int | None = None,
    ) -> int:
        command_id: int = next(self.ids)
        print_ = fingerprint(
            kind=kind,
            member_id=account_id,
            store_id=0,
            amount_minor=amount_minor,
            points=points,
            reverses_id=reverses,
            occurred_at=at,
        )
        await insert(
            connection,
            "command",
            id=command_id,
            partner_id=self.partner_ids[code],
            idempotency_key=f"key-{command_id}",
            fingerprint=f"\\x{print_.hex()}",
            kind=kind,
            account_id=account_id,
            member_id=account_id,
            store_id=0,
            reference_unique=False,
            amount_minor=amount_minor,
            points=points,
            whole=False,
            reverses_id=reverses,
            created_member=False,
            declined_points=declined,
            occurred_at=at.isoformat(),
            recorded_at=at.isoformat(),
            period_id=self.calendar.containing(at),
        )
        return command_id

    async def _movement(self, connection: AsyncConnection, kind: MovementKind, at: datetime, **given: Any) -> None:
        period_id = self.calendar.containing(at)
        nothing = dict.fromkeys(
            ("shortfall_points", "issue_value_micro", "service_fee_micro", "reimbursement_micro",
             "breakage_share_micro", "budget_micro", "store_id"), 0,
        )  # fmt: skip
        row: dict[str, Any] = {
            **nothing, "kind": kind.value, "period_id": period_id, "occurred_at": at.isoformat(),
            "recorded_at": at.isoformat(), **given,
        }  # fmt: skip
        columns = ", ".join(HASHED_TRANSACTION_COLUMNS)
        row_hash: int = (
            await connection.execute(
                text(
                    f"INSERT INTO transaction ({columns}, row_hash) SELECT {columns}, "
                    f"{row_hash_sql(HASHED_TRANSACTION_COLUMNS, 't')}"
                    " FROM jsonb_populate_record(NULL::transaction, CAST(:row AS jsonb)) AS t RETURNING row_hash"
                ),
                {"row": json.dumps(row)},
            )
        ).scalar_one()
        reverses_period_id = row.get("reverses_period_id")
        sums = MovementSums(
            kind,
            row["party_id"],
            reverses_period_id is not None and reverses_period_id < period_id,
            1,
            row["points"],
            row["issue_value_micro"],
            row["service_fee_micro"],
            row["reimbursement_micro"],
            row["breakage_share_micro"],
            row["pool_value_micro"],
            row_hash,
        )
        for part in contributions(sums):
            await connection.execute(ADD_POSITION_SQL, {"period_id": period_id, **part._asdict()})

    async def _use(
        self,
        connection: AsyncConnection,
        lot: Lot,
        transaction_id: int,
        kind: MovementKind,
        points: int,
        period_id: int,
        redeemer_id: int | None,
    ) -> None:
        change = points if kind == MovementKind.BURN_REVERSAL else -points
        lot.remaining += change
        await connection.execute(
            text("UPDATE lot SET remaining = remaining + :change WHERE account_id = :account AND id = :id"),
            {"change": change, "account": lot.account_id, "id": lot.id},
        )
        await insert(
            connection,
            "lot_use",
            account_id=lot.account_id,
            id=next(self.ids),
            lot_id=lot.id,
            transaction_id=transaction_id,
            kind=kind.value,
            points=points,
            period_id=period_id,
            issuer_id=self.partner_ids[lot.issuer],
            funder_id=lot.funder_id,
            redeemer_id=redeemer_id,
            price_micro=lot.price_micro,
        )

    async def _balance(self, connection: AsyncConnection, account_id: int, change: int) -> None:
        await connection.execute(
            text(
                "UPDATE account SET available = available + :change, next_expires_at ="
                " (SELECT min(expires_at) FROM lot WHERE account_id = :id AND remaining > 0) WHERE id = :id"
            ),
            {"change": change, "id": account_id},
        )

    async def _budget(self, connection: AsyncConnection, code: str, period_id: int) -> int | None:
        if code not in self.budget_limits:
            return None
        plan_id, limit = self.budget_limits[code]
        await connection.execute(
            text(
                "INSERT INTO budget (id, plan_id, partner_id, period_id, limit_micro, overdraft_micro)"
                " VALUES (:id, :plan, :partner, :period, :limit, 0) ON CONFLICT (plan_id, period_id) DO NOTHING"
            ),
            {
                "id": next(self.ids),
                "plan": plan_id,
                "partner": self.partner_ids[code],
                "period": period_id,
                "limit": micro(limit),
            },
        )
        found: int = (
            await connection.execute(
                text("SELECT id FROM budget WHERE plan_id = :plan AND period_id = :period"),
                {"plan": plan_id, "period": period_id},
            )
        ).scalar_one()
        return found

    async def _draw(self, connection: AsyncConnection, budget_id: int | None, drawn_micro: int) -> None:
        await connection.execute(
            text("UPDATE budget SET consumed_micro = consumed_micro + :drawn WHERE id = :id"),
            {"drawn": drawn_micro, "id": budget_id},
        )


ADD_POSITION_SQL = text(
    """
    INSERT INTO position AS p (period_id, partner_id, kind, entries, points, amount_micro, prior_amount_micro, hash_sum)
    VALUES (:period_id, :partner_id, :kind, :entries, :points, :amount_micro, :prior_amount_micro, :hash_sum)
    ON CONFLICT (period_id, partner_id, kind) DO UPDATE SET
        entries = p.entries + EXCLUDED.entries, points = p.points + EXCLUDED.points,
        amount_micro = p.amount_micro + EXCLUDED.amount_micro,
        prior_amount_micro = p.prior_amount_micro + EXCLUDED.prior_amount_micro,
        hash_sum = p.hash_sum + EXCLUDED.hash_sum
    """
)


ROW_HASHES = {"lot": lot_hash_sql("r"), "command": row_hash_sql(HASHED_COMMAND_COLUMNS, "r")}


async def insert(connection: AsyncConnection, table: str, **row: Any) -> int:
    """Inserts one row given as JSON-able values; answers its id (0 where the table has none)."""
    columns = ", ".join(row)
    returning = "0" if table == "programme" else "id"
    row_hash = f", {ROW_HASHES[table]}" if table in ROW_HASHES else ""
    inserted: int = (
        await connection.execute(
            text(
                f"INSERT INTO {table} ({columns}{row_hash and ', row_hash'}) SELECT {columns}{row_hash}"
                f" FROM jsonb_populate_record(NULL::{table}, CAST(:row AS jsonb)) AS r RETURNING {returning}"
            ),
            {"row": json.dumps(row)},
        )
    ).scalar_one()
    return inserted


def noon(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, 12, tzinfo=UTC)
