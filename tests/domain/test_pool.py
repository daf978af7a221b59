"""Household pools: members who share one account, in roles and with limits."""

from domain.accounts import PoolRole
from domain.commands import MemberRef, Posted
from domain.database import Database
from domain.errors import RefusalCode
from settlement.verifying import verify
from tests.domain.books import contents
from tests.domain.coalitions import coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import Till

PLACES = """
    SELECT i.value, s.role, s.burn_limit, s.ended_by IS NULL
      FROM pool_member AS s JOIN member_identifier AS i ON i.member_id = s.member_id ORDER BY s.command_id
"""


async def household(till: Till, burn_limit: int | None = None) -> int:
    """A pool of the members with card-1 (head) and card-2; its id."""
    await till.accept(till.founding("create"))
    pool_id: int = await till.one("SELECT id FROM pool")
    await till.accept(till.joining("join", pool_id, burn_limit=burn_limit))
    return pool_id


async def test_members_share_one_account_to_which_they_brought_their_points(till: Till, database: Database) -> None:
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("k2", "60.00", card="card-2", partner="fuel"))
    founded = await till.accept(till.founding("create"))
    assert (founded.points, founded.balance.available) == (100, 100)
    pool_id, pool_account = (await till.rows("SELECT id, account_id FROM pool"))[0]
    joined = await till.accept(till.joining("join", pool_id))

    assert (joined.points, joined.balance.account_id, joined.balance.available) == (60, pool_account, 160)
    assert await till.rows("SELECT DISTINCT account_id FROM member") == [(pool_account,)]
    assert await till.rows(PLACES) == [("card-1", "HEAD", None, True), ("card-2", "MEMBER", None, True)]
    assert await till.rows("SELECT issuer_id, granted, remaining, parent_id IS NULL FROM lot ORDER BY id") == [
        (1, 100, 0, True), (2, 60, 0, True), (1, 100, 100, False), (2, 60, 60, False),
    ]  # fmt: skip
    # Each earns for both and burns what both have; the command names who it was.
    await till.accept(till.purchase("k3", "10.00", card="card-2"))
    burned = await till.accept(till.burn("b", 170))
    assert (burned.command.member_id, burned.balance.available) == (till.members["card-1"].member_id, 0)
    assert (await verify(database, till.clock)).holds


async def test_who_leaves_leaves_the_points_and_the_last_one_takes_them(till: Till, database: Database) -> None:
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("k2", "60.00", card="card-2"))
    pool_id = await household(till)
    one, other = (till.members[card] for card in ("card-1", "card-2"))
    await till.refuse(till.leaving("x", "card-1"), RefusalCode.POOL_NOT_POSSIBLE, "member")
    left = await till.accept(till.leaving("l", "card-2"))
    assert (left.points, left.balance.account_id, left.balance.available) == (0, other.account_id, 0)
    assert await till.movements("l", "kind", "points") == [("TRANSFER_OUT", 0)]
    last = await till.accept(till.leaving("m", "card-1"))
    assert (last.points, last.balance.account_id, last.balance.available) == (160, one.account_id, 160)
    assert await till.rows("SELECT count(*) FROM pool_member WHERE ended_by IS NULL") == [(0,)]
    await till.refuse(till.joining("y", pool_id), RefusalCode.POOL_NOT_FOUND, "poolId")
    await till.refuse(till.leaving("y"), RefusalCode.POOL_NOT_POSSIBLE, "member")
    assert (await till.available("card-1"), await till.available("card-2")) == (160, 0)
    assert (await verify(database, till.clock)).holds


async def test_roles_change_and_a_pool_always_has_a_head(till: Till) -> None:
    pool_id = await household(till)
    head = PoolRole.HEAD
    await till.refuse(till.joining("x", pool_id, "card-1"), RefusalCode.POOL_NOT_POSSIBLE, "role")
    await till.refuse(till.joining("x", pool_id, role=head, burn_limit=5), RefusalCode.INPUT_INVALID, "burnLimit")
    await till.refuse(till.joining("x", pool_id, burn_limit=0), RefusalCode.AMOUNT_INVALID, "burnLimit")
    await till.refuse(till.joining("x", 4_711), RefusalCode.POOL_NOT_FOUND, "poolId")
    await till.refuse(till.founding("x"), RefusalCode.POOL_NOT_POSSIBLE, "head")
    await till.refuse(till.founding("x", "nobody"), RefusalCode.MEMBER_NOT_FOUND, "head")
    await till.accept(till.joining("head", pool_id, role=head))
    await till.accept(till.joining("limit", pool_id, "card-1", burn_limit=50))
    assert await till.rows(PLACES) == [
        ("card-1", "HEAD", None, False),
        ("card-2", "MEMBER", None, False),
        ("card-2", "HEAD", None, True),
        ("card-1", "MEMBER", 50, True),
    ]
    await till.accept(till.leaving("l", "card-1"))
    assert await till.rows("SELECT burn_limit FROM member ORDER BY id") == [(None,), (None,)]


async def test_one_pool_at_a_time_and_only_so_many_members(till: Till) -> None:
    cards = [f"c{number}" for number in range(20)]
    await till.enrolled(*cards)
    pool_id = await household(till)
    await till.queue.post_many([till.joining(f"j-{card}", pool_id, card) for card in cards[:18]])
    await till.refuse(till.joining("x", pool_id, "c18"), RefusalCode.LIMIT_EXCEEDED, "poolId")
    await till.accept(till.founding("other", "c18"))
    other: int = await till.one("SELECT max(id) FROM pool")
    await till.refuse(till.joining("x", other), RefusalCode.POOL_NOT_POSSIBLE, "member")


async def test_a_limit_holds_for_a_day_and_for_the_whole_batch(till: Till) -> None:
    await till.accept(till.purchase("k", "1000.00"))
    await household(till, burn_limit=50)
    await till.refuse(till.burn("b", 51, card="card-2"), RefusalCode.LIMIT_EXCEEDED, "points")
    outcomes = await till.queue.post_many([till.burn(f"b{n}", 30, card="card-2") for n in range(2)])
    assert [getattr(outcome, "code", "posted") for outcome in outcomes] == ["posted", "LIMIT_EXCEEDED"]
    # What was given back counts until tomorrow, and what another member burns does not.
    await till.accept(till.reversal("v", "b0"))
    await till.accept(till.burn("h", 500))
    refused = await till.refuse(till.burn("c", 21, card="card-2"), RefusalCode.LIMIT_EXCEEDED, "points")
    assert "20 are left today" in refused.message
    await till.accept(till.burn("c", 20, card="card-2"))
    till.clock.to(2017, 3, 15, 23, 0)
    await till.accept(till.burn("d", 50, card="card-2"))


async def test_what_was_set_aside_and_given_back_counts_towards_no_limit(till: Till) -> None:
    await till.accept(till.purchase("k", "1000.00"))
    await household(till, burn_limit=50)
    await till.accept(till.authorization("void", 50, card="card-2"))
    await till.refuse(till.burn("b", 1, card="card-2"), RefusalCode.LIMIT_EXCEEDED, "points")
    await till.accept(till.void("v", "void"))
    # A pump sets aside the most, and captures what was tanked; a refund of that comes back tomorrow.
    await till.accept(till.authorization("pump", 50, card="card-2"))
    await till.accept(till.capture("c", "pump", 30))
    await till.accept(till.reversal("r", "c"))
    refused = await till.refuse(till.burn("b", 21, card="card-2"), RefusalCode.LIMIT_EXCEEDED, "points")
    assert "20 are left today" in refused.message
    await till.accept(till.burn("b", 20, card="card-2"))


async def test_what_was_sent_before_is_found_again(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00", card="card-2"))
    pool_id = await household(till)
    before = await contents(till.database)
    for command in (
        till.founding("create"),
        till.joining("join", pool_id),
        till.purchase("k", "100.00", card="card-2"),
    ):
        posted = await till.accept(command)
        assert (posted.replayed, posted.points, posted.balance.available) == (
            True, 0 if posted.command.key == "create" else 100, 100,
        )  # fmt: skip
    assert await contents(till.database) == before
    for other in (
        till.joining("join", pool_id, burn_limit=5),
        till.joining("create", pool_id, "card-1"),
        till.leaving("join"),
    ):
        await till.refuse(other, RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


async def test_returns_and_refunds_of_before_find_the_points_in_the_pool(till: Till, database: Database) -> None:
    await till.accept(till.purchase("k", "100.00", card="card-2"))
    await till.accept(till.burn("b", 40, card="card-2"))
    pool_id = await household(till)
    home = till.members["card-2"].account_id
    refunded = await till.accept(till.reversal("v", "b"))
    assert (refunded.points, refunded.balance.available) == (40, 100)
    returned = await till.accept(till.reversal("w", "k", amount="70.00"))
    assert (returned.points, returned.shortfall_points, returned.balance.available) == (70, 0, 30)
    assert await till.rows("SELECT available FROM account WHERE id = :id", id=home) == [(0,)]
    # Bought in the pool, returned after leaving: out of the pool first, then out of what the member has now.
    await till.accept(till.purchase("l", "20.00", card="card-2"))
    await till.accept(till.leaving("leave"))
    await till.accept(till.burn("all", 45))
    await till.accept(till.purchase("m", "50.00", card="card-2"))
    late = await till.accept(till.reversal("x", "l"))
    assert (late.points, late.shortfall_points, late.balance.account_id, late.balance.available) == (20, 0, home, 35)
    assert await till.available("card-1") == 0
    # And a burn of the pool is refunded to the pool.
    back = await till.accept(till.reversal("y", "all"))
    assert (back.points, await till.available("card-1"), await till.available("card-2")) == (45, 45, 35)
    assert (await verify(database, till.clock)).holds
    assert await till.one("SELECT count(*) FROM pool WHERE id = :id", id=pool_id) == 1


async def test_a_merge_brings_points_into_a_pool_and_takes_nobody_out_of_one(till: Till, database: Database) -> None:
    await till.enrolled("card-3")
    await till.accept(till.purchase("k", "60.00", card="card-3"))
    await household(till)
    await till.refuse(till.merge("m", "card-3", "card-2"), RefusalCode.MERGE_NOT_POSSIBLE, "duplicate")
    merged = await till.accept(till.merge("m", "card-2", "card-3"))
    assert (merged.points, merged.balance.available, await till.available("card-1")) == (60, 60, 60)
    await till.accept(till.leaving("leave"))
    await till.refuse(till.unmerge("u", "m"), RefusalCode.MERGE_NOT_POSSIBLE)
    assert (await verify(database, till.clock)).holds


async def test_an_undone_merge_leaves_the_household_what_was_brought_before(till: Till, database: Database) -> None:
    await till.accept(till.purchase("k1", "60.00", card="card-2"))
    burned = till.burn("b", 10, card="card-2")
    await till.accept(burned)
    await household(till)
    # Also what came to the household by itself: a refund of a burn of before.
    await till.accept(till.reversal("r", "b", points=10))
    await till.accept(till.leaving("leave"))
    await till.accept(till.purchase("k2", "7.00", card="card-2"))
    merged = await till.accept(till.merge("m"))
    assert (merged.points, merged.balance.available) == (7, 67)
    undone = await till.accept(till.unmerge("u", "m"))
    assert (undone.points, await till.available("card-1"), await till.available("card-2")) == (7, 60, 7)
    assert (await verify(database, till.clock)).holds


async def test_a_purchase_sent_again_from_a_household_shows_what_it_waits_for(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", terms={"pending_days": 10}), partner("fuel", risk="PAID_FIRST")))
    sent = [till.purchase("k", "60.00"), till.purchase("l", "30.00", partner="fuel")]
    first = [await till.accept(one) for one in sent]
    assert [award.waits_for_payment for one in first for award in one.awards] == [False, True]
    await household(till)
    again = [await till.accept(one) for one in sent]
    assert [one.awards for one in again] == [one.awards for one in first]


async def test_one_batch_may_do_all_of_it(till: Till, database: Database) -> None:
    await till.accept(till.purchase("k", "30.00"))
    await till.accept(till.founding("create"))
    pool_id: int = await till.one("SELECT id FROM pool")
    outcomes = await till.queue.post_many(
        [
            till.purchase("k2", "60.00", card="card-2"),
            till.joining("join", pool_id),
            till.purchase("k3", "5.00", card="card-2"),
            till.burn("b", 90, card="card-2"),
            till.joining("head", pool_id, role=PoolRole.HEAD),
            till.leaving("leave", "card-1"),
            till.purchase("k4", "7.00"),
            till.transfer("t", 5, source="card-2", target="card-1"),
            till.leaving("last"),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [Posted] * 9, outcomes
    assert (await till.available("card-1"), await till.available("card-2")) == (12, 0)
    assert (await verify(database, till.clock)).holds


async def test_a_suspended_partner_changes_no_pool(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), partner("fuel", state="SUSPENDED")))
    await till.refuse(till.founding("create", partner="fuel"), RefusalCode.PARTNER_SUSPENDED)
    await till.accept(till.founding("create", partner="grocer"))
    pool_id: int = await till.one("SELECT id FROM pool")
    await till.refuse(till.joining("join", pool_id, partner="fuel"), RefusalCode.PARTNER_SUSPENDED)
    await till.refuse(till.leaving("leave", "card-1", partner="fuel"), RefusalCode.PARTNER_SUSPENDED)
    assert (await till.accept(till.purchase("k", member=MemberRef(till.members["card-1"].member_id)))).points == 100
