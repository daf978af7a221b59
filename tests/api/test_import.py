"""The bulk file: order, rejects, repetition, booking into history."""

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import text

from api.bulk import HEADER, REJECT_HEADER, Summary, read_rows
from api.importing import import_bulk_file
from api.runtime import Runtime
from domain.database import Database
from domain.errors import InputFileError
from domain.terms import ConfigurationCache
from settlement.closing import close_period
from tests.api.processes import a_database
from tests.factories import COALITION_TOML, MID_MARCH, apply_toml, fixed_clock

SCREEN = Console(file=io.StringIO())
IN_MAY = datetime(2017, 5, 20, 12, tzinfo=UTC)


def bulk(*rows: str) -> str:
    """A bulk file of these rows."""
    return "\n".join([",".join(HEADER), *rows]) + "\n"


ENROLL = "enroll,e1,grocer,s1,card,card-1,2017-03-01T09:00:00+01:00,,,,"
EARN = "earn,k1,grocer,s1,card,card-1,2017-03-02T09:00:00+01:00,100.50,EUR,,r1"
BURN = "burn,b1,fuel,,card,card-1,2017-03-03T09:00:00+01:00,,,40,r2"
RETURN = "reverse,v1,grocer,,,,2017-03-04T09:00:00+01:00,50.25,EUR,,r1"
REFUND = "reverse,v2,fuel,,,,2017-03-05T09:00:00+01:00,,,10,r2"


async def load(
    database: Database, folder: Path, content: str, *, instant: datetime = MID_MARCH, is_history: bool = False
) -> tuple[Summary, list[dict[str, str]]]:
    """Imports a file; answers the summary and the rejected rows."""
    file = folder / "file.csv"
    file.write_text(content, encoding="utf-8")
    runtime = Runtime(database, ConfigurationCache(database), fixed_clock(instant))
    summary = await import_bulk_file(runtime, str(file), None, SCREEN, is_history=is_history)
    rejects = folder / "file.csv.rejects.csv"
    if not rejects.exists():
        return summary, []
    with rejects.open(encoding="utf-8", newline="") as opened:
        return summary, list(csv.DictReader(opened))


async def balance(database: Database) -> int:
    """Points of the only account."""
    async with database.posting() as connection:
        return int((await connection.execute(text("SELECT sum(available)::bigint FROM account"))).scalar_one())


async def test_a_payment_row_names_its_purchase_and_makes_points_usable(database: Database, tmp_path: Path) -> None:
    await apply_toml(database, COALITION_TOML.replace('"supermarket"', '"supermarket"\nrisk = "PAID_FIRST"'))
    paid = "payment,p1,grocer,s1,,,2017-03-03T08:00:00+01:00,,,,r1"
    summary, rejects = await load(
        database, tmp_path, bulk(ENROLL, EARN, BURN, paid, BURN, paid, paid.replace("p1", "p2")), is_history=True
    )
    # The first burn comes before the payment, and is sent again after it.
    assert [(row["line"], row["code"]) for row in rejects] == [("4", "INSUFFICIENT_POINTS"), ("8", "NOTHING_PENDING")]
    assert summary.as_json()["postedByKind"] == {"enroll": 1, "earn": 1, "payment": 1, "burn": 1}
    assert (summary.replayed, await balance(database)) == (1, 60)


async def test_rows_are_posted_in_file_order(database: Database, tmp_path: Path) -> None:
    await apply_toml(database)
    summary, rejects = await load(database, tmp_path, bulk(ENROLL, EARN, BURN, RETURN, REFUND))
    assert rejects == []
    assert summary.as_json() == {
        "rows": 5,
        "posted": 5,
        "postedByKind": {"enroll": 1, "earn": 1, "burn": 1, "reverse": 2},
        "replayed": 0,
        "rejected": 0,
        "rejectedByCode": {},
        "bookedInLaterPeriod": 0,
    }
    assert await balance(database) == 100 - 40 - 50 + 10


async def test_a_file_given_again_moves_nothing(database: Database, tmp_path: Path) -> None:
    await apply_toml(database)
    content = bulk(ENROLL, EARN, BURN)
    await load(database, tmp_path, content)
    summary, rejects = await load(database, tmp_path, content)
    assert (summary.replayed, sum(summary.posted.values()), rejects) == (3, 0, [])
    assert await balance(database) == 60


BAD_ROWS = {
    "sell,x1,grocer,,card,card-1,2017-03-02T09:00:00Z,1.00,EUR,,x1": "INPUT_INVALID",
    "earn,x2,nobody,,card,card-1,2017-03-02T09:00:00Z,1.00,EUR,,x2": "INPUT_INVALID",
    "earn,x3,grocer,,card,card-1,2017-03-02T09:00:00Z,1.00,EUR": "INPUT_INVALID",
    "earn,x4,grocer,,card,card-1,2017-03-02T09:00:00,1.00,EUR,,x4": "INPUT_INVALID",
    "earn,x5,grocer,,card,card-1,yesterday,1.00,EUR,,x5": "INPUT_INVALID",
    "earn,x6,grocer,,card,card-1,2017-03-02T09:00:00Z,1.005,EUR,,x6": "AMOUNT_INVALID",
    "earn,x7,grocer,,card,card-1,2017-03-02T09:00:00Z,-1.00,EUR,,x7": "AMOUNT_INVALID",
    "earn,x8,grocer,,card,card-1,2017-03-02T09:00:00Z,many,EUR,,x8": "AMOUNT_INVALID",
    "earn,x9,grocer,,card,card-1,2017-03-02T09:00:00Z,,EUR,,x9": "AMOUNT_INVALID",
    "earn,x10,grocer,,card,card-1,2017-03-02T09:00:00Z,NaN,EUR,,x10": "AMOUNT_INVALID",
    "earn,x11,grocer,,card,card-1,2017-03-02T09:00:00Z,1.00,USD,,x11": "CURRENCY_MISMATCH",
    "earn,x12,grocer,,card,nobody,2017-03-02T09:00:00Z,1.00,EUR,,x12": "MEMBER_NOT_FOUND",
    "earn,x13,grocer,,phone,no-phone,2017-03-02T09:00:00Z,1.00,EUR,,x13": "MEMBER_NOT_FOUND",
    "earn,x14,grocer,,id,AAAA,2017-03-02T09:00:00Z,1.00,EUR,,x14": "MEMBER_NOT_FOUND",
    "earn,x15,grocer,nowhere,card,card-1,2017-03-02T09:00:00Z,1.00,EUR,,x15": "STORE_NOT_FOUND",
    "earn,x16,grocer,s1,card,card-1,2017-03-02T09:00:00Z,1.00,EUR,,r1": "DUPLICATE_REFERENCE",
    "earn,,grocer,,card,card-1,2017-03-02T09:00:00Z,1.00,EUR,,x17": "INPUT_INVALID",
    "earn,x18,grocer,,card,card-1,2018-03-02T09:00:00Z,1.00,EUR,,x18": "OCCURRED_IN_FUTURE",
    "earn,x19,grocer,,card,card-1,2016-03-02T09:00:00Z,1.00,EUR,,x19": "OCCURRED_TOO_LONG_AGO",
    "burn,x20,grocer,,card,card-1,2017-03-02T09:00:00Z,,,1000000,x20": "INSUFFICIENT_POINTS",
    "burn,x21,grocer,,card,card-1,2017-03-02T09:00:00Z,,,,x21": "AMOUNT_INVALID",
    "burn,x22,grocer,,card,card-1,2017-03-02T09:00:00Z,,,1.5,x22": "AMOUNT_INVALID",
    "burn,x23,grocer,,card,card-1,2017-03-02T09:00:00Z,,,-1,x23": "AMOUNT_INVALID",
    "reverse,x24,grocer,,,,2017-03-02T09:00:00Z,,,,never": "TRANSACTION_NOT_FOUND",
    "reverse,x25,grocer,,,,2017-03-02T09:00:00Z,1000.00,EUR,,r1": "EXCEEDS_ORIGINAL",
    "enroll,x26,grocer,,email,not-an-address,,,,,": "INPUT_INVALID",
    "enroll,x27,grocer,,tattoo,blue,,,,,": "INPUT_INVALID",
}


async def test_bad_rows_are_rejected_alone_with_line_and_code(database: Database, tmp_path: Path) -> None:
    await apply_toml(database)
    last = "earn,k2,grocer,s1,card,card-1,2017-03-02T09:00:00+01:00,7.00,EUR,,r-last"
    summary, rejects = await load(database, tmp_path, bulk(ENROLL, EARN, *BAD_ROWS, last))
    assert [row["code"] for row in rejects] == list(BAD_ROWS.values())
    assert [int(row["line"]) for row in rejects] == list(range(4, 4 + len(BAD_ROWS)))
    assert all(row["message"] for row in rejects)
    assert tuple(rejects[0]) == REJECT_HEADER
    assert sum(summary.posted.values()) == 3
    assert await balance(database) == 107


async def test_a_return_after_the_contract_s_window_is_rejected(database: Database, tmp_path: Path) -> None:
    await apply_toml(database, COALITION_TOML.replace('fixed_fee = "50.00"', 'fixed_fee = "50.00"\nreversal_days = 1'))
    in_time = RETURN.replace("v1", "v0").replace("03-04T09:00:00+01:00,50.25", "03-03T23:59:59+01:00,10.05")
    summary, rejects = await load(database, tmp_path, bulk(ENROLL, EARN, in_time, RETURN))
    assert [(row["line"], row["code"]) for row in rejects] == [("5", "REVERSAL_WINDOW_OVER")]
    assert (summary.as_json()["posted"], await balance(database)) == (3, 90)


async def test_a_reference_of_an_earn_and_a_burn_is_ambiguous(database: Database, tmp_path: Path) -> None:
    await apply_toml(database)
    both = "burn,b9,grocer,s1,card,card-1,2017-03-03T09:00:00+01:00,,,5,r1"
    unclear = "reverse,v9,grocer,,,,2017-03-04T09:00:00+01:00,,,,r1"
    clear = "reverse,v10,grocer,,,,2017-03-04T09:00:00+01:00,,,5,r1"
    _, rejects = await load(database, tmp_path, bulk(ENROLL, EARN, both, unclear, clear))
    assert [row["code"] for row in rejects] == ["AMBIGUOUS_REFERENCE"]
    assert await balance(database) == 100


async def test_history_is_booked_where_it_happened_or_in_the_next_open_period(
    database: Database, tmp_path: Path
) -> None:
    await apply_toml(database)
    february = "earn,k0,grocer,s1,card,card-1,2017-02-10T09:00:00+01:00,10.00,EUR,,r0"
    enroll = "enroll,e1,grocer,s1,card,card-1,2017-02-01T09:00:00+01:00,,,,"
    summary, rejects = await load(database, tmp_path, bulk(enroll, february, EARN), instant=IN_MAY, is_history=True)
    assert (rejects, summary.later_period) == ([], 0)
    async with database.posting() as connection:
        placed = "SELECT idempotency_key, label FROM command JOIN period ON period.id = period_id ORDER BY 1"
        found = {row.idempotency_key: row.label for row in await connection.execute(text(placed))}
    assert found == {"e1": "2017-02", "k0": "2017-02", "k1": "2017-03"}
    await close_period(database, fixed_clock(IN_MAY), "2017-02", "close")
    late = "earn,k9,grocer,s1,card,card-1,2017-02-11T09:00:00+01:00,10.00,EUR,,r9"
    summary, rejects = await load(database, tmp_path, bulk(late), instant=IN_MAY, is_history=True)
    assert (rejects, summary.later_period) == ([], 1)


@pytest.mark.parametrize("content", ["", "kind,partner\n", "\x00\n"])
async def test_a_file_that_is_no_bulk_file_is_refused_whole(database: Database, tmp_path: Path, content: str) -> None:
    await apply_toml(database)
    with pytest.raises(InputFileError):
        await load(database, tmp_path, content)


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (b"\xe4", "somewhere after line 1 the file is no UTF-8 text: save it as UTF-8, import it again"),
        (
            b'"' + b"x" * 10_001,
            "line 2 cannot be read (field larger than field limit (10000)): is a quote left open there or before?",
        ),
    ],
)
def test_a_file_that_cannot_be_read_on_says_what_to_do(tail: bytes, message: str) -> None:
    source = io.TextIOWrapper(io.BytesIO(bulk().encode() + tail), encoding="utf-8", newline="")
    with pytest.raises(InputFileError) as refused:
        list(read_rows(source))
    assert str(refused.value) == message


def test_the_command_reads_a_file_and_standard_input_and_says_what_it_did(tmp_path: Path) -> None:
    with a_database() as (coalition, _):
        coalition.apply()
        file = coalition.folder / "year.csv"
        file.write_text(bulk(ENROLL, EARN, next(iter(BAD_ROWS))), encoding="utf-8")
        printed = coalition.run("import", str(file), "--booking", "occurred")
        assert "posted: 2\npostedByKind: enroll 1, earn 1\nreplayed: 0\nrejected: 1\n" in printed
        assert (coalition.folder / "year.csv.rejects.csv").exists()
        rejects = str(coalition.folder / "rejects.csv")
        again = coalition.run("import", "-", "--booking", "occurred", "--rejects", rejects, given=bulk(BURN))
        assert "posted: 1" in again
        coalition.run("import", str(coalition.folder / "missing.csv"), status=1)
        assert "cannot be read" in coalition.last_error
        coalition.run("import", str(file), "--booking", "later", status=1)
