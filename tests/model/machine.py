"""The machine: draws what tills and the operator do, and asks the product and the auditor alike."""

import asyncio
import sys
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import URL

from domain.commands import (
    Amount,
    BasketLine,
    Burn,
    Command,
    Earn,
    Enroll,
    Enrolled,
    MemberRef,
    OriginalRef,
    Outcome,
    Posted,
    Refusal,
    Reverse,
)
from domain.database import Database, DatabaseUrls
from domain.errors import Refused
from domain.queue import PostingQueue
from domain.terms import ConfigurationCache, load_configuration
from settlement.closing import close_period
from settlement.verifying import verify
from tests.conftest import run_as_superuser
from tests.domain.books import check_books
from tests.model.auditor import Auditor
from tests.model.books import books_of_auditor, books_of_product, documents_of_product
from tests.model.coalitions import COALITIONS, PARTNERS

START = datetime(2017, 2, 20, 9, tzinfo=UTC)
CARDS = ("ada", "ben", "cyd")
VERIFY_EVERY = 10
_numbers = count()

cards = st.sampled_from(CARDS)
partners = st.sampled_from(PARTNERS)
amounts_minor = st.one_of(st.integers(0, 40_000), st.integers(1, 300).map(lambda units: units * 100))
ages = st.one_of(
    st.just(timedelta(0)),
    *(st.integers(0, days * 24).map(lambda hours: timedelta(hours=hours)) for days in (1, 25, 80)),
)
lines_minor = st.lists(
    st.tuples(st.sampled_from(("food", "tobacco", None)), st.integers(1, 3), st.integers(0, 15_000)),
    min_size=1,
    max_size=3,
)
parts = st.sampled_from((1, 2, 3, 4, 5, 7))
recent = st.one_of(st.integers(0, 3), st.integers(0, 60))


class Machine(RuleBasedStateMachine):
    """One example: a database of its own, a clock that only goes forward, and two queues (tills, import)."""

    server: ClassVar[URL]
    templates: ClassVar[dict[str, str]]
    """Per coalition the database to clone."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = START
        self.keys = count()
        self.steps = 0
        self.documents: dict[tuple[int, int], bytes] = {}
        self.asked: list[dict[str, Any]] = []
        self.database: Database | None = None

    @initialize(
        name=st.sampled_from(tuple(COALITIONS)),
        baskets=st.lists(st.tuples(partners, st.sampled_from(CARDS[:2]), amounts_minor, ages), min_size=3, max_size=8),
    )
    def open(self, name: str, baskets: list[tuple[str, str, int, timedelta]]) -> None:
        self.database_name = f"coalition_model_{next(_numbers)}_{self.templates[name]}"
        create = f"CREATE DATABASE {self.database_name} TEMPLATE {self.templates[name]} STRATEGY file_copy"
        self.runner.run(run_as_superuser(self.server, create))
        url = self.server.set(database=self.database_name)
        self.database = Database(DatabaseUrls(url, url, url))
        self.auditor = Auditor(tomllib.loads(COALITIONS[name]))
        self.runner.run(self._start())
        self.enroll("ada", "grocer")
        self.enroll("ben", "fuel")
        self.earn_many(baskets, [], twice=False)

    async def _start(self) -> None:
        assert self.database is not None
        async with self.database.posting() as connection:
            configuration = await load_configuration(connection)
        assert configuration is not None
        self.ids = {code: partner.id for code, partner in configuration.partners_by_code.items()}
        self.codes = {0: "operator"} | {number: code for code, number in self.ids.items()}
        self.queues = {
            history: PostingQueue(self.database, ConfigurationCache(self.database), self.clock, is_history=history)
            for history in (False, True)
        }
        for queue in self.queues.values():
            queue.start()

    def teardown(self) -> None:
        if self.database is not None:
            try:
                if sys.exc_info()[0] is None:  # else the failure of a step is the news
                    self.close_all()
                    self.verified()
            finally:
                self.runner.run(self._stop())
        self.runner.close()

    async def _stop(self) -> None:
        assert self.database is not None
        for queue in self.queues.values():
            await queue.stop()
        await self.database.dispose()
        await run_as_superuser(self.server, f"DROP DATABASE {self.database_name} WITH (FORCE)")

    def clock(self) -> datetime:
        return self.now

    # ------------------------------------------------------------ what tills do

    @rule(card=cards, partner=partners)
    def enroll(self, card: str, partner: str) -> None:
        key = f"enrol-{next(self.keys)}"
        outcome = self.runner.run(self.queues[False].post(Enroll(self.ids[partner], key, card, None, None)))
        assert isinstance(outcome, Enrolled), outcome
        assert (outcome.created, outcome.replayed) == (self.auditor.enroll(card, self.now), False)

    @rule(partner=partners, card=cards, amount_minor=amounts_minor, age=ages, history=st.booleans())
    def earn(self, partner: str, card: str, amount_minor: int, age: timedelta, *, history: bool) -> None:
        self.send([self.purchase(partner, card, amount_minor, None, age)], history=history)

    @rule(partner=partners, card=cards, lines=lines_minor, age=ages)
    def earn_by_lines(self, partner: str, card: str, lines: list[tuple[str | None, int, int]], age: timedelta) -> None:
        basket = tuple((f"sku-{number}", *line) for number, line in enumerate(lines))
        self.send([self.purchase(partner, card, sum(line[-1] for line in basket), basket, age)])

    @rule(
        baskets=st.lists(st.tuples(partners, cards, amounts_minor, ages), min_size=2, max_size=6),
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

    @rule(partner=partners, card=cards, part=parts, history=st.booleans(), age=ages)
    def burn(self, partner: str, card: str, part: int, age: timedelta, *, history: bool) -> None:
        """A part of the balance, and with 1 all of it."""
        self.send([self.spend(partner, card, part, age)], history=history)

    @rule(partner=partners, card=cards, more=st.integers(1, 500))
    def burn_too_much(self, partner: str, card: str, more: int) -> None:
        self.send([self.spend(partner, card, 1, more=more)])

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

    @precondition(lambda self: self.auditor.done)
    @rule(back=recent, how=st.sampled_from(("same", "later", "new key")))
    def replay(self, back: int, how: str) -> None:
        """The same again, with other input, or under another key."""
        before = [record["command"] for record in self.auditor.done.values()]
        command = dict(before[-1 - back % len(before)])
        if how == "later":
            command["at"] -= timedelta(seconds=1)
        if how == "new key":
            command["key"] = f"key-{next(self.keys)}"
        self.send([command])

    # ------------------------------------------------------------ time, and what the operator does

    @rule(hours=st.one_of(st.integers(1, 48), st.integers(24, 40 * 24)))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(card=cards, partner=partners, amount_minor=amounts_minor, part=parts)
    def wait_for_expiry(self, card: str, partner: str, amount_minor: int, part: int) -> None:
        """The next lot of the member goes past: a refund into it, and the next burn, find it so."""
        burn = self.spend(partner, card, 3)
        self.send([burn])
        ends = [lot["until"] for lot in self.auditor.lots if lot["card"] == card and lot["left"]]
        # In UTC: hours added to a local time may end where clocks skip one, and such a time equals no other.
        self.now = max(self.now, min(ends, default=self.now).astimezone(UTC))
        self.send([self.part_of(burn, part)])
        self.send([self.purchase(partner, card, amount_minor, None, timedelta(0))])
        self.send([self.spend(partner, card, part)])

    @rule(days=st.integers(31, 40))
    def month_end(self, days: int) -> None:
        """The next period ends, if it did not, and is closed."""
        begins = datetime.fromisoformat(f"{self.auditor.next_to_close}-01T09:00:00+00:00")
        self.now = max(self.now, begins + timedelta(days=days))
        self.close(0)

    @rule(ahead=st.sampled_from((0, 0, 0, 1, -1)))
    def close(self, ahead: int) -> None:
        """The next period, the one after it, or the one before again."""
        year, month = map(int, self.auditor.next_to_close.split("-"))
        ordinal = year * 12 + month - 1 + ahead
        label = f"{ordinal // 12:04d}-{ordinal % 12 + 1:02d}"
        expected = self.auditor.close(label, self.now)
        code, message, replayed = self.runner.run(self._close(label))
        assert (code, replayed) == (expected, expected is None and ahead == -1), (label, message)

    def close_all(self) -> None:
        """Every period that something was booked in, the last one too."""
        self.now += timedelta(days=31)
        while self.auditor.next_to_close < self.auditor.period(self.now):
            self.close(0)
        self.books_agree()

    async def _close(self, label: str) -> tuple[str | None, str, bool]:
        """The refusal's code and message, and whether the period was found closed."""
        try:
            closed = await close_period(self.open_database, self.clock, label, f"close-{label}")
        except Refused as refused:
            return str(refused.code), refused.message, False
        return None, "", closed.replayed

    # ------------------------------------------------------------ what must agree

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """Purchases and burns that were not refused."""
        return [one for one in self.asked if (one["partner"], one["key"]) in self.auditor.done]

    @property
    def open_database(self) -> Database:
        assert self.database is not None
        return self.database

    @invariant()
    def books_agree(self) -> None:
        if self.database is None:
            return
        product = self.runner.run(books_of_product(self.database, self.codes, self.now))
        expected = books_of_auditor(self.auditor, self.now)
        for name, part in expected.items():
            assert (name, product[name]) == (name, part)
        documents = self.runner.run(documents_of_product(self.database))
        assert documents | self.documents == documents, "a closed period's statements changed"
        self.documents = documents
        self.steps += 1
        if self.steps % VERIFY_EVERY == 0:
            self.verified()

    def verified(self) -> None:
        report = self.runner.run(verify(self.open_database, self.clock))
        assert [check for check in report.checks if not check.holds] == []
        assert report.closed_labels == tuple(self.auditor.closed)
        self.runner.run(check_books(self.open_database))

    # ------------------------------------------------------------ commands as dicts

    def purchase(
        self, partner: str, card: str, amount_minor: int, lines: tuple[Any, ...] | None, age: timedelta
    ) -> dict[str, Any]:
        key = f"key-{next(self.keys)}"
        return {
            "kind": "earn", "partner": partner, "key": key, "reference": key, "card": card,
            "amount_minor": amount_minor, "lines": lines, "at": self.now - age,
        }  # fmt: skip

    def spend(self, partner: str, card: str, part: int, age: timedelta = timedelta(0), more: int = 0) -> dict[str, Any]:
        key = f"key-{next(self.keys)}"
        points = max(self.auditor.balance(card, self.now) // part + more, 1)
        return {"kind": "burn", "partner": partner, "key": key, "reference": key, "card": card,
                "points": points, "at": self.now - age}  # fmt: skip

    def part_of(self, original: dict[str, Any], part: int, age: timedelta = timedelta(0)) -> dict[str, Any]:
        """A reversal of a part of the original, rounded up."""
        name = "amount_minor" if original["kind"] == "earn" else "points"
        return self.reversal(original, age, **{name: -(-original[name] // part)})

    def reversal(self, original: dict[str, Any], age: timedelta, **ask: Any) -> dict[str, Any]:
        by = {"amount_minor": None, "lines": None, "points": None} | ask
        return {"kind": "reverse", "partner": original["partner"], "key": f"key-{next(self.keys)}",
                "original": original["key"], "at": self.now - age, **by}  # fmt: skip

    def send(self, commands: Sequence[dict[str, Any]], *, history: bool = False) -> None:
        """Asks both; what a reversal may mean later is remembered, refused or not."""
        expected = [self.auditor.post(command, self.now, history=history) for command in commands]
        outcomes = self.runner.run(self.queues[history].post_many([self.as_product(one) for one in commands]))
        assert [self.as_auditor(outcome) for outcome in outcomes] == expected
        self.asked += [one for one in commands if one["kind"] != "reverse" and one not in self.asked]

    def as_product(self, one: dict[str, Any]) -> Command:
        partner_id, member = self.ids[one["partner"]], MemberRef(identifier=("card", one.get("card", "")))
        if one["kind"] == "burn":
            return Burn(partner_id, one["key"], member, one["points"], one["at"], one["reference"])
        lines = None if one["lines"] is None else tuple(
            BasketLine(sku, category, Decimal(quantity), _money(minor))
            for sku, category, quantity, minor in one["lines"]
        )  # fmt: skip
        amount = None if one["amount_minor"] is None else _money(one["amount_minor"])
        if one["kind"] == "reverse":
            original = OriginalRef(key=one["original"])
            return Reverse(partner_id, one["key"], original, one["at"], amount, lines, one["points"])
        assert amount is not None
        return Earn(partner_id, one["key"], member, amount, one["at"], one["reference"], lines=lines)

    def as_auditor(self, outcome: Outcome) -> str | dict[str, Any]:
        if isinstance(outcome, Refusal):
            return str(outcome.code)
        assert isinstance(outcome, Posted)
        year, month = divmod(outcome.command.period_id, 12)
        return {
            "points": outcome.points,
            "awards": [(award.rule_code, self.codes[award.funder_id], award.requested_points, award.granted_points)
                       for award in outcome.awards],
            "declined": outcome.declined_points,
            "shortfall": outcome.shortfall_points,
            "balance": outcome.balance.available,
            "consumed": None if outcome.budget is None else outcome.budget.consumed_micro,
            "period": f"{year:04d}-{month + 1:02d}",
            "replayed": outcome.replayed,
        }  # fmt: skip


def _money(minor: int) -> Amount:
    return Amount(Decimal(minor).scaleb(-2), "EUR")
