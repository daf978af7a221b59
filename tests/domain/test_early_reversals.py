"""Reversals that arrive before what they reverse: parked, posted with their original, or given up."""

from datetime import timedelta

import pytest

from domain.commands import CommandKind, MovementKind, OriginalRef, Outcome, ParkedReversal, Posted, Refusal, StoreRef
from domain.errors import RefusalCode
from domain.parking import expire_parked
from tests.domain.books import contents
from tests.domain.coalitions import coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import Till, by_reference, codes, queue_on

PARKED = "SELECT state, command_id, refusal_code FROM early_reversal ORDER BY id"
LINES = [("a", "food", "1", "60.00"), ("b", "food", "2.5", "40.00")]


async def parked(till: Till, key: str, original: str | OriginalRef, **given: object) -> ParkedReversal:
    """A reversal that must be parked; nothing else may change."""
    before = await contents(till.database)
    outcome = await till.queue.post(till.reversal(key, original, awaits=True, **given))  # type: ignore[arg-type]
    assert isinstance(outcome, ParkedReversal), outcome
    after = await contents(till.database)
    assert {table for table in after if after[table] != before[table]} <= {"early_reversal", "row_seal"}
    return outcome


async def test_a_return_waits_for_its_purchase(till: Till) -> None:
    waits = await parked(till, "v", "k", amount="40.00", reason="spoiled")
    now = till.clock.now
    assert waits == ParkedReversal(
        waits.id, till.id_of("grocer"), "v", "k", None, None, "WAITING", now, now, now + timedelta(days=30), None, None
    )
    till.clock.forward(hours=3)
    yesterday = now - timedelta(days=1)
    bought = await till.accept(till.purchase("k", "100.00", at=yesterday))
    assert (bought.points, bought.balance.available) == (100, 60)
    columns = ("kind", "points", "issue_value_micro", "service_fee_micro", "budget_micro")
    assert await till.movements("v", *columns) == [
        (MovementKind.EARN_REVERSAL, -40, 400_000, 40_000, -440_000),
    ]
    assert await till.budget() == (660_000, False)
    [(state, command_id, code)] = await till.rows(PARKED)
    assert (state, code) == ("POSTED", None)
    assert await till.rows(
        "SELECT idempotency_key, reason, occurred_at, recorded_at FROM command WHERE id = :id", id=command_id
    ) == [("v", "spoiled", now, now + timedelta(hours=3))]
    # Sent again, with or without the wish to wait, it is found under its key.
    for awaits in (True, False):
        again = till.reversal("v", "k", amount="40.00", reason="spoiled", awaits=awaits, at=now)
        assert (await till.accept(again)).replayed
        other = again._replace(reason="other")
        await till.refuse(other, RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


NAMED = {
    "key": "k",
    "reference": by_reference("r", CommandKind.BURN),
    "reference and store": by_reference("r", CommandKind.BURN, StoreRef(code="grocer-2")),
}


@pytest.mark.parametrize("named", NAMED.values(), ids=list(NAMED))
async def test_a_refund_waits_for_its_burn(till: Till, named: str | OriginalRef) -> None:
    await till.accept(till.purchase("earned", "100.00"))
    await parked(till, "v", named, points=25)
    # None of these is meant.
    await till.accept(till.purchase("p", "1.00", reference="r", store=StoreRef(code="grocer-2")))
    if named == NAMED["reference and store"]:
        await till.accept(till.burn("b", 1, reference="r", store=StoreRef(code="grocer-1")))
    assert await till.rows("SELECT state FROM early_reversal") == [("WAITING",)]
    before = await till.available()
    burned = await till.accept(till.burn("k", 60, reference="r", store=StoreRef(code="grocer-2")))
    assert burned.balance.available == before - 60 + 25
    assert await till.movements("v", "kind", "points") == [("BURN_REVERSAL", 25)]


@pytest.mark.parametrize("named", ["c", by_reference("a", CommandKind.BURN)], ids=["key", "reference"])
async def test_a_refund_waits_for_a_capture_and_not_for_its_authorization(till: Till, named: str | OriginalRef) -> None:
    await till.accept(till.purchase("earned", "100.00"))
    await parked(till, "v", named, points=25)
    await till.accept(till.authorization("a", 60))
    assert await till.rows("SELECT state FROM early_reversal") == [("WAITING",)]
    captured = await till.accept(till.capture("c", "a", 50))
    assert (captured.points, captured.balance.available) == (50, 75)
    assert await till.movements("v", "kind", "points") == [("BURN_REVERSAL", 25)]


async def test_lines_wait_as_they_were_sent(till: Till) -> None:
    await parked(till, "v", "k", lines=LINES[1:])
    bought = await till.accept(till.purchase("k", "100.00", lines=LINES))
    assert bought.balance.available == 60


async def test_several_wait_for_one_original_in_the_order_sent(till: Till) -> None:
    await parked(till, "v1", "k", amount="70.00")
    await parked(till, "v2", by_reference("k", CommandKind.EARN), amount="40.00")
    await parked(till, "v3", "k")
    assert (await till.accept(till.purchase("k", "100.00"))).balance.available == 0
    rows = await till.rows(PARKED)
    # The second wants more than the first left: it is refused, and changes nothing.
    assert [(state, code) for state, _, code in rows] == [
        ("POSTED", None),
        ("REFUSED", "EXCEEDS_ORIGINAL"),
        ("POSTED", None),
    ]
    refused = till.reversal("v2", by_reference("k", CommandKind.EARN), amount="40.00", awaits=True)
    await till.refuse(refused, RefusalCode.ALREADY_REVERSED)


async def test_all_of_it_in_one_batch(till: Till) -> None:
    outcomes: list[Outcome] = await till.queue.post_many(
        [
            till.reversal("v", "k", amount="40.00", awaits=True),
            till.reversal("v", "k", amount="40.00", awaits=True),
            till.reversal("w", "k"),
            till.purchase("k", "100.00"),
            till.reversal("v", "k", amount="40.00", awaits=True),
            till.reversal("x", "k", awaits=True),
        ]
    )
    first, again, without, bought, found, rest = outcomes
    assert isinstance(first, ParkedReversal)
    assert isinstance(again, ParkedReversal)
    assert (first.state, again) == ("WAITING", first._replace(replayed=True))
    assert isinstance(without, Refusal)
    assert without.code == "TRANSACTION_NOT_FOUND"
    assert isinstance(bought, Posted)
    assert bought.balance.available == 60
    assert isinstance(found, Posted)
    assert (found.command.key, found.points) == ("v", 40)
    assert isinstance(rest, Posted)
    assert rest.points == 60
    assert [row[0] for row in await till.rows(PARKED)] == ["POSTED"]


async def test_a_key_that_waits_is_taken(till: Till) -> None:
    command = till.reversal("v", "k", amount="40.00", awaits=True)
    first = await till.queue.post(command)
    assert isinstance(first, ParkedReversal)
    before = await contents(till.database)
    assert await till.queue.post(command) == first._replace(replayed=True)
    assert await till.queue.post(command._replace(awaits_original=False)) == first._replace(replayed=True)
    for other in (
        command._replace(reason="other"),
        command._replace(original=OriginalRef(key="other")),
        command._replace(awaits_original=False, points=1),
        till.purchase("v", "1.00"),
        till.burn("v", 1),
        till.void("v", "a"),
        till.enrolment("card-9", key="v"),
    ):
        await till.refuse(other, RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")
    assert await contents(till.database) == before
    # Another partner's key is another key.
    await till.accept(till.purchase("v", "1.00", partner="fuel"))


async def test_what_cannot_wait(till: Till) -> None:
    await till.refuse(till.reversal("v", "k"), RefusalCode.TRANSACTION_NOT_FOUND)
    unknown = OriginalRef(command_id=1)
    await till.refuse(till.reversal("v", unknown, awaits=True), RefusalCode.TRANSACTION_NOT_FOUND, "transactionId")
    await till.refuse(till.reversal("v", by_reference("r"), awaits=True), RefusalCode.INPUT_INVALID, "kind")
    await till.refuse(till.reversal("v", OriginalRef(given=0), awaits=True), RefusalCode.INPUT_INVALID, "transactionId")
    await till.refuse(till.reversal("v", "system:x", awaits=True), RefusalCode.INPUT_INVALID, "idempotencyKey")
    await till.refuse(till.reversal("v", "k", points=0, awaits=True), RefusalCode.AMOUNT_INVALID, "points")
    late = till.reversal("v", "k", awaits=True, at=till.clock.now - timedelta(days=31))
    await till.refuse(late, RefusalCode.OCCURRED_TOO_LONG_AGO, "occurredAt")


async def test_what_waits_in_vain_is_given_up(till: Till) -> None:
    await till.accept(till.purchase("other", "1.00"))
    waits = await parked(till, "v", "k")
    till.clock.now = waits.expires_at
    # Even before anybody has swept: nothing that happened before it can be posted any more.
    await till.refuse(till.reversal("v", "k", at=waits.occurred_at), RefusalCode.TRANSACTION_NOT_FOUND)
    bought = await till.accept(till.purchase("k", "100.00"))
    assert bought.balance.available == 101
    assert await expire_parked(till.database, till.clock.now) == 1
    assert await expire_parked(till.database, till.clock.now) == 0
    assert [row[0] for row in await till.rows(PARKED)] == ["EXPIRED"]
    # Its key is free again, since nothing was posted under it.
    assert (await till.accept(till.reversal("v", "k"))).points == 100


async def test_the_key_of_what_was_given_up_may_wait_again(till: Till) -> None:
    waits = await parked(till, "v", "k")
    till.clock.now = waits.expires_at
    again = till.reversal("v", "k", at=waits.occurred_at, awaits=True)
    parked_again = await till.queue.post(again)
    assert isinstance(parked_again, ParkedReversal)
    assert parked_again.id != waits.id
    assert [row[0] for row in await till.rows(PARKED)] == ["EXPIRED", "WAITING"]


async def test_history_leaves_it_to_the_till(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer")))
    await parked(till, "v", "k", amount="40.00")
    async with queue_on(till.database, till.configuration, is_history=True) as history:
        outcome = await history.queue.post(till.purchase("k", "100.00"))
        assert isinstance(outcome, Posted)
        assert outcome.balance.available == 100
    posted = await till.queue.post(till.reversal("v", "k", amount="40.00", awaits=True))
    assert isinstance(posted, Posted)
    assert posted.points == 40
    assert [row[0] for row in await till.rows(PARKED)] == ["POSTED"]


async def test_a_hundred_wait_in_a_large_batch(till: Till) -> None:
    reversals = [till.reversal(f"v{number}", f"k{number}", amount="4.00", awaits=True) for number in range(150)]
    assert {type(outcome) for outcome in await till.queue.post_many(reversals)} == {ParkedReversal}
    purchases = [till.purchase(f"k{number}", "10.00") for number in range(150)]
    assert codes(await till.queue.post_many(purchases)) == {"posted": 150}
    assert await till.available() == 900
    assert await till.rows("SELECT state, count(*) FROM early_reversal GROUP BY 1") == [("POSTED", 150)]
