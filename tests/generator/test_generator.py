"""Random coalitions and histories, settled twice: by the product, and from what it exports (SETTLEMENT.md)."""

import csv
import json
import os
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from random import Random  # noqa: TID251 (seeded: invented data)

import pytest

from api.export import export_transactions
from api.runtime import Runtime
from domain.database import Database
from settlement.closing import close_period
from settlement.verifying import verify
from tests.api.graphql_shop import Caller, open_shop
from tests.domain.tills import Till, till_on
from tests.generator.bonuses import misshared
from tests.generator.book import CLOSED, Book, Settled
from tests.generator.changes import Changes
from tests.generator.coalitions import BEGINS, ENDINGS, in_turn, random_coalition, toml_text
from tests.generator.contracts import Contracts
from tests.generator.desk import Desk
from tests.generator.events import Makers, World
from tests.generator.histories import Tills, live
from tests.generator.households import Households
from tests.generator.published import published_partner, published_period, published_purchases
from tests.generator.second import SecondSettlement
from tests.generator.seen import KINDS_AND_BORDERS, seen_in, shares_with_a_remainder
from tests.generator.statements import SecondStatements
from tests.generator.treasury import Treasury

DEFAULT_SEEDS = range(6)
SEEDS = range(int(os.environ.get("GENERATED_COALITIONS", len(DEFAULT_SEEDS))))
LAST_DAY = date(2017, 5, 3)
"""What ends by then is settled."""
EVENTS_A_DAY = 4
BONUSES = """
    SELECT c.code, sum(t.requested_points)::bigint FROM transaction AS t JOIN campaign AS c ON c.id = t.rule_id
     WHERE t.kind IN ('EARN', 'EARN_PENDING') GROUP BY t.command_id, c.code
"""
EMPTY_WINDOWS = """
    SELECT count(*) FROM budget
     WHERE consumed_micro > 0 AND consumed_micro + reserved_micro = limit_micro + overdraft_micro
"""
CARDS = ("card-1", "card-2", "card-3", "card-4", "card-5")


@pytest.fixture
def all_seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each history leaves what it had in it: one folder of all processes of this run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "generated"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("seed", SEEDS)
async def test_two_settlements_of_one_history_are_equal(
    seed: int, database: Database, tmp_path: Path, all_seen: Path
) -> None:
    random = Random(seed)  # noqa: S311 (a history, no secret)
    coalition = random_coalition(random, seed)
    async with till_on(database, toml_text(coalition)) as till:
        till.clock.to(2017, 1, 20)
        await till.enrolled(*CARDS, partner=coalition["partner"][0]["code"])
        world = World(random, coalition, till, CARDS)
        desk, tills = Desk(world), Tills(world)
        at_desk = [*desk.makers(), *Treasury(desk).makers()]
        changes = Changes(world, tills, desk.book, in_turn(seed, "ending", ENDINGS))
        periods = await _live(world, desk, [*tills.makers(), *Households(world).makers(), *at_desk], changes, tills)
        await live(world, at_desk, 2, EVENTS_A_DAY)
        print(sorted(world.accepted.items()))  # noqa: T201 (shown where the test fails)

        report = await verify(till.database, till.clock)
        assert [check for check in report.checks if not check.holds] == []
        second = await exported(till, tmp_path / "ledger.csv", desk.book)
        assert second.problems == []
        made = SecondStatements(second, periods, Fraction(1, 10**world.digits), till.clock.now)
        async with open_shop(database, till.clock, is_applied=False) as shop:
            await compare(made, await shop.caller(None))
        seen = seen_in(made, world.accepted)
        seen["campaign: a share with a remainder"] = shares_with_a_remainder(coalition, await till.rows(BONUSES))
        seen["budget: ends at exactly 0"] = await till.one(EMPTY_WINDOWS)
    written = tmp_path / "seen"
    written.write_text(json.dumps(seen), encoding="utf-8")
    written.replace(all_seen / f"{seed}.json")  # whole at once: others look for it
    nothing_is_never_drawn(all_seen)


def nothing_is_never_drawn(all_seen: Path) -> None:
    """Each kind and border comes in some of the default histories: the last of them to end looks, of any process."""
    files = [all_seen / f"{seed}.json" for seed in DEFAULT_SEEDS]
    if all(file.exists() for file in files):
        seen = sum((Counter(json.loads(file.read_text(encoding="utf-8"))) for file in files), Counter[str]())
        assert sorted(KINDS_AND_BORDERS - seen.keys()) == []


async def _live(world: World, desk: Desk, makers: Makers, changes: Changes, tills: Tills) -> list[tuple[str, date]]:
    """Period after period until the last day, or until the programme is over; those that were closed."""
    periods = periods_until(desk.book, LAST_DAY)
    for number, (label, last) in enumerate(periods, start=1):
        while world.till.clock.now.date() <= last + timedelta(days=2):
            await changes.due()
            await live(world, makers, 1, EVENTS_A_DAY, desk.aim)
        is_over = label == Contracts(desk.book.files).over_label()
        if is_over:
            await tills.sweep()
        if is_over or number == len(periods) or world.random.random() < 0.7:  # else two are open
            await close_all(world.till, periods[:number], desk.book)
        if is_over:
            return periods[:number]
    return periods


async def exported(till: Till, file: Path, book: Book) -> SecondSettlement:
    """The second settlement of what the product exports."""
    runtime = Runtime(till.database, till.cache, till.clock)
    await export_transactions(runtime, str(file), date(2016, 1, 1), date(2018, 1, 1), lambda _written, _total: None)
    with file.open(encoding="utf-8", newline="") as opened:
        return SecondSettlement(csv.DictReader(opened), book)


async def compare(made: SecondStatements, operator: Caller) -> None:
    """Every closed period, line for line; and floats and deposits, which no period ends."""
    for label, _ in made.periods:
        totals, statements = await published_period(operator, label)
        assert (label, totals) == (label, made.totals[label])
        for code in made.contracts.partners:
            statement = statements.get(code)
            if statement is not None and statement.outstanding is not None:
                (points, value), most = statement.outstanding, made.most_outstanding(label, code)
                assert 0 <= points <= most[0], (label, code)
                assert 0 <= value <= most[1], (label, code)
                statement.outstanding = None
            assert (label, code, statement) == (label, code, made.statements.get((label, code)))
    for code in made.contracts.partners:
        of_float, deposit = await published_partner(operator, code)
        assert (code, of_float) == (code, made.second.float_of(code))
        assert (code, deposit) == (code, made.deposit_of(code))
    assert [*misshared(made.contracts, await published_purchases(operator))] == []
    if made.contracts.over_label() == made.periods[-1][0]:
        assert sum(period.pool for period in made.second.periods.values()) == 0


def periods_until(book: Book, last: date) -> list[tuple[str, date]]:
    """Label and last day of every period from the first contract's on that ends by then."""
    contracts = Contracts(book.files)
    return [*contracts.periods(BEGINS[contracts.programme["period"]], last)]


async def close_all(till: Till, periods: Sequence[tuple[str, date]], book: Book) -> None:
    """Closes these periods; what is closed already answers again."""
    closed = {one.label for one in book.statements if one.what == CLOSED}
    for label, _ in periods:
        if label not in closed:
            await close_period(till.database, till.clock, label, f"close-{label}")
            book.statements.append(Settled(till.clock.now, CLOSED, label))
