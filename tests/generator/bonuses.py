"""Bonuses of campaigns worked out again from what was bought, and split among their payers by largest remainder."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from fractions import Fraction
from typing import Any

from tests.generator.contracts import Contracts

OPERATOR = "operator"
HUGE = 10_000
"""What no history spends of a budget, in units of the currency."""


def parts_of(campaign: dict[str, Any], points: int) -> list[tuple[str, int]]:
    """Payers in the order of their codes, each with its part: floors, and the rest to the largest remainders."""
    exact = sorted((payer.get("partner", OPERATOR), points * Fraction(payer["share"])) for payer in campaign["funding"])
    parts = {code: int(part) for code, part in exact}
    for code, _ in sorted(exact, key=lambda one: -(one[1] % 1))[: points - sum(parts.values())]:
        parts[code] += 1
    return list(parts.items())


def misshared(contracts: Contracts, purchases: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A line per purchase (of GraphQL) some of whose bonuses are not what its campaigns say."""
    for purchase in purchases:
        given: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        for movement in purchase["movements"]:
            if movement["campaign"] is not None:
                given[movement["campaign"]].append((movement["funder"]["code"], movement["points"]))
        for campaign in contracts.campaigns:
            parts = [one for one in parts_of(campaign, _bonus(contracts, campaign, purchase)) if one[1]]
            found = given.pop(campaign["code"], [])
            if len(found) != len(parts) or not all(
                _may_give(contracts, campaign, part, *one) for part, one in zip(parts, found, strict=True)
            ):
                yield f"{purchase['idempotencyKey']}: {campaign['code']} gives {parts}, not {found}"
        if given:
            yield f"{purchase['idempotencyKey']}: nothing gives {dict(given)}"


def _bonus(contracts: Contracts, campaign: dict[str, Any], purchase: dict[str, Any]) -> int:
    partner, amount = purchase["partner"]["code"], Fraction(purchase["amount"]["amount"])
    day = contracts.day_of(datetime.fromisoformat(purchase["occurredAt"]))
    if partner not in campaign["partners"] or not campaign["from"] <= day <= campaign["to"]:
        return 0
    if "multiplier" in campaign:
        rate = Fraction(contracts.partners[partner]["earn_rule"][0]["points_per_unit"])
        return int(int(amount * rate) * (Fraction(campaign["multiplier"]) - 1))
    if "bonus_points" in campaign:
        reached = amount and amount >= Fraction(campaign["min_amount"])
        return int(campaign["bonus_points"]) if reached else 0
    return int(amount * Fraction(campaign["points_per_unit"]))


def _may_give(contracts: Contracts, campaign: dict[str, Any], part: tuple[str, int], funder: str, points: int) -> bool:
    """Whether the payer's part may have become that: budgets end, and partners that leave pay nothing."""
    payer, asked = part
    if payer == OPERATOR and "budget" not in campaign:
        return (funder, points) == part
    budget = campaign.get("budget") or contracts.partners[payer]["budget"][0]
    if funder != payer:
        return (funder, points) == (OPERATOR, asked) and budget["on_limit"] == "OPERATOR_FUNDED"
    is_rich = Fraction(budget["limit"]) > HUGE and not contracts.was_away(payer)
    return points == asked or (not is_rich and (points == 0 or (budget["on_limit"] == "PARTIAL" and points < asked)))
