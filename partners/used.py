"""Refuses changes to what the ledger already stands on: currency, calendar, terms, earn rules.

What was priced once keeps its price: a version that was used may neither change what it prices, nor end
before something that it priced, nor go.
"""

from collections.abc import Set as AbstractSet
from datetime import date

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.periods import Calendar, local_midnight
from domain.terms import Configuration, EarnRule, Terms
from partners.campaigns import MAY_CHANGE, CampaignSection, StoredCampaign, budget_refusal
from partners.coalition_file import EarnRuleSection, TermsSection
from partners.plan import Change, Plan

# A row's period is that of its recording: never before the one in which it happened, but for a till whose
# clock runs minutes ahead over midnight. So the index on the period bounds the scan, with one to spare.
_SPARE_PERIODS = 1

USES_OF_TERMS_SQL = text(
    """
    SELECT count(DISTINCT command_id) FROM transaction
     WHERE period_id >= :first_period AND terms_id = :id
       AND kind IN ('EARN', 'EARN_PENDING', 'BURN', 'HOLD') AND occurred_at >= :lost_at
    """
)
# The fixed fee is charged at the terms that cover the period's last instant.
FEES_OF_TERMS_SQL = text(
    """
    SELECT count(*) FROM partner_entry AS e JOIN period AS p ON p.id = e.period_id
     WHERE e.terms_id = :id AND p.closes_at > :lost_at
    """
)
USES_OF_RULE_SQL = text(
    """
    SELECT count(DISTINCT command_id) FROM transaction
     WHERE period_id >= :first_period AND rule_id = :id
       AND kind IN ('EARN', 'EARN_PENDING') AND occurred_at >= :lost_at
    """
)
LEDGER_STATE_SQL = text(
    """
    SELECT EXISTS (SELECT FROM command) OR EXISTS (SELECT FROM partner_entry), EXISTS (SELECT FROM period),
           (SELECT min(id) FROM period
             WHERE state <> 'OPEN' AND NOT EXISTS (SELECT FROM period WHERE imported))
    """
)


async def refusals_of_use(connection: AsyncConnection, current: Configuration, plan: Plan) -> list[str]:
    """A line per change of the plan that the ledger forbids; nobody may post meanwhile."""
    refusals = await _programme_refusals(connection, current, plan)
    calendar = current.programme.calendar
    for terms in plan.terms:
        refusals += await _version_refusals(connection, terms, calendar)
    for rule in plan.earn_rules:
        refusals += await _version_refusals(connection, rule, calendar)
    for campaign in plan.campaigns:
        refusals += await _version_refusals(connection, campaign, calendar)
        if campaign.old is not None:
            budget = await budget_refusal(connection, campaign.old, campaign.new)
            refusals += [] if budget is None else [budget]
    return refusals


async def _programme_refusals(connection: AsyncConnection, current: Configuration, plan: Plan) -> list[str]:
    is_booked, has_periods, first_closed = (await connection.execute(LEDGER_STATE_SQL)).one()
    refusals = []
    values = {} if plan.programme is None else plan.programme.values
    if is_booked and {"currency", "currency_digits"} & values.keys():
        refusals.append(f"programme: the currency stays {current.programme.currency}: transactions were booked in it")
    if (is_booked or has_periods) and "timezone" in values:
        refusals.append(f"programme: the timezone stays {current.programme.timezone}: periods opened at its midnights")
    if (is_booked or has_periods) and "period" in values:
        refusals.append(f"programme: the period stays {current.programme.period}: it was booked in")
    earliest = min((change.new.starts for change in plan.terms if change.new and not change.old), default=None)
    known = current.first_terms_from
    if earliest and known and earliest < known and first_closed is not None:
        # The first period is that of the earliest terms; before a closed one it could never close in order.
        calendar = current.programme.calendar
        if calendar.ordinal(earliest) < first_closed:
            label = calendar.label(first_closed)
            refusals.append(
                f"terms from {earliest} would open periods before {label}, which is closed:"
                f" let them start on {known} or later"
            )
    return refusals


VersionChange = (
    Change[Terms, TermsSection] | Change[EarnRule, EarnRuleSection] | Change[StoredCampaign, CampaignSection]
)


async def _version_refusals(connection: AsyncConnection, change: VersionChange, calendar: Calendar) -> list[str]:
    lost_from = _lost_from(change)
    if change.old is None or lost_from is None:
        return []
    lost_at = local_midnight(lost_from, calendar.zone)
    use = {
        "id": change.old.id,
        "lost_at": lost_at,
        "first_period": calendar.ordinal(lost_from) - _SPARE_PERIODS,
    }
    if isinstance(change.old, Terms):
        done, new_one = "priced", "new prices need new terms with a new `from`"
        transactions = (await connection.execute(USES_OF_TERMS_SQL, use)).scalar_one()
        fees = (await connection.execute(FEES_OF_TERMS_SQL, use)).scalar_one()
    else:
        done, new_one = "awarded", "a new rule needs a version with a new `from`"
        if isinstance(change.old, StoredCampaign):
            new_one = "other conditions need another campaign"
        transactions, fees = (await connection.execute(USES_OF_RULE_SQL, use)).scalar_one(), 0
    if not transactions and not fees:
        return []
    uses = _counted(transactions, "transaction") if transactions else _counted(fees, "fixed fee")
    if change.new is None:
        return [f"{change.subject} already {done} {uses}: keep it in the file, with a `to` or a later version"]
    if lost_from == change.old.starts:
        return [f"{change.subject} already {done} {uses}: {new_one}"]
    return [f"{change.subject} already {done} {uses} on or after {lost_from}: it must end later"]


def _lost_from(change: VersionChange) -> date | None:
    """First day from which on uses of the old version would lose what they stand on; None: no use would."""
    old, new = change.old, change.new
    if old is None:
        return None
    if new is None or change.values.keys() - _may_change(change):
        return old.starts
    if new.ends is not None and (old.ends is None or new.ends < old.ends):
        return new.ends
    return None


def _may_change(change: VersionChange) -> AbstractSet[str]:
    if not isinstance(change.new, CampaignSection):
        return {"to"}
    # A budget that comes or goes would change which window the awards drew on.
    had_budget = isinstance(change.old, StoredCampaign) and change.old.limit_micro is not None
    return MAY_CHANGE if had_budget == (change.new.limit_micro is not None) else MAY_CHANGE - {"limit"}


def _counted(number: int, one: str) -> str:
    return f"{number} {one}" if number == 1 else f"{number} {one}s"
