"""The web application: GraphQL, OAuth and the two health checks, composed of parts that are handed in."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.graphql.context import Services
from api.graphql.ids import IdCodec, load_installation_secret
from api.graphql.view import GraphQLEndpoint
from api.migrations import head_revision
from api.oauth.routes import oauth_routes
from api.runtime import Runtime
from api.security import Authenticator, RevocationListener
from domain.database import Database
from domain.observing import QueueObserver
from domain.queue import QUEUE_MAX, PostingQueue

GRAPHQL_PATH = "/graphql"

REVISION_SQL = text("SELECT version_num FROM alembic_version")


@asynccontextmanager
async def running_services(
    runtime: Runtime, observer: QueueObserver | None = None, queue_max: int = QUEUE_MAX
) -> AsyncIterator[Services]:
    """The services of one process for the length of the block: posting and listening begin, and drain at its end."""
    authenticator = Authenticator(runtime.database, runtime.clock)
    listener = RevocationListener(runtime.database, authenticator)
    queue = PostingQueue(runtime.database, runtime.configuration, runtime.clock, queue_max=queue_max, observer=observer)
    await runtime.configuration.current()
    ids = IdCodec(await load_installation_secret(runtime.database))
    queue.start()
    listener.start()
    try:
        yield Services(runtime.database, queue, runtime.configuration, authenticator, runtime.clock, ids)
    finally:
        await queue.stop()
        await listener.stop()


def create_app(services: Services, issuer: str = "", graphql: GraphQLEndpoint | None = None) -> Starlette:
    """The application over running services; whoever calls it holds ``running_services`` around it."""
    return Starlette(
        routes=[
            Route(GRAPHQL_PATH, graphql or GraphQLEndpoint(services)),
            *oauth_routes(services.database, services.authenticator, services.clock, issuer),
            Route("/healthz", alive),
            Route("/readyz", readiness(services.database)),
        ]
    )


async def alive(_: Request) -> Response:
    """``GET /healthz``: the process answers."""
    return JSONResponse({"status": "alive"})


def readiness(database: Database) -> Callable[[Request], Awaitable[Response]]:
    """``GET /readyz``: 200 when the database is reachable and its schema is this version's, else 503 and why."""
    head = head_revision()

    async def ready(_: Request) -> Response:
        try:
            async with database.posting() as connection:
                revision = (await connection.execute(REVISION_SQL)).scalar()
        except (OSError, DBAPIError):
            return JSONResponse({"status": "database not reachable"}, 503)
        if revision != head:
            return JSONResponse({"status": f"schema at {revision}, {head} needed"}, 503)
        return JSONResponse({"status": "ready"})

    return ready
