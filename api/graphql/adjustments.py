"""What stands behind the line ADJUSTMENT of a statement."""

from datetime import datetime

import strawberry

from api.graphql.context import Info
from api.graphql.disputed import Dispute
from api.graphql.fields import described_field
from api.graphql.line_kinds import StatementLineKind
from api.graphql.money import Money, money_from_micro
from domain.proposals import ProposalReason
from settlement import adjusted


@strawberry.type(description="A correction by the operator: a part of a statement's line ADJUSTMENT.")
class Adjustment:
    """One adjustment."""

    row: strawberry.Private[adjusted.Adjustment]

    @described_field("The amount, six decimals: positive credits you, negative debits you.")
    def amount(self, info: Info) -> Money:
        """The amount."""
        return money_from_micro(self.row.amount_micro, info.context.programme)

    @described_field("Why, as far as it can be counted.")
    def reason(self) -> ProposalReason:
        """The reason."""
        return self.row.reason_code

    @described_field("Why, in the operator's words.")
    def note(self) -> str:
        """The note."""
        return self.row.note

    @described_field("When it was approved and booked.")
    def booked_at(self) -> datetime:
        """Time of the booking."""
        return self.row.booked_at

    @described_field('Label of the closed statement that it corrects, such as "2017-03"; null when it corrects none.')
    def statement_label(self, info: Info) -> str | None:
        """The closed statement's period."""
        period_id = self.row.of_period_id
        return None if period_id is None else info.context.programme.calendar.label(period_id)

    @described_field("The line of that statement that it corrects; null when it corrects none.")
    def line_kind(self) -> StatementLineKind | None:
        """The closed line."""
        kind = self.row.of_line_kind
        return None if kind is None else StatementLineKind(kind.value)

    @described_field("The dispute whose outcome it is; null when it is no dispute's.")
    async def dispute(self, info: Info) -> Dispute | None:
        """The dispute."""
        dispute_id = self.row.dispute_id
        row = None if dispute_id is None else await info.context.loaders.disputes.load(dispute_id)
        return None if row is None else Dispute(row=row)
