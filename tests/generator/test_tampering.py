"""One row of each table of money and points changes behind the application's back: verification names it."""

from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from random import Random  # noqa: TID251 (seeded: invented data)

from domain.database import Database
from settlement.verifying import verify
from tests.domain.tills import till_on
from tests.generator.coalitions import random_coalition, toml_text
from tests.generator.desk import Desk
from tests.generator.events import World
from tests.generator.histories import Tills, live
from tests.generator.households import Households
from tests.generator.test_generator import CARDS, close_all, periods_until

SEED = 11
"""A history with holds, pending points, floats, overdrafts, disputes and payments in its first weeks."""

ONE = "ctid = (SELECT ctid FROM {table} WHERE {which} ORDER BY ctid LIMIT 1)"
CHANGES = [
    # table, column, which row, how (None: one more), the invariant that fails
    ("command", "points", "kind = 'BURN'", None, 13),
    ("command", "partner_id", "kind = 'BURN'", "3 - partner_id", 9),
    ("transaction", "points", "kind = 'EARN_PENDING'", None, 9),
    ("lot", "remaining", "remaining < granted", None, 2),
    ("lot", "breakage_share_ppm", "parent_id IS NULL", None, 2),
    ("lot", "earned_at", "parent_id IS NULL", "earned_at + interval '1 day'", 2),
    ("lot_use", "points", "kind = 'BURN'", None, 2),
    ("partner_entry", "amount_micro", "kind = 'ADJUSTMENT'", None, 9),
    ("pending_award", "terms_id", "true", None, 18),
    ("pending_award", "funder_id", "true", None, 18),
    ("pending_award", "granted", "true", None, 18),
    ("pending_award", "reserved_micro", "open_points > 0", None, 11),
    ("hold", "partner_id", "true", None, 17),
    ("hold", "transaction_id", "true", None, 17),
    ("float_block", "amount_micro", "true", None, 11),
    ("float_block", "partner_id", "true", None, 11),
    ("budget", "consumed_micro", "true", None, 11),
    ("overdraft", "amount_micro", "true", None, 11),
    ("overdraft", "until", "true", "timestamptz '2030-01-01'", 11),
    ("statement", "due_minor", "true", None, 8),
    ("statement_line", "billed_minor", "true", None, 8),
    ("statement_tax", "tax_minor", "true", None, 8),
    ("position", "amount_micro", "true", None, 9),
    ("period", "margin_micro", "state = 'CLOSED'", None, 6),
    ("dispute", "line_kind", "state = 'OPEN'", "'TAX'", 16),
    ("dispute", "partner_id", "state IN ('ACCEPTED', 'REJECTED')", None, 9),
    ("proposal", "points", "kind = 'POINTS' AND state = 'APPROVED'", None, 9),
    ("proposal", "amount_micro", "kind = 'ADJUSTMENT' AND state = 'APPROVED'", None, 9),
    ("proposal", "amount_micro", "kind = 'OVERDRAFT' AND state = 'APPROVED'", None, 11),
    ("adjustment", "amount_micro", "kind = 'ADJUSTMENT'", None, 9),
    ("payment", "amount_minor", "true", None, 16),
    ("account", "available", "true", None, 3),
]


async def test_a_row_that_changes_behind_the_application_s_back_is_found(
    database: Database, tamper: Callable[[str], Awaitable[None]]
) -> None:
    random = Random(SEED)  # noqa: S311 (a history, no secret)
    coalition = random_coalition(random, SEED)
    async with till_on(database, toml_text(coalition)) as till:
        till.clock.to(2017, 1, 20)
        await till.enrolled(*CARDS, partner=coalition["partner"][0]["code"])
        world = World(random, coalition, till, CARDS)
        desk = Desk(world)
        makers = [*Tills(world).makers(), *Households(world).makers(), *desk.makers(), *desk.makers()]
        periods = periods_until(desk.book, date(2017, 3, 3))
        for number, (_, last) in enumerate(periods, start=1):
            while till.clock.now.date() <= last + timedelta(days=2):
                await live(world, makers, 1, 8)
            await close_all(till, periods[:number], desk.book)
        await live(world, desk.makers(), 2, 12)
        assert (await verify(database, till.clock)).holds
        unseen = []
        for table, column, which, change, number in CHANGES:
            one = ONE.format(table=table, which=which)
            assert await till.rows(f"SELECT 1 FROM {table} WHERE {which} LIMIT 1"), (table, which)
            await tamper(f"CREATE TABLE kept AS SELECT * FROM {table}")
            changed = f"{column} + 1" if change is None else change
            await tamper(f"UPDATE {table} SET {column} = {changed} WHERE {one}")
            report = await verify(database, till.clock)
            if number not in {check.number for check in report.checks if not check.holds}:
                unseen.append((table, column, which))
            await tamper(f"DELETE FROM {table}")
            await tamper(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM kept")
            await tamper("DROP TABLE kept")
        assert unseen == []
        assert (await verify(database, till.clock)).holds
