"""Four eyes for the command line: proposing an adjustment, and what is proposed and disputed."""

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from rich.console import Console
from rich.table import Table

from api.runtime import Runtime
from domain.commands import Amount
from domain.errors import ConfigurationError
from domain.positions import LineKind
from domain.proposals import Proposal, ProposalReason, ProposalState
from domain.proposing import proposals_page
from domain.terms import Configuration
from domain.values import OPERATOR_ID, decimal_from_micro, decimal_from_minor
from settlement.adjustments import AdjustmentAsk, propose_adjustment
from settlement.disputed import DisputeConditions, DisputeState, disputes_page

CLIENT = "command-line"
"""Who proposes from here. Approving takes a client with a token, so that it is somebody else."""

PAGE_SIZE = 1000
LATEST = 2**63 - 1


async def describe_proposals(runtime: Runtime, state: str | None) -> list[dict[str, Any]]:
    """Every proposal in that state, latest first."""
    configuration = await runtime.programme_configuration()
    wanted = None if state is None else ProposalState(state)
    rows: list[dict[str, Any]] = []
    before = LATEST
    async with runtime.database.reading(OPERATOR_ID) as connection:
        while page := await proposals_page(connection, before, PAGE_SIZE, state=wanted):
            before = page[-1].id
            rows += [proposal_row(configuration, one) for one in page]
    return rows


def proposal_row(configuration: Configuration, one: Proposal) -> dict[str, Any]:
    """A proposal for programs."""
    content = one.content
    of_period = content.of_period_id
    return {
        "proposal": one.id,
        "kind": content.kind,
        "partner": configuration.partners[content.partner_id].code,
        "amount": None if content.amount_micro is None else str(decimal_from_micro(content.amount_micro)),
        "currency": configuration.programme.currency,
        "points": content.points,
        "period": None if of_period is None else configuration.programme.calendar.label(of_period),
        "line": content.of_line_kind,
        "dispute": content.dispute_id,
        "until": None if content.until is None else content.until.isoformat(),
        "reason": content.reason_code,
        "note": content.note,
        "state": one.state,
        "proposedBy": one.proposed_by,
        "proposedAt": one.proposed_at.isoformat(),
        "decidedBy": one.decided_by,
        "decidedAt": None if one.decided_at is None else one.decided_at.isoformat(),
        "decisionNote": one.decision_note,
    }


async def describe_disputes(runtime: Runtime, state: str | None) -> list[dict[str, Any]]:
    """Every dispute in that state, latest first."""
    configuration = await runtime.programme_configuration()
    programme = configuration.programme
    conditions = DisputeConditions(state=None if state is None else DisputeState(state))
    rows: list[dict[str, Any]] = []
    before = LATEST
    async with runtime.database.reading(OPERATOR_ID) as connection:
        while page := await disputes_page(connection, before, PAGE_SIZE, conditions):
            before = page[-1].id
            rows += [
                {
                    "dispute": one.id,
                    "partner": configuration.partners[one.partner_id].code,
                    "period": programme.calendar.label(one.period_id),
                    "line": one.line_kind,
                    "amount": str(decimal_from_minor(one.amount_minor, programme.currency_digits)),
                    "withheld": str(
                        decimal_from_minor(
                            one.withheld_minor if one.state == DisputeState.OPEN else 0, programme.currency_digits
                        )
                    ),
                    "accepted": str(decimal_from_minor(one.accepted_minor, programme.currency_digits)),
                    "currency": programme.currency,
                    "state": one.state,
                    "reason": one.reason_code,
                    "note": one.note,
                    "openedAt": one.opened_at.isoformat(),
                    "decidedAt": None if one.decided_at is None else one.decided_at.isoformat(),
                    "decisionNote": one.decision_note,
                }
                for one in page
            ]
    return rows


async def propose_and_describe(
    runtime: Runtime,
    partner_code: str,
    *,
    amount: str,
    note: str,
    key: str,
    reason: str,
    corrects: str | None,
) -> dict[str, Any]:
    """Proposes an adjustment of money as the operator; ``corrects`` is a closed line as LABEL:LINE. Raises Refused."""
    configuration = await runtime.programme_configuration()
    partner = configuration.partners_by_code.get(partner_code)
    if partner is None:
        raise ConfigurationError(f'no partner has the code "{partner_code}"')
    label, _, line = (corrects or "").partition(":")
    dispute = int(line) if label == "dispute" and line.isdecimal() else None
    if dispute is not None:
        label = line = ""
    try:
        money = Amount(Decimal(amount), configuration.programme.currency)
        kind = LineKind(line) if line else None
    except InvalidOperation as error:
        raise ConfigurationError(f'the amount "{amount}" must be a number, such as -12.50') from error
    except ValueError as error:
        raise ConfigurationError(f'no statement has a line "{line}": give a kind such as ISSUE') from error
    ask = AdjustmentAsk(partner.id, money, ProposalReason(reason), note, label or None, kind, dispute)
    step = await propose_adjustment(runtime.database, runtime.clock, CLIENT, key, ask)
    return {**proposal_row(configuration, step.proposal), "replayed": step.replayed}


def print_rows(rows: Iterable[Mapping[str, Any]], names: Iterable[str]) -> None:
    """Some columns of a list, for a person."""
    columns = list(names)
    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in columns))
    Console().print(table)
