"""The OAuth addresses of the application."""

from collections.abc import Callable

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import InsecureTransportError
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from api.oauth.metadata import (
    INTROSPECT_PATH,
    METADATA_PATH,
    REVOKE_PATH,
    TOKEN_PATH,
    checked_issuer,
    server_metadata,
)
from api.oauth.requests import FormRequest, read_request
from api.oauth.server import CoalitionServer, error_response
from api.security import Authenticator
from domain.database import Database
from domain.periods import Clock

Work = Callable[[CoalitionServer, FormRequest], Response]


def oauth_routes(database: Database, authenticator: Authenticator, clock: Clock, issuer: str) -> list[BaseRoute]:
    """Token, revocation, introspection and metadata endpoints.

    ``issuer`` is the public address as clients see it, which matters behind a proxy; when it is empty,
    requests are taken at the address they came to. Raises ConfigurationError when it cannot be one.
    """
    endpoints = _Endpoints(database, authenticator, clock, checked_issuer(issuer))
    return [
        Route(TOKEN_PATH, endpoints.token, methods=["POST"]),
        Route(REVOKE_PATH, endpoints.revoke, methods=["POST"]),
        Route(INTROSPECT_PATH, endpoints.introspect, methods=["POST"]),
        Route(METADATA_PATH, endpoints.metadata, methods=["GET"]),
    ]


class _Endpoints:
    def __init__(self, database: Database, authenticator: Authenticator, clock: Clock, issuer: str) -> None:
        self._database = database
        self._authenticator = authenticator
        self._clock = clock
        self._issuer = issuer

    async def token(self, request: Request) -> Response:
        return await self._answer(request, CoalitionServer.issue_token)

    async def revoke(self, request: Request) -> Response:
        return await self._answer(request, lambda server, form: server.answer("revocation", form))

    async def introspect(self, request: Request) -> Response:
        return await self._answer(request, lambda server, form: server.answer("introspection", form))

    async def metadata(self, request: Request) -> Response:
        if self._issuer:
            return JSONResponse(server_metadata(self._issuer))
        # What the Host header says is true for this caller only; a shared cache must not hand it to others.
        derived = f"{request.url.scheme}://{request.url.netloc}"
        return JSONResponse(server_metadata(derived), headers={"Cache-Control": "no-store"})

    async def _answer(self, request: Request, work: Work) -> Response:
        public_url = self._issuer + request.url.path if self._issuer else str(request.url)
        try:
            form = await read_request(request, public_url)
        except InsecureTransportError as error:
            error.description = (
                "Use https. Behind a proxy that does, configure the public address or the forwarded headers"
            )
            return error_response(error)
        except OAuth2Error as error:
            return error_response(error)

        def run(connection: Connection) -> tuple[Response, list[bytes]]:
            server = CoalitionServer(connection, self._clock(), self._issuer)
            return work(server, form), server.revoked

        async with self._database.posting() as connection:
            response, revoked = await connection.run_sync(run)
        # After the commit: before it, a look-up could read the row as it was and cache it again.
        for digest in revoked:
            self._authenticator.forget_token(digest)
        return response
