"""Two-phase burns: what is set aside, burned of it, released, and what runs out."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from domain.commands import BalanceView, Command, CommandKind, HoldView, OriginalRef, StoreRef, Sweep, Swept
from domain.errors import RefusalCode
from domain.sweeping import NOTHING_YET, Due, due_accounts
from tests.domain.books import contents
from tests.domain.coalitions import Day, Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import APRIL, MARCH, Till, by_reference, codes
from tests.factories import apply_toml

WEEK = timedelta(days=7)
USES = "SELECT kind, lot_id, points, issuer_id, redeemer_id, price_micro FROM lot_use ORDER BY id"
LOTS = "SELECT remaining, reserved FROM lot ORDER BY id"
HOLD = "SELECT points, captured, released, state FROM hold"
ROWS = ("kind", "points", "requested_points", "party_id", "reimbursement_micro", "pool_value_micro")
NAMES = {"by key": OriginalRef(key="a"), "by reference": by_reference("r")}


async def with_points(till: Till) -> list[int]:
    """100 points of the grocer, then 50 of the fuel station; answers their lots."""
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("k2", "50.00", partner="fuel"))
    return [lot_id for (lot_id,) in await till.rows("SELECT id FROM lot ORDER BY id")]


async def test_authorize_and_capture_in_part_in_all_their_rows(till: Till) -> None:
    grocer, fuel = till.id_of("grocer"), till.id_of("fuel")
    first, second = await with_points(till)
    held = await till.accept(till.authorization("a", 120, partner="fuel", reference="r", store=StoreRef(code="fuel-2")))
    account = till.members["card-1"].account_id
    assert (held.command.kind, held.command.moved_points, held.points, held.replayed) == (
        CommandKind.AUTHORIZATION,
        -120,
        120,
        False,
    )
    assert held.balance == BalanceView(account, 30, 0, 120)
    expires_at = till.clock.now + WEEK
    assert held.hold == HoldView(account, held.command.id, fuel, 120, 0, 0, "OPEN", expires_at)
    assert await till.movements("a", *ROWS) == [("HOLD", -120, 120, fuel, 0, 0)]
    assert await till.rows(LOTS) == [(0, 100), (30, 20)]

    till.clock.forward(days=3)
    posted = await till.accept(till.capture("c", "a", 110, partner="fuel"))
    row = posted.command
    assert (row.kind, row.reference, row.store_id) == (CommandKind.CAPTURE, "r", till.store_of("fuel", "fuel-2"))
    assert (row.points, row.moved_points, row.reverses_id, posted.points) == (110, -110, held.command.id, 110)
    assert posted.balance == BalanceView(account, 40, 0, 0)
    assert posted.hold == HoldView(account, held.command.id, fuel, 120, 110, 10, "CAPTURED", expires_at)
    # 110 x 0.0092 to the redeemer; 100 x 0.0100 + 10 x 0.0105 out of the pool.
    assert await till.movements("c", *ROWS) == [
        ("CAPTURE", -110, 110, fuel, 1_012_000, -1_105_000),
        ("RELEASE", 10, 10, fuel, 0, 0),
    ]
    assert await till.rows(USES) == [
        ("HOLD", first, 100, grocer, fuel, 10_000),
        ("HOLD", second, 20, fuel, fuel, 10_500),
        ("CAPTURE", first, 100, grocer, fuel, 10_000),
        ("CAPTURE", second, 10, fuel, fuel, 10_500),
        ("RELEASE", second, 10, fuel, fuel, 10_500),
    ]
    assert await till.rows(LOTS) == [(0, 0), (40, 0)]
    assert await till.rows(HOLD) == [(120, 110, 10, "CAPTURED")]
    assert await till.rows("SELECT points, amount_micro FROM position WHERE kind = 'REIMBURSEMENT'") == [
        (110, 1_012_000)
    ]


@pytest.mark.parametrize("named", NAMES.values(), ids=list(NAMES))
async def test_capture_of_all_and_void(till: Till, named: OriginalRef) -> None:
    await with_points(till)
    held = await till.accept(till.authorization("a", 120, reference="r"))
    by_id = OriginalRef(command_id=held.command.id)
    captured = await till.accept(till.capture("c", named))
    assert (captured.points, captured.balance.available, captured.balance.held) == (120, 30, 0)

    other = await till.accept(till.authorization("a2", 30))
    assert other.balance.available == 0
    by_id = OriginalRef(command_id=other.command.id)
    voided = await till.accept(till.void("v", by_id, reason="order called off"))
    row = voided.command
    assert (row.kind, row.points, row.moved_points, row.reason) == (CommandKind.VOID, None, 30, "order called off")
    assert (voided.points, voided.balance.available, voided.balance.held) == (30, 30, 0)
    assert voided.hold is not None
    assert (voided.hold.state, voided.hold.released) == ("VOIDED", 30)
    assert await till.movements("v", *ROWS) == [("RELEASE", 30, 30, till.id_of("grocer"), 0, 0)]


async def test_a_capture_of_nothing_is_a_void(till: Till) -> None:
    await with_points(till)
    await till.accept(till.authorization("a", 120))
    command = till.capture("c", "a", 0)
    posted = await till.accept(command)
    assert (posted.command.kind, posted.points, posted.balance.available) == (CommandKind.VOID, 0, 150)
    assert await till.rows(HOLD) == [(120, 0, 120, "VOIDED")]
    again = await till.accept(command)
    assert again == posted._replace(replayed=True)


async def test_a_hold_resolves_once(till: Till) -> None:
    await with_points(till)
    for name, resolution in (("a", till.capture("c", "a", 10)), ("b", till.void("v", "b"))):
        await till.accept(till.authorization(name, 50))
        await till.accept(resolution)
        await till.refuse(till.capture("c2", name), RefusalCode.HOLD_RESOLVED)
        await till.refuse(till.capture("c2", name, 0), RefusalCode.HOLD_RESOLVED)
        await till.refuse(till.void("v2", name), RefusalCode.HOLD_RESOLVED)


async def test_all_three_are_replayed(till: Till) -> None:
    await with_points(till)
    commands: list[Command] = [
        till.authorization("a", 120),
        till.capture("c", "a", 110),
        till.authorization("b", 5),
        till.void("v", "b"),
    ]
    first = [await till.accept(command) for command in commands]
    before = await contents(till.database)
    again = [await till.accept(command) for command in commands]
    assert await contents(till.database) == before
    assert [one.replayed for one in again] == [True] * 4
    assert [one.points for one in again] == [one.points for one in first] == [120, 110, 5, 5]
    assert [one.command for one in again] == [one.command for one in first]
    assert again[0].hold == first[1].hold
    assert {one.balance for one in again} == {first[3].balance}
    # In one batch, too, and found under their keys although their originals are resolved.
    assert codes(await till.queue.post_many(commands)) == {"replayed": 4}

    for other in (
        till.authorization("a", 121),
        till.burn("a", 120),
        till.capture("c", "a"),
        till.capture("c", "a", 109),
        till.capture("c", "a", 0),
        till.void("v", "b", reason="other"),
        till.void("v", "a"),
        till.capture("a", "b"),
    ):
        await till.refuse(other, RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


async def test_what_cannot_be_authorized(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), partner("fuel", state="SUSPENDED")))
    await till.accept(till.purchase("k", "100.00"))
    await till.refuse(till.authorization("a", 101), RefusalCode.INSUFFICIENT_POINTS, "points")
    await till.refuse(till.authorization("a", 0), RefusalCode.AMOUNT_INVALID, "points")
    await till.refuse(till.authorization("a", 1, partner="fuel"), RefusalCode.PARTNER_SUSPENDED)
    await till.refuse(till.authorization("a", 1, card="nobody"), RefusalCode.MEMBER_NOT_FOUND, "member")
    await till.accept(till.authorization("a", 60, reference="r"))
    await till.refuse(till.authorization("b", 1, reference="r"), RefusalCode.DUPLICATE_REFERENCE, "reference")
    # What is held is neither burned nor held again.
    await till.refuse(till.burn("b", 41), RefusalCode.INSUFFICIENT_POINTS, "points")
    await till.refuse(till.authorization("b", 41), RefusalCode.INSUFFICIENT_POINTS, "points")
    # Nor taken back for returned goods: that is a shortfall.
    returned = await till.accept(till.reversal("v", "k"))
    assert (returned.points, returned.shortfall_points) == (40, 60)


async def test_what_cannot_be_captured_or_voided(till: Till) -> None:
    await with_points(till)
    await till.accept(till.authorization("a", 50, reference="r"))
    await till.accept(till.burn("b", 5))
    refused = await till.refuse(till.capture("c", "a", 51), RefusalCode.EXCEEDS_ORIGINAL, "points")
    assert refused.message == "only 50 points are held"
    await till.refuse(till.capture("c", "a", -1), RefusalCode.AMOUNT_INVALID, "points")
    await till.refuse(till.capture("c", OriginalRef(given=0)), RefusalCode.INPUT_INVALID, "holdId")
    await till.refuse(till.void("c", OriginalRef(key="a", reference="r", given=2)), RefusalCode.INPUT_INVALID, "holdId")
    await till.refuse(till.void("c", "a", reason=""), RefusalCode.INPUT_INVALID, "reason")
    await till.refuse(till.capture("system:c", "a"), RefusalCode.INPUT_INVALID, "idempotencyKey")
    tomorrow = till.clock.now + timedelta(days=1)
    await till.refuse(till.capture("c", "a", at=tomorrow), RefusalCode.OCCURRED_IN_FUTURE, "occurredAt")
    for nothing in ("b", "k1", "unknown"):
        await till.refuse(till.capture("c", nothing), RefusalCode.TRANSACTION_NOT_FOUND)
        await till.refuse(till.void("c", nothing), RefusalCode.TRANSACTION_NOT_FOUND)
    # Another partner's is none.
    await till.refuse(till.capture("c", "a", partner="fuel"), RefusalCode.TRANSACTION_NOT_FOUND)


async def test_a_reference_that_fits_two_authorizations(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", reference_unique=False)))
    await till.accept(till.purchase("k", "100.00"))
    for number in (1, 2):
        store = StoreRef(code=f"grocer-{number}")
        await till.accept(till.authorization(f"a{number}", 10, reference="r", store=store))
    await till.refuse(till.capture("c", by_reference("r")), RefusalCode.AMBIGUOUS_REFERENCE, "reference")
    ref = by_reference("r", store=StoreRef(code="grocer-2"))
    assert (await till.accept(till.capture("c", ref))).command.store_id == till.store_of("grocer", "grocer-2")


async def test_money_is_that_of_the_authorization(open_till: OpenTill) -> None:
    terms: list[Table] = [
        {"reimbursement": "0.009000", "to": Day("2017-03-31")},
        {"reimbursement": "0.008000", "from": Day("2017-04-01")},
    ]
    till = await open_till(coalition(partner("grocer"), partner("fuel", terms=terms), hold_minutes=60 * 24 * 30))
    await till.accept(till.purchase("k", "100.00"))
    # Sent late: it counts when it occurred.
    yesterday = till.clock.now - timedelta(days=1)
    await till.accept(till.authorization("a", 50, partner="fuel", at=yesterday))
    till.clock.to(2017, 4, 5)
    await till.accept(till.capture("c", "a", 40, partner="fuel"))
    assert await till.movements("c", "kind", "reimbursement_micro", "period_id") == [
        ("CAPTURE", 360_000, APRIL),
        ("RELEASE", 0, APRIL),
    ]
    # It is booked in April, and its refund, at the same price, in April too: no prior period.
    await till.accept(till.reversal("v", "c", points=15, partner="fuel"))
    assert await till.movements("v", "kind", "points", "reimbursement_micro", "reverses_period_id") == [
        ("BURN_REVERSAL", 15, -135_000, APRIL)
    ]


async def test_a_captured_burn_is_refunded_to_its_lots_in_reverse_order(till: Till) -> None:
    first, second = await with_points(till)
    await till.accept(till.authorization("a", 120, reference="r"))
    captured = await till.accept(till.capture("c", "a", 110))
    await till.accept(till.reversal("v1", by_reference("r", CommandKind.BURN), points=15))
    assert await till.rows(USES + " DESC LIMIT 2") == [
        ("BURN_REVERSAL", first, 5, till.id_of("grocer"), till.id_of("grocer"), 10_000),
        ("BURN_REVERSAL", second, 10, till.id_of("fuel"), till.id_of("grocer"), 10_500),
    ]
    await till.refuse(till.reversal("v2", "c", points=96), RefusalCode.EXCEEDS_ORIGINAL, "points")
    rest = await till.accept(till.reversal("v2", OriginalRef(command_id=captured.command.id)))
    assert (rest.points, rest.balance.available) == (95, 150)
    await till.refuse(till.reversal("v3", by_reference("r")), RefusalCode.ALREADY_REVERSED)
    assert await till.rows("SELECT DISTINCT c.kind FROM transaction AS r JOIN transaction AS t ON t.id = r.reverses_id"
                           " JOIN command AS c ON c.id = t.command_id") == [("CAPTURE",)]  # fmt: skip


async def test_an_authorization_is_not_reversed(till: Till) -> None:
    await with_points(till)
    await till.accept(till.authorization("a", 50, reference="r"))
    await till.refuse(till.reversal("v", "a"), RefusalCode.NOT_REVERSIBLE)
    await till.accept(till.void("w", "a"))
    await till.refuse(till.reversal("v", "a"), RefusalCode.NOT_REVERSIBLE)
    await till.refuse(till.reversal("v", "w"), RefusalCode.NOT_REVERSIBLE)
    await till.refuse(till.reversal("v", by_reference("r", CommandKind.BURN)), RefusalCode.TRANSACTION_NOT_FOUND)


async def test_the_promise_stands_when_the_partner_is_suspended(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer")))
    await till.accept(till.purchase("k", "100.00"))
    for key in ("a", "b"):
        await till.accept(till.authorization(key, 30))
    await apply_toml(till.database, coalition(partner("grocer", state="SUSPENDED")))
    assert (await till.accept(till.capture("c", "a"))).points == 30
    assert (await till.accept(till.void("v", "b"))).balance.available == 70
    await till.refuse(till.authorization("d", 1), RefusalCode.PARTNER_SUSPENDED)


# ---------------------------------------------------------------- time


async def test_how_long_points_are_held(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), partner("fuel", hold_minutes=45), hold_minutes=120))
    await till.accept(till.purchase("k", "100.00"))
    for name, minutes in (("grocer", 120), ("fuel", 45)):
        posted = await till.accept(till.authorization(name, 10, partner=name))
        assert posted.hold is not None
        assert posted.hold.expires_at == till.clock.now + timedelta(minutes=minutes)


async def test_a_capture_that_comes_too_late_times_the_hold_out(till: Till) -> None:
    await with_points(till)
    held = await till.accept(till.authorization("a", 120, reference="r"))
    assert held.hold is not None
    till.clock.now = held.hold.expires_at - timedelta(microseconds=1)
    await till.refuse(till.capture("c", "a", 121), RefusalCode.EXCEEDS_ORIGINAL, "points")
    till.clock.now = held.hold.expires_at
    outcomes = await till.queue.post_many([till.capture("c", "a"), till.void("v", "a"), till.capture("c", "a", 0)])
    assert codes(outcomes) == {"HOLD_EXPIRED": 3}
    assert await till.rows(HOLD) == [(120, 0, 120, "EXPIRED")]
    key = f"system:timeout:{held.command.id}"
    assert await till.rows(
        "SELECT kind, partner_id, reference, reverses_id, occurred_at, points FROM command"
        " WHERE idempotency_key = :key",
        key=key,
    ) == [("VOID", till.id_of("grocer"), "r", held.command.id, held.hold.expires_at, None)]
    assert await till.movements(key, *ROWS) == [("RELEASE", 120, 120, till.id_of("grocer"), 0, 0)]
    assert await till.available() == 150
    # From now on there is nothing to do, so nothing changes.
    refused = await till.refuse(till.capture("c", "a"), RefusalCode.HOLD_EXPIRED)
    assert refused.message.endswith("; what is still to be paid, burn")


async def test_a_sweep_times_out_what_is_due_once(till: Till) -> None:
    await with_points(till)
    account = till.members["card-1"].account_id
    held = [await till.accept(till.authorization(key, 40)) for key in ("a", "b")]
    await till.accept(till.void("v", "b"))
    await till.accept(till.authorization("c", 10, card="card-1", partner="fuel"))
    assert held[0].hold is not None
    due_at = held[0].hold.expires_at
    till.clock.now = due_at - timedelta(microseconds=1)
    assert await due_accounts(till.database, till.clock.now, NOTHING_YET, 10) == []
    assert await till.queue.post(Sweep(account)) == Swept(account)
    till.clock.now = due_at
    assert await due_accounts(till.database, till.clock.now, NOTHING_YET, 10) == [Due(due_at, account)] * 2
    first, second = await till.queue.post_many([Sweep(account), Sweep(account)])
    assert (first, second) == (Swept(account, timed_out_holds=2), Swept(account))
    assert await due_accounts(till.database, till.clock.now, NOTHING_YET, 10) == []
    before = await contents(till.database)
    assert await till.queue.post(Sweep(account)) == Swept(account)
    assert await contents(till.database) == before
    assert await till.available() == 150
    assert await till.rows("SELECT state, count(*) FROM hold GROUP BY 1 ORDER BY 1") == [("EXPIRED", 2), ("VOIDED", 1)]


async def test_what_is_due_is_free_for_the_next_burn(till: Till) -> None:
    await with_points(till)
    await till.accept(till.authorization("a", 120))
    await till.accept(till.authorization("b", 20))
    till.clock.forward(days=7)
    posted = await till.accept(till.burn("burn", 100))
    assert (posted.balance.available, posted.balance.held) == (50, 0)
    assert await till.rows("SELECT DISTINCT state FROM hold") == [("EXPIRED",)]


async def test_a_quote_counts_what_is_due_and_changes_nothing(till: Till) -> None:
    await with_points(till)
    await till.accept(till.authorization("a", 120))
    till.clock.forward(days=7)
    before = await contents(till.database)
    quoted = await till.queue.quote(till.burn("q", 150))
    assert codes([quoted]) == {"posted": 1}
    assert await contents(till.database) == before


@pytest.mark.parametrize("way", ["capture", "void", "time-out"])
async def test_expiry_is_frozen_while_held_and_what_comes_back_has_days_of_grace(open_till: OpenTill, way: str) -> None:
    till = await open_till(
        coalition(partner("grocer"), expiry_months=1, grace_days=10, hold_minutes=60 * 24 * 40, max_backdate_days=60)
    )
    await till.accept(till.purchase("k", "100.00"))  # until 16 April
    await till.accept(till.authorization("a", 60))  # until 24 April
    till.clock.to(2017, 4, 20)
    if way == "time-out":
        till.clock.to(2017, 4, 24, 12)
        await till.queue.post(till.void("v", "a"))
    else:
        await till.accept(till.capture("c", "a", 25) if way == "capture" else till.void("v", "a"))
    burned = 25 if way == "capture" else 0
    back = 60 - burned
    # The 40 that nobody held are expired, what was held comes back.
    assert await till.rows(
        "SELECT kind, points FROM transaction WHERE kind IN ('EXPIRE', 'RELEASE') ORDER BY kind"
    ) == [
        ("EXPIRE", -40),
        ("RELEASE", back),
    ]
    assert await till.rows("SELECT remaining, reserved, grace_until FROM lot") == [
        (back, 0, till.clock.now + timedelta(days=10))
    ]
    till.clock.forward(days=9)
    assert (await till.accept(till.burn("b", 1))).balance.available == back - 1
    till.clock.forward(days=1)
    await till.refuse(till.burn("b2", 1), RefusalCode.INSUFFICIENT_POINTS, "points")


async def test_a_hold_survives_the_expiry_of_its_lot_booked_by_a_burn(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), expiry_months=1, hold_minutes=60 * 24 * 40))
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.authorization("a", 60))
    till.clock.to(2017, 4, 18)
    await till.accept(till.purchase("k2", "5.00"))
    await till.accept(till.burn("b", 5))
    assert await till.rows(LOTS) == [(0, 60), (0, 0)]
    posted = await till.accept(till.capture("c", "a"))
    assert (posted.points, posted.balance.available) == (60, 0)


# ---------------------------------------------------------------- in one batch


async def test_every_order_works_in_one_batch(till: Till) -> None:
    commands: list[Command] = [
        till.purchase("k", "100.00"),
        till.authorization("a", 60, reference="r"),
        till.authorization("b", 30),
        till.burn("too much", 11),
        till.capture("c", "a", 50),
        till.reversal("v", by_reference("r", CommandKind.BURN), points=20),
        till.void("w", "b"),
        till.capture("too late", "b"),
        till.burn("d", 70),
        till.authorization("a", 60, reference="r"),
        till.capture("c", "a", 50),
    ]
    outcomes = await till.queue.post_many(commands)
    assert [next(iter(codes([outcome]))) for outcome in outcomes] == [
        *("posted",) * 3,
        "INSUFFICIENT_POINTS",
        *("posted",) * 3,
        "HOLD_RESOLVED",
        "posted",
        *("replayed",) * 2,
    ]
    assert await till.rows(LOTS) == [(0, 0)]
    assert await till.available() == 0


async def test_a_lot_that_was_written_ahead_is_held_and_captured(till: Till) -> None:
    """A large batch writes its first rows while it decides the others."""
    cards = [f"new-{number}" for number in range(150)]
    await till.enrolled(*cards)
    commands: list[Command] = [
        *(till.purchase(f"k-{card}", "10.00", card=card) for card in cards),
        *(till.authorization(f"a-{card}", 8, card=card) for card in cards),
        *(till.capture(f"c-{card}", f"a-{card}", 5) for card in cards),
    ]
    assert codes(await till.queue.post_many(commands)) == {"posted": 450}
    assert await till.rows("SELECT DISTINCT remaining, reserved FROM lot") == [(5, 0)]
    assert await till.rows("SELECT DISTINCT captured, released, state FROM hold") == [(5, 3, "CAPTURED")]


async def test_the_database_lets_no_resolved_hold_open_again(till: Till) -> None:
    await with_points(till)
    await till.accept(till.authorization("a", 50))
    await till.accept(till.void("v", "a"))
    with pytest.raises(Exception, match="is VOIDED"):
        async with till.database.posting() as connection:
            await connection.execute(text("UPDATE hold SET state = 'OPEN', released = 0"))
    assert await till.rows("SELECT period_id FROM command WHERE kind = 'VOID'") == [(MARCH,)]
