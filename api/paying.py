"""Payments for the command line: recording one, and the list of what is to be paid."""

from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from rich.console import Console
from rich.table import Table

from api.runtime import Runtime
from domain.commands import Amount
from domain.errors import ConfigurationError
from domain.values import OPERATOR_ID, decimal_from_minor
from settlement.clearing import statement_state
from settlement.payments import NewPayment, record_payment, unpaid_statements
from settlement.reading import period_by_id, statements_of_periods

CLIENT = "command-line"
PAGE_SIZE = 1000


async def record_and_describe(
    runtime: Runtime,
    partner_code: str,
    label: str,
    *,
    amount: str,
    value_date: date,
    bank_reference: str,
    key: str | None,
) -> dict[str, Any]:
    """Records a payment as the operator. Without a key, the same facts are the same payment. Raises Refused."""
    configuration = await runtime.programme_configuration()
    partner = configuration.partners_by_code.get(partner_code)
    if partner is None:
        raise ConfigurationError(f'no partner has the code "{partner_code}"')
    try:
        value = Decimal(amount)
    except InvalidOperation as error:
        raise ConfigurationError(f'the amount "{amount}" must be a number, such as -1078.00') from error
    facts = (partner_code, label, amount, value_date.isoformat(), bank_reference)
    recorded = await record_payment(
        runtime.database,
        runtime.clock,
        NewPayment(
            key or f"{CLIENT}:payment:{':'.join(facts)}",
            partner.id,
            label,
            Amount(value, configuration.programme.currency),
            value_date,
            bank_reference,
            CLIENT,
        ),
    )
    paid = recorded.payment
    statements = await statements_of_periods(runtime.database, OPERATOR_ID, [paid.period_id])
    (statement,) = [one for one in statements[paid.period_id] if one.partner_id == paid.partner_id]
    digits = configuration.programme.currency_digits
    return {
        "partner": partner_code,
        "period": label,
        "amount": str(decimal_from_minor(paid.amount_minor, digits)),
        "currency": configuration.programme.currency,
        "due": str(decimal_from_minor(statement.to_pay_minor, digits)),
        "paid": str(decimal_from_minor(statement.paid_minor, digits)),
        "open": str(decimal_from_minor(statement.open_minor, digits)),
        "bookedIn": configuration.programme.calendar.label(paid.booked_in),
        "replayed": recorded.replayed,
    }


async def describe_payment_list(runtime: Runtime) -> list[dict[str, Any]]:
    """The payment list: a row per statement of which something is open, earliest period first."""
    configuration = await runtime.programme_configuration()
    programme, now = configuration.programme, runtime.clock()
    rows: list[dict[str, Any]] = []
    after = (0, 0)
    while keys := await unpaid_statements(runtime.database, OPERATOR_ID, PAGE_SIZE, after):
        after = keys[-1]
        statements = await statements_of_periods(runtime.database, OPERATOR_ID, sorted({key[0] for key in keys}))
        by_key = {(one.period_id, one.partner_id): one for found in statements.values() for one in found}
        periods = {period_id: await period_by_id(runtime.database, OPERATOR_ID, period_id) for period_id in statements}
        for key in keys:
            one, period = by_key[key], periods[key[0]]
            assert period is not None
            state = statement_state(
                period.dates, now, is_draft=False, due_minor=one.to_pay_minor, open_minor=one.open_minor
            )
            rows.append(
                {
                    "partner": configuration.partners[one.partner_id].code,
                    "period": period.label,
                    "state": state.value,
                    "dueAt": period.dates.due_at.isoformat(),
                    "pays": "operator" if one.open_minor > 0 else "partner",
                    "due": str(decimal_from_minor(one.to_pay_minor, programme.currency_digits)),
                    "paid": str(decimal_from_minor(one.paid_minor, programme.currency_digits)),
                    "covered": str(decimal_from_minor(one.covered_minor, programme.currency_digits)),
                    "open": str(decimal_from_minor(one.open_minor, programme.currency_digits)),
                    "currency": programme.currency,
                }
            )
    return rows


def print_payment_list(rows: list[dict[str, Any]]) -> None:
    """The payment list for a person."""
    names = ("partner", "period", "state", "dueAt", "pays", "due", "paid", "open")
    table = Table(*names)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    Console().print(table)
