"""The auditor's transfers, merges and household pools: points that change accounts, and accounts that change hands."""

from tests.model.ledger import OPERATOR, Dict, Ledger, No
from tests.model.owing import owed


def transfer(ledger: Ledger, record: Dict) -> None:
    command, programme, account = record["command"], ledger.programme, record["account"]
    points = command["points"]
    if command["to"] not in ledger.account_of:
        raise No("MEMBER_NOT_FOUND")
    if account == (target := ledger.account(command["to"])):
        raise No("INPUT_INVALID")
    if command["partner"] != OPERATOR:
        if not programme.get("member_transfers"):
            raise No("TRANSFER_NOT_ALLOWED")
        since = ledger.days.midnight(ledger.days.day(ledger.now))
        today = [
            one["points"]
            for one in ledger.done.values()
            if one["kind"] == "transfer" and one["recorded"] >= since and one["person"] == record["person"]
            and one["command"]["partner"] != OPERATOR
        ]  # fmt: skip
        at_once, a_day = (programme.get(f"transfer_max_points{name}", 10**9) for name in ("", "_per_day"))
        if points > at_once or points + sum(today) > a_day:
            raise No("LIMIT_EXCEEDED")
    if ledger.spendable(account) < points:
        raise No("INSUFFICIENT_POINTS")
    ledger.confirm_due(account)
    ledger.expire_past(account)
    ledger.move(ledger.take(ledger.usable(account), points), target)
    record["points"] = points


def move_all(ledger: Ledger, record: Dict, account: str, target: str) -> list[Dict]:
    """All that is usable; what is past is booked so."""
    ledger.expire_past(account)
    lots = ledger.usable(account)
    record["points"] = sum(lot["left"] for lot in lots)
    return ledger.move(ledger.take(lots, record["points"]), target)


# ---------------------------------------------------------------- merges


def merge(ledger: Ledger, record: Dict) -> None:
    duplicate, kept = record["person"], ledger.person(record["command"]["keep"])
    if kept == duplicate:
        raise No("INPUT_INVALID")
    if pool_of(ledger, duplicate) or has_ties(ledger, record["account"]):
        raise No("MERGE_NOT_POSSIBLE")
    target = ledger.account_of[kept]
    record |= {"kept_person": kept, "kept_account": target, "is_undone": False, "since": next(ledger.numbers)}
    record["moved"] = move_all(ledger, record, record["account"], target)
    ledger.stands_for[duplicate] = kept


def has_ties(ledger: Ledger, account: str) -> bool:
    """Whether points of it are held, or owed."""
    return bool(ledger.balance(account, ledger.now)[2] or owed(ledger, account))


def unmerge(ledger: Ledger, record: Dict) -> None:
    merged = record["original"]
    if merged["is_undone"]:
        raise No("ALREADY_REVERSED")
    duplicate, kept, account = merged["person"], merged["kept_person"], merged["kept_account"]
    if ledger.person(kept) != kept or ledger.account_of[kept] != account:
        raise No("MERGE_NOT_POSSIBLE")
    moved = [lot for lot in ledger.lots if came_with(ledger, lot, merged)]
    if any(lot["left"] != lot["granted"] or lot["until"] <= ledger.now for lot in moved) or owed(ledger, account):
        raise No("MERGE_NOT_POSSIBLE")
    record |= {"person": kept, "account": account, "points": sum(lot["left"] for lot in moved)}
    ledger.book(OPERATOR, -record["points"], 0, {})
    if moved:
        ledger.book(OPERATOR, record["points"], 0, {})
    for lot in moved:
        lot["parent"]["left"] += lot["left"]
        lot["parent"] |= {name: lot[name] for name in ("expires", "until", "grace")}  # as it rolled meanwhile
        lot |= {"left": 0, "went_back": True}
    merged["is_undone"] = True
    del ledger.stands_for[duplicate]


def came_with(ledger: Ledger, lot: Dict, merged: Dict) -> bool:
    """Whether the lot is a child that came with the merge, or by itself after it."""
    parent = lot["parent"]
    if parent is None or lot.get("went_back"):
        return False
    accounts = (parent["account"], lot["account"]) == (merged["account"], merged["kept_account"])
    came_after = lot.get("by_itself", False) and lot["number"] > merged["since"]
    return accounts and (came_after or any(lot is one for one in merged["moved"]))


# ---------------------------------------------------------------- pools


def pool_of(ledger: Ledger, person: str) -> str | None:
    return next((pool for pool, places in ledger.pools.items() if person in places), None)


def found(ledger: Ledger, record: Dict) -> None:
    check_free(ledger, record)
    name = record["command"]["key"]
    ledger.pools[name] = {}
    come_in(ledger, record, name, "HEAD", None)


def join(ledger: Ledger, record: Dict) -> None:
    command = record["command"]
    name, role, limit, person = command["pool"], command["role"], command["limit"], record["person"]
    if limit is not None and role == "HEAD":
        raise No("INPUT_INVALID")
    if not ledger.pools.get(name):
        raise No("POOL_NOT_FOUND")
    places = ledger.pools[name]
    if person not in places:
        check_free(ledger, record)
        come_in(ledger, record, name, role, limit)
        return
    if role != "HEAD" and not has_other_head(places, person):
        raise No("POOL_NOT_POSSIBLE")
    places[person] |= {"role": role, "limit": limit}
    ledger.note_row()


def leave(ledger: Ledger, record: Dict) -> None:
    person, account = record["person"], record["account"]
    name = pool_of(ledger, person)
    if name is None:
        raise No("POOL_NOT_POSSIBLE")
    places = ledger.pools[name]
    is_last = len(places) == 1
    if not is_last and not has_other_head(places, person):
        raise No("POOL_NOT_POSSIBLE")
    if is_last and has_ties(ledger, account):
        raise No("POOL_NOT_POSSIBLE")
    if is_last:
        move_all(ledger, record, account, places[person]["home"])
    else:
        ledger.note_row()
    ledger.account_of[person] = places.pop(person)["home"]


def has_other_head(places: dict[str, Dict], person: str) -> bool:
    return any(place["role"] == "HEAD" for name, place in places.items() if name != person)


def check_free(ledger: Ledger, record: Dict) -> None:
    if pool_of(ledger, record["person"]) or has_ties(ledger, record["account"]):
        raise No("POOL_NOT_POSSIBLE")


def come_in(ledger: Ledger, record: Dict, name: str, role: str, limit: int | None) -> None:
    move_all(ledger, record, record["account"], f"pool {name}")
    ledger.pools[name][record["person"]] = {"home": record["account"], "role": role, "limit": limit}
    ledger.account_of[record["person"]] = f"pool {name}"
