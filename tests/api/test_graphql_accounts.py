"""Members' accounts through the API: transfers, and what a partner may learn from them."""

from typing import Any

from domain.database import Database
from partners.apply import apply_coalition
from partners.coalition_file import parse_coalition
from tests.api.graphql_shop import open_shop
from tests.factories import COALITION_TOML, fixed_clock

TRANSFER = """
mutation ($input: TransferPointsInput!) { transferPoints(input: $input) { __typename
  ... on TransferReceipt { points replayed idempotencyKey balance { available }
    transaction { kind points reason partner { code } movements { kind points issueValue lots { points price } } } }
  ... on Refusal { code message field } } }
"""
MEMBERS = "query { members { nodes { balance { available } } } }"
SWITCHED_ON = COALITION_TOML.replace("expiry_months = 24", "expiry_months = 24\nmember_transfers = true")


def transfer(key: str, points: int, **changes: Any) -> dict[str, Any]:
    """Input of a transfer from card-1 to card-2."""
    moment = "2017-03-15T12:00:00Z"
    members = {"from": {"card": "card-1"}, "to": {"card": "card-2"}}
    return {"input": {"idempotencyKey": key, "points": points, "occurredAt": moment, **members, **changes}}


async def test_the_operator_moves_points_and_a_partner_where_the_programme_lets_it(database: Database) -> None:
    async with open_shop(database) as shop:
        operator, grocer, fuel = [await shop.caller(partner) for partner in (None, "grocer", "fuel")]
        await grocer.enroll("card-1")
        await fuel.enroll("card-2")
        await grocer.earn("k")
        answer = (await operator.run(TRANSFER, transfer("t", 60, reason="by letter")))["transferPoints"]
        assert answer == {
            "__typename": "TransferReceipt",
            "points": 60,
            "replayed": False,
            "idempotencyKey": "t",
            "balance": {"available": 40},
            "transaction": {
                "kind": "TRANSFER",
                "points": -60,
                "reason": "by letter",
                "partner": {"code": "operator"},
                "movements": [
                    {
                        "kind": "TRANSFER_OUT",
                        "points": -60,
                        "issueValue": "0.000000",
                        "lots": [{"points": 60, "price": "0.010000"}],
                    },
                    {"kind": "TRANSFER_IN", "points": 60, "issueValue": "0.000000", "lots": []},
                ],
            },
        }
        refused = (await fuel.run(TRANSFER, transfer("u", 10)))["transferPoints"]
        assert (refused["code"], refused["field"]) == ("TRANSFER_NOT_ALLOWED", None)

        await apply_coalition(database, parse_coalition(SWITCHED_ON), clock=fixed_clock())
        moved = (await fuel.run(TRANSFER, transfer("u", 10)))["transferPoints"]
        assert moved["points"] == 10
        # The points were the grocer's: their price is not fuel's to know. Nor who else took part.
        assert moved["transaction"]["movements"] == [
            {"kind": "TRANSFER_OUT", "points": -10, "issueValue": None, "lots": []},
            {"kind": "TRANSFER_IN", "points": 10, "issueValue": None, "lots": []},
        ]
        assert len((await grocer.run(MEMBERS))["members"]["nodes"]) == 1
