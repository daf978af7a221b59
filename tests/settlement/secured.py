"""Deposits and defaults in few words, on the worked example's rows."""

from collections.abc import Awaitable
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest

from domain.commands import Amount
from domain.database import Database
from domain.errors import Refused
from domain.proposals import Decision, Proposal, ProposalReason, ProposalState, Step
from domain.values import OPERATOR_ID
from settlement.defaults import DefaultAsk, approve_default, propose_default
from settlement.deposit_reading import DepositAccount, deposit_accounts
from settlement.deposits import NewDeposit, PayoutAsk, RecordedDeposit, approve_payout, propose_payout, record_deposit
from settlement.payments import NewPayment, record_payment
from settlement.reading import SettlementStatement, statements_of_periods
from settlement.verifying import verify
from tests.settlement.four_eyes import APPROVER, PROPOSER, euros, standing
from tests.settlement.rows import noon

MARCH, APRIL, MAY = 2017 * 12 + 2, 2017 * 12 + 3, 2017 * 12 + 4
IN_MARCH = noon(2017, 3, 28)
MILLION = 1_000_000


async def refused(work: Awaitable[object]) -> Refused:
    with pytest.raises(Refused) as caught:
        await work
    return caught.value


async def pay_in(
    database: Database,
    partner_id: int | None,
    amount: str,
    *,
    now: datetime = IN_MARCH,
    key: str = "d-1",
    reference: str | None = None,
    currency: str = "EUR",
) -> RecordedDeposit:
    """Money into the deposit."""
    money = Amount(Decimal(amount), currency)
    given = NewDeposit(key, partner_id, money, date(2017, 3, 27), reference or f"bank {key}", PROPOSER)
    return await record_deposit(database, standing(now), given)


async def payout(
    database: Database,
    partner_id: int | None,
    amount: str,
    *,
    now: datetime = IN_MARCH,
    key: str = "o-1",
    reason: ProposalReason = ProposalReason.AGREEMENT,
) -> Proposal:
    """A proposed payout."""
    ask = PayoutAsk(partner_id, euros(amount), reason, "limit lowered")
    return (await propose_payout(database, standing(now), PROPOSER, key, ask)).proposal


async def pay_out(
    database: Database, proposal: Proposal, *, now: datetime = IN_MARCH, client: str = APPROVER, key: str | None = None
) -> Step:
    """The approval of a payout."""
    decision = Decision(ProposalState.APPROVED, client, key or f"a-{proposal.id}", None)
    return await approve_payout(database, standing(now), proposal.id, decision)


async def account(database: Database, partner_id: int) -> DepositAccount:
    async with database.reading(OPERATOR_ID) as connection:
        return (await deposit_accounts(connection, [partner_id]))[partner_id]


async def check_16(database: Database) -> tuple[bool, str]:
    (found,) = [one for one in (await verify(database, standing(noon(2017, 9, 1)))).checks if one.number == 16]
    return found.holds, found.detail


# ---------------------------------------------------------------- default


async def default(
    database: Database, now: datetime, partner_id: int | None = 2, *, label: str = "2017-03", key: str = "x-1"
) -> Step:
    """A proposed default."""
    ask = DefaultAsk(partner_id, label, ProposalReason.UNCOLLECTABLE, "insolvent")
    return await propose_default(database, standing(now), PROPOSER, key, ask)


async def declare(
    database: Database, now: datetime, proposal: Proposal, *, client: str = APPROVER, key: str | None = None
) -> Step:
    """The approval of a default."""
    decision = Decision(ProposalState.APPROVED, client, key or f"a-{proposal.id}", None)
    return await approve_default(database, standing(now), proposal.id, decision)


async def pays(
    database: Database, now: datetime, amount: str, *, key: str, partner_id: int = 2, currency: str = "EUR"
) -> None:
    """A payment on the statement of March: negative, the partner pays."""
    money = Amount(Decimal(amount), currency)
    day = (now - timedelta(days=1)).date()
    payment = NewPayment(key, partner_id, "2017-03", money, day, f"bank {key}", PROPOSER)
    await record_payment(database, standing(now), payment)


async def statement(database: Database, partner_id: int = 2, period_id: int = MARCH) -> SettlementStatement:
    found = await statements_of_periods(database, OPERATOR_ID, [period_id])
    [one] = [one for one in found[period_id] if one.partner_id == partner_id]
    return one


def covered(one: SettlementStatement) -> dict[str, int]:
    """What covers it, in minor units, what is zero left out; and what is open."""
    parts = {
        "paid": one.paid_minor,
        "offset": one.offset_minor,
        "deposit": one.deposit_used_minor,
        "written_off": one.written_off_minor,
        "recovered": one.recovered_minor,
    }
    return {**{name: minor for name, minor in parts.items() if minor}, "open": one.open_minor}
