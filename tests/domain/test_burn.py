"""Burning: whose points go first, what the redeemer gets for them, and that nobody burns what is not there."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from domain.commands import BalanceView, CommandKind, MemberRef, StoreRef
from domain.errors import RefusalCode
from tests.domain.coalitions import Day, Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import MARCH, Till

USES = "SELECT lot_id, kind, points, issuer_id, funder_id, redeemer_id, price_micro FROM lot_use ORDER BY id"


async def test_a_burn_in_all_its_rows(till: Till) -> None:
    grocer, fuel = till.id_of("grocer"), till.id_of("fuel")
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("k2", "50.00", partner="fuel"))
    at = till.clock.now - timedelta(hours=1)
    posted = await till.accept(till.burn("b", 120, partner="fuel", at=at, store=StoreRef(code="fuel-2"), reference="r"))
    [first], [second] = await till.rows("SELECT id FROM lot ORDER BY id")

    row = posted.command
    assert (row.kind, row.partner_id, row.store_id) == (CommandKind.BURN, fuel, till.store_of("fuel", "fuel-2"))
    assert (row.amount_minor, row.points, row.moved_points) == (None, 120, -120)
    assert (row.occurred_at, row.recorded_at, row.period_id) == (at, till.clock.now, MARCH)
    assert (posted.points, posted.awards, posted.budget, posted.replayed) == (120, (), None, False)
    assert posted.balance == BalanceView(till.members["card-1"].account_id, 30, 0, 0)

    assert await till.rows(USES) == [
        (first, "BURN", 100, grocer, grocer, fuel, 10_000),
        (second, "BURN", 20, fuel, fuel, fuel, 10_500),
    ]
    # 120 x 0.0092 to the redeemer; 100 x 0.0100 + 20 x 0.0105 out of the pool.
    columns = (
        "kind",
        "party_id",
        "funder_id",
        "issuer_id",
        "points",
        "reimbursement_micro",
        "pool_value_micro",
        "lot_id",
    )
    assert await till.movements("b", *columns, "issue_value_micro", "service_fee_micro", "budget_micro") == [
        ("BURN", fuel, None, None, -120, 1_104_000, -1_210_000, None, 0, 0, 0)
    ]
    assert await till.rows(
        "SELECT book, party_id, amount FROM ledger_entry WHERE kind = 'BURN' AND unit = 'MONEY' ORDER BY 1"
    ) == [("PARTNER", fuel, 1_104_000), ("POOL", 0, -1_210_000), ("SPREAD", 0, 106_000)]
    assert await till.rows("SELECT points, amount_micro FROM position WHERE kind = 'REIMBURSEMENT'") == [
        (120, 1_104_000)
    ]


async def test_earliest_expiry_first_then_earliest_earned_then_first_booked(till: Till) -> None:
    now = till.clock.now
    # Two days apart, two hours apart, and at one instant; booked in another order.
    for key, at in [
        ("c", now - timedelta(days=1)),
        ("a", now - timedelta(days=3)),
        ("d", now),
        ("b", now - timedelta(days=1, hours=2)),
        ("e", now),
    ]:
        await till.accept(till.purchase(key, "10.00", at=at, partner="fuel" if key in "ad" else "grocer"))
    for number in range(5):
        await till.accept(till.burn(f"b{number}", 10))

    used = await till.rows(
        """
        SELECT c.idempotency_key FROM lot_use AS u JOIN lot AS l ON l.id = u.lot_id
          JOIN transaction AS t ON t.id = l.transaction_id JOIN command AS c ON c.id = t.command_id ORDER BY u.id
        """
    )
    assert [key for (key,) in used] == ["a", "b", "c", "d", "e"]


async def test_a_lot_that_expires_earlier_goes_first_though_earned_later(open_till: OpenTill) -> None:
    till = await open_till()
    await till.accept(till.purchase("first", "10.00"))
    async with till.database.posting() as connection:
        # As a refund with a grace date would have it.
        await connection.execute(text("UPDATE lot SET grace_until = expires_at + interval '1 day'"))
    till.clock.forward(hours=1)
    await till.accept(till.purchase("second", "10.00"))
    await till.accept(till.burn("b", 15))

    assert await till.rows(
        "SELECT points, l.remaining FROM lot_use AS u JOIN lot AS l ON l.id = u.lot_id ORDER BY u.id"
    ) == [
        (10, 0),
        (5, 5),
    ]


async def test_nobody_burns_more_than_there_is(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))

    refused = await till.refuse(till.burn("b", 101), RefusalCode.INSUFFICIENT_POINTS, "points")
    assert refused.message == "the member has 100 points"
    await till.refuse(till.burn("b", 1, card="card-2"), RefusalCode.INSUFFICIENT_POINTS, "points")
    assert (await till.accept(till.burn("b", 100))).balance.available == 0
    await till.refuse(till.burn("b2", 1), RefusalCode.INSUFFICIENT_POINTS, "points")


async def test_who_may_not_burn(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), partner("fuel", state="SUSPENDED")))
    await till.accept(till.purchase("k", "100.00"))

    await till.refuse(till.burn("b", 1, partner="fuel"), RefusalCode.PARTNER_SUSPENDED)
    await till.refuse(till.burn("b", 1, card="nobody"), RefusalCode.MEMBER_NOT_FOUND, "member")
    await till.refuse(till.burn("b", 1, store=StoreRef(code="fuel-1")), RefusalCode.STORE_NOT_FOUND, "storeCode")
    await till.refuse(
        till.burn("b", 1, at=till.clock.now - timedelta(days=31)), RefusalCode.OCCURRED_TOO_LONG_AGO, "occurredAt"
    )
    async with till.database.posting() as connection:
        await connection.execute(text("UPDATE member SET state = 'CLOSED'"))
    await till.refuse(till.burn("b", 1), RefusalCode.MEMBER_CLOSED, "member")


async def test_the_redeemer_s_terms_are_those_of_the_day_it_happened(open_till: OpenTill) -> None:
    terms: list[Table] = [
        {"reimbursement": "0.009000", "to": Day("2017-03-14")},
        {"reimbursement": "0.008000", "from": Day("2017-03-15"), "to": Day("2017-03-15")},
    ]
    till = await open_till(coalition(partner("grocer"), partner("fuel", terms=terms)))
    await till.accept(till.purchase("k", "100.00"))
    midnight = datetime(2017, 3, 14, 23, tzinfo=UTC)

    await till.accept(till.burn("before", 10, partner="fuel", at=midnight - timedelta(microseconds=1)))
    await till.accept(till.burn("after", 10, partner="fuel", at=midnight))
    assert await till.rows("SELECT reimbursement_micro FROM transaction WHERE kind = 'BURN' ORDER BY id") == [
        (90_000,),
        (80_000,),
    ]
    till.clock.forward(days=1)
    await till.refuse(till.burn("none", 10, partner="fuel"), RefusalCode.TERMS_MISSING, "occurredAt")


async def test_a_replayed_burn_moves_nothing_and_shows_today_s_balance(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))
    command = till.burn("b", 40, partner="fuel")
    first = await till.accept(command)
    await till.accept(till.purchase("k2", "5.00", partner="fuel"))

    again = await till.accept(command)
    assert again == first._replace(replayed=True, balance=first.balance._replace(available=65))
    for other in (
        command._replace(points=41),
        command._replace(reference="other"),
        command._replace(store=StoreRef(code="fuel-1")),
        command._replace(channel="WEB"),
        command._replace(occurred_at=command.occurred_at - timedelta(seconds=1)),
        command._replace(member=MemberRef(identifier=("card", "card-2"))),
        till.purchase("b", "40.00", partner="fuel"),
    ):
        await till.refuse(other, RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")
    # The same member by its id is the same input.
    by_id = command._replace(member=MemberRef(member_id=till.members["card-1"].member_id))
    assert (await till.accept(by_id)).replayed


async def test_points_of_free_lots_are_reimbursed_all_the_same(open_till: OpenTill) -> None:
    free = {"issue_price": "0", "service_fee": "0", "reimbursement": "0"}
    till = await open_till(coalition(partner("grocer", terms=free), partner("fuel")))
    await till.accept(till.purchase("k", "10.00"))
    await till.accept(till.burn("b", 10, partner="fuel"))

    assert await till.movements("b", "reimbursement_micro", "pool_value_micro") == [(90_000, 0)]
