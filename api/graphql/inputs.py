"""What tills send, and how it becomes commands of the domain."""

from datetime import datetime
from decimal import Decimal

import strawberry

from api.graphql.context import Context
from api.graphql.ids import plain_number
from api.graphql.members import NO_ID, Channel, MemberAttributesInput, MemberRef
from api.graphql.money import MoneyInput
from api.graphql.scalars import Points
from api.graphql.transactions import TransactionKind
from domain import commands

KEY = (
    "Your key for this command, unique among all of yours: 1 to 200 printable characters. The same key with the same"
    " input finds the first posting again; with other input it is refused (IDEMPOTENCY_CONFLICT)."
)
_ACCEPTABLE = "At most five minutes ahead, and no further back than the programme allows."
OCCURRED_AT = f"When it happened at the till; decides terms and rules. {_ACCEPTABLE}"
OCCURRED_LATER_AT = f"When it happened; terms and prices are those of what it is about. {_ACCEPTABLE}"
STORE_ID = "The store, by id; leave both storeId and storeCode out for none."
STORE_CODE = "The store, by its code within your partner."


@strawberry.input(description="One line of a basket, net of discounts; the lines' amounts sum exactly to the amount.")
class BasketLineInput:
    """A basket line as a till sends it."""

    sku: str | None = strawberry.field(description="Article number; rules may exclude products by it.")
    category: str | None = strawberry.field(description="Category; rules may exclude categories.")
    quantity: Decimal = strawberry.field(
        default=Decimal(1), description="How many, or what weight: zero or more, at most three decimals."
    )
    amount: MoneyInput = strawberry.field(description="What the line costs after discounts.")

    def as_line(self) -> commands.BasketLine:
        """The domain's value of it."""
        return commands.BasketLine(self.sku, self.category, self.quantity, self.amount.as_amount())


@strawberry.input(description="A purchase that earns points.")
class EarnInput:
    """A purchase."""

    idempotency_key: str = strawberry.field(description=KEY)
    member: MemberRef = strawberry.field(description="Who bought.")
    amount: MoneyInput = strawberry.field(description="What was paid, without the part paid in points.")
    occurred_at: datetime = strawberry.field(description=OCCURRED_AT)
    reference: str = strawberry.field(
        description="Your own reference, such as the receipt number; unique per store and kind (DUPLICATE_REFERENCE)"
        " unless your settings say otherwise."
    )
    store_id: strawberry.ID | None = strawberry.field(description=STORE_ID)
    store_code: str | None = strawberry.field(description=STORE_CODE)
    channel: Channel | None = strawberry.field(description="How the customer was served.")
    lines: list[BasketLineInput] | None = strawberry.field(
        description="The basket, at most 1,000 lines. Without lines, the whole amount is eligible."
    )

    def as_command(self, context: Context) -> commands.Earn:
        """The domain's command of it, from the viewer's partner."""
        return commands.Earn(
            partner_id=context.viewer_id,
            key=self.idempotency_key,
            member=self.member.as_ref(context),
            amount=self.amount.as_amount(),
            occurred_at=self.occurred_at,
            reference=self.reference,
            store=store_ref(self.store_id, self.store_code),
            channel=None if self.channel is None else self.channel.value,
            lines=basket(self.lines),
        )


@strawberry.input(description="Points that a member spends at your partner.")
class BurnInput:
    """A burn."""

    idempotency_key: str = strawberry.field(description=KEY)
    member: MemberRef = strawberry.field(description="Who spends.")
    points: Points = strawberry.field(description="How many points, 1 to 1,000,000,000.")
    occurred_at: datetime = strawberry.field(description=OCCURRED_AT)
    reference: str = strawberry.field(
        description="Your own reference, such as the receipt number; unique per store and kind (DUPLICATE_REFERENCE)"
        " unless your settings say otherwise."
    )
    store_id: strawberry.ID | None = strawberry.field(description=STORE_ID)
    store_code: str | None = strawberry.field(description=STORE_CODE)

    def as_command(self, context: Context) -> commands.Burn:
        """The domain's command of it, from the viewer's partner."""
        return commands.Burn(
            partner_id=context.viewer_id,
            key=self.idempotency_key,
            member=self.member.as_ref(context),
            points=self.points,
            occurred_at=self.occurred_at,
            reference=self.reference,
            store=store_ref(self.store_id, self.store_code),
        )

    def as_authorization(self, context: Context) -> commands.Authorize:
        """The domain's command of it where the points are only set aside."""
        return commands.Authorize(*self.as_command(context))


@strawberry.input(
    description="Goods returned, or a burn refunded. Name the original in exactly one way: transactionId, originalKey,"
    " or reference with kind (and store). Name how much by amount or lines (of a purchase) or points (of a burn); none"
    " of them reverses all that is left."
)
class ReverseInput:
    """A reversal."""

    idempotency_key: str = strawberry.field(description=KEY)
    transaction_id: strawberry.ID | None = strawberry.field(description="The original, by its id.")
    original_key: str | None = strawberry.field(description="The original, by the key under which it was sent.")
    reference: str | None = strawberry.field(description="The original, by your reference; needs kind.")
    kind: TransactionKind | None = strawberry.field(
        description="With reference: EARN, or BURN (which a capture is too)."
    )
    store_id: strawberry.ID | None = strawberry.field(description="With reference: the original's store, by id.")
    store_code: str | None = strawberry.field(description="With reference: the original's store, by code.")
    amount: MoneyInput | None = strawberry.field(description="Of a purchase: how much money is returned.")
    lines: list[BasketLineInput] | None = strawberry.field(description="Of a purchase: the lines that come back.")
    points: Points | None = strawberry.field(description="Of a burn: how many points are given back.")
    occurred_at: datetime = strawberry.field(description=OCCURRED_LATER_AT)
    reason: str | None = strawberry.field(description="Why, for your own records.")
    await_original: bool = strawberry.field(
        default=False,
        description="For a till that was offline and sends out of order: where the original did not arrive yet, the"
        " reversal is parked (ParkedReversal) and posted when it does, instead of TRANSACTION_NOT_FOUND. Name the"
        " original by originalKey, or by reference and kind.",
    )

    def as_command(self, context: Context) -> commands.Reverse:
        """The domain's command of it, from the viewer's partner."""
        original = original_ref(
            context,
            self.transaction_id,
            self.original_key,
            self.reference,
            kind=None if self.kind is None else commands.CommandKind(self.kind.value),
            store=store_ref(self.store_id, self.store_code),
        )
        if self.reference is not None and self.kind is None:
            # One reference may stand for a purchase and a burn, and the one that is meant may not have arrived yet.
            original = original._replace(given=0)
        return commands.Reverse(
            partner_id=context.viewer_id,
            key=self.idempotency_key,
            original=original,
            occurred_at=self.occurred_at,
            amount=None if self.amount is None else self.amount.as_amount(),
            lines=basket(self.lines),
            points=self.points,
            reason=self.reason,
            awaits_original=self.await_original,
        )


@strawberry.input(
    description="A capture of an authorization, once. Name the authorization in exactly one way: holdId, originalKey,"
    " or reference (with store)."
)
class CaptureBurnInput:
    """A capture."""

    idempotency_key: str = strawberry.field(description=KEY)
    hold_id: strawberry.ID | None = strawberry.field(description="The authorization, by the id of its hold.")
    original_key: str | None = strawberry.field(description="The authorization, by the key under which it was sent.")
    reference: str | None = strawberry.field(description="The authorization, by your reference.")
    store_id: strawberry.ID | None = strawberry.field(description="With reference: the authorization's store, by id.")
    store_code: str | None = strawberry.field(description="With reference: the authorization's store, by code.")
    points: Points | None = strawberry.field(
        description="How many of the held points are burned, none: all of them. The rest goes back to the member; 0 is"
        " a void."
    )
    occurred_at: datetime = strawberry.field(
        description="When it happened at the till; terms are those of the authorization. At most five minutes ahead,"
        " and no further back than the programme allows."
    )

    def as_command(self, context: Context) -> commands.Capture:
        """The domain's command of it, from the viewer's partner."""
        store = store_ref(self.store_id, self.store_code)
        return commands.Capture(
            partner_id=context.viewer_id,
            key=self.idempotency_key,
            original=original_ref(
                context, self.hold_id, self.original_key, self.reference, store=store, type_name="BurnHold"
            ),
            occurred_at=self.occurred_at,
            points=self.points,
        )


@strawberry.input(
    description="An authorization called off, before it is captured. Name it in exactly one way: holdId, originalKey,"
    " or reference (with store)."
)
class VoidBurnInput:
    """A void."""

    idempotency_key: str = strawberry.field(description=KEY)
    hold_id: strawberry.ID | None = strawberry.field(description="The authorization, by the id of its hold.")
    original_key: str | None = strawberry.field(description="The authorization, by the key under which it was sent.")
    reference: str | None = strawberry.field(description="The authorization, by your reference.")
    store_id: strawberry.ID | None = strawberry.field(description="With reference: the authorization's store, by id.")
    store_code: str | None = strawberry.field(description="With reference: the authorization's store, by code.")
    occurred_at: datetime = strawberry.field(
        description="When it happened at the till. At most five minutes ahead, and no further back than the programme"
        " allows."
    )
    reason: str | None = strawberry.field(description="Why, for your own records.")

    def as_command(self, context: Context) -> commands.Void:
        """The domain's command of it, from the viewer's partner."""
        store = store_ref(self.store_id, self.store_code)
        return commands.Void(
            partner_id=context.viewer_id,
            key=self.idempotency_key,
            original=original_ref(
                context, self.hold_id, self.original_key, self.reference, store=store, type_name="BurnHold"
            ),
            occurred_at=self.occurred_at,
            reason=self.reason,
        )


@strawberry.input(description="A person to enroll, by at least one identifier.")
class EnrollMemberInput:
    """An enrolment."""

    idempotency_key: str = strawberry.field(description=KEY)
    card: str | None = strawberry.field(description="Card number or app id, 1 to 100 characters, as it is.")
    email: str | None = strawberry.field(description="E-mail address; case is ignored.")
    phone: str | None = strawberry.field(
        description="Phone number; one without country code is read in the programme's region."
    )
    store_id: strawberry.ID | None = strawberry.field(description=STORE_ID)
    store_code: str | None = strawberry.field(description=STORE_CODE)
    attributes: MemberAttributesInput | None = strawberry.field(
        description="What you know about a new member; not added to one who exists."
    )

    def as_command(self, context: Context) -> commands.Enroll:
        """The domain's command of it, from the viewer's partner."""
        return commands.Enroll(
            partner_id=context.viewer_id,
            key=self.idempotency_key,
            card=self.card,
            email=self.email,
            phone=self.phone,
            store=store_ref(self.store_id, self.store_code),
            attributes=() if self.attributes is None else self.attributes.as_pairs(),
        )


def original_ref(
    context: Context,
    given_id: strawberry.ID | None,
    original_key: str | None,
    reference: str | None,
    *,
    store: commands.StoreRef,
    kind: commands.CommandKind | None = None,
    type_name: str = "Transaction",
) -> commands.OriginalRef:
    """Which earlier command is meant; an id that is none names nothing, and how many ways were given is kept."""
    command_id = None
    if given_id is not None:
        numbers = context.services.ids.decode(context.viewer_id, type_name, given_id)
        command_id = numbers[-1] if numbers else None
    given = sum(way is not None for way in (given_id, original_key, reference))
    return commands.OriginalRef(command_id, original_key, reference, kind, store, given)


def store_ref(store_id: strawberry.ID | None, store_code: str | None) -> commands.StoreRef:
    """Which store is meant; an id that is none names no store, rather than no store being named."""
    number = None
    if store_id is not None:
        number = plain_number("Store", store_id)
        number = NO_ID if number is None else number
    return commands.StoreRef(number, store_code)


def basket(lines: list[BasketLineInput] | None) -> tuple[commands.BasketLine, ...] | None:
    """The domain's value of basket lines."""
    return None if lines is None else tuple(line.as_line() for line in lines)
