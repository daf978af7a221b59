"""What is pending, for the command line: whose points wait, for what, and since when; and that money came in."""

from typing import Any

from sqlalchemy import text

from api.graphql.scalars import date_time_text
from api.operating import operate
from api.runtime import Runtime
from domain.errors import ConfigurationError
from domain.values import OPERATOR_ID, decimal_from_micro

PENDING_SQL = text(
    """
    SELECT p.code AS partner, a.waits_for_payment, count(*) AS awards, sum(a.open_points)::bigint AS points,
           sum(a.reserved_micro)::bigint AS reserved_micro, min(a.earned_at) AS oldest, min(a.release_at) AS first_until
      FROM pending_award AS a JOIN partner AS p ON p.id = a.partner_id
     WHERE a.open_points > 0
     GROUP BY p.code, a.waits_for_payment
     ORDER BY p.code, a.waits_for_payment
    """
)

CONFIRMED_SQL = text(
    """
    SELECT c.occurred_at FROM command AS c JOIN partner AS p ON p.id = c.partner_id
     WHERE p.code = :partner AND c.idempotency_key = :key
    """
)
CONFIRM_DOCUMENT = """mutation ($input: ConfirmPaymentInput!) { confirmPayment(input: $input) { __typename
  ... on PaymentReceipt { points replayed awards { rule campaign granted pendingUntil waitsForPayment }
    transaction { id idempotencyKey occurredAt reference reverses { id idempotencyKey } } }
  ... on Refusal { code message field } } }"""


async def describe_pending(runtime: Runtime) -> list[dict[str, Any]]:
    """A row per partner where the purchases were and what they wait for.

    ``reserved`` is what they reserve of all funders' budgets, ``pendingUntil`` when the first return window ends.
    Raises ConfigurationError before the first ``coalition apply``.
    """
    currency = (await runtime.programme_configuration()).programme.currency
    async with runtime.database.reading(OPERATOR_ID) as connection:
        rows = (await connection.execute(PENDING_SQL)).all()
    return [
        {
            "partner": row.partner,
            "waitsForPayment": row.waits_for_payment,
            "awards": row.awards,
            "points": row.points,
            "reserved": {"amount": str(decimal_from_micro(row.reserved_micro)), "currency": currency},
            "oldestPurchase": row.oldest.isoformat(),
            "pendingUntil": row.first_until.isoformat(),
        }
        for row in rows
    ]


async def confirm_and_describe(
    runtime: Runtime, partner_code: str, *, reference: str | None, store: str | None, purchase_key: str | None
) -> dict[str, Any]:
    """Says as the operator that the money of a purchase came in; said again, it is the same. Raises Refused."""
    if (reference is None) == (purchase_key is None):
        raise ConfigurationError("name the purchase by exactly one of --reference and --key")
    facts = ["key", purchase_key] if purchase_key is not None else ["reference", *filter(None, [store]), reference]
    key = ":".join(["command-line:paid", *map(str, facts)])
    async with runtime.database.reading(OPERATOR_ID) as connection:
        first = (await connection.execute(CONFIRMED_SQL, {"partner": partner_code, "key": key})).scalar()
    given = {
        "idempotencyKey": key,
        "partnerCode": partner_code,
        "originalKey": purchase_key,
        "reference": reference,
        "storeCode": store,
        "occurredAt": date_time_text(first or runtime.clock()),
    }
    done: dict[str, Any] = await operate(runtime, CONFIRM_DOCUMENT, {"input": given})
    return done
