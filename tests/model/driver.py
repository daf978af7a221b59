"""What every machine shares: a database and a clock, asking the product and the auditor alike, and comparing both."""

import asyncio
import sys
import tomllib
from collections.abc import Coroutine, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any, ClassVar, TypeVar

import asyncpg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import URL, text

from domain.commands import Enroll, Enrolled, Refusal, Sweep, Swept
from domain.database import Database, DatabaseUrls
from domain.errors import Refused
from domain.queue import PostingQueue
from domain.terms import ConfigurationCache, load_configuration
from settlement.closing import close_period
from settlement.verifying import verify
from tests.conftest import run_as_superuser
from tests.domain.books import check_books
from tests.model.auditor import Auditor
from tests.model.books import balances_of_product, books_of_auditor, books_of_product, documents_of_product
from tests.model.closing import close, next_to_close
from tests.model.coalitions import COALITIONS, START, STARTS
from tests.model.ledger import Dict
from tests.model.spending import sweep
from tests.model.translating import as_auditor, as_product

CARDS = ("ada", "ben", "cyd")
PARTNERS = ("grocer", "fuel", "restaurant")
VERIFY_EVERY = 10
_numbers = count()
T = TypeVar("T")

cards = st.sampled_from(CARDS)
partners = st.sampled_from(PARTNERS)
amounts_minor = st.one_of(st.integers(0, 40_000), st.integers(1, 300).map(lambda units: units * 100))
ages = st.one_of(
    st.just(timedelta(0)),
    *(st.integers(0, days * 24).map(lambda hours: timedelta(hours=hours)) for days in (1, 25, 80)),
)
parts = st.sampled_from((1, 2, 3, 4, 5, 7))
recent = st.one_of(st.integers(0, 3), st.integers(0, 60))
baskets = st.tuples(partners, cards, amounts_minor, ages)


class Driver(RuleBasedStateMachine):
    """One example: a database of its own, a clock that only goes forward, and two queues (tills, import)."""

    server: ClassVar[URL]
    templates: ClassVar[dict[str, str]]
    """Per coalition the database to clone."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = START  # until a coalition is chosen
        self.keys = count()
        self.steps = 0
        self.documents: dict[tuple[int, int], bytes] = {}
        self.asked: list[Dict] = []
        self.held: Database | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def begin(self, name: str, first: Sequence[tuple[str, str, int, timedelta]]) -> None:
        """The coalition's database, two members, and some purchases."""
        self.clone(self.templates[name], STARTS.get(name, START))
        self.set_out(COALITIONS[name], first)

    def clone(self, template: str, now: datetime) -> None:
        """A database of this example."""
        self.now = now
        self.database_name = f"coalition_model_{next(_numbers)}_{template}"
        create = f"CREATE DATABASE {self.database_name} TEMPLATE {template} STRATEGY file_copy"
        self.run(run_as_superuser(self.server, create))
        url = self.server.set(database=self.database_name)
        self.held = Database(DatabaseUrls(url, url, url))

    def set_out(self, coalition: str, first: Sequence[tuple[str, str, int, timedelta]]) -> None:
        """The coalition stands in the database: members come, and buy."""
        self.auditor = Auditor(tomllib.loads(coalition))
        self.accounts: dict[int, str] = {}
        self.run(self._start())
        self.enroll("ada", "grocer")
        self.enroll("ben", "fuel")
        self.send([self.purchase(partner, card, amount, None, age) for partner, card, amount, age in first])

    async def _start(self) -> None:
        async with self.database.posting() as connection:
            configuration = await load_configuration(connection)
        assert configuration is not None
        self.ids = {"operator": 0} | {code: partner.id for code, partner in configuration.partners_by_code.items()}
        self.codes = {number: code for code, number in self.ids.items()}
        self.queues = {
            history: PostingQueue(self.database, ConfigurationCache(self.database), self.clock, is_history=history)
            for history in (False, True)
        }
        for queue in self.queues.values():
            queue.start()
        dsn = self.server.set(drivername="postgresql", database=self.database_name).render_as_string(False)
        self.reader: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn)

    def teardown(self) -> None:
        if self.held is not None:
            try:
                if sys.exc_info()[0] is None:  # else the failure of a step is the news
                    self.close_all()
                    self.verified()
            finally:
                self.run(self._stop())
        self.runner.close()

    async def _stop(self) -> None:
        for queue in self.queues.values():
            await queue.stop()
        await self.reader.close()
        await self.database.dispose()
        await run_as_superuser(self.server, f"DROP DATABASE {self.database_name} WITH (FORCE)")

    def clock(self) -> datetime:
        return self.now

    @property
    def database(self) -> Database:
        assert self.held is not None
        return self.held

    def rows(self, sql: str, **parameters: Any) -> list[Any]:
        async def query() -> list[Any]:
            async with self.database.posting() as connection:
                return list((await connection.execute(text(sql), parameters)).all())

        return self.run(query())

    # ------------------------------------------------------------ what all machines do

    @rule(card=cards, partner=partners)
    def enroll(self, card: str, partner: str) -> None:
        key = f"enrol-{next(self.keys)}"
        outcome = self.run(self.queues[False].post(Enroll(self.ids[partner], key, card, None, None)))
        expected = self.auditor.enroll(card, partner, self.now)
        if isinstance(outcome, Enrolled):
            assert (outcome.created, outcome.replayed) == (expected, False)
            self.accounts.setdefault(outcome.account_id, card)
        else:
            assert isinstance(outcome, Refusal)
            assert str(outcome.code) == expected

    @rule(partner=partners, card=cards, amount_minor=amounts_minor, age=ages)
    def earn(self, partner: str, card: str, amount_minor: int, age: timedelta) -> None:
        self.send([self.purchase(partner, card, amount_minor, None, age)])

    @rule(partner=partners, card=cards, part=parts, age=ages)
    def burn(self, partner: str, card: str, part: int, age: timedelta) -> None:
        """A part of the balance, and with 1 all of it."""
        self.send([self.spend(partner, card, part, age)])

    @rule(sellers=st.tuples(partners, partners), card=cards, amount_minor=amounts_minor, two=st.tuples(parts, parts),
          holds=st.booleans())  # fmt: skip
    def spend_and_return(
        self, sellers: tuple[str, str], card: str, amount_minor: int, two: tuple[int, int], *, holds: bool
    ) -> None:
        """Goods come back whose points are spent, or held; perhaps the member owes some, until it buys again."""
        bought = self.stock(sellers[0], card, 5_000)
        self.send([self.spend(sellers[1], card, 1, kind="authorize" if holds else "burn")])
        self.send([self.part_of(bought, two[0])])
        self.send([self.purchase(sellers[1], card, amount_minor, None, timedelta(0)), self.part_of(bought, two[1])])

    @rule(hours=st.one_of(st.integers(1, 48), st.integers(24, 40 * 24)))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule()
    def sweep_all(self) -> None:
        for account_id, name in self.accounts.items():
            self.auditor.begin(self.now)
            expected = sweep(self.auditor, name)
            outcome = self.run(self.queues[False].post(Sweep(account_id)))
            assert outcome == Swept(account_id, *expected)

    @rule(days=st.integers(0, 10))
    def period_end(self, days: int) -> None:
        """The next period ends, if it did not, and is closed."""
        ends = self.auditor.days.midnight(self.auditor.days.ends(next_to_close(self.auditor)))
        self.now = max(self.now, ends + timedelta(days=days))
        self.close(0)

    @rule(ahead=st.sampled_from((0, 0, 0, 1, -1)))
    def close(self, ahead: int) -> None:
        """The next period, the one after it, or the one before again."""
        days, label = self.auditor.days, next_to_close(self.auditor)
        if ahead:
            label = days.period(days.ends(label) if ahead > 0 else days.begins(label) - timedelta(days=1))
        expected = close(self.auditor, label, self.now)
        code, message, replayed = self.run(self._close(label))
        assert (code, replayed) == (expected, expected is None and ahead == -1), (label, message)

    def close_all(self) -> None:
        """Every period that something was booked in, the last one too."""
        self.now += timedelta(days=31)
        self.sweep_all()  # a programme that ended leaves no points
        while next_to_close(self.auditor) < self.auditor.days.period(self.auditor.days.day(self.now)):
            self.close(0)
        self.books_agree()

    async def _close(self, label: str) -> tuple[str | None, str, bool]:
        """The refusal's code and message, and whether the period was found closed."""
        try:
            closed = await close_period(self.database, self.clock, label, f"close-{label}")
        except Refused as refused:
            return str(refused.code), refused.message, False
        return None, "", closed.replayed

    # ------------------------------------------------------------ what must agree

    @invariant()
    def books_agree(self) -> None:
        if self.held is None:
            return
        members = list(self.auditor.account_of)
        product = self.run(self.books(members))
        expected = self.expected_books()
        for name, part in expected.items():
            assert (name, product[name]) == (name, part)
        documents = self.run(documents_of_product(self.reader))
        assert documents | self.documents == documents, "a closed period's statements changed"
        self.documents = documents
        self.steps += 1
        if self.steps % VERIFY_EVERY == 0:
            self.verified()

    def expected_books(self) -> Dict:
        return books_of_auditor(self.auditor, self.now)

    async def books(self, members: list[str]) -> Dict:
        books = await books_of_product(self.reader, self.codes, self.accounts)
        return books | await balances_of_product(self.database, members, self.now)

    def verified(self) -> None:
        report = self.run(verify(self.database, self.clock))
        assert [check for check in report.checks if not check.holds] == []
        assert report.closed_labels == tuple(self.auditor.closed)
        self.run(check_books(self.database))

    # ------------------------------------------------------------ commands as dicts

    def command(self, kind: str, partner: str, card: str | None, at: datetime | None, **rest: Any) -> Dict:
        by = {} if card is None else {"card": card}
        return {"kind": kind, "partner": partner, "key": f"key-{next(self.keys)}", "at": at, **by, **rest}

    def purchase(
        self, partner: str, card: str, amount_minor: int, lines: tuple[Any, ...] | None, age: timedelta
    ) -> Dict:
        self.now += timedelta(seconds=1)  # no two at one instant: their lots would be told apart by their numbers alone
        one = self.command("earn", partner, card, self.now - age, amount_minor=amount_minor, lines=lines)
        return one | {"reference": one["key"]}

    def spend(
        self, partner: str, card: str, part: int, age: timedelta = timedelta(0), more: int = 0, kind: str = "burn"
    ) -> Dict:
        has = self.auditor.balance(self.auditor.account(card), self.now)[0] if card in self.auditor.account_of else 0
        one = self.command(kind, partner, card, self.now - age, points=max(has // part + more, 1))
        return one | {"reference": one["key"]}

    def part_of(self, original: Dict, part: int, age: timedelta = timedelta(0)) -> Dict:
        """A reversal of a part of the original, rounded up."""
        name = "amount_minor" if original["kind"] == "earn" else "points"
        return self.reversal(original, age, **{name: None if original[name] is None else -(-original[name] // part)})

    def reversal(self, original: Dict, age: timedelta, **ask: Any) -> Dict:
        by = {"amount_minor": None, "lines": None, "points": None} | ask
        return self.command("reverse", original["partner"], None, self.now - age, original=original["key"], **by)

    def stock(self, partner: str, card: str, amount_minor: int, days: int = 0) -> Dict:
        """A purchase so old that no return window keeps its points, paid if they wait for that, and at least so old."""
        terms = self.auditor.partners[partner]["terms"]
        days = max(days, *(1 + one.get("pending_days", -1) for one in terms))
        bought = self.purchase(partner, card, amount_minor, None, timedelta(days=days))
        self.send([bought])
        record = self.auditor.done.get((partner, bought["key"]), {"awards": []})
        if any(award["waits"] for award in record["awards"]):
            self.send([self.command("pay", partner, None, self.now, original=bought["key"])])
        return bought

    @property
    def accepted(self) -> list[Dict]:
        """Purchases and burns that were not refused."""
        return [one for one in self.asked if (one["partner"], one["key"]) in self.auditor.done]

    def send(self, commands: Sequence[Dict], *, history: bool = False) -> list[str | Dict]:
        """Asks both; what a reversal may mean later is remembered, refused or not."""
        expected = [self.auditor.post(command, self.now, history=history) for command in commands]
        asked = [as_product(one, self.ids) for one in commands]
        outcomes = self.run(self.queues[history].post_many(asked))
        for command, outcome, answer in zip(commands, outcomes, expected, strict=True):
            assert (command, as_auditor(outcome, self.codes, self.auditor.days)) == (command, answer)
        self.asked += [one for one in commands if one["kind"] in ("earn", "burn", "capture") and one not in self.asked]
        return expected
