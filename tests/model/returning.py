"""The auditor's reversals: goods that come back, and burns that are refunded."""

from tests.model.earning import campaign_points, kept_minor, rule_points, split
from tests.model.ledger import Dict, Ledger, No
from tests.model.owing import overdraw
from tests.model.spending import time_out
from tests.model.taking import await_holds, credit, fetch, give_back_money, reach


def reverse(ledger: Ledger, record: Dict) -> None:
    if record["original"]["kind"] == "earn":
        give_goods_back(ledger, record)
    else:
        refund(ledger, record)


def give_goods_back(ledger: Ledger, record: Dict) -> None:
    command, original = record["command"], record["original"]
    if command["points"] is not None:
        raise No("INPUT_INVALID")
    kept, rest, lines = original["kept"], kept_minor(original), command["lines"]
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
    before = stays(ledger, original)
    original["kept"] = None if kept is None else after
    original["unnamed_minor"] += 0 if lines is not None else amount
    original["whole"] = amount == rest
    for hold in ledger.holds:
        if hold["account"] in (record["account"], ledger.account(record["person"])):
            time_out(ledger, hold)
    back = [had - left for had, left in zip(before, stays(ledger, original), strict=True)]
    for number, (award, points) in enumerate(zip(original["awards"], back, strict=True)):
        if points or not (any(back) or number):
            take_back(ledger, record, award, points)


def stays(ledger: Ledger, purchase: Dict) -> list[int]:
    """What each award still is at most, now that the member keeps so much."""
    left = []
    for award in purchase["awards"]:
        rule = award["rule"]
        if "funding" in rule:
            kept, whole = campaign_points(ledger, rule, purchase), whole_bonus(ledger, rule, purchase)
            # A smaller bonus can give one of three funders more: it keeps what every one on the way leaves it.
            points = min(split(rule, total)[award["payer"]] for total in range(kept, whole + 1))
        else:
            points = rule_points(rule, purchase)
        left.append(min(award["granted"], points))
    return left


def whole_bonus(ledger: Ledger, campaign: Dict, purchase: Dict) -> int:
    lines = purchase["command"]["lines"]
    kept = None if lines is None else {sku: tuple(rest) for sku, *rest in lines}
    return campaign_points(ledger, campaign, {**purchase, "kept": kept, "unnamed_minor": 0})


def take_back(ledger: Ledger, record: Dict, award: Dict, points: int) -> None:
    """Of a pending award: cancelled. Else the same lot, then others by policy; what is missing stays charged."""
    if award["charged_in"] is None:
        points = min(points, award["open"])  # what lapsed was charged to nobody
        award["open"] -= points
        record["points"] += points
        ledger.note_row()
        if award["window"] is not None and points:
            ledger.draw(award["window"], "reserved", -points * (award["price"] + award["fee"]))
        return
    own, now = award["lot"], ledger.account(record["person"])
    lots = ledger.usable(record["account"]) + (ledger.usable(now) if now != record["account"] else [])
    parts = fetch(ledger, record, ledger.take(reach(ledger, own, lots), points))
    if not parts or parts[0][0] is not own:
        parts.insert(0, (own, 0))  # the row that says what the award did not hold any more
    taken = sum(part for _, part in parts)
    credit(ledger, award, parts)
    owed = overdraw(ledger, record, award, points - taken, prior=award["charged_in"] < ledger.period)
    give_back_money(ledger, award, owed)
    record["points"] += taken + owed
    record["shortfall"] += points - taken - owed
    if points > taken + owed:
        await_holds(ledger, record, award, points - taken - owed)


def refund(ledger: Ledger, record: Dict) -> None:
    command, original = record["command"], record["original"]
    if command["amount_minor"] is not None or command["lines"] is not None:
        raise No("INPUT_INVALID")
    left = sum(part for _, part in original["uses"])
    points = command["points"] or left
    if left == 0:
        raise No("ALREADY_REVERSED")
    if points > left:
        raise No("EXCEEDS_ORIGINAL")
    record["points"], pool, to_give = points, 0, points
    for use in reversed(original["uses"]):
        lot, part = use[0], min(use[1], to_give)
        if part:
            ledger.give_back(lot, part)
            use[1] -= part
            to_give -= part
            pool += part * lot["price"]
            ledger.change(lot, part)
    prior = original["period"] < ledger.period
    ledger.book(command["partner"], points, pool, {"BURN_REVERSAL": -points * original["price"]}, prior=prior)
    ledger.pass_on(record["account"], record["person"])
