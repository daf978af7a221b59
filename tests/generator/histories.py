"""Random histories: what tills do over some months at a random coalition."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
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
from tests.generator.events import Makers, World


class Tills:
    """Draws one command after the other; what was accepted may be reversed later."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.random
        self.till = world.till
        self.reversible: list[tuple[str, str, bool]] = []
        """(partner, key, whether it is a purchase)"""
        self.cards: dict[str, str] = {}
        """By a purchase's key, whose it was."""
        self.held: list[tuple[str, str, int]] = []
        """(partner, key, points)"""
        self.delayed: list[Command] = []
        """What was done already and will be sent after its reversal."""

    def makers(self) -> Makers:
        """What may happen."""
        return [
            (16, self.purchase),
            (4, self.purchases),
            (8, self.burn),
            (3, self.burns),
            (6, self.give_back),
            (2, self.give_all_back),
            (2, self.late_purchase),
            (2, self.overtaken),
            (3, self.catch_up),
            (2, self.transfer),
            (4, self.money_received),
            (6, self.authorize),
            (8, self.resolve),
            (2, self.sweep),
            (3, self.spend_and_return),
        ]

    # ------------------------------------------------------------ what happens

    async def purchase(self) -> None:
        await self.send(self._purchase(timedelta(0)))

    async def late_purchase(self) -> None:
        await self.send(self._purchase(timedelta(hours=self.random.randint(1, 40 * 24))))

    async def purchases(self) -> None:
        await self.send(*[self._purchase(timedelta(0)) for _ in range(self.random.randint(2, 6))])

    async def burn(self) -> None:
        await self.send(await self._burn())

    async def burns(self) -> None:
        """What a till sends that was offline: the later ones may find too little left."""
        await self.send(*[await self._burn() for _ in range(self.random.randint(2, 5))])

    async def give_back(self) -> None:
        """A part of what a purchase or a burn was, or all that is left of it."""
        if self.reversible:
            await self.world.post(self._reversal())

    async def give_all_back(self) -> None:
        """Several returns and refunds at once, perhaps of the same."""
        if self.reversible:
            await self.world.post_many([self._reversal() for _ in range(self.random.randint(2, 5))])

    async def overtaken(self) -> None:
        """A return or refund arrives before what it reverses."""
        age = timedelta(minutes=self.random.randint(1, 600))
        is_purchase = self.random.random() < 0.6
        original = self._purchase(age) if is_purchase else await self._burn(age)
        self.delayed.append(original)
        partner = self._code_of(original.partner_id)
        part: dict[str, Any] = {} if self.random.random() < 0.5 else self._part(is_purchase=is_purchase)
        await self.world.post(self.till.reversal(self.key(), original.key, partner=partner, awaits=True, **part))

    async def catch_up(self) -> None:
        """One of those that were overtaken arrives, alone or among others."""
        if self.delayed:
            late = self.delayed.pop(self.random.randrange(len(self.delayed)))
            others = [self._purchase(timedelta(0))] if self.random.random() < 0.5 else []
            await self.send(*others, late)

    async def spend_and_return(self) -> None:
        """All of a member's points are spent, and then goods come back that gave some of them."""
        bought = [one for one in self.reversible[-60:] if one[2]]
        if bought:
            partner, key, _ = self.random.choice(bought)
            card = self.cards[key]
            spent = await self.till.available(card)
            if spent:
                await self.send(self.till.burn(self.key(), spent, card=card, partner=self.world.partner()))
            await self.world.post(self.till.reversal(self.key(), key, partner=partner))

    async def try_all(self, partner: str) -> None:
        """Everything that a till does, at one whose partner may not take part any more."""
        for _, key, _ in [one for one in self.held if one[0] == partner][-1:]:
            await self.send(self.till.capture(self.key(), key, 1, partner=partner))
        await self.send(self._purchase(timedelta(0), partner))
        await self.send(await self._burn(timedelta(0), partner))
        await self.authorize(partner)

    async def authorize(self, at: str | None = None) -> None:
        """Some of a member's points are set aside."""
        partner, card = at or self.world.partner(), self.world.card()
        points, key = max(1, await self.till.available(card) // self.random.choice((2, 3, 7))), self.key()
        member, now = MemberRef(identifier=("card", card)), self.till.clock.now
        held = await self.world.post(Authorize(self.till.id_of(partner), key, member, points, now, key))
        if isinstance(held, Posted):
            self.held.append((partner, key, points))

    async def resolve(self) -> None:
        """A hold is captured, in full or in part, or called off; perhaps one that was resolved before."""
        if not self.held:
            return
        partner, original, held = self.random.choice(self.held[-8:])
        partner_id, key, now = self.till.id_of(partner), self.key(), self.till.clock.now
        by_key = OriginalRef(key=original)
        if self.random.random() < 0.3:
            await self.world.post(Void(partner_id, key, by_key, now))
            return
        points = self.random.choice((None, self.random.randint(1, held)))
        await self.send(Capture(partner_id, key, by_key, now, points))

    async def transfer(self) -> None:
        """Some of a member's points, to another one."""
        source, target = self.random.sample(self.world.cards, 2)
        points = max(1, await self.till.available(source) // self.random.choice((1, 2, 5)))
        giver, receiver = MemberRef(identifier=("card", source)), MemberRef(identifier=("card", target))
        now = self.till.clock.now
        await self.world.post(Transfer(OPERATOR_ID, self.key(), giver, receiver, points, now))

    async def money_received(self) -> None:
        """For a purchase, perhaps of a partner whose points wait for that."""
        purchases = [one for one in self.reversible[-40:] if one[2]]
        if purchases:
            partner, original, _ = self.random.choice(purchases)
            by_key, now = OriginalRef(key=original), self.till.clock.now
            await self.world.post(ConfirmPayment(self.till.id_of(partner), self.key(), by_key, now))

    async def sweep(self) -> None:
        """Of every account, as the worker does."""
        accounts = await self.till.rows("SELECT id FROM account ORDER BY id")
        await self.world.post_many([Sweep(account_id) for (account_id,) in accounts])

    # ------------------------------------------------------------ parts

    def _purchase(self, age: timedelta, at: str | None = None) -> Command:
        key, partner, moment = self.key(), at or self.world.partner(), self.till.clock.now - age
        self.cards[key] = self.world.card()
        return self.till.purchase(key, self.world.amount(300), card=self.cards[key], partner=partner, at=moment)

    async def _burn(self, age: timedelta = timedelta(0), at: str | None = None) -> Command:
        partner, card = at or self.world.partner(), self.world.card()
        points = max(1, await self.till.available(card) // self.random.choice((1, 2, 3, 7)))
        return self.till.burn(self.key(), points, card=card, partner=partner, at=self.till.clock.now - age)

    def _reversal(self) -> Command:
        partner, original, is_purchase = self.random.choice(self.reversible[-120:])
        part: dict[str, Any] = {} if self.random.random() < 0.4 else self._part(is_purchase=is_purchase)
        return self.till.reversal(self.key(), original, partner=partner, **part)

    def _part(self, *, is_purchase: bool) -> dict[str, Any]:
        return {"amount": self.world.amount(40)} if is_purchase else {"points": self.random.randint(1, 30)}

    async def send(self, *commands: Command) -> None:
        """Purchases, burns and captures, which may be reversed when they were accepted."""
        for command, outcome in zip(commands, await self.world.post_many([*commands]), strict=True):
            self._note(command, outcome)

    def _note(self, command: Command, outcome: Outcome) -> None:
        if isinstance(outcome, Posted):
            is_purchase = outcome.command.kind == "EARN"
            self.reversible.append((self._code_of(command.partner_id), command.key, is_purchase))

    def _code_of(self, partner_id: int) -> str:
        [code] = [code for code in self.world.partners if self.till.id_of(code) == partner_id]
        return code

    def key(self) -> str:
        """A key that nobody used."""
        return self.world.key()


async def live(
    world: World, makers: Makers, days: int, events_a_day: int, at_last: Callable[[], Awaitable[None]] | None = None
) -> None:
    """So many days of so many events; ``at_last`` is what may happen at the last instant of a period instead."""
    weights = [weight for weight, _ in makers]
    for _ in range(days * events_a_day):
        is_last = world.wait(2 * 24 * 60 // events_a_day)
        [(_, make)] = world.random.choices(makers, weights)
        if at_last is not None and is_last and world.random.random() < 0.6:
            make = at_last
        if world.alarms and world.alarms[0][0] == world.till.clock.now:
            _, make = world.alarms.pop(0)
        await make()
