"""What one partner sees of another, and of members: nothing that is not its own."""

from collections.abc import AsyncIterator

import pytest

from api.graphql.ids import IdCodec, plain_id, plain_number
from domain import reading
from domain.database import Database
from tests.api.graphql_shop import Shop, open_shop, purchase

SECRET = bytes(range(32))
EVERYBODY = 0


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    async with open_shop(database) as opened:
        yield opened


def test_ids_differ_per_viewer_type_and_installation() -> None:
    codec = IdCodec(SECRET)
    made = {
        codec.encode(1, "Member", 7),
        codec.encode(2, "Member", 7),
        codec.encode(EVERYBODY, "Member", 7),
        codec.encode(1, "Other", 7),
        codec.encode(1, "Member", 8),
        IdCodec(SECRET[::-1]).encode(1, "Member", 7),
    }
    assert len(made) == 6
    assert codec.encode(1, "Member", 7) in made  # the same again
    assert codec.decode(1, "Member", codec.encode(1, "Member", 7)) == (7,)
    assert codec.decode(1, "Member", codec.encode(1, "Member", 7) + "=") == (7,)
    assert codec.decode(1, "Transaction", codec.encode(1, "Transaction", 5, 2**62)) == (5, 2**62)


def test_what_is_no_id_of_the_viewer_decodes_to_nothing() -> None:
    codec = IdCodec(SECRET)
    own = codec.encode(1, "Member", 7)
    changed = own[:-2] + ("A" if own[-2] != "A" else "B") + own[-1]
    for given in (codec.encode(2, "Member", 7), codec.encode(1, "Other", 7), changed, own[:-4], "", "x", "ä", "=" * 9):
        assert codec.decode(1, "Member", given) is None
    assert codec.decode(1, "Member", "TWVtYmVyOg") is None  # "Member:" alone
    assert plain_number("Partner", plain_id("Partner", 3)) == 3
    for given in (plain_id("Store", 3), plain_id("Partner", "x"), plain_id("Partner", 2**31), plain_id("Partner", "²")):
        assert plain_number("Partner", given) is None


async def test_two_partners_cannot_join_their_data_by_ids(shop: Shop) -> None:
    grocer, fuel, operator = await shop.caller(), await shop.caller("fuel"), await shop.caller(None)
    await grocer.enroll()
    query = '{ member(by: {card: "card-1"}) { id } }'
    ids = [(await caller.run(query))["member"]["id"] for caller in (grocer, fuel, operator)]
    assert len(set(ids)) == 3
    node = "query ($id: ID!) { node(id: $id) { id } member(by: {id: $id}) { id } }"
    assert await grocer.run(node, {"id": ids[0]}) == {"node": {"id": ids[0]}, "member": {"id": ids[0]}}
    for foreign in ids[1:]:
        assert await grocer.run(node, {"id": foreign}) == {"node": None, "member": None}
    refusal = await grocer.earn("k1", member={"id": ids[1]})
    assert refusal["code"] == "MEMBER_NOT_FOUND"
    assert (await fuel.earn("k1", member={"id": ids[1]}))["points"] == 100


async def test_a_partner_finds_no_transaction_of_another(shop: Shop) -> None:
    grocer, fuel, operator = await shop.caller(), await shop.caller("fuel"), await shop.caller(None)
    await grocer.enroll()
    earned = await grocer.earn("k1")
    listing = "{ transactions { nodes { reference } } }"
    assert await fuel.run(listing) == {"transactions": {"nodes": []}}
    assert await operator.run(listing) == {"transactions": {"nodes": [{"reference": "k1"}]}}
    node = "query ($id: ID!) { node(id: $id) { id } }"
    assert await fuel.run(node, {"id": earned["transaction"]["id"]}) == {"node": None}
    reverse = """mutation ($input: ReverseInput!) { reverse(input: $input) { ... on Refusal { code } } }"""
    for how in (
        {"transactionId": earned["transaction"]["id"]},
        {"originalKey": "k1"},
        {"reference": "k1", "kind": "EARN"},
    ):
        given = {"idempotencyKey": "r1", "occurredAt": "2017-03-15T12:00:00Z", **how}
        assert await fuel.run(reverse, {"input": given}) == {"reverse": {"code": "TRANSACTION_NOT_FOUND"}}
    assert (await grocer.run('{ member(by: {card: "card-1"}) { balance { available } } }'))["member"] == {
        "balance": {"available": 100}
    }


async def test_row_level_security_holds_where_a_resolver_forgets(shop: Shop) -> None:
    """The reads of the reading role, without any condition of ours."""
    grocer, fuel = await shop.caller(), await shop.caller("fuel")
    await grocer.enroll()
    await grocer.earn("k1")
    await fuel.burn("b1", 5)
    database = shop.services.database
    found = {}
    for viewer in (1, 2, 3, reading.NOBODY_ID, EVERYBODY):
        async with database.reading(viewer) as connection:
            rows = await reading.transactions_page(connection, {}, 10)
            movements = await reading.movements_of(connection, [row.id for row in rows])
            uses = await reading.lot_uses_of(connection, [row.id for each in movements.values() for row in each])
            found[viewer] = ([row.reference for row in rows], len(movements), len(uses))
    assert found == {
        1: (["k1"], 1, 0),
        2: (["b1"], 1, 1),
        3: ([], 0, 0),
        reading.NOBODY_ID: ([], 0, 0),
        EVERYBODY: (["b1", "k1"], 2, 1),
    }


async def test_of_a_member_a_partner_sees_what_it_supplied(shop: Shop) -> None:
    grocer, fuel = await shop.caller(), await shop.caller("fuel")
    enroll = """mutation ($input: EnrollMemberInput!) {
        enrollMember(input: $input) { ... on EnrolledMember { created } } }"""
    given = {
        "idempotencyKey": "e1",
        "card": "card-1",
        "email": "Somebody@Example.com",
        "attributes": {"birthYear": 1980, "sex": "FEMALE", "ageBand": "35-44"},
    }
    assert await grocer.run(enroll, {"input": given}) == {"enrollMember": {"created": True}}
    query = """{ member(by: {card: "card-1"}) { state balance { available } enrolledAt
        identifiers { kind value } attributes { birthYear sex ageBand postalArea } acquiredBy { code } } }"""
    shared = {"state": "ACTIVE", "balance": {"available": 0}, "enrolledAt": "2017-03-15T12:00:00Z"}
    identifiers = [{"kind": "CARD", "value": "card-1"}, {"kind": "EMAIL", "value": "somebody@example.com"}]
    assert (await grocer.run(query))["member"] == {
        **shared,
        "identifiers": identifiers,
        "attributes": None,
        "acquiredBy": {"code": "grocer"},
    }
    assert (await fuel.run(query))["member"] == {
        **shared,
        "identifiers": [],
        "attributes": None,
        "acquiredBy": None,
    }
    admin, clerk = await shop.caller(None), await shop.caller(None, scopes=["program:read"])
    attributes = {"birthYear": 1980, "sex": "FEMALE", "ageBand": "35-44", "postalArea": None}
    assert (await admin.run(query))["member"] == {
        **shared,
        "identifiers": identifiers,
        "attributes": attributes,
        "acquiredBy": {"code": "grocer"},
    }
    assert (await clerk.run(query))["member"] == {
        **shared,
        "identifiers": [],
        "attributes": None,
        "acquiredBy": {"code": "grocer"},
    }


async def test_members_are_listed_to_who_dealt_with_them(shop: Shop) -> None:
    grocer, fuel, operator = await shop.caller(), await shop.caller("fuel"), await shop.caller(None)
    for card in ("card-1", "card-2", "card-3"):
        await grocer.enroll(card)
    await fuel.enroll("card-9")
    await fuel.earn("k1", member={"card": "card-2"})
    listing = "{ members { nodes { balance { available } } } }"
    counts = {}
    for name, caller in (("grocer", grocer), ("fuel", fuel), ("operator", operator)):
        nodes = (await caller.run(listing))["members"]["nodes"]
        counts[name] = [node["balance"]["available"] for node in nodes]
    assert counts == {"grocer": [0, 100, 0], "fuel": [0, 100], "operator": [0, 0, 100, 0]}
    own = (await fuel.run("{ partner { id } }"))["partner"]["id"]
    other = (await fuel.run('{ partner(code: "grocer") { id } }'))["partner"]["id"]
    acquired = "query ($filter: MemberFilter) { members(filter: $filter) { nodes { balance { available } } } }"
    answer = await fuel.run(acquired, {"filter": {"partnerId": own, "state": "ACTIVE"}})
    assert answer["members"]["nodes"] == [{"balance": {"available": 0}}]
    errors = await fuel.errors(acquired, {"filter": {"partnerId": other}})
    assert errors[0]["extensions"] == {"code": "BAD_USER_INPUT", "field": "partnerId"}


async def test_budgets_are_shown_to_their_own_partner(shop: Shop) -> None:
    grocer, fuel, operator = await shop.caller(), await shop.caller("fuel"), await shop.caller(None)
    await grocer.enroll()
    await grocer.earn("k1")
    query = "{ partners { nodes { code budget { limit { amount } consumed { amount } available { amount } } } } }"

    def window(limit: str, consumed: str, available: str) -> dict[str, dict[str, str]]:
        return {"limit": {"amount": limit}, "consumed": {"amount": consumed}, "available": {"amount": available}}

    budgets = {
        "grocer": window("1500.000000", "1.100000", "1498.900000"),
        "fuel": window("600.000000", "0.000000", "600.000000"),
        "restaurant": window("250.000000", "0.000000", "250.000000"),
    }
    for caller, shown in ((grocer, {"grocer"}), (fuel, {"fuel"}), (operator, set(budgets))):
        nodes = (await caller.run(query))["partners"]["nodes"]
        assert {node["code"]: node["budget"] for node in nodes} == {
            code: budget if code in shown else None for code, budget in budgets.items()
        }


async def test_a_burn_hides_the_issuers_price_from_the_redeemer(shop: Shop) -> None:
    grocer, fuel, operator = await shop.caller(), await shop.caller("fuel"), await shop.caller(None)
    await grocer.enroll()
    await grocer.earn("k1", amount=purchase("x")["amount"])
    await fuel.burn("b1", 10)
    query = """{ transactions(filter: {kind: BURN}) { nodes { movements {
        points funder { code } reimbursement poolValue lots { points issuer { code } price } } } } }"""
    seen = {"points": -10, "funder": None, "reimbursement": "0.092000"}
    hidden, shown = {"points": 10, "issuer": None, "price": None}, {"points": 10, "issuer": {"code": "grocer"}}
    assert (await fuel.run(query))["transactions"]["nodes"] == [
        {"movements": [{**seen, "poolValue": None, "lots": [hidden]}]}
    ]
    assert (await operator.run(query))["transactions"]["nodes"] == [
        {"movements": [{**seen, "poolValue": "-0.100000", "lots": [{**shown, "price": "0.010000"}]}]}
    ]
