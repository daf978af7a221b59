"""Campaigns for the command line: what each gives, who pays, and what is left of its own budget."""

from datetime import timedelta
from typing import Any

from rich.table import Table

from api.runtime import Runtime
from domain.campaign_reading import campaign_budgets
from domain.errors import ConfigurationError
from domain.terms import Campaign, load_configuration
from domain.values import OPERATOR_CODE, OPERATOR_ID, decimal_from_micro


async def describe_campaigns(runtime: Runtime) -> list[dict[str, Any]]:
    """Every campaign in the order of set-up, with codes in the place of ids.

    Raises ConfigurationError without a programme.
    """
    async with runtime.database.reading(OPERATOR_ID) as connection:
        configuration = await load_configuration(connection)
        if configuration is None:
            raise ConfigurationError("there is no programme yet: run `coalition apply FILE.toml`")
        budgets = await campaign_budgets(connection, [campaign.id for campaign in configuration.campaigns])
    codes = {partner.id: partner.code for partner in configuration.partners.values()} | {OPERATOR_ID: OPERATOR_CODE}
    described = []
    for campaign in configuration.campaigns:
        view = budgets.get(campaign.id)
        budget = None
        if view is not None:
            names = {"limit": view.limit_micro, "reserved": view.reserved_micro, "consumed": view.consumed_micro}
            amounts = names | {"available": view.available_micro}
            budget = {name: str(decimal_from_micro(amount_micro)) for name, amount_micro in amounts.items()}
        described.append({**_conditions(campaign, codes), "budget": budget})
    return described


def _conditions(campaign: Campaign, codes: dict[int, str]) -> dict[str, Any]:
    return {
        "code": campaign.code,
        "name": campaign.name,
        "from": campaign.starts.isoformat(),
        "to": (campaign.ends - timedelta(days=1)).isoformat(),
        "partners": None if campaign.partner_ids is None else [codes[one] for one in campaign.partner_ids],
        "gives": gives(campaign),
        "max_points": campaign.max_points,
        "funding": {codes[funder_id]: str(decimal_from_micro(share)) for funder_id, share in campaign.funding},
    }


def gives(campaign: Campaign) -> str:
    """What a purchase gets, in words."""
    if campaign.multiplier_micro is not None:
        return f"{decimal_from_micro(campaign.multiplier_micro).normalize():f} x base points"
    if campaign.bonus_points is not None:
        least = decimal_from_micro(campaign.min_amount_micro).normalize()
        return f"{campaign.bonus_points} points" + (f" from {least:f}" if least else "")
    assert campaign.rate_micro is not None
    counted = [*campaign.include_categories, *campaign.include_products]
    return f"{decimal_from_micro(campaign.rate_micro).normalize():f} per unit of {', '.join(counted) or 'everything'}"


def campaigns_table(described: list[dict[str, Any]]) -> Table:
    """The same for a person."""
    table = Table("code", "days", "at", "gives", "paid by", "budget left")
    for one in described:
        funding = ", ".join(f"{code} {share.rstrip('0').rstrip('.')}" for code, share in one["funding"].items())
        left = "" if one["budget"] is None else f"{one['budget']['available']} of {one['budget']['limit']}"
        where = "all" if one["partners"] is None else ", ".join(one["partners"])
        table.add_row(one["code"], f"{one['from']} to {one['to']}", where, one["gives"], funding, left)
    return table
