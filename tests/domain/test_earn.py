"""A purchase: what it earns, what stands in the ledger for it, and on whose terms."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from domain.commands import AwardResult, BalanceView, BudgetView, CommandKind, MemberRef, StoreRef
from domain.errors import RefusalCode
from tests.domain.coalitions import Day, Table, coalition, partner, without_budget
from tests.domain.conftest import OpenTill
from tests.domain.tills import MARCH, Till, window_of

CLOSE_SQL = text("UPDATE member SET state = 'CLOSED' WHERE id = :id")
MONEY = ("issue_value_micro", "service_fee_micro", "reimbursement_micro", "breakage_share_micro", "pool_value_micro")


async def test_a_purchase_in_all_its_rows(till: Till) -> None:
    at = till.clock.now - timedelta(days=2)
    command = till.purchase("k", "100.50", at=at, store=StoreRef(code="grocer-1"), channel="STORE", reference="r-1")
    posted = await till.accept(command)
    member, grocer = till.members["card-1"], till.id_of("grocer")

    row = posted.command
    assert (row.kind, row.partner_id, row.key) == (CommandKind.EARN, grocer, "k")
    assert (row.reference, row.channel) == ("r-1", "STORE")
    assert (row.account_id, row.member_id, row.store_id) == (
        member.account_id,
        member.member_id,
        till.store_of("grocer", "grocer-1"),
    )
    assert (row.amount_minor, row.points, row.moved_points, row.declined_points) == (10_050, None, 100, 0)
    assert (row.occurred_at, row.recorded_at, row.period_id) == (at, till.clock.now, MARCH)
    assert (posted.points, posted.declined_points, posted.shortfall_points, posted.replayed) == (100, 0, 0, False)
    assert posted.awards == (AwardResult("base", grocer, 100, 100),)
    assert posted.balance == BalanceView(member.account_id, 100, 0, 0)
    assert window_of(posted) == BudgetView(grocer, 1_500_000_000, 0, 1_100_000, 0, None)

    assert await till.movements("k", "kind", "party_id", "funder_id", "issuer_id", "points", "requested_points") == [
        ("EARN", grocer, grocer, grocer, 100, 100)
    ]
    assert await till.movements("k", *MONEY) == [(-1_000_000, -100_000, 0, 0, 1_000_000)]
    assert await till.rows(
        "SELECT issuer_id, funder_id, price_micro, breakage_share_ppm, granted, remaining, earned_at, expires_at,"
        " grace_until FROM lot"
    ) == [(grocer, grocer, 10_000, 500_000, 100, 100, at, datetime(2019, 3, 13, 23, tzinfo=UTC), None)]
    assert await till.rows("SELECT unit, book, party_id, amount FROM ledger_entry ORDER BY 1, 2") == [
        ("MONEY", "FEES", 0, 100_000),
        ("MONEY", "PARTNER", grocer, -1_100_000),
        ("MONEY", "POOL", 0, 1_000_000),
        ("POINTS", "ISSUED", grocer, -100),
        ("POINTS", "MEMBER", None, 100),
    ]
    assert await till.rows(
        "SELECT period_id, partner_id, kind, entries, points, amount_micro FROM position ORDER BY 3"
    ) == [
        (MARCH, grocer, "ISSUE", 1, 100, -1_000_000),
        (MARCH, 0, "POOL", 1, 100, 1_000_000),
        (MARCH, grocer, "SERVICE_FEE", 1, 100, -100_000),
    ]


async def test_a_purchase_of_nothing_is_a_row_of_nothing(till: Till) -> None:
    for key, amount in [("nothing", "0"), ("little", "0.99")]:
        posted = await till.accept(till.purchase(key, amount))

        assert (posted.points, posted.balance.available) == (0, 0)
        assert posted.awards == (AwardResult("base", till.id_of("grocer"), 0, 0),)
        assert await till.movements(key, "kind", "points", "lot_id", "budget_micro", *MONEY) == [
            ("EARN", 0, None, 0, *[0] * 5)
        ]
    assert await till.one("SELECT count(*) FROM lot") == 0
    assert await till.budget() == (0, False)
    assert await till.rows("SELECT kind, entries FROM position ORDER BY 1") == [
        ("ISSUE", 2),
        ("POOL", 2),
        ("SERVICE_FEE", 2),
    ]


async def test_a_partner_without_rules_or_without_plan_still_records_sales(open_till: OpenTill) -> None:
    till = await open_till(without_budget(coalition(partner("grocer", rules=()), partner("fuel"))))

    posted = await till.accept(till.purchase("k", "80.00"))
    assert (posted.points, posted.budget) == (0, None)
    assert posted.awards == (AwardResult(None, till.id_of("grocer"), 0, 0),)
    assert (await till.accept(till.purchase("k2", "0.50", partner="fuel"))).points == 0
    await till.refuse(till.purchase("k3", "1.00", partner="fuel"), RefusalCode.BUDGET_EXHAUSTED)


async def test_each_rule_is_an_award_and_a_lot_of_its_own(open_till: OpenTill) -> None:
    rules: list[Table] = [
        {"code": "wine", "points_per_unit": "2", "exclude_categories": ["dairy"], "max_points": 25},
        {"code": "base", "points_per_unit": "0.5", "exclude_products": ["gift-card"]},
    ]
    till = await open_till(coalition(partner("grocer", rules=rules)))
    basket = [
        ("milk", "dairy", "2", "3.00"),
        ("wine", "alcohol", "1", "12.50"),
        ("gift-card", None, "1", "50.00"),
        (None, None, "0.125", "1.49"),
    ]
    posted = await till.accept(till.purchase("k", "66.99", lines=basket))

    # Base first: floor(0.5 x 16.99) = 8; then wine: floor(2 x 63.99) = 127, at most 25.
    assert posted.awards == (AwardResult("base", 1, 8, 8), AwardResult("wine", 1, 25, 25))
    assert posted.points == 33
    assert await till.movements("k", "points", "requested_points", *MONEY) == [
        (8, 8, -80_000, -8_000, 0, 0, 80_000),
        (25, 25, -250_000, -25_000, 0, 0, 250_000),
    ]
    assert await till.rows("SELECT granted FROM lot ORDER BY id") == [(8,), (25,)]
    assert await till.rows("SELECT eligible_minor, lines FROM command WHERE idempotency_key = 'k'") == [
        (
            1_699,
            '[["milk","dairy",2000,300],["wine","alcohol",1000,1250],["gift-card",null,1000,5000],[null,null,125,149]]',
        )
    ]


async def test_the_till_s_store_by_id_by_code_or_by_both(till: Till) -> None:
    first, second = till.store_of("grocer", "grocer-1"), till.store_of("grocer", "grocer-2")
    for number, (store, store_id) in enumerate(
        [
            (StoreRef(), 0),
            (StoreRef(store_id=first), first),
            (StoreRef(code="grocer-2"), second),
            (StoreRef(first, "grocer-1"), first),
        ]
    ):
        assert (await till.accept(till.purchase(f"k{number}", store=store))).command.store_id == store_id
    for store, field_name in [
        (StoreRef(store_id=till.store_of("fuel", "fuel-1")), "storeId"),
        (StoreRef(store_id=999), "storeId"),
        (StoreRef(code="fuel-1"), "storeCode"),
        (StoreRef(code="\ud800"), "storeCode"),
        (StoreRef(first, "grocer-2"), "storeCode"),
        (StoreRef(first, "nowhere"), "storeCode"),
        (StoreRef(999, "grocer-1"), "storeCode"),
    ]:
        await till.refuse(till.purchase("k", store=store), RefusalCode.STORE_NOT_FOUND, field_name)


async def test_terms_are_those_of_the_day_it_happened(open_till: OpenTill) -> None:
    april = {"from": Day("2017-04-01"), "issue_price": "0.010200"}
    until_march = {"from": Day("2017-02-20"), "to": Day("2017-03-31")}
    till = await open_till(
        coalition(partner("grocer", terms=[until_march, april])), at=datetime(2017, 4, 10, tzinfo=UTC)
    )
    # Midnight in Berlin is 22:00 the day before in Greenwich.
    border = datetime(2017, 3, 31, 22, tzinfo=UTC)

    for key, at, issue_micro in [
        ("last of March", border - timedelta(microseconds=1), 10_000),
        ("first of April", border, 10_200),
        ("now", till.clock.now, 10_200),
    ]:
        posted = await till.accept(till.purchase(key, "1.00", at=at))
        # Booked now, whenever it happened.
        assert posted.command.period_id == MARCH + 1
        assert await till.movements(key, "pool_value_micro", "budget_micro") == [(issue_micro, issue_micro + 1_000)]
    assert await till.rows("SELECT price_micro FROM lot ORDER BY id") == [(10_000,), (10_200,), (10_200,)]


async def test_a_day_without_terms_is_refused(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", terms={"from": Day("2017-03-10"), "to": Day("2017-03-15")})))
    first, last = datetime(2017, 3, 9, 23, tzinfo=UTC), datetime(2017, 3, 15, 23, tzinfo=UTC)

    await till.accept(till.purchase("first", at=first))
    await till.refuse(till.purchase("k", at=first - timedelta(microseconds=1)), RefusalCode.TERMS_MISSING, "occurredAt")
    till.clock.to(2017, 3, 16)
    await till.accept(till.purchase("last", at=last - timedelta(microseconds=1)))
    await till.refuse(till.purchase("k", at=last), RefusalCode.TERMS_MISSING, "occurredAt")


async def test_rules_are_those_of_the_day_it_happened(open_till: OpenTill) -> None:
    rules = [
        {"code": "base", "points_per_unit": "1", "to": Day("2017-03-14")},
        {"code": "base", "points_per_unit": "2", "from": Day("2017-03-15")},
        {"code": "easter", "points_per_unit": "1", "from": Day("2017-03-16"), "to": Day("2017-03-17")},
    ]
    till = await open_till(coalition(partner("grocer", rules=rules)), at=datetime(2017, 3, 20, tzinfo=UTC))

    for day, points in [(14, [10]), (15, [20]), (16, [20, 10]), (17, [20, 10]), (18, [20])]:
        posted = await till.accept(till.purchase(f"k{day}", "10.00", at=datetime(2017, 3, day, 12, tzinfo=UTC)))
        assert [award.granted_points for award in posted.awards] == points


async def test_times_at_their_limits(till: Till) -> None:
    soon, long_ago = till.clock.now + timedelta(minutes=5), till.clock.now - timedelta(days=30)
    instant = timedelta(microseconds=1)

    assert (await till.accept(till.purchase("soon", at=soon))).command.occurred_at == soon
    assert (await till.accept(till.purchase("long ago", at=long_ago))).command.occurred_at == long_ago
    await till.refuse(till.purchase("k", at=soon + instant), RefusalCode.OCCURRED_IN_FUTURE, "occurredAt")
    await till.refuse(till.purchase("k", at=long_ago - instant), RefusalCode.OCCURRED_TOO_LONG_AGO, "occurredAt")
    for extreme, code in [
        (datetime.max.replace(tzinfo=UTC), RefusalCode.OCCURRED_IN_FUTURE),
        (datetime.min.replace(tzinfo=UTC), RefusalCode.OCCURRED_TOO_LONG_AGO),
    ]:
        await till.refuse(till.purchase("k", at=extreme), code, "occurredAt")
    # The same instant told from another time zone is the same input.
    elsewhere = till.purchase("soon", at=soon.astimezone(till.configuration.programme.zone))
    assert (await till.accept(elsewhere)).replayed


async def test_who_may_not_earn(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), partner("fuel", state="SUSPENDED")))
    closed = till.members["card-2"].member_id
    await till.accept(till.purchase("before", card="card-2"))
    async with till.database.posting() as connection:
        await connection.execute(CLOSE_SQL, {"id": closed})

    await till.refuse(till.purchase("k", partner="fuel"), RefusalCode.PARTNER_SUSPENDED)
    await till.refuse(till.purchase("k", card="card-2"), RefusalCode.MEMBER_CLOSED, "member")
    await till.refuse(till.purchase("k", card="card-3"), RefusalCode.MEMBER_NOT_FOUND, "member")
    await till.refuse(till.purchase("k", member=MemberRef()), RefusalCode.MEMBER_NOT_FOUND, "member")
    await till.refuse(till.purchase("k", member=MemberRef(member_id=1)), RefusalCode.MEMBER_NOT_FOUND, "member")
    by_id = MemberRef(member_id=till.members["card-1"].member_id)
    assert (await till.accept(till.purchase("k", member=by_id))).command.account_id == till.members["card-1"].account_id
    # What was done before the member left is still found.
    assert (await till.accept(till.purchase("before", card="card-2"))).replayed


async def test_a_replay_moves_nothing_and_shows_today_s_balances(till: Till) -> None:
    command = till.purchase("k", "100.00", lines=[("a", None, "1", "60.00"), ("b", None, "1", "40.00")])
    first = await till.accept(command)
    await till.accept(till.purchase("k2", "7.00"))
    await till.accept(till.burn("b", 30, partner="fuel"))
    till.clock.to(2017, 4, 2)

    again = await till.accept(command)
    assert window_of(again) == BudgetView(1, 1_500_000_000, 0, 0, 0, None)  # April's window
    assert again == first._replace(
        replayed=True, balance=BalanceView(first.balance.account_id, 77, 0, 0), budget=again.budget
    )
    assert await till.one("SELECT count(*) FROM command WHERE kind = 'EARN'") == 2


async def test_the_same_key_with_other_input_is_refused(till: Till) -> None:
    lines = [("a", None, "1", "60.00"), ("b", None, "1", "40.00")]
    command = till.purchase("k", "100.00", lines=lines, store=StoreRef(code="grocer-1"), channel="WEB", reference="r")
    await till.accept(command)

    for other in (
        command._replace(amount=till.money("100.01"), lines=None),
        command._replace(lines=None),
        command._replace(lines=till.basket([*reversed(lines)])),
        command._replace(reference="r2"),
        command._replace(channel=None),
        command._replace(store=StoreRef(code="grocer-2")),
        command._replace(member=MemberRef(identifier=("card", "card-2"))),
        command._replace(member=MemberRef(identifier=("card", "nobody"))),
        command._replace(occurred_at=command.occurred_at + timedelta(microseconds=1)),
        till.burn("k", 100, reference="r", store=StoreRef(code="grocer-1")),
        till.reversal("k", "k"),
    ):
        await till.refuse(other, RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")
    # Written otherwise, but the same: 100 and 100.00, and the store by its id.
    same = command._replace(amount=till.money("1E2"), store=StoreRef(store_id=till.store_of("grocer", "grocer-1")))
    assert (await till.accept(same)).replayed
    # Another partner's keys are its own.
    assert (await till.accept(till.purchase("k", partner="fuel"))).replayed is False


async def test_a_refusal_is_not_remembered(till: Till) -> None:
    await till.refuse(till.purchase("k", "-1.00"), RefusalCode.AMOUNT_INVALID, "amount.amount")
    await till.refuse(till.purchase("k", card="nobody"), RefusalCode.MEMBER_NOT_FOUND, "member")

    assert (await till.accept(till.purchase("k"))).replayed is False


async def test_a_currency_without_decimals(open_till: OpenTill) -> None:
    toml = coalition(partner("grocer", budgets={"limit": "100000"}), currency="JPY", point_value="1")
    till = await open_till(toml)
    posted = await till.accept(till.purchase("k", "1980"))

    assert (posted.points, posted.command.amount_minor) == (1_980, 1_980)
    await till.refuse(till.purchase("k2", "1980.5"), RefusalCode.AMOUNT_INVALID, "amount.amount")
    await till.refuse(till.purchase("k2", "1980", currency="EUR"), RefusalCode.CURRENCY_MISMATCH, "amount.currency")


async def test_the_sums_of_a_thousand_lines(till: Till) -> None:
    lines = [(f"sku-{number}", None, "1", "0.01") for number in range(1_000)]

    assert (await till.accept(till.purchase("k", "10.00", lines=lines))).points == 10
    await till.refuse(till.purchase("k2", "10.01", lines=[*lines, lines[0]]), RefusalCode.INPUT_INVALID, "lines")
