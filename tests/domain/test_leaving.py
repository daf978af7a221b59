"""Suspended partners and partners that leave, at the till: what goes on, and what does not."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from domain.commands import Command, Enroll
from domain.errors import RefusalCode
from tests.domain.coalitions import Day, campaign, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import Till
from tests.factories import apply_toml

SUSPENDED, LEFT = RefusalCode.PARTNER_SUSPENDED, RefusalCode.PARTNER_LEFT


def with_fuel(*more: str, **values: Any) -> str:
    """A grocer, and a fuel station that is what the test says."""
    return coalition(partner("grocer"), partner("fuel", **values), *more)


LEAVING = with_fuel(leaves_on=Day("2017-03-20"), run_off_until=Day("2017-04-30"))


async def with_open_business(open_till: OpenTill, before: str) -> Till:
    """A till where the fuel station has sold, burned and authorized."""
    till = await open_till(before)
    await till.accept(till.purchase("sale", "100.00", partner="fuel"))
    await till.accept(till.purchase("elsewhere", "200.00"))
    await till.accept(till.burn("spent", 40, partner="fuel"))
    for key in ("hold-1", "hold-2"):
        await till.accept(till.authorization(key, 30, partner="fuel"))
    return till


@pytest.mark.parametrize(
    ("policy", "burns", "captures"), [("REFUSE", False, False), ("CAPTURE", False, True), ("ALLOW", True, True)]
)
async def test_a_suspended_partner_burns_by_policy_and_never_issues(
    open_till: OpenTill, policy: str, *, burns: bool, captures: bool
) -> None:
    till = await with_open_business(open_till, with_fuel())
    await apply_toml(till.database, with_fuel(state="SUSPENDED", suspended_burns=policy))

    async def taken_if(allowed: bool, command: Command) -> None:
        if allowed:
            await till.accept(command)
        else:
            await till.refuse(command, SUSPENDED)

    await till.refuse(till.purchase("k", partner="fuel"), SUSPENDED)
    await till.refuse(Enroll(till.id_of("fuel"), "e", "card-9", None, None), SUSPENDED)
    await taken_if(burns, till.burn("b", 10, partner="fuel"))
    await taken_if(burns, till.authorization("a", 5, partner="fuel"))
    await taken_if(captures, till.capture("c", "hold-1", 20, partner="fuel"))
    # What the member gets back is never kept from it: points set free, points refunded, goods returned.
    assert (await till.accept(till.capture("none", "hold-2", 0, partner="fuel"))).points == 0
    assert (await till.accept(till.reversal("refund", "spent", partner="fuel"))).points == 40
    assert (await till.accept(till.reversal("return", "sale", partner="fuel", amount="60.00"))).points == 60
    # And the others never notice.
    await till.accept(till.purchase("other", "10.00"))
    await till.accept(till.burn("other-burn", 10))


async def test_after_its_last_day_a_partner_neither_issues_nor_takes(open_till: OpenTill) -> None:
    till = await with_open_business(open_till, LEAVING)
    last_minute = till.clock.to(2017, 3, 20, 22, 59)  # 23:59 in Berlin
    await till.accept(till.purchase("last", "10.00", partner="fuel"))
    after = till.clock.to(2017, 3, 20, 23)
    for command in (
        till.purchase("k", partner="fuel"),
        till.burn("b", 10, partner="fuel"),
        till.authorization("a", 10, partner="fuel"),
        Enroll(till.id_of("fuel"), "e", "card-9", None, None),
        till.founding("pool", partner="fuel"),
    ):
        refusal = await till.refuse(command, LEFT)
        assert refusal.message == "the partner left the coalition: it issued and took points until 2017-03-20"
    # What happened in time may come late; its points are burned elsewhere.
    await till.accept(till.purchase("late", "20.00", partner="fuel", at=last_minute))
    await till.accept(till.burn("late-burn", 5, partner="fuel", at=last_minute))
    await till.accept(till.burn("elsewhere-burn", 110))
    assert after > last_minute


def run_off_commands(till: Till, day: str) -> Sequence[Command]:
    """Everything that a partner may still send in its run-off."""
    return [
        till.reversal(f"return-{day}", "sale", partner="fuel", amount="10.00"),
        till.reversal(f"refund-{day}", "spent", partner="fuel", points=10),
        till.capture(f"capture-{day}", "hold-1" if day == "in time" else "hold-2", 20, partner="fuel"),
    ]


async def test_returns_and_refunds_go_on_until_the_end_of_the_run_off(open_till: OpenTill) -> None:
    hold_long = with_fuel(leaves_on=Day("2017-03-20"), run_off_until=Day("2017-04-30"), hold_minutes=60 * 24 * 90)
    till = await with_open_business(open_till, hold_long)
    in_time = till.clock.to(2017, 4, 30, 21, 59)
    await till.accept_all(run_off_commands(till, "in time"))
    till.clock.to(2017, 4, 30, 22)
    message = "the partner left, and its run-off ended on 2017-04-30: ask the operator"
    for command in run_off_commands(till, "too late"):
        assert (await till.refuse(command, LEFT)).message == message
    # April is open still, and yet it was too late: in May it would stand on a statement after the final one.
    late = till.reversal("late", "sale", partner="fuel", amount="10.00", at=in_time)
    assert (await till.refuse(late, LEFT)).message == message
    # Points that are held come free whenever.
    assert (await till.accept(till.void("v", "hold-2", partner="fuel"))).points == 30


async def test_a_return_that_comes_late_counts_while_the_final_statement_is_open(open_till: OpenTill) -> None:
    till = await with_open_business(open_till, with_fuel(leaves_on=Day("2017-03-20"), run_off_until=Day("2017-03-25")))
    in_time = till.clock.to(2017, 3, 25)
    till.clock.to(2017, 3, 28)
    await till.refuse(till.reversal("r", "sale", partner="fuel", amount="10.00"), LEFT)
    await till.accept(till.reversal("r", "sale", partner="fuel", amount="10.00", at=in_time))


async def test_a_partner_that_left_pays_for_no_campaign(open_till: OpenTill) -> None:
    shared = campaign("spring", ("fuel", "0.5"), ("grocer", "0.5"), bonus_points=100)
    days = {"leaves_on": Day("2017-03-20"), "run_off_until": Day("2017-04-30")}
    till = await open_till(with_fuel(shared, **days))
    granted = {}
    for day in (20, 21):
        till.clock.to(2017, 3, day)
        posted = await till.accept(till.purchase(f"k-{day}", "10.00"))
        granted[day] = [award.granted_points for award in posted.awards]
    assert granted == {20: [10, 50, 50], 21: [10, 0, 50]}


async def test_history_is_asked_for_the_day_on_which_it_happened(open_till: OpenTill) -> None:
    till = await open_till(LEAVING, is_history=True, at=(await open_till(LEAVING)).clock.now + timedelta(days=400))
    before, after = till.clock.to(2017, 3, 19), till.clock.to(2017, 3, 22)
    till.clock.to(2018, 5, 1)
    await till.accept(till.purchase("k", "10.00", partner="fuel", at=before))
    await till.refuse(till.purchase("l", "10.00", partner="fuel", at=after), LEFT)
