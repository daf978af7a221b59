"""The life of a point: pending, available, held, spent, returned, expired."""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.model.coalitions import LIVES
from tests.model.driver import Driver, ages, amounts_minor, baskets, cards, partners, parts, recent

lines_minor = st.lists(
    st.tuples(st.sampled_from(("food", "tobacco", None)), st.integers(1, 3), st.integers(0, 15_000)),
    min_size=1,
    max_size=3,
)


class Life(Driver):
    """Purchases, burns, returns and holds, at the till and as history, late, early and again."""

    @initialize(name=st.sampled_from(LIVES), first=st.lists(baskets, min_size=3, max_size=8))
    def open(self, name: str, first: list[tuple[str, str, int, timedelta]]) -> None:
        self.begin(name, [(who, "ada" if card == "cyd" else card, amount, age) for who, card, amount, age in first])

    # ------------------------------------------------------------ purchases and burns

    @rule(partner=partners, card=cards, amount_minor=amounts_minor, part=parts, age=ages)
    def import_history(self, partner: str, card: str, amount_minor: int, part: int, age: timedelta) -> None:
        bought = self.purchase(partner, card, amount_minor, None, age)
        self.send([bought, self.spend(partner, card, part, age / 2), self.part_of(bought, part)], history=True)

    @rule(partner=partners, card=cards, lines=lines_minor, age=ages)
    def earn_by_lines(self, partner: str, card: str, lines: list[tuple[str | None, int, int]], age: timedelta) -> None:
        basket = tuple((f"sku-{number}", *line) for number, line in enumerate(lines))
        self.send([self.purchase(partner, card, sum(line[-1] for line in basket), basket, age)])

    @rule(
        baskets=st.lists(baskets, min_size=2, max_size=6),
        burns=st.lists(st.tuples(partners, cards, parts), max_size=2),
        twice=st.booleans(),
    )
    def earn_many(
        self, baskets: list[tuple[str, str, int, timedelta]], burns: list[tuple[str, str, int]], *, twice: bool
    ) -> None:
        commands = [self.purchase(partner, card, amount, None, age) for partner, card, amount, age in baskets]
        commands += [self.spend(partner, card, part) for partner, card, part in burns]
        if twice:
            commands.append(commands[0])
        self.send(commands)

    @rule(partner=partners, card=cards, more=st.integers(1, 500))
    def burn_too_much(self, partner: str, card: str, more: int) -> None:
        self.send([self.spend(partner, card, 1, more=more)])

    # ------------------------------------------------------------ pending, held, due

    @precondition(lambda self: any(award["open"] and award["waits"] for award in self.auditor.awards))
    @rule(back=recent, age=ages, twice=st.booleans())
    def pay(self, back: int, age: timedelta, *, twice: bool) -> None:
        """Money comes in for one of the last purchases, whether its points wait for it or not."""
        bought = [one for one in self.accepted if one["kind"] == "earn"]
        for _ in range(1 + twice):
            original = bought[-1 - back % len(bought)]
            self.send([self.command("pay", original["partner"], None, self.now - age, original=original["key"])])

    @rule(partner=partners, card=cards, part=parts, age=ages)
    def authorize(self, partner: str, card: str, part: int, age: timedelta) -> None:
        self.send([self.spend(partner, card, part, age, kind="authorize")])

    @precondition(lambda self: self.authorized)
    @rule(back=st.integers(0, 4), part=st.one_of(st.none(), st.just(0), parts), more=st.sampled_from((0, 0, 0, 1)))
    def capture(self, back: int, part: int | None, more: int) -> None:
        """All of it, none of it, or a part; now and then too much."""
        held = self.authorized[-1 - back % len(self.authorized)]["command"]
        points = part and max(held["points"] // part + more, 1)
        self.send([self.command("capture", held["partner"], None, self.now, original=held["key"], points=points)])

    @precondition(lambda self: self.authorized)
    @rule(back=st.integers(0, 4), age=ages)
    def void(self, back: int, age: timedelta) -> None:
        held = self.authorized[-1 - back % len(self.authorized)]["command"]
        self.send([self.command("void", held["partner"], None, self.now - age, original=held["key"])])

    @rule(
        partner=partners, card=cards, parts=st.tuples(parts, parts, parts), late=st.integers(0, 3),
        bought=st.lists(st.tuples(partners, st.integers(0, 12)), max_size=3), new_price=st.booleans(),
    )  # fmt: skip
    def hold_and_resolve(
        self, partner: str, card: str, parts: tuple[int, int, int], late: int, bought: list[tuple[str, int]], *,
        new_price: bool,
    ) -> None:  # fmt: skip
        """What is set aside, of several purchases, is captured in part, perhaps at another price than it was or after
        its time, and refunded, all of it or some.
        """
        age = timedelta(0)
        if new_price:
            changes = self.auditor.days.midnight(self.auditor.partners["grocer"]["terms"][-1]["from"])
            partner, self.now = "grocer", max(self.now, changes - timedelta(hours=1))
            age = self.now - changes + timedelta(hours=1)
        for seller, days in bought:
            self.stock(seller, card, 9_000, days)
        held = self.spend(partner, card, parts[0], age, kind="authorize")
        self.send([held])
        self.now += timedelta(hours=20 * late + new_price)
        points = max(held["points"] // parts[1], 1)
        captured = self.command("capture", partner, None, self.now, original=held["key"], points=points)
        self.send([captured, self.part_of(captured, parts[2])])

    @property
    def authorized(self) -> list[dict[str, Any]]:
        return [record for record in self.auditor.done.values() if record["kind"] == "authorize"]

    # ------------------------------------------------------------ taking back

    @precondition(lambda self: self.accepted)
    @rule(back=recent, part=parts, age=ages, history=st.booleans())
    def reverse_part(self, back: int, part: int, age: timedelta, *, history: bool) -> None:
        """By amount or by points; with 1, as much as the original had, which is too much the second time."""
        original = self.accepted[-1 - back % len(self.accepted)]
        self.send([self.part_of(original, part, age)], history=history)

    @precondition(lambda self: self.accepted)
    @rule(back=recent, card=cards, partner=partners, part=parts, refund=parts, two=st.tuples(parts, parts))
    def reverse_many(self, back: int, card: str, partner: str, part: int, refund: int, two: tuple[int, int]) -> None:
        """In one batch: a burn, some of it refunded, and a purchase or burn reversed twice, its points spent or not."""
        original, burn = self.accepted[-1 - back % len(self.accepted)], self.spend(partner, card, part)
        reversals = [self.part_of(burn, refund), *(self.part_of(original, one) for one in two)]
        self.send([burn, *reversals])

    @precondition(lambda self: any(one.get("lines") for one in self.accepted))
    @rule(back=recent, part=parts, quantities=st.lists(st.integers(0, 2), min_size=1, max_size=3))
    def reverse_lines(self, back: int, part: int, quantities: list[int]) -> None:
        with_lines = [one for one in self.accepted if one.get("lines")]
        original = with_lines[-1 - back % len(with_lines)]
        lines = tuple(
            (sku, category, quantity, minor // part)
            for (sku, category, _, minor), quantity in zip(original["lines"], quantities, strict=False)
        )
        self.send([self.reversal(original, timedelta(0), lines=lines)])

    @precondition(lambda self: self.asked)
    @rule(back=recent, age=ages)
    def reverse_whole(self, back: int, age: timedelta) -> None:
        self.send([self.reversal(self.asked[-1 - back % len(self.asked)], age)])

    @rule(
        partner=partners, card=cards, amount_minor=amounts_minor, part=parts, late=st.sampled_from((0, 0, 1, 60)),
        again=st.booleans(), burns=st.booleans(), at_once=st.booleans(),
    )  # fmt: skip
    def overtake(
        self, partner: str, card: str, amount_minor: int, part: int, late: int, *, again: bool, burns: bool,
        at_once: bool,
    ) -> None:  # fmt: skip
        """A reversal arrives before what it reverses, and waits for it: some days, or too long."""
        original = (
            self.spend(partner, card, 2) if burns else self.purchase(partner, card, amount_minor, None, timedelta(0))
        )
        early = self.part_of(original, part) | {"awaits": True}
        if at_once:
            self.send([early, original, early] if again else [early, original])
            return
        self.send([early, early] if again else [early])
        self.now += timedelta(days=late)
        self.send([original])
        if again:
            self.send([early])

    @rule(
        partner=partners, card=cards, part=parts, days=st.integers(1, 12), seconds=st.sampled_from((-1, 0, 1)),
        again=st.booleans(),
    )  # fmt: skip
    def overtake_by_far(self, partner: str, card: str, part: int, days: int, seconds: int, *, again: bool) -> None:
        """A reversal waits as long as it may, counted from when it happened, and then its original comes."""
        waits = timedelta(days=self.auditor.programme["max_backdate_days"])
        original = self.purchase(partner, card, 5_000, None, timedelta(0))
        early = self.part_of(original, part, waits - timedelta(days=days)) | {"awaits": True}
        self.send([early])
        self.now = early["at"] + waits + timedelta(seconds=seconds)
        self.send([original | {"at": self.now}])
        if again:
            self.send([early])

    @precondition(lambda self: self.auditor.done)
    @rule(back=recent, how=st.sampled_from(("same", "later", "new key")))
    def replay(self, back: int, how: str) -> None:
        """The same again, with other input, or under another key."""
        before = [record["command"] for record in self.auditor.done.values()]
        command = dict(before[-1 - back % len(before)])
        if how == "later" and command["at"] is not None:
            command["at"] -= timedelta(seconds=1)
        if how == "new key":
            command["key"] = f"key-{next(self.keys)}"
        self.send([command])

    # ------------------------------------------------------------ time

    @rule(seller=partners, partner=partners, card=cards, days=st.tuples(st.integers(0, 25), st.integers(0, 25)),
          part=parts)  # fmt: skip
    def use_late(self, seller: str, partner: str, card: str, days: tuple[int, int], part: int) -> None:
        """Points are bought and used, and both reach the till's queue days later: they live on from the use."""
        self.stock(seller, card, 6_000, max(days))
        self.send([self.spend(partner, card, part, timedelta(days=min(days)))])

    @rule(card=cards, partner=partners, amount_minor=amounts_minor, part=parts, seller=st.none() | partners)
    def wait_for_expiry(self, card: str, partner: str, amount_minor: int, part: int, seller: str | None) -> None:
        """The next lot of the member goes past: a refund into it, and the next burn, find it so."""
        if seller is not None:
            self.stock(seller, card, 7_000)
        burn = self.spend(partner, card, 3)
        self.send([burn])
        ends = [lot["until"] for lot in self.auditor.lots if lot["account"] == card and lot["left"]]
        self.now = max(self.now, min(ends, default=self.now))
        self.send([self.part_of(burn, part)])
        self.send([self.purchase(partner, card, amount_minor, None, timedelta(0))])
        self.send([self.spend(partner, card, part)])
