"""Disputes over HTTP: March of the worked example closed, lines disputed, decided with four eyes, April settled."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.database import Database
from settlement.verifying import verify
from tests.api.dispute_talk import LIST, approve, decide, dispute, euros, statement, withdraw
from tests.api.graphql_shop import Caller, Shop, open_shop
from tests.api.test_four_eyes import propose
from tests.api.test_worked_example import IN_APRIL, IN_MARCH, Time, close, close_march, play_march
from tests.domain.books import contents

IN_MAY = datetime(2017, 5, 3, 12, tzinfo=UTC)
AFTER_THE_WINDOW = datetime(2017, 4, 11, 12, tzinfo=UTC)
MONEY = ("settlement:operate", "audit:read")
ISSUE_TRANSACTIONS = """
{ settlementStatement(label: "2017-03") { lines { kind transactions(first: 10) { nodes { id reference kind } } } } }
"""


@pytest.fixture
async def closed(database: Database) -> AsyncIterator[tuple[Shop, Time]]:
    """March is closed, on 2 April."""
    time = Time(IN_MARCH)
    async with open_shop(database, time) as shop:
        await play_march(shop)
        time.instant = IN_APRIL
        assert (await close_march(shop))["__typename"] == "ClosedPeriod"
        yield shop, time


async def operators(shop: Shop) -> tuple[Caller, Caller]:
    return await shop.caller(None, MONEY), await shop.caller(None, MONEY)


async def line_transactions(caller: Caller, kind: str) -> list[Any]:
    """Transactions of a line of the caller's March."""
    lines = (await caller.run(ISSUE_TRANSACTIONS))["settlementStatement"]["lines"]
    [found] = [line["transactions"]["nodes"] for line in lines if line["kind"] == kind]
    return list(found)


async def test_two_disputes_one_accepted_in_part_one_rejected_and_april_settles(closed: tuple[Shop, Time]) -> None:
    shop, time = closed
    fuel, restaurant = await shop.caller("fuel"), await shop.caller("restaurant")
    [earned] = await line_transactions(restaurant, "ISSUE")
    documents = {code: (await statement(await shop.caller(code)))["document"] for code in ("fuel", "restaurant")}

    claimed = await dispute(fuel, "d-1", "REIMBURSEMENT", amount=euros("4.20"))
    assert claimed["dispute"] == {
        "id": claimed["dispute"]["id"],
        "state": "OPEN",
        "lineKind": "REIMBURSEMENT",
        "statementLabel": "2017-03",
        "reason": "WRONG_TERMS",
        "note": "the contract says otherwise",
        "decisionNote": None,
        "decidedAt": None,
        "partner": {"code": "fuel"},
        "amount": {"amount": "4.20"},
        "withheld": {"amount": "0.00"},
        "accepted": {"amount": "0.00"},
        "transactions": [],
    }
    returned = await dispute(
        restaurant,
        "d-1",
        "ISSUE",
        transactionIds=[earned["id"]],
        amount=euros("20.00"),
        reasonCode="GOODS_RETURNED",
    )
    assert returned["dispute"]["withheld"] == {"amount": "-20.00"}
    assert returned["dispute"]["transactions"] == [{"reference": earned["reference"]}]

    # Undisputed lines settle on time: a claim for more withholds nothing, a disputed charge is not due.
    for code, net, due, withheld in (
        ("fuel", "-452.00", "-452.00", "0.00"),
        ("restaurant", "-32.50", "-12.50", "-20.00"),
    ):
        seen = await statement(await shop.caller(code))
        found = [seen[name]["amount"] for name in ("net", "due", "withheld", "open")]
        assert found == [net, due, withheld, due]
        assert seen["document"] == documents[code]
        assert [each["state"] for each in seen["disputes"]] == ["OPEN"]

    first, second = await operators(shop)
    ids = {each["partner"]["code"]: each["id"] for each in (await first.run(LIST))["disputes"]["nodes"]}
    accepted = await decide(first, "o-1", ids["fuel"], "ACCEPT", "3.00")
    assert {**accepted["proposal"], "id": None} == {
        "id": None,
        "kind": "DISPUTE",
        "reason": "DISPUTE",
        "amount": {"amount": "3.000000"},
        "statementLabel": "2017-03",
        "lineKind": "REIMBURSEMENT",
        "dispute": {"id": ids["fuel"], "state": "OPEN"},
    }
    assert (await approve(first, "a-1", accepted["proposal"]["id"]))["code"] == "FOUR_EYES"
    rejected = await decide(first, "o-2", ids["restaurant"], "REJECT")
    for number, proposal in enumerate((accepted, rejected)):
        done = await approve(second, f"a-{number}", proposal["proposal"]["id"])
        state = "ACCEPTED" if number == 0 else "REJECTED"
        assert done["proposal"] == {"state": "APPROVED", "dispute": {"state": state}}

    seen = await statement(restaurant)
    assert (seen["due"], seen["withheld"]) == ({"amount": "-32.50"}, {"amount": "0.00"})
    assert seen["document"] == documents["restaurant"]
    grocer = await shop.caller()
    await grocer.earn(
        "april", member={"card": "card-grocer"}, amount=euros("1000.00"), occurredAt="2017-04-02T11:00:00Z"
    )
    time.instant = IN_MAY
    operator = await shop.caller(None, MONEY)
    closed_april = await close(operator, "2017-04", "close-april")
    assert closed_april["__typename"] == "ClosedPeriod", closed_april
    period = closed_april["period"]
    # 10.20 into the pool; fees 1.00 and 100.00, less the 3.00 that fuel is credited.
    figures = [period[name]["amount"] for name in ("operatorNet", "poolChange", "margin")]
    assert figures == ["108.20", "10.200000", "98.000000"]
    assert all(check["holds"] for check in period["certificate"]["checks"])
    april = await statement(await shop.caller("fuel"), "2017-04")
    assert [(line["kind"], line["exact"], line["priorPeriodExact"]) for line in april["lines"]] == [
        ("FIXED_FEE", "-30.000000", "0.000000"),
        ("ADJUSTMENT", "3.000000", "3.000000"),
    ]
    assert (april["net"]["amount"], april["due"]["amount"]) == ("-27.00", "-27.00")
    assert april["adjustments"] == [
        {
            "reason": "DISPUTE",
            "amount": {"amount": "3.000000"},
            "note": "our answer",
            "statementLabel": "2017-03",
            "lineKind": "REIMBURSEMENT",
            "dispute": {"id": claimed["dispute"]["id"]},
        }
    ]
    for code, net in (("grocer", "-61.20"), ("restaurant", "-20.00")):
        assert (await statement(await shop.caller(code), "2017-04"))["net"]["amount"] == net
    report = await verify(shop.services.database, time)
    assert report.holds, [check for check in report.checks if not check.holds]


async def test_a_line_is_disputed_once_in_all_and_a_key_once(closed: tuple[Shop, Time]) -> None:
    shop, _ = closed
    fuel = await shop.caller("fuel")
    first = await dispute(fuel, "d-1", "ISSUE", amount=euros("400.00"))
    assert (await dispute(fuel, "d-1", "ISSUE", amount=euros("400.00")))["replayed"]
    before = await contents(shop.services.database)
    for key, line, changes, code, field in (
        ("d-1", "ISSUE", {"amount": euros("400.01")}, "IDEMPOTENCY_CONFLICT", "idempotencyKey"),
        ("d-1", "ISSUE", {"amount": euros("400.00"), "note": "other"}, "IDEMPOTENCY_CONFLICT", "idempotencyKey"),
        ("d-2", "ISSUE", {"amount": euros("20.01")}, "EXCEEDS_ORIGINAL", "amount.amount"),
        ("d-2", "ISSUE", {}, "EXCEEDS_ORIGINAL", "amount.amount"),
        ("d-2", "SERVICE_FEE", {"amount": euros("48.01")}, "EXCEEDS_ORIGINAL", "amount.amount"),
        ("d-2", "SERVICE_FEE", {"amount": euros("0.00")}, "AMOUNT_INVALID", "amount.amount"),
        ("d-2", "REIMBURSEMENT", {}, "INPUT_INVALID", "amount"),
        ("d-2", "BREAKAGE_SHARE", {}, "STATEMENT_NOT_FOUND", "label"),
        ("d-2", "ISSUE", {"label": "2017-04"}, "STATEMENT_NOT_FOUND", "label"),
        ("d-2", "ISSUE", {"label": "March"}, "STATEMENT_NOT_FOUND", "label"),
        ("d-2", "FIXED_FEE", {"transactionIds": ["x"]}, "INPUT_INVALID", "transactionIds"),
        ("d-2", "ISSUE", {"transactionIds": []}, "INPUT_INVALID", "transactionIds"),
        ("d-2", "ISSUE", {"transactionIds": ["x"]}, "TRANSACTION_NOT_FOUND", "transactionIds.0"),
        ("d-2", "ISSUE", {"note": ""}, "INPUT_INVALID", "note"),
    ):
        refusal = await dispute(fuel, key, line, **changes)
        assert (refusal.get("code"), refusal.get("field")) == (code, field), (line, changes, refusal)
    assert await contents(shop.services.database) == before
    assert (await dispute(fuel, "d-2", "ISSUE", amount=euros("20.00")))["dispute"]["state"] == "OPEN"
    assert (await withdraw(fuel, "w-1", first["dispute"]["id"]))["dispute"]["state"] == "WITHDRAWN"
    assert (await dispute(fuel, "d-3", "ISSUE", amount=euros("400.00")))["dispute"]["state"] == "OPEN"
    seen = await statement(fuel)
    assert (seen["withheld"]["amount"], seen["due"]["amount"]) == ("-420.00", "-32.00")


async def test_single_transactions_of_the_line_and_each_once(closed: tuple[Shop, Time]) -> None:
    shop, _ = closed
    restaurant, grocer = await shop.caller("restaurant"), await shop.caller("grocer")
    [earned] = await line_transactions(restaurant, "ISSUE")
    burned = await line_transactions(restaurant, "REIMBURSEMENT")
    assert (await dispute(restaurant, "d-0", "ISSUE", transactionIds=[burned[0]["id"]]))["code"] == (
        "TRANSACTION_NOT_FOUND"
    )
    [foreign] = [each for each in await line_transactions(grocer, "ISSUE") if each["kind"] == "EARN"]
    assert (await dispute(restaurant, "d-0", "ISSUE", transactionIds=[foreign["id"]]))["code"] == (
        "TRANSACTION_NOT_FOUND"
    )
    too_much = await dispute(restaurant, "d-0", "ISSUE", transactionIds=[earned["id"]], amount=euros("222.23"))
    assert (too_much["code"], too_much["field"]) == ("EXCEEDS_ORIGINAL", "amount.amount")
    part = await dispute(restaurant, "d-1", "ISSUE", transactionIds=[earned["id"]], amount=euros("1.00"))
    assert part["dispute"]["withheld"] == {"amount": "-1.00"}
    again = await dispute(restaurant, "d-2", "ISSUE", transactionIds=[earned["id"]], amount=euros("0.01"))
    assert (again["code"], again["field"]) == ("EXCEEDS_ORIGINAL", "transactionIds")
    whole = await dispute(restaurant, "d-2", "SERVICE_FEE", transactionIds=[earned["id"], earned["id"]])
    assert whole["dispute"]["amount"] == {"amount": "27.78"}, "27.777, rounded as the line is"


async def test_after_the_window_only_the_operator_disputes_in_a_partner_s_name(closed: tuple[Shop, Time]) -> None:
    shop, time = closed
    time.instant = AFTER_THE_WINDOW
    fuel, operator = await shop.caller("fuel"), await shop.caller(None, MONEY)
    before = await contents(shop.services.database)
    late = await dispute(fuel, "d-1", "ISSUE", amount=euros("1.00"))
    assert (late["code"], late["field"]) == ("DISPUTE_WINDOW_OVER", "label")
    assert "2017-04-10T00:00:00+02:00" in late["message"]
    assert await contents(shop.services.database) == before
    found = await operator.run('{ partner(code: "fuel") { id } }')
    made = await dispute(operator, "d-1", "ISSUE", amount=euros("1.00"), partnerId=found["partner"]["id"])
    assert made["dispute"]["partner"] == {"code": "fuel"}
    assert [each["state"] for each in (await statement(fuel))["disputes"]] == ["OPEN"]


async def test_a_withdrawn_or_decided_dispute_is_decided_no_more(closed: tuple[Shop, Time]) -> None:
    shop, _ = closed
    fuel = await shop.caller("fuel")
    first, second = await operators(shop)
    made = await dispute(fuel, "d-1", "ISSUE", amount=euros("10.00"))
    [node] = (await first.run(LIST))["disputes"]["nodes"]
    assert (await decide(first, "o-0", node["id"], "ACCEPT", "10.01"))["code"] == "EXCEEDS_ORIGINAL"
    assert (await decide(first, "o-0", node["id"], "REJECT", "1.00"))["code"] == "INPUT_INVALID"
    assert (await decide(first, "o-0", "nonsense", "REJECT"))["code"] == "DISPUTE_NOT_FOUND"
    # More than the line is an adjustment beside the outcome, which names the dispute.
    assert (await propose(first, disputeId="nonsense"))["code"] == "DISPUTE_NOT_FOUND"
    assert (await propose(first, disputeId=node["id"], label="2017-03", lineKind="ISSUE"))["code"] == "INPUT_INVALID"
    beside = (await propose(first, disputeId=node["id"]))["proposal"]
    assert (beside["statementLabel"], beside["lineKind"], beside["amount"]["amount"]) == (
        "2017-03",
        "ISSUE",
        "5.000000",
    )
    proposed = await decide(first, "o-1", node["id"], "ACCEPT")
    assert (await decide(first, "o-1", node["id"], "ACCEPT"))["replayed"]
    assert (await decide(second, "o-2", node["id"], "REJECT"))["code"] == "DISPUTE_DECIDED"
    withdrawn = await withdraw(fuel, "w-1", made["dispute"]["id"])
    assert (withdrawn["dispute"]["state"], withdrawn["replayed"]) == ("WITHDRAWN", False)
    assert (await withdraw(fuel, "w-1", made["dispute"]["id"]))["replayed"]
    before = await contents(shop.services.database)
    assert (await withdraw(fuel, "w-2", made["dispute"]["id"]))["code"] == "DISPUTE_DECIDED"
    assert (await approve(second, "a-1", proposed["proposal"]["id"]))["code"] == "DISPUTE_DECIDED"
    assert await contents(shop.services.database) == before
    assert (await statement(fuel))["withheld"]["amount"] == "0.00"
    assert (await approve(second, "a-2", beside["id"]))["proposal"]["state"] == "APPROVED"
    [adjustment] = (await statement(fuel, "2017-04"))["adjustments"]
    assert (adjustment["dispute"]["id"], adjustment["lineKind"]) == (made["dispute"]["id"], "ISSUE")


async def test_a_rival_sees_nothing_and_reaches_nothing(closed: tuple[Shop, Time]) -> None:
    shop, _ = closed
    fuel, grocer, operator = await shop.caller("fuel"), await shop.caller(), await shop.caller(None, MONEY)
    made = (await dispute(fuel, "d-1", "ISSUE", amount=euros("10.00")))["dispute"]["id"]
    [as_operator] = [each["id"] for each in (await operator.run(LIST))["disputes"]["nodes"]]
    before = await contents(shop.services.database)
    assert (await grocer.run(LIST))["disputes"]["nodes"] == []
    assert (await statement(grocer))["disputes"] == []
    for foreign in (made, as_operator):
        assert (await withdraw(grocer, "w-1", foreign))["code"] == "DISPUTE_NOT_FOUND"
    found = await operator.run('{ partner(code: "fuel") { id } }')
    stolen = await dispute(grocer, "d-9", "ISSUE", partnerId=found["partner"]["id"], amount=euros("1.00"))
    assert (stolen["code"], stolen["field"]) == ("INPUT_INVALID", "partnerId")
    [error] = await grocer.errors(LIST, {"filter": {"partnerId": found["partner"]["id"]}})
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert await contents(shop.services.database) == before
    for viewer, seen in ((0, 1), (1, 0), (2, 1), (3, 0)):
        async with shop.services.database.reading(viewer) as connection:
            assert len((await connection.exec_driver_sql("SELECT id FROM dispute")).all()) == seen
            assert len((await connection.exec_driver_sql("SELECT * FROM adjustment")).all()) == 0
    without = await shop.caller("fuel", ["settlement:read"])
    assert [node["state"] for node in (await without.run(LIST))["disputes"]["nodes"]] == ["OPEN"]


async def test_disputes_are_listed_page_by_page(closed: tuple[Shop, Time]) -> None:
    shop, _ = closed
    for code in ("grocer", "fuel", "restaurant"):
        await dispute(await shop.caller(code), "d-1", "FIXED_FEE")
    operator = await shop.caller(None, MONEY)
    seen: list[str] = []
    after = None
    while True:
        page = (await operator.run(LIST, {"after": after}))["disputes"]
        seen += [node["partner"]["code"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert seen == ["restaurant", "fuel", "grocer"]
    fuel = (await operator.run('{ partner(code: "fuel") { id } }'))["partner"]["id"]
    for conditions, expected in (
        ({"state": "OPEN", "label": "2017-03", "partnerId": fuel}, ["fuel"]),
        ({"state": "REJECTED"}, []),
        ({"label": "2017-02"}, []),
    ):
        nodes = (await operator.run(LIST, {"filter": conditions}))["disputes"]["nodes"]
        assert [node["partner"]["code"] for node in nodes] == expected
