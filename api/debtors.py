"""Members who owe points, for the command line."""

from typing import Any, NamedTuple

from api.graphql.debtors import NO_KEY
from api.graphql.ids import IdCodec, load_installation_secret
from api.runtime import Runtime
from domain.debtors import OpenDebt, debts_page
from domain.terms import Configuration
from domain.values import OPERATOR_CODE, OPERATOR_ID, decimal_from_micro

PAGE_DEBTS = 500


class DebtList(NamedTuple):
    """Debts as ``debtors`` shows them; ``is_cut``: there are more than were asked for."""

    rows: list[dict[str, Any]]
    is_cut: bool


async def list_debtors(runtime: Runtime, first: int) -> DebtList:
    """The ``first`` open debts, oldest first. Raises ConfigurationError before the first ``coalition apply``."""
    configuration = await runtime.programme_configuration()
    ids = IdCodec(await load_installation_secret(runtime.database))
    found: list[OpenDebt] = []
    after = NO_KEY
    while len(found) <= first:
        async with runtime.database.reading(OPERATOR_ID) as connection:
            page = await debts_page(connection, after, PAGE_DEBTS)
        if not page:
            break
        found += page
        after = page[-1].key
    return DebtList([_described(debt, ids, configuration) for debt in found[:first]], len(found) > first)


def _described(debt: OpenDebt, ids: IdCodec, configuration: Configuration) -> dict[str, Any]:
    by_operator = debt.funder_id == OPERATOR_ID
    return {
        "member": {"id": ids.encode(OPERATOR_ID, "Member", debt.member_id)},
        "since": debt.key.occurred_at.isoformat(),
        "points": debt.open_points,
        "originalPoints": debt.points,
        "issuer": {"code": configuration.partners[debt.issuer_id].code},
        "funder": {"code": OPERATOR_CODE if by_operator else configuration.partners[debt.funder_id].code},
        "value": {"amount": str(decimal_from_micro(debt.value_micro)), "currency": configuration.programme.currency},
    }
