"""A second, independent writer of the ledger: plain rows by SQL, without the posting queue.

It is slow and trusting on purpose: what it writes is consistent because each event is written out here after the
journal table (SETTLEMENT.md c.2), so that the settlement is tested against figures no other code of ours made.
"""

from dataclasses import dataclass, field
from datetime import date, datetime

from domain.commands import MovementKind
from domain.values import half_even
from tests.settlement.rows import Lot, PartnerTerms, Prices, Rows, insert, micro

PPM = 1_000_000


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
class Writer(Rows):
    """Writes a coalition and its events; ``account_id`` names a member, made on first use."""

    terms: dict[str, list[PartnerTerms]] = field(default_factory=dict)

    async def programme(self, currency: str = "EUR", digits: int = 2) -> None:
        async with self.database.posting() as connection:
            await insert(
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
            added = await insert(
                connection, "partner", code=code, name=code, category="shop", state="ACTIVE", reference_unique=True
            )
            self.partner_ids[code] = added
            self.terms[code] = []
            ends = [starts for starts, _ in versions[1:]] + [None]
            for (starts, prices), until in zip(versions, ends, strict=True):
                terms_id = await insert(
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
                plan_id = await insert(
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
                await insert(
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
