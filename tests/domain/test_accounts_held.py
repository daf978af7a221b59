"""Points that are held, and accounts that change meanwhile."""

from domain.errors import RefusalCode
from tests.domain.test_pool import household
from tests.domain.tills import Till


async def test_held_points_neither_merge_nor_join(till: Till) -> None:
    await till.enrolled("card-3")
    await till.accept(till.purchase("k", "100.00", card="card-2"))
    authorized = till.authorization("h", 40, card="card-2")
    await till.accept(authorized)
    await till.refuse(till.merge("m"), RefusalCode.MERGE_NOT_POSSIBLE, "duplicate")
    await till.refuse(till.founding("c", "card-2"), RefusalCode.POOL_NOT_POSSIBLE, "head")
    await till.accept(till.capture("p", "h", points=10))
    await till.accept(till.merge("m"))
    # The authorization is found again, by its member's new account too, and its capture is refunded to who has it now.
    again = await till.accept(authorized)
    assert (again.replayed, again.points, again.balance.available) == (True, 40, 90)
    refunded = await till.accept(till.reversal("v", "p"))
    assert (refunded.points, refunded.balance.available, await till.available("card-1")) == (10, 100, 100)


async def test_a_limit_of_a_pool_holds_for_authorizations(till: Till) -> None:
    await till.accept(till.purchase("k", "1000.00"))
    await household(till, burn_limit=50)
    await till.accept(till.authorization("h", 30, card="card-2"))
    await till.refuse(till.burn("b", 21, card="card-2"), RefusalCode.LIMIT_EXCEEDED, "points")
    await till.refuse(till.authorization("i", 21, card="card-2"), RefusalCode.LIMIT_EXCEEDED, "points")
    # What is captured was counted when it was set aside; the last one out may not leave points behind that are held.
    await till.accept(till.capture("p", "h"))
    await till.accept(till.authorization("j", 20, card="card-2"))
    await till.accept(till.leaving("l"))
    await till.refuse(till.leaving("m", "card-1"), RefusalCode.POOL_NOT_POSSIBLE, "member")
