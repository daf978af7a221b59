"""Transactions: accepted commands with their movements, and the lots that paid."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import strawberry

from api.graphql.context import Context, Info, bad_input, page_size
from api.graphql.fields import described_enum, described_field, guarded_field
from api.graphql.members import Channel, Member, filter_partner
from api.graphql.money import (
    After,
    Connection,
    First,
    Money,
    Node,
    connection_of,
    cursor_key,
    money_from_minor,
)
from api.graphql.partners import Partner, Store, known_partner
from api.graphql.scalars import Points
from domain import commands, reading
from domain.batch import SYSTEM_KEY_PREFIX
from domain.values import NO_STORE_ID, decimal_from_micro


class TransactionKind(StrEnum):
    """Kind of a transaction: its command's."""

    EARN = "EARN"
    CONFIRMATION = "CONFIRMATION"
    BURN = "BURN"
    AUTHORIZATION = "AUTHORIZATION"
    CAPTURE = "CAPTURE"
    VOID = "VOID"
    REVERSAL = "REVERSAL"
    EXPIRY = "EXPIRY"
    TRANSFER = "TRANSFER"
    MERGE = "MERGE"
    UNMERGE = "UNMERGE"
    ADJUSTMENT = "ADJUSTMENT"
    REPAYMENT = "REPAYMENT"


described_enum(
    TransactionKind,
    "What a transaction is.",
    {
        "EARN": "A purchase that earned points.",
        "CONFIRMATION": "Pending points of a purchase that became usable.",
        "BURN": "Points spent at a partner.",
        "AUTHORIZATION": "Points set aside for a burn that is not certain yet.",
        "CAPTURE": "A burn of points that were set aside, in full or in part.",
        "VOID": "An authorization called off, by the partner or because its time ran out.",
        "REVERSAL": "Goods returned, or a burn refunded; reverses names the original.",
        "EXPIRY": "Points that passed their expiry.",
        "TRANSFER": "Points given to another member.",
        "MERGE": "The points of a duplicate member moved to the one that stays.",
        "UNMERGE": "A merge that was undone.",
        "ADJUSTMENT": "A correction by the operator.",
        "REPAYMENT": "Points that a member owed since a return and that later ones paid back; the operator's alone.",
    },
)


class MovementKind(StrEnum):
    """Kind of one movement of points with its money."""

    EARN = "EARN"
    EARN_PENDING = "EARN_PENDING"
    CONFIRM = "CONFIRM"
    CANCEL = "CANCEL"
    EARN_REVERSAL = "EARN_REVERSAL"
    OVERDRAW = "OVERDRAW"
    REPAY = "REPAY"
    BURN = "BURN"
    HOLD = "HOLD"
    CAPTURE = "CAPTURE"
    RELEASE = "RELEASE"
    BURN_REVERSAL = "BURN_REVERSAL"
    EXPIRE = "EXPIRE"
    TRANSFER_OUT = "TRANSFER_OUT"
    TRANSFER_IN = "TRANSFER_IN"
    ADJUST = "ADJUST"


described_enum(
    MovementKind,
    "What a movement does. New kinds may come: treat one that you do not know by its points and money.",
    {
        "EARN": "Points awarded and usable at once; the funder is charged.",
        "EARN_PENDING": "Points awarded but not usable yet; budget is reserved, no money moves.",
        "CONFIRM": "Pending points become usable; the funder is charged at the award's terms.",
        "CANCEL": "Pending points fall away; the reserved budget is released.",
        "EARN_REVERSAL": "Points taken back for returned goods; the funder is credited.",
        "OVERDRAW": "Points of returned goods that the member had spent and owes now; the funder is credited.",
        "REPAY": "Points that pay back what the member owed; issueValue is by how much it owes less.",
        "BURN": "Points spent; the partner where they were burned is reimbursed.",
        "HOLD": "Points reserved by an authorization; no money moves.",
        "CAPTURE": "Reserved points spent; the partner is reimbursed at the authorization's terms.",
        "RELEASE": "Reserved points set free again.",
        "BURN_REVERSAL": "Points given back for a refunded burn; the reimbursement is taken back.",
        "EXPIRE": "Points that expired; the issuer gets its breakage share.",
        "TRANSFER_OUT": "Points that moved to another account.",
        "TRANSFER_IN": "Points that came from another account.",
        "ADJUST": "A correction by the operator.",
    },
)

POOL_VALUE_OF_OTHERS = {"BURN", "CAPTURE", "BURN_REVERSAL"}
"""Movements whose pool value is the sum of other partners' issue prices."""


@strawberry.type(description="Points that a movement took from one lot, or gave back to it.")
class LotUse:
    """One lot's part of a movement."""

    row: strawberry.Private[reading.LotUseRow]

    @described_field("How many points, positive.")
    def points(self) -> Points:
        """The lot's part."""
        return Points(self.row.points)

    @described_field("Who issued these points; null unless you did (the operator sees all).")
    async def issuer(self, info: Info) -> Partner | None:
        """The issuer, to itself and the operator."""
        context = info.context
        return await known_partner(context, self.row.issuer_id) if context.may_see(self.row.issuer_id) else None

    @described_field("Issue price per point, six decimals; null unless you issued them (the operator sees all).")
    def price(self, info: Info) -> Decimal | None:
        """The lot's price, to its issuer and the operator."""
        return decimal_from_micro(self.row.price_micro) if info.context.may_see(self.row.issuer_id) else None


@strawberry.type(
    description="One movement of a member's points with its money. A statement line's exact amount is the sum over the"
    " movements of its kind and party, booked in its period. Money is signed from the party's side (a charge is"
    " negative), has six decimals, and shows to the party and the operator only."
)
class Movement:
    """One row of the ledger."""

    row: strawberry.Private[reading.MovementRow]

    def _exact(self, info: Info, amount_micro: int) -> Decimal | None:
        return decimal_from_micro(amount_micro) if info.context.may_see(self.row.party_id) else None

    @described_field("Opaque id of the movement.")
    def id(self, info: Info) -> strawberry.ID:
        """The viewer's id of the movement."""
        context = info.context
        numbers = (self.row.account_id, self.row.id)
        return strawberry.ID(context.services.ids.encode(context.viewer_id, "Movement", *numbers))

    @described_field("What it does.")
    def kind(self) -> MovementKind:
        """The movement's kind."""
        return MovementKind(self.row.kind)

    @described_field("Who pays for the award; null where the kind has no funder, as in a burn.")
    async def funder(self, info: Info) -> Partner | None:
        """The funder of an award, its reversal or expiry."""
        funder_id = self.row.funder_id
        return None if funder_id is None else await known_partner(info.context, funder_id)

    @described_field(
        "Whose statement carries the money: the funder of an award, the partner where points were burned,"
        " the issuer of expired points."
    )
    async def party(self, info: Info) -> Partner:
        """The party of the money."""
        return await known_partner(info.context, self.row.party_id)

    @described_field("Code of the earn rule that awarded the points; null where none did.")
    def rule(self) -> str | None:
        """The earn rule."""
        return self.row.rule_code

    @described_field("Code of the campaign whose bonus it is; null for the partner's own rules.")
    def campaign(self) -> str | None:
        """The campaign."""
        return self.row.campaign_code

    @described_field("Points, negative when they leave the member's account.")
    def points(self) -> Points:
        """Points from the member's side."""
        return Points(self.row.points)

    @described_field(
        "Points of a return that could not be taken back; they stay charged to the issuing partner. Negative: points"
        " that an authorization let go, and that make such a shortfall good."
    )
    def shortfall(self) -> Points:
        """Points that a return could not take back."""
        return Points(self.row.shortfall_points)

    @described_field("Issue price x points: a charge for an award, a credit for its reversal.")
    def issue_value(self, info: Info) -> Decimal | None:
        """Lines ISSUE and EARN_REVERSAL; of a REPAY what the member owes less."""
        return self._exact(info, self.row.issue_value_micro)

    @described_field("Service fee x points: a charge for an award, a credit for its reversal.")
    def service_fee(self, info: Info) -> Decimal | None:
        """Lines SERVICE_FEE and SERVICE_FEE_REFUND."""
        return self._exact(info, self.row.service_fee_micro)

    @described_field("Reimbursement x points: a credit for a burn, a charge for its refund.")
    def reimbursement(self, info: Info) -> Decimal | None:
        """Lines REIMBURSEMENT and BURN_REVERSAL."""
        return self._exact(info, self.row.reimbursement_micro)

    @described_field("The issuer's share of the value of expired points: a credit.")
    def breakage_share(self, info: Info) -> Decimal | None:
        """Line BREAKAGE_SHARE."""
        return self._exact(info, self.row.breakage_share_micro)

    @described_field(
        "What the reward pool gains, negative when it pays. Null for a burn, a capture and their refund unless you are"
        " the operator: it would tell other partners' prices."
    )
    def pool_value(self, info: Info) -> Decimal | None:
        """The pool's side, where it gives no other partner's price away."""
        if self.row.kind in POOL_VALUE_OF_OTHERS and not info.context.is_operator:
            return None
        return self._exact(info, self.row.pool_value_micro)

    @described_field("The lots that the movement took from or gave back to, in the order used.")
    async def lots(self, info: Info) -> list[LotUse]:
        """Lot uses of the movement, as far as the viewer may see them."""
        return [LotUse(row=row) for row in await info.context.loaders.lot_uses.load(self.row.id)]


OF_ITS_PARTNER = "Null unless you sent the transaction (the operator sees all)."


@strawberry.type(
    description="An accepted command: a purchase, a burn, an authorization, a reversal, an expiry and so on. It never"
    " changes. Who paid for a part of another partner's purchase, in a campaign, sees the partner, kind and times, and"
    " its own movements."
)
class Transaction(Node):
    """A command as stored."""

    row: strawberry.Private[commands.CommandRow]

    def _is_sent_by(self, context: Context) -> bool:
        """Whether the viewer is the partner that sent it, or the operator, and not only one who funds a part."""
        return context.may_see(self.row.partner_id)

    @described_field("Opaque id of the transaction; every partner sees another one.")
    def id(self, info: Info) -> strawberry.ID:
        """The viewer's id of the transaction."""
        context = info.context
        numbers = (self.row.account_id, self.row.id)
        return strawberry.ID(context.services.ids.encode(context.viewer_id, "Transaction", *numbers))

    @described_field("What it is.")
    def kind(self) -> TransactionKind:
        """The command's kind."""
        return TransactionKind(self.row.kind.value)

    @described_field("The partner that sent it; of an expiry, the issuer of the points.")
    async def partner(self, info: Info) -> Partner:
        """The commanding partner."""
        return await known_partner(info.context, self.row.partner_id)

    @guarded_field("Transaction.member", f"Whose points it moved. {OF_ITS_PARTNER}")
    async def member(self, info: Info) -> Member | None:
        """The member, with the balance of now, to whoever sent it."""
        if not self._is_sent_by(info.context):
            return None
        row = await info.context.loaders.members.find(self.row.member_id)
        assert row is not None
        return Member(row=row)

    @described_field(
        "Points that it moved in all, as far as you see its movements; negative when they left the member's account. Of"
        " a capture, what it burned."
    )
    def points(self) -> Points:
        """Sum of the movements' points."""
        return Points(self.row.moved_points)

    @described_field(
        f"Money of the purchase or of the return; null for a burn, its refund and an expiry. {OF_ITS_PARTNER}"
    )
    def amount(self, info: Info) -> Money | None:
        """The amount as the till gave it."""
        minor = self.row.amount_minor if self._is_sent_by(info.context) else None
        return None if minor is None else money_from_minor(minor, info.context.programme)

    @described_field(f"Your own reference, such as the receipt number. {OF_ITS_PARTNER}")
    def reference(self, info: Info) -> str | None:
        """The caller's reference."""
        return self.row.reference if self._is_sent_by(info.context) else None

    @described_field(f"The key under which it was sent; null for what no partner sent. {OF_ITS_PARTNER}")
    def idempotency_key(self, info: Info) -> str | None:
        """The idempotency key, unless the platform made the command."""
        is_shown = self._is_sent_by(info.context) and not self.row.key.startswith(SYSTEM_KEY_PREFIX)
        return self.row.key if is_shown else None

    @described_field(f"The store that it named, if it named one. {OF_ITS_PARTNER}")
    async def store(self, info: Info) -> Store | None:
        """The store."""
        if self.row.store_id == NO_STORE_ID or not self._is_sent_by(info.context):
            return None
        found = await info.context.loaders.stores.load(self.row.store_id)
        return None if found is None else Store(store_id=found.id, code=found.code, name=found.name)

    @described_field(f"How the customer was served, if the till said so. {OF_ITS_PARTNER}")
    def channel(self, info: Info) -> Channel | None:
        """The channel."""
        if self.row.channel is None or not self._is_sent_by(info.context):
            return None
        return Channel(self.row.channel)

    @described_field(f"Points that were earned but declined because no budget covered them. {OF_ITS_PARTNER}")
    def declined_points(self, info: Info) -> Points | None:
        """Declined points of a purchase."""
        return Points(self.row.declined_points) if self._is_sent_by(info.context) else None

    @described_field(f"Why it was reversed or voided, as the till put it. {OF_ITS_PARTNER}")
    def reason(self, info: Info) -> str | None:
        """The reason of a reversal."""
        return self.row.reason if self._is_sent_by(info.context) else None

    @described_field("When it happened; decides terms and rules.")
    def occurred_at(self) -> datetime:
        """Business time."""
        return self.row.occurred_at

    @described_field("When it was booked; decides the settlement period.")
    def recorded_at(self) -> datetime:
        """Booking time."""
        return self.row.recorded_at

    @described_field('Label of the settlement period in which it was booked, such as "2017-03".')
    def period_label(self, info: Info) -> str:
        """The period's label."""
        return info.context.programme.calendar.label(self.row.period_id)

    @described_field(
        "The transaction that this one reverses, captures or voids, or whose pending points it confirms; null else."
    )
    async def reverses(self, info: Info) -> "Transaction | None":
        """The original of a reversal, the authorization of a capture or a void."""
        if self.row.reverses_id is None:
            return None
        row = await info.context.loaders.transactions.load(self.row.reverses_id)
        return None if row is None else Transaction(row=row)

    @described_field("Its movements, one per award, lot or burn, in the order posted.")
    async def movements(self, info: Info) -> list[Movement]:
        """The rows of the command."""
        return [Movement(row=row) for row in await info.context.loaders.movements.load(self.row.id)]


@strawberry.input(description="Which transactions to list; conditions that you leave out do not limit.")
class TransactionFilter:
    """Conditions on transactions."""

    kind: TransactionKind | None = strawberry.field(description="Only of this kind.")
    member: strawberry.ID | None = strawberry.field(description="Only of this member, by your id of it.")
    store_code: str | None = strawberry.field(description="Only of the store with this code.")
    reference: str | None = strawberry.field(description="Only with this reference.")
    idempotency_key: str | None = strawberry.field(description="Only the one that was sent under this key.")
    occurred_from: datetime | None = strawberry.field(description="Only what happened at or after this instant.")
    occurred_to: datetime | None = strawberry.field(description="Only what happened before this instant.")
    recorded_from: datetime | None = strawberry.field(description="Only what was booked at or after this instant.")
    recorded_to: datetime | None = strawberry.field(description="Only what was booked before this instant.")
    period: str | None = strawberry.field(description='Only what was booked in the period with this label: "2017-03".')
    partner_id: strawberry.ID | None = strawberry.field(
        description="Only what this partner sent; a partner may name itself only."
    )


PLAIN_CONDITIONS = {
    "kind": "kind",
    "store_code": "store_code",
    "reference": "reference",
    "idempotency_key": "key",
    "occurred_from": "occurred_from",
    "occurred_to": "occurred_to",
    "recorded_from": "recorded_from",
    "recorded_to": "recorded_to",
}
"""Filter fields that are conditions as they stand, with the condition's name."""


def transaction_conditions(context: Context, given: TransactionFilter | None) -> dict[str, Any]:
    """Conditions of reading.TRANSACTION_CONDITIONS for a filter. Raises BAD_USER_INPUT naming the field at fault."""
    conditions: dict[str, Any] = {} if context.is_operator else {"partner": context.viewer_id}
    if given is None:
        return conditions
    for name, condition in PLAIN_CONDITIONS.items():
        if getattr(given, name) is not None:
            conditions[condition] = getattr(given, name)
    if given.partner_id is not None:
        conditions["partner"] = filter_partner(context, given.partner_id)
    if given.period is not None:
        calendar = context.programme.calendar
        conditions["period"] = calendar.labelled(given.period)
        if conditions["period"] is None:
            raise bad_input(f"period must be a label such as {calendar.label_example}", "period")
    if given.member is not None:
        numbers = context.services.ids.decode(context.viewer_id, "Member", given.member)
        if numbers is None or len(numbers) != 1:
            raise bad_input("member must be a member's id as your own queries gave it", "member")
        conditions["member"] = numbers[0]
    return conditions


@strawberry.type
class TransactionQueries:
    """Query fields about transactions."""

    @guarded_field("Query.transactions", "Your own transactions (everybody's for an operator), latest booking first.")
    async def transactions(
        self,
        info: Info,
        filter: Annotated[
            TransactionFilter | None, strawberry.argument(description="Which ones; all of them when left out.")
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[Transaction]:
        """A page of transactions."""
        context, size = info.context, page_size(first)
        conditions = transaction_conditions(context, filter)
        before = cursor_key(context, "Transaction", after)
        if before is not None:
            conditions["before"] = before
        async with context.services.database.reading(context.viewer_id) as connection:
            rows = await reading.transactions_page(connection, conditions, size + 1)
        return connection_of("Transaction", size, after, [(row.id, Transaction(row=row)) for row in rows])
