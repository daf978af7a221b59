"""What the product says of its closed periods, as the operator reads it: one GraphQL document per period."""

from datetime import datetime
from fractions import Fraction
from typing import Any

from tests.api.graphql_shop import Caller
from tests.generator.accounts import DepositOf
from tests.generator.statements import StatementOf, TotalsOf

PERIOD = """
query ($label: String!) { settlementPeriod(label: $label) {
  state poolChange { amount } margin { amount } tax { amount } depositChange { amount }
  memberReceivableChange { amount } operatorNet { amount }
  statements {
    partner { code } net { amount } carriedForward { amount } withheld { amount } due { amount } paid { amount }
    open { amount } state isFinal outstanding { points value }
    covered { offset { amount } deposit { amount } writtenOff { amount } recovered { amount } }
    lines { kind exact priorPeriodExact points billed { amount } priorPeriods { period exact } }
    taxes { kind rate taxable { amount } tax { amount } }
    adjustments { amount { amount } statementLabel }
    disputes { lineKind amount { amount } withheld { amount } state accepted { amount } } } } }
"""
PARTNER = """
query ($code: String!) { partner(code: $code) {
  budget { funding limit { amount } consumed { amount } blocks { amount { amount } used { amount } } }
  deposit { balance { amount } required { amount } shortfall { amount } owes { amount } free { amount } defaultedAt
    payments { amount { amount } } } } }
"""


PURCHASES = """
query ($after: String) { transactions(filter: {kind: EARN}, first: 100, after: $after) {
  nodes { idempotencyKey occurredAt partner { code } amount { amount } movements { campaign points funder { code } } }
  pageInfo { hasNextPage endCursor } } }
"""
TOTALS = ("poolChange", "margin", "tax", "depositChange", "memberReceivableChange", "operatorNet")

FloatOf = tuple[Fraction, Fraction, list[tuple[Fraction, Fraction]]]
"""What it holds, what was drawn, and both of each of its blocks."""


async def published_period(operator: Caller, label: str) -> tuple[TotalsOf, dict[str, StatementOf]]:
    """A closed period's totals, and its statements by partner."""
    found = (await operator.run(PERIOD, {"label": label}))["settlementPeriod"]
    assert found["state"] == "CLOSED", label
    totals = TotalsOf(*(_money(found[name]) for name in TOTALS))
    return totals, {one["partner"]["code"]: _statement(one) for one in found["statements"]}


async def published_partner(operator: Caller, code: str) -> tuple[FloatOf | None, DepositOf]:
    """What a partner's float holds in all, what was drawn of it, and of each block; and its deposit."""
    found = (await operator.run(PARTNER, {"code": code}))["partner"]
    budget, deposit = found["budget"], found["deposit"]
    of_float = None
    if budget is not None and budget["funding"] == "PREPAID":
        blocks = [(_money(block["amount"]), _money(block["used"])) for block in budget["blocks"]]
        of_float = (_money(budget["limit"]), _money(budget["consumed"]), blocks)
    defaulted_at = deposit["defaultedAt"]
    return of_float, DepositOf(
        _money(deposit["balance"]),
        _money(deposit["required"]),
        _money(deposit["shortfall"]),
        _money(deposit["owes"]),
        _money(deposit["free"]),
        None if defaulted_at is None else datetime.fromisoformat(defaulted_at),
        [_money(payment["amount"]) for payment in reversed(deposit["payments"])],
    )


async def published_purchases(operator: Caller) -> list[dict[str, Any]]:
    """Every purchase with what it earned, by which campaign's bonus."""
    purchases: list[dict[str, Any]] = []
    page: dict[str, Any] = {"hasNextPage": True, "endCursor": None}
    while page["hasNextPage"]:
        found = (await operator.run(PURCHASES, {"after": page["endCursor"]}))["transactions"]
        purchases, page = purchases + found["nodes"], found["pageInfo"]
    return purchases


def _statement(found: dict[str, Any]) -> StatementOf:
    return StatementOf(
        lines={
            line["kind"]: (
                Fraction(line["exact"]),
                Fraction(line["priorPeriodExact"]),
                line["points"],
                _money(line["billed"]),
                {part["period"]: Fraction(part["exact"]) for part in line["priorPeriods"] if Fraction(part["exact"])},
            )
            for line in found["lines"]
        },
        taxes={
            tax["kind"]: (Fraction(tax["rate"]), _money(tax["taxable"]), _money(tax["tax"])) for tax in found["taxes"]
        },
        net=_money(found["net"]),
        carried=_money(found["carriedForward"]),
        withheld=_money(found["withheld"]),
        due=_money(found["due"]),
        paid=_money(found["paid"]),
        open=_money(found["open"]),
        adjustments=sorted(((_money(one["amount"]), one["statementLabel"]) for one in found["adjustments"]), key=repr),
        disputes=sorted(
            (one["lineKind"], _money(one["amount"]), _money(one["withheld"]), one["state"], _money(one["accepted"]))
            for one in found["disputes"]
        ),
        covered=(
            _money(found["covered"]["offset"]),
            _money(found["covered"]["deposit"]),
            _money(found["covered"]["writtenOff"]),
            _money(found["covered"]["recovered"]),
        ),
        state=found["state"],
        is_final=found["isFinal"],
        outstanding=found["outstanding"] and (found["outstanding"]["points"], Fraction(found["outstanding"]["value"])),
    )


def _money(given: dict[str, str]) -> Fraction:
    return Fraction(given["amount"])
