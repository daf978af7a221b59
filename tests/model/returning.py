"""The auditor's reversals: goods that come back, and burns that are refunded."""

from tests.model.earning import campaign_points, kept_minor, rule_points, split
from tests.model.ledger import OPERATOR, Dict, Ledger, No
from tests.model.owing import overdraw


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
    mine = sorted(
        (lot for lot in lots if came_of(lot, own)), key=lambda lot: lot is not own and lot["parent"] is not own
    )
    others = [lot for lot in lots if not came_of(lot, own)]
    if ledger.programme.get("claw_back", "own_lot_then_issuer") == "own_lot_then_issuer":
        payer = (own["issuer"], own["funder"])
        others = [lot for lot in others if (lot["issuer"], lot["funder"]) == payer]
    parts = fetch(ledger, record, ledger.take(mine + others, points))
    if not parts or parts[0][0] is not own:
        parts.insert(0, (own, 0))  # the row that says what the award did not hold any more
    taken = sum(part for _, part in parts)
    prior, fee = award["charged_in"] < ledger.period, award["fee"]
    for lot, part in parts:
        money = {"EARN_REVERSAL": part * award["price"], "SERVICE_FEE_REFUND": part * fee}
        ledger.book(award["funder"], -part, -part * lot["price"], money, prior=prior)
        ledger.change(lot, -part)
    taken += overdraw(ledger, record, award, points - taken, prior=prior)
    record["points"] += taken
    record["shortfall"] += points - taken
    window = credited(ledger, award)
    if window is not None and taken:
        ledger.draw(window, "consumed", -taken * (award["price"] + fee))
        ledger.use_blocks(award, -taken * (award["price"] + fee))


def came_of(lot: Dict | None, own: Dict) -> bool:
    """Whether it is the lot, or was moved out of it, at however many removes."""
    return lot is not None and (lot is own or came_of(lot["parent"], own))


def fetch(ledger: Ledger, record: Dict, parts: list[tuple[Dict, int]]) -> list[tuple[Dict, int]]:
    """What was taken of lots of another account moves to that of the purchase first, and is taken there."""
    away = [(lot, part) for lot, part in parts if lot["account"] != record["account"]]
    if not away:
        return parts
    children = ledger.move(away, record["account"])
    for child in children:
        child["left"] = 0
    here = [(lot, part) for lot, part in parts if lot["account"] == record["account"]]
    return here + list(zip(children, [part for _, part in away], strict=True))


def credited(ledger: Ledger, award: Dict) -> Dict | None:
    """The budget window that gets back what an award drew, if one does."""
    drew: Dict | None = award["window"]
    if "budget" in award["rule"]:
        return drew
    if award["funder"] == OPERATOR:
        return None
    if drew is not None and drew["plan"].get("funding") == "PREPAID":
        return drew
    current = ledger.window(award["funder"])
    if current is None or current is drew:
        return current
    lapses = current["plan"].get("after_period") == "USE_OR_LOSE" or current["plan"].get("funding") == "PREPAID"
    return None if lapses else current


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
