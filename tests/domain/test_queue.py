"""The posting queue: order, batches, keys, limits, and what happens to callers who go away."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from typing import cast

import pytest

from domain import queue as queue_module
from domain.batch import Batch
from domain.commands import Amount, Command, Earn, Enroll, Enrolled, MemberRef, Posted, Refusal
from domain.database import BatchConnection, Database
from domain.errors import RefusalCode
from domain.queue import BATCH_MAX, PostingQueue, _Ids
from domain.terms import ConfigurationCache
from domain.writing import write_batch
from settlement.verifying import verify
from tests.domain.books import contents
from tests.domain.coalitions import coalition, partner
from tests.domain.conftest import TWO_PARTNERS, OpenTill
from tests.domain.tills import Till, by_reference, codes, till_on
from tests.factories import MID_MARCH, apply_toml, fixed_clock


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many commands each batch that is written accepts."""
    sizes: list[int] = []

    async def counted(connection: BatchConnection, batch: Batch) -> None:
        sizes.append(len(batch.accepted))
        await write_batch(connection, batch)

    monkeypatch.setattr(queue_module, "write_batch", counted)
    return sizes


async def test_commands_that_arrive_together_are_posted_together_in_order(till: Till, batches: list[int]) -> None:
    commands = [till.purchase(f"k{number}", f"{number % 50 + 1}.00") for number in range(1_200)]
    posted = await till.accept_all(commands)

    assert batches == [BATCH_MAX, BATCH_MAX, 200]
    balance = 0
    for number, receipt in enumerate(posted):
        points = number % 50 + 1
        balance += points
        assert (receipt.command.key, receipt.points, receipt.balance.available) == (f"k{number}", points, balance)
    ids = [receipt.command.id for receipt in posted]
    assert ids == sorted(ids)


async def test_points_are_burned_whose_lots_were_written_ahead_of_the_batch_s_end(
    till: Till, batches: list[int]
) -> None:
    commands: list[Command] = []
    for round_ in range(4):
        commands += [till.purchase(f"k{round_}-{number}", "1.00") for number in range(100)]
        commands += [
            till.burn(f"b{round_}", 70),
            till.reversal(f"v{round_}", f"k{round_}-99"),
            till.reversal(f"u{round_}", f"b{round_}"),
        ]
        commands.append(till.burn(f"c{round_}", 95))
    await till.accept_all(commands)

    assert batches == [416]
    # Of 100 points a round, one is returned and 95 are burned: all from the oldest lots on.
    assert await till.available() == 16
    assert await till.one("SELECT sum(remaining) FROM lot") == 16
    assert await till.one("SELECT count(*) FROM lot WHERE remaining = 0") == 384
    left = "SELECT count(*) FROM (SELECT remaining FROM lot ORDER BY id DESC LIMIT 17) AS last WHERE remaining = 1"
    assert await till.one(left) == 16
    assert (await verify(till.database, till.clock)).holds


async def test_what_arrives_during_a_batch_forms_the_next_one(till: Till, batches: list[int]) -> None:
    answers = [asyncio.ensure_future(till.queue.post(till.purchase("first")))]
    await asyncio.sleep(0)
    answers += [asyncio.ensure_future(till.queue.post(till.purchase(f"k{number}"))) for number in range(30)]
    await asyncio.gather(*answers)

    assert batches == [1, 30]


async def test_one_key_fifty_times_at_once_is_posted_once(till: Till) -> None:
    for command in (till.purchase("k", "100.00"), till.burn("b", 40), till.reversal("v", "k", amount="30.00")):
        before = await till.available()
        outcomes = await asyncio.gather(*[till.queue.post(command) for _ in range(50)])

        assert codes(outcomes) == {"posted": 1, "replayed": 49}
        assert len({(outcome.command.id, outcome.points) for outcome in outcomes if isinstance(outcome, Posted)}) == 1
        assert await till.available() == before + {"k": 100, "b": -40, "v": -30}[command.key]
    enrolments = await till.queue.post_many([till.enrolment("new") for _ in range(50)])
    assert codes(enrolments) == {"posted": 1, "replayed": 49}
    assert {outcome.created for outcome in enrolments if isinstance(outcome, Enrolled)} == {True}


async def test_one_key_with_other_input_in_the_same_batch_is_refused(till: Till) -> None:
    outcomes = await till.queue.post_many(
        [
            till.purchase("k", "100.00"),
            till.purchase("k", "100.01"),
            till.purchase("k", "100.00"),
            till.burn("k", 10),
            till.enrolment("other", key="k"),
            till.reversal("k", "k"),
            till.purchase("k", "7.00", partner="fuel"),
        ]
    )
    conflict = RefusalCode.IDEMPOTENCY_CONFLICT
    assert [outcome.code if isinstance(outcome, Refusal) else outcome.replayed for outcome in outcomes] == [
        False,
        conflict,
        True,
        conflict,
        conflict,
        conflict,
        False,
    ]
    assert await till.available() == 107


async def test_a_member_s_whole_life_in_one_batch(till: Till) -> None:
    outcomes = await till.queue.post_many(
        [
            till.purchase("too early", card="new"),
            till.enrolment("new"),
            till.reversal("too early too", "k"),
            till.purchase("k", "100.00", card="new"),
            till.burn("b", 70, card="new", partner="fuel"),
            till.reversal("v", "k", amount="40.00"),
            till.reversal("w", by_reference("b"), partner="fuel", points=20),
            till.burn("b2", 21, card="new"),
            till.reversal("v2", by_reference("k")),
            till.burn("b3", 1, card="new"),
        ]
    )
    assert [outcome.code if isinstance(outcome, Refusal) else None for outcome in outcomes] == [
        RefusalCode.MEMBER_NOT_FOUND,
        None,
        RefusalCode.TRANSACTION_NOT_FOUND,
        None,
        None,
        None,
        None,
        RefusalCode.INSUFFICIENT_POINTS,
        None,
        RefusalCode.INSUFFICIENT_POINTS,
    ]
    # 100, minus 70, minus the 30 of 40 that are left, plus 20 refunded, minus those 20 of the 60 that are kept.
    receipts = [outcome for outcome in outcomes if isinstance(outcome, Posted)]
    assert [(receipt.points, receipt.shortfall_points, receipt.balance.available) for receipt in receipts] == [
        (100, 0, 100),
        (70, 0, 30),
        (30, 10, 0),
        (20, 0, 20),
        (20, 40, 0),
    ]


async def test_five_hundred_burns_at_once_never_overdraw(till: Till) -> None:
    await till.accept(till.purchase("k", "1000.00"))
    outcomes = await asyncio.gather(*[till.queue.post(till.burn(f"b{number}", 7)) for number in range(500)])

    assert codes(outcomes) == {"posted": 142, "INSUFFICIENT_POINTS": 358}
    assert await till.available() == 1000 - 142 * 7


async def test_five_hundred_purchases_at_once_never_pass_a_hard_budget(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", budgets={"limit": "11.00", "on_limit": "DECLINE"})))
    commands = [till.purchase(f"k{number}", "7.00", card=f"card-{number % 2 + 1}") for number in range(500)]
    outcomes = await asyncio.gather(*[till.queue.post(command) for command in commands])

    assert codes(outcomes) == {"posted": 142, "BUDGET_EXHAUSTED": 358}
    assert await till.budget() == (142 * 7 * 11_000, True)
    assert await till.available("card-1") + await till.available("card-2") == 142 * 7


async def test_a_full_queue_answers_at_once(database: Database) -> None:
    async with till_on(database, TWO_PARTNERS, queue_max=10) as till:
        await till.enrolled("card-1")
        outcomes = await till.queue.post_many([till.purchase(f"k{number}", "1.00") for number in range(25)])

        assert codes(outcomes[:10]) == {"posted": 10}
        assert codes(outcomes[10:]) == {"OVERLOADED": 15}
        refused = outcomes[10]
        assert isinstance(refused, Refusal)
        assert (refused.key, refused.retryable) == ("k10", True)
        # The very same command may be sent again.
        assert (await till.accept(till.purchase("k10", "1.00"))).replayed is False


async def test_an_overloaded_answer_waits_for_nobody(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(till.queue, "_queue_max", 1)
    waiting = asyncio.ensure_future(till.queue.post(till.purchase("k")))
    await asyncio.sleep(0)
    refused = till.queue._enqueue(till.purchase("k2"))

    assert refused.done()
    assert codes([await refused, await waiting]) == {"OVERLOADED": 1, "posted": 1}


async def test_a_caller_that_goes_away_is_posted_all_the_same(till: Till) -> None:
    asked_alone = asyncio.ensure_future(till.queue.post(till.purchase("alone", "1.00")))
    asked_together = asyncio.ensure_future(
        till.queue.post_many([till.purchase(f"k{number}", "1.00") for number in range(5)])
    )
    await asyncio.sleep(0)
    asked_alone.cancel()
    asked_together.cancel()
    later = await till.accept(till.purchase("later", "1.00"))

    assert later.balance.available == 7
    assert asked_alone.cancelled()
    assert (await till.accept(till.purchase("alone", "1.00"))).replayed


async def test_a_caller_that_goes_away_in_mid_batch_harms_nobody(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = asyncio.Event()

    async def slow(connection: BatchConnection, batch: Batch) -> None:
        reached.set()
        await asyncio.sleep(0)
        await write_batch(connection, batch)

    monkeypatch.setattr(queue_module, "write_batch", slow)
    gone = asyncio.ensure_future(till.queue.post(till.purchase("gone", "1.00")))
    stays = asyncio.ensure_future(till.queue.post(till.purchase("stays", "1.00")))
    await reached.wait()
    gone.cancel()

    posted = await stays
    assert isinstance(posted, Posted)
    assert posted.balance.available == 2


async def test_stopping_posts_what_has_arrived_and_refuses_what_comes(database: Database) -> None:
    async with till_on(database, TWO_PARTNERS) as till:
        await till.enrolled("card-1")
        arrived = [asyncio.ensure_future(till.queue.post(till.purchase(f"k{number}", "1.00"))) for number in range(700)]
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(till.queue.stop())
        await asyncio.sleep(0)
        late = await till.queue.post(till.purchase("late", "1.00"))

        assert codes([late]) == {"OVERLOADED": 1}
        await stopping
        assert all(answer.done() for answer in arrived)
        assert codes([await answer for answer in arrived]) == {"posted": 700}
        assert await till.available() == 700


async def test_without_a_coalition_nothing_is_posted(database: Database) -> None:
    queue = PostingQueue(database, ConfigurationCache(database), fixed_clock())
    queue.start()
    purchase = Earn(1, "k", MemberRef(identifier=("card", "c")), Amount(Decimal(5), "EUR"), MID_MARCH, "r")
    commands: list[Command] = [Enroll(1, "e", "c", None, None), purchase]
    before = await contents(database)

    assert codes(await queue.post_many(commands)) == {"TERMS_MISSING": 2}
    assert codes([await queue.quote(purchase)]) == {"TERMS_MISSING": 1}
    assert await contents(database) == before
    # Once there is one, the same queue finds it.
    await apply_toml(database, TWO_PARTNERS)
    assert codes(await queue.post_many(commands)) == {"posted": 2}
    await queue.stop()


async def test_times_of_booking_never_go_back(open_till: OpenTill, monkeypatch: pytest.MonkeyPatch) -> None:
    till = await open_till()
    started = till.clock.now
    ticks = iter(range(10**6))

    def ticking() -> datetime:
        return started + timedelta(milliseconds=next(ticks))

    monkeypatch.setattr(till.queue, "_clock", ticking)
    await asyncio.gather(*[till.queue.post(till.purchase(f"k{number}", "1.00")) for number in range(30)])
    for number in range(10):
        await till.accept(till.burn(f"b{number}", 1))

    booked = [recorded_at for (recorded_at,) in await till.rows("SELECT recorded_at FROM command ORDER BY id")]
    assert booked == sorted(booked)
    assert len(set(booked)) > 10


async def test_ids_ascend_however_many_ask_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    # A quote asks beside the batch. Out of order, rows would get each other's hashes, and lots another sequence.
    blocks = iter(range(0, 100, 10))

    async def uneven(connection: object) -> range:
        start = next(blocks)
        # Who asked first is answered last.
        await asyncio.sleep(0.02 if start == 0 else 0)
        return range(start, start + 10)

    monkeypatch.setattr(queue_module, "next_id_block", uneven)
    ids, nowhere = _Ids(), cast("BatchConnection", None)
    await asyncio.gather(ids.fill(nowhere, 25), ids.fill(nowhere, 35))
    assert [next(ids) for _ in range(40)] == list(range(40))
