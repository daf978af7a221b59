"""What campaigns give: bonus points, their parts by funder, what stays after returns. Pure (SETTLEMENT.md c.1, c.3)."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from domain.awards import LineKey, OnLimit, RatedLine, Returned, eligible_minor, rewarded_minor, rule_points
from domain.terms import BASE_RULE_CODE, Campaign, EarnRule
from domain.values import MICRO_PER_UNIT, largest_remainder, micro_per_minor

PPM = 1_000_000


class Purchase(NamedTuple):
    """What of a purchase decides about campaigns; ``base_rule`` None: the till's partner had none."""

    base_rule: EarnRule | None
    amount_minor: int
    lines: Sequence[RatedLine] | None
    currency_digits: int


def base_of(rules: Sequence[EarnRule]) -> EarnRule | None:
    """The base rule among a partner's rules in the order of decision, where it has one."""
    return rules[0] if rules and rules[0].code == BASE_RULE_CODE else None


def campaign_points(campaign: Campaign, purchase: Purchase, returned: Returned) -> int:
    """E(x) of the whole bonus, on what the member keeps; it never grows while more comes back.

    A multiplier counts what the base rule gives before any budget: what one funder can pay does not depend on another.
    """
    base_rule, amount_minor, lines, digits = purchase
    kept_minor = amount_minor - returned.total_minor
    if campaign.multiplier_micro is not None:
        base = 0
        if base_rule is not None:
            base = rule_points(base_rule, eligible_minor(base_rule, amount_minor, lines, returned), digits)
        points = base * (campaign.multiplier_micro - MICRO_PER_UNIT) // MICRO_PER_UNIT
    elif campaign.bonus_points is not None:
        reached = kept_minor > 0 and kept_minor * micro_per_minor(digits) >= campaign.min_amount_micro
        points = campaign.bonus_points if reached else 0
    else:
        assert campaign.rate_micro is not None
        included_minor = rewarded_minor(amount_minor, lines, returned, partial(is_left_out, campaign))
        if lines is None and (campaign.include_categories or campaign.include_products):
            included_minor = 0  # nobody can tell whether any of it was bought
        points = included_minor * campaign.rate_micro // (10**digits * MICRO_PER_UNIT)
    return int(points if campaign.max_points is None else min(points, campaign.max_points))


def is_left_out(campaign: Campaign, key: LineKey) -> bool:
    """Whether a basket line earns nothing: the campaign lists what is included, and this is not."""
    sku, category = key
    if not campaign.include_categories and not campaign.include_products:
        return False
    return sku not in campaign.include_products and category not in campaign.include_categories


def parts_of(campaign: Campaign, points: int) -> list[int]:
    """The bonus split by the funders' shares: largest remainder, ties by code, which is the order of ``funding``."""
    return largest_remainder(points, [share_ppm for _, share_ppm in campaign.funding])


def parts_kept(campaign: Campaign, whole: int, kept: int) -> list[int]:
    """What each funder's part of a bonus of ``whole`` points may still be when ``kept`` of it stay.

    Among three funders or more, a smaller total can give one of them a larger part (the Alabama paradox), and a return
    never gives points. So a part is the least that any total from ``kept`` to ``whole`` leaves it. A total that is
    further than 1 / share away leaves more, and need not be asked.
    """
    parts = parts_of(campaign, kept)
    if len(parts) <= 2:  # noqa: PLR2004 (one part or its complement: both only shrink)
        return parts
    reach = max(-(-PPM // share_ppm) for _, share_ppm in campaign.funding)
    for total in range(kept + 1, min(whole, kept + reach) + 1):
        parts = [min(both) for both in zip(parts, parts_of(campaign, total), strict=True)]
    return parts


def granted_of(asked: int, price_micro: int, on_limit: str, available_micro: int) -> int | None:
    """How many of a part's points its budget carries; None: the operator takes the part over (SETTLEMENT.md c.4).

    What does not fit is declined for this part alone, whatever the plan says of whole purchases.
    """
    if asked * price_micro <= max(available_micro, 0):
        return asked
    if on_limit == OnLimit.OPERATOR_FUNDED:
        return None
    return max(available_micro, 0) // price_micro if on_limit == OnLimit.PARTIAL else 0
