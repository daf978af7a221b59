"""The auditor's points that the operator gives, and takes back, at its own expense."""

from fractions import Fraction

from tests.model.ledger import OPERATOR, Dict, Ledger, No, micro


def adjust(ledger: Ledger, record: Dict) -> None:
    """At a partner's prices of today; taken of lots that the operator funded, each at its own price."""
    command, account, points = record["command"], record["account"], record["command"]["points"]
    record["points"] = abs(points)
    if points > 0:
        terms = ledger.terms(command["of"], command["at"])
        price = micro(terms["issue_price"])
        lot = {"account": account, "issuer": command["of"], "funder": OPERATOR, "price": price,
               "share": Fraction(terms.get("breakage_share", "0")), "earned": command["at"], "parent": None,
               "number": next(ledger.numbers)}  # fmt: skip
        ledger.book(OPERATOR, points, points * price, {"SUBSIDY": -points * price}, signed=True)
        ledger.open_lot(lot, points)
        return
    own = [lot for lot in ledger.usable(account) if lot["funder"] == OPERATOR]
    if sum(lot["left"] for lot in own) < -points:
        raise No("INSUFFICIENT_POINTS")
    for lot, part in ledger.take(own, -points):
        ledger.book(OPERATOR, -part, -part * lot["price"], {"SUBSIDY": part * lot["price"]}, signed=True)
