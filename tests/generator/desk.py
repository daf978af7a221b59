"""What people do at the operator's desk, and note in the book: floats, adjustments, disputes, payments."""

from collections.abc import Awaitable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TypeVar

from domain.adjusting import adjust_command, propose_points
from domain.commands import Amount, Posted
from domain.errors import Refused
from domain.positions import LineKind
from domain.proposals import Content, Decision, Proposal, ProposalKind, ProposalReason, ProposalState
from domain.proposing import end_proposal
from domain.values import OPERATOR_ID
from partners.overdrafts import OverdraftAsk, approve_overdraft, propose_overdraft
from settlement.adjustments import AdjustmentAsk, WriteOffAsk, approve_money, propose_adjustment, propose_write_off
from settlement.disputed import DisputeReason
from settlement.disputes import DisputeAsk, OutcomeAsk, open_dispute, propose_outcome, withdraw_dispute
from settlement.payments import NewPayment, record_payment
from settlement.reading import statements_of_periods
from settlement.top_ups import TopUp, top_up_budget
from tests.generator.book import LET_OFF, PAID, Adjusted, Book, Disputed, PaidIn, Settled
from tests.generator.contracts import Contracts
from tests.generator.events import FAULTS, Makers, World

Answer = TypeVar("Answer")

PROPOSER, APPROVER = "client-1", "client-2"
KINDS_OF_LINES = {
    "ISSUE": ("EARN", "CONFIRM"),
    "SERVICE_FEE": ("EARN", "CONFIRM"),
    "REIMBURSEMENT": ("BURN", "CAPTURE"),
    "EARN_REVERSAL": ("EARN_REVERSAL",),
    "BURN_REVERSAL": ("BURN_REVERSAL",),
    "BREAKAGE_SHARE": ("EXPIRE",),
}
LINES = """
    SELECT d.label, p.code, l.kind, abs(l.billed_minor)::bigint FROM statement_line AS l
      JOIN period AS d ON d.id = l.period_id JOIN partner AS p ON p.id = l.partner_id ORDER BY 1, 2, 3
"""
COMMANDS = """
    SELECT DISTINCT t.command_id FROM transaction AS t
      JOIN period AS d ON d.id = t.period_id JOIN partner AS p ON p.id = t.party_id
     WHERE (d.label, p.code) = (:label, :partner) AND t.kind = ANY(CAST(:kinds AS text[])) ORDER BY 1
"""
OPEN = """
    SELECT d.label, p.code, b.open_minor::bigint FROM statement_balance AS b
      JOIN period AS d ON d.id = b.period_id JOIN partner AS p ON p.id = b.partner_id
     WHERE b.open_minor <> 0 ORDER BY 1, 2
"""
MEMBER = "SELECT member_id FROM member_identifier WHERE kind = 'card' AND value = :card"


class Desk:
    """Two people who agree, mostly; what was refused is in no book."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.random
        self.database = world.till.database
        self.clock = world.till.clock
        self.book = Book([(self.clock.now, world.coalition)])
        self.disputes: dict[int, Disputed] = {}

    def makers(self) -> Makers:
        """What may happen."""
        return [
            (2, self.top_up),
            (1, self.overdraw),
            (2, self.give_points),
            (2, self.adjust),
            (6, self.dispute),
            (3, self.end_dispute),
            (3, self.pay),
            (1, self.write_off),
        ]

    # ------------------------------------------------------------ budgets and points

    async def top_up(self) -> None:
        """Money came in for a float, perhaps some days ago: its block is as old."""
        code = self._partner_with("funding", "PREPAID")
        if code is not None:
            minor, age = self.random.randint(1, 4_000), timedelta(hours=self.random.randint(0, 90))
            paid = TopUp(self.key(), self.id_of(code), self.money(minor), self.clock.now - age)
            if await self.done("TopUp", top_up_budget(self.database, self.clock, paid)):
                self.book.floats[code].append(PaidIn(self.clock.now, code, self.fraction(minor), paid.occurred_at))

    async def overdraw(self) -> None:
        """A partner may spend more than its limit, for a while or as long as the window lasts."""
        code = self._partner_with("on_limit", "OVERDRAFT")
        if code is not None:
            until = self.random.choice((None, self.clock.now + timedelta(days=self.random.randint(1, 20))))
            money = self.money(self.random.randint(1, 3_000))
            ask = OverdraftAsk(self.id_of(code), money, ProposalReason.AGREEMENT, "for a while", until=until)
            made = await self.done("Proposal", propose_overdraft(self.database, self.clock, PROPOSER, self.key(), ask))
            if made and await self.is_agreed(made.proposal):
                approval = approve_overdraft(self.database, self.clock, made.proposal.id, self.approval())
                await self.done("Overdraft", approval)

    async def give_points(self) -> None:
        """Or take some."""
        world, code = self.world, self.world.partner()
        points = self.random.choice((-1, 1, 1)) * self.random.randint(1, 200)
        await self.give(code, points, await world.till.one(MEMBER, card=world.card()))

    async def give(self, code: str, points: int, member_id: int) -> None:
        """Points at the operator's expense, at the prices of a partner."""
        content = Content(
            ProposalKind.POINTS, self.id_of(code), ProposalReason.GOODWILL, "sorry", points=points, member_id=member_id
        )
        made = await self.done("Proposal", propose_points(self.database, self.clock, PROPOSER, self.key(), content))
        if made and await self.is_agreed(made.proposal):
            command = adjust_command(made.proposal, self.approval(), self.clock)
            if isinstance(await self.world.post(command), Posted):
                self.book.points[command.key] = code

    # ------------------------------------------------------------ adjustments and disputes

    async def adjust(self) -> None:
        """A partner is credited or debited, perhaps for a line of a closed statement."""
        code, label, kind = self.world.partner(), None, None
        lines = await self.world.till.rows(LINES)
        if lines and self.random.random() < 0.6:
            label, code, kind, _ = self.random.choice(lines)
        await self._adjust(code, self.random.choice((-1, 1)) * self.random.randint(1, 3_000), label, kind)

    async def _adjust(self, code: str, minor: int, label: str | None = None, kind: str | None = None) -> None:
        ask = AdjustmentAsk(
            self.id_of(code),
            self.money(minor),
            ProposalReason.CORRECTION,
            "agreed by letter",
            label,
            None if kind is None else LineKind(kind),
        )
        made = await self.done("Proposal", propose_adjustment(self.database, self.clock, PROPOSER, self.key(), ask))
        if made and await self.is_agreed(made.proposal) and await self._approved("Adjustment", made.proposal):
            self.book.adjustments.append(Adjusted(self.clock.now, code, self.fraction(minor), label))

    async def aim(self) -> None:
        """At the last instant of a period: somebody's statement comes to the smallest amount that is paid, or near it.

        Nobody who is taxed, or has a float: what of that is booked with the close, the product alone would say.
        """
        configuration, contracts = self.world.till.configuration, Contracts(self.book.files)
        period_id = configuration.programme.calendar.containing(self.clock.now)
        label, today = configuration.programme.calendar.label(period_id), self.world.today()
        minimum = int(Fraction(contracts.programme["minimum_settlement"]) * 10**self.world.digits)
        for draft in (await statements_of_periods(self.database, OPERATOR_ID, [period_id]))[period_id]:
            code = configuration.partners[draft.partner_id].code
            if not contracts.partners[code]["tax"] and code not in contracts.floats() and minimum:
                fee = int(contracts.fixed_fee(code, label, today) * 10**self.world.digits)
                wanted = self.random.choice((-1, 1)) * (minimum - self.random.choice((0, 1)))
                minor = wanted - draft.net_minor - draft.carried_in_minor + fee
                if minor:
                    await self._adjust(code, minor)

    async def dispute(self) -> None:
        """A line of a closed statement is contested: all of it, some of it, or transactions of it."""
        lines = await self.world.till.rows(LINES)
        if not lines:
            return
        label, code, kind, billed = self.random.choice(lines)
        commands = None
        if kind in KINDS_OF_LINES and self.random.random() < 0.5:
            given = {"label": label, "partner": code, "kinds": list(KINDS_OF_LINES[kind])}
            found = [command_id for (command_id,) in await self.world.till.rows(COMMANDS, **given)]
            commands = tuple(self.random.sample(found, min(len(found), self.random.randint(1, 3))))
        is_all = self.random.random() < (0.5 if commands is None else 0.8)
        minor = None if is_all else self.random.randint(1, max(1, billed))
        ask = DisputeAsk(
            self.id_of(code),
            is_operator=self.random.random() < 0.5,
            label=label,
            line_kind=LineKind(kind),
            command_ids=commands,
            amount=None if minor is None else self.money(minor),
            reason=DisputeReason.OTHER,
            note="we did not",
        )
        what = "Dispute" if commands is None else "DisputeOfTransactions"
        opened = await self.done(what, open_dispute(self.database, self.clock, "till-1", self.key(), ask))
        if opened:
            asked = None if minor is None else self.fraction(minor)
            named = None if commands is None else tuple(str(command_id) for command_id in commands)
            noted = Disputed(self.clock.now, label, code, kind, named, asked)
            self.disputes[opened.dispute.id] = noted
            self.book.disputes.append(noted)

    async def end_dispute(self) -> None:
        """It is accepted in whole or in part, rejected, or taken back."""
        open_ones = [number for number, noted in self.disputes.items() if noted.state == "OPEN"]
        if not open_ones:
            return
        number = self.random.choice(open_ones)
        noted = self.disputes[number]
        if self.random.random() < 0.2:
            taken_back = withdraw_dispute(self.database, self.clock, self.id_of(noted.partner), self.key(), number)
            if await self.done("Withdrawal", taken_back):
                noted.state, noted.ended_at = "WITHDRAWN", self.clock.now
            return
        is_accepted = self.random.random() < 0.7
        minor = self.random.randint(1, 500) if is_accepted and self.random.random() < 0.5 else None
        ask = OutcomeAsk(number, is_accepted, None if minor is None else self.money(minor), "looked into")
        made = await self.done("Proposal", propose_outcome(self.database, self.clock, PROPOSER, self.key(), ask))
        if made and await self.is_agreed(made.proposal):
            what = "Acceptance" if is_accepted else "Rejection"
            if await self._approved(what, made.proposal):
                noted.state = "ACCEPTED" if is_accepted else "REJECTED"
                noted.accepted = None if minor is None else self.fraction(minor)
                noted.ended_at = self.clock.now

    # ------------------------------------------------------------ payments

    async def pay(self) -> None:
        """What is open of a statement, or some of it, or a little too much."""
        found = await self.world.till.rows(OPEN)
        if found:
            await self.pay_some(*self.random.choice(found))

    async def pay_some(self, label: str, code: str, open_minor: int) -> None:
        """All of that, half of it, or twice as much."""
        minor = self.random.choice((open_minor, open_minor, open_minor // 2 or open_minor, open_minor * 2))
        key = self.key()
        paid = NewPayment(
            key, self.id_of(code), label, self.money(minor), self.world.today(), f"bank {key}", "bank-desk"
        )
        if await self.done("Payment", record_payment(self.database, self.clock, paid)):
            self._settled(PAID, label, code, minor)

    async def write_off(self) -> None:
        """A partner is let off what it owes, or some of it."""
        owing = [one for one in await self.world.till.rows(OPEN) if one[2] < 0]
        if owing:
            label, code, open_minor = self.random.choice(owing)
            minor = self.random.randint(1, -open_minor)
            ask = WriteOffAsk(self.id_of(code), self.money(minor), ProposalReason.UNCOLLECTABLE, "insolvent", label)
            made = await self.done("Proposal", propose_write_off(self.database, self.clock, PROPOSER, self.key(), ask))
            if made and await self.is_agreed(made.proposal) and await self._approved("WriteOff", made.proposal):
                self._settled(LET_OFF, label, code, minor)

    def _settled(self, what: str, label: str, code: str, minor: int) -> None:
        self.book.statements.append(Settled(self.clock.now, what, label, code, self.fraction(minor)))

    # ------------------------------------------------------------ parts

    async def done(self, what: str, work: Awaitable[Answer]) -> Answer | None:
        """The answer, counted; None where it was refused."""
        try:
            answer = await work
        except Refused as refusal:
            if refusal.code in FAULTS:
                raise
            return None
        self.world.count(what)
        return answer

    async def is_agreed(self, proposal: Proposal) -> bool:
        """Mostly; else somebody rejects it, or nobody decides."""
        drawn = self.random.random()
        if drawn < 0.1:
            decision = Decision(ProposalState.REJECTED, APPROVER, self.key(), None)
            await self.done("RejectedProposal", end_proposal(self.database, self.clock, proposal.id, decision))
        return drawn >= 0.2

    async def _approved(self, what: str, proposal: Proposal) -> bool:
        approval = approve_money(self.database, self.clock, proposal.id, self.approval())
        return await self.done(what, approval) is not None

    def approval(self) -> Decision:
        """The second pair of eyes."""
        return Decision(ProposalState.APPROVED, APPROVER, self.key(), None)

    def _partner_with(self, key: str, value: str) -> str | None:
        found = [one["code"] for one in self.world.coalition["partner"] if one["budget"][0].get(key) == value]
        return self.random.choice(found) if found else None

    def id_of(self, code: str) -> int:
        """A partner's id."""
        return self.world.till.id_of(code)

    def key(self) -> str:
        """A key that nobody used."""
        return self.world.key()

    def money(self, minor: int) -> Amount:
        """Minor units as money."""
        return Amount(Decimal(self.world.money(minor)), self.world.till.currency)

    def fraction(self, minor: int) -> Fraction:
        """Minor units as a fraction of the unit."""
        return Fraction(minor, 10**self.world.digits)
