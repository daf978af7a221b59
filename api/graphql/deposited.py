"""Deposits, and what covers a statement that is not paid, as the schema shows them."""

from datetime import date, datetime

import strawberry

from api.graphql.context import Context, Info
from api.graphql.fields import described_field
from api.graphql.money import Money, money_from_micro, money_from_minor
from settlement import deposit_reading, reading
from settlement.deposit_reading import PAYMENTS_SHOWN_MAX, DepositAccount


@strawberry.type(description="Money paid into a deposit, or out of it.")
class DepositPayment:
    """A payment of a deposit."""

    row: strawberry.Private[deposit_reading.DepositPayment]

    @described_field("What was paid: positive into the deposit, negative out of it.")
    def amount(self, info: Info) -> Money:
        """The amount."""
        return money_from_micro(self.row.amount_micro, info.context.programme)

    @described_field("The bank's value date of money paid in; null of money paid out.")
    def value_date(self) -> date | None:
        """The value date."""
        return self.row.value_date

    @described_field("What the bank calls it; of money paid out, what its transfer is to carry.")
    def bank_reference(self) -> str:
        """The bank's reference."""
        return self.row.bank_reference

    @described_field("When it was booked.")
    def recorded_at(self) -> datetime:
        """The booking."""
        return self.row.recorded_at


@strawberry.type(
    description="Money that a partner leaves with the operator against what it may come to owe; apart from prepaid"
    " budgets. Amounts have six decimals."
)
class Deposit:
    """A partner's deposit as it stands now."""

    account: strawberry.Private[DepositAccount]

    @described_field("What the partner must leave with the operator.")
    def required(self, info: Info) -> Money:
        """The requirement."""
        return money_from_micro(self.account.required_micro, info.context.programme)

    @described_field("What is held: paid in, less what was paid out and used.")
    def balance(self, info: Info) -> Money:
        """The balance."""
        return money_from_micro(self.account.held_micro, info.context.programme)

    @described_field("What is missing of what is required.")
    def shortfall(self, info: Info) -> Money:
        """What is missing."""
        return money_from_micro(self.account.shortfall_micro, info.context.programme)

    @described_field(
        "What the partner would owe if everything were settled now: statements, disputes and open periods together."
    )
    def owes(self, info: Info) -> Money:
        """The debt by the books."""
        return money_from_micro(self.account.owes_micro, info.context.programme)

    @described_field("What may be paid out: balance less the larger of required and owes.")
    def free(self, info: Info) -> Money:
        """What is free."""
        return money_from_micro(self.account.free_micro, info.context.programme)

    @described_field("When a statement of the partner was last declared in default; null when none ever was.")
    def defaulted_at(self) -> datetime | None:
        """The last default."""
        return self.account.defaulted_at

    @described_field(f"What was paid in and out, latest first; the last {PAYMENTS_SHOWN_MAX} payments at most.")
    async def payments(self, info: Info) -> list[DepositPayment]:
        """Its payments."""
        rows = await info.context.loaders.deposit_payments.load(self.account.partner_id)
        return [DepositPayment(row=row) for row in rows]


@strawberry.type(
    description="What covers a statement otherwise than by payments: open = due - paid + deposit + offset + writtenOff"
    " - recovered."
)
class Coverage:
    """What a default, a write-off and later payments did to a statement."""

    row: strawberry.Private[reading.SettlementStatement]

    @described_field("What a default took of the partner's deposit.")
    def deposit(self, info: Info) -> Money:
        """Out of the deposit."""
        return money_from_minor(self.row.deposit_used_minor, info.context.programme)

    @described_field(
        "What a default set off: positive on the statement that was not paid, negative on one that the operator owed."
    )
    def offset(self, info: Info) -> Money:
        """What was set off."""
        return money_from_minor(self.row.offset_minor, info.context.programme)

    @described_field("What was written off: bad debt of the operator.")
    def written_off(self, info: Info) -> Money:
        """The bad debt."""
        return money_from_minor(self.row.written_off_minor, info.context.programme)

    @described_field("What payments brought in later of what was written off.")
    def recovered(self, info: Info) -> Money:
        """What was recovered."""
        return money_from_minor(self.row.recovered_minor, info.context.programme)


async def deposit_of(context: Context, partner_id: int) -> Deposit | None:
    """The partner's deposit; None for anybody else's, and for the operator, who has none."""
    account = await context.loaders.deposits.load(partner_id) if context.may_see(partner_id) else None
    return None if account is None else Deposit(account=account)
