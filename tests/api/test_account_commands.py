"""Transfers, pools and merges by the command line: done as GraphQL does them, once per key, refused in clear words."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from api.accounting import (
    create_pool_and_describe,
    describe_pool,
    join_pool_and_describe,
    leave_pool_and_describe,
    merge_and_describe,
    transfer_and_describe,
    unmerge_and_describe,
)
from api.clock import system_clock
from api.runtime import Runtime
from domain.database import Database
from domain.errors import ConfigurationError, RefusalCode, Refused
from tests.api.graphql_shop import Shop, Time, open_shop
from tests.api.processes import Coalition
from tests.domain.books import check_books, contents

FIRST, SECOND, THIRD = "card:card-1", "card:card-2", "card:card-3"
YESTERDAY = (system_clock() - timedelta(days=1)).isoformat(timespec="seconds")
BULK = f"""kind,idempotency_key,partner,store,member_kind,member,occurred_at,amount,currency,points,reference
enroll,e1,grocer,,card,card-1,{YESTERDAY},,,,
enroll,e2,grocer,,card,card-2,{YESTERDAY},,,,
earn,k1,grocer,,card,card-1,{YESTERDAY},100.00,EUR,,r1
"""


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    async with open_shop(database, Time()) as opened:
        till = await opened.caller()
        for card in ("card-1", "card-2", "card-3"):
            await till.enroll(card)
        await till.earn("k")
        yield opened
    await check_books(database)


@pytest.fixture
def runtime(shop: Shop) -> Runtime:
    services = shop.services
    return Runtime(services.database, services.configuration, services.clock)


async def refused(runtime: Runtime, source: str, target: str, points: int, key: str = "t") -> Refused:
    """The refusal of a transfer, after which every table is as before."""
    before = await contents(runtime.database)
    with pytest.raises(Refused) as caught:
        await transfer_and_describe(runtime, source, target, points, key=key, reason=None)
    assert await contents(runtime.database) == before
    return caught.value


async def test_a_transfer_is_done_once_whenever_it_is_sent(shop: Shop, runtime: Runtime) -> None:
    given = await transfer_and_describe(runtime, FIRST, SECOND, 30, key="t", reason="a gift")
    assert (given["points"], given["replayed"], given["balance"]["available"]) == (30, False, 70)
    transaction = given["transaction"]
    assert (transaction["kind"], transaction["idempotencyKey"], transaction["reason"]) == ("TRANSFER", "t", "a gift")
    assert isinstance(shop.services.clock, Time)
    shop.services.clock.now += timedelta(days=2)
    again = await transfer_and_describe(runtime, FIRST, SECOND, 30, key="t", reason="a gift")
    assert (again["replayed"], again["transaction"]) == (True, transaction)
    assert (await refused(runtime, FIRST, SECOND, 31)).code == RefusalCode.IDEMPOTENCY_CONFLICT
    refusal = await refused(runtime, FIRST, SECOND, 71, key="u")
    assert (refusal.code, str(refusal)) == (RefusalCode.INSUFFICIENT_POINTS, "the member has 70 points")
    assert (await refused(runtime, "card:nobody", SECOND, 1, key="u")).code == RefusalCode.MEMBER_NOT_FOUND


@pytest.mark.parametrize("named", ["card-1", "shoe:1", "card:", ":1"])
async def test_who_is_meant_is_said_in_one_of_four_ways(runtime: Runtime, named: str) -> None:
    with pytest.raises(ConfigurationError, match=r"names no member: give one of id:…, card:…, email:…, phone:…"):
        await transfer_and_describe(runtime, named, SECOND, 1, key="t", reason=None)


async def test_a_merge_and_its_undoing(runtime: Runtime) -> None:
    merged = await merge_and_describe(runtime, SECOND, FIRST, key="m", reason="two cards")
    assert (merged["points"], merged["replayed"]) == (100, False)
    assert merged["kept"] == merged["duplicate"]
    assert (await merge_and_describe(runtime, SECOND, FIRST, key="m", reason="two cards"))["replayed"]
    with pytest.raises(Refused, match="there is no merge with that id or key"):
        await unmerge_and_describe(runtime, "n", key="u", reason=None)
    undone = await unmerge_and_describe(runtime, "m", key="u", reason=None)
    assert (undone["points"], undone["kept"]["balance"], undone["duplicate"]["balance"]) == (
        100,
        {"available": 0},
        {"available": 100},
    )


async def test_a_pool_from_its_founding_to_its_end(runtime: Runtime) -> None:
    with pytest.raises(Refused, match="card:card-1 is in no pool"):
        await describe_pool(runtime, FIRST)
    with pytest.raises(Refused, match="no member is card:nobody"):
        await describe_pool(runtime, "card:nobody")
    founded = await create_pool_and_describe(runtime, FIRST, key="c")
    assert (founded["points"], founded["balance"]["available"]) == (100, 100)
    joined = await join_pool_and_describe(runtime, FIRST, SECOND, role="MEMBER", burn_limit=20, key="j")
    assert [(place["role"], place["burnLimit"]) for place in joined["pool"]["members"]] == [
        ("HEAD", None),
        ("MEMBER", 20),
    ]
    changed = await join_pool_and_describe(runtime, FIRST, SECOND, role="HEAD", burn_limit=None, key="h")
    assert [place["role"] for place in changed["pool"]["members"]] == ["HEAD", "HEAD"]
    with pytest.raises(Refused, match="a head burns without a limit"):
        await join_pool_and_describe(runtime, FIRST, THIRD, role="HEAD", burn_limit=1, key="i")
    assert (await describe_pool(runtime, SECOND))["pool"] == changed["pool"]
    left = await leave_pool_and_describe(runtime, FIRST, key="l")
    assert (left["points"], left["balance"]["available"], len(left["pool"]["members"])) == (0, 0, 1)
    last = await leave_pool_and_describe(runtime, SECOND, key="e")
    assert (last["points"], last["balance"]["available"], last["pool"]["members"]) == (100, 100, [])


def test_the_commands_themselves(tmp_path: Path) -> None:
    coalition = Coalition(tmp_path)
    coalition.apply()
    coalition.run("import", "-", given=BULK)
    moved = json.loads(coalition.run("transfer", "card:card-1", "card:card-2", "5", "--key", "t", "--json"))
    assert (moved["points"], moved["balance"]["available"]) == (5, 95)
    coalition.run("transfer", "card:card-1", "card:card-2", "500", "--key", "u", status=1)
    assert "coalition: INSUFFICIENT_POINTS: the member has 95 points" in coalition.last_error
    merged = coalition.run("merge", "card:card-1", "card:card-2", "--key", "m")
    assert merged == "card:card-1 stands for card:card-2; 5 points moved\n"
    assert coalition.run("unmerge", "m", "--key", "n") == "m is undone; 5 points moved back\n"
    founded = coalition.run("pool", "create", "card:card-1", "--key", "c")
    assert founded.startswith("95 points moved\n95 points are available\n")
    again = coalition.run("pool", "create", "card:card-1", "--key", "c")
    assert again.startswith("95 points moved (was done before)\n")
    [place] = json.loads(coalition.run("pool", "show", "card:card-1", "--json"))["pool"]["members"]
    assert (place["role"], place["burnLimit"]) == ("HEAD", None)
