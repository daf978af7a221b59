"""What a purchase earns, and what stays earned after a return: pure arithmetic (SETTLEMENT.md c.3, c.4)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from domain.errors import RefusalCode, Refused
from domain.terms import BASE_RULE_CODE, BudgetPlan, Campaign, EarnRule, Terms
from domain.values import MICRO_PER_UNIT, OPERATOR_ID, POINTS_MAX

LineKey = tuple[str | None, str | None]
"""A basket line's product and category: what a returned line is matched by."""


class OnLimit(StrEnum):
    """What happens to an award that its budget cannot carry (DESIGN.md, "Decisions inside an award")."""

    DECLINE = "DECLINE"
    PARTIAL = "PARTIAL"
    BASE_ONLY = "BASE_ONLY"
    OPERATOR_FUNDED = "OPERATOR_FUNDED"
    OVERDRAFT = "OVERDRAFT"


class RatedLine(NamedTuple):
    """A basket line in whole numbers: thousandths of a piece and minor units."""

    sku: str | None
    category: str | None
    quantity_milli: int
    amount_minor: int

    @property
    def key(self) -> LineKey:
        """What a returned line is matched by."""
        return (self.sku, self.category)


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back of a purchase so far: amounts without lines, and per line (quantity_milli, amount_minor)."""

    amount_minor: int = 0
    lines: dict[LineKey, tuple[int, int]] = field(default_factory=dict)

    def plus(self, amount_minor: int, lines: Iterable[RatedLine]) -> "Returned":
        """These returns and one more; ``amount_minor`` is the part that names no lines."""
        merged = dict(self.lines)
        for line in lines:
            quantity, amount = merged.get(line.key, (0, 0))
            merged[line.key] = (quantity + line.quantity_milli, amount + line.amount_minor)
        return Returned(self.amount_minor + amount_minor, merged)

    @property
    def total_minor(self) -> int:
        """Everything that came back."""
        return self.amount_minor + sum(amount for _, amount in self.lines.values())


NOTHING_RETURNED = Returned()


def eligible_minor(rule: EarnRule, amount_minor: int, lines: Sequence[RatedLine] | None, returned: Returned) -> int:
    """The part of what the member keeps that the rule rewards.

    Exclusions need lines; without lines everything is eligible. Amounts returned without naming lines reduce the
    eligible part in proportion, floored to the minor unit (DESIGN.md, "Decisions inside an award").
    """
    return rewarded_minor(amount_minor, lines, returned, partial(is_excluded, rule))


def rewarded_minor(
    amount_minor: int,
    lines: Sequence[RatedLine] | None,
    returned: Returned,
    is_left_out: Callable[[LineKey], bool],
) -> int:
    """The part of what the member keeps that is in lines which are not left out; all of it where there are no lines."""
    if lines is None and not returned.amount_minor:
        return amount_minor
    named = sum(amount for _, amount in returned.lines.values())
    kept_after_lines = amount_minor - named
    if lines is None:
        eligible = kept_after_lines
    else:
        bought = sum(line.amount_minor for line in lines if not is_left_out(line.key))
        eligible = bought - sum(amount for key, (_, amount) in returned.lines.items() if not is_left_out(key))
    if returned.amount_minor and kept_after_lines:
        eligible = eligible * (kept_after_lines - returned.amount_minor) // kept_after_lines
    return eligible


def is_excluded(rule: EarnRule, key: LineKey) -> bool:
    """Whether the rule leaves a basket line out, by product or by category."""
    sku, category = key
    return sku in rule.exclude_products or category in rule.exclude_categories


def rule_points(rule: EarnRule, eligible: int, currency_digits: int) -> int:
    """E(x) = floor(rate x eligible amount), at most the rule's cap (SETTLEMENT.md c.3)."""
    points = int(eligible * rule.rate_micro // (10**currency_digits * MICRO_PER_UNIT))
    return points if rule.max_points is None else min(points, rule.max_points)


class Award(NamedTuple):
    """Points of one rule or campaign as decided: asked for and granted, and who funds them (0: the operator)."""

    rule: EarnRule | Campaign | None
    requested_points: int
    granted_points: int
    funder_id: int


def requested_awards(
    rules: Sequence[EarnRule], amount_minor: int, lines: Sequence[RatedLine] | None, currency_digits: int
) -> list[tuple[EarnRule, int]]:
    """The points each rule gives for a purchase, in the order of decision. Raises Refused beyond POINTS_MAX."""
    asked = [
        (rule, rule_points(rule, eligible_minor(rule, amount_minor, lines, NOTHING_RETURNED), currency_digits))
        for rule in rules
    ]
    if sum([points for _, points in asked]) > POINTS_MAX:
        message = f"the purchase would earn more than {POINTS_MAX} points; post it in parts"
        raise Refused(RefusalCode.AMOUNT_INVALID, message, "amount")
    return asked


def decide_awards(
    asked: Sequence[tuple[EarnRule, int]], partner_id: int, terms: Terms, plan: BudgetPlan | None, available_micro: int
) -> list[Award]:
    """Grants what the budget carries, award by award, by the plan's behaviour at its limit (SETTLEMENT.md c.4).

    ``available_micro`` is what the window may still spend. Raises Refused(BUDGET_EXHAUSTED) when the whole purchase
    is declined, also where no budget is planned at all.
    """
    price_micro = terms.gross_price_micro
    cost_micro = price_micro * sum([points for _, points in asked])
    full = [Award(rule, points, points, partner_id) for rule, points in asked]
    if cost_micro == 0 and (plan is not None or not any(points for _, points in asked)):
        return full
    if plan is None:
        raise Refused(RefusalCode.BUDGET_EXHAUSTED, "the partner has no marketing budget for this date")
    if cost_micro <= available_micro:
        return full
    if plan.on_limit == OnLimit.PARTIAL:
        return _partial(asked, partner_id, price_micro, available_micro)
    if plan.on_limit == OnLimit.OPERATOR_FUNDED:
        return _operator_funded(asked, partner_id, price_micro, available_micro)
    if plan.on_limit == OnLimit.BASE_ONLY:
        base_only = [
            Award(rule, points, points if rule.code == BASE_RULE_CODE else 0, partner_id) for rule, points in asked
        ]
        if price_micro * sum(award.granted_points for award in base_only) <= available_micro:
            return base_only
    message = "the partner's marketing budget cannot carry this purchase; the same key may be sent again later"
    raise Refused(RefusalCode.BUDGET_EXHAUSTED, message)


def _partial(
    asked: Sequence[tuple[EarnRule, int]], partner_id: int, price_micro: int, available_micro: int
) -> list[Award]:
    awards = []
    for rule, points in asked:
        granted = min(points, max(available_micro, 0) // price_micro)
        available_micro -= granted * price_micro
        awards.append(Award(rule, points, granted, partner_id))
    return awards


def _operator_funded(
    asked: Sequence[tuple[EarnRule, int]], partner_id: int, price_micro: int, available_micro: int
) -> list[Award]:
    awards = []
    for rule, points in asked:
        fits = points * price_micro <= available_micro
        available_micro -= points * price_micro if fits else 0
        awards.append(Award(rule, points, points, partner_id if fits else OPERATOR_ID))
    return awards


def award_kept(
    rule: EarnRule | None,
    granted: int,
    amount_minor: int,
    lines: Sequence[RatedLine] | None,
    returned: Returned,
    currency_digits: int,
) -> int:
    """A(x) = min(granted, E(what the member keeps)): what stays of one award after returns (SETTLEMENT.md c.3)."""
    if rule is None:
        return 0
    return min(granted, rule_points(rule, eligible_minor(rule, amount_minor, lines, returned), currency_digits))


def match_returned_lines(
    bought: Sequence[RatedLine], returned: Returned, asked: Sequence[RatedLine]
) -> list[RatedLine]:
    """The returned lines under the keys of the purchase's lines, checked against what is still kept of each.

    A returned line may leave out the category (or the product) where the other names one line alone. Raises
    Refused(EXCEEDS_ORIGINAL) for a line that was not bought, or more of it than is kept.
    """
    kept = _kept_lines(bought, returned)
    matched = []
    for number, line in enumerate(asked):
        key = _line_key(kept, line, number)
        quantity, amount = kept[key]
        if line.quantity_milli > quantity or line.amount_minor > amount:
            message = "more of this line would be returned than the member still keeps"
            raise Refused(RefusalCode.EXCEEDS_ORIGINAL, message, f"lines.{number}")
        kept[key] = (quantity - line.quantity_milli, amount - line.amount_minor)
        matched.append(RatedLine(*key, line.quantity_milli, line.amount_minor))
    return matched


def _kept_lines(bought: Sequence[RatedLine], returned: Returned) -> dict[LineKey, tuple[int, int]]:
    kept: dict[LineKey, tuple[int, int]] = {}
    for line in bought:
        quantity, amount = kept.get(line.key, (0, 0))
        kept[line.key] = (quantity + line.quantity_milli, amount + line.amount_minor)
    for key, (quantity, amount) in returned.lines.items():
        kept[key] = (kept[key][0] - quantity, kept[key][1] - amount)
    return kept


def _line_key(kept: Mapping[LineKey, tuple[int, int]], line: RatedLine, number: int) -> LineKey:
    if line.key in kept:
        return line.key
    fitting = [
        key
        for key in kept
        if (line.sku is None or key[0] == line.sku) and (line.category is None or key[1] == line.category)
    ]
    if (line.sku is None and line.category is None) or len(fitting) != 1:
        message = "this line names no single line of the purchase: give its sku and category as they were bought"
        raise Refused(RefusalCode.EXCEEDS_ORIGINAL, message, f"lines.{number}")
    return fitting[0]
