"""Deposits for the command line: recording one, the list of them, and what is proposed about them."""

from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from api.proposing import CLIENT, proposal_row
from api.runtime import Runtime
from domain.commands import Amount
from domain.errors import ConfigurationError
from domain.proposals import ProposalReason
from domain.terms import Configuration, Partner
from domain.values import OPERATOR_ID
from partners.toml_section import plain
from settlement.defaults import DefaultAsk, propose_default
from settlement.deposit_reading import DepositAccount, deposits_page
from settlement.deposits import NewDeposit, PayoutAsk, propose_payout, record_deposit

PAGE_SIZE = 1000


async def record_and_describe(
    runtime: Runtime, partner_code: str, *, amount: str, value_date: date, bank_reference: str, key: str | None
) -> dict[str, Any]:
    """Records money paid in as the operator. Without a key, the same facts are the same payment. Raises Refused."""
    configuration = await runtime.programme_configuration()
    partner = partner_named(configuration, partner_code)
    facts = (partner_code, amount, value_date.isoformat(), bank_reference)
    recorded = await record_deposit(
        runtime.database,
        runtime.clock,
        NewDeposit(
            key or f"{CLIENT}:deposit:{':'.join(facts)}",
            partner.id,
            money(configuration, amount),
            value_date,
            bank_reference,
            CLIENT,
        ),
    )
    return {
        "amount": plain(recorded.payment.amount_micro, configuration.programme.currency_digits),
        **_described(configuration, recorded.account),
        "replayed": recorded.replayed,
    }


async def describe_deposits(runtime: Runtime) -> list[dict[str, Any]]:
    """Every deposit that is required or was paid into, by partner."""
    configuration = await runtime.programme_configuration()
    rows: list[dict[str, Any]] = []
    after = 0
    async with runtime.database.reading(OPERATOR_ID) as connection:
        while page := await deposits_page(connection, after, PAGE_SIZE):
            after = page[-1].partner_id
            rows += [_described(configuration, one) for one in page]
    return rows


def _described(configuration: Configuration, one: DepositAccount) -> dict[str, Any]:
    amounts = {
        "required": one.required_micro,
        "balance": one.held_micro,
        "shortfall": one.shortfall_micro,
        "owes": one.owes_micro,
        "free": one.free_micro,
    }
    return {
        "partner": configuration.partners[one.partner_id].code,
        "state": configuration.partners[one.partner_id].state,
        "defaultedAt": None if one.defaulted_at is None else one.defaulted_at.isoformat(),
        **{name: plain(micro, configuration.programme.currency_digits) for name, micro in amounts.items()},
        "currency": configuration.programme.currency,
    }


async def propose_payout_and_describe(
    runtime: Runtime, partner_code: str, *, amount: str, note: str, key: str, reason: str
) -> dict[str, Any]:
    """Proposes to pay a part of a deposit out as the operator. Raises Refused."""
    configuration = await runtime.programme_configuration()
    partner = partner_named(configuration, partner_code)
    ask = PayoutAsk(partner.id, money(configuration, amount), ProposalReason(reason), note)
    step = await propose_payout(runtime.database, runtime.clock, CLIENT, key, ask)
    return {**proposal_row(configuration, step.proposal), "replayed": step.replayed}


async def propose_default_and_describe(
    runtime: Runtime, partner_code: str, label: str | None, *, note: str, key: str, reason: str
) -> dict[str, Any]:
    """Proposes to declare a statement, or every due one, in default as the operator. Raises Refused."""
    configuration = await runtime.programme_configuration()
    partner = partner_named(configuration, partner_code)
    ask = DefaultAsk(partner.id, label, ProposalReason(reason), note)
    step = await propose_default(runtime.database, runtime.clock, CLIENT, key, ask)
    return {**proposal_row(configuration, step.proposal), "replayed": step.replayed}


def partner_named(configuration: Configuration, code: str) -> Partner:
    """The partner with that code. Raises ConfigurationError."""
    partner = configuration.partners_by_code.get(code)
    if partner is None:
        raise ConfigurationError(f'no partner has the code "{code}"')
    return partner


def money(configuration: Configuration, amount: str) -> Amount:
    """An amount of the programme's currency. Raises ConfigurationError."""
    try:
        return Amount(Decimal(amount), configuration.programme.currency)
    except InvalidOperation as error:
        raise ConfigurationError(f'the amount "{amount}" must be a number, such as 500.00') from error
