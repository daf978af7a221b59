"""A partner with an OAuth server, for the tests that talk to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx2
from sqlalchemy import text
from starlette.applications import Starlette

from api.oauth.clients import NewClient, create_client
from api.oauth.routes import oauth_routes
from api.security import Authenticator
from domain.database import Database

START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
GRANT = {"grant_type": "client_credentials"}
TOKEN, REVOKE, INTROSPECT = "/oauth/token", "/oauth/revoke", "/oauth/introspect"


class Shop:
    """A server with one partner, a client of it, and a clock that stands."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = START
        self.authenticator = Authenticator(database, self.clock)
        self.http = self.serve("https://coalition.example")

    def clock(self) -> datetime:
        return self.now

    def serve(self, issuer: str, base_url: str = "http://internal.example") -> httpx2.AsyncClient:
        app = Starlette(routes=oauth_routes(self.database, self.authenticator, self.clock, issuer))
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=base_url)

    async def client(self, *scopes: str, operator: bool = False) -> NewClient:
        code = None if operator else "grocer"
        return await create_client(self.database, self.clock, partner_code=code, operator=operator, scopes=scopes)

    async def post(self, path: str, client: NewClient | None = None, /, **parameters: str) -> httpx2.Response:
        if client is None:
            return await self.http.post(path, data=parameters)
        return await self.http.post(path, data=parameters, auth=(client.client_id, client.client_secret))

    async def token(self, client: NewClient, **parameters: str) -> str:
        answer = await self.post(TOKEN, client, **GRANT, **parameters)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def rows(self, sql: str) -> list[Any]:
        async with self.database.posting() as connection:
            return list(await connection.execute(text(sql)))


@asynccontextmanager
async def open_shop(database: Database) -> AsyncIterator[Shop]:
    """A shop whose partner "grocer" exists."""
    async with database.posting() as connection:
        await connection.execute(
            text("INSERT INTO partner (code, name, category) VALUES ('grocer', 'Harvest Market', 'food')")
        )
    shop = Shop(database)
    async with shop.http:
        yield shop
