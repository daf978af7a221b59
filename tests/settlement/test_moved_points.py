"""Points that moved between accounts: what is broken on purpose is found, and named."""

from collections.abc import Awaitable, Callable

import pytest

from domain.database import Database
from settlement.verifying import verify
from tests.domain.coalitions import coalition, partner
from tests.domain.tills import till_on

Tamper = Callable[[str], Awaitable[None]]

DAMAGES = {
    "a child of fewer points": (
        "UPDATE lot SET granted = 59, remaining = 59 WHERE parent_id IS NOT NULL",
        {2, 3, 4, 5, 13},
        "moves 60 points of issuer 1, funder 1, price 10000, but 59 arrive",
    ),
    "another issuer's points": (
        "UPDATE lot SET issuer_id = 2 WHERE parent_id IS NOT NULL",
        {2},
        "is not of the kind of its parent",
    ),
    "points of another contract": (
        "UPDATE lot SET terms_id = 2 WHERE parent_id IS NOT NULL",
        {2},
        "is not of the kind of its parent",
    ),
    "a child without its parent": (
        "UPDATE lot SET parent_id = 1 WHERE parent_id IS NOT NULL",
        {2},
        "is not of the kind of its parent 1",
    ),
    "more arrives than left": (
        "UPDATE transaction SET points = 61, requested_points = 61 WHERE kind = 'TRANSFER_IN'",
        {1, 2, 3, 4, 9, 13},
        "-1 points left an account and reached none",
    ),
    "a command of more": (
        "UPDATE command SET points = 61 WHERE kind = 'TRANSFER'",
        {12, 13},
        "(TRANSFER): points 61",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_verify_finds_a_broken_transfer(database: Database, tamper: Tamper, damage: str) -> None:
    async with till_on(database, coalition(partner("grocer"), partner("fuel"))) as till:
        await till.enrolled("card-1", "card-2")
        await till.accept(till.purchase("k", "100.00"))
        await till.accept(till.transfer("t", 60))
        assert (await verify(database, till.clock)).holds
        statement, numbers, place = DAMAGES[damage]
        await tamper(statement)
        report = await verify(database, till.clock)
    failed = [check for check in report.checks if not check.holds]
    assert {check.number for check in failed} == numbers, failed
    assert any(place in check.detail for check in failed), failed


UNDONE = {
    "a lot that was not filled again": (
        "UPDATE lot SET remaining = 0 WHERE parent_id IS NULL",
        {2, 3, 4, 5, 7},
        "granted 100, used 0, remaining 0",
    ),
    "a use that fills more than came back": (
        "UPDATE lot_use SET points = 101 WHERE kind = 'TRANSFER_IN'",
        {2, 7, 13},
        "moves 100 points of issuer 1, funder 1, price 10000, but 101 arrive",
    ),
    "a use that fills another issuer's lot": (
        "UPDATE lot_use SET issuer_id = 2 WHERE kind = 'TRANSFER_IN'",
        {2, 7},
        "copies issuer 2, funder 1, price 10000 of lot",
    ),
    "a merge of other points": (
        "UPDATE command SET points = 99 WHERE kind = 'MERGE'",
        {12, 13},
        "(MERGE): points 99",
    ),
}


@pytest.mark.parametrize("damage", UNDONE)
async def test_verify_finds_a_broken_merge(database: Database, tamper: Tamper, damage: str) -> None:
    async with till_on(database, coalition(partner("grocer"), partner("fuel"))) as till:
        await till.enrolled("card-1", "card-2")
        await till.accept(till.purchase("k", "100.00", card="card-2"))
        await till.accept(till.merge("m"))
        await till.accept(till.unmerge("u", "m"))
        assert (await verify(database, till.clock)).holds
        statement, numbers, place = UNDONE[damage]
        await tamper(statement)
        report = await verify(database, till.clock)
    failed = [check for check in report.checks if not check.holds]
    assert {check.number for check in failed} == numbers, failed
    assert any(place in check.detail for check in failed), failed
