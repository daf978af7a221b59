"""The auditor: a second, small model of the ledger that says what the first must answer and hold.

Written from the arithmetic of the contract, sharing no code with the product: dicts, whole numbers and fractions.
A command is a dict, money is in micro-units (``_minor``: cents), a period is its label. Rows are not kept: what is
booked adds to ``positions``, and ``lots``, ``consumed`` and ``done`` hold what later answers depend on.
"""

from collections import defaultdict
from datetime import date, datetime, timedelta
from fractions import Fraction
from math import floor
from typing import Any
from zoneinfo import ZoneInfo

OPERATOR = "operator"


def micro(text: str) -> int:
    """Money of the coalition file."""
    return int(Fraction(text) * 10**6)


class No(Exception):
    """A refusal; its text is the code."""


class Auditor:
    """State of the coalition, and ``post`` and ``close`` that change it and say what the product must answer."""

    def __init__(self, coalition: dict[str, Any]) -> None:
        self.programme = coalition["programme"]
        self.partners: dict[str, Any] = {partner["code"]: partner for partner in coalition["partner"]}
        self.cards: set[str] = set()
        self.lots: list[dict[str, Any]] = []
        self.consumed: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.positions: defaultdict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self.done: dict[tuple[str, str], dict[str, Any]] = {}
        self.references: set[tuple[str, str, str]] = set()
        self.closed: dict[str, dict[str, Any]] = {}
        self.booked: set[str] = set()
        self.has_history = False
        self.first_open = ""

    # ------------------------------------------------------------ calendar

    def day(self, instant: datetime) -> date:
        return instant.astimezone(ZoneInfo(self.programme["timezone"])).date()

    def period(self, instant: datetime) -> str:
        return f"{self.day(instant):%Y-%m}"

    def _expiry(self, earned: datetime) -> datetime:
        day, months = self.day(earned), self.programme["expiry_months"]
        ahead = (day.replace(day=1) + timedelta(days=31 * months)).replace(day=1)  # few months: no drift
        month_end = (ahead + timedelta(days=31)).replace(day=1) - timedelta(days=1)
        last = ahead.replace(day=min(day.day, month_end.day)) + timedelta(days=1)
        return datetime(last.year, last.month, last.day, tzinfo=ZoneInfo(self.programme["timezone"]))

    @property
    def next_to_close(self) -> str:
        """After the last one; the first is that of the earliest booking where there is history, else of the terms."""
        dates = [terms["from"] for partner in self.partners.values() for terms in partner["terms"]]
        return self.first_open or (min(self.booked) if self.has_history else f"{min(dates):%Y-%m}")

    def _terms(self, partner: str, day: date) -> dict[str, Any]:
        found = [one for one in self.partners[partner]["terms"] if one["from"] <= day]
        if not found:
            raise No("TERMS_MISSING")
        return dict(found[-1])

    def _plan(self, partner: str, period: str) -> dict[str, Any] | None:
        plan: dict[str, Any] = self.partners[partner]["budget"][0]
        return plan if f"{plan['from']:%Y-%m}" <= period else None

    # ------------------------------------------------------------ what tills ask

    def enroll(self, card: str, now: datetime) -> bool:
        """Whether this makes a member."""
        is_new = card not in self.cards
        self.cards.add(card)
        self.booked.add(max(self.period(now), self.first_open))
        return is_new

    def balance(self, card: str, at: datetime) -> int:
        """Points that may be burned then."""
        return sum(lot["left"] for lot in self.lots if lot["card"] == card and at < lot["until"])

    def post(self, command: dict[str, Any], now: datetime, *, history: bool = False) -> str | dict[str, Any]:
        """A refusal's code, or the receipt."""
        then = min(command["at"], now) if history else now
        period = max(self.period(then), self.first_open)
        try:
            return self._answer(command, now, then, period, history=history)
        except No as refusal:
            return str(refusal)

    def _answer(
        self, command: dict[str, Any], now: datetime, then: datetime, period: str, *, history: bool
    ) -> dict[str, Any]:
        kind, key = command["kind"], (command["partner"], command["key"])
        original = self.done.get((command["partner"], command.get("original", "")))
        if kind == "reverse" and (original is None or original["command"]["kind"] == "reverse"):
            raise No("TRANSACTION_NOT_FOUND")
        if key in self.done:
            if self.done[key]["command"] != command:
                raise No("IDEMPOTENCY_CONFLICT")
            return self._receipt(self.done[key], then, period, replayed=True)
        if command["at"] > now + timedelta(minutes=5):
            raise No("OCCURRED_IN_FUTURE")
        if not history and command["at"] < now - timedelta(days=self.programme["max_backdate_days"]):
            raise No("OCCURRED_TOO_LONG_AGO")
        record = {"command": command, "period": period, "card": command.get("card"), "kept": None, "unnamed_minor": 0}
        record |= {"points": 0, "awards": [], "declined": 0, "shortfall": 0, "original": original, "whole": False}
        record["is_history"] = history
        if original is not None:
            record["card"] = original["card"]
            reverse = self._return if original["command"]["kind"] == "earn" else self._refund
            reverse(record, original, then, period)
        elif command["card"] not in self.cards:
            raise No("MEMBER_NOT_FOUND")
        elif (command["partner"], kind, command["reference"]) in self.references:
            raise No("DUPLICATE_REFERENCE")
        else:
            decide = self._burn if kind == "burn" else self._earn
            decide(record, then, period)
            self.references.add((command["partner"], kind, command["reference"]))
        self.done[key] = record
        self.booked.add(period)
        self.has_history |= history
        return self._receipt(record, then, period, replayed=False)

    def _receipt(self, record: dict[str, Any], then: datetime, period: str, *, replayed: bool) -> dict[str, Any]:
        first = record["original"] or record
        window = (record["command"]["partner"], period)
        draws = first["command"]["kind"] == "earn" and self._plan(*window) is not None
        return {
            "points": record["points"],
            "awards": [(award["rule"]["code"], award["funder"], award["asked"], award["granted"])
                       for award in record["awards"]] if record is first else [],
            "declined": record["declined"],
            "shortfall": record["shortfall"],
            "balance": self.balance(record["card"], then),
            "consumed": self.consumed[window] if draws else None,
            "period": record["period"],
            "replayed": replayed,
        }  # fmt: skip

    # ------------------------------------------------------------ bookkeeping

    def _book(self, period: str, party: str, points: int, pool: int, lines: dict[str, int], *, prior: bool) -> None:
        """One row: ``points`` from the member's side, ``pool`` from the pool's, ``lines`` from the party's."""
        named = {"SUBSIDY": sum(lines.values())} if party == OPERATOR else lines
        rows = [(party, kind, abs(points), money, money if prior else 0) for kind, money in named.items()]
        for partner, kind, count, money, prior_money in [*rows, (OPERATOR, "POOL", points, pool, 0)]:
            position = self.positions[period, partner, kind]
            position[:] = [a + b for a, b in zip(position, (1, count, money, prior_money), strict=True)]

    def _usable(self, card: str, then: datetime) -> list[dict[str, Any]]:
        lots = [lot for lot in self.lots if lot["card"] == card and lot["left"] and then < lot["until"]]
        # Ties in order of their numbers: those of the tills' process, in order of booking, before the import's.
        return sorted(lots, key=lambda lot: (lot["until"], lot["earned"], lot["is_history"]))

    def _take(self, lots: list[dict[str, Any]], points: int) -> list[tuple[dict[str, Any], int]]:
        taken = []
        for lot in lots:
            part = min(lot["left"], points)
            points -= part
            lot["left"] -= part
            taken += [(lot, part)] if part else []
        return taken

    def _expire(self, lot: dict[str, Any], period: str) -> None:
        points, lot["left"] = lot["left"], 0
        value = points * lot["price"]
        share = value if lot["funder"] == OPERATOR else round(value * lot["share"])  # of a Fraction: half to even
        if points:
            self._book(period, lot["funder"], -points, -value, {"BREAKAGE_SHARE": share}, prior=False)

    # ------------------------------------------------------------ purchases and burns

    def _earn(self, record: dict[str, Any], _: datetime, period: str) -> None:
        command = record["command"]
        partner, lines = command["partner"], command["lines"]
        terms = self._terms(partner, self.day(command["at"]))
        if lines is not None:
            record["kept"] = {sku: (category, quantity, minor) for sku, category, quantity, minor in lines}
        rules = sorted(self.partners[partner]["earn_rule"], key=lambda rule: bool(rule["code"] != "base"))
        asked = [self._earned(rule, record) for rule in rules]
        price, fee = micro(terms["issue_price"]), micro(terms["service_fee"])
        plan = self.partners[partner]["budget"][0]
        left = micro(plan["limit"]) - self.consumed[partner, period]
        fits = sum(asked) * (price + fee) <= max(left, 0)
        if not fits and plan["on_limit"] == "DECLINE":
            raise No("BUDGET_EXHAUSTED")
        for rule, wanted in zip(rules, asked, strict=True):
            granted, funder = wanted, partner
            if not fits and plan["on_limit"] == "PARTIAL":
                granted = min(wanted, max(left, 0) // (price + fee))
            elif not fits and wanted * (price + fee) > left:
                funder = OPERATOR
            by_partner = granted if funder == partner else 0
            left -= by_partner * (price + fee)
            self.consumed[partner, period] += by_partner * (price + fee)
            charge = {"ISSUE": -granted * price, "SERVICE_FEE": -by_partner * fee}
            self._book(period, funder, granted, granted * price, charge, prior=False)
            lot = {"card": command["card"], "issuer": partner, "funder": funder, "price": price, "left": granted,
                   "granted": granted, "share": Fraction(terms["breakage_share"]), "earned": command["at"],
                   "until": self._expiry(command["at"]), "is_history": record["is_history"]}  # fmt: skip
            self.lots += [lot] if granted else []
            record["awards"].append({"rule": rule, "funder": funder, "asked": wanted, "granted": granted,
                                     "price": price, "fee": fee, "lot": lot})  # fmt: skip
        record["points"] = sum(award["granted"] for award in record["awards"])
        record["declined"] = sum(asked) - record["points"]

    def _earned(self, rule: dict[str, Any], record: dict[str, Any]) -> int:
        """Points of a rule for what the member keeps."""
        total, kept, unnamed = record["command"]["amount_minor"], record["kept"], record["unnamed_minor"]
        eligible = Fraction(total)
        if kept is not None:
            total = sum(minor for _, _, minor in kept.values())
            out = rule.get("exclude_categories", ())
            eligible = Fraction(sum(minor for category, _, minor in kept.values() if category not in out))
        if unnamed and total:
            eligible = Fraction(floor(eligible * (total - unnamed) / total))
        points = floor(eligible / 100 * Fraction(rule["points_per_unit"]))
        return min(points, int(rule.get("max_points", 10**9)))

    def _burn(self, record: dict[str, Any], then: datetime, period: str) -> None:
        command = record["command"]
        if self.balance(command["card"], then) < command["points"]:
            raise No("INSUFFICIENT_POINTS")
        terms = self._terms(command["partner"], self.day(command["at"]))
        for lot in self.lots:
            if lot["card"] == command["card"] and lot["until"] <= then:
                self._expire(lot, period)
        record["uses"] = [[*use] for use in self._take(self._usable(command["card"], then), command["points"])]
        record["points"], record["price"] = command["points"], micro(terms["reimbursement"])
        pool = -sum(part * lot["price"] for lot, part in record["uses"])
        money = {"REIMBURSEMENT": command["points"] * record["price"]}
        self._book(period, command["partner"], -command["points"], pool, money, prior=False)

    # ------------------------------------------------------------ taking back

    def _return(self, record: dict[str, Any], original: dict[str, Any], then: datetime, period: str) -> None:
        command = record["command"]
        kept = original["kept"]
        rest = original["command"]["amount_minor"] if kept is None else sum(minor for _, _, minor in kept.values())
        rest -= original["unnamed_minor"]
        lines = command["lines"]
        amount = command["amount_minor"] if lines is None else sum(minor for _, _, _, minor in lines)
        amount = rest if amount is None else amount
        if original["whole"]:
            raise No("ALREADY_REVERSED")
        if amount == 0 < rest:
            raise No("AMOUNT_INVALID")
        if amount > rest:
            raise No("EXCEEDS_ORIGINAL")
        if lines is not None and kept is None:
            raise No("INPUT_INVALID")
        after = dict(kept or {})
        for sku, category, quantity, minor in lines or ():
            had = after.get(sku, (None, -1, -1))
            after[sku] = (category, had[1] - quantity, had[2] - minor)
            if had[0] != category or min(after[sku][1:]) < 0:
                raise No("EXCEEDS_ORIGINAL")
        before = [min(award["granted"], self._earned(award["rule"], original)) for award in original["awards"]]
        original["kept"] = None if kept is None else after
        original["unnamed_minor"] += 0 if lines is not None else amount
        original["whole"] = amount == rest
        back = [
            had - min(award["granted"], self._earned(award["rule"], original))
            for award, had in zip(original["awards"], before, strict=True)
        ]
        for number, (award, points) in enumerate(zip(original["awards"], back, strict=True)):
            if points or not (any(back) or number):
                self._claw_back(record, original, award, points, then, period)

    def _claw_back(
        self, record: dict[str, Any], original: dict[str, Any], award: dict[str, Any], points: int, then: datetime,
        period: str,
    ) -> None:  # fmt: skip
        own, prior, partner = award["lot"], original["period"] < period, record["command"]["partner"]
        lots = self._usable(record["card"], then)
        others = [
            lot for lot in lots if lot is not own and (lot["issuer"], lot["funder"]) == (partner, award["funder"])
        ]
        parts = self._take([lot for lot in lots if lot is own] + others, points)
        if not parts or parts[0][0] is not own:
            parts.insert(0, (own, 0))  # the row that says what the award did not hold any more
        taken = sum(part for _, part in parts)
        record["points"] += taken
        record["shortfall"] += points - taken
        fee = 0 if award["funder"] == OPERATOR else award["fee"]
        for lot, part in parts:
            money = {"EARN_REVERSAL": part * award["price"], "SERVICE_FEE_REFUND": part * fee}
            self._book(period, award["funder"], -part, -part * lot["price"], money, prior=prior)
        plan = self._plan(partner, period)
        lapses = plan is None or (plan.get("after_period") == "USE_OR_LOSE" and original["period"] != period)
        if award["funder"] != OPERATOR and not lapses:
            self.consumed[partner, period] -= taken * (award["price"] + fee)

    def _refund(self, record: dict[str, Any], original: dict[str, Any], then: datetime, period: str) -> None:
        left = sum(part for _, part in original["uses"])
        points = record["command"]["points"] or left
        if left == 0:
            raise No("ALREADY_REVERSED")
        if points > left:
            raise No("EXCEEDS_ORIGINAL")
        record["points"], pool, to_give = points, 0, points
        for use in reversed(original["uses"]):
            lot, part = use[0], min(use[1], to_give)
            if part:
                if lot["until"] <= then:
                    self._expire(lot, period)
                    lot["until"] = then + timedelta(days=self.programme.get("grace_days", 30))
                lot["left"] += part
                use[1] -= part
                to_give -= part
                pool += part * lot["price"]
        money = {"BURN_REVERSAL": -points * original["price"]}
        prior = original["period"] < period
        self._book(period, record["command"]["partner"], points, pool, money, prior=prior)

    # ------------------------------------------------------------ the close

    def close(self, label: str, now: datetime) -> str | None:
        """A refusal's code; else the period is in ``closed`` with its lines, nets, pool and what the operator keeps."""
        try:
            if label not in self.closed:
                self._close(label, now)
        except No as refusal:
            return str(refusal)
        return None

    def _close(self, label: str, now: datetime) -> None:
        if label < self.next_to_close:
            raise No("PERIOD_NOT_FOUND")
        if self.period(now) <= label:
            raise No("PERIOD_NOT_ENDED")
        if label > self.next_to_close:
            raise No("EARLIER_PERIOD_OPEN")
        following = (date.fromisoformat(f"{label}-01") + timedelta(days=31)).replace(day=1)
        for partner in self.partners:
            due = [micro(one["fixed_fee"]) for one in self.partners[partner]["terms"] if one["from"] < following]
            if fee := (due or [0])[-1]:
                self.positions[label, partner, "FIXED_FEE"] = [1, 0, -fee, 0]
        lines = {key[1:]: [*sums, round(Fraction(sums[2], 10**4))] for key, sums in self.positions.items()
                 if key[0] == label and key[1] != OPERATOR}  # fmt: skip
        nets: defaultdict[str, int] = defaultdict(int)
        for (partner, _), figures in lines.items():
            nets[partner] += figures[-1]
        pools = {key[0]: sums[2] for key, sums in self.positions.items() if key[2] == "POOL" and key[0] <= label}
        operator_net = -sum(nets.values())
        margin = operator_net * 10**4 - pools.get(label, 0)
        self.closed[label] = {"lines": lines, "nets": dict(nets), "pool": sum(pools.values()), "margin": margin}
        self.first_open = f"{following:%Y-%m}"
