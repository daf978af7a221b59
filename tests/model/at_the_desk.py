"""Asking the product and the auditor's desk alike: what the operator's people do, and what both must answer."""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from domain.adjusting import adjust_command, propose_points
from domain.commands import Outcome, Refusal
from domain.errors import Refused
from domain.positions import LineKind
from domain.proposals import Content, Decision, Proposal, ProposalKind, ProposalReason, ProposalState, Step
from domain.proposing import end_proposal
from partners.overdrafts import OverdraftAsk, approve_overdraft, propose_overdraft
from settlement.adjustments import AdjustmentAsk, WriteOffAsk, approve_money, propose_adjustment, propose_write_off
from settlement.disputed import DisputeReason
from settlement.disputes import DisputeAsk, OutcomeAsk, open_dispute, propose_outcome, withdraw_dispute
from settlement.payments import NewPayment, record_payment
from settlement.top_ups import TopUp, top_up_budget
from tests.model.books import books_of_auditor
from tests.model.desk import Desk
from tests.model.desk_books import desk_of_auditor, desk_of_product
from tests.model.driver import Driver
from tests.model.ledger import Dict, No
from tests.model.translating import as_auditor, money

T = TypeVar("T")
ONE, OTHER = "client-1", "client-2"
"""Who proposes, and who else may decide."""


class AtTheDesk(Driver):
    """A driver with a desk. Each step answers what the auditor says of it, and None where both refused."""

    desk: Desk

    def __init__(self) -> None:
        super().__init__()
        self.proposals: list[Proposal] = []
        self.dispute_ids: list[int] = []

    # ------------------------------------------------------------ what must agree

    async def books(self, members: list[str]) -> Dict:
        books = await super().books(members)
        return books | await desk_of_product(self.reader, self.database, self.codes, self.now)

    def expected_books(self) -> Dict:
        return books_of_auditor(self.auditor, self.now) | desk_of_auditor(self.desk, self.now)

    def both(self, expected: Callable[[], T], work: Coroutine[Any, Any, Any]) -> tuple[T, Any] | None:
        """What each of them answers; None where both refused alike."""
        answer: T | str
        try:
            answer = expected()
        except No as refusal:
            answer = str(refusal)
        try:
            product, refused = self.run(work), None
        except Refused as refusal:
            product, refused = None, str(refusal.code)
        assert refused == (answer if isinstance(answer, str) else None), (answer, refused)
        return None if isinstance(answer, str) else (answer, product)

    def key(self) -> str:
        return f"key-{next(self.keys)}"

    # ------------------------------------------------------------ floats and payments

    def top_up(self, partner: str, minor: int, age: timedelta, key: str | None = None) -> None:
        """Money came in that long ago; under a key that was used before, nothing changes."""
        paid = TopUp(key or self.key(), self.ids[partner], money(minor), self.now - age)
        expected = (lambda: None) if key else lambda: self.desk.top_up(partner, minor, self.now - age, self.now)
        done = self.both(expected, top_up_budget(self.database, self.clock, paid))
        assert done is None or done[1].replayed == (key is not None)
        if key is None and done is not None:
            self.top_up(partner, minor, age, paid.key)

    def pay(self, label: str, partner: str, minor: int) -> None:
        key, today = self.key(), self.auditor.days.day(self.now)
        paid = NewPayment(key, self.ids[partner], label, money(minor), today, f"bank {key}", "desk")

        def expected() -> None:
            self.desk.statements.balance(label, partner)
            self.desk.statements.pay(label, partner, minor)

        self.both(expected, record_payment(self.database, self.clock, paid))

    def pay_open(self, label: str, partner: str, over: int) -> None:
        left = self.desk.statements.left(label, partner) + over
        if left:
            self.pay(label, partner, left)

    # ------------------------------------------------------------ disputes

    def dispute(self, ask: Dict) -> int | None:
        """Its number."""
        commands = None
        if ask["commands"] is not None:
            commands = tuple(self.command_id(*key) for key in ask["commands"])
        asked = DisputeAsk(
            self.ids[ask["partner"]], ask["by_operator"], ask["label"], LineKind(ask["kind"]), commands,
            None if ask["minor"] is None else money(ask["minor"]), DisputeReason.OTHER, "we did not",
        )  # fmt: skip
        done = self.both(
            lambda: self.desk.statements.dispute(ask, self.now),
            open_dispute(self.database, self.clock, "till-1", self.key(), asked),
        )
        if done is None:
            return None
        self.dispute_ids.append(done[1].dispute.id)
        return done[0]

    def member_id(self, card: str) -> int:
        sql = "SELECT member_id FROM member_identifier WHERE kind = 'card' AND value = :card"
        [(member_id,)] = self.rows(sql, card=card)
        return int(member_id)

    def command_id(self, partner: str, key: str) -> int:
        sql = "SELECT id FROM command WHERE partner_id = :partner AND idempotency_key = :key"
        [(command_id,)] = self.rows(sql, partner=self.ids[partner], key=key)
        return int(command_id)

    def withdraw_dispute(self, number: int) -> None:
        partner = self.ids[self.desk.statements.disputes[number]["partner"]]
        work = withdraw_dispute(self.database, self.clock, partner, self.key(), self.dispute_ids[number])
        self.both(lambda: self.desk.statements.withdraw(number), work)

    # ------------------------------------------------------------ four eyes

    def propose(self, kind: str, partner: str | None, minor: int | None, client: str, **rest: Any) -> int | None:
        """The number of the proposal."""
        ask = {"label": None, "line": None, "until": None} | rest
        ask |= {"kind": kind, "partner": partner, "minor": minor, "client": client}
        done = self.both(lambda: self.desk.propose(ask, self.now), self._proposed(ask))
        if done is None:
            return None
        self.proposals.append(done[1].proposal)
        return done[0]

    async def _proposed(self, ask: Dict) -> Step:
        by, key, reason, why = ask["client"], self.key(), ProposalReason.AGREEMENT, "agreed by letter"
        who = None if ask["partner"] is None else self.ids[ask["partner"]]
        amount = None if ask["minor"] is None else money(ask["minor"])
        if ask["kind"] == "POINTS":
            assert who is not None
            content = Content(ProposalKind.POINTS, who, reason, why, points=ask["points"], member_id=ask["member_id"])
            return await propose_points(self.database, self.clock, by, key, content)
        if ask["kind"] == "DISPUTE":
            outcome = OutcomeAsk(self.dispute_ids[ask["dispute"]], ask["accepts"], amount, why)
            return await propose_outcome(self.database, self.clock, by, key, outcome)
        assert amount is not None
        if ask["kind"] == "OVERDRAFT":
            overdraft = OverdraftAsk(who, amount, reason, why, ask["label"], ask["until"])
            return await propose_overdraft(self.database, self.clock, by, key, overdraft)
        if ask["kind"] == "WRITE_OFF":
            write_off = WriteOffAsk(who, amount, reason, why, ask["label"])
            return await propose_write_off(self.database, self.clock, by, key, write_off)
        line = None if ask["line"] is None else LineKind(ask["line"])
        adjustment = AdjustmentAsk(who, amount, reason, why, ask["label"], line)
        return await propose_adjustment(self.database, self.clock, by, key, adjustment)

    def decide(self, number: int, state: str, client: str, key: str | None = None) -> None:
        """Approves, rejects or withdraws a proposal."""
        key = key or self.key()
        decision = Decision(ProposalState(state), client, key, None)
        kind = self.desk.proposals[number]["kind"]
        done = self.both(
            lambda: self.desk.decide(number, (state, client, key), self.now), self._decided(number, decision)
        )
        if done is not None and (kind, state) == ("POINTS", "APPROVED"):
            assert done[0] == as_auditor(done[1], self.codes, self.auditor.days)

    async def _decided(self, number: int, decision: Decision) -> Step | Outcome:
        proposal = self.proposals[number]
        if decision.state != ProposalState.APPROVED:
            return await end_proposal(self.database, self.clock, proposal.id, decision)
        if proposal.content.kind == ProposalKind.OVERDRAFT:
            return await approve_overdraft(self.database, self.clock, proposal.id, decision)
        if proposal.content.kind == ProposalKind.POINTS:
            outcome = await self.queues[False].post(adjust_command(proposal, decision, self.clock))
            if isinstance(outcome, Refusal):
                raise Refused(outcome.code, outcome.message)
            return outcome
        return await approve_money(self.database, self.clock, proposal.id, decision)

    def agree(self, kind: str, partner: str | None, minor: int | None, how: str, **rest: Any) -> int | None:
        """One proposes; then the other agrees, or not, or tries what it may not."""
        number = self.propose(kind, partner, minor, ONE, **rest)
        if number is not None and how != "later":
            state, client = {
                "own": ("APPROVED", ONE), "rejected": ("REJECTED", OTHER), "withdrawn": ("WITHDRAWN", ONE),
            }.get(how, ("APPROVED", OTHER))  # fmt: skip
            key = self.key()
            for _ in range(1 + (how == "twice")):
                self.decide(number, state, client, key)
        return number

    @property
    def lines(self) -> list[tuple[str, str, str, int]]:
        """Of closed statements: period, partner, kind, cents."""
        return [
            (label, *key, figures[-1])
            for label, closed in self.auditor.closed.items()
            for key, figures in sorted(closed["lines"].items())
        ]

    @property
    def statements(self) -> list[tuple[str, str]]:
        """Period and partner of closed ones."""
        return [(label, partner) for label, closed in self.auditor.closed.items() for partner in sorted(closed["nets"])]
