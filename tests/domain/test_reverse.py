"""Goods returned: which purchase, how much of it, and what becomes of points, money and budget."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain import queue as queue_module
from domain.batch import Original
from domain.commands import BalanceView, BudgetView, CommandKind, OriginalRef, Posted, Refusal, StoreRef
from domain.errors import RefusalCode
from domain.loading import load_commands
from tests.domain.coalitions import Day, Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import APRIL, MARCH, Till, by_reference, queue_on, window_of

ROW = ("points", "shortfall_points", "issue_value_micro", "service_fee_micro", "pool_value_micro", "budget_micro")


async def test_a_whole_return_in_all_its_rows(till: Till) -> None:
    grocer = till.id_of("grocer")
    purchase = await till.accept(till.purchase("k", "100.00", store=StoreRef(code="grocer-2"), reference="r"))
    till.clock.forward(hours=1)
    posted = await till.accept(till.reversal("v", "k", reason="spoiled"))

    row = posted.command
    assert (row.kind, row.partner_id, row.key, row.reverses_id) == (
        CommandKind.REVERSAL,
        grocer,
        "v",
        purchase.command.id,
    )
    assert (row.store_id, row.reference, row.reason) == (till.store_of("grocer", "grocer-2"), "r", "spoiled")
    assert (row.amount_minor, row.points, row.moved_points, row.period_id) == (10_000, None, -100, MARCH)
    assert (posted.points, posted.shortfall_points, posted.awards, posted.replayed) == (100, 0, (), False)
    assert posted.balance == BalanceView(till.members["card-1"].account_id, 0, 0, 0)
    assert window_of(posted) == BudgetView(grocer, 1_500_000_000, 0, 0, 0, None)
    [(award_id, lot_id)] = await till.movements("k", "id", "lot_id")
    columns = ("kind", "party_id", "funder_id", "issuer_id", "lot_id", "reverses_id", "reverses_period_id")
    assert await till.movements("v", *columns) == [("EARN_REVERSAL", grocer, grocer, grocer, lot_id, award_id, MARCH)]
    assert await till.movements("v", *ROW) == [(-100, 0, 1_000_000, 100_000, -1_000_000, -1_100_000)]
    assert await till.rows("SELECT kind, points, amount_micro, prior_amount_micro FROM position ORDER BY 1") == [
        ("EARN_REVERSAL", 100, 1_000_000, 0),
        ("ISSUE", 100, -1_000_000, 0),
        ("POOL", 0, 0, 0),
        ("SERVICE_FEE", 100, -100_000, 0),
        ("SERVICE_FEE_REFUND", 100, 100_000, 0),
    ]
    await till.refuse(till.reversal("v2", "k"), RefusalCode.ALREADY_REVERSED)
    await till.refuse(till.reversal("v2", "k", amount="0.01"), RefusalCode.ALREADY_REVERSED)


async def test_partial_returns_by_amount_take_back_what_is_no_longer_earned(till: Till) -> None:
    await till.accept(till.purchase("k", "100.50"))

    taken = []
    for number, amount in enumerate(["0.50", "0.01", "33.33", "0.16", "50.00", "16.49"]):
        posted = await till.accept(till.reversal(f"v{number}", "k", amount=amount))
        taken.append(posted.points)
    # Kept: 100.00, 99.99, 66.66, 66.50, 16.50, 0.01.
    assert taken == [0, 1, 33, 0, 50, 16]
    # One that takes no point is a row all the same.
    assert await till.movements("v0", *ROW) == [(0, 0, 0, 0, 0, 0)]
    await till.refuse(till.reversal("v", "k", amount="0.02"), RefusalCode.EXCEEDS_ORIGINAL, "amount")
    await till.refuse(till.reversal("v", "k", amount="0.00"), RefusalCode.AMOUNT_INVALID, "amount")
    rest = await till.accept(till.reversal("v", "k"))
    assert (rest.points, rest.command.amount_minor, rest.balance.available) == (0, 1, 0)
    await till.refuse(till.reversal("w", "k", amount="0.01"), RefusalCode.ALREADY_REVERSED)
    assert await till.budget() == (0, False)


async def test_returns_by_lines_and_by_amount_mix(open_till: OpenTill) -> None:
    rules: list[Table] = [
        {"code": "base", "points_per_unit": "1", "exclude_categories": ["alcohol"]},
        {"code": "wine", "points_per_unit": "2", "exclude_categories": ["dairy"], "max_points": 50},
    ]
    till = await open_till(coalition(partner("grocer", rules=rules)))
    basket = [("milk", "dairy", "4", "40.00"), ("wine", "alcohol", "2", "60.00")]
    bought = await till.accept(till.purchase("k", "100.00", lines=basket))
    assert [award.granted_points for award in bought.awards] == [40, 50]

    # Wine for 30.00 still stays: base keeps 40; 2 x 30 = 60, capped to 50 as before.
    wine_back = await till.accept(till.reversal("v1", "k", lines=[("wine", "alcohol", "1", "30.00")]))
    assert (wine_back.points, await till.movements("v1", "points")) == (0, [(0,)])
    # 10.00 of the 70.00 that stay: base 40 x 60/70 = 34.28, wine 2 x (30 x 60/70) = 51.42, capped.
    some_back = await till.accept(till.reversal("v2", "k", amount="10.00"))
    assert (some_back.points, await till.movements("v2", "points")) == (6, [(-6,)])
    # One milk, known by its number alone: (40 - 10) x 50/60 = 25; wine 30 x 50/60 = 25.00, twice: 50.
    milk_back = await till.accept(till.reversal("v3", "k", lines=[("milk", None, "1", "10.00")], amount="10.00"))
    assert (milk_back.points, await till.movements("v3", "points")) == (9, [(-9,)])
    rest = await till.accept(till.reversal("v4", "k"))
    assert (rest.points, rest.command.amount_minor) == (75, 5_000)
    assert await till.movements("v4", "points") == [(-25,), (-50,)]


async def test_what_is_wrong_with_a_return_is_named(till: Till) -> None:
    basket = [("milk", "dairy", "4", "40.00"), ("wine", "alcohol", "2", "60.00")]
    await till.accept(till.purchase("lines", "100.00", lines=basket))
    await till.accept(till.purchase("amount", "100.00"))
    await till.accept(till.burn("burn", 30))

    exceeds, invalid, amount_invalid = (
        RefusalCode.EXCEEDS_ORIGINAL,
        RefusalCode.INPUT_INVALID,
        RefusalCode.AMOUNT_INVALID,
    )
    for command, code, field_name in [
        (till.reversal("v", "amount", amount="100.01"), exceeds, "amount"),
        (till.reversal("v", "amount", lines=[("milk", None, "1", "1.00")]), invalid, "lines"),
        (till.reversal("v", "amount", points=5), invalid, "points"),
        (till.reversal("v", "lines", lines=[("milk", "dairy", "5", "40.00")]), exceeds, "lines.0"),
        (till.reversal("v", "lines", lines=[("milk", "dairy", "4", "40.01")]), exceeds, "lines.0"),
        (till.reversal("v", "lines", lines=[basket[0], ("beer", None, "1", "1.00")]), exceeds, "lines.1"),
        (till.reversal("v", "lines", lines=[basket[0]], amount="39.99"), amount_invalid, "lines"),
        (till.reversal("v", "lines", lines=[]), amount_invalid, "amount"),
        (till.reversal("v", "lines", lines=[("milk", "dairy", "1", "0.00")]), amount_invalid, "amount"),
        (till.reversal("v", "burn", amount="1.00"), invalid, "amount"),
        (till.reversal("v", "burn", lines=[("milk", None, "1", "1.00")]), invalid, "amount"),
        (till.reversal("v", "burn", points=31), exceeds, "points"),
        (till.reversal("v", "burn", points=0), amount_invalid, "points"),
        (
            till.reversal("v", OriginalRef(reference="burn", store=StoreRef(code="fuel-1"))),
            RefusalCode.STORE_NOT_FOUND,
            "storeCode",
        ),
        (
            till.reversal("v", "amount", at=till.clock.now - timedelta(days=31)),
            RefusalCode.OCCURRED_TOO_LONG_AGO,
            "occurredAt",
        ),
    ]:
        await till.refuse(command, code, field_name)
    # More than is kept together, though each part alone would do.
    await till.accept(till.reversal("some", "lines", amount="90.00"))
    await till.refuse(till.reversal("v", "lines", lines=[("milk", "dairy", "1", "10.01")]), exceeds, "amount")


async def test_a_purchase_of_nothing_is_returned_once(till: Till) -> None:
    await till.accept(till.purchase("k", "0.00"))
    posted = await till.accept(till.reversal("v", "k"))

    assert (posted.points, posted.command.amount_minor) == (0, 0)
    assert await till.movements("v", *ROW) == [(0, 0, 0, 0, 0, 0)]
    await till.refuse(till.reversal("v2", "k"), RefusalCode.ALREADY_REVERSED)
    await till.accept(till.purchase("k2", "0.00"))
    await till.refuse(till.reversal("v2", "k2", amount="0.01"), RefusalCode.EXCEEDS_ORIGINAL, "amount")
    assert (await till.accept(till.reversal("v2", "k2", amount="0.00"))).points == 0


async def test_the_original_by_id_by_key_or_by_reference(till: Till) -> None:
    one, two = StoreRef(code="grocer-1"), StoreRef(store_id=till.store_of("grocer", "grocer-2"))
    first = await till.accept(till.purchase("k1", reference="r", store=one))
    await till.accept(till.purchase("k2", reference="r", store=two))
    await till.accept(till.burn("b1", 7, reference="r", store=one))
    await till.accept(till.burn("b2", 8, reference="alone"))

    ambiguous = RefusalCode.AMBIGUOUS_REFERENCE
    await till.refuse(till.reversal("v", by_reference("r")), ambiguous, "reference")
    await till.refuse(till.reversal("v", by_reference("r", CommandKind.EARN)), ambiguous, "reference")
    await till.refuse(till.reversal("v", by_reference("r", store=one)), ambiguous, "reference")
    for original in (
        by_reference("nowhere"),
        by_reference("alone", CommandKind.EARN),
        by_reference("r", CommandKind.BURN, two),
        by_reference("r", CommandKind.REVERSAL),
        OriginalRef(command_id=first.command.id, kind=CommandKind.BURN),
    ):
        await till.refuse(till.reversal("v", original), RefusalCode.TRANSACTION_NOT_FOUND)

    async def reversed_key(key: str, original: str | OriginalRef) -> str:
        posted = await till.accept(till.reversal(key, original))
        [[found]] = await till.rows("SELECT idempotency_key FROM command WHERE id = :id", id=posted.command.reverses_id)
        return str(found)

    assert await reversed_key("v1", by_reference("r", CommandKind.BURN)) == "b1"
    assert await reversed_key("v2", by_reference("r", CommandKind.EARN, two)) == "k2"
    assert await reversed_key("v3", by_reference("alone")) == "b2"
    assert await reversed_key("v4", OriginalRef(command_id=first.command.id)) == "k1"


async def test_a_replayed_return_means_what_it_meant(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", reference_unique=False)))
    first = await till.accept(till.purchase("k1", "10.00", reference="r"))
    command = till.reversal("v", by_reference("r"), amount="4.00")
    posted = await till.accept(command)
    # The reference is used again, thrice; the first return is still told from a new one.
    for key in ("k2", "k3", "k4"):
        await till.accept(till.purchase(key, "20.00", reference="r"))

    again = await till.accept(command)
    assert again == posted._replace(replayed=True, balance=posted.balance._replace(available=66), budget=again.budget)
    assert window_of(again) == BudgetView(1, 1_500_000_000, 0, 66 * 11_000, 0, None)
    by_id = command._replace(original=OriginalRef(command_id=first.command.id))
    assert (await till.accept(by_id)).replayed
    await till.refuse(till.reversal("v2", by_reference("r")), RefusalCode.AMBIGUOUS_REFERENCE, "reference")
    conflict = RefusalCode.IDEMPOTENCY_CONFLICT
    for other in (
        command._replace(amount=till.money("4.01")),
        command._replace(amount=None),
        command._replace(original=OriginalRef(key="k2")),
        command._replace(reason="other"),
        command._replace(occurred_at=command.occurred_at + timedelta(seconds=1)),
        till.purchase("v", "4.00"),
    ):
        await till.refuse(other, conflict, "idempotencyKey")


async def test_a_replayed_return_is_told_from_newer_purchases_with_lower_ids(open_till: OpenTill) -> None:
    # Processes draw ids in blocks: what another one posts later may stand before.
    till = await open_till(coalition(partner("grocer", reference_unique=False)))
    async with queue_on(till.database, till.configuration) as other:
        await other.accept(other.purchase("original", "10.00", reference="r"))
        command = till.reversal("v", by_reference("r"), amount="4.00")
        posted = await till.accept(command)
        later = await till.accept_all([till.purchase(f"k{number}", "1.00", reference="r") for number in range(3)])

        assert max(receipt.command.id for receipt in later) < (posted.command.reverses_id or 0)
        for queue in (till.queue, other.queue):
            again = await queue.post(command)
            assert isinstance(again, Posted)
            assert (again.replayed, again.command.reverses_id) == (True, posted.command.reverses_id)


async def test_a_whole_return_sent_again_is_a_replay_and_not_a_smaller_one(till: Till) -> None:
    await till.accept(till.purchase("k", "10.00"))
    await till.accept(till.burn("b", 6))
    returned, refunded = till.reversal("v", "k"), till.reversal("w", "b")
    first, second = await till.accept(refunded), await till.accept(returned)

    assert (await till.accept(refunded)) == first._replace(replayed=True, balance=first.balance._replace(available=0))
    assert (await till.accept(returned)) == second._replace(replayed=True)
    for other in (
        till.reversal("v", "k", amount="10.00"),
        till.reversal("w", "b", points=6),
    ):
        await till.refuse(other, RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


async def test_a_later_period_s_return_is_priced_as_the_purchase_was(open_till: OpenTill) -> None:
    terms: list[Table] = [{"to": Day("2017-03-31")}, {"from": Day("2017-04-01"), "issue_price": "0.010200"}]
    till = await open_till(coalition(partner("grocer", terms=terms)))
    await till.accept(till.purchase("k", "100.00"))
    till.clock.to(2017, 4, 10)
    await till.accept(till.purchase("k2", "50.00"))
    posted = await till.accept(till.reversal("v", "k", amount="40.00"))

    assert posted.command.period_id == APRIL
    assert await till.movements("v", *ROW, "reverses_period_id") == [
        (-40, 0, 400_000, 40_000, -400_000, -440_000, MARCH)
    ]
    # The credit is April's money; March keeps what it spent.
    assert await till.budget() == (1_100_000, False)
    assert await till.budget(period_id=APRIL) == (50 * 11_200 - 440_000, False)
    assert await till.rows("SELECT amount_micro, prior_amount_micro FROM position WHERE kind = 'EARN_REVERSAL'") == [
        (400_000, 400_000)
    ]


async def test_a_budget_may_be_credited_below_nothing(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))
    till.clock.to(2017, 4, 10)
    posted = await till.accept(till.reversal("v", "k"))

    assert window_of(posted) == BudgetView(1, 1_500_000_000, 0, -1_100_000, 0, None)


async def test_use_or_lose_lets_the_money_of_a_past_window_lapse(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", budgets={"after_period": "USE_OR_LOSE"})))
    await till.accept(till.purchase("k", "100.00"))
    assert (await till.accept(till.reversal("v1", "k", amount="10.00"))).points == 10
    assert await till.budget() == (990_000, False)
    till.clock.to(2017, 4, 10)
    posted = await till.accept(till.reversal("v2", "k", amount="40.00"))

    # The partner is credited on its statement all the same.
    assert window_of(posted) == BudgetView(1, 1_500_000_000, 0, 0, 0, None)
    assert await till.movements("v2", *ROW, "budget_id") == [(-40, 0, 400_000, 40_000, -400_000, 0, None)]
    assert await till.budget() == (990_000, False)


async def test_a_return_two_periods_later_credits_the_current_window(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))
    till.clock.to(2017, 4, 10)
    await till.accept(till.reversal("v1", "k", amount="10.00"))
    till.clock.to(2017, 5, 10)
    posted = await till.accept(till.reversal("v2", "k"))

    assert [await till.budget(period_id=period_id) for period_id in (MARCH, APRIL, APRIL + 1)] == [
        (1_100_000, False),
        (-110_000, False),
        (-990_000, False),
    ]
    assert window_of(posted) == BudgetView(1, 1_500_000_000, 0, -990_000, 0, None)


async def test_a_return_without_a_current_window_is_credited_on_the_statement_alone(open_till: OpenTill) -> None:
    only_march: Table = {"to": Day("2017-03-31")}
    till = await open_till(coalition(partner("grocer", budgets=only_march)))
    await till.accept(till.purchase("k", "100.00"))
    till.clock.to(2017, 4, 10)
    posted = await till.accept(till.reversal("v", "k", amount="40.00"))

    assert posted.budget is None
    assert await till.movements("v", *ROW, "budget_id") == [(-40, 0, 400_000, 40_000, -400_000, 0, None)]
    assert await till.budget(period_id=0) == (1_100_000, False)


async def test_a_suspended_partner_may_take_goods_back(
    open_till: OpenTill,
) -> None:
    toml = coalition(partner("grocer"), partner("fuel"))
    till = await open_till(toml)
    await till.accept(till.purchase("k"))
    await till.accept(till.burn("b", 10))
    other = await open_till(coalition(partner("grocer", state="SUSPENDED"), partner("fuel")))

    assert isinstance(await other.queue.post(other.purchase("k2")), Refusal)
    assert isinstance(await other.queue.post(other.reversal("v", "k", amount="50.00")), Posted)
    assert isinstance(await other.queue.post(other.reversal("w", "b")), Posted)


async def test_a_return_of_the_day_before_the_period_s_border(till: Till) -> None:
    till.clock.now = datetime(2017, 3, 31, 21, 59, tzinfo=UTC)
    purchase = till.clock.now
    await till.accept(till.purchase("k"))
    till.clock.forward(minutes=2)
    posted = await till.accept(till.reversal("v", "k", at=purchase))

    assert (posted.command.period_id, posted.command.occurred_at) == (APRIL, purchase)


async def test_a_reference_on_every_receipt_is_not_read_with_every_receipt(
    open_till: OpenTill, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = await open_till(coalition(partner("grocer", reference_unique=False)))
    await till.accept_all([till.purchase(f"k{number}", "1.00", reference="-") for number in range(200)])
    found: list[int] = []

    async def counted(*arguments: Any, **keywords: Any) -> list[Original]:
        originals = await load_commands(*arguments, **keywords)
        found.append(len(originals))
        return originals

    monkeypatch.setattr(queue_module, "load_commands", counted)
    await till.accept_all([till.purchase(f"l{number}", "1.00", reference="-") for number in range(5)])
    assert found == [0]
    await till.refuse(till.reversal("v", by_reference("-")), RefusalCode.AMBIGUOUS_REFERENCE, "reference")
    assert max(found) == 2
