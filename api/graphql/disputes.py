"""Disputing: a partner contests a line of its closed statement, the operator decides with four eyes."""

import logging
from enum import StrEnum
from typing import Annotated

import strawberry

from api.graphql.context import Context, Info, bad_input, page_size
from api.graphql.disputed import Dispute, DisputeReceipt, DisputeResult, dispute_number
from api.graphql.fields import described_enum, guarded_field
from api.graphql.four_eyes import KEY, NOTE, receipt
from api.graphql.line_kinds import StatementLineKind
from api.graphql.members import filter_partner
from api.graphql.money import After, Connection, First, MoneyInput, connection_of, cursor_key
from api.graphql.proposals import ProposalResult
from api.graphql.refusals import refusable_field
from api.graphql.settlement import statement_partner
from domain.positions import LineKind
from settlement.disputed import DisputeConditions, DisputeReason, DisputeState, disputes_page
from settlement.disputes import DisputeAsk, DisputeStep, OutcomeAsk, open_dispute, propose_outcome, withdraw_dispute

_log = logging.getLogger(__name__)

NO_DISPUTE_BEFORE = 2**63 - 1
DISPUTE_ID = "The dispute's id."


class DisputeOutcome(StrEnum):
    """What may become of a dispute."""

    ACCEPT = "ACCEPT"
    REJECT = "REJECT"


described_enum(
    DisputeOutcome,
    "What is proposed to become of a dispute.",
    {
        "ACCEPT": "The partner is right, in whole or part: it is credited on the statement of the open period.",
        "REJECT": "The line stands.",
    },
)


@strawberry.input(
    description="What is disputed of a closed statement: a whole line, an amount of it, or single transactions."
)
class DisputeStatementInput:
    """A dispute to be opened."""

    idempotency_key: str = strawberry.field(description=KEY)
    label: str = strawberry.field(description='The statement, by its period\'s label, such as "2017-03".')
    partner_id: strawberry.ID | None = strawberry.field(
        description="Whose statement: for an operator, who disputes in a partner's name, also after disputeUntil."
    )
    line_kind: StatementLineKind = strawberry.field(
        description="The line; not CARRIED_FORWARD, which is what lines of other statements left."
    )
    transaction_ids: list[strawberry.ID] | None = strawberry.field(
        description="The disputed transactions of the line, at most 100; the whole line when left out."
    )
    amount: MoneyInput | None = strawberry.field(
        description="How much you were charged too much, or credited too little; of a charge all that is named when"
        " left out. At most what the line, or the transactions, stand there with; a credit needs it."
    )
    reason_code: DisputeReason = strawberry.field(description="Why, as far as it can be counted.")
    note: str = strawberry.field(description=NOTE)


@strawberry.input(description="Which dispute to take back.")
class WithdrawDisputeInput:
    """A withdrawal."""

    idempotency_key: str = strawberry.field(description=KEY)
    dispute_id: strawberry.ID = strawberry.field(description=DISPUTE_ID)


@strawberry.input(description="What should become of a dispute.")
class DecideDisputeInput:
    """An outcome to be proposed."""

    idempotency_key: str = strawberry.field(description=KEY)
    dispute_id: strawberry.ID = strawberry.field(description=DISPUTE_ID)
    outcome: DisputeOutcome = strawberry.field(description="Whether the partner is right.")
    amount: MoneyInput | None = strawberry.field(
        description="How much is accepted; all of it when left out. Leave it out of a rejection."
    )
    note: str = strawberry.field(description=f"{NOTE} The partner reads it as the answer.")


@strawberry.input(description="Which disputes to list; conditions that you leave out do not limit.")
class DisputeFilter:
    """Conditions on disputes."""

    state: DisputeState | None = strawberry.field(description="Only in this state.")
    label: str | None = strawberry.field(description='Only about statements of this period, such as "2017-03".')
    partner_id: strawberry.ID | None = strawberry.field(
        description="Only this partner's; a partner may name itself only."
    )


def dispute_receipt(step: DisputeStep, key: str) -> DisputeReceipt:
    """The answer to a step, which the log tells too."""
    if not step.replayed:
        row = step.dispute
        _log.info("dispute %d of partner %d, line %s, is %s", row.id, row.partner_id, row.line_kind, row.state)
    return DisputeReceipt(dispute=Dispute(row=step.dispute), replayed=step.replayed, idempotency_key=key)


def dispute_conditions(context: Context, given: DisputeFilter | None) -> DisputeConditions:
    """Conditions for a filter; a partner sees its own. Raises BAD_USER_INPUT naming the field at fault."""
    conditions = DisputeConditions(partner_id=None if context.is_operator else context.viewer_id)
    if given is None:
        return conditions
    if given.partner_id is not None:
        conditions = conditions._replace(partner_id=filter_partner(context, given.partner_id))
    if given.label is not None:
        calendar = context.programme.calendar
        period_id = calendar.labelled(given.label)
        if period_id is None:
            raise bad_input(f"label must be a label such as {calendar.label_example}", "label")
        conditions = conditions._replace(period_id=period_id)
    return conditions._replace(state=given.state)


@strawberry.type
class DisputeQueries:
    """Query fields about disputes."""

    @guarded_field("Query.disputes", "Your own disputes (every partner's for an operator), latest first.")
    async def disputes(
        self,
        info: Info,
        filter: Annotated[
            DisputeFilter | None, strawberry.argument(description="Which ones; all of them when left out.")
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[Dispute]:
        """A page of disputes."""
        context, size = info.context, page_size(first)
        conditions = dispute_conditions(context, filter)
        before = cursor_key(context, "Dispute", after)
        start = NO_DISPUTE_BEFORE if before is None else before
        async with context.services.database.reading(context.viewer_id) as connection:
            rows = await disputes_page(connection, start, size + 1, conditions)
        return connection_of("Dispute", size, after, [(row.id, Dispute(row=row)) for row in rows])


@strawberry.type
class DisputeMutations:
    """Mutation fields about disputes."""

    @refusable_field(
        "Mutation.disputeStatement",
        "Disputes a line of your closed statement until its disputeUntil: you were charged too much, or credited too"
        " little. A disputed charge is not due until it is decided.",
    )
    async def dispute_statement(
        self, info: Info, input: Annotated[DisputeStatementInput, strawberry.argument(description="What is disputed.")]
    ) -> DisputeResult | None:
        """Opens a dispute."""
        context, key = info.context, input.idempotency_key
        services, ids = context.services, input.transaction_ids
        context.forget()
        commands = None if ids is None else tuple(_command_number(context, each) for each in ids)
        ask = DisputeAsk(
            statement_partner(context, input.partner_id),
            context.is_operator,
            input.label,
            LineKind(input.line_kind.value),
            commands,
            None if input.amount is None else input.amount.as_amount(),
            input.reason_code,
            input.note,
        )
        step = await open_dispute(services.database, services.clock, context.principal.client_id, key, ask)
        return dispute_receipt(step, key)

    @refusable_field("Mutation.withdrawDispute", "Takes back your own open dispute; what it withheld is due again.")
    async def withdraw_dispute(
        self, info: Info, input: Annotated[WithdrawDisputeInput, strawberry.argument(description="Which one.")]
    ) -> DisputeResult | None:
        """Withdraws a dispute."""
        context, key = info.context, input.idempotency_key
        services = context.services
        context.forget()
        dispute_id = dispute_number(context, input.dispute_id)
        step = await withdraw_dispute(services.database, services.clock, context.viewer_id, key, dispute_id)
        return dispute_receipt(step, key)

    @refusable_field(
        "Mutation.decideDispute",
        "Proposes to accept a dispute in whole or part, or to reject it; approveProposal by another client decides it.",
    )
    async def decide_dispute(
        self, info: Info, input: Annotated[DecideDisputeInput, strawberry.argument(description="The outcome.")]
    ) -> ProposalResult | None:
        """Proposes an outcome."""
        context, key = info.context, input.idempotency_key
        services = context.services
        ask = OutcomeAsk(
            dispute_number(context, input.dispute_id),
            input.outcome == DisputeOutcome.ACCEPT,
            None if input.amount is None else input.amount.as_amount(),
            input.note,
        )
        step = await propose_outcome(services.database, services.clock, context.principal.client_id, key, ask)
        return receipt(step, key)


def _command_number(context: Context, given: strawberry.ID) -> int | None:
    numbers = context.services.ids.decode(context.viewer_id, "Transaction", given)
    return None if numbers is None else numbers[-1]
