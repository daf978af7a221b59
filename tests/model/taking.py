"""What the auditor takes back of an award: of which lots, to whose credit, and what waits for holds to let it go."""

from tests.model.ledger import OPERATOR, Dict, Ledger


def reach(ledger: Ledger, own: Dict, lots: list[Dict]) -> list[Dict]:
    """The award's own first, then others by policy."""
    mine = sorted(
        (lot for lot in lots if came_of(lot, own)), key=lambda lot: lot is not own and lot["parent"] is not own
    )
    others = [lot for lot in lots if not came_of(lot, own)]
    if ledger.programme.get("claw_back", "own_lot_then_issuer") == "own_lot_then_issuer":
        payer = (own["issuer"], own["funder"])
        others = [lot for lot in others if (lot["issuer"], lot["funder"]) == payer]
    return mine + others


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


def credit(ledger: Ledger, award: Dict, parts: list[tuple[Dict, int]]) -> None:
    prior, fee, taken = award["charged_in"] < ledger.period, award["fee"], sum(part for _, part in parts)
    for lot, part in parts:
        money = {"EARN_REVERSAL": part * award["price"], "SERVICE_FEE_REFUND": part * fee}
        ledger.book(award["funder"], -part, -part * lot["price"], money, prior=prior)
        ledger.change(lot, -part)
    give_back_money(ledger, award, taken)


def give_back_money(ledger: Ledger, award: Dict, points: int) -> None:
    """The award's window, and its float, get back what so many points had drawn."""
    window, money = credited(ledger, award), points * (award["price"] + award["fee"])
    if window is not None and points:
        ledger.draw(window, "consumed", -money)
        ledger.use_blocks(award, -money)


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


# ---------------------------------------------------------------- what holds have of it


def await_holds(ledger: Ledger, record: Dict, award: Dict, points: int) -> None:
    """What holds have of it makes the shortfall good when they let it go."""
    missing = {"award": award, "points": points, "account": record["account"], "person": record["original"]["person"]}
    for account in dict.fromkeys((record["account"], ledger.account(record["person"]))):
        held = sorted(
            (lot for lot in ledger.lots if lot["account"] == account and lot["held"]),
            key=lambda lot: (lot["until"], lot["earned"], lot["number"]),
        )
        lots = reach(ledger, award["lot"], held)
        for hold in ledger.holds:
            if hold["state"] == "OPEN" and hold["account"] == account:
                used = [lot for lot, _ in hold["uses"]]
                hold["missing"].append((missing, [lot for lot in lots if any(lot is one for one in used)]))


def make_good(ledger: Ledger, hold: Dict, released: list[tuple[Dict, int]]) -> dict[str, str]:
    """Takes of what came back what returns miss of it; answers who used which account by that."""
    users, left = {}, {lot["number"]: part for lot, part in released if ledger.then < lot["until"]}
    for missing, lots in hold["missing"]:
        parts = []
        for lot in lots:
            part = min(missing["points"], left.get(lot["number"], 0))
            if part:
                missing["points"] -= part
                left[lot["number"]] -= part
                lot["left"] -= part
                parts.append((lot, part))
        if parts:
            credit(ledger, missing["award"], fetch(ledger, missing, parts))
            users[missing["account"]] = missing["person"]
    return users
