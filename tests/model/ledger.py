"""The auditor's state, and what every idea does to it: booking, budget windows, lots, accounts.

Plain dicts, whole numbers and fractions. Money is in micro-units (``_minor``: cents). Rows are not kept: what is booked
adds to ``positions``, and lots, awards, holds and ``done`` hold what later answers depend on.
"""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import count
from typing import Any

from tests.model.days import Days
from tests.model.endings import END_OF_TIME, Endings

OPERATOR = "operator"
Dict = dict[str, Any]


def micro(text: str) -> int:
    """Money of the coalition file."""
    return int(Fraction(text) * 10**6)


class No(Exception):
    """A refusal; its text is the code."""


class Ledger:
    """Everything that the coalition has, and the times of the command that is being decided."""

    def __init__(self, coalition: Dict) -> None:
        self.programme: Dict = coalition["programme"]
        self.days = Days(self.programme)
        self.partners: dict[str, Dict] = {partner["code"]: partner for partner in coalition["partner"]}
        self.ends = Endings(self.days, self.programme, self.partners)
        self.campaigns: list[Dict] = coalition.get("campaign", [])
        self.account_of: dict[str, str] = {}  # of each person that was enrolled, by its card
        self.stands_for: dict[str, str] = {}  # who was merged -> who stands for that person
        self.last_user: dict[str, str] = {}  # of each account
        self.lots: list[Dict] = []
        self.awards: list[Dict] = []  # those that began pending
        self.holds: list[Dict] = []
        self.debts: list[Dict] = []
        self.pools: dict[str, dict[str, Dict]] = {}
        self.windows: dict[tuple[str, str, str], Dict] = {}
        self.outstanding: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self.positions: defaultdict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self.done: dict[tuple[str, str], Dict] = {}
        self.references: set[tuple[str, str, str | None]] = set()
        self.parked: list[Dict] = []
        self.closed: dict[str, Dict] = {}
        self.taxes: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
        self.carried: dict[str, int] = {}  # cents that each partner's last statement left to its next one
        self.float_used: defaultdict[tuple[str, str, bool], int] = defaultdict(int)
        self.booked: set[str] = set()
        self.numbers = count()
        self.has_history = False
        self.first_open = ""
        self.now = self.then = datetime.min.replace(tzinfo=UTC)
        self.in_history = False
        self.period = ""
        self.today = date.min

    def begin(self, now: datetime, at: datetime | None = None) -> None:
        """The times of what follows: ``at`` is when a command of history happened."""
        self.now, self.then, self.in_history = now, now if at is None else min(at, now), at is not None
        self.today = self.days.day(self.then)
        self.period = self.days.period(self.today)
        if self.period < self.first_open:
            self.period, self.today = self.first_open, self.days.begins(self.first_open)
        if self.ends.has_ended(self.then):
            self.then = END_OF_TIME

    # ------------------------------------------------------------ people and accounts

    def person(self, name: str) -> str:
        """Who stands for that person."""
        return self.person(self.stands_for[name]) if name in self.stands_for else name

    def account(self, card: str) -> str:
        return self.account_of[self.person(card)]

    def is_left(self, account: str) -> bool:
        """Whether nobody uses the account any more."""
        return all(self.account(name) != account for name in self.account_of)

    def balance(self, account: str, at: datetime) -> tuple[int, int, int]:
        """Points that may be burned then, less what is owed, pending ones and held ones."""
        lots = [lot for lot in self.lots if lot["account"] == account]
        owed = sum(debt["open"] for debt in self.debts if debt["account"] == account)
        pending = sum(award["open"] for award in self.awards if award["account"] == account)
        usable: int = sum(lot["left"] for lot in lots if at < lot["until"])
        return usable - owed, pending, sum(lot["held"] for lot in lots)

    def spendable(self, account: str) -> int:
        """What a burn finds: also what is due, but for what would be past at once."""
        due = sum(award["open"] for award in self.due(account) if self.then < self.days.expiry(award["earned"]))
        return self.balance(account, self.then)[0] + int(due)

    # ------------------------------------------------------------ contracts and budgets

    def terms(self, partner: str, at: datetime) -> Dict:
        found = [one for one in self.partners[partner]["terms"] if one["from"] <= self.days.day(at)]
        if not found:
            raise No("TERMS_MISSING")
        return dict(found[-1])

    def window(self, owner: str) -> Dict | None:
        """The budget window of a partner for what is booked now."""
        for plan in reversed(self.partners[owner]["budget"]):
            if plan["from"] <= self.today:
                if self.today > plan.get("to", date.max):
                    return None
                return self.window_of(owner, plan)
        return None

    def window_of(self, owner: str, plan: Dict) -> Dict:
        key = (owner, str(plan.get("from", "")), self.period if "every" in plan else "")
        if key not in self.windows:
            limit, extra = micro(plan.get("limit", "0")), micro(plan.get("approved_overdraft", "0"))
            opening = (
                [[self.days.midnight(plan["from"]), limit, 0, False]]
                if limit and plan.get("funding") == "PREPAID"
                else []
            )
            self.windows[key] = {"plan": plan, "limit": limit, "overdraft": extra, "consumed": 0, "reserved": 0,
                                 "alerted": None, "approved": [], "blocks": opening}  # fmt: skip
        return self.windows[key]

    def free(self, window: Dict) -> int:
        """What may still be spent of it."""
        ended = sum(extra for extra, until in window["approved"] if until is not None and until <= self.now)
        return int(window["limit"] + window["overdraft"] - ended - window["consumed"] - window["reserved"])

    def draw(self, window: Dict, part: str, money: int) -> None:
        """Consumes or reserves; negative: credits. An alert stands from the moment that the threshold is crossed."""
        window[part] += money
        alert_at = window["plan"].get("alert_at")
        if alert_at is None or window["consumed"] + window["reserved"] < int(window["limit"] * Fraction(alert_at)):
            window["alerted"] = None
        elif window["alerted"] is None:
            window["alerted"] = self.now

    # ------------------------------------------------------------ booking

    def book(
        self, party: str, points: int, pool: int, lines: dict[str, int], *, prior: bool = False, signed: bool = False,
        counts: int | None = None,
    ) -> None:  # fmt: skip
        """One row: ``points`` from the member's side, ``pool`` from the pool's, ``lines`` from the party's.

        Lines count the same points, without sign but for ``signed``; ``counts``: so many.
        """
        named = {"SUBSIDY": sum(lines.values())} if party == OPERATOR and lines else lines
        count = counts if counts is not None else points if signed else abs(points)
        rows = [(party, kind, count, money, money if prior else 0) for kind, money in named.items()]
        for partner, kind, number, money, prior_money in [*rows, (OPERATOR, "POOL", points, pool, 0)]:
            self.add(partner, kind, [1, number, money, prior_money])

    def add(self, partner: str, kind: str, sums: list[int]) -> None:
        self.booked.add(self.period)
        position = self.positions[self.period, partner, kind]
        position[:] = [a + b for a, b in zip(position, sums, strict=True)]

    def note_row(self) -> None:
        """A row that moves no points in the pool, and no money."""
        self.book(OPERATOR, 0, 0, {})

    # ------------------------------------------------------------ lots

    def change(self, lot: Dict, points: int) -> None:
        """So many points of a lot come into the pool, or leave it."""
        sums = self.outstanding[self.period, lot["funder"]]
        sums[:] = [sums[0] + points, sums[1] + points * lot["price"]]

    def open_lot(self, lot: Dict, points: int) -> None:
        expires = self.days.expiry(lot["earned"])
        lot |= {"granted": points, "left": points, "held": 0, "expires": expires, "until": expires, "grace": False}
        lot["rolls"] = self.programme["expiry_months"] if self.programme.get("expiry") == "rolling" else None
        self.lots.append(lot)

    def usable(self, account: str) -> list[Dict]:
        """Lots in burn order; ties in the order in which they were made."""
        lots = [lot for lot in self.lots if lot["account"] == account and lot["left"] and self.then < lot["until"]]
        return sorted(lots, key=lambda lot: (lot["until"], lot["earned"], lot["number"]))

    def take(self, lots: list[Dict], points: int) -> list[tuple[Dict, int]]:
        taken = []
        for lot in lots:
            part = min(lot["left"], points)
            points -= part
            lot["left"] -= part
            taken += [(lot, part)] if part else []
        return taken

    def expire(self, lot: Dict) -> None:
        """Books what is left of a past lot, if anything is."""
        points, lot["left"] = lot["left"], 0
        value = points * lot["price"]
        share = value if lot["funder"] == OPERATOR else round(value * lot["share"])  # of a Fraction: half to even
        party = lot["funder"]
        if party != OPERATOR and self.ends.is_settled_as_leaver(party, self.period):
            party, share = OPERATOR, 0
        if points:
            self.book(party, -points, -value, {"BREAKAGE_SHARE": share})
            self.change(lot, -points)

    def expire_past(self, account: str) -> list[int]:
        """Points of each lot that this expired."""
        past = [lot for lot in self.lots if lot["account"] == account and lot["left"] and lot["until"] <= self.then]
        points = [lot["left"] for lot in past]
        for lot in past:
            self.expire(lot)
        return points

    def give_back(self, lot: Dict, points: int) -> None:
        """Points come back to a lot: to one that is past, with days of grace."""
        if lot["until"] <= self.then:
            self.expire(lot)
            if not self.ends.has_ended(self.then):
                lot |= {"until": self.then + timedelta(days=self.programme.get("grace_days", 30)), "grace": True}
        lot["left"] += points

    def roll(self, account: str, at: datetime) -> None:
        """The account was used then: what rolls, and is not past, lives on from then."""
        for lot in self.lots:
            alive = self.then < lot["until"] and not lot["grace"] and lot["left"] + lot["held"]
            if lot["account"] == account and lot["rolls"] and alive:
                lot["until"] = lot["expires"] = max(lot["until"], self.days.months_after(at, lot["rolls"]))

    def move(self, parts: list[tuple[Dict, int]], target: str) -> list[Dict]:
        """What was taken of lots goes to another account, into children that keep everything else."""
        points = sum(part for _, part in parts)
        self.book(OPERATOR, -points, 0, {})
        if not parts:
            return []
        self.book(OPERATOR, points, 0, {})
        children = [
            {
                **lot,
                "account": target,
                "granted": part,
                "left": part,
                "held": 0,
                "parent": lot,
                "number": next(self.numbers),
            }
            for lot, part in parts
        ]
        self.lots += children
        return children

    def pass_on(self, account: str, person: str) -> None:
        """All that is usable of an account that nobody uses goes to where that person's points are now."""
        lots = self.usable(account)
        if self.is_left(account) and lots:
            children = self.move(self.take(lots, sum(lot["left"] for lot in lots)), self.account(person))
            for child in children:
                child["by_itself"] = True

    # ------------------------------------------------------------ pending awards

    def due(self, account: str) -> list[Dict]:
        """Awards that nothing keeps from being confirmed."""
        return [
            award
            for award in self.awards
            if award["account"] == account and award["open"] and not award["waits"] and award["release"] <= self.then
            and not self.ends.lapses(award, self.period, self.then)
        ]  # fmt: skip

    def confirm(self, award: Dict) -> int:
        """Opens the award's lot and charges it, in this period; answers how many points that were."""
        points, price, fee = award["open"], award["price"], award["fee"]
        self.book(award["funder"], points, points * price, {"ISSUE": -points * price, "SERVICE_FEE": -points * fee})
        if award["window"] is not None:
            award["window"]["reserved"] -= points * (price + fee)
            award["window"]["consumed"] += points * (price + fee)
            self.use_blocks(award, points * (price + fee))
        award |= {"open": 0, "charged_in": self.period}
        self.open_lot(award["lot"], points)
        self.change(award["lot"], points)
        return int(points)

    def confirm_due(self, account: str) -> list[int]:
        due = self.due(account)
        for award in due:
            self.last_user[account] = award["person"]
        return [self.confirm(award) for award in due]

    def use_blocks(self, award: Dict, money: int) -> None:
        """Draws on a float's blocks, oldest first; negative: gives back what the award drew, the last one first."""
        if award["window"] is None or award["window"]["plan"].get("funding") != "PREPAID":
            return
        blocks = sorted(award["window"]["blocks"], key=lambda block: block[0])
        drawn: dict[int, int] = award.setdefault("drawn", {})
        is_prior = money < 0 and award["charged_in"] < self.period
        for block in blocks if money > 0 else reversed(blocks):
            mine = drawn.get(id(block), 0)
            part = min(money, block[1] - block[2]) if money > 0 else -min(-money, mine)
            block[2] += part
            if block[3]:  # what the float opened with was paid outside of these books
                self.float_used[self.period, award["funder"], is_prior] += part
            drawn[id(block)] = mine + part
            money -= part
