"""Budgets for the command line: every window with what is left of it, its alert and its blocks; money paid in."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.table import Table

from api.runtime import Runtime
from domain.budget_reading import ListedWindow, blocks_of, windows_page
from domain.commands import Amount, BudgetView
from domain.floats import FloatBlock
from domain.terms import Configuration
from domain.values import OPERATOR_CODE, OPERATOR_ID, decimal_from_micro
from settlement.top_ups import TopUp, top_up_budget

PAGE_WINDOWS = 1_000


async def describe_budgets(runtime: Runtime, partner_code: str | None) -> list[dict[str, Any]]:
    """Every window that was used or paid into, in that order; of one partner, or of all (None).

    Raises ConfigurationError without a programme.
    """
    configuration = await runtime.programme_configuration()
    listed: list[ListedWindow] = []
    blocks: dict[int, list[FloatBlock]] = {}
    async with runtime.database.reading(OPERATOR_ID, "REPEATABLE READ") as connection:
        after = 0
        while page := await windows_page(connection, after, PAGE_WINDOWS, runtime.clock()):
            ids = [one.view.budget_id or 0 for one in page]
            blocks |= await blocks_of(connection, ids)
            listed += page
            after = ids[-1]
    described = [_described(configuration, one, blocks.get(one.view.budget_id or 0, [])) for one in listed]
    return [one for one in described if partner_code in (None, one["partner"])]


def _described(configuration: Configuration, one: ListedWindow, blocks: list[FloatBlock]) -> dict[str, Any]:
    owner_id = one.view.partner_id
    return {
        "partner": OPERATOR_CODE if owner_id == OPERATOR_ID else configuration.partners[owner_id].code,
        "campaign": one.campaign_code,
        "window": one.window,
        **_amounts(one.view),
        "blocks": [_block(block) for block in blocks],
    }


def _amounts(view: BudgetView) -> dict[str, Any]:
    amounts = {
        "limit": view.limit_micro,
        "overdraft": view.overdraft_micro,
        "consumed": view.consumed_micro,
        "reserved": view.reserved_micro,
        "available": view.available_micro,
    }
    return {
        "funding": view.funding,
        **{name: str(decimal_from_micro(micro)) for name, micro in amounts.items()},
        "alertedAt": None if view.alerted_at is None else view.alerted_at.isoformat(),
    }


def _block(block: FloatBlock) -> dict[str, Any]:
    amounts = {"amount": block.amount_micro, "used": block.used_micro, "left": block.amount_micro - block.used_micro}
    return {
        **{name: str(decimal_from_micro(micro)) for name, micro in amounts.items()},
        "toppedUpAt": block.occurred_at.isoformat(),
        "bankReference": block.bank_reference,
        "note": block.note,
    }


def budgets_table(described: list[dict[str, Any]]) -> Table:
    """The same for a person."""
    table = Table("partner", "window", "funding", "limit", "consumed", "reserved", "available", "alert", "blocks left")
    for one in described:
        whose = one["partner"] if one["campaign"] is None else f"campaign {one['campaign']}"
        amounts = [one[name] for name in ("limit", "consumed", "reserved", "available")]
        left = ", ".join(block["left"] for block in one["blocks"])
        table.add_row(
            whose, one["window"] or "single", one["funding"], *amounts, "" if one["alertedAt"] is None else "yes", left
        )
    return table


async def pay_in(
    runtime: Runtime,
    partner_code: str,
    amount: Decimal,
    *,
    key: str,
    occurred_at: datetime,
    bank_reference: str | None,
    note: str | None,
) -> dict[str, Any]:
    """Adds a payment to a partner's float. Raises Refused as ``top_up_budget`` does."""
    configuration = await runtime.programme_configuration()
    partner = configuration.partners_by_code.get(partner_code)
    made = await top_up_budget(
        runtime.database,
        runtime.clock,
        TopUp(
            key,
            None if partner is None else partner.id,
            Amount(amount, configuration.programme.currency),
            occurred_at,
            bank_reference,
            note,
        ),
    )
    return {
        "partner": partner_code,
        "block": _block(made.block),
        "budget": _amounts(made.budget),
        "replayed": made.replayed,
    }
