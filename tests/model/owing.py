"""The auditor's negative balances: what a return leaves a member owing, and what pays that back."""

from tests.model.ledger import OPERATOR, Dict, Ledger


def owed(ledger: Ledger, account: str) -> int:
    """Points that the account owes."""
    return sum(int(debt["open"]) for debt in ledger.debts if debt["account"] == account)


def overdraw(ledger: Ledger, record: Dict, award: Dict, missing: int, *, prior: bool) -> int:
    """What of the missing points becomes a debt: the funder is credited as if they had come back."""
    if ledger.programme.get("claw_back") != "negative_balance":
        return 0
    points: int
    person = ledger.person(record["person"])
    account = ledger.account_of[person]
    most = ledger.programme.get("negative_limit_points", 10**9) - owed(ledger, account)
    points = max(min(missing, most), 0)
    if points:
        money = {"EARN_REVERSAL": points * award["price"], "SERVICE_FEE_REFUND": points * award["fee"]}
        ledger.book(award["funder"], 0, 0, money, prior=prior, counts=points)
        ledger.add(OPERATOR, "MEMBER_RECEIVABLE", [1, points, points * award["price"], 0])
        ledger.debts.append({"account": account, "person": person, "funder": award["funder"], "price": award["price"],
                             "points": points, "open": points})  # fmt: skip
    return points


def pay_back(ledger: Ledger) -> None:
    """Whatever is usable of who owes pays what was owed first."""
    for debt in ledger.debts:
        for lot, part in ledger.take(ledger.usable(debt["account"]), debt["open"]):
            debt["open"] -= part
            ledger.last_user[debt["account"]] = debt["person"]
            ledger.book(OPERATOR, -part, -part * lot["price"], {})
            ledger.change(lot, -part)
            ledger.add(OPERATOR, "MEMBER_RECEIVABLE", [1, -part, -part * debt["price"], 0])
