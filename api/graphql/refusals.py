"""Refusals: commands that were not done, as data of the schema."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, cast

import strawberry

from api.graphql.context import Info
from api.graphql.fields import described_enum, guarded_field
from domain import commands
from domain.errors import RefusalCode, Refused

described_enum(
    RefusalCode,
    "Why a command was refused. A code never changes its meaning; new ones may come, so keep a default branch.",
    {
        "MEMBER_NOT_FOUND": "No member has this id or identifier, or it does not parse. Enroll first, or ask again.",
        "MEMBER_CLOSED": "The member's account is closed.",
        "INSUFFICIENT_POINTS": "The member has fewer points than that. Ask for the balance and burn less.",
        "BUDGET_EXHAUSTED": "The partner's budget does not cover the award. Raise it, then send the same key again.",
        "PARTNER_SUSPENDED": "The partner can neither issue nor take points. Ask the operator.",
        "PARTNER_LEFT": "The partner left the coalition before that, or its run-off is over. Ask the operator.",
        "PROGRAMME_ENDED": "The programme's last day of issuing, or of burning, is over.",
        "POINTS_OPEN": "The programme ended, and points are open still. Let the worker expire them, then close again.",
        "STORE_NOT_FOUND": "The partner has no such store. Check storeId or storeCode.",
        "IDEMPOTENCY_CONFLICT": "This key was used before with other input. Use a new key for a new command.",
        "DUPLICATE_REFERENCE": "This reference was used before for the same kind and store.",
        "TRANSACTION_NOT_FOUND": "None of your own transactions is meant by that.",
        "AMBIGUOUS_REFERENCE": "The reference means more than one transaction. Add kind and store, or use the id.",
        "ALREADY_REVERSED": "Nothing is left to reverse.",
        "EXCEEDS_ORIGINAL": "More would be reversed than is left of the original.",
        "NOT_REVERSIBLE": "Only purchases and burns can be reversed. Void an authorization; reverse its capture.",
        "REVERSAL_WINDOW_OVER": "The contract takes no reversal so long after the original. Ask the operator.",
        "HOLD_EXPIRED": "The authorization timed out; its points are free again. Burn what is still to be paid.",
        "HOLD_RESOLVED": "The authorization was captured or voided before.",
        "OCCURRED_IN_FUTURE": "occurredAt is more than five minutes ahead. Check the till's clock and time zone.",
        "OCCURRED_TOO_LONG_AGO": "occurredAt is further back than the programme allows.",
        "AMOUNT_INVALID": "A sign, range or number of decimals that cannot be. field names it.",
        "CURRENCY_MISMATCH": "Not the programme's currency.",
        "PERIOD_NOT_ENDED": "The period is still running. Close it after its closesAt.",
        "EARLIER_PERIOD_OPEN": "An earlier period must be closed first.",
        "AUDIT_FAILED": "The recomputed figures differ from the running totals. Nothing was closed; ask the operator.",
        "OVERLOADED": "Too many commands are waiting. Send the same key again in a moment.",
        "INTERNAL_ERROR": "A fault of the platform. Send the same key again, or report the request id.",
        "IDENTIFIER_CONFLICT": "The identifiers belong to different members.",
        "INPUT_INVALID": "An input that cannot be stored or understood. field names it.",
        "TERMS_MISSING": "No contract terms cover the day of occurredAt.",
        "PERIOD_NOT_FOUND": "There is no such settlement period.",
        "TRANSFER_NOT_ALLOWED": "The programme does not let partners move points between members. Ask the operator.",
        "MERGE_NOT_POSSIBLE": "As the members stand, they cannot be merged, or the merge not undone. message says why.",
        "POOL_NOT_FOUND": "There is no such pool, or everybody left it.",
        "POOL_NOT_POSSIBLE": "As the member and the pool stand, this cannot be done. message says what to do first.",
        "LIMIT_EXCEEDED": "More than a limit of the programme or of the member's pool lets through. message names it.",
        "NOTHING_PENDING": "No points of the purchase wait for a payment: they are usable, or were returned.",
        "FOUR_EYES": "Another client than the one that proposed it approves or rejects; only that one withdraws.",
        "PROPOSAL_NOT_FOUND": "There is no such proposal.",
        "PROPOSAL_DECIDED": "The proposal was approved, rejected or withdrawn before.",
        "STATEMENT_NOT_FOUND": "There is no such closed statement, or no such line on it.",
        "STATEMENT_NOT_DUE": "The statement is not to be paid yet, or nothing of it is owed.",
        "DISPUTE_NOT_FOUND": "There is no such dispute of yours.",
        "DISPUTE_DECIDED": "The dispute was decided or withdrawn before, or its outcome is proposed already.",
        "DISPUTE_WINDOW_OVER": "The statement's disputeUntil is over. Ask the operator to dispute for you.",
    },
)


@strawberry.type(description="A command that was not done. Nothing changed, and nothing of it is remembered.")
class Refusal:
    """Why a command was refused."""

    code: RefusalCode = strawberry.field(description="What kept it from being done; branch on this.")
    message: str = strawberry.field(description="The same for a person, in English.")
    field: str | None = strawberry.field(description="The input field at fault, if one is; nested ones with dots.")
    retryable: bool = strawberry.field(
        description="Whether the very same command may succeed later without anybody changing anything."
    )
    idempotency_key: str | None = strawberry.field(description="The key of the command.")


def refusal_of(outcome: commands.Refusal) -> Refusal:
    """The schema's value of a refusal."""
    return Refusal(
        code=outcome.code,
        message=outcome.message,
        field=outcome.field,
        retryable=outcome.retryable,
        idempotency_key=outcome.key,
    )


Resolver = TypeVar("Resolver", bound=Callable[..., Awaitable[Any]])


def refusable_field(coordinate: str, description: str) -> Callable[[Resolver], Resolver]:
    """A mutation field whose ``input`` has a key: what its method raises as Refused is answered as a Refusal."""

    def made(resolver: Resolver) -> Resolver:
        @wraps(resolver)
        async def answered(source: object, info: Info, input: Any) -> object:
            try:
                return await resolver(source, info, input)
            except Refused as refused:
                return refusal_of(commands.Refusal(refused.code, refused.message, refused.field, input.idempotency_key))

        return guarded_field(coordinate, description)(cast("Resolver", answered))

    return made
