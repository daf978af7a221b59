"""How long a contract takes reversals of what happened at the partner: `reversal_days` of its terms."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.commands import ParkedReversal, Posted
from domain.errors import ConfigurationError, RefusalCode
from partners.coalition_file import parse_coalition
from tests.domain.coalitions import Day, Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import Till

OVER = RefusalCode.REVERSAL_WINDOW_OVER
# Bought on 15 March in Berlin; the last of eleven days more is 26 March, which has 23 hours.
LAST = datetime(2017, 3, 26, 21, 59, 59, tzinfo=UTC)
WINDOW: list[Table] = [
    {"reversal_days": 11, "to": Day("2017-03-31")},
    {"from": Day("2017-04-01"), "reversal_days": 0, "to": Day("2017-04-30")},
    {"from": Day("2017-05-01")},
]
STREET = coalition(partner("grocer", terms=WINDOW), partner("fuel"))


@pytest.fixture
async def till(open_till: OpenTill) -> Till:
    """A purchase, a burn and a capture at the grocer on 15 March."""
    opened = await open_till(STREET)
    await opened.accept(opened.purchase("k", "100.00"))
    await opened.accept(opened.burn("b", 20))
    await opened.accept(opened.authorization("a", 30))
    await opened.accept(opened.capture("c", "a"))
    return opened


async def test_until_the_end_of_the_last_local_day(till: Till) -> None:
    till.clock.now = LAST
    for key, original in (("v1", "k"), ("v2", "b"), ("v3", "c")):
        given = {"amount": "10.00"} if original == "k" else {"points": 10}
        await till.accept(till.reversal(key, original, **given))
    till.clock.forward(seconds=1)
    for key, original in (("w1", "k"), ("w2", "b"), ("w3", "c")):
        refusal = await till.refuse(till.reversal(key, original), OVER, "occurredAt")
        assert (
            refusal.message == "the contract took reversals of it until 2017-03-26: ask the operator for an adjustment"
        )
    # What came back in time is found again, and may arrive late.
    assert (await till.accept(till.reversal("v1", "k", amount="10.00", at=LAST))).replayed
    assert (await till.accept(till.reversal("late", "k", at=LAST))).points == 60


async def test_the_terms_of_the_day_of_the_original_say_how_long(till: Till) -> None:
    till.clock.to(2017, 4, 3)
    await till.accept(till.purchase("april", "10.00"))
    await till.accept(till.purchase("fuel", "10.00", partner="fuel"))
    till.clock.to(2017, 4, 4)
    await till.refuse(till.reversal("v", "april"), OVER, "occurredAt")
    till.clock.to(2017, 5, 2)
    await till.accept(till.purchase("may", "10.00"))
    till.clock.to(2019, 5, 2)
    # Nothing said: for ever.
    await till.accept(till.reversal("v2", "may"))
    await till.accept(till.reversal("v3", "fuel", partner="fuel"))


async def test_each_of_many_on_its_own(till: Till) -> None:
    till.clock.to(2017, 3, 28)
    await till.accept(till.purchase("k2", "10.00"))
    outcomes = await till.queue.post_many([till.reversal("v1", "k"), till.reversal("v2", "k2")])
    assert [getattr(one, "code", type(one)) for one in outcomes] == [OVER, Posted]


async def test_one_that_waited_for_its_original(till: Till) -> None:
    till.clock.to(2017, 3, 28)
    waits = await till.queue.post(till.reversal("v", "e", awaits=True))
    assert isinstance(waits, ParkedReversal)
    # The purchase happened sixteen days before its return: it stands, and the return is given up.
    bought = await till.accept(till.purchase("e", "10.00", at=till.clock.now - timedelta(days=16)))
    assert bought.points == 10
    assert await till.rows("SELECT state, refusal_code FROM early_reversal") == [("REFUSED", "REVERSAL_WINDOW_OVER")]


async def test_history_is_not_asked(open_till: OpenTill) -> None:
    till = await open_till(STREET, is_history=True)
    bought, back = till.clock.now, till.clock.now + timedelta(days=20)
    till.clock.forward(days=60)
    await till.accept(till.purchase("k", "100.00", at=bought))
    assert (await till.accept(till.reversal("v", "k", at=back))).points == 100


@pytest.mark.parametrize("days", [-1, 3661, True])
def test_a_window_is_a_number_of_days(days: int) -> None:
    with pytest.raises(ConfigurationError, match=r"reversal_days = .* must be a whole number from 0 to 3660"):
        parse_coalition(coalition(partner("grocer", terms={"reversal_days": days})))
