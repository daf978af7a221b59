"""Real processes of the platform on an embedded database, and a load that remembers what was acknowledged."""

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from api import embedded
from api.cli import main
from tests.factories import COALITION_TOML

# A child of this one has the modules loaded that a new interpreter takes a second and a half to load.
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["tests.api.processes", "api.cli", "api.operating"])
COMMAND = [sys.executable, "-c", "from api.cli import main; main()"]
READY_SECONDS = 60
EARN = """
mutation ($input: EarnInput!) { earn(input: $input) { __typename
  ... on EarnReceipt { points replayed transaction { id } } ... on Refusal { code message retryable } } }
"""


def _command(arguments: Sequence[str], environment: Mapping[str, str], files: Sequence[Path]) -> None:
    """A command in this process, as the shell would start it: its arguments, environment and three files."""
    for number, file in enumerate(files):
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (open as long as the process)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["coalition", *arguments]
    main()


class Coalition:
    """One data folder and the processes on it."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
            "COALITION_DATA_DIR": str(self.data_dir),
            "COALITION_LOG_LEVEL": "WARNING",
        }
        self._servers: list[subprocess.Popen[bytes]] = []
        self._begun: list[Process] = []

    def run(self, *arguments: str, status: int = 0, given: str | None = None) -> str:
        """Runs a command to its end, in a process of its own; its standard output."""
        files = [self.folder / name for name in ("standard-input", "standard-output", "standard-error")]
        files[0].write_text(given or "", encoding="utf-8")
        process = FORKING.Process(target=_command, args=(arguments, self.environment, files))
        process.start()
        process.join()
        output, self.last_error = (file.read_text(encoding="utf-8") for file in files[1:])
        assert process.exitcode == status, f"{arguments}: {output}{self.last_error}"
        return output

    def apply(self, toml_text: str = COALITION_TOML) -> None:
        """Applies a coalition file."""
        file = self.folder / "coalition.toml"
        file.write_text(toml_text, encoding="utf-8")
        self.run("apply", str(file))

    def client(self, *scopes: str, partner: str | None = "grocer") -> tuple[str, str]:
        """A new client's id and secret."""
        owner = ["--operator"] if partner is None else ["--partner", partner]
        made = json.loads(self.run("client", "create", *owner, "--scopes", " ".join(scopes), "--json"))
        return made["client_id"], made["client_secret"]

    def serve(self) -> "Server":
        """Starts a server and waits until it is ready."""
        port = free_port()
        environment = {**self.environment, "COALITION_PORT": str(port)}
        log_file = self.folder / f"serve-{port}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen([*COMMAND, "serve"], env=environment, stdout=log, stderr=log)
        self._servers.append(process)
        server = Server(process, f"http://127.0.0.1:{port}", log_file)
        server.wait_until_ready()
        return server

    def begin(self, *arguments: str) -> "Process":
        """Starts a command and does not wait for it."""
        process = subprocess.Popen(
            [*COMMAND, *arguments], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        begun = Process(process)
        self._begun.append(begun)
        return begun

    def postmaster_pid(self) -> int:
        """Process id of the embedded database server."""
        (found,) = self.data_dir.glob("**/postmaster.pid")
        return int(found.read_text(encoding="ascii").splitlines()[0])

    def stop(self) -> None:
        """Ends what is left of the servers and commands."""
        for begun in self._begun:
            if begun.is_running:
                begun.kill()
        for process in self._servers:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._servers:
            process.wait(30)


class Process:
    """One command that was begun."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def output(self) -> str:
        """Waits for its end, which must be a good one; its standard output."""
        output, errors = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, f"{output}{errors}"
        return output

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it without a word, as kill -9 does."""
        self._process.kill()
        self._process.communicate()


class Server:
    """One running server."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def wait_until_ready(self) -> None:
        """Returns when ``/readyz`` answers 200."""
        with httpx2.Client() as http:  # one for all attempts: each new one reads the authorities' certificates
            for _ in range(READY_SECONDS * 10):
                assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
                try:
                    if http.get(f"{self.url}/readyz").status_code == httpx2.codes.OK:
                        return
                except httpx2.TransportError:
                    pass
                _pause()
        raise AssertionError(self.log.read_text(encoding="utf-8"))

    def token(self, client: tuple[str, str]) -> str:
        """An access token for a client."""
        answer = httpx2.post(f"{self.url}/oauth/token", data={"grant_type": "client_credentials"}, auth=client)
        assert answer.status_code == httpx2.codes.OK, answer.text
        return str(answer.json()["access_token"])

    def ask(self, token: str, query: str, variables: dict[str, Any] | None = None) -> Any:
        """The data of a document that must run without errors."""
        answer = httpx2.post(
            f"{self.url}/graphql",
            json={"query": query, "variables": variables or {}},
            headers={"authorization": f"Bearer {token}"},
        ).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def kill(self) -> None:
        """Ends the process without a word, as kill -9 does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _pause() -> None:
    asyncio.run(asyncio.sleep(0.1))


@contextmanager
def a_coalition() -> Iterator[Coalition]:
    """A coalition in a folder that the database's system user can reach; everything is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="coalition-process-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        coalition = Coalition(folder)
        try:
            yield coalition
        finally:
            coalition.stop()


@contextmanager
def a_database() -> Iterator[tuple[Coalition, embedded.EmbeddedServer]]:
    """A data folder of its own, and a share in its server, so that it runs on between commands."""
    with a_coalition() as coalition:
        database = embedded.start(coalition.data_dir)
        try:
            yield coalition, database
        finally:
            coalition.stop()
            database.close()


def purchase(key: str) -> dict[str, Any]:
    """Variables of one purchase of 1.00 by card-1."""
    return {
        "input": {
            "idempotencyKey": key,
            "member": {"card": "card-1"},
            "amount": {"amount": "1.00", "currency": "EUR"},
            "occurredAt": now_text(),
            "reference": key,
        }
    }


def now_text() -> str:
    """Now, as a till would say it."""
    from api.clock import system_clock

    return system_clock().isoformat()


class Load:
    """Tills that post purchases one after the other, each with its own key, and note every receipt."""

    def __init__(self, url: str, token: str, name: str) -> None:
        self.url = url
        self.token = token
        self.name = name
        self.acknowledged: dict[str, str] = {}
        self.sent: dict[str, dict[str, Any]] = {}
        self.stopped = False

    async def till(self, number: int) -> None:
        """Posts until stopped or until the server is gone."""
        async with httpx2.AsyncClient(base_url=self.url, timeout=60) as http:
            count = 0
            while not self.stopped:
                key = f"{self.name}-{number}-{count}"
                self.sent[key] = purchase(key)
                count += 1
                try:
                    await self.post(http, key)
                except httpx2.TransportError:
                    return

    async def post(self, http: httpx2.AsyncClient, key: str) -> None:
        """Posts one purchase and notes its receipt."""
        answer = await http.post(
            "/graphql",
            json={"query": EARN, "variables": self.sent[key]},
            headers={"authorization": f"Bearer {self.token}"},
        )
        body = answer.json()
        result = (body.get("data") or {}).get("earn") or {}
        if result.get("__typename") == "EarnReceipt":
            self.acknowledged[key] = result["transaction"]["id"]

    async def repeat_all(self) -> None:
        """Sends every purchase again with its key, as a till does that got no answer; all must be accepted now."""
        async with httpx2.AsyncClient(base_url=self.url, timeout=60) as http:
            before = dict(self.acknowledged)
            keys = list(self.sent)
            for start in range(0, len(keys), 50):
                await asyncio.gather(*[self.post(http, key) for key in keys[start : start + 50]])
        assert self.acknowledged.keys() == self.sent.keys()
        assert {key: self.acknowledged[key] for key in before} == before
