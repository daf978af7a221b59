"""Performance reports computed a second time, in plain Python over whole tables and by the definitions alone."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Row, text

from domain.database import Database
from domain.values import OPERATOR_ID
from settlement.performance import Cell, Members, Totals

TABLES = ("command", "transaction", "lot_use", "member", "terms")


@dataclass
class Ledger:
    """Every row of the tables, and the zone in which days are counted."""

    tables: dict[str, list[Row[Any]]]
    zone: ZoneInfo

    def report(self, partner_id: int | None, first: date, last: date) -> tuple[Totals, Members, list[Cell]]:
        """What the operator's report of that partner, or of all, must say."""

        def within(instant: datetime) -> bool:
            return first <= instant.astimezone(self.zone).date() <= last

        def asked(candidate: int) -> bool:
            return partner_id in (None, candidate)

        return self.totals(within, asked), self.members(within, asked), self.cells(within, partner_id)

    def totals(self, within: Any, asked: Any) -> Totals:
        purchases = sales = charge = 0
        for row in self.tables["command"]:
            if within(row.occurred_at) and asked(row.partner_id) and row.amount_minor is not None:
                purchases += row.kind == "EARN"
                sales += row.amount_minor if row.kind == "EARN" else -row.amount_minor
        points: Counter[str] = Counter()
        for row in self.tables["transaction"]:
            if within(row.occurred_at) and asked(row.partner_id):
                points[row.kind] += abs(row.points)
            is_award = row.kind in ("EARN", "CONFIRM") and row.party_id != OPERATOR_ID
            if is_award and within(row.occurred_at) and asked(row.party_id):
                charge -= row.issue_value_micro + row.service_fee_micro
        return Totals(
            purchases,
            sales,
            points["EARN"] + points["CONFIRM"],
            points["EARN_REVERSAL"],
            points["BURN"],
            points["BURN_REVERSAL"],
            charge,
        )

    def members(self, within: Any, asked: Any) -> Members:
        standing = {row.id: row.merged_into or row.id for row in self.tables["member"]}
        visits: defaultdict[int, list[Row[Any]]] = defaultdict(list)
        for row in self.tables["command"]:
            if row.kind == "EARN":
                visits[standing[row.member_id]].append(row)
        active = repeating = new = given = received = 0
        for member in self.tables["member"]:
            if member.merged_into is not None:
                continue
            own = visits[member.id]
            bought = sum(within(visit.occurred_at) and asked(visit.partner_id) for visit in own)
            active += bought >= 1
            repeating += bought >= 2
            if within(member.enrolled_at) and asked(member.partner_id):
                new += 1
                given += any(
                    visit.partner_id != member.partner_id and visit.occurred_at >= member.enrolled_at
                    for visit in own
                    if within(visit.occurred_at)
                )
            firsts: dict[int, datetime] = {}
            for visit in own:
                firsts[visit.partner_id] = min(visit.occurred_at, firsts.get(visit.partner_id, visit.occurred_at))
            received += any(
                within(first) and asked(where) and any(earlier < first for earlier in firsts.values())
                for where, first in firsts.items()
            )
        return Members(active, repeating, new, given, received)

    def cells(self, within: Any, partner_id: int | None) -> list[Cell]:
        burns = {row.id: row for row in self.tables["transaction"] if row.kind == "BURN"}
        reimbursements = {row.id: row.reimbursement_micro for row in self.tables["terms"]}
        sums: defaultdict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
        who: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        account_of = {row.id: row.account_id for row in self.tables["member"]}
        kept = {row.account_id: account_of[row.merged_into or row.id] for row in self.tables["member"]}
        for use in self.tables["lot_use"]:
            burn = burns.get(use.transaction_id)
            key = (use.issuer_id, use.redeemer_id)
            if burn is None or not within(burn.occurred_at) or partner_id not in (None, *key):
                continue
            who[key].add(kept[use.account_id])
            parts = (use.points, use.points * reimbursements[burn.terms_id], use.points * use.price_micro)
            sums[key] = [a + b for a, b in zip(sums[key], parts, strict=True)]
        return [Cell(*key, len(who[key]), *sums[key]) for key in sorted(sums)]


async def read_ledger(database: Database, zone: ZoneInfo) -> Ledger:
    """The tables as they stand."""
    async with database.posting() as connection:
        tables = {name: list((await connection.execute(text(f"SELECT * FROM {name}"))).all()) for name in TABLES}
    return Ledger(tables, zone)
