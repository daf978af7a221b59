"""What a history had in it: kinds of things that happened, and borders at which settlements go wrong."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

from tests.generator.contracts import Contracts
from tests.generator.second import OPERATOR, Row, SecondSettlement
from tests.generator.statements import SecondStatements, StatementOf

HALF = Fraction(1, 2)
INSTANT = timedelta(microseconds=1)


def _named(what: str, names: str) -> set[str]:
    return {f"{what}: {name}" for name in names.split()}


KINDS_AND_BORDERS = frozenset(
    _named(
        "done",
        "Acceptance Adjust Adjustment Authorize Burn Capture ConfirmPayment CreatePool Default DefaultOfAll Deposit"
        " Dispute DisputeOfTransactions Earn Enroll JoinPool LeavePool Leaving Merge Overdraft Parked Payment Payout"
        " RejectedProposal Rejection Resumption Reverse Suspension Sweep TopUp Transfer Unmerge Void WindingDown"
        " Withdrawal WriteOff",
    )
    | _named(
        "row",
        "ADJUST BURN BURN_REVERSAL CANCEL CAPTURE CONFIRM EARN EARN_PENDING EARN_REVERSAL EXPIRE HOLD OVERDRAW RELEASE"
        " REPAY TRANSFER_IN TRANSFER_OUT",
    )
    | _named(
        "line",
        "ADJUSTMENT BREAKAGE_SHARE BURN_REVERSAL CARRIED_FORWARD EARN_REVERSAL FIXED_FEE ISSUE PREPAID REIMBURSEMENT"
        " SERVICE_FEE SERVICE_FEE_REFUND TAX",
    )
    | _named("statement", "ISSUED FINAL DUE SETTLED")
    | _named("period", "month half_month week")
    | _named("timezone", "Europe/Berlin Asia/Tokyo Asia/Amman America/New_York")
    | _named("expiry", "months rolling year_end")
    | _named("claw_back", "negative_balance all_lots own_lot_then_issuer")
    | _named("on_limit", "DECLINE PARTIAL BASE_ONLY OPERATOR_FUNDED OVERDRAFT")
    | _named("suspended_burns", "REFUSE CAPTURE ALLOW")
    | _named("dispute", "OPEN ACCEPTED REJECTED WITHDRAWN")
    | {
        "border: booked at the first instant of a period",
        "border: booked at the last instant of a period",
        "border: only summer time tells the period",
        "budget: ends at exactly 0",
        "campaign: a share with a remainder",
        "carried forward: over two periods",
        "claw_back: negative_balance with a limit",
        "covered: another statement",
        "covered: by bad debt",
        "covered: by deposit, then bad debt",
        "covered: by offset",
        "covered: by recovered",
        "debt: repaid out of a lot of another price",
        "debt: to the operator",
        "debt: written off",
        "dispute: accepted in part",
        "dispute: of transactions",
        "expiry: after days of grace",
        "final: below the minimum",
        "final: one",
        "final: another one",
        "float: ends at exactly 0",
        "float: one award draws on two payments",
        "float: what it opened with is drawn",
        "hold: captured in part",
        "hold: timed out",
        "hold: voided",
        "issuer has left: CONFIRM",
        "issuer has settled: EXPIRE",
        "line: at exactly one half, to the even below",
        "line: corrects two earlier periods",
        "minimum: missed by one unit",
        "minimum: reached exactly",
        "reversal: sent before its original",
        "suspended, CAPTURE: CAPTURE",
        "suspended, ALLOW: BURN",
        "tax: at exactly one half, to the even below",
    }
)
WINTER = date(2017, 1, 2)


def seen_in(made: SecondStatements, accepted: Mapping[str, int]) -> Counter[str]:
    """How often each kind and each border came; ``accepted``: what the till and the desk did, counted."""
    contracts = made.contracts
    seen = Counter({f"done: {what}": times for what, times in accepted.items()})
    seen.update(_conditions(contracts))
    for row in made.second.rows:
        seen[f"row: {row['kind']}"] += 1
        seen.update(_of_row(made.second, row))
    for (label, code), statement in made.statements.items():
        seen.update(f"line: {kind}" for kind in statement.lines)
        seen.update(_of_statement(made, label, code, statement))
    seen.update(_of_disputes(made))
    for one in made.second.floats.values():
        seen["float: what it opened with is drawn"] += any(block.at is None and block.used for block in one.blocks)
        seen["float: ends at exactly 0"] += one.was_empty
        seen["float: one award draws on two payments"] += one.was_split
    return Counter({what: times for what, times in seen.items() if times})


def _conditions(contracts: Contracts) -> Iterator[str]:
    programme = contracts.programme
    for key in ("period", "expiry", "claw_back", "timezone"):
        yield f"{key}: {programme[key]}"
    if "negative_limit_points" in programme:
        yield "claw_back: negative_balance with a limit"
    for partner in contracts.partners.values():
        yield f"on_limit: {partner['budget'][0]['on_limit']}"
    for (_, before), (_, after) in zip(contracts.files, contracts.files[1:], strict=False):
        for one, other in zip(before["partner"], after["partner"], strict=True):
            if one.get("state") != other.get("state") == "SUSPENDED":
                yield f"suspended_burns: {other['suspended_burns']}"


# ---------------------------------------------------------------- rows


def _of_row(second: SecondSettlement, row: Row) -> Iterator[str]:
    contracts, kind = second.contracts, row["kind"]
    booked_at, occurred_at = (datetime.fromisoformat(row[name]) for name in ("recorded_at", "occurred_at"))
    label = contracts.label_of(contracts.day_of(booked_at))
    if label != contracts.label_of(contracts.day_of(booked_at - INSTANT)):
        yield "border: booked at the first instant of a period"
    if label != contracts.label_of(contracts.day_of(booked_at + INSTANT)):
        yield "border: booked at the last instant of a period"
    winter = contracts.midnight(WINTER).astimezone(contracts.zone).utcoffset()
    assert winter is not None
    if label != contracts.label_of((booked_at.replace(tzinfo=None) + winter).date()):
        yield "border: only summer time tells the period"
    burns = contracts.suspended(row["partner"], booked_at) if row["partner"] != OPERATOR else None
    if burns is not None:
        yield f"suspended, {burns}: {kind}"
    if kind == "RELEASE":
        is_part = any(one["kind"] == "CAPTURE" for one in second.rows if one["command"] == row["command"])
        is_late = row["idempotency_key"].startswith("system:timeout")
        yield f"hold: {'timed out' if is_late else 'captured in part' if is_part else 'voided'}"
    if kind == "EXPIRE" and contracts.midnight(contracts.day_of(occurred_at)) != occurred_at:
        yield "expiry: after days of grace"
    if kind == "REPAY":
        debt = second.by_id[row["reverses"]]
        price = Fraction(row["issue_value"]) / int(row["points"])
        if price != Fraction(row["pool_value"]) / -int(row["points"]):
            yield "debt: repaid out of a lot of another price"
        if debt["funder"] == OPERATOR:
            yield "debt: to the operator"
        moment = ("ADJUST", row["account"], row["recorded_at"])
        if any((one["kind"], one["account"], one["recorded_at"]) == moment for one in second.rows):
            yield "debt: written off"
    if kind in ("EARN_REVERSAL", "BURN_REVERSAL") and row["recorded_at"] == _original(second, row)["recorded_at"]:
        yield "reversal: sent before its original"
    yield from _of_leavers(contracts, row, booked_at)


def _of_leavers(contracts: Contracts, row: Row, booked_at: datetime) -> Iterator[str]:
    funder = row["partner"] if row["kind"] == "EXPIRE" else row["funder"]
    if (
        funder in contracts.partners
        and row["points"] != "0"
        and contracts.day_of(booked_at) > contracts.last_day(funder)
    ):
        when = "settled" if contracts.has_left(funder, row["period"]) else "left"
        yield f"issuer has {when}: {row['kind']}"


def _original(second: SecondSettlement, row: Row) -> Row:
    original = second.by_id[row["reverses"]]
    return original if original["kind"] != "CONFIRM" else row | {"recorded_at": ""}


# ---------------------------------------------------------------- statements


def _of_statement(made: SecondStatements, label: str, code: str, statement: StatementOf) -> Iterator[str]:
    yield f"statement: {statement.state}"
    minimum = Fraction(made.contracts.programme["minimum_settlement"])
    brought = made.brought[label, code]
    whole = abs(statement.net + brought)
    if minimum and not statement.is_final:
        for much, what in ((minimum, "reached exactly"), (minimum - made.minor, "missed by one unit")):
            if whole == much:
                yield f"minimum: {what}"
    if statement.is_final:
        yield "final: one" if made.contracts.final_label(code) == label else "final: another one"
        if 0 < whole < minimum:
            yield "final: below the minimum"
    if brought and (label, code) in made.left_all:
        yield "carried forward: over two periods"
    for rate, taxable, _ in statement.taxes.values():
        if _is_even_half(taxable * rate / made.minor):
            yield "tax: at exactly one half, to the even below"
    for exact, _, _, _, prior in statement.lines.values():
        if _is_even_half(exact / made.minor):
            yield "line: at exactly one half, to the even below"
        if len(prior) > 1:
            yield "line: corrects two earlier periods"
    yield from _of_cover(statement)


def _of_cover(statement: StatementOf) -> Iterator[str]:
    offset, deposit, let_off, recovered = statement.covered
    parts = {"offset": offset > 0, "deposit": deposit > 0, "bad debt": let_off > 0, "recovered": recovered > 0}
    yield from (f"covered: by {what}" for what, is_part in parts.items() if is_part)
    if offset < 0:
        yield "covered: another statement"
    if offset > 0 and deposit > 0:
        yield "covered: by offset, then deposit"
    if deposit > 0 and let_off > 0:
        yield "covered: by deposit, then bad debt"


def _is_even_half(amount: Fraction) -> bool:
    """Whether half up would have been another whole number, whatever the sign."""
    return abs(amount) % 1 == HALF and int(abs(amount)) % 2 == 0


def _of_disputes(made: SecondStatements) -> Iterator[str]:
    for one in made.book.disputes:
        yield f"dispute: {one.state}"
        if one.state == "ACCEPTED" and one.accepted is not None:
            yield "dispute: accepted in part"
        if one.commands is not None:
            yield "dispute: of transactions"


def shares_with_a_remainder(coalition: Mapping[str, Any], totals: list[tuple[str, int]]) -> int:
    """How many bonuses (campaign's code, points in all) no campaign's shares divide evenly."""
    shares = {one["code"]: [Fraction(payer["share"]) for payer in one["funding"]] for one in coalition["campaign"]}
    return sum(any((points * share).denominator > 1 for share in shares[code]) for code, points in totals)
