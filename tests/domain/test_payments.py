"""Points that wait for the money of their purchase: paid before the return window is over, after it, and never."""

from datetime import UTC, datetime

from domain.commands import CommandKind, ConfirmPayment, OriginalRef, StoreRef
from domain.errors import RefusalCode
from settlement.verifying import verify
from tests.domain.coalitions import Table, campaign, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.test_pending import MOVEMENT, PRICE, balance, budget_of
from tests.domain.tills import APRIL, MARCH, Till, by_reference
from tests.factories import apply_toml

PAID_FIRST = coalition(
    partner("grocer", terms={"pending_days": 14}, risk="PAID_FIRST"),
    partner("online", risk="PAID_FIRST"),
    partner("fuel"),
)


def paid(till: Till, key: str, original: str | OriginalRef, *, partner: str = "grocer") -> ConfirmPayment:
    """The money of the purchase with that key, or of what the reference says, came in now."""
    ref = OriginalRef(key=original) if isinstance(original, str) else original
    return ConfirmPayment(till.id_of(partner), key, ref, till.clock.now)


async def test_a_payment_before_the_end_of_the_window_moves_nothing_yet(open_till: OpenTill) -> None:
    till = await open_till(PAID_FIRST)
    bought = await till.accept(till.purchase("k", "50.00"))
    assert bought.awards[0].waits_for_payment
    till.clock.to(2017, 3, 20)

    posted = await till.accept(paid(till, "p", "k"))

    assert (posted.command.kind, posted.points, posted.command.points) == (CommandKind.CONFIRMATION, 0, 0)
    assert posted.command.reverses_id == bought.command.id
    assert posted.awards[0].pending_until == datetime(2017, 3, 29, 22, tzinfo=UTC)
    assert not posted.awards[0].waits_for_payment
    assert await till.movements("p", *MOVEMENT) == [("EARN_PENDING", 0, 0, 0, 0, 0, MARCH)]
    assert await balance(till) == (0, 50)
    till.clock.to(2017, 3, 29, 21, 59)
    await till.refuse(till.burn("b", 1), RefusalCode.INSUFFICIENT_POINTS, "points")
    till.clock.to(2017, 3, 29, 22)
    await till.accept(till.burn("b", 1))
    assert await balance(till) == (49, 0)


async def test_without_a_payment_points_stay_pending_however_late_it_is(open_till: OpenTill) -> None:
    till = await open_till(PAID_FIRST)
    await till.accept(till.purchase("k", "50.00"))
    till.clock.to(2018, 3, 20)
    await till.refuse(till.burn("b", 1), RefusalCode.INSUFFICIENT_POINTS, "points")
    assert await budget_of(till) == (0, 50 * PRICE)


async def test_a_late_payment_confirms_in_its_own_command(open_till: OpenTill) -> None:
    till = await open_till(PAID_FIRST)
    await till.accept(till.purchase("k", "50.00", store=StoreRef(code="grocer-1")))
    till.clock.to(2017, 4, 20)

    posted = await till.accept(paid(till, "p", "k"))

    assert (posted.points, posted.balance.available, posted.balance.pending) == (50, 50, 0)
    assert (posted.awards[0].pending_until, posted.command.points, posted.command.reference) == (None, 50, "k")
    assert await till.movements("p", *MOVEMENT) == [("CONFIRM", 50, -500_000, -50_000, 500_000, 550_000, APRIL)]
    assert await budget_of(till) == (50 * PRICE, 0)
    assert await till.movements("p", "store_id") == [(till.store_of("grocer", "grocer-1"),)]
    # The lot is as old as the purchase, and not as its payment.
    assert await till.rows("SELECT earned_at, expires_at FROM lot") == [
        (datetime(2017, 3, 15, 12, tzinfo=UTC), datetime(2019, 3, 15, 23, tzinfo=UTC))
    ]


async def test_without_a_window_the_payment_alone_makes_points_usable(open_till: OpenTill) -> None:
    till = await open_till(PAID_FIRST)
    bought = await till.accept(till.purchase("k", "50.00", partner="online"))
    assert (bought.awards[0].pending_until, bought.awards[0].waits_for_payment) == (till.clock.now, True)
    till.clock.forward(minutes=1)
    posted = await till.accept(paid(till, "p", by_reference("k", CommandKind.EARN), partner="online"))
    assert (posted.points, posted.balance.available) == (50, 50)


async def test_what_was_returned_before_the_payment_is_not_confirmed(open_till: OpenTill) -> None:
    till = await open_till(PAID_FIRST)
    await till.accept(till.purchase("k", "50.00", partner="online"))
    await till.accept(till.reversal("r", "k", amount="20.00", partner="online"))
    posted = await till.accept(paid(till, "p", "k", partner="online"))
    assert (posted.points, posted.balance.available) == (30, 30)
    await till.accept(till.reversal("r2", "k", partner="online"))
    assert await balance(till) == (0, 0)
    assert await budget_of(till, "online") == (0, 0)


async def test_a_payment_sent_again_is_the_first_one_and_moves_nothing(open_till: OpenTill) -> None:
    till = await open_till(PAID_FIRST)
    await till.accept(till.purchase("k", "50.00"))
    early = paid(till, "p", "k")
    first = await till.accept(early)
    again = await till.accept(early)
    assert (again.replayed, again.command, again.points) == (True, first.command, 0)
    till.clock.to(2017, 4, 20)
    await till.accept(till.purchase("k2", "20.00", partner="online"))
    late = paid(till, "p2", "k2", partner="online")
    [one, two] = await till.accept_all([late, late])
    assert [(one.replayed, one.points), (two.replayed, two.points)] == [(False, 20), (True, 20)]
    again = await till.accept(late)
    assert (again.replayed, again.points, again.balance.available) == (True, 20, 20)


async def test_a_key_of_another_command_is_a_conflict(open_till: OpenTill) -> None:
    till = await open_till(PAID_FIRST)
    await till.accept_all([till.purchase("k", "50.00"), till.purchase("k2", "50.00")])
    await till.accept(paid(till, "p", "k"))
    await till.refuse(paid(till, "p", "k2"), RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")
    await till.refuse(paid(till, "k2", "k2"), RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")
    await till.refuse(till.purchase("p", "50.00"), RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")
    await till.refuse(till.reversal("p", "k"), RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


async def test_nothing_waits_for_a_second_payment_or_at_another_partner(open_till: OpenTill) -> None:
    till = await open_till(PAID_FIRST)
    await till.accept_all([till.purchase("k", "50.00"), till.purchase("usual", "50.00", partner="fuel")])
    await till.refuse(paid(till, "p", "usual", partner="fuel"), RefusalCode.NOTHING_PENDING)
    await till.accept(paid(till, "p", "k"))
    await till.refuse(paid(till, "p2", "k"), RefusalCode.NOTHING_PENDING)
    await till.accept(till.purchase("zero", "0.10"))
    await till.refuse(paid(till, "p3", "zero"), RefusalCode.NOTHING_PENDING)
    await till.accept(till.purchase("gone", "10.00"))
    await till.accept(till.reversal("r", "gone"))
    await till.refuse(paid(till, "p4", "gone"), RefusalCode.NOTHING_PENDING)


async def test_a_payment_names_a_purchase_of_the_partner(open_till: OpenTill) -> None:
    till = await open_till(PAID_FIRST)
    await till.accept_all([till.purchase("k", "50.00"), till.purchase("usual", "50.00", partner="fuel")])
    await till.accept(till.burn("b", 10, partner="fuel"))
    await till.refuse(paid(till, "p", "k", partner="online"), RefusalCode.TRANSACTION_NOT_FOUND)
    await till.refuse(paid(till, "p", "nothing"), RefusalCode.TRANSACTION_NOT_FOUND)
    await till.refuse(paid(till, "p", OriginalRef(given=0)), RefusalCode.INPUT_INVALID, "transactionId")
    await till.refuse(paid(till, "p", "b", partner="fuel"), RefusalCode.TRANSACTION_NOT_FOUND)
    await till.accept(till.authorization("hold", 10, partner="fuel"))
    refused = await till.refuse(paid(till, "p", "hold", partner="fuel"), RefusalCode.TRANSACTION_NOT_FOUND)
    assert refused.message == "this partner has no purchase with that id, key or reference"
    await till.refuse(paid(till, "system:p", "k"), RefusalCode.INPUT_INVALID, "idempotencyKey")
    late = paid(till, "p", "k")._replace(occurred_at=datetime(2017, 1, 1, tzinfo=UTC))
    await till.refuse(late, RefusalCode.OCCURRED_TOO_LONG_AGO, "occurredAt")


async def test_a_partner_that_needs_no_payment_any_more_still_confirms_what_waits(open_till: OpenTill) -> None:
    till = await open_till(PAID_FIRST)
    await till.accept(till.purchase("k", "50.00", partner="online"))
    await apply_toml(till.database, PAID_FIRST.replace('risk = "PAID_FIRST"', 'risk = "NORMAL"'))
    # As it was booked, so it waits; what is bought now does not.
    await till.accept(till.purchase("k2", "5.00", partner="online"))
    assert await balance(till) == (5, 50)
    await till.accept(paid(till, "p", "k", partner="online"))
    assert await balance(till) == (55, 0)


# ---------------------------------------------------------------- the funder's class

FUEL_PAYS = campaign("spring", ("fuel", "1"), partners=["grocer"], bonus_points=40)
JOINT = campaign("spring", ("fuel", "0.5"), ("operator", "0.5"), partners=["grocer"], bonus_points=40)


def funded(*campaigns: str, pending_days: int = 0, budget: Table | None = None) -> str:
    """A grocer whose own points wait for no money, and a fuel station whose do, which pays for bonuses there."""
    return coalition(
        partner("grocer", terms={"pending_days": pending_days}),
        partner("fuel", risk="PAID_FIRST", budgets=budget or {}),
        *campaigns,
    )


async def test_a_bonus_waits_for_the_money_of_its_funder_at_whatever_till(open_till: OpenTill) -> None:
    till = await open_till(funded(FUEL_PAYS))
    bought = await till.accept(till.purchase("k", "50.00"))
    assert [(one.granted_points, one.waits_for_payment) for one in bought.awards] == [(50, False), (40, True)]
    assert (await balance(till), await budget_of(till), await budget_of(till, "fuel")) == (
        (50, 40),
        (50 * PRICE, 0),
        (0, 40 * PRICE),
    )
    assert await till.movements("k", "kind", "points", "party_id") == [("EARN", 50, 1), ("EARN_PENDING", 40, 2)]
    till.clock.to(2018, 3, 20)
    await till.refuse(till.burn("early", 51), RefusalCode.INSUFFICIENT_POINTS, "points")

    posted = await till.accept(paid(till, "p", "k"))

    assert (posted.points, posted.balance.available, posted.balance.pending) == (40, 90, 0)
    assert await till.movements("p", "kind", "points", "party_id", "issue_value_micro") == [
        ("CONFIRM", 40, 2, -400_000)
    ]
    assert await budget_of(till, "fuel") == (40 * PRICE, 0)
    assert (await verify(till.database, till.clock)).holds


async def test_a_bonus_waits_for_window_and_money_whichever_comes_first(open_till: OpenTill) -> None:
    till = await open_till(funded(FUEL_PAYS, pending_days=14))
    await till.accept_all([till.purchase("early", "50.00"), till.purchase("late", "50.00")])
    assert await balance(till) == (0, 180)
    till.clock.to(2017, 3, 20)
    assert (await till.accept(paid(till, "p1", "early"))).points == 0
    till.clock.to(2017, 3, 30)
    # The window is over: of one purchase all is usable, of the other what waits for no money.
    await till.accept(till.burn("b", 1))
    assert await balance(till) == (139, 40)
    assert (await till.accept(paid(till, "p2", "late"))).points == 40
    assert await balance(till) == (179, 0)
    assert (await verify(till.database, till.clock)).holds


async def test_what_the_operator_pays_waits_for_no_funder(open_till: OpenTill) -> None:
    till = await open_till(funded(JOINT))
    bought = await till.accept(till.purchase("k", "50.00"))
    parts = [(one.funder_id, one.granted_points, one.waits_for_payment) for one in bought.awards]
    assert sorted(parts) == [(0, 20, False), (1, 50, False), (2, 20, True)]


async def test_a_bonus_that_the_operator_takes_over_waits_for_no_funder(open_till: OpenTill) -> None:
    till = await open_till(funded(FUEL_PAYS, budget={"limit": "0.10", "on_limit": "OPERATOR_FUNDED"}))
    bought = await till.accept(till.purchase("k", "50.00"))
    assert [(one.funder_id, one.waits_for_payment) for one in bought.awards] == [(1, False), (0, False)]
    assert await balance(till) == (90, 0)
    await till.refuse(paid(till, "p", "k"), RefusalCode.NOTHING_PENDING)


async def test_a_return_takes_a_share_of_each_part_usable_or_not(open_till: OpenTill) -> None:
    till = await open_till(funded(campaign("spring", ("fuel", "1"), partners=["grocer"], multiplier="1.5")))
    await till.accept(till.purchase("k", "100.00"))
    assert await balance(till) == (100, 50)
    await till.accept(till.reversal("r", "k", amount="40.00"))
    assert await till.movements("r", "kind", "points", "party_id") == [("EARN_REVERSAL", -40, 1), ("CANCEL", -20, 2)]
    assert await balance(till) == (60, 30)
    await till.accept(paid(till, "p", "k"))
    await till.accept(till.reversal("rest", "k"))
    assert await balance(till) == (0, 0)
    assert await budget_of(till, "fuel") == (0, 0)
    assert (await verify(till.database, till.clock)).holds
