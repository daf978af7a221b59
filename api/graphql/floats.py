"""What a prepaid budget holds: its blocks."""

from datetime import datetime
from enum import StrEnum

import strawberry

from api.graphql.context import Info
from api.graphql.fields import described_enum, described_field
from api.graphql.money import Money, money_from_micro
from domain.budget_reading import BLOCKS_SHOWN_MAX
from domain.floats import FloatBlock as BlockRow

BLOCKS = (
    f"What was paid into a PREPAID budget, the oldest first, the last {BLOCKS_SHOWN_MAX} payments at most; empty for"
    " any other, and before the first use or payment."
)


class BudgetFunding(StrEnum):
    """How a budget is funded."""

    POSTPAID = "POSTPAID"
    PREPAID = "PREPAID"


described_enum(
    BudgetFunding,
    "How a budget is funded. Either way awards are charged on the statement.",
    {
        "POSTPAID": "The limit is credit: awards are paid when the statement is due.",
        "PREPAID": "The limit is what was paid in before; it does not end with the period. What awards drew on payments"
        " is credited on the statement (line PREPAID). What a float opened with by the coalition file was paid outside"
        " these books: only a limit, and charged as anybody's.",
    },
)


@strawberry.type(description="A payment into a prepaid budget. Awards draw on the oldest one that has something left.")
class FloatBlock:
    """A block of a float; amounts are exact, with six decimals."""

    row: strawberry.Private[BlockRow]

    @described_field("What was paid in.")
    def amount(self, info: Info) -> Money:
        """The block's amount."""
        return money_from_micro(self.row.amount_micro, info.context.programme)

    @described_field("What awards drew on it, credits of returned goods taken off.")
    def used(self, info: Info) -> Money:
        """The used part."""
        return money_from_micro(self.row.used_micro, info.context.programme)

    @described_field("What is left of it.")
    def left(self, info: Info) -> Money:
        """The rest."""
        return money_from_micro(self.row.amount_micro - self.row.used_micro, info.context.programme)

    @described_field("When the money came in: the age of the block.")
    def topped_up_at(self) -> datetime:
        """The payment's time."""
        return self.row.occurred_at

    @described_field("The bank's reference of the payment, where one was given.")
    def bank_reference(self) -> str | None:
        """The bank reference."""
        return self.row.bank_reference

    @described_field("The operator's note, where there is one.")
    def note(self) -> str | None:
        """The note."""
        return self.row.note
