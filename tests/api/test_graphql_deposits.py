"""Deposits through the API, the coalition file and the command line."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from api.clock import system_clock
from domain.database import Database
from domain.errors import ConfigurationError
from domain.periods import Calendar, PeriodKind
from partners.coalition_file import parse_coalition
from partners.plan import plan
from tests.api.graphql_shop import Shop, Time, open_shop
from tests.api.processes import a_database
from tests.api.test_graphql_payments import RECORD as PAY
from tests.api.test_graphql_payments import closed_march
from tests.factories import COALITION_TOML, apply_toml

DEPOSIT = "required { amount } balance { amount } shortfall { amount } owes { amount } free { amount }"
RECORD = f"""mutation ($input: RecordDepositInput!) {{ recordDeposit(input: $input) {{ __typename
  ... on RecordedDeposit {{ replayed idempotencyKey amount {{ amount }} partner {{ code }}
      deposit {{ {DEPOSIT} payments {{ amount {{ amount }} valueDate bankReference recordedAt }} }} }}
  ... on Refusal {{ code field refusedKey: idempotencyKey }} }} }}"""
PROPOSE = """mutation ($input: ProposeDepositPayoutInput!) { proposeDepositPayout(input: $input) { __typename
  ... on ProposalReceipt { replayed proposal { id kind state amount { amount } partner { code } } }
  ... on Refusal { code field } } }"""
APPROVE = """mutation ($input: DecideProposalInput!) { approveProposal(input: $input) { __typename
  ... on ProposalReceipt { replayed proposal { state } } ... on Refusal { code field } } }"""
OWN = f"query ($code: String) {{ partner(code: $code) {{ id deposit {{ {DEPOSIT} }} }} }}"
LIST = """query ($first: Int, $after: String) { deposits(first: $first, after: $after) {
  nodes { code deposit { balance { amount } } } pageInfo { hasNextPage endCursor } } }"""
DEFAULT = """mutation ($input: ProposeDefaultInput!) { proposeDefault(input: $input) { __typename
  ... on ProposalReceipt { proposal { id kind state amount { amount } statementLabel } }
  ... on Refusal { code field } } }"""
COVERED = """{ settlementStatement(label: "2017-03") { state due { amount } paid { amount } open { amount }
  covered { deposit { amount } offset { amount } writtenOff { amount } recovered { amount } }
  deposit { balance { amount } owes { amount } defaultedAt } } }"""
REQUIRED = COALITION_TOML.replace('code = "fuel"', 'code = "fuel"\ndeposit_required = "300.00"')


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def shop(database: Database, time: Time) -> AsyncIterator[Shop]:
    async with open_shop(database, time) as opened:
        yield opened


def micro(**amounts: str) -> dict[str, dict[str, str]]:
    return {name: {"amount": f"{amount}.000000"} for name, amount in amounts.items()}


async def test_a_deposit_is_paid_in_shown_and_paid_out(shop: Shop, database: Database) -> None:
    await apply_toml(database, REQUIRED)
    operator, other = await shop.caller(None), await shop.caller(None)
    fuel, grocer = await shop.caller("fuel"), await shop.caller("grocer")
    fuel_id = (await fuel.run(OWN))["partner"]["id"]
    given = {
        "idempotencyKey": "d1",
        "partnerId": fuel_id,
        "amount": {"amount": "350.00", "currency": "EUR"},
        "valueDate": "2017-03-14",
        "bankReference": "E2E-9",
    }
    recorded = (await operator.run(RECORD, {"input": given}))["recordDeposit"]
    held = micro(required="300", balance="350", shortfall="0", owes="0", free="50")
    payment = {
        "amount": {"amount": "350.000000"},
        "valueDate": "2017-03-14",
        "bankReference": "E2E-9",
        "recordedAt": "2017-03-15T12:00:00Z",
    }
    assert recorded == {
        "__typename": "RecordedDeposit", "replayed": False, "idempotencyKey": "d1", "amount": {"amount": "350.000000"},
        "partner": {"code": "fuel"}, "deposit": {**held, "payments": [payment]},
    }  # fmt: skip
    assert (await operator.run(RECORD, {"input": given}))["recordDeposit"] == {**recorded, "replayed": True}
    twice = given | {"idempotencyKey": "d2"}
    assert (await operator.run(RECORD, {"input": twice}))["recordDeposit"] == {
        "__typename": "Refusal", "code": "DUPLICATE_REFERENCE", "field": "bankReference", "refusedKey": "d2",
    }  # fmt: skip
    nobody = given | {"partnerId": "nobody"}
    assert (await operator.run(RECORD, {"input": nobody}))["recordDeposit"]["field"] == "partnerId"

    # The partner sees its own, and nobody sees another's.
    assert (await fuel.run(OWN))["partner"]["deposit"] == held
    assert (await fuel.run(OWN, {"code": "grocer"}))["partner"]["deposit"] is None
    assert (await grocer.run(OWN, {"code": "fuel"}))["partner"]["deposit"] is None
    assert (await operator.run(OWN, {"code": "operator"}))["partner"] is None

    ask = {
        "idempotencyKey": "o1", "partnerId": fuel_id, "amount": {"amount": "50.01", "currency": "EUR"},
        "reason": "AGREEMENT", "note": "limit lowered",
    }  # fmt: skip
    assert (await operator.run(PROPOSE, {"input": ask}))["proposeDepositPayout"] == {
        "__typename": "Refusal", "code": "LIMIT_EXCEEDED", "field": "amount.amount",
    }  # fmt: skip
    ask["amount"] = {"amount": "50.00", "currency": "EUR"}
    proposed = (await operator.run(PROPOSE, {"input": ask}))["proposeDepositPayout"]
    assert {**proposed["proposal"], "id": ""} == {
        "id": "", "kind": "DEPOSIT_PAYOUT", "state": "PROPOSED", "amount": {"amount": "50.000000"},
        "partner": {"code": "fuel"},
    }  # fmt: skip
    decision = {"input": {"idempotencyKey": "a1", "proposalId": proposed["proposal"]["id"]}}
    assert (await operator.run(APPROVE, decision))["approveProposal"]["code"] == "FOUR_EYES"
    assert (await other.run(APPROVE, decision))["approveProposal"] == {
        "__typename": "ProposalReceipt", "replayed": False, "proposal": {"state": "APPROVED"},
    }  # fmt: skip
    assert (await other.run(APPROVE, decision))["approveProposal"]["replayed"]
    held = micro(required="300", balance="300", shortfall="0", owes="0", free="0")
    assert (await fuel.run(OWN))["partner"]["deposit"] == held


async def test_the_list_has_who_must_pay_or_has_paid(shop: Shop, database: Database) -> None:
    await apply_toml(database, REQUIRED)
    operator = await shop.caller(None)
    restaurant_id = (await (await shop.caller("restaurant")).run(OWN))["partner"]["id"]
    given = {
        "idempotencyKey": "d1", "partnerId": restaurant_id, "amount": {"amount": "1.00", "currency": "EUR"},
        "valueDate": "2017-03-14", "bankReference": "E2E-9",
    }  # fmt: skip
    await operator.run(RECORD, {"input": given})
    page = (await operator.run(LIST, {"first": 1}))["deposits"]
    assert page["nodes"] == [{"code": "fuel", "deposit": micro(balance="0")}]
    assert page["pageInfo"]["hasNextPage"]
    rest = (await operator.run(LIST, {"after": page["pageInfo"]["endCursor"]}))["deposits"]
    assert rest["nodes"] == [{"code": "restaurant", "deposit": micro(balance="1")}]
    assert not rest["pageInfo"]["hasNextPage"]


async def test_a_requirement_is_the_coalition_file_s_and_may_change(database: Database) -> None:
    await apply_toml(database)
    made = plan(await apply_toml(database), parse_coalition(REQUIRED))
    assert made.lines()[0] == "change partner fuel: deposit_required 0 → 300"
    assert (await apply_toml(database, REQUIRED)).partners[2].deposit_required_micro == 300_000_000
    lower = REQUIRED.replace("300.00", "0.50")
    assert (await apply_toml(database, lower)).partners[2].deposit_required_micro == 500_000
    assert (await apply_toml(database)).partners[2].deposit_required_micro == 0
    with pytest.raises(ConfigurationError, match=r'partner "fuel": deposit_required = "0\.005" must have at most 2'):
        parse_coalition(REQUIRED.replace("300.00", "0.005"))


async def test_what_was_paid_in_keeps_its_currency(shop: Shop, database: Database) -> None:
    operator = await shop.caller(None)
    fuel_id = (await (await shop.caller("fuel")).run(OWN))["partner"]["id"]
    given = {
        "idempotencyKey": "d1", "partnerId": fuel_id, "amount": {"amount": "1.00", "currency": "EUR"},
        "valueDate": "2017-03-14", "bankReference": "E2E-9",
    }  # fmt: skip
    await operator.run(RECORD, {"input": given})
    with pytest.raises(ConfigurationError, match="the currency stays EUR"):
        await apply_toml(database, COALITION_TOML.replace('"EUR"', '"USD"'))


async def test_a_default_is_proposed_approved_and_seen(shop: Shop, time: Time) -> None:
    payment = await closed_march(shop, time)
    grocer_id = payment["partnerId"]
    time.now = datetime(2017, 4, 12, 12, tzinfo=UTC)
    operator, other = await shop.caller(None), await shop.caller(None)
    await operator.run(
        RECORD,
        {
            "input": {
                "idempotencyKey": "d1", "partnerId": grocer_id, "amount": {"amount": "20.00", "currency": "EUR"},
                "valueDate": "2017-04-01", "bankReference": "E2E-9",
            }
        },
    )  # fmt: skip
    ask = {
        "idempotencyKey": "x1", "partnerId": grocer_id, "label": "2017-03", "reason": "UNCOLLECTABLE",
        "note": "insolvent",
    }  # fmt: skip
    early = (await operator.run(DEFAULT, {"input": ask}))["proposeDefault"]
    assert early == {"__typename": "Refusal", "code": "STATEMENT_NOT_DUE", "field": "label"}
    time.now = datetime(2017, 4, 15, 12, tzinfo=UTC)
    operator, other, grocer = await shop.caller(None), await shop.caller(None), await shop.caller()
    proposed = (await operator.run(DEFAULT, {"input": ask}))["proposeDefault"]["proposal"]
    assert {**proposed, "id": ""} == {
        "id": "", "kind": "DEFAULT", "state": "PROPOSED", "amount": {"amount": "51.460000"},
        "statementLabel": "2017-03",
    }  # fmt: skip
    decision = {"input": {"idempotencyKey": "a1", "proposalId": proposed["id"]}}
    assert (await operator.run(APPROVE, decision))["approveProposal"]["code"] == "FOUR_EYES"
    assert (await other.run(APPROVE, decision))["approveProposal"]["proposal"] == {"state": "APPROVED"}
    nothing = {"amount": "0.00"}
    assert (await grocer.run(COVERED))["settlementStatement"] == {
        "state": "SETTLED", "due": {"amount": "-51.46"}, "paid": nothing, "open": nothing,
        "covered": {
            "deposit": {"amount": "20.00"}, "offset": nothing, "writtenOff": {"amount": "31.46"}, "recovered": nothing,
        },
        "deposit": {
            "balance": {"amount": "0.000000"}, "defaultedAt": "2017-04-15T12:00:00Z",
            "owes": {"amount": "100.000000"},  # the fixed fees of January and February
        },
    }  # fmt: skip
    await operator.run(PAY, {"input": payment | {"amount": {"amount": "-31.46", "currency": "EUR"}}})
    covered = (await grocer.run(COVERED))["settlementStatement"]["covered"]
    assert (covered["writtenOff"], covered["recovered"]) == ({"amount": "31.46"}, {"amount": "31.46"})
    # Without a label: every statement that is due.
    rest = {name: value for name, value in ask.items() if name != "label"} | {"idempotencyKey": "x2"}
    every = (await operator.run(DEFAULT, {"input": rest}))["proposeDefault"]["proposal"]
    assert (every["amount"], every["statementLabel"]) == ({"amount": "100.000000"}, None)


def test_deposits_on_the_command_line() -> None:
    calendar = Calendar(PeriodKind.MONTH, ZoneInfo("Europe/Berlin"))
    first_day = str(calendar.first_day(calendar.containing(system_clock())))
    with a_database() as (coalition, _):
        coalition.apply(REQUIRED)
        paid = ("deposit", "fuel", "--amount", "250.00", "--value-date", first_day, "--reference", "E2E 9")
        recorded = json.loads(coalition.run(*paid, "--json"))
        assert recorded == {
            "amount": "250.00", "partner": "fuel", "state": "ACTIVE", "defaultedAt": None, "required": "300.00",
            "balance": "250.00", "shortfall": "50.00", "owes": "0.00", "free": "0.00",
            "currency": "EUR", "replayed": False,
        }  # fmt: skip
        assert "250.00 held of 300.00 required (was recorded before)" in coalition.run(*paid)
        coalition.run(*paid[:3], "much", *paid[4:], status=1)
        assert "must be a number" in coalition.last_error
        coalition.run("deposit", "nobody", *paid[2:], status=1)
        assert 'no partner has the code "nobody"' in coalition.last_error
        listed = json.loads(coalition.run("deposits", "--json"))
        assert [(one["partner"], one["balance"], one["shortfall"]) for one in listed] == [("fuel", "250.00", "50.00")]
        assert "fuel" in coalition.run("deposits")
        out = ("propose", "payout", "fuel", "--note", "sent back by the bank", "--key", "o-1", "--amount")
        coalition.run(*out, "10.00", status=1)
        assert "LIMIT_EXCEEDED" in coalition.last_error
        assert "fuel 10.000000 EUR, PROPOSED" in coalition.run(*out, "10.00", "--reason", "CORRECTION")
        row = json.loads(coalition.run(*out, "10.00", "--reason", "CORRECTION", "--json"))
        assert (row["kind"], row["replayed"]) == ("DEPOSIT_PAYOUT", True)
        coalition.run("propose", "default", "fuel", "2017-01", "--note", "insolvent", "--key", "x-1", status=1)
        assert "STATEMENT_NOT_FOUND" in coalition.last_error
        assert json.loads(coalition.run("verify", "--json"))["holds"]
