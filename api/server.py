"""Running the web application under uvicorn, with a shutdown that drains and gives everything back."""

import asyncio
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from api.app import GRAPHQL_PATH, create_app, running_services
from api.connections import Connection, ShortWay
from api.graphql.view import GraphQLEndpoint
from api.logs import AccessLog, App
from api.metrics import Metrics
from api.runtime import Runtime, long_lived_spared
from api.settings import Settings
from domain.errors import ConfigurationError

SHUTDOWN_SECONDS = 20
"""How long requests that are under way may still take when the server is told to stop."""

IDLE_SECONDS = 75
"""How long a connection may be silent between requests: longer than proxies keep it, and than most customers take."""

ACCEPTED_AT_ONCE = 32
"""New connections that one turn of the event loop takes."""

OPEN_FILES = 65_536


class _Server(uvicorn.Server):
    """uvicorn's server, told to stop by our signal handlers, and taking more than one connection at a time.

    Its own handlers raise the signal again after the shutdown, which ends the process before the embedded database is
    released.
    """

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stops gracefully on SIGTERM and SIGINT; a second one does not wait."""
        loop = asyncio.get_running_loop()
        stops = (signal.SIGTERM, signal.SIGINT)
        for number in stops:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in stops:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listens, then says so."""
        await super().startup(sockets)  # type: ignore[arg-type]
        # uvloop accepts one connection per listener and turn of the loop. Turns are long under load: a till that is
        # not connected yet would wait for seconds behind those that are. So there are more listeners on each socket.
        first = self.servers
        listening = [one for server in first for one in server.sockets]
        more = [socket.socket(fileno=os.dup(one.fileno())) for one in listening for _ in range(1, ACCEPTED_AT_ONCE)]
        await super().startup(more)
        self.servers = [*first, *self.servers]
        if self.started:
            self._on_started()


def allow_many_connections() -> None:
    """Lets this process hold as many connections as the system allows it; the usual default ends at 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def check_can_listen(host: str, port: int) -> None:
    """Raises ConfigurationError for an address that is taken, or is none of this machine's.

    uvicorn would end the process on the spot, with a line of log and the embedded database held.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            message = f"{host} port {port} cannot be served: {error.strerror}; change COALITION_HOST or COALITION_PORT"
            raise ConfigurationError(message) from error


async def serve(runtime: Runtime, settings: Settings, started: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT; every command that has arrived by then is posted and answered.

    Raises ConfigurationError where it cannot listen.
    """
    check_can_listen(settings.host, settings.port)
    allow_many_connections()
    metrics = Metrics(runtime)
    async with running_services(runtime, metrics, settings.queue_max) as services:
        metrics.watch(services.queue)
        graphql = GraphQLEndpoint(services)
        app = create_app(services, settings.issuer, graphql)
        log = AccessLog(app, [route.path for route in app.routes if isinstance(route, Route)], metrics)
        short_way = ShortWay(GRAPHQL_PATH, graphql, log)
        async with _serving_metrics(metrics, settings):
            config = _config(log, settings, settings.host, settings.port, short_way)
            with long_lived_spared():
                await _Server(config, started).serve()


def _config(app: App, settings: Settings, host: str, port: int, short_way: ShortWay | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        log_level=settings.log_level.lower(),
        access_log=False,
        server_header=False,
        lifespan="off",
        http=partial(Connection, short_way),  # type: ignore[arg-type]  # uvicorn only calls it
        ws="none",
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


class _MetricsServer(uvicorn.Server):
    """A second listener in the same loop; signals are the first one's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals alone."""
        yield


@asynccontextmanager
async def _serving_metrics(metrics: Metrics, settings: Settings) -> AsyncIterator[None]:
    """``GET /metrics`` on an address of its own: whoever reaches it sees every partner's use of its budget."""
    if not settings.metrics_port:
        yield
        return
    host, port = settings.metrics_host, settings.metrics_port
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        # uvicorn would end the process on the spot, with the embedded database held.
        raise ConfigurationError(f"/metrics cannot be served on {host} port {port}: {error.strerror}") from error
    server = _MetricsServer(_config(Starlette(routes=[Route("/metrics", metrics.page)]), settings, host, port))
    serving = asyncio.create_task(server.serve([listener]), name="metrics")
    try:
        yield
    finally:
        server.should_exit = True
        await serving
