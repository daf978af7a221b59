"""What members owe, told again from the export: every repayment pays the oldest debt of its account, and no more."""

from collections import defaultdict
from collections.abc import Iterable, Iterator


def misrepaid(rows: Iterable[dict[str, str]], most: int | None) -> Iterator[str]:
    """A line per row that no debt allows; ``most``: how many points an account may owe."""
    debts: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for row in sorted(rows, key=lambda one: int(one["id"])):
        own, points = debts[row["account"]], -int(row["points"])
        if row["kind"] == "OVERDRAW":
            own.append((row["id"], points))
            if most is not None and sum(left for _, left in own) > most:
                yield f"row {row['id']}: account {row['account']} owes more than {most}"
        elif row["kind"] == "REPAY":
            if not own or row["reverses"] != own[0][0] or points > own[0][1]:
                yield f"row {row['id']}: {points} points for {row['reverses']}, of {own}"
                return
            id_, left = own.pop(0)
            if left > points:
                own.insert(0, (id_, left - points))
