"""Disputes as the schema shows them."""

from datetime import datetime
from typing import Annotated

import strawberry

from api.graphql.context import Context, Info
from api.graphql.fields import described_enum, described_field
from api.graphql.line_kinds import StatementLineKind
from api.graphql.money import Money, money_from_minor
from api.graphql.partners import Partner, known_partner
from api.graphql.refusals import Refusal
from api.graphql.transactions import Transaction
from settlement import disputed
from settlement.disputed import DisputeReason, DisputeState

described_enum(
    DisputeState,
    "Where a dispute is in its life. It is decided once.",
    {
        "OPEN": "Nothing was decided yet; of a disputed charge, what is disputed is not due meanwhile.",
        "ACCEPTED": "The operator accepted it in whole or part, and credits that in the period open then.",
        "REJECTED": "The operator rejected it; what it withheld is due.",
        "WITHDRAWN": "You took it back; what it withheld is due.",
    },
)
described_enum(
    DisputeReason,
    "Why a line is disputed.",
    {
        "NOT_OURS": "What was charged is not yours.",
        "WRONG_AMOUNT": "The points or the money are wrong.",
        "WRONG_TERMS": "Other prices were agreed.",
        "DUPLICATE": "It was charged before.",
        "GOODS_RETURNED": "The goods were returned, and the points not taken back.",
        "OTHER": "Something else: see the note.",
    },
)


@strawberry.type(
    description="What a partner contests of one line of a closed statement: that it was charged too much, or credited"
    " too little."
)
class Dispute:
    """A dispute as it stands."""

    row: strawberry.Private[disputed.Dispute]

    @described_field("Opaque id of the dispute.")
    def id(self, info: Info) -> strawberry.ID:
        """The viewer's id of the dispute."""
        context = info.context
        return strawberry.ID(context.services.ids.encode(context.viewer_id, "Dispute", self.row.id))

    @described_field("Whose statement it is about.")
    async def partner(self, info: Info) -> Partner:
        """The partner."""
        return await known_partner(info.context, self.row.partner_id)

    @described_field('Label of the statement\'s period, such as "2017-03".')
    def statement_label(self, info: Info) -> str:
        """The closed period."""
        return info.context.programme.calendar.label(self.row.period_id)

    @described_field("The line that it contests.")
    def line_kind(self) -> StatementLineKind:
        """The line."""
        return StatementLineKind(self.row.line_kind.value)

    @described_field("The transactions that it names, by the order of booking; none: it contests the whole line.")
    async def transactions(self, info: Info) -> list[Transaction]:
        """The disputed transactions."""
        loaders = info.context.loaders
        ids = await loaders.dispute_transactions.load(self.row.id)
        return [Transaction(row=row) for row in await loaders.transactions.load_many(ids) if row is not None]

    @described_field("What you would be credited if all of it were accepted.")
    def amount(self, info: Info) -> Money:
        """The disputed amount."""
        return money_from_minor(self.row.amount_minor, info.context.programme)

    @described_field(
        "What it keeps out of the statement's due now: while it is OPEN the disputed part of a charge, signed as the"
        " line; nothing of a credit, since what the statement credits is not disputed, and nothing where all is carried"
        " forward to the next statement."
    )
    def withheld(self, info: Info) -> Money:
        """What is withheld."""
        is_open = self.row.state == DisputeState.OPEN
        return money_from_minor(self.row.withheld_minor if is_open else 0, info.context.programme)

    @described_field("Why, as far as it can be counted.")
    def reason(self) -> DisputeReason:
        """The reason."""
        return self.row.reason_code

    @described_field("Why, in the partner's words.")
    def note(self) -> str:
        """The note."""
        return self.row.note

    @described_field("When it was opened.")
    def opened_at(self) -> datetime:
        """Time of the opening."""
        return self.row.opened_at

    @described_field("Where it is in its life.")
    def state(self) -> DisputeState:
        """The state."""
        return self.row.state

    @described_field("What was accepted of it: a credit on line ADJUSTMENT of the period open then.")
    def accepted(self, info: Info) -> Money:
        """The accepted amount."""
        return money_from_minor(self.row.accepted_minor, info.context.programme)

    @described_field("When it was accepted, rejected or withdrawn; null while it is OPEN.")
    def decided_at(self) -> datetime | None:
        """Time of its end."""
        return self.row.decided_at

    @described_field("The operator's answer in words; null while it is OPEN, or when it was withdrawn.")
    def decision_note(self) -> str | None:
        """The answer."""
        return self.row.decision_note


@strawberry.type(description="A dispute was opened or withdrawn.")
class DisputeReceipt:
    """Answer to a step."""

    dispute: Dispute = strawberry.field(description="The dispute after it.")
    replayed: bool = strawberry.field(description="Whether this key took the step before; then nothing changed now.")
    idempotency_key: str = strawberry.field(description="The key of the step.")


DisputeResult = Annotated[
    DisputeReceipt | Refusal,
    strawberry.union("DisputeResult", description="The dispute, or why the step was not taken."),
]


def dispute_number(context: Context, given: strawberry.ID) -> int | None:
    """The dispute that an id names, as far as this viewer could know it."""
    numbers = context.services.ids.decode(context.viewer_id, "Dispute", given)
    return numbers[0] if numbers is not None and len(numbers) == 1 else None
