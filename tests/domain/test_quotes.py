"""Quotes: what posting would answer now, from the same code, without a trace."""

import pytest

from domain.commands import Burn, Earn, Posted, Refusal
from domain.errors import RefusalCode
from tests.domain.books import contents
from tests.domain.coalitions import coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import Till


def but_for_ids(posted: Posted) -> Posted:
    """The answer without the ids that rows get when they are made: a quote's rows, and its windows, never are."""
    budget = None if posted.budget is None else posted.budget._replace(budget_id=None)
    return posted._replace(command=posted.command._replace(id=0), budget=budget)


async def quoted(till: Till, command: Earn | Burn) -> Posted | Refusal:
    """The quote, which must change nothing, also when it is asked for twice."""
    before = await contents(till.database)
    first, second = await till.queue.quote(command), await till.queue.quote(command)
    assert isinstance(first, Posted | Refusal)
    assert isinstance(second, Posted | Refusal)
    if isinstance(first, Posted) and isinstance(second, Posted):
        assert but_for_ids(second) == but_for_ids(first)
    else:
        assert first == second
    assert await contents(till.database) == before
    return first


async def test_a_quote_says_what_posting_then_says(till: Till) -> None:
    purchase = till.purchase("k", "120000.00")
    quote = await quoted(till, purchase)
    posted = await till.accept(purchase)

    assert isinstance(quote, Posted)
    assert quote.budget is not None
    assert quote.budget.alerted_at is not None
    assert but_for_ids(quote) == but_for_ids(posted)
    burn = till.burn("b", 100, partner="fuel")
    quote = await quoted(till, burn)
    posted = await till.accept(burn)
    assert isinstance(quote, Posted)
    assert but_for_ids(quote) == but_for_ids(posted)


async def test_the_first_quote_of_a_window_and_of_a_period(till: Till) -> None:
    # No budget window yet; then no page of the calendar yet.
    for _ in range(2):
        quote = await quoted(till, till.purchase("k", "10.00", partner="fuel"))
        assert isinstance(quote, Posted)
        assert quote.points == 10
        assert await till.one("SELECT count(*) FROM budget") == 0
        till.clock.to(2017, 4, 1)
    assert await till.rows("SELECT label FROM period") == [("2017-03",)]


async def test_a_quote_neither_looks_at_its_key_nor_uses_it(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))

    other_input = await quoted(till, till.purchase("k", "5.00", reference="r"))
    assert isinstance(other_input, Posted)
    assert (other_input.points, other_input.replayed, other_input.balance.available) == (5, False, 105)
    assert (await till.accept(till.purchase("k2", "5.00"))).replayed is False


@pytest.mark.parametrize("points", [101, 10**9])
async def test_a_quote_is_refused_as_posting_would_be(till: Till, points: int) -> None:
    await till.accept(till.purchase("k", "100.00"))

    cases: list[tuple[Earn | Burn, RefusalCode, str]] = [
        (till.burn("b", points), RefusalCode.INSUFFICIENT_POINTS, "points"),
        (till.purchase("k2", reference="k"), RefusalCode.DUPLICATE_REFERENCE, "reference"),
        (till.purchase("k2", card="nobody"), RefusalCode.MEMBER_NOT_FOUND, "member"),
        (till.purchase("\x00"), RefusalCode.INPUT_INVALID, "idempotencyKey"),
        (till.purchase("k2", reference="\ud800"), RefusalCode.INPUT_INVALID, "reference"),
    ]
    for command, code, field_name in cases:
        refused = await quoted(till, command)
        assert isinstance(refused, Refusal)
        assert (refused.code, refused.field) == (code, field_name)


async def test_past_points_are_quoted_as_gone(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), expiry_months=1))
    await till.accept(till.purchase("k", "100.00"))
    till.clock.to(2017, 4, 16)
    await till.accept(till.purchase("k2", "10.00"))

    quote = await quoted(till, till.burn("b", 10))
    assert isinstance(quote, Posted)
    assert quote.balance.available == 0
    assert isinstance(await quoted(till, till.burn("b", 11)), Refusal)


async def test_a_quote_where_the_partner_s_references_need_not_be_unique(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", reference_unique=False)))
    await till.accept(till.purchase("k", reference="r"))

    assert isinstance(await quoted(till, till.purchase("k2", reference="r")), Posted)
    assert (await till.accept(till.purchase("k2", reference="r"))).points == 100
