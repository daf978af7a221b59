"""What is allowed in a coalition file and still worth a warning. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol

from domain.awards import OnLimit
from domain.periods import MONTHS_PER_YEAR, ExpiryPolicy, add_months
from domain.terms import BASE_RULE_CODE, Configuration
from domain.values import MICRO_DIGITS, OPERATOR_CODE
from partners.campaigns import CampaignSection
from partners.coalition_file import CoalitionFile, PartnerSection, ProgrammeSection
from partners.toml_section import plain


class Dated(Protocol):
    """Anything in force from ``starts`` until before ``ends`` (None: open)."""

    @property
    def starts(self) -> date:
        """First day."""

    @property
    def ends(self) -> date | None:
        """Day after the last one."""


@dataclass(frozen=True, slots=True)
class _Prices:
    """Terms of any partner, of the file or only in the database."""

    partner_code: str
    starts: date
    ends: date | None
    issue_price_micro: int
    reimbursement_micro: int


def warnings_of(current: Configuration | None, file: CoalitionFile) -> list[str]:
    """A warning per line: losing prices, partners that cannot earn, and what the file leaves out."""
    warnings = [warning for partner in file.partners for warning in _gaps(partner)]
    warnings += [warning for campaign in file.campaigns for warning in _unfunded(campaign, file)]
    warnings += _losing_burns(_all_prices(current, file), _months_lived(file.programme))
    return warnings + _left_out(current, file)


def _gaps(partner: PartnerSection) -> Iterator[str]:
    if not partner.terms:
        yield f"partner {partner.code} has no terms: its purchases and burns will be refused"
        return
    if not partner.earn_rules:
        yield f"partner {partner.code} has no earn rule: purchases will earn nothing"
    if not partner.budgets:
        yield f"partner {partner.code} has terms but no budget: every award will be declined"
    else:
        for first, after in uncovered(partner.terms, partner.budgets):
            until = f" to {after - timedelta(days=1)}" if after else " on"
            yield (f"partner {partner.code} has terms but no budget from {first}{until}: every award will be declined")
    for budget in partner.budgets:
        if budget.on_limit == OnLimit.OVERDRAFT and not budget.overdraft_micro:
            yield (
                f"budget of {partner.code} from {budget.starts} says OVERDRAFT:"
                " it declines at its limit until an overdraft is approved"
            )


def _unfunded(campaign: CampaignSection, file: CoalitionFile) -> Iterator[str]:
    partners = {partner.code: partner for partner in file.partners}
    for code in campaign.funding:
        if code == OPERATOR_CODE:
            continue
        covers: dict[str, Sequence[Dated]] = {"terms": partners[code].terms}
        if campaign.limit_micro is None:
            covers["budget"] = partners[code].budgets
        for what, covering in covers.items():
            for first, _ in uncovered([campaign], covering)[:1]:
                yield f"campaign {campaign.code}: {code} has no {what} on {first}: its part will be declined then"
    if campaign.multiplier_micro is not None:
        for code in campaign.partners or partners:
            if all(rule.code != BASE_RULE_CODE for rule in partners[code].earn_rules):
                yield f'campaign {campaign.code} multiplies the rule "{BASE_RULE_CODE}", which {code} does not have'


def uncovered(wanted: Sequence[Dated], covering: Sequence[Dated]) -> list[tuple[date, date | None]]:
    """The days of ``wanted`` that no range of ``covering`` contains, as [first, after); both lists ascend."""
    gaps: list[tuple[date, date | None]] = []
    for one in wanted:
        first: date | None = one.starts
        for cover in covering:
            if first is None or (one.ends is not None and first >= one.ends):
                break
            if cover.ends is not None and cover.ends <= first:
                continue
            if cover.starts > first:
                gaps.append((first, cover.starts if one.ends is None else min(cover.starts, one.ends)))
            first = cover.ends if cover.ends is None else max(first, cover.ends)
        if first is not None and (one.ends is None or first < one.ends):
            gaps.append((first, one.ends))
    return _joined(gaps)


def _joined(gaps: Sequence[tuple[date, date | None]]) -> list[tuple[date, date | None]]:
    joined: list[tuple[date, date | None]] = []
    for first, after in gaps:
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], after)
        else:
            joined.append((first, after))
    return joined


def _all_prices(current: Configuration | None, file: CoalitionFile) -> list[_Prices]:
    """Terms as they will stand: the file's partners as the file says, the others as they are."""
    in_file = {partner.code for partner in file.partners}
    versions = [(partner.code, terms) for partner in file.partners for terms in partner.terms]
    prices = [
        _Prices(code, terms.starts, terms.ends, terms.issue_price_micro, terms.reimbursement_micro)
        for code, terms in versions
    ]
    if current is not None:
        prices += [
            _Prices(partner.code, terms.starts, terms.ends, terms.issue_price_micro, terms.reimbursement_micro)
            for partner in current.partners.values()
            if partner.code not in in_file
            for terms in current.terms.get(partner.id, ())
        ]
    return prices


def _months_lived(programme: ProgrammeSection) -> int | None:
    """How many months a lot may live at most; None: as long as its account is used."""
    if programme.expiry_years is not None:
        return (programme.expiry_years + 1) * MONTHS_PER_YEAR
    return None if programme.expiry == ExpiryPolicy.ROLLING else programme.expiry_months


def _losing_burns(prices: Sequence[_Prices], months_lived: int | None) -> Iterator[str]:
    """SETTLEMENT.md c.2, Guard: a burn of a lot that cost less than its reimbursement loses money.

    A lot outlives the terms at which it was issued by ``months_lived`` and meets later reimbursements too.
    """
    lowest = min((price.issue_price_micro for price in prices), default=0)
    for burn in prices:
        if burn.reimbursement_micro <= lowest:
            continue
        cheaper = [
            lot
            for lot in prices
            if lot.issue_price_micro < burn.reimbursement_micro
            and (lot.ends is None or months_lived is None or burn.starts <= _lives_until(lot.ends, months_lived))
            and (burn.ends is None or lot.starts < burn.ends)
        ]
        if cheaper:
            worst = min(cheaper, key=lambda lot: lot.issue_price_micro)
            more = len({lot.partner_code for lot in cheaper} - {worst.partner_code})
            others = f" and those of {more} more" if more else ""
            yield (
                f"terms of {burn.partner_code} from {burn.starts}: reimbursement"
                f" {plain(burn.reimbursement_micro, MICRO_DIGITS)} exceeds the issue price"
                f" {plain(worst.issue_price_micro, MICRO_DIGITS)} of {worst.partner_code}{others}:"
                " each such burn loses money"
            )


def _lives_until(ends: date, months_lived: int) -> date:
    return add_months(ends - timedelta(days=1), months_lived)


def _left_out(current: Configuration | None, file: CoalitionFile) -> list[str]:
    if current is None:
        return []
    in_file = {partner.code: {store.code for store in partner.stores} for partner in file.partners}
    warnings = [
        f"partner {partner.code} is not in the file: it stays as it is"
        for partner in current.partners.values()
        if partner.code not in in_file
    ]
    for store in current.stores.values():
        code = current.partners[store.partner_id].code
        if code in in_file and store.code not in in_file[code]:
            warnings.append(f"store {store.code} of {code} is not in the file: it stays as it is")
    return warnings
