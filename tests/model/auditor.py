"""The auditor: a second, small model of the ledger that says what the first must answer and hold.

Written from the arithmetic of the contract, sharing no code with the product. A command is a dict; each idea has a
module of its own, and ``ledger`` holds what they share. Here stands what all commands have in common: which earlier
command is meant, what a key did before, when things may have happened, and the receipt.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from tests.model import adjusting, earning, moving, returning, spending
from tests.model.leaving import check
from tests.model.ledger import Dict, Ledger, No
from tests.model.owing import pay_back

DECIDE: dict[str, Callable[[Ledger, Dict], None]] = {
    "earn": earning.earn,
    "burn": spending.burn,
    "authorize": spending.authorize,
    "capture": spending.capture,
    "void": spending.void,
    "pay": spending.pay,
    "reverse": returning.reverse,
    "adjust": adjusting.adjust,
    "transfer": moving.transfer,
    "merge": moving.merge,
    "unmerge": moving.unmerge,
    "found": moving.found,
    "join": moving.join,
    "leave": moving.leave,
}
MEANS = {
    "reverse": ("earn", "burn", "capture"),
    "pay": ("earn",),
    "capture": ("authorize",),
    "void": ("authorize",),
    "unmerge": ("merge",),
}
"""Kinds of earlier commands that these may mean."""


class Auditor(Ledger):
    """``post`` changes the ledger and says what the product must answer."""

    def enroll(self, card: str, partner: str, now: datetime) -> bool | str:
        """Whether this makes a member, or a refusal's code."""
        self.begin(now)
        try:
            check(self, "enroll", partner, now)
        except No as refusal:
            return str(refusal)
        is_new = card not in self.account_of
        self.account_of.setdefault(card, card)
        self.last_user[self.account(card)] = self.person(card)
        self.booked.add(self.period)
        return is_new

    def post(self, command: Dict, now: datetime, *, history: bool = False) -> str | Dict:
        """A refusal's code, or the receipt; either may have brought points to who owes some."""
        self.begin(now, command["at"] if history else None)
        answer: str | Dict
        try:
            answer = self.answer(command, history=history)
        except No as refusal:
            answer = str(refusal)
        else:
            answer = answer if history else self.wake(answer, (command["partner"], command["key"]))
        pay_back(self)
        return answer

    def answer(self, command: Dict, *, history: bool) -> Dict:
        kind, key = command["kind"], (command["partner"], command["key"])
        parked = next((one for one in self.parked if one["state"] == "WAITING" and one["key"] == key), None)
        if parked is not None and parked["command"] != command:
            raise No("IDEMPOTENCY_CONFLICT")
        card = command.get("card")
        if kind in ("burn", "authorize") and card in self.account_of:
            for hold in self.holds:
                if hold["account"] == self.account(card):
                    spending.time_out(self, hold)
        original = self.meant(command) if kind in MEANS else None
        if kind in MEANS and original is None:
            return self.park(command, parked)
        if key in self.done:
            if self.done[key]["command"] != command:
                raise No("IDEMPOTENCY_CONFLICT")
            return self.receipt(self.done[key], replayed=True)
        if kind == "capture" and command["points"] != 0:  # which is a void
            check(self, kind, command["partner"], command["at"])
        self.check_times(command, history=history)
        if kind != "capture":
            check(self, kind, command["partner"], command["at"])
        record = self.record(command, original)
        DECIDE[kind](self, record)
        self.done[key] = record
        self.references.add((command["partner"], kind, command.get("reference", command["key"])))
        self.last_user |= {record["account"]: record["person"]} | record.pop("users", {})
        self.has_history |= history
        if parked is not None:
            parked["state"] = "POSTED"
        return self.receipt(record, replayed=False)

    def meant(self, command: Dict) -> Dict | None:
        """The earlier command that is meant; None: a reversal that may wait for it."""
        found = self.done.get((command["partner"], command["original"]))
        if found is not None and found["kind"] in MEANS[command["kind"]]:
            return found
        if command["kind"] in ("reverse", "pay") and found is not None and found["kind"] in ("authorize", "void"):
            raise No("NOT_REVERSIBLE")
        if command.get("awaits"):
            return None
        raise No("TRANSACTION_NOT_FOUND")

    def check_times(self, command: Dict, *, history: bool) -> None:
        if command["at"] is None:
            return
        if command["at"] > self.now + timedelta(minutes=5):
            raise No("OCCURRED_IN_FUTURE")
        if not history and command["at"] < self.now - timedelta(days=self.programme["max_backdate_days"]):
            raise No("OCCURRED_TOO_LONG_AGO")

    def record(self, command: Dict, original: Dict | None) -> Dict:
        """What is remembered of a command, before it is decided."""
        first = original or {}
        card = command.get("card")
        if original is None and card not in self.account_of:
            raise No("MEMBER_NOT_FOUND")
        if (command["partner"], command["kind"], command.get("reference")) in self.references:
            raise No("DUPLICATE_REFERENCE")
        person = first["person"] if card is None else self.person(card)
        return {
            "command": command, "kind": command["kind"], "original": original, "person": person,
            "account": first["account"] if card is None else self.account_of[person], "period": self.period,
            "recorded": self.now, "points": 0, "awards": [], "declined": 0, "shortfall": 0, "kept": None,
            "unnamed_minor": 0, "whole": False, "hold": first.get("hold"),
        }  # fmt: skip

    def receipt(self, record: Dict, *, replayed: bool) -> Dict:
        kind, hold, partner = record["kind"], record["hold"], record["command"]["partner"]
        buys = kind == "earn" or (kind == "reverse" and record["original"]["kind"] == "earn")
        # Sent again after a merge was undone, it is shown to whom it names by now.
        person = (
            record["person"] if kind in ("authorize", "unmerge") else record["command"].get("card", record["person"])
        )
        is_held = kind in ("authorize", "capture", "void")
        account = hold["account"] if kind in ("capture", "void") else self.account(person)
        awards = {"earn": record, "pay": record["original"]}.get(kind) or {"awards": []}
        return {
            "points": record["points"],
            "awards": [self.shown(award) for award in awards["awards"]],
            "declined": record["declined"],
            "shortfall": record["shortfall"],
            "balance": self.balance(account, self.then),
            "budget": self.shown_window(partner) if buys else None,
            "period": record["period"],
            "hold": (hold["state"], hold["points"], hold["captured"]) if is_held else None,
            "replayed": replayed,
        }  # fmt: skip

    def shown(self, award: Dict) -> tuple[object, ...]:
        pending = bool(award["charged_in"] is None and award["open"])
        waits = (award["release"], award["waits"]) if pending else (None, False)
        return (award["rule"]["code"], award["funder"], award["asked"], award["granted"], *waits)

    def shown_window(self, partner: str) -> tuple[int, int, int] | None:
        window = self.window(partner)
        return None if window is None else (window["consumed"], window["reserved"], self.free(window))

    # ------------------------------------------------------------ reversals that overtake their originals

    def park(self, command: Dict, parked: Dict | None) -> Dict:
        key = (command["partner"], command["key"])
        if parked is not None and parked["until"] > self.now:
            return {"parked": "WAITING", "replayed": True}
        if key in self.done:
            raise No("IDEMPOTENCY_CONFLICT")
        self.check_times(command, history=False)
        if parked is not None:
            parked["state"] = "EXPIRED"
        until = command["at"] + timedelta(days=self.programme["max_backdate_days"])
        self.parked.append({"key": key, "command": command, "until": until, "state": "WAITING"})
        return {"parked": "WAITING", "replayed": False}

    def wake(self, receipt: Dict, key: tuple[str, str]) -> Dict:
        """Posts what waited for the command that was just posted; its receipt shows what stands after that."""
        for one in self.parked:
            meant = (one["key"][0], one["command"]["original"]) == key
            if receipt["replayed"] or one["state"] != "WAITING" or not meant or one["until"] <= self.now:
                continue
            if key not in self.done or self.done[key]["kind"] not in MEANS["reverse"]:
                continue
            try:
                undone = self.answer(one["command"], history=False)
            except No as refusal:
                one["state"] = f"REFUSED {refusal}"
            else:
                receipt |= {"balance": undone["balance"], "budget": undone["budget"] or receipt["budget"]}
        return receipt
