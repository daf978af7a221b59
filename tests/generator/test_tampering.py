"""Whatever column of a table of points, money or identity changes behind the application's back: it is named."""

import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import date, timedelta
from random import Random  # noqa: TID251 (seeded: invented data)
from typing import Any

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from domain.database import Database
from settlement.places import ALTERED_ENTRIES_SQL, ALTERED_TRANSACTIONS_SQL, find
from settlement.seals import ALTERED_ROWS, SEALED_TABLES
from settlement.verifying import VerifyReport, verify
from tests.domain.tills import Till, till_on
from tests.generator.coalitions import random_coalition, toml_text
from tests.generator.columns import (
    DERIVED,
    FREE,
    HASHED,
    KEY_STEP,
    OUTSIDE,
    Column,
    Derived,
    changed,
    columns,
    free_of_constraints,
    some_value,
)
from tests.generator.desk import Desk
from tests.generator.events import World
from tests.generator.histories import Tills, live
from tests.generator.households import Households
from tests.generator.test_generator import CARDS, close_all, periods_until

SEED = 12
"""A history with holds, pending points, used floats, debts, tax, disputes and payments in its first weeks."""

HASH_CHECKS = {
    "command": ALTERED_ROWS[12],
    "transaction": ALTERED_TRANSACTIONS_SQL,
    "partner_entry": ALTERED_ENTRIES_SQL,
    "lot": ALTERED_ROWS[2],
    "pending_award": ALTERED_ROWS[18],
}
SEALED = text("SELECT relation, columns FROM sealed_table")
BROKEN_SEALS = text("SELECT broken_seals(:table, 3)")
SEAL_AGAIN = text(
    "SELECT seal_table(relation, key_sql, VARIADIC CAST(:free AS text[])) FROM sealed_table WHERE relation = :table"
)
ONE = "ctid = (SELECT max(ctid) FROM {table} WHERE {which})"
Tamper = Callable[[str], Awaitable[None]]
Sealed = dict[str, set[str]]


async def a_history(till: Till, world: World) -> None:
    """Some weeks of tills, households and the desk, with their closes."""
    desk = Desk(world)
    makers = [*Tills(world).makers(), *Households(world).makers(), *desk.makers(), *desk.makers()]
    periods = periods_until(desk.book, date(2017, 3, 3))
    for number, (_, last) in enumerate(periods, start=1):
        while till.clock.now.date() <= last + timedelta(days=2):
            await live(world, makers, 1, 8)
        await close_all(till, periods[:number], desk.book)
    await live(world, desk.makers(), 2, 12)


async def test_a_row_that_changes_behind_the_application_s_back_is_found(
    database: Database, database_url: URL, tamper: Tamper
) -> None:
    random = Random(SEED)  # noqa: S311 (a history, no secret)
    coalition = random_coalition(random, SEED)
    engine = create_async_engine(database_url, poolclass=NullPool)
    async with till_on(database, toml_text(coalition)) as till, engine.connect() as superuser:
        till.clock.to(2017, 1, 20)
        await till.enrolled(*CARDS, partner=coalition["partner"][0]["code"])
        await a_history(till, World(random, coalition, till, CARDS))
        assert (await verify(database, till.clock)).holds

        found = {table: held for table, held in (await columns(superuser)).items() if table not in OUTSIDE}
        sealed = {table: set(names) for table, names in await superuser.execute(SEALED)}
        await superuser.rollback()
        assert set(sealed) == {table for tables in SEALED_TABLES.values() for table in tables}
        assert unprotected(found, sealed) == []
        assert await unseen_in_rows(superuser, found, sealed) == []
        await free_of_constraints(superuser)
        await superuser.commit()
        assert await unseen_by_others(till, tamper) == []
        assert (await verify(database, till.clock)).holds
    await engine.dispose()


def unprotected(found: dict[str, list[Column]], sealed: Sealed) -> list[tuple[str, str]]:
    """Columns of which nobody said what finds a change of them, or why none need be found."""
    return [
        (table, column.name)
        for table, held in found.items()
        for column in held
        if not is_in_row(column, sealed)
        and (table, column.name) not in FREE
        and column.name not in DERIVED.get(table, {})
    ]


def is_in_row(column: Column, sealed: Sealed) -> bool:
    """Whether the row's hash or seal says what the column was."""
    if column.table in HASHED:
        return column.name not in DERIVED.get(column.table, {})
    return column.name in sealed.get(column.table, ())


# ---------------------------------------------------------------- hashes and seals


async def unseen_in_rows(
    superuser: AsyncConnection, found: dict[str, list[Column]], sealed: Sealed
) -> list[tuple[str, str, list[str]]]:
    """Of what rows carry in a hash or a seal: changes that are not named, each made and undone."""
    unseen = []
    await superuser.execute(text("SET LOCAL session_replication_role = replica"))
    await free_of_constraints(superuser)
    for table, held in found.items():
        in_row = [column for column in held if is_in_row(column, sealed)]
        if await value(superuser, f"SELECT count(*) FROM {table}") == 0:
            await add_a_row(superuser, held, in_row)
        where = ONE.format(table=table, which="true")
        row_id = await value(superuser, f"SELECT to_jsonb(r) ->> 'id' FROM {table} AS r WHERE {where}")
        for column in in_row:
            undo = await superuser.begin_nested()
            await superuser.execute(text(f'UPDATE {table} SET "{column.name}" = {changed(column)} WHERE {where}'))
            places = await named_by(superuser, table)
            if not says(places, table, column, row_id):
                unseen.append((table, column.name, places))
            await undo.rollback()
    await superuser.rollback()
    return unseen


async def value(superuser: AsyncConnection, query: str) -> Any:
    return (await superuser.execute(text(query))).scalar_one()


async def named_by(superuser: AsyncConnection, table: str) -> list[str]:
    """What its hashes or seals say of the table."""
    if table in HASHED:
        return await find(superuser, HASH_CHECKS[table], None)
    return [place for (place,) in await superuser.execute(BROKEN_SEALS, {"table": table})]


def says(places: list[str], table: str, column: Column, row_id: str) -> bool:
    """Whether table, row and (of a seal) column are named; a key that moved is a row gone and one too many."""
    if table in HASHED:
        now = int(row_id) + (KEY_STEP if column.name == "id" else 0)
        return len(places) == 1 and HASHED[table].format(id=now) in places[0]
    if column.is_key:
        return sorted(place.split()[-1] for place in places) == ["application", "gone"]
    return len(places) == 1 and re.search(rf"^{table} .+ was changed: {column.name}$", places[0]) is not None


async def add_a_row(superuser: AsyncConnection, held: Iterable[Column], in_row: Iterable[Column]) -> None:
    """A row of a table that has none, sealed as the application would."""
    held = list(held)
    names = ", ".join(f'"{column.name}"' for column in held)
    values = ", ".join(some_value(column) for column in held)
    table = held[0].table
    await superuser.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"))
    free = [column.name for column in held if column not in in_row]
    await superuser.execute(SEAL_AGAIN, {"table": table, "free": free})


# ---------------------------------------------------------------- what other rows say


async def unseen_by_others(till: Till, tamper: Tamper) -> list[tuple[str, str, str]]:
    """Changes that verification does not name, one of each table at a time."""
    changes = {table: list(derived.items()) for table, derived in DERIVED.items()}
    for table in changes:
        await tamper(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")
    unseen = []
    for turn in range(max(map(len, changes.values()))):
        made = [(table, *derived[turn]) for table, derived in changes.items() if turn < len(derived)]
        expected = [await change(till, tamper, table, name, derived) for table, name, derived in made]
        report = await verify(till.database, till.clock)
        for (table, name, derived), place in zip(made, expected, strict=True):
            if place not in detail(report, derived.number):
                unseen.append((table, name, f"{place} not in {detail(report, derived.number)}"))
        for table, _, _ in made:
            await tamper(f"DELETE FROM {table}")
            await tamper(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM kept_{table}")
    for table in changes:
        await tamper(f"DROP TABLE kept_{table}")
    return unseen


async def change(till: Till, tamper: Tamper, table: str, name: str, derived: Derived) -> str:
    """Changes one column of one row; answers how verification is to name it."""
    [(place, row)] = await till.rows(
        f"SELECT {derived.named}, r.ctid::text FROM {table} AS r WHERE {ONE.format(table=table, which=derived.which)}"
    )
    now = derived.change or f"coalesce({name}, 0) + 1"
    await tamper(f"UPDATE {table} SET {name} = {now} WHERE ctid = '{row}'")
    return str(place)


def detail(report: VerifyReport, number: int) -> str:
    """What a check that failed says."""
    [check] = [one for one in report.checks if one.number == number]
    return "nothing" if check.holds else check.detail
