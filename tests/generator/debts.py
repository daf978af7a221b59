"""What members owe, told again from the export: a repayment pays the oldest debt of its account, and no more."""

from collections.abc import Iterator, Sequence


def misrepaid(rows: Sequence[dict[str, str]], most: int | None) -> Iterator[str]:
    """A line per row that no debt allows; ``most``: how many points an account may owe. ``rows`` ascend by id.

    The export names the account of the purchase, the debt is of the one that stands for its member since; only
    repayments tell which that is.
    """
    debtor = {row["reverses"]: row["account"] for row in rows if row["kind"] == "REPAY"}
    left: dict[str, int] = {}
    for row in rows:
        points, debt = -int(row["points"]), row["reverses"]
        if row["kind"] == "OVERDRAW":
            left[row["id"]] = points
            account = debtor.get(row["id"])
            owed = sum(open_points for one, open_points in left.items() if debtor.get(one) == account)
            if most is not None and account is not None and owed > most:
                yield f"row {row['id']}: account {account} owes {owed}, more than {most}"
        elif row["kind"] == "REPAY":
            older = [one for one in left if int(one) < int(debt) and debtor.get(one) == row["account"] and left[one]]
            if older or points > left.get(debt, 0) or debtor[debt] != row["account"]:
                yield f"row {row['id']}: {points} points for {debt}, of {left.get(debt, 0)}, before {older}"
            left[debt] = left.get(debt, 0) - points
