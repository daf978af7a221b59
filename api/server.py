"""Running the web application under uvicorn, with a shutdown that drains and gives everything back."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from api.app import create_app, running_services
from api.runtime import Runtime
from api.settings import Settings

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
    async with running_services(runtime) as services:
        config = uvicorn.Config(
            create_app(services, settings.issuer),
            host=settings.host,
            port=settings.port,
            log_level=settings.log_level.lower(),
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        await _Server(config, started).serve()
