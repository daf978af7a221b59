"""The coalition that is measured: twenty partners on an embedded database with the product's own settings."""

import asyncio
import csv
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import httpx2

from api import embedded
from api.bulk import HEADER
from api.clock import system_clock
from api.oauth.clients import create_client
from api.runtime import open_runtime
from api.settings import load_settings
from partners.apply import apply_coalition
from partners.coalition_file import parse_coalition
from tests.api.processes import Coalition, Server, a_database
from tests.bench.figures import peak_mb
from tests.tidy import ROOT

PARTNERS = 20
USABLE_AT_ONCE = 10
"""Points of the partners before this one never wait."""

PENDING_DAYS = 14
YEAR_DAYS = 365
LOOK_SECONDS = 0.05
SCOPES = ("members:read", "points:earn")
PROGRAMME = """
[programme]
name = "Measured Coalition"
currency = "EUR"
timezone = "Europe/Berlin"
point_value = "0.01"
period = "month"
expiry_months = 24
max_backdate_days = 30
"""
PARTNER = """
[[partner]]
code = "p{number}"
name = "Partner {number}"
category = "shop"
stores = [{{ code = "s1", name = "First Street" }}]
[[partner.terms]]
from = {start}
issue_price = "0.010000"
service_fee = "0.001000"
reimbursement = "0.009000"
breakage_share = "0.50"
fixed_fee = "50.00"
pending_days = {pending_days}
[[partner.budget]]
from = {start}
every = "month"
limit = "1000000000.00"
on_limit = "PARTIAL"
after_period = "CREDIT_CURRENT"
alert_at = "0.80"
funding = "POSTPAID"
[[partner.earn_rule]]
code = "base"
from = {start}
points_per_unit = "1"
"""


CAMPAIGNS = """
[[campaign]]
code = "double"
name = "Twice the points"
from = {start}
to = {end}
partners = ["p0", "p1", "p2", "p3", "p4"]
multiplier = "2"
funding = [{{ partner = "p0", share = "0.6" }}, {{ partner = "p1", share = "0.4" }}]

[[campaign]]
code = "welcome"
name = "Five more"
from = {start}
to = {end}
partners = ["p5", "p6", "p7", "p8", "p9", "p10", "p11", "p12", "p13", "p14"]
bonus_points = 5
funding = [{{ operator = true }}]
"""


def coalition_toml(start: date, *, lively: bool) -> str:
    """Twenty partners whose contracts begin on that day.

    Of a ``lively`` one the later half gives its points after a return window, and two campaigns run at three quarters
    of the tills: one that two partners pay together, one that the operator pays.
    """
    partners = "".join(
        PARTNER.format(
            number=number, start=start, pending_days=PENDING_DAYS if lively and number >= USABLE_AT_ONCE else 0
        )
        for number in range(PARTNERS)
    )
    end = system_clock().date() + timedelta(days=YEAR_DAYS)
    return PROGRAMME + partners + (CAMPAIGNS.format(start=start, end=end) if lively else "")


def first_of_last_month() -> date:
    """The first day of the month before this one."""
    return (system_clock().date().replace(day=1) - timedelta(days=1)).replace(day=1)


@dataclass
class Shop:
    """A running database with the coalition, a client per partner, and members with cards."""

    coalition: Coalition
    database: embedded.EmbeddedServer
    members: int
    clients: Sequence[tuple[str, str]]

    def tokens(self, server: Server) -> list[str]:
        """A fresh token per partner."""
        return [server.token(client) for client in self.clients]

    def import_file(self, file: Path, *options: str) -> tuple[dict[str, object], float]:
        """Imports a bulk file with the command line; its summary and its peak memory in megabytes.

        Raises RuntimeError when a row was rejected: a refusal would be counted as speed.
        """
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", "from api.cli import main; main()", "import", str(file), "--json", *options],
                cwd=ROOT,
                env=self.coalition.environment,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
            peak, running = 0.0, True
            try:
                # Its figure ends with the process, so it is read until then.
                while running:
                    try:
                        process.wait(LOOK_SECONDS)
                        running = False
                    except subprocess.TimeoutExpired:
                        peak = max(peak, _peak_while_alive(process))
            finally:
                process.kill()
                process.wait()
            said.seek(0)
            text = said.read()
        if process.returncode:
            raise RuntimeError(f"the import failed: {text}")
        summary: dict[str, object] = json.loads(text[text.index("{") :])
        if summary["rejected"]:
            raise RuntimeError(f"the import rejected rows: {summary}")
        return summary, peak


def _peak_while_alive(process: subprocess.Popen[bytes]) -> float:
    try:
        return peak_mb(process.pid)
    except OSError:
        if sys.platform != "linux":
            raise
        return 0.0  # it ended between the two looks


@contextmanager
def a_shop(members: int, *, lively: bool) -> Iterator[Shop]:
    """A coalition in a folder of its own; whatever happens, its processes are stopped and the folder is removed."""
    with a_database() as (coalition, database):
        clients = asyncio.run(_set_up(coalition, lively=lively))
        shop = Shop(coalition, database, members, clients)
        file = write_rows(coalition.folder / "members.csv", enrolments(members))
        shop.import_file(file)
        yield shop


async def _set_up(coalition: Coalition, *, lively: bool) -> list[tuple[str, str]]:
    settings = load_settings(coalition.environment)
    async with open_runtime(settings) as runtime:
        last = first_of_last_month()
        # A year of purchases is imported too.
        parsed = parse_coalition(coalition_toml(last.replace(year=last.year - 1), lively=lively))
        await apply_coalition(runtime.database, parsed, clock=runtime.clock)
        made = [
            await create_client(
                runtime.database, runtime.clock, partner_code=f"p{number}", operator=False, scopes=SCOPES
            )
            for number in range(PARTNERS)
        ]
    return [(client.client_id, client.client_secret) for client in made]


def write_rows(file: Path, rows: Iterable[Sequence[object]]) -> Path:
    """A bulk file of these rows."""
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(HEADER)
        writer.writerows(rows)
    return file


def enrolments(members: int) -> Iterator[Sequence[object]]:
    """Rows that enroll card-0 and so on, each at one of the partners."""
    for number in range(members):
        yield ("enroll", f"enroll-{number}", f"p{number % PARTNERS}", "", "card", f"card-{number}", *[""] * 5)


@contextmanager
def the_baseline() -> Iterator[int]:
    """The baseline, served; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.baseline", str(port)], cwd=ROOT)
    try:
        for _ in range(300):
            if process.poll() is not None:
                raise RuntimeError("the baseline did not start")
            try:
                httpx2.get(f"http://127.0.0.1:{port}/graphql")
                break
            except httpx2.TransportError:
                asyncio.run(asyncio.sleep(0.1))
        else:
            raise RuntimeError("the baseline does not answer")
        yield port
    finally:
        process.terminate()
        process.wait(30)
