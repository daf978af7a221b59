"""Bounds: depth, cost, tokens, remembered documents, and statements that do not grow with pages."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from graphql import get_introspection_query

from api.graphql.documents import REMEMBERED_TEXT_MAX, REMEMBERED_TEXTS_MAX, DocumentRefused, Documents
from api.graphql.limits import DEPTH_MAX, SELECTIONS_MAX, TOKENS_MAX
from api.graphql.schema import schema
from domain.database import Database
from tests.api.graphql_shop import Shop, open_shop, purchase
from tests.factories import a_purchase


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    async with open_shop(database) as opened:
        yield opened


@pytest.fixture
def documents() -> Documents:
    return Documents(schema._schema)


def refusal(documents: Documents, query: str, variables: dict[str, Any] | None = None) -> str:
    with pytest.raises(DocumentRefused) as refused:
        documents.prepared(query, None, variables or {})
    extensions = refused.value.errors[0].extensions
    assert extensions is not None
    return str(extensions["code"])


def nested(levels: int) -> str:
    """A query of that many levels: transactions, nodes, reverses …, id."""
    return "{ transactions { nodes " + "{ reverses " * (levels - 3) + "{ id }" + " }" * (levels - 3) + " } }"


def test_depth_is_bounded(documents: Documents) -> None:
    documents.prepared(nested(DEPTH_MAX), None, {})
    assert refusal(documents, nested(DEPTH_MAX + 1)) == "QUERY_TOO_DEEP"


def test_depth_counts_through_fragments(documents: Documents) -> None:
    fragments = "".join(f"fragment F{n} on Transaction {{ reverses {{ ...F{n + 1} }} }} " for n in range(DEPTH_MAX))
    last = f"fragment F{DEPTH_MAX} on Transaction {{ id }}"
    assert refusal(documents, "{ transactions { nodes { ...F0 } } } " + fragments + last) == "QUERY_TOO_DEEP"


def test_the_common_introspection_query_fits(documents: Documents) -> None:
    documents.prepared(get_introspection_query(specified_by_url=True, input_value_deprecation=True), None, {})


def test_cost_multiplies_along_pages(documents: Documents) -> None:
    query = """{ settlementPeriods(first: %d) { nodes { statements { lines {
        transactions(first: %d) { nodes { id points amount { amount } } } } } } } }"""
    documents.prepared(query % (1, 100), None, {})
    assert refusal(documents, query % (100, 100)) == "QUERY_TOO_COSTLY"


def test_cost_takes_the_page_size_from_variables_each_time(documents: Documents) -> None:
    query = """query ($first: Int) { settlementPeriods(first: $first) { nodes { statements { lines {
        transactions(first: $first) { nodes { id } } } } } } }"""
    documents.prepared(query, None, {"first": 5})
    assert refusal(documents, query, {"first": 100}) == "QUERY_TOO_COSTLY"
    documents.prepared(query, None, {"first": 5})
    documents.prepared(query, None, {})


def test_aliases_and_fragments_do_not_hide_cost(documents: Documents) -> None:
    one = "transactions(first: 100) { nodes { id kind points movements { id kind points } } }"
    documents.prepared("{ " + one + " }", None, {})
    aliased = "{ " + " ".join(f"a{n}: {one}" for n in range(40)) + " }"
    assert refusal(documents, aliased) == "QUERY_TOO_COSTLY"
    # Each fragment spreads the next one twice: 2^25 fields from 25 lines.
    bomb = "{ viewer { partner { ...F0 } } } " + "".join(
        f"fragment F{n} on Partner {{ a: stores {{ id }} ...F{n + 1} ...F{n + 1} }} " for n in range(25)
    )
    assert refusal(documents, bomb + "fragment F25 on Partner { stores { id } }") == "QUERY_TOO_COSTLY"


def test_a_batch_costs_by_its_length(documents: Documents) -> None:
    selection = (
        "{ ... on EarnReceipt { points transaction { movements { kind points funder { code } lots { points } } } } }"
    )
    query = "mutation ($inputs: [EarnInput!]!) { earnMany(inputs: $inputs) " + selection + " }"
    documents.prepared(query, None, {"inputs": [{}] * 500})
    assert refusal(documents, query, {"inputs": [{}] * 501}) == "BAD_USER_INPUT"
    twenty = (
        "mutation ($i: [EarnInput!]!) { "
        + " ".join(f"a{n}: earnMany(inputs: $i) {selection}" for n in range(20))
        + " }"
    )
    documents.prepared(twenty, None, {"i": [{}] * 2})
    assert refusal(documents, twenty, {"i": [{}] * 500}) == "QUERY_TOO_COSTLY"


@pytest.mark.parametrize(
    "query",
    ["{ " + "viewer { kind } " * TOKENS_MAX + "}", "{" * 100_000, "{ viewer " * 3000, '{ partner(code: "' + "x" * 10],
)
def test_what_is_too_long_or_no_document_is_not_even_validated(documents: Documents, query: str) -> None:
    assert refusal(documents, query) == "GRAPHQL_PARSE_FAILED"


def test_the_number_of_fields_that_are_compared_is_bounded(documents: Documents) -> None:
    aliases = [f"a{number}: kind" for number in range(SELECTIONS_MAX)]
    documents.prepared("{ viewer { " + " ".join(aliases[1:]) + " } }", None, {})
    assert refusal(documents, "{ viewer { " + " ".join(aliases) + " } }") == "QUERY_TOO_COSTLY"


def test_five_hundred_purchases_fit_in_as_literals(documents: Documents) -> None:
    purchase_ = """{idempotencyKey: "k", member: {card: "c"}, amount: {amount: "1", currency: "EUR"}, reference: "r",
        occurredAt: "2017-03-15T12:00:00Z"}"""
    documents.prepared("mutation { earnMany(inputs: [" + purchase_ * 500 + "]) { __typename } }", None, {})


def test_memory_of_documents_is_bounded(documents: Documents) -> None:
    comment = "#" + "x" * (REMEMBERED_TEXT_MAX - 100)
    for number in range(2 * REMEMBERED_TEXTS_MAX // REMEMBERED_TEXT_MAX):
        documents.prepared(f"{{ viewer {{ kind }} }} #{number}\n{comment}", None, {})
    assert 0 < sum(map(len, documents._remembered)) <= REMEMBERED_TEXTS_MAX
    assert documents._text_remembered == sum(map(len, documents._remembered))
    long = "{ viewer { kind } } #" + "x" * REMEMBERED_TEXT_MAX
    documents.prepared(long, None, {})
    assert long not in documents._remembered
    refusal(documents, "{ nothing }")
    assert "{ nothing }" not in documents._remembered


EVERYTHING = """query ($first: Int!) {
  transactions(first: $first) { nodes {
    id kind partner { code stores { code } budget { limit { amount } } } store { code } reverses { id }
    member { id identifiers { value } balance { available expiringNext { points } } acquiredBy { code } }
    movements { id funder { code } party { code } lots { points issuer { code } } }
  } }
  members(first: $first) { nodes { balance { expiringNext { at } } identifiers { value } } }
}"""


async def test_statements_do_not_grow_with_the_page(shop: Shop) -> None:
    grocer = await shop.caller()
    for number in range(6):
        await grocer.enroll(f"card-{number}")
        await grocer.earn(f"k{number}", member={"card": f"card-{number}"}, storeCode="s1")
        await grocer.burn(f"b{number}", 5, member={"card": f"card-{number}"})
    await grocer.run(EVERYTHING, {"first": 1})
    counts = []
    for first in (1, 2, 12):
        with shop.statements() as seen:
            answer = await grocer.run(EVERYTHING, {"first": first})
        assert len(answer["transactions"]["nodes"]) == first
        counts.append(len(seen))
    # Pages of transactions and members; partners, stores, stores of partners, budgets, members, identifiers (twice, as
    # members arrive later than their transactions), expiries (twice), movements, lots.
    assert counts[1] == counts[2]
    assert counts[2] <= 14


async def test_a_balance_takes_one_statement_and_a_receipt_none_of_ours(shop: Shop) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    await grocer.earn("k0")
    with shop.statements() as seen:
        await grocer.run(
            '{ member(by: {card: "card-1"}) { id state enrolledAt balance { available value { amount } } } }'
        )
    assert len(seen) == 1
    await grocer.earn("k1")
    with shop.statements() as seen:
        await grocer.earn("k2")
    configuration = shop.services.configuration.held
    assert configuration is not None
    with shop.statements() as of_the_queue:
        await shop.services.queue.post(a_purchase(configuration, "k3"))
    assert len(seen) == len(of_the_queue)


async def test_many_receipts_are_read_in_batches(shop: Shop) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    document = """mutation ($inputs: [EarnInput!]!) { earnMany(inputs: $inputs) { ... on EarnReceipt {
        balance { expiringNext { points } } awards { funder { code } }
        transaction { partner { code } member { id } movements { kind lots { points } } } } } }"""
    counts = []
    for size in (1, 2, 30):  # the first one fetches ids and opens connections
        with shop.statements() as seen:
            await grocer.run(document, {"inputs": [purchase(f"{size}-{number}") for number in range(size)]})
        counts.append(len(seen))
    assert counts[1] == counts[2]
