"""The exported ledger: columns, rows and bytes, its range, and a file that is whole or not there."""

import asyncio
import csv
import os
import stat
import subprocess
from collections.abc import AsyncIterator, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from api import export as export_module
from api.bulk import HEADER as BULK_HEADER
from api.export import HEADER, Exported, export_transactions
from api.runtime import Runtime
from domain.commands import StoreRef
from domain.database import Database
from domain.errors import ConfigurationError, InputFileError
from domain.terms import ConfigurationCache
from tests.api.processes import COMMAND, a_database
from tests.domain.coalitions import coalition, partner
from tests.domain.tills import Till, till_on
from tests.factories import fixed_clock

GENEROUS = coalition(
    partner("grocer", budgets={"limit": "0.66", "on_limit": "OPERATOR_FUNDED"}),
    partner("fuel", terms={"reimbursement": "0.009200"}),
)
MARCH = (date(2017, 3, 1), date(2017, 3, 31))
TIMES = ("2017-03-15T12:00:00Z", "2017-03-15T12:00:00Z", "2017-03")


@pytest.fixture
async def till(database: Database) -> AsyncIterator[Till]:
    async with till_on(database, GENEROUS) as opened:
        await opened.enrolled("card-1")
        yield opened


async def export(
    till: Till, file: Path, first: date = MARCH[0], last: date = MARCH[1]
) -> tuple[Exported, list[dict[str, str]]]:
    """Exports into a file; answers the summary and the file's rows."""
    done = await export_transactions(
        Runtime(till.database, till.cache, till.clock), str(file), first, last, lambda _written, _total: None
    )
    with file.open(encoding="utf-8", newline="") as opened:
        return done, list(csv.DictReader(opened))


def names(folder: Path) -> list[str]:
    """What the folder holds."""
    return sorted(path.name for path in folder.iterdir())


def picked(rows: Sequence[dict[str, str]], *columns: str) -> list[tuple[str, ...]]:
    """These columns of the rows."""
    return [tuple(row[column] for column in columns) for row in rows]


async def test_every_movement_is_a_row_with_its_money(till: Till, tmp_path: Path) -> None:
    bought = await till.accept(till.purchase("k", "60.50", reference='receipt, "7"', store=StoreRef(code="grocer-1")))
    gift = await till.accept(till.purchase("g", "40.00"))
    burned = await till.accept(till.burn("b", 70, partner="fuel", reference="pump"))
    returned = await till.accept(till.reversal("v", "g", amount="25.00"))
    done, rows = await export(till, tmp_path / "ledger.csv")

    assert (tmp_path / "ledger.csv").read_text("utf-8").split("\n")[0] == (
        "command,id,kind,partner,funder,store,account,reference,idempotency_key,occurred_at,recorded_at,period,points,"
        "amount,currency,issue_value,service_fee,reimbursement,pool_value,breakage_share,reverses"
    )
    assert done == Exported(commands=4, rows=4)
    # The first purchase leaves the budget of 0.66 nothing; the operator pays for the second.
    assert picked(rows, "kind", "partner", "funder", "store", "points", "amount", "currency") == [
        ("EARN", "grocer", "grocer", "grocer-1", "60", "60.50", "EUR"),
        ("EARN", "grocer", "operator", "", "40", "40.00", "EUR"),
        ("BURN", "fuel", "", "", "-70", "", "EUR"),
        ("EARN_REVERSAL", "grocer", "operator", "", "-25", "25.00", "EUR"),
    ]
    assert picked(rows, "issue_value", "service_fee", "reimbursement", "pool_value", "breakage_share") == [
        ("-0.600000", "-0.060000", "0.000000", "0.600000", "0.000000"),
        ("-0.400000", "0.000000", "0.000000", "0.400000", "0.000000"),
        ("0.000000", "0.000000", "0.644000", "-0.700000", "0.000000"),
        ("0.250000", "0.000000", "0.000000", "-0.250000", "0.000000"),
    ]
    assert picked(rows, "reference", "idempotency_key", "command") == [
        ('receipt, "7"', "k", str(bought.command.id)),
        ("g", "g", str(gift.command.id)),
        ("pump", "b", str(burned.command.id)),
        ("g", "v", str(returned.command.id)),
    ]
    assert set(picked(rows, "occurred_at", "recorded_at", "period", "account")) == {
        (*TIMES, str(bought.command.account_id))
    }
    assert [row["reverses"] for row in rows] == ["", "", "", rows[1]["id"]]
    assert len({row["id"] for row in rows}) == 4


async def test_rows_of_a_command_share_all_but_the_amount(till: Till, tmp_path: Path) -> None:
    await till.accept_all([till.purchase("k", "30.00"), till.purchase("l", "30.00")])
    await till.accept(till.burn("b", 45, partner="fuel"))
    # All of the first lot and half of the second are burned: 15 points of the return come from the second.
    returned = await till.accept(till.reversal("v", "k"))
    done, rows = await export(till, tmp_path / "ledger.csv")

    assert done == Exported(commands=4, rows=5)
    assert returned.shortfall_points == 15
    assert picked(rows[3:], "command", "reference", "idempotency_key", "kind", "points", "amount", "reverses") == [
        (str(returned.command.id), "k", "v", "EARN_REVERSAL", "0", "30.00", rows[0]["id"]),
        (str(returned.command.id), "k", "v", "EARN_REVERSAL", "-15", "", rows[0]["id"]),
    ]


async def test_the_file_adds_up_to_the_ledger(till: Till, tmp_path: Path) -> None:
    await till.accept_all([till.purchase(f"k{number}", f"{number}.00") for number in range(1, 40)])
    await till.accept(till.burn("b", 300, partner="fuel"))
    await till.accept_all([till.reversal(f"v{number}", f"k{number}") for number in range(1, 40, 3)])
    _, rows = await export(till, tmp_path / "ledger.csv")

    money = ("issue_value", "service_fee", "reimbursement", "pool_value", "breakage_share")
    [stored] = await till.rows(
        "SELECT count(*), sum(points)::bigint, "
        + ", ".join(f"(sum({name}_micro) / 1000000)::numeric(20, 6)" for name in money)
        + " FROM transaction"
    )
    sums = [sum((Decimal(row[name]) for row in rows), Decimal()) for name in money]
    assert [len(rows), sum(int(row["points"]) for row in rows), *sums] == list(stored)
    assert sum(int(row["points"]) for row in rows) == await till.available()


async def test_pages_make_the_same_bytes_as_one(till: Till, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await till.accept_all([till.purchase(f"k{number}", "40.00") for number in range(5)])
    till.clock.forward(hours=1)
    await till.accept_all([till.purchase(f"k{number}", "40.00") for number in range(5, 10)])
    told: list[tuple[int, int]] = []
    runtime = Runtime(till.database, till.cache, till.clock)
    await export_transactions(runtime, str(tmp_path / "one.csv"), *MARCH, lambda *counts: told.append(counts))
    monkeypatch.setattr(export_module, "PAGE_COMMANDS", 3)
    await export_transactions(runtime, str(tmp_path / "many.csv"), *MARCH, lambda *counts: told.append(counts))

    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "many.csv").read_bytes()
    _, rows = await export(till, tmp_path / "rows.csv")
    assert picked(rows, "idempotency_key") == [(f"k{number}",) for number in range(10)]
    assert told == [(10, 10), (3, 10), (6, 10), (9, 10), (10, 10)]


async def test_days_are_local_and_inclusive_and_of_the_purchase(till: Till, tmp_path: Path) -> None:
    # Berlin is at UTC+1: the 10th begins at 23:00 of the 9th and ends before 23:00 of the 10th.
    moments = {"before": (9, 22, 59), "first": (9, 23, 0), "last": (10, 22, 59), "after": (10, 23, 0)}
    for key, (day, hour, minute) in moments.items():
        at = till.clock.now.replace(day=day, hour=hour, minute=minute)
        await till.accept(till.purchase(key, at=at))
    _, rows = await export(till, tmp_path / "day.csv", date(2017, 3, 10), date(2017, 3, 10))

    assert picked(rows, "idempotency_key", "occurred_at", "recorded_at") == [
        ("first", "2017-03-09T23:00:00Z", "2017-03-15T12:00:00Z"),
        ("last", "2017-03-10T22:59:00Z", "2017-03-15T12:00:00Z"),
    ]


async def test_expiries_are_in_the_file_under_their_issuer(till: Till, tmp_path: Path) -> None:
    await till.accept(till.purchase("k", "50.00"))
    till.clock.to(2019, 4, 1)
    await till.accept(till.purchase("k2", "30.00"))
    await till.accept(till.burn("b", 10, partner="fuel"))
    _, rows = await export(till, tmp_path / "ledger.csv", date(2019, 3, 16), date(2019, 3, 16))

    # It occurred when the points lapsed, though nobody came to use them before April.
    assert picked(rows, "kind", "partner", "funder", "points", "breakage_share", "occurred_at", "recorded_at") == [
        ("EXPIRE", "grocer", "grocer", "-50", "0.250000", "2019-03-15T23:00:00Z", "2019-04-01T12:00:00Z")
    ]
    assert rows[0]["idempotency_key"].startswith("system:")


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "100"), ("BHD", "100.500"), ("EUR", "0.00")])
async def test_an_amount_has_the_currency_s_decimals(
    database: Database, tmp_path: Path, currency: str, amount: str
) -> None:
    async with till_on(database, coalition(partner("grocer"), currency=currency)) as till:
        await till.enrolled("card-1")
        await till.accept(till.purchase("k", amount))
        _, rows = await export(till, tmp_path / "ledger.csv")
    assert picked(rows, "amount", "currency") == [(amount, currency)]


async def test_an_empty_range_is_a_file_with_a_header(till: Till, tmp_path: Path) -> None:
    done, rows = await export(till, tmp_path / "ledger.csv", date(1999, 1, 1), date(1999, 1, 1))
    assert (done, rows) == (Exported(0, 0), [])
    assert (tmp_path / "ledger.csv").read_text("utf-8") == ",".join(HEADER) + "\n"


@pytest.mark.parametrize(
    ("first", "last"), [(MARCH[1], MARCH[0]), (date(1, 1, 1), MARCH[1]), (MARCH[0], date(9999, 12, 31))]
)
async def test_a_range_that_is_none_is_said_and_writes_nothing(
    till: Till, tmp_path: Path, first: date, last: date
) -> None:
    with pytest.raises(InputFileError, match=r"^--from|^give dates"):
        await export(till, tmp_path / "ledger.csv", first, last)
    assert names(tmp_path) == []


async def test_more_than_fits_into_a_file_is_refused(
    till: Till, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await till.accept_all([till.purchase(f"k{number}", "1.00") for number in range(3)])
    monkeypatch.setattr(export_module, "COMMANDS_MAX", 2)
    with pytest.raises(InputFileError, match="3 commands in this range, at most 2"):
        await export(till, tmp_path / "ledger.csv")
    assert names(tmp_path) == []


async def test_without_a_programme_it_says_what_to_do(database: Database, tmp_path: Path) -> None:
    runtime = Runtime(database, ConfigurationCache(database), fixed_clock())
    with pytest.raises(ConfigurationError, match="coalition apply"):
        await export_transactions(runtime, str(tmp_path / "ledger.csv"), *MARCH, lambda _written, _total: None)
    assert names(tmp_path) == []


# ---------------------------------------------------------------- the file


async def test_a_failure_on_the_way_leaves_the_old_file(
    till: Till, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await till.accept_all([till.purchase(f"k{number}", "1.00") for number in range(4)])
    file = tmp_path / "ledger.csv"
    file.write_text("yesterday's", encoding="utf-8")
    monkeypatch.setattr(export_module, "PAGE_COMMANDS", 2)

    def fail(written: int, _total: int) -> None:
        assert file.read_text("utf-8") == "yesterday's"
        if written == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await export_transactions(Runtime(till.database, till.cache, till.clock), str(file), *MARCH, fail)
    assert names(tmp_path) == ["ledger.csv"]
    assert file.read_text("utf-8") == "yesterday's"


async def test_a_link_stays_a_link_and_a_pipe_a_pipe(till: Till, tmp_path: Path) -> None:
    await till.accept(till.purchase("k", "1.00"))
    _, rows = await export(till, tmp_path / "real.csv")
    content = (tmp_path / "real.csv").read_bytes()
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    (tmp_path / "real.csv").write_bytes(b"")
    await export(till, tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_bytes() == content

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_bytes))
    await export_transactions(
        Runtime(till.database, till.cache, till.clock), str(pipe), *MARCH, lambda _written, _total: None
    )
    assert await reading == content
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert rows


@pytest.mark.parametrize("name", ["missing/ledger.csv", "."])
async def test_a_file_that_cannot_be_written_is_said(till: Till, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputFileError, match="cannot be written: "):
        await export(till, tmp_path / name)
    assert names(tmp_path) == []


@pytest.mark.slow
def test_the_command_writes_a_file_or_standard_output(tmp_path: Path) -> None:
    with a_database() as (coalition, _):
        coalition.apply()
        rows = [
            ",".join(BULK_HEADER),
            "enroll,e1,grocer,s1,card,card-1,2017-03-01T09:00:00+01:00,,,,",
            "earn,k1,grocer,s1,card,card-1,2017-03-02T09:00:00+01:00,100.50,EUR,,r1",
        ]
        coalition.run("import", "-", "--booking", "occurred", given="\n".join(rows) + "\n")
        asked = ("export", "transactions")
        days = ("--from", "2017-03-02", "--to", "2017-03-02")
        printed = coalition.run(*asked, "-", *days, "--json")
        assert '{"commands": 1, "rows": 1}' in coalition.last_error
        lines = list(csv.DictReader(printed.splitlines()))
        assert picked(lines, "store", "amount", "occurred_at", "period") == [
            ("s1", "100.50", "2017-03-02T08:00:00Z", "2017-03")
        ]
        coalition.run(*asked, str(tmp_path / "ledger.csv"), *days)
        assert (tmp_path / "ledger.csv").read_text("utf-8") == printed
        coalition.run(*asked, str(tmp_path / "no" / "ledger.csv"), *days, status=1)
        assert coalition.last_error.strip().endswith("cannot be written: No such file or directory")
        coalition.run(*asked, "-", "--from", "2.3.2017", "--to", "2017-03-02", status=2)
        # Whoever reads no further ends it with one line.
        with subprocess.Popen(
            [*COMMAND, *asked, "-", *days], env=coalition.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as unread:
            assert unread.stdout is not None
            assert unread.stderr is not None
            unread.stdout.close()
            assert unread.stderr.read().decode().strip().endswith("- cannot be written: Broken pipe")
        assert unread.returncode == 1
