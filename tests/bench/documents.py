"""What the load generator sends, to the platform and to the baseline alike."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

EARN = """mutation Earn($input: EarnInput!) {
  earn(input: $input) {
    __typename
    ... on EarnReceipt {
      points declinedPoints idempotencyKey replayed
      transaction { id }
      balance { available value { amount currency } }
      budget { available { amount currency } }
    }
    ... on Refusal { code message field retryable }
  }
}"""

BALANCE = """query Balance($by: MemberRef!) {
  member(by: $by) { id balance { available pending held value { amount currency } } }
}"""

DOCUMENTS = {"earn": EARN, "balance": BALANCE}

MARKS = {"earn": b'"EarnReceipt"', "balance": b'"available":'}
"""What every answer must contain: a refusal or an error is no throughput."""

MEMBER_STRIDE = 7919
"""A prime, so that the members of neighbouring requests differ and all members come up."""


@dataclass(frozen=True)
class Load:
    """One run of the load generator; ``run`` makes its idempotency keys its own, ``now`` is when it all happens."""

    port: int
    operation: str
    run: str
    requests: int
    warm_up: int
    connections: int
    members: int
    now: str
    tokens: Sequence[str]
    """One per partner, used in turn; none for a side that asks for none."""


def variables(load: Load, number: int) -> dict[str, object]:
    """Variables of one request: another member, key and reference each time."""
    member = {"card": f"card-{number * MEMBER_STRIDE % load.members}"}
    if load.operation == "balance":
        return {"by": member}
    key = f"{load.run}-{number}"
    return {
        "input": {
            "idempotencyKey": key,
            "member": member,
            "amount": {"amount": f"{10 + number % 90}.50", "currency": "EUR"},
            "occurredAt": load.now,
            "reference": f"receipt-{key}",
            "storeCode": "s1",
            "channel": "STORE",
        }
    }


def http_requests(load: Load) -> list[bytes]:
    """The bytes of every request, made before the clock starts."""
    made = []
    for number in range(load.requests):
        body = json.dumps({"query": DOCUMENTS[load.operation], "variables": variables(load, number)}).encode()
        token = f"Authorization: Bearer {load.tokens[number % len(load.tokens)]}\r\n" if load.tokens else ""
        head = (
            f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\n{token}Accept: application/json\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made
