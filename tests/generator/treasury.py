"""Deposits that partners leave with the operator, and statements that they do not pay: the desk's other half."""

from domain.proposals import ProposalReason
from settlement.defaults import DefaultAsk, approve_default, propose_default
from settlement.deposits import NewDeposit, PayoutAsk, approve_payout, propose_payout, record_deposit
from tests.generator.book import DEFAULTED, Deposited, Settled
from tests.generator.desk import PROPOSER, Desk
from tests.generator.events import Makers

FREE = """
    SELECT p.code, a.held_micro::bigint,
           greatest(a.held_micro - greatest(a.required_micro, a.owes_micro), 0)::bigint AS free_micro
      FROM deposit_account AS a JOIN partner AS p ON p.id = a.partner_id WHERE a.held_micro > 0 ORDER BY 1
"""
DUE = """
    SELECT d.label, p.code FROM statement_balance AS b
      JOIN period AS d ON d.id = b.period_id AND d.due_at <= :now JOIN partner AS p ON p.id = b.partner_id
     WHERE b.open_minor < 0 ORDER BY 1, 2
"""

LOST = """
    SELECT d.label, p.code, -b.written_off_minor::bigint FROM statement_balance AS b
      JOIN period AS d ON d.id = b.period_id JOIN partner AS p ON p.id = b.partner_id
     WHERE b.written_off_minor > b.recovered_minor ORDER BY 1, 2
"""
OWING = """
    SELECT m.id, a.owed FROM account AS a JOIN member AS m ON m.account_id = a.id AND m.merged_into IS NULL
     WHERE a.owed > 0 ORDER BY 1
"""


class Treasury:
    """What the desk does with deposits and with debts that nobody pays."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.world = desk.world
        self.random = desk.random

    def makers(self) -> Makers:
        """What may happen."""
        return [(3, self.pay_in), (1, self.pay_out), (3, self.default), (2, self.recover), (2, self.let_off)]

    async def pay_in(self) -> None:
        """Money for a deposit, as the bank booked it some days ago."""
        desk, code, key = self.desk, self.world.partner(), self.desk.key()
        minor, day = self.random.randint(1, 3_000), self.world.today()
        given = NewDeposit(key, desk.id_of(code), desk.money(minor), day, f"bank {key}", "bank-desk")
        if await desk.done("Deposit", record_deposit(desk.database, desk.clock, given)):
            desk.book.deposits.append(Deposited(desk.clock.now, code, desk.fraction(minor)))

    async def pay_out(self) -> None:
        """All that is free of a deposit, or some of it, or too much."""
        desk, held = self.desk, await self.world.till.rows(FREE)
        if not held:
            return
        code, held_micro, free_micro = self.random.choice(held)
        micro = self.random.choice((free_micro, free_micro, free_micro // 2, held_micro))
        minor = micro * 10**self.world.digits // 1_000_000
        ask = PayoutAsk(desk.id_of(code), desk.money(minor), ProposalReason.AGREEMENT, "limit lowered")
        made = await desk.done("Proposal", propose_payout(desk.database, desk.clock, PROPOSER, desk.key(), ask))
        if made and await desk.is_agreed(made.proposal):
            approval = approve_payout(desk.database, desk.clock, made.proposal.id, desk.approval())
            if await desk.done("Payout", approval):
                desk.book.deposits.append(Deposited(desk.clock.now, code, -desk.fraction(minor)))

    async def default(self) -> None:
        """Nobody expects any more that a statement is paid, or any of a partner."""
        desk, due = self.desk, await self.world.till.rows(DUE, now=self.desk.clock.now)
        if due:
            found, code = self.random.choice(due)
            label = self.random.choice((None, found))
            ask = DefaultAsk(desk.id_of(code), label, ProposalReason.UNCOLLECTABLE, "insolvent")
            made = await desk.done("Proposal", propose_default(desk.database, desk.clock, PROPOSER, desk.key(), ask))
            if made and await desk.is_agreed(made.proposal):
                approval = approve_default(desk.database, desk.clock, made.proposal.id, desk.approval())
                if await desk.done("Default" if label else "DefaultOfAll", approval):
                    desk.book.statements.append(Settled(desk.clock.now, DEFAULTED, label or "", code))

    async def recover(self) -> None:
        """Something comes in of what was written off."""
        lost = await self.world.till.rows(LOST)
        if lost:
            await self.desk.pay_some(*self.random.choice(lost))

    async def let_off(self) -> None:
        """Somebody who owes points need not bring them."""
        owing = await self.world.till.rows(OWING)
        if owing:
            member_id, owed = self.random.choice(owing)
            await self.desk.give(self.world.partner(), self.random.choice((owed, max(1, owed // 2))), member_id)
