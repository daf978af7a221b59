"""The auditor's burns, at once or in two phases, and payments and sweeps: what makes points usable, or uses them up."""

from datetime import timedelta

from tests.model.leaving import cancel_lapsed, check_settles
from tests.model.ledger import Dict, Ledger, No, micro
from tests.model.owing import pay_back
from tests.model.taking import make_good


def burn(ledger: Ledger, record: Dict) -> None:
    uses = begin(ledger, record, rolls=True)
    command = record["command"]
    spend(ledger, record, uses, micro(ledger.terms(command["partner"], command["at"])["reimbursement"]))


def begin(ledger: Ledger, record: Dict, *, rolls: bool) -> list[tuple[Dict, int]]:
    """What both kinds of burn take, of which lots."""
    command, account = record["command"], record["account"]
    if ledger.spendable(account) < command["points"]:
        raise No("INSUFFICIENT_POINTS")
    place = next((places[record["person"]] for places in ledger.pools.values() if record["person"] in places), None)
    if place is not None and place["limit"] is not None:
        since = ledger.days.midnight(ledger.days.day(ledger.now))
        today = [
            one["command"]["points"] - given_back(one)
            for one in ledger.done.values()
            if one["kind"] in ("burn", "authorize") and one["recorded"] >= since
            and (one["person"], one["account"]) == (record["person"], account)
        ]  # fmt: skip
        if sum(today) + command["points"] > place["limit"]:
            raise No("LIMIT_EXCEEDED")
    ledger.terms(command["partner"], command["at"])
    ledger.confirm_due(account)
    ledger.expire_past(account)
    if rolls:
        ledger.roll(account, command["at"])
    record["points"] = command["points"]
    return ledger.take(ledger.usable(account), command["points"])


def given_back(record: Dict) -> int:
    """What an authorization set aside and nobody burned."""
    hold = record["hold"] or {"state": "OPEN"}
    return 0 if hold["state"] == "OPEN" else int(hold["points"] - hold["captured"])


def spend(ledger: Ledger, record: Dict, uses: list[tuple[Dict, int]], price: int) -> None:
    """Books what was burned; ``uses`` stay for refunds."""
    record["uses"], record["price"] = [[*use] for use in uses], price
    points, pool = sum(part for _, part in uses), -sum(part * lot["price"] for lot, part in uses)
    ledger.book(record["command"]["partner"], -points, pool, {"REIMBURSEMENT": points * price})
    for lot, part in uses:
        ledger.change(lot, -part)


# ---------------------------------------------------------------- two phases


def authorize(ledger: Ledger, record: Dict) -> None:
    command = record["command"]
    uses = begin(ledger, record, rolls=False)
    for lot, part in uses:
        lot["held"] += part
    ledger.note_row()
    minutes: int = ledger.partners[command["partner"]].get("hold_minutes") or ledger.programme["hold_minutes"]
    record["hold"] = {
        "account": record["account"], "partner": command["partner"], "person": record["person"], "state": "OPEN",
        "captured": 0, "until": ledger.then + timedelta(minutes=minutes), "uses": uses, "points": record["points"],
        "missing": [], "price": micro(ledger.terms(command["partner"], command["at"])["reimbursement"]),
    }  # fmt: skip
    ledger.holds.append(record["hold"])


def time_out(ledger: Ledger, hold: Dict) -> bool:
    """Its time is over: points come free now, or in history when it was."""
    if hold["state"] != "OPEN" or ledger.then < hold["until"]:
        return False
    now = ledger.then
    ledger.then = min(now, hold["until"]) if ledger.in_history else now
    users = release(ledger, hold, hold["uses"])
    ledger.then = now
    hold["state"] = "EXPIRED"
    ledger.last_user |= {hold["account"]: hold["person"]} | users
    return True


def release(ledger: Ledger, hold: Dict, parts: list[tuple[Dict, int]]) -> dict[str, str]:
    """Points come free, and make good first what returns miss of them; answers who used which account by that."""
    for lot, part in parts:
        lot["held"] -= part
        ledger.give_back(lot, part)
    if parts:
        ledger.note_row()
    return make_good(ledger, hold, parts)


def check_open(ledger: Ledger, hold: Dict) -> None:
    time_out(ledger, hold)
    if hold["state"] != "OPEN":
        raise No("HOLD_EXPIRED" if hold["state"] == "EXPIRED" else "HOLD_RESOLVED")


def capture(ledger: Ledger, record: Dict) -> None:
    hold, asked = record["hold"], record["command"]["points"]
    check_open(ledger, hold)
    if asked == 0:
        void(ledger, record)
        record |= {"kind": "void", "points": 0}
        return
    points = hold["points"] if asked is None else asked
    if points > hold["points"]:
        raise No("EXCEEDS_ORIGINAL")
    used, rest, left = [], [], points
    for lot, held in hold["uses"]:
        part = min(left, held)
        left -= part
        used += [(lot, part)] if part else []
        rest += [(lot, held - part)] if held > part else []
    for lot, part in used:
        lot["held"] -= part
    spend(ledger, record, used, hold["price"])
    record["users"] = release(ledger, hold, rest)
    hold |= {"state": "CAPTURED", "captured": points}
    record["points"] = points
    ledger.roll(hold["account"], record["command"]["at"])


def void(ledger: Ledger, record: Dict) -> None:
    hold = record["hold"]
    check_open(ledger, hold)
    record["users"] = release(ledger, hold, hold["uses"])
    hold["state"] = "VOIDED"
    record["points"] = hold["points"]


# ---------------------------------------------------------------- what makes points usable, or ends them


def pay(ledger: Ledger, record: Dict) -> None:
    """The money of a purchase came in."""
    waiting = [
        award
        for award in record["original"]["awards"]
        if award["open"] and award["waits"] and is_pending(award)
        and not ledger.ends.lapses(award, ledger.period, ledger.then)
    ]  # fmt: skip
    command = record["command"]
    if not waiting or any(ledger.ends.waits_for_seller(award) for award in waiting):
        check_settles(ledger, command["partner"], ledger.days.day(command["at"]))
    if not waiting:
        raise No("NOTHING_PENDING")
    for award in waiting:
        award["waits"] = False
    due = [award for award in waiting if award["release"] <= ledger.then]
    record["points"] = sum(ledger.confirm(award) for award in due)
    if due:
        ledger.pass_on(record["account"], record["person"])
    else:
        ledger.note_row()


def is_pending(award: Dict) -> bool:
    return award["charged_in"] is None


def sweep(ledger: Ledger, account: str) -> tuple[int, ...]:
    """All that is due of an account: as Swept counts it."""
    users = [name for name in ledger.account_of if ledger.account(name) == account]
    person = ledger.last_user.get(account) or users[0]  # of a household that nothing was booked on yet: anybody
    timed_out = sum([time_out(ledger, hold) for hold in ledger.holds if hold["account"] == account])
    confirmed = ledger.confirm_due(account)
    lapsed = cancel_lapsed(ledger, account)
    expired = ledger.expire_past(account)
    if expired:
        ledger.last_user[account] = person
    ledger.pass_on(account, person)
    pay_back(ledger)
    return len(expired), sum(expired), len(confirmed), sum(confirmed), timed_out, len(lapsed), sum(lapsed)
