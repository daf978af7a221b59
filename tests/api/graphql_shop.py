"""A running coalition behind the GraphQL endpoint, and callers with tokens of their own."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx2
from sqlalchemy import TextClause, event
from sqlalchemy.ext.asyncio import AsyncEngine

from api.app import create_app, running_services
from api.graphql.context import Services
from api.oauth.clients import create_client
from api.runtime import Runtime
from api.security import PARTNER_SCOPES
from domain.database import BatchConnection, Database, Rows
from domain.periods import Clock
from domain.terms import ConfigurationCache
from tests.factories import MID_MARCH, apply_toml, fixed_clock

OPERATOR_SCOPES = ("program:read", "members:admin", "settlement:operate", "audit:read")
EARN = """
mutation ($input: EarnInput!) { earn(input: $input) { __typename
  ... on EarnReceipt { points declinedPoints replayed idempotencyKey transaction { id } balance { available } }
  ... on Refusal { code message field retryable refusedKey: idempotencyKey } } }
"""
BURN = """
mutation ($input: BurnInput!) { burn(input: $input) { __typename
  ... on BurnReceipt { points replayed transaction { id } value { amount currency } balance { available } }
  ... on Refusal { code message field } } }
"""
ENROLL = """
mutation ($input: EnrollMemberInput!) { enrollMember(input: $input) { __typename
  ... on EnrolledMember { created member { id } }
  ... on Refusal { code message field } } }
"""


@dataclass
class Caller:
    """A client with a token."""

    http: httpx2.AsyncClient
    token: str

    async def send(self, query: str, variables: Mapping[str, Any] | None = None, **headers: str) -> httpx2.Response:
        """POSTs a document; the response as it came."""
        return await self.http.post(
            "/graphql",
            json={"query": query, "variables": variables or {}},
            headers={"authorization": f"Bearer {self.token}", **headers},
        )

    async def run(self, query: str, variables: Mapping[str, Any] | None = None) -> Any:
        """The data of a document that must run without errors."""
        answer = (await self.send(query, variables)).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    async def errors(self, query: str, variables: Mapping[str, Any] | None = None) -> Any:
        """The errors of a document that must not run."""
        answer = (await self.send(query, variables)).json()
        assert not any((answer.get("data") or {}).values()), answer
        return answer["errors"]

    async def enroll(self, card: str = "card-1") -> str:
        """Enrolls whoever carries the card; the member's id."""
        answer = await self.run(ENROLL, {"input": {"idempotencyKey": f"enroll-{card}", "card": card}})
        assert answer["enrollMember"]["__typename"] == "EnrolledMember", answer
        return str(answer["enrollMember"]["member"]["id"])

    async def earn(self, key: str, **changes: Any) -> Any:
        """Posts a purchase of 100.00."""
        return (await self.run(EARN, {"input": purchase(key, **changes)}))["earn"]

    async def burn(self, key: str, points: int, **changes: Any) -> Any:
        """Posts a burn."""
        base = {key: value for key, value in purchase(key).items() if key != "amount"}
        return (await self.run(BURN, {"input": {**base, "points": points, **changes}}))["burn"]


def purchase(key: str, **changes: Any) -> dict[str, Any]:
    """Input of a purchase of 100.00 by card-1; its reference is its key."""
    return {
        "idempotencyKey": key,
        "member": {"card": "card-1"},
        "amount": {"amount": "100.00", "currency": "EUR"},
        "occurredAt": "2017-03-15T12:00:00Z",
        "reference": key,
        **changes,
    }


class Time:
    """A clock that the test moves. Tokens end by it: ask for a new caller after a move."""

    def __init__(self) -> None:
        self.now = MID_MARCH

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Shop:
    """The worked example's coalition, served."""

    services: Services
    http: httpx2.AsyncClient

    async def caller(self, partner: str | None = "grocer", scopes: Iterable[str] | None = None) -> Caller:
        """A new client's token; partner None is the operator's. Scopes: all of a partner's, some of an operator's."""
        wanted = scopes if scopes is not None else (OPERATOR_SCOPES if partner is None else PARTNER_SCOPES)
        client = await create_client(
            self.services.database,
            self.services.clock,
            partner_code=partner,
            operator=partner is None,
            scopes=wanted,
        )
        answer = await self.http.post(
            "/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(client.client_id, client.client_secret),
        )
        assert answer.status_code == 200, answer.text
        return Caller(self.http, answer.json()["access_token"])

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """The statements that both engines execute inside the block, without those that only set the viewer."""
        seen: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            if "set_config" not in statement:
                seen.append(statement)

        execute = BatchConnection.execute

        async def noted(
            connection: BatchConnection, statement: TextClause, parameters: Mapping[str, Any] | None = None
        ) -> Rows:
            seen.append(statement.text)
            return await execute(connection, statement, parameters)

        engines: list[AsyncEngine] = [self.services.database._posting, self.services.database._reading]
        for engine in engines:
            event.listen(engine.sync_engine, "before_cursor_execute", note)
        BatchConnection.execute = noted  # type: ignore[assignment, method-assign]
        try:
            yield seen
        finally:
            BatchConnection.execute = execute  # type: ignore[method-assign]
            for engine in engines:
                event.remove(engine.sync_engine, "before_cursor_execute", note)


@asynccontextmanager
async def open_shop(database: Database, clock: Clock | None = None, *, is_applied: bool = True) -> AsyncIterator[Shop]:
    """Applies the worked example's coalition and serves it."""
    if is_applied:
        await apply_toml(database)
    time = clock or fixed_clock()
    async with running_services(Runtime(database, ConfigurationCache(database), time)) as services:
        app = create_app(services, "https://test")
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="https://test") as http:
            yield Shop(services, http)
