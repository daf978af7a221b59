"""A second, independent writer of the ledger: plain rows by SQL, without the posting queue.

It is slow and trusting on purpose: what it writes is consistent because each event is written out here after the
journal table (SETTLEMENT.md c.2), so that the settlement is tested against figures no other code of ours made.
"""

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
from domain.ledger import HASHED_TRANSACTION_COLUMNS, ensure_periods, fingerprint, row_hash_sql
from domain.periods import period_containing, period_span
from domain.positions import MovementSums, contributions
from domain.values import half_even

PPM = 1_000_000


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
class Award:
    id: int
    command_id: int
    period_id: int
    issuer: str
    funder_id: int
    terms: PartnerTerms
    lot: Lot


@dataclass
class BurnDone:
    id: int
    command_id: int
    period_id: int
    partner: str
    account_id: int
    terms: PartnerTerms
    uses: list[tuple[Lot, int]]


@dataclass
class Writer:
    """Writes a coalition and its events; ``account_id`` names a member, made on first use."""

    database: Database
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("Europe/Berlin"))
    partner_ids: dict[str, int] = field(default_factory=dict)
    terms: dict[str, list[PartnerTerms]] = field(default_factory=dict)
    budget_limits: dict[str, tuple[int, str]] = field(default_factory=dict)
    accounts: set[int] = field(default_factory=set)
    ids: Any = field(default_factory=lambda: count(1))
    imported: bool = False

    async def programme(self, currency: str = "EUR", digits: int = 2) -> None:
        async with self.database.posting() as connection:
            await _insert(
                connection,
                "programme",
                name="Coalition",
                currency=currency,
                currency_digits=digits,
                timezone=self.zone.key,
                region="DE",
                point_value_micro=10_000,
                period="month",
                expiry_months=24,
                grace_days=30,
                max_backdate_days=30,
                version=1,
            )

    async def partner(self, code: str, *versions: tuple[date, Prices], budget: str | None = None) -> None:
        """A partner with terms from each date on, and a monthly budget."""
        async with self.database.posting() as connection:
            added = await _insert(
                connection, "partner", code=code, name=code, category="shop", state="ACTIVE", reference_unique=True
            )
            self.partner_ids[code] = added
            self.terms[code] = []
            ends = [starts for starts, _ in versions[1:]] + [None]
            for (starts, prices), until in zip(versions, ends, strict=True):
                terms_id = await _insert(
                    connection,
                    "terms",
                    partner_id=added,
                    valid=f"[{starts},{until or ''})",
                    issue_price_micro=micro(prices.issue),
                    service_fee_micro=micro(prices.fee),
                    reimbursement_micro=micro(prices.reimbursement),
                    breakage_share_ppm=micro(prices.breakage),
                    fixed_fee_micro=micro(prices.fixed),
                )
                self.terms[code].append(PartnerTerms(terms_id, starts, prices))
            if budget is not None:
                plan_id = await _insert(
                    connection,
                    "budget_plan",
                    partner_id=added,
                    valid=f"[{versions[0][0]},)",
                    per_period=True,
                    limit_micro=micro(budget),
                    overdraft_micro=0,
                    on_limit="PARTIAL",
                    after_period="CREDIT_CURRENT",
                    funding="POSTPAID",
                )
                self.budget_limits[code] = (plan_id, budget)

    def terms_on(self, code: str, at: datetime) -> PartnerTerms:
        day = at.astimezone(self.zone).date()
        return [terms for terms in self.terms[code] if terms.starts <= day][-1]

    # ------------------------------------------------------------ events

    async def earn(
        self,
        code: str,
        points: int,
        at: datetime,
        *,
        account_id: int = 1,
        requested: int | None = None,
        by_operator: bool = False,
    ) -> Award:
        """One award in one command; ``requested`` beyond ``points`` is declined."""
        terms = self.terms_on(code, at)
        partner_id = self.partner_ids[code]
        funder_id = 0 if by_operator else partner_id
        asked = points if requested is None else requested
        async with self.database.posting() as connection:
            period_id = await self._period(connection, at)
            await self._account(connection, account_id, at)
            command_id = await self._command(
                connection, "EARN", code, account_id, at, amount_minor=points * 100, declined=asked - points
            )
            award_id, lot_id = next(self.ids), next(self.ids)
            gross_micro = points * (micro(terms.prices.issue) + micro(terms.prices.fee))
            budget_id = None if by_operator else await self._budget(connection, code, period_id)
            drawn_micro = gross_micro if budget_id is not None else 0
            await self._movement(
                connection,
                MovementKind.EARN,
                at,
                account_id=account_id,
                id=award_id,
                command_id=command_id,
                partner_id=partner_id,
                party_id=funder_id,
                funder_id=funder_id,
                issuer_id=partner_id,
                points=points,
                requested_points=asked,
                issue_value_micro=-points * micro(terms.prices.issue),
                service_fee_micro=0 if by_operator else -points * micro(terms.prices.fee),
                pool_value_micro=points * micro(terms.prices.issue),
                budget_id=budget_id,
                budget_micro=drawn_micro,
                terms_id=terms.id,
                lot_id=lot_id if points else None,
            )
            if points:
                await _insert(
                    connection,
                    "lot",
                    account_id=account_id,
                    id=lot_id,
                    transaction_id=award_id,
                    issuer_id=partner_id,
                    funder_id=funder_id,
                    terms_id=terms.id,
                    price_micro=micro(terms.prices.issue),
                    breakage_share_ppm=micro(terms.prices.breakage),
                    granted=points,
                    remaining=points,
                    reserved=0,
                    earned_at=at.isoformat(),
                    expires_at=at.replace(year=at.year + 2).isoformat(),
                )
            await self._balance(connection, account_id, points)
            await self._draw(connection, budget_id, drawn_micro)
        lot = Lot(lot_id, account_id, code, funder_id, terms, points)
        return Award(award_id, command_id, period_id, code, funder_id, terms, lot)

    async def burn(self, code: str, uses: list[tuple[Lot, int]], at: datetime) -> BurnDone:
        """Points of these lots, all of one account, at that partner."""
        terms = self.terms_on(code, at)
        partner_id = self.partner_ids[code]
        points = sum(part for _, part in uses)
        account_id = uses[0][0].account_id
        async with self.database.posting() as connection:
            period_id = await self._period(connection, at)
            command_id = await self._command(connection, "BURN", code, account_id, at, points=points)
            burn_id = next(self.ids)
            await self._movement(
                connection,
                MovementKind.BURN,
                at,
                account_id=account_id,
                id=burn_id,
                command_id=command_id,
                partner_id=partner_id,
                party_id=partner_id,
                points=-points,
                requested_points=points,
                reimbursement_micro=points * micro(terms.prices.reimbursement),
                pool_value_micro=-sum(part * lot.price_micro for lot, part in uses),
                terms_id=terms.id,
            )
            for lot, part in uses:
                await self._use(connection, lot, burn_id, MovementKind.BURN, part, period_id, partner_id)
            await self._balance(connection, account_id, -points)
        return BurnDone(burn_id, command_id, period_id, code, account_id, terms, uses)

    async def take_back(self, award: Award, points: int, at: datetime, *, shortfall: int = 0) -> int:
        """Goods returned: the award's lot gives ``points``, ``shortfall`` more are gone. Answers the command's id."""
        prices = award.terms.prices
        partner_id = self.partner_ids[award.issuer]
        by_operator = award.funder_id == 0
        async with self.database.posting() as connection:
            period_id = await self._period(connection, at)
            command_id = await self._command(
                connection,
                "REVERSAL",
                award.issuer,
                award.lot.account_id,
                at,
                reverses=award.command_id,
                amount_minor=1,
            )
            budget_id = None if by_operator else await self._budget(connection, award.issuer, period_id)
            credit_micro = points * (micro(prices.issue) + micro(prices.fee)) if budget_id is not None else 0
            reversal_id = next(self.ids)
            await self._movement(
                connection,
                MovementKind.EARN_REVERSAL,
                at,
                account_id=award.lot.account_id,
                id=reversal_id,
                command_id=command_id,
                partner_id=partner_id,
                party_id=award.funder_id,
                funder_id=award.funder_id,
                issuer_id=partner_id,
                points=-points,
                requested_points=points + shortfall,
                shortfall_points=shortfall,
                issue_value_micro=points * micro(prices.issue),
                service_fee_micro=0 if by_operator else points * micro(prices.fee),
                pool_value_micro=-points * award.lot.price_micro,
                budget_id=budget_id,
                budget_micro=-credit_micro,
                terms_id=award.terms.id,
                lot_id=award.lot.id,
                reverses_id=award.id,
                reverses_period_id=award.period_id,
            )
            if points:
                await self._use(connection, award.lot, reversal_id, MovementKind.EARN_REVERSAL, points, period_id, None)
            await self._balance(connection, award.lot.account_id, -points)
            await self._draw(connection, budget_id, -credit_micro)
        return command_id

    async def refund(self, burn: BurnDone, uses: list[tuple[Lot, int]], at: datetime) -> None:
        """A burn given back into the lots it came from, at its own reimbursement."""
        partner_id = self.partner_ids[burn.partner]
        points = sum(part for _, part in uses)
        async with self.database.posting() as connection:
            period_id = await self._period(connection, at)
            command_id = await self._command(
                connection, "REVERSAL", burn.partner, burn.account_id, at, reverses=burn.command_id, points=points
            )
            refund_id = next(self.ids)
            await self._movement(
                connection,
                MovementKind.BURN_REVERSAL,
                at,
                account_id=burn.account_id,
                id=refund_id,
                command_id=command_id,
                partner_id=partner_id,
                party_id=partner_id,
                points=points,
                requested_points=points,
                reimbursement_micro=-points * micro(burn.terms.prices.reimbursement),
                pool_value_micro=sum(part * lot.price_micro for lot, part in uses),
                terms_id=burn.terms.id,
                reverses_id=burn.id,
                reverses_period_id=burn.period_id,
            )
            for lot, part in uses:
                await self._use(connection, lot, refund_id, MovementKind.BURN_REVERSAL, part, period_id, partner_id)
            await self._balance(connection, burn.account_id, points)

    async def expire(self, lot: Lot, points: int, at: datetime) -> None:
        """Part of a lot leaves the pool (the posting path always takes all that remains)."""
        partner_id = self.partner_ids[lot.issuer]
        by_operator = lot.funder_id == 0
        value_micro = points * lot.price_micro
        share_micro = half_even(value_micro * micro(lot.terms.prices.breakage), PPM)
        async with self.database.posting() as connection:
            period_id = await self._period(connection, at)
            command_id = await self._command(connection, "EXPIRY", lot.issuer, lot.account_id, at, points=points)
            expiry_id = next(self.ids)
            await self._movement(
                connection,
                MovementKind.EXPIRE,
                at,
                account_id=lot.account_id,
                id=expiry_id,
                command_id=command_id,
                partner_id=partner_id,
                party_id=lot.funder_id,
                funder_id=lot.funder_id,
                issuer_id=partner_id,
                points=-points,
                requested_points=points,
                breakage_share_micro=value_micro if by_operator else share_micro,
                pool_value_micro=-value_micro,
                terms_id=lot.terms.id,
                lot_id=lot.id,
            )
            await self._use(connection, lot, expiry_id, MovementKind.EXPIRE, points, period_id, None)
            await self._balance(connection, lot.account_id, -points)

    # ------------------------------------------------------------ rows

    async def _period(self, connection: AsyncConnection, at: datetime) -> int:
        period_id = period_containing(at, self.zone)
        await ensure_periods(connection, [period_span(period_id, self.zone)], imported=self.imported)
        return period_id

    async def _account(self, connection: AsyncConnection, account_id: int, at: datetime) -> None:
        if account_id not in self.accounts:
            self.accounts.add(account_id)
            await _insert(connection, "account", id=account_id, available=0, pending=0, held=0)
            await _insert(
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
        await _insert(
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
            period_id=period_containing(at, self.zone),
        )
        return command_id

    async def _movement(self, connection: AsyncConnection, kind: MovementKind, at: datetime, **given: Any) -> None:
        period_id = period_containing(at, self.zone)
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
        await _insert(
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
            text("UPDATE account SET available = available + :change WHERE id = :id"),
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


async def _insert(connection: AsyncConnection, table: str, **row: Any) -> int:
    """Inserts one row given as JSON-able values; answers its id (0 where the table has none)."""
    columns = ", ".join(row)
    returning = "0" if table == "programme" else "id"
    inserted: int = (
        await connection.execute(
            text(
                f"INSERT INTO {table} ({columns}) SELECT {columns}"
                f" FROM jsonb_populate_record(NULL::{table}, CAST(:row AS jsonb)) RETURNING {returning}"
            ),
            {"row": json.dumps(row)},
        )
    ).scalar_one()
    return inserted


def noon(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, 12, tzinfo=UTC)
