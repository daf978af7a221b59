"""Running the web application under uvicorn, with a shutdown that drains and gives everything back."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from api.app import create_app, running_services
from api.logs import AccessLog, App
from api.metrics import Metrics
from api.runtime import Runtime, long_lived_spared
from api.settings import Settings
from domain.errors import ConfigurationError

SHUTDOWN_SECONDS = 20
"""How long requests that are under way may still take when the server is told to stop."""


class _Server(uvicorn.Server):
    """uvicorn's server, told to stop by our signal handlers.

    Its own raise the signal again after the shutdown, which ends the process before the embedded database is released.
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
        if self.started:
            self._on_started()


async def serve(runtime: Runtime, settings: Settings, started: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT; every command that has arrived by then is posted and answered."""
    metrics = Metrics(runtime)
    async with running_services(runtime, metrics) as services:
        metrics.watch(services.queue)
        app = create_app(services, settings.issuer)
        paths = [route.path for route in app.routes if isinstance(route, Route)]
        async with _serving_metrics(metrics, settings):
            config = _config(AccessLog(app, paths, metrics), settings, settings.host, settings.port)
            with long_lived_spared():
                await _Server(config, started).serve()


def _config(app: App, settings: Settings, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        log_level=settings.log_level.lower(),
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
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
