"""Random histories: what tills do over some months at a random coalition."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random  # noqa: TID251 (seeded: invented data)
from typing import Any

from domain.commands import (
    Authorize,
    Capture,
    Command,
    ConfirmPayment,
    MemberRef,
    OriginalRef,
    Outcome,
    Posted,
    Sweep,
    Transfer,
    Void,
)
from domain.values import OPERATOR_ID
from tests.domain.tills import Till
from tests.generator.coalitions import DIGITS

CARDS = ("card-1", "card-2", "card-3", "card-4")


class Historian:
    """Draws one command after the other; what was accepted may be reversed later."""

    def __init__(self, random: Random, coalition: dict[str, Any], till: Till) -> None:
        self.random = random
        self.till = till
        self.partners = [partner["code"] for partner in coalition["partner"]]
        self.digits = DIGITS[coalition["programme"]["currency"]]
        self.reversible: list[tuple[str, str, bool]] = []
        """(partner, key, whether it is a purchase)"""
        self.held: list[tuple[str, str, int]] = []
        """(partner, key, points)"""
        self.number = 0
        self.makers: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (8, self.purchase),
            (2, self.purchases),
            (5, self.burn),
            (3, self.give_back),
            (1, self.late_purchase),
            (1, self.transfer),
            (2, self.money_received),
            (3, self.authorize),
            (4, self.resolve),
            (1, self.sweep),
        ]

    async def live(self, days: int, events_a_day: int) -> None:
        """So many days of so many events."""
        weights = [weight for weight, _ in self.makers]
        for _ in range(days * events_a_day):
            self.till.clock.now += timedelta(minutes=self.random.randint(1, 2 * 24 * 60 // events_a_day))
            [(_, make)] = self.random.choices(self.makers, weights)
            await make()

    # ------------------------------------------------------------ what happens

    async def purchase(self) -> None:
        await self.send(self._purchase(timedelta(0)), is_purchase=True)

    async def late_purchase(self) -> None:
        await self.send(self._purchase(timedelta(hours=self.random.randint(1, 40 * 24))), is_purchase=True)

    async def purchases(self) -> None:
        commands = [self._purchase(timedelta(0)) for _ in range(self.random.randint(2, 6))]
        for command, outcome in zip(commands, await self.till.queue.post_many(commands), strict=True):
            self.note(command, outcome, is_purchase=True)

    async def burn(self) -> None:
        partner, card = self.random.choice(self.partners), self.random.choice(CARDS)
        available = await self.till.available(card)
        points = max(1, available // self.random.choice((1, 2, 3, 7)))
        await self.send(self.till.burn(self.key(), points, card=card, partner=partner), is_purchase=False)

    async def give_back(self) -> None:
        """A part of what a purchase or a burn was, or all that is left of it."""
        if not self.reversible:
            return
        partner, original, is_purchase = self.random.choice(self.reversible[-60:])
        whole = self.random.random() < 0.4
        ask = {} if whole else {"amount": self.amount(40)} if is_purchase else {"points": self.random.randint(1, 30)}
        await self.till.queue.post(self.till.reversal(self.key(), original, partner=partner, **ask))

    async def authorize(self) -> None:
        """Some of a member's points are set aside."""
        partner, card = self.random.choice(self.partners), self.random.choice(CARDS)
        points, key = max(1, await self.till.available(card) // self.random.choice((2, 3, 7))), self.key()
        member, now = MemberRef(identifier=("card", card)), self.till.clock.now
        held = await self.till.queue.post(Authorize(self.till.id_of(partner), key, member, points, now, key))
        if isinstance(held, Posted):
            self.held.append((partner, key, points))

    async def resolve(self) -> None:
        """A hold is captured, in full or in part, or called off; perhaps one that was resolved before."""
        if not self.held:
            return
        partner, original, held = self.random.choice(self.held[-8:])
        partner_id, key, by_key, now = (
            self.till.id_of(partner),
            self.key(),
            OriginalRef(key=original),
            self.till.clock.now,
        )
        if self.random.random() < 0.3:
            await self.till.queue.post(Void(partner_id, key, by_key, now))
            return
        points = self.random.choice((None, self.random.randint(1, held)))
        await self.send(Capture(partner_id, key, by_key, now, points), is_purchase=False)

    async def transfer(self) -> None:
        """Some of a member's points, to another one."""
        source, target = self.random.sample(CARDS, 2)
        points = max(1, await self.till.available(source) // self.random.choice((1, 2, 5)))
        giver, receiver = MemberRef(identifier=("card", source)), MemberRef(identifier=("card", target))
        now = self.till.clock.now
        await self.till.queue.post(Transfer(OPERATOR_ID, self.key(), giver, receiver, points, now))

    async def money_received(self) -> None:
        """For a purchase, perhaps of a partner whose points wait for that."""
        purchases = [one for one in self.reversible[-40:] if one[2]]
        if purchases:
            partner, original, _ = self.random.choice(purchases)
            by_key, now = OriginalRef(key=original), self.till.clock.now
            await self.till.queue.post(ConfirmPayment(self.till.id_of(partner), self.key(), by_key, now))

    async def sweep(self) -> None:
        """Of every account, as the worker does."""
        accounts = await self.till.rows("SELECT id FROM account ORDER BY id")
        await self.till.queue.post_many([Sweep(account_id) for (account_id,) in accounts])

    # ------------------------------------------------------------ parts

    def _purchase(self, age: timedelta) -> Command:
        return self.till.purchase(
            self.key(),
            self.amount(300),
            card=self.random.choice(CARDS),
            partner=self.random.choice(self.partners),
            at=self.till.clock.now - age,
        )

    async def send(self, command: Command, *, is_purchase: bool) -> None:
        self.note(command, await self.till.queue.post(command), is_purchase=is_purchase)

    def note(self, command: Command, outcome: Outcome, *, is_purchase: bool) -> None:
        if isinstance(outcome, Posted):
            codes = {partner_id: code for code, partner_id in self._ids().items()}
            self.reversible.append((codes[command.partner_id], command.key, is_purchase))

    def _ids(self) -> dict[str, int]:
        return {code: self.till.id_of(code) for code in self.partners}

    def key(self) -> str:
        self.number += 1
        return f"key-{self.number}"

    def amount(self, units_max: int) -> str:
        minor = self.random.randint(0, units_max * 10**self.digits)
        return f"{minor / 10**self.digits:.{self.digits}f}"
