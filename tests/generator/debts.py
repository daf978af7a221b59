"""What members owe, told again from the export: a repayment pays the oldest debt of its account, and no more."""

from collections import defaultdict
from collections.abc import Iterator, Sequence


def misrepaid(rows: Sequence[dict[str, str]], most: int | None) -> Iterator[str]:
    """A line per row that no debt allows; ``most``: how many points an account may owe.

    The export names the account of the purchase, the debt is of the one that stands for its member since; only
    repayments tell which that is. While it owes, it stays the same one. ``rows`` ascend by id.
    """
    debtor = {row["reverses"]: row["account"] for row in rows if row["kind"] == "REPAY"}
    left: dict[str, int] = {}
    of_purchases: defaultdict[str, int] = defaultdict(int)
    made_at: dict[str, str] = {}
    for row in rows:
        points, debt = -int(row["points"]), row["reverses"]
        if row["kind"] == "OVERDRAW":
            left[row["id"]], made_at[row["id"]] = points, row["account"]
            of_purchases[row["account"]] += points
            if most is not None and of_purchases[row["account"]] > most:
                yield f"row {row['id']}: more than {most} points are owed for purchases of {row['account']}"
        elif row["kind"] == "REPAY":
            older = [one for one in left if int(one) < int(debt) and debtor.get(one) == row["account"] and left[one]]
            if older or points > left.get(debt, 0) or debtor[debt] != row["account"]:
                yield f"row {row['id']}: {points} points for {debt}, of {left.get(debt, 0)}, before {older}"
            left[debt] = left.get(debt, 0) - points
            of_purchases[made_at[debt]] -= points
