"""What the product says of its closed periods, as the operator reads it: one GraphQL document per period."""

from fractions import Fraction
from typing import Any

from tests.api.graphql_shop import Caller
from tests.generator.statements import StatementOf, TotalsOf

PERIOD = """
query ($label: String!) { settlementPeriod(label: $label) {
  state poolChange { amount } margin { amount } tax { amount } depositChange { amount } operatorNet { amount }
  statements {
    partner { code } net { amount } carriedForward { amount } withheld { amount } due { amount } paid { amount }
    open { amount }
    lines { kind exact priorPeriodExact points billed { amount } priorPeriods { period exact } }
    taxes { kind rate taxable { amount } tax { amount } }
    adjustments { amount { amount } statementLabel }
    disputes { lineKind amount { amount } withheld { amount } state accepted { amount } } } } }
"""
FLOAT = "query ($code: String!) { partner(code: $code) { budget { funding limit { amount } consumed { amount } } } }"


async def published_period(operator: Caller, label: str) -> tuple[TotalsOf, dict[str, StatementOf]]:
    """A closed period's totals, and its statements by partner."""
    found = (await operator.run(PERIOD, {"label": label}))["settlementPeriod"]
    assert found["state"] == "CLOSED", label
    totals = TotalsOf(
        *(_money(found[name]) for name in ("poolChange", "margin", "tax", "depositChange", "operatorNet"))
    )
    return totals, {one["partner"]["code"]: _statement(one) for one in found["statements"]}


async def published_float(operator: Caller, code: str) -> tuple[Fraction, Fraction]:
    """What a partner's float holds in all, and what was drawn of it."""
    budget = (await operator.run(FLOAT, {"code": code}))["partner"]["budget"]
    assert budget["funding"] == "PREPAID"
    return _money(budget["limit"]), _money(budget["consumed"])


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
    )


def _money(given: dict[str, str]) -> Fraction:
    return Fraction(given["amount"])
