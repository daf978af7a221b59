"""Points that move between members: lots close and children open, and the whole programme's sums stay as they are."""

from datetime import UTC, datetime
from functools import partial

from domain.commands import MemberRef
from domain.database import Database
from domain.errors import RefusalCode
from settlement.verifying import verify
from tests.domain.books import contents
from tests.domain.coalitions import coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import Till

SWITCHED_ON = partial(coalition, member_transfers=True)
ROW = ("account_id", "kind", "points", "requested_points", "party_id", "pool_value_micro", "issue_value_micro")
LOTS = """
    SELECT l.account_id, l.issuer_id, l.funder_id, l.price_micro, l.breakage_share_ppm, l.granted, l.remaining,
           p.granted, l.earned_at = coalesce(p.earned_at, l.earned_at),
           l.expires_at = coalesce(p.expires_at, l.expires_at)
      FROM lot AS l LEFT JOIN lot AS p ON p.id = l.parent_id ORDER BY l.id
"""
PROGRAMME = "SELECT sum(available), (SELECT sum(pool_value_micro) FROM transaction) FROM account"


async def test_lots_go_in_burn_order_and_keep_what_they_are(till: Till, database: Database) -> None:
    await till.accept(till.purchase("k1", "100.00"))
    till.clock.forward(days=1)
    await till.accept(till.purchase("k2", "50.00", partner="fuel"))
    before = await till.rows(PROGRAMME)
    posted = await till.accept(till.transfer("t", 120, reason="a gift"))

    assert (posted.points, posted.balance.available, posted.command.moved_points) == (120, 30, -120)
    assert (await till.available("card-1"), await till.available("card-2")) == (30, 120)
    giver, receiver = (till.members[card].account_id for card in ("card-1", "card-2"))
    assert await till.movements("t", *ROW) == [
        (giver, "TRANSFER_OUT", -120, 120, 0, 0, 0),
        (receiver, "TRANSFER_IN", 120, 120, 0, 0, 0),
    ]
    assert await till.rows(LOTS) == [
        (giver, 1, 1, 10_000, 500_000, 100, 0, None, True, True),
        (giver, 2, 2, 10_500, 500_000, 50, 30, None, True, True),
        (receiver, 1, 1, 10_000, 500_000, 100, 100, 100, True, True),
        (receiver, 2, 2, 10_500, 500_000, 20, 20, 50, True, True),
    ]
    assert await till.rows(PROGRAMME) == before
    # The receiver burns the first of them first, at the issuers' own prices.
    await till.accept(till.burn("b", 110, card="card-2", partner="fuel"))
    assert await till.movements("b", "pool_value_micro") == [(-(100 * 10_000 + 10 * 10_500),)]
    assert (await verify(database, till.clock)).holds


async def test_a_replay_moves_nothing_and_other_input_conflicts(till: Till) -> None:
    await till.enrolled("card-3")
    await till.accept(till.purchase("k", "100.00"))
    sent = till.transfer("t", 60)
    await till.accept(sent)
    before = await contents(till.database)
    again = await till.accept(sent)
    assert (again.replayed, again.points, again.balance.available) == (True, 60, 40)
    assert await contents(till.database) == before
    for other in (
        till.transfer("t", 61),
        till.transfer("t", 60, target="card-3"),
        till.transfer("t", 60, source="card-3"),
        till.transfer("t", 60, reason="other"),
    ):
        await till.refuse(other, RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


async def test_what_cannot_be_transferred(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))
    nobody = MemberRef(identifier=("card", "nobody"))
    await till.refuse(till.transfer("t", 101), RefusalCode.INSUFFICIENT_POINTS, "points")
    await till.refuse(till.transfer("t", 0), RefusalCode.AMOUNT_INVALID, "points")
    await till.refuse(till.transfer("t", 1, target="card-1"), RefusalCode.INPUT_INVALID, "to")
    await till.refuse(till.transfer("t", 1)._replace(source=nobody), RefusalCode.MEMBER_NOT_FOUND, "from")
    await till.refuse(till.transfer("t", 1)._replace(target=nobody), RefusalCode.MEMBER_NOT_FOUND, "to")
    await till.refuse(till.transfer("t", 1, reason=" "), RefusalCode.INPUT_INVALID, "reason")
    await till.refuse(till.transfer("system:t", 1), RefusalCode.INPUT_INVALID, "idempotencyKey")
    future = datetime(2017, 3, 16, tzinfo=UTC)
    await till.refuse(till.transfer("t", 1, at=future), RefusalCode.OCCURRED_IN_FUTURE, "occurredAt")
    async with till.database.posting() as connection:
        await connection.exec_driver_sql("UPDATE member SET state = 'CLOSED' WHERE account_id = "
                                         f"{till.members['card-2'].account_id}")  # fmt: skip
    await till.refuse(till.transfer("t", 1), RefusalCode.MEMBER_CLOSED, "to")


async def test_a_partner_needs_the_programme_s_consent(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))
    await till.refuse(till.transfer("t", 1, partner="grocer"), RefusalCode.TRANSFER_NOT_ALLOWED)


async def test_limits_bind_partners_and_not_the_operator(open_till: OpenTill) -> None:
    limits = {"transfer_max_points": 50, "transfer_max_points_per_day": 70}
    till = await open_till(SWITCHED_ON(partner("grocer"), partner("fuel"), **limits))
    await till.accept(till.purchase("k", "1000.00"))
    await till.refuse(till.transfer("t1", 51, partner="grocer"), RefusalCode.LIMIT_EXCEEDED, "points")
    await till.accept(till.transfer("t2", 50, partner="grocer"))
    await till.accept(till.transfer("t3", 200))
    # 20 are left of the day, whichever partner asks, in one batch too.
    await till.refuse(till.transfer("t4", 21, partner="fuel"), RefusalCode.LIMIT_EXCEEDED, "points")
    outcomes = await till.queue.post_many([till.transfer(f"t5-{n}", 15, partner="fuel") for n in range(2)])
    assert [getattr(outcome, "code", "posted") for outcome in outcomes] == ["posted", "LIMIT_EXCEEDED"]
    # Another member has a limit of its own, and tomorrow is another day.
    await till.accept(till.transfer("t6", 50, source="card-2", target="card-1", partner="grocer"))
    till.clock.to(2017, 3, 15, 23, 0)
    await till.accept(till.transfer("t7", 50, partner="grocer"))


async def test_a_household_gives_nobody_a_second_limit(open_till: OpenTill) -> None:
    till = await open_till(SWITCHED_ON(partner("grocer"), transfer_max_points_per_day=70))
    await till.accept(till.purchase("k", "1000.00"))
    await till.accept(till.transfer("t1", 40, partner="grocer"))
    await till.accept(till.founding("create"))
    await till.refuse(till.transfer("t2", 31, partner="grocer"), RefusalCode.LIMIT_EXCEEDED, "points")
    await till.accept(till.transfer("t3", 20, partner="grocer"))
    await till.accept(till.leaving("leave", "card-1"))
    await till.refuse(till.transfer("t4", 11, partner="grocer"), RefusalCode.LIMIT_EXCEEDED, "points")
    await till.accept(till.transfer("t5", 10, partner="grocer"))


async def test_what_is_past_expires_first_and_does_not_move(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), expiry_months=1))
    await till.accept(till.purchase("k1", "100.00"))
    till.clock.to(2017, 4, 10)
    await till.accept(till.purchase("k2", "30.00"))
    till.clock.to(2017, 4, 17)
    await till.refuse(till.transfer("t", 31), RefusalCode.INSUFFICIENT_POINTS, "points")
    await till.accept(till.transfer("t", 30))
    assert await till.rows("SELECT kind, points FROM transaction ORDER BY id") == [
        ("EARN", 100), ("EARN", 30), ("EXPIRE", -100), ("TRANSFER_OUT", -30), ("TRANSFER_IN", 30),
    ]  # fmt: skip
    # The child expires when its parent would have.
    till.clock.to(2017, 5, 11)
    await till.refuse(till.burn("b", 1, card="card-2"), RefusalCode.INSUFFICIENT_POINTS, "points")


async def test_a_burn_is_refunded_to_its_lot_whoever_has_the_rest(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.burn("b", 40))
    await till.accept(till.transfer("t", 60))
    await till.accept(till.reversal("v", "b"))
    assert (await till.available("card-1"), await till.available("card-2")) == (40, 60)
    assert await till.rows("SELECT granted, remaining FROM lot ORDER BY id") == [(100, 40), (60, 60)]


async def test_a_return_after_the_gift_takes_other_lots_and_then_is_short(till: Till) -> None:
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.transfer("t", 100))
    await till.accept(till.purchase("k2", "30.00"))
    await till.accept(till.purchase("k3", "30.00", partner="fuel"))
    posted = await till.accept(till.reversal("v", "k1"))
    assert (posted.points, posted.shortfall_points) == (30, 70)
    assert (await till.available("card-1"), await till.available("card-2")) == (30, 100)


async def test_claw_back_from_all_lots_pays_the_difference_out_of_spread(open_till: OpenTill) -> None:
    dear = partner("fuel", terms={"issue_price": "0.012000"})
    till = await open_till(coalition(partner("grocer"), dear, claw_back="all_lots"))
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.burn("b", 100))
    await till.accept(till.purchase("k2", "60.00", partner="fuel"))
    posted = await till.accept(till.reversal("v", "k1", amount="80.00"))
    assert (posted.points, posted.shortfall_points) == (60, 20)
    # 60 of fuel's points leave the pool at 0.012, the grocer is credited at its own 0.010: 0.12 of spread.
    columns = ("points", "shortfall_points", "issue_value_micro", "pool_value_micro", "party_id")
    assert await till.movements("v", *columns) == [
        (0, 20, 0, 0, 1), (-60, 0, 600_000, -720_000, 1),
    ]  # fmt: skip
    spread = "SELECT sum(amount)::bigint FROM ledger_entry WHERE book = 'SPREAD' AND kind = 'EARN_REVERSAL'"
    assert await till.one(spread) == 120_000
    assert await till.rows("SELECT issuer_id, funder_id FROM lot_use WHERE kind = 'EARN_REVERSAL'") == [(2, 2)]
    assert (await verify(till.database, till.clock)).holds
