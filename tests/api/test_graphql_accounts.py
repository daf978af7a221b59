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


MERGE = """
mutation ($input: MergeMembersInput!) { mergeMembers(input: $input) { __typename
  ... on MergeReceipt { points replayed idempotencyKey kept { id balance { available } } duplicate { id }
    transaction { kind points member { id } } }
  ... on Refusal { code field } } }
"""
UNMERGE = """
mutation ($input: UnmergeMembersInput!) { unmergeMembers(input: $input) { __typename
  ... on MergeReceipt { points kept { id balance { available } } duplicate { id balance { available } state }
    transaction { kind points reverses { kind } } }
  ... on Refusal { code field } } }
"""
MEMBER = """
query ($id: ID!) { member(by: { id: $id }) { id balance { available } identifiers { value } }
  node(id: $id) { id } members { nodes { id } } transactions { nodes { kind } } }
"""


async def test_a_merged_member_s_ids_find_who_stands_for_it(database: Database) -> None:
    async with open_shop(database) as shop:
        operator, grocer, fuel = [await shop.caller(partner) for partner in (None, "grocer", "fuel")]
        kept, duplicate = await grocer.enroll("card-1"), await fuel.enroll("card-2")
        await fuel.earn("k", member={"card": "card-2"})
        refs = {"keep": {"card": "card-1"}, "duplicate": {"card": "card-2"}}
        merged = (await operator.run(MERGE, {"input": {"idempotencyKey": "m", **refs}}))["mergeMembers"]
        assert (merged["__typename"], merged["points"], merged["replayed"]) == ("MergeReceipt", 100, False)
        assert merged["kept"]["balance"] == {"available": 100}
        assert merged["kept"]["id"] == merged["duplicate"]["id"] == merged["transaction"]["member"]["id"]
        assert (merged["transaction"]["kind"], merged["transaction"]["points"]) == ("MERGE", -100)

        # Fuel keeps what it knew: its own id of the member, the identifier that it supplied, its transactions.
        seen = await fuel.run(MEMBER, {"id": duplicate})
        assert seen["member"]["id"] == seen["node"]["id"] != duplicate
        assert seen["member"]["balance"] == {"available": 100}
        assert seen["member"]["identifiers"] == [{"value": "card-2"}]
        assert seen["members"]["nodes"] == [{"id": seen["member"]["id"]}]
        assert seen["transactions"]["nodes"] == [{"kind": "EARN"}]
        # The grocer dealt with the one that stays, and learns of no other card.
        assert (await grocer.run(MEMBER, {"id": kept}))["member"]["identifiers"] == [{"value": "card-1"}]

        again = (await operator.run(UNMERGE, {"input": {"idempotencyKey": "u", "originalKey": "m"}}))["unmergeMembers"]
        assert (again["points"], again["transaction"]["reverses"]) == (100, {"kind": "MERGE"})
        assert again["kept"]["balance"] == {"available": 0}
        assert (again["duplicate"]["balance"], again["duplicate"]["state"]) == ({"available": 100}, "ACTIVE")
        assert (await fuel.run(MEMBER, {"id": duplicate}))["member"]["id"] == duplicate
        nothing = {"input": {"idempotencyKey": "w", "transactionId": "bm9uc2Vuc2U"}}
        assert (await operator.run(UNMERGE, nothing))["unmergeMembers"]["code"] == "TRANSACTION_NOT_FOUND"


CREATE = "mutation ($input: CreatePoolInput!) { createPool(input: $input) { ...receipt ...refusal } }"
JOIN = "mutation ($input: JoinPoolInput!) { joinPool(input: $input) { ...receipt ...refusal } }"
LEAVE = "mutation ($input: LeavePoolInput!) { leavePool(input: $input) { ...receipt ...refusal } }"
RECEIPT = """
fragment refusal on Refusal { code field }
fragment receipt on PoolReceipt { points replayed idempotencyKey balance { available }
  pool { id members { role burnLimit since member { id balance { available } } } }
  transaction { kind points movements { kind points } } }
"""
POOL = "query ($by: MemberRef!) { member(by: $by) { balance { available } pool { id members { member { id } } } } }"


async def test_a_household_shares_an_account_and_shows_whom_the_viewer_knows(database: Database) -> None:
    async with open_shop(database) as shop:
        operator, grocer, fuel = [await shop.caller(partner) for partner in (None, "grocer", "fuel")]
        head, other = await grocer.enroll("card-1"), await fuel.enroll("card-2")
        await grocer.earn("k")
        created = {"input": {"idempotencyKey": "c", "head": {"card": "card-1"}}}
        pool = (await grocer.run(CREATE + RECEIPT, created))["createPool"]
        assert (pool["points"], pool["balance"], pool["replayed"]) == (100, {"available": 100}, False)
        assert pool["transaction"]["movements"] == [
            {"kind": "TRANSFER_OUT", "points": -100}, {"kind": "TRANSFER_IN", "points": 100},
        ]  # fmt: skip
        [place] = pool["pool"]["members"]
        assert (place["role"], place["burnLimit"], place["member"]["id"]) == ("HEAD", None, head)

        joined = {"idempotencyKey": "j", "poolId": pool["pool"]["id"], "member": {"card": "card-2"}, "burnLimit": 30}
        # The grocer's id of the pool means nothing to fuel; the grocer may let in whom it can name.
        refused = (await fuel.run(JOIN + RECEIPT, {"input": joined}))["joinPool"]
        assert (refused["code"], refused["field"]) == ("POOL_NOT_FOUND", "poolId")
        receipt = (await grocer.run(JOIN + RECEIPT, {"input": joined}))["joinPool"]
        assert (receipt["balance"], len(receipt["pool"]["members"])) == ({"available": 100}, 2)
        assert [(one["role"], one["burnLimit"]) for one in receipt["pool"]["members"]] == [
            ("HEAD", None),
            ("MEMBER", 30),
        ]

        # Fuel knows the one that it enrolled, sees the pool's balance, and nobody else in it.
        seen = (await fuel.run(POOL, {"by": {"id": other}}))["member"]
        assert (seen["balance"], seen["pool"]["members"]) == ({"available": 100}, [{"member": {"id": other}}])
        assert len((await fuel.run(MEMBERS))["members"]["nodes"]) == 1
        assert len((await operator.run(POOL, {"by": {"card": "card-2"}}))["member"]["pool"]["members"]) == 2
        refused = await fuel.burn("b", 31, member={"card": "card-2"})
        assert (refused["code"], refused["field"]) == ("LIMIT_EXCEEDED", "points")
        assert (await fuel.burn("b", 30, member={"card": "card-2"}))["balance"] == {"available": 70}

        left = {"input": {"idempotencyKey": "l", "member": {"card": "card-2"}}}
        assert (await fuel.run(LEAVE + RECEIPT, left))["leavePool"]["balance"] == {"available": 0}
        assert (await fuel.run(POOL, {"by": {"id": other}}))["member"]["pool"] is None
        again = (await grocer.run(CREATE + RECEIPT, created))["createPool"]
        assert (again["replayed"], again["pool"]["id"], len(again["pool"]["members"])) == (True, pool["pool"]["id"], 1)
