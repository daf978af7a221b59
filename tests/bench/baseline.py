"""The baseline of the HTTP benchmarks: strawberry's own ASGI application that does nothing. A FIXED file.

Never tune it and never slow it down: it is the yardstick, and figures of different versions of this platform compare
only while it stays the same. It is what a careful user of the library would serve: ``strawberry.asgi.GraphQL`` with
ParserCache and ValidationCache (100 documents), uvloop, httptools, one worker. It answers the same documents with the
same variables and result types as the platform, with constants, without token and without database. It imports nothing
of the platform, so that no change there can reach it.

``python -m tests.bench.baseline PORT`` serves it on 127.0.0.1.
"""

import sys
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, NewType

import strawberry
import uvicorn
from strawberry.asgi import GraphQL
from strawberry.extensions import ParserCache, ValidationCache
from strawberry.schema.config import StrawberryConfig

Points = NewType("Points", int)


@strawberry.enum
class Channel(Enum):
    STORE = "STORE"
    WEB = "WEB"
    APP = "APP"
    PHONE = "PHONE"
    OTHER = "OTHER"


@strawberry.input(one_of=True)
class MemberRef:
    id: strawberry.ID | None = strawberry.UNSET
    card: str | None = strawberry.UNSET
    email: str | None = strawberry.UNSET
    phone: str | None = strawberry.UNSET


@strawberry.input
class MoneyInput:
    amount: Decimal
    currency: str


@strawberry.input
class BasketLineInput:
    amount: MoneyInput
    quantity: Decimal = Decimal(1)
    category: str | None = None
    sku: str | None = None


@strawberry.input
class EarnInput:
    idempotency_key: str
    member: MemberRef
    amount: MoneyInput
    occurred_at: datetime
    reference: str
    store_id: strawberry.ID | None = None
    store_code: str | None = None
    channel: Channel | None = None
    lines: list[BasketLineInput] | None = None


@strawberry.type
class Money:
    amount: Decimal
    currency: str


@strawberry.type
class Balance:
    available: Points
    pending: Points
    held: Points
    value: Money


@strawberry.type
class Member:
    id: strawberry.ID
    balance: Balance


@strawberry.type
class BudgetStatus:
    limit: Money
    reserved: Money
    consumed: Money
    available: Money


@strawberry.type
class Transaction:
    id: strawberry.ID


@strawberry.type
class EarnReceipt:
    transaction: Transaction
    points: Points
    declined_points: Points
    balance: Balance
    budget: BudgetStatus | None
    idempotency_key: str
    replayed: bool


@strawberry.type
class Refusal:
    code: str
    message: str
    field: str | None
    retryable: bool
    idempotency_key: str | None


EarnResult = Annotated[EarnReceipt | Refusal, strawberry.union("EarnResult")]

BALANCE = Balance(
    available=Points(1234), pending=Points(0), held=Points(0), value=Money(amount=Decimal("12.34"), currency="EUR")
)
MEMBER = Member(id=strawberry.ID("TWVtYmVyOnR0yR9mG_DI7jazuciFu9KWDHJHcuUfLw"), balance=BALANCE)
RECEIPT = EarnReceipt(
    transaction=Transaction(id=strawberry.ID("VHJhbnNhY3Rpb246dHTJH2Yb8MjuNrO5yIW70pYMckdy5R8v")),
    points=Points(86),
    declined_points=Points(0),
    balance=BALANCE,
    budget=BudgetStatus(
        limit=Money(amount=Decimal("1500.000000"), currency="EUR"),
        reserved=Money(amount=Decimal("0.000000"), currency="EUR"),
        consumed=Money(amount=Decimal("0.946000"), currency="EUR"),
        available=Money(amount=Decimal("1499.054000"), currency="EUR"),
    ),
    idempotency_key="constant",
    replayed=False,
)


@strawberry.type
class Query:
    @strawberry.field
    async def member(self, by: MemberRef) -> Member | None:
        return MEMBER


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def earn(self, input: EarnInput) -> EarnResult | None:
        return RECEIPT


schema = strawberry.Schema(
    Query,
    Mutation,
    extensions=[lambda: ParserCache(maxsize=100), lambda: ValidationCache(maxsize=100)],
    config=StrawberryConfig(scalar_map={Points: strawberry.scalar(name="Points", serialize=int, parse_value=int)}),
)
application = GraphQL[None, None](schema, graphql_ide=None)

if __name__ == "__main__":
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        ws="none",
        access_log=False,
        server_header=False,
        log_level="warning",
    )
