"""Expiry: past points are never counted nor used, and leave the ledger just before a burn or a refund meets them."""

from datetime import UTC, datetime, timedelta

from domain.commands import CommandKind
from domain.errors import RefusalCode
from tests.domain.coalitions import Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import APRIL

EXPIRIES = """
    SELECT party_id, funder_id, issuer_id, points, breakage_share_micro, pool_value_micro
      FROM transaction WHERE kind = 'EXPIRE' ORDER BY id
"""
MONTH = coalition(
    partner("grocer"),
    partner("fuel", terms={"issue_price": "0.010500", "service_fee": "0.001200", "breakage_share": "0.25"}),
    expiry_months=1,
    grace_days=10,
)
MIDNIGHT = datetime(2017, 4, 15, 22, tzinfo=UTC)
"""When points that were earned on 15 March are past: Berlin's midnight after 15 April."""
INSTANT = timedelta(microseconds=1)


async def test_a_lot_is_past_from_its_midnight_on(open_till: OpenTill) -> None:
    till = await open_till(MONTH)
    await till.accept(till.purchase("k", "100.00"))
    till.clock.now = MIDNIGHT - INSTANT
    assert (await till.accept(till.burn("last", 1))).balance.available == 99

    till.clock.now = MIDNIGHT
    refused = await till.refuse(till.burn("late", 1), RefusalCode.INSUFFICIENT_POINTS, "points")
    assert refused.message == "the member has 0 points"
    # "Past" compares with the booking: a burn of the day before that arrives now is too late as well.
    await till.refuse(till.burn("late", 1, at=MIDNIGHT - INSTANT), RefusalCode.INSUFFICIENT_POINTS, "points")
    # The ledger still has them, the balance shown does not.
    assert await till.available() == 99
    assert (await till.accept(till.purchase("k2", "5.00"))).balance.available == 5
    assert (await till.accept(till.purchase("k2", "5.00", at=till.clock.now))).balance.available == 5
    assert await till.available() == 104


async def test_a_burn_first_expires_what_is_past(open_till: OpenTill) -> None:
    till = await open_till(MONTH)
    grocer, fuel = till.id_of("grocer"), till.id_of("fuel")
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("k2", "33.00", partner="fuel"))
    await till.accept(till.burn("b1", 10))
    till.clock.now = MIDNIGHT
    await till.accept(till.purchase("k3", "50.00"))
    posted = await till.accept(till.burn("b2", 20, partner="fuel"))

    assert posted.balance.available == await till.available() == 30
    # 90 x 0.0100 x 50 %; 33 x 0.0105 x 25 %, each in a command of its own issuer, apart from the burn.
    assert await till.rows(EXPIRIES) == [
        (grocer, grocer, grocer, -90, 450_000, -900_000),
        (fuel, fuel, fuel, -33, 86_625, -346_500),
    ]
    columns = "partner_id, points, store_id, reference, occurred_at, recorded_at, period_id, reverses_id, member_id"
    member_id = till.members["card-1"].member_id
    assert await till.rows(f"SELECT {columns} FROM command WHERE kind = 'EXPIRY' ORDER BY id") == [
        (grocer, 90, 0, None, MIDNIGHT, till.clock.now, APRIL, None, member_id),
        (fuel, 33, 0, None, MIDNIGHT, till.clock.now, APRIL, None, member_id),
    ]
    assert await till.movements("b2", "kind", "points") == [("BURN", -20)]
    assert await till.rows(
        "SELECT book, party_id, amount FROM ledger_entry WHERE kind = 'EXPIRE' AND unit = 'MONEY' ORDER BY 2, 1"
    ) == [
        ("BREAKAGE", 0, 450_000),
        ("BREAKAGE", 0, 259_875),
        ("POOL", 0, -900_000),
        ("POOL", 0, -346_500),
        ("PARTNER", grocer, 450_000),
        ("PARTNER", fuel, 86_625),
    ]
    assert posted.command.kind == CommandKind.BURN
    # Their keys are nobody's: a caller can neither use nor reverse them.
    [key] = await till.rows("SELECT idempotency_key FROM command WHERE kind = 'EXPIRY' AND partner_id = :id", id=grocer)
    await till.refuse(till.reversal("v", key[0]), RefusalCode.TRANSACTION_NOT_FOUND)


async def test_the_issuer_s_share_is_rounded_half_even_to_the_micro_unit(open_till: OpenTill) -> None:
    shares = {
        "p1": ("0.000003", "0.5"),
        "p2": ("0.000001", "0.5"),
        "p3": ("0.000001", "0.500001"),
        "p4": ("0.000001", "1"),
    }
    partners = [
        partner(code, terms={"issue_price": price, "breakage_share": share}) for code, (price, share) in shares.items()
    ]
    till = await open_till(coalition(partner("grocer"), *partners, expiry_months=1))
    for code in shares:
        await till.accept(till.purchase(f"k-{code}", "1.00", partner=code))
    till.clock.now = MIDNIGHT
    await till.accept(till.purchase("now", "1.00"))
    await till.accept(till.burn("b", 1))

    assert [(row[4], row[5]) for row in await till.rows(EXPIRIES)] == [(2, -3), (0, -1), (1, -1), (1, -1)]


async def test_what_the_operator_funded_returns_to_the_operator(open_till: OpenTill) -> None:
    rules: list[Table] = [{"code": "base", "points_per_unit": "1"}, {"code": "more", "points_per_unit": "1"}]
    budget = {"limit": "1.10", "on_limit": "OPERATOR_FUNDED"}
    till = await open_till(coalition(partner("grocer", rules=rules, budgets=budget), expiry_months=1))
    await till.accept(till.purchase("k", "60.00"))
    till.clock.now = MIDNIGHT
    await till.accept(till.purchase("k2", "10.00"))
    await till.accept(till.burn("b", 1))

    grocer = till.id_of("grocer")
    assert await till.rows(EXPIRIES) == [
        (grocer, grocer, grocer, -60, 300_000, -600_000),
        (0, 0, grocer, -60, 600_000, -600_000),
    ]
    assert await till.rows("SELECT points, amount_micro FROM position WHERE kind = 'SUBSIDY' ORDER BY period_id") == [
        (60, -600_000),
        (60, 600_000),
    ]


async def test_a_burn_that_is_refused_expires_nothing(open_till: OpenTill) -> None:
    till = await open_till(MONTH)
    await till.accept(till.purchase("k", "100.00"))
    till.clock.now = MIDNIGHT
    await till.accept(till.purchase("k2", "10.00"))

    await till.refuse(till.burn("b", 11), RefusalCode.INSUFFICIENT_POINTS, "points")
    assert await till.rows(EXPIRIES) == []


async def test_a_refund_restores_the_same_lots_last_used_first(open_till: OpenTill) -> None:
    till = await open_till(MONTH)
    for key, amount in [("k1", "10.00"), ("k2", "20.00"), ("k3", "30.00")]:
        await till.accept(till.purchase(key, amount))
        till.clock.forward(minutes=1)
    await till.accept(till.burn("b", 45, partner="fuel"))
    lots = "SELECT remaining FROM lot ORDER BY id"
    assert await till.rows(lots) == [(0,), (0,), (15,)]

    posted = await till.accept(till.reversal("v1", "b", points=16, partner="fuel"))
    assert (posted.points, posted.balance.available, posted.budget) == (16, 31, None)
    assert await till.rows(lots) == [(0,), (1,), (30,)]
    assert await till.movements("v1", "kind", "party_id", "points", "reimbursement_micro", "pool_value_micro") == [
        ("BURN_REVERSAL", till.id_of("fuel"), 16, -144_000, 160_000)
    ]
    assert (await till.accept(till.reversal("v2", "b", points=19, partner="fuel"))).balance.available == 50
    assert await till.rows(lots) == [(0,), (20,), (30,)]
    assert (await till.accept(till.reversal("v3", "b", partner="fuel"))).points == 10
    assert await till.rows(lots) == [(10,), (20,), (30,)]
    await till.refuse(till.reversal("v4", "b", partner="fuel"), RefusalCode.ALREADY_REVERSED)
    await till.refuse(till.reversal("v4", "b", points=1, partner="fuel"), RefusalCode.ALREADY_REVERSED)


async def test_refunded_points_of_a_past_lot_get_a_grace_date(open_till: OpenTill) -> None:
    till = await open_till(MONTH)
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.burn("b", 40, partner="fuel"))
    till.clock.now = MIDNIGHT + timedelta(days=3)
    posted = await till.accept(till.reversal("v", "b", points=30, partner="fuel"))

    # What still lay there is past and stays so; what comes back may be used for ten days.
    assert (posted.points, posted.balance.available) == (30, 30)
    grace = till.clock.now + timedelta(days=10)
    assert await till.rows("SELECT remaining, grace_until FROM lot") == [(30, grace)]
    assert [row[3] for row in await till.rows(EXPIRIES)] == [-60]
    assert await till.rows("SELECT next_expires_at FROM account WHERE available > 0") == [(grace,)]

    # The rest of the refund a day later keeps the grace date that the lot has.
    till.clock.forward(days=1)
    assert (await till.accept(till.reversal("v2", "b", partner="fuel"))).balance.available == 40
    assert await till.rows("SELECT remaining, grace_until FROM lot") == [(40, grace)]

    till.clock.now = grace - INSTANT
    assert (await till.accept(till.burn("b2", 15))).balance.available == 25
    till.clock.now = grace
    await till.refuse(till.burn("b3", 1), RefusalCode.INSUFFICIENT_POINTS, "points")
    # Past its grace, another refund gives another one; the 25 that lay there are expired first.
    assert (await till.accept(till.reversal("v3", "b2"))).balance.available == 15
    assert [row[3:] for row in await till.rows(EXPIRIES)] == [(-60, 300_000, -600_000), (-25, 125_000, -250_000)]
    assert await till.rows("SELECT occurred_at FROM command WHERE kind = 'EXPIRY' ORDER BY id") == [
        (MIDNIGHT,),
        (grace,),
    ]


async def test_no_grace_where_the_programme_gives_none(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), expiry_months=1, grace_days=0))
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.burn("b", 40))
    till.clock.now = MIDNIGHT

    assert (await till.accept(till.reversal("v", "b"))).balance.available == 0
    assert await till.available() == 40


async def test_replays_and_quotes_count_no_past_points_either(open_till: OpenTill) -> None:
    till = await open_till(MONTH)
    purchase, burn = till.purchase("k", "100.00"), till.burn("b", 40)
    await till.accept(purchase)
    await till.accept(burn)
    till.clock.now = MIDNIGHT

    assert (await till.accept(purchase)).balance.available == 0
    assert (await till.accept(burn)).balance.available == 0
    assert await till.rows(EXPIRIES) == []
