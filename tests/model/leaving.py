"""The auditor's ends: who may still sell, take points and settle; what lapses; which statement is the last one."""

from datetime import date, datetime, timedelta

from tests.model.ledger import OPERATOR, Ledger, No

SELLS = ("earn", "enroll")
BURNS = ("burn", "authorize")
MOVES = ("transfer", "found", "join", "leave")
SETTLES = (*SELLS, *BURNS, "capture", "reverse")


# ---------------------------------------------------------------- what may still happen


def check(ledger: Ledger, kind: str, partner: str, at: datetime | None) -> None:
    """Raises No where the partner may not do that, or not with points of then."""
    if partner == OPERATOR or kind not in (*SETTLES, *MOVES):
        return
    programme, one = ledger.programme, ledger.partners[partner]
    day = ledger.days.day(ledger.now if at is None else at)
    is_over = ledger.ends.has_ended(ledger.now) and not ledger.in_history
    policy = one.get("suspended_burns", "CAPTURE")
    goes_on = {"capture": policy != "REFUSE", "burn": policy == "ALLOW", "authorize": policy == "ALLOW"}
    is_suspended = one.get("state", "ACTIVE") != "ACTIVE" and not goes_on.get(kind, False)
    if kind in SELLS and (day > programme.get("issue_ends", date.max) or (is_over and "issue_ends" in programme)):
        raise No("PROGRAMME_ENDED")
    if kind in (*SELLS, *BURNS, *MOVES) and (day > programme.get("burn_ends", date.max) or is_over):
        raise No("PROGRAMME_ENDED")
    if kind in (*SELLS, *BURNS, *MOVES, "capture") and is_suspended:
        raise No("PARTNER_SUSPENDED")
    if kind in (*SELLS, *BURNS, *MOVES) and ledger.ends.has_left(partner, day):
        raise No("PARTNER_LEFT")
    if kind in SETTLES:
        check_settles(ledger, partner, day)


def check_settles(ledger: Ledger, partner: str, day: date) -> None:
    """Raises No where nothing is settled with the partner any more."""
    last = ledger.ends.programme_final()
    if last is not None and ledger.period > last:
        raise No("PROGRAMME_ENDED")
    run_off = ledger.partners[partner].get("run_off_until")
    if run_off is not None and (ledger.ends.is_settled_out(partner, ledger.period) or day > run_off):
        raise No("PARTNER_LEFT")


# ---------------------------------------------------------------- what lapses


def cancel_lapsed(ledger: Ledger, account: str) -> list[int]:
    """As if it came back, without goods; answers the points of each award."""
    points = []
    for award in ledger.awards:
        if award["account"] == account and award["open"] and ledger.ends.lapses(award, ledger.period, ledger.then):
            ledger.note_row()
            ledger.last_user[account] = award["person"]
            if award["window"] is not None:
                ledger.draw(award["window"], "reserved", -award["open"] * (award["price"] + award["fee"]))
            points.append(int(award["open"]))
            award["open"] = 0
    return points


# ---------------------------------------------------------------- the last statements


def is_final(ledger: Ledger, partner: str, label: str) -> bool:
    """Whether its statement of the period leaves nothing to a next one."""
    last = ledger.ends.final(partner)
    has_lines = any(key[:2] == (label, partner) for key in ledger.positions)
    return last is not None and (last == label or (last < label and has_lines))


def outstanding(ledger: Ledger, partner: str, label: str) -> tuple[int, int]:
    """Points of its lots that members still had when the period ended, and what they are worth in the pool."""
    found = [sums for (period, funder), sums in ledger.outstanding.items() if funder == partner and period <= label]
    return sum(points for points, _ in found), sum(value for _, value in found)


def is_charged(ledger: Ledger, partner: str, following: date) -> bool:
    """Whether the fixed fee of a period that ends before that day is the partner's."""
    end = ledger.days.midnight(following) - timedelta(microseconds=1)
    return not ledger.ends.has_left(partner, following - timedelta(days=1)) and not ledger.ends.has_ended(end)


# ---------------------------------------------------------------- dates that move


def may_leave(ledger: Ledger, partner: str, leaves_on: date | None, run_off_until: date | None) -> bool:
    """Whether the coalition file may name these days by now."""
    one, today = ledger.partners[partner], ledger.days.day(ledger.now)
    old_last, old_run_off = one.get("leaves_on"), one.get("run_off_until")
    if (old_last, old_run_off) == (leaves_on, run_off_until):
        return True
    if old_last is not None and old_run_off is not None:
        if ledger.days.period(old_run_off) < ledger.first_open:
            return False
        if today > old_last and (leaves_on is None or leaves_on > old_last):
            return False
        if today > old_run_off and run_off_until != old_run_off:
            return False
    if not (is_ahead(ledger, old_last, leaves_on) and is_ahead(ledger, old_run_off, run_off_until)):
        return False
    return leaves_on is None or not did(ledger, ("earn", *BURNS), leaves_on, partner)


def may_end(ledger: Ledger, issue_ends: date | None, burn_ends: date | None) -> bool:
    """The same of the programme's last days."""
    today, last = ledger.days.day(ledger.now), ledger.ends.programme_final()
    days = (
        (ledger.programme.get("issue_ends"), issue_ends, ("earn",)),
        (ledger.programme.get("burn_ends"), burn_ends, BURNS),
    )
    if all(old == new for old, new, _ in days):
        return True
    if last is not None and last < ledger.first_open:
        return False
    if any(old is not None and today > old and new != old for old, new, _ in days):
        return False
    if not all(is_ahead(ledger, old, new) for old, new, _ in days):
        return False
    if burn_ends is not None and burn_ends != days[1][0] and burn_ends < today:
        return False
    return not any(new is not None and new != old and did(ledger, kinds, new) for old, new, kinds in days)


def is_ahead(ledger: Ledger, before: date | None, after: date | None) -> bool:
    """Whether a new day lies in no closed period."""
    return after is None or after == before or ledger.days.period(after) >= ledger.first_open


def did(ledger: Ledger, kinds: tuple[str, ...], last_day: date, partner: str | None = None) -> bool:
    """Whether any of that happened after the day."""
    return any(
        record["kind"] in kinds and ledger.days.day(record["command"]["at"]) > last_day
        and partner in (None, record["command"]["partner"])
        for record in ledger.done.values()
    )  # fmt: skip
