"""Default of a partner: offset, deposit, bad debt, exactly and once; and what comes in of it later."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.periods import Clock
from domain.positions import LineKind
from domain.proposals import ProposalReason, ProposalState, Step
from settlement.closing import close_period
from settlement.defaults import waterfall
from settlement.disputed import DisputeReason
from settlement.disputes import DisputeAsk, open_dispute, withdraw_dispute
from settlement.payments import unpaid_statements
from settlement.reading import period_figures
from settlement.verifying import verify
from tests.domain.books import contents
from tests.settlement.four_eyes import APPROVER, THIRD, approve, euros, rows, standing, write_off
from tests.settlement.rows import Prices, noon
from tests.settlement.secured import (
    APRIL,
    MAY,
    MILLION,
    account,
    check_16,
    covered,
    declare,
    default,
    pay_in,
    pay_out,
    payout,
    pays,
    refused,
    statement,
)
from tests.settlement.worked_example import Example
from tests.settlement.writer import Writer

At = Callable[[datetime], Clock]
Tamper = Callable[[str], Awaitable[None]]
IN_APRIL, IN_MAY, IN_JUNE = noon(2017, 4, 20), noon(2017, 5, 20), noon(2017, 6, 2)

BOOKS = """
    SELECT kind, book, party_id, period_id, sum(amount)::bigint FROM ledger_entry
     WHERE kind IN ('DEPOSIT_USED', 'BAD_DEBT') GROUP BY 1, 2, 3, 4 ORDER BY 1, 2
"""


def disputed(*, is_operator: bool) -> DisputeAsk:
    """400.00 of what B was charged for issuing."""
    line = LineKind.ISSUE
    return DisputeAsk(2, is_operator, "2017-03", line, None, euros("400.00"), DisputeReason.OTHER, "whose are they?")


# ---------------------------------------------------------------- the waterfall


async def test_a_default_is_covered_by_credits_then_the_deposit_and_the_rest_is_bad_debt(
    database: Database, at: At, two_months: Example
) -> None:
    await pays(database, IN_MAY, "-52.00", key="part")
    proposed = await default(database, IN_MAY)
    assert (proposed.replayed, proposed.proposal.content.amount_micro) == (False, 400 * MILLION)
    assert covered(await statement(database)) == {"paid": -5_200, "open": -40_000}, "nothing moves before its approval"
    documents = await rows(database, "SELECT document FROM statement ORDER BY period_id, partner_id")
    done = await declare(database, IN_MAY, proposed.proposal)
    assert (done.replayed, done.proposal.state) == (False, ProposalState.APPROVED)

    assert await rows(database, BOOKS) == [
        ("BAD_DEBT", "BAD_DEBT", 0, MAY, -100 * MILLION),
        ("BAD_DEBT", "PARTNER", 2, MAY, 100 * MILLION),
        ("DEPOSIT_USED", "DEPOSIT", 2, MAY, -200 * MILLION),
        ("DEPOSIT_USED", "PARTNER", 2, MAY, 200 * MILLION),
    ]
    assert covered(await statement(database)) == {
        "paid": -5_200, "offset": 10_000, "deposit": 20_000, "written_off": 10_000, "open": 0,
    }  # fmt: skip
    assert covered(await statement(database, period_id=APRIL)) == {"offset": -10_000, "open": 0}
    assert await unpaid_statements(database, 2, 10) == []
    held = await account(database, 2)
    assert (held.held_micro, held.owes_micro, held.defaulted_at) == (0, 0, IN_MAY)
    assert await rows(database, "SELECT document FROM statement ORDER BY period_id, partner_id") == documents

    before = await contents(database)
    again = await declare(database, IN_MAY, proposed.proposal)
    assert (again.replayed, again.proposal) == (True, done.proposal)
    assert (await refused(declare(database, IN_MAY, proposed.proposal, key="another"))).code == (
        RefusalCode.PROPOSAL_DECIDED
    )
    assert (await refused(default(database, IN_MAY, key="x-2"))).message == "the partner owes nothing of that statement"
    assert await contents(database) == before

    # Neither deposit nor bad debt stands on a statement or in the margin (c.5): the fixed fees alone.
    await close_period(database, at(IN_JUNE), "2017-05", "close-3")
    figures = (await period_figures(database, [MAY]))[MAY]
    assert (figures.operator_net_minor, figures.pool_change_micro, figures.margin_micro) == (10_000, 0, 100 * MILLION)
    assert (await statement(database, period_id=MAY)).due_minor == -3_000
    report = await verify(database, at(IN_JUNE))
    assert report.holds, [one for one in report.checks if not one.holds]
    assert await check_16(database) == (
        True, "9 statements instruct -1632.50 = nets -1632.50 - 0.00 carried on; 1 payments, bad debt of 100.00",
    )  # fmt: skip


async def test_the_operators_cash_is_its_books(database: Database, at: At, two_months: Example) -> None:
    """Cash = pool + margin + tax + deposits + what partners are owed - bad debt, whatever is paid or covered."""
    cash = """
        SELECT -sum(amount) FILTER (WHERE book = 'BANK'), sum(amount) FILTER (WHERE book = 'DEPOSIT'),
               sum(amount) FILTER (WHERE book = 'PARTNER'), -sum(amount) FILTER (WHERE book = 'BAD_DEBT'),
               sum(amount) FILTER (WHERE book = 'POOL'),
               sum(amount) FILTER (WHERE book NOT IN ('BANK', 'DEPOSIT', 'PARTNER', 'BAD_DEBT', 'POOL'))
          FROM ledger_entry WHERE unit = 'MONEY'
    """

    async def books() -> list[int]:
        [row] = await rows(database, cash)
        amounts = [int(one or 0) for one in row]
        assert amounts[0] == sum(amounts[1:3]) - amounts[3] + amounts[4] + amounts[5]
        return amounts

    pool, margin = 1_207_216_000, 355_284_000 + 100 * MILLION - 130 * MILLION
    # March: 1,562.50 is owed; April: fees of 50.00 and 20.00, and 100.00 the other way.
    assert await books() == [200 * MILLION, 200 * MILLION, -1_562_500_000 + 30 * MILLION, 0, pool, margin]
    await declare(database, IN_MAY, (await default(database, IN_MAY)).proposal)
    owed_micro = -1_562_500_000 + 30 * MILLION + 352 * MILLION
    assert await books() == [200 * MILLION, 0, owed_micro, 152 * MILLION, pool, margin]
    await pays(database, IN_MAY, "-160.00", key="late")
    assert await books() == [360 * MILLION, 0, owed_micro + 8 * MILLION, 0, pool, margin]


async def test_without_credits_and_deposit_all_of_it_is_bad_debt(
    database: Database, at: At, two_months: Example
) -> None:
    await declare(database, IN_MAY, (await default(database, IN_MAY, 1)).proposal)
    assert covered(await statement(database, 1)) == {"written_off": 107_800, "open": 0}
    assert await rows(database, "SELECT deposit_entry_id FROM partner_default") == [(None,)]
    assert (await account(database, 2)).held_micro == 200 * MILLION, "the deposit of another"
    assert (await verify(database, at(IN_JUNE))).holds


@pytest.mark.parametrize(
    ("now", "march", "april"),
    [
        ("2017-05-09T21:59:59Z", {"deposit": 20_000, "written_off": 25_200}, {"open": 10_000}),
        ("2017-05-09T22:00:00Z", {"offset": 10_000, "deposit": 20_000, "written_off": 15_200}, {"offset": -10_000}),
    ],
)
async def test_a_credit_that_may_still_be_disputed_covers_nothing(
    database: Database, at: At, two_months: Example, now: str, march: dict[str, int], april: dict[str, int]
) -> None:
    """April was closed at noon of 2 May: its window ends with the 9th, at midnight in Berlin."""
    moment = datetime.fromisoformat(now)
    await declare(database, moment, (await default(database, moment)).proposal)
    assert covered(await statement(database)) == {**march, "open": 0}
    assert covered(await statement(database, period_id=APRIL)) == {"open": 0, **april}
    assert (await verify(database, at(IN_JUNE))).holds


@pytest.mark.parametrize(
    ("currency", "digits", "deposit", "net", "used"),
    # 4,001 points at 0.011 are 44.011: 44.011 dinars, and 44 yen.
    [("BHD", 3, "12.345", -44_011, 12_345), ("JPY", 0, "12", -44, 12)],
)
async def test_a_default_is_exact_in_the_currency(
    database: Database, at: At, currency: str, digits: int, deposit: str, net: int, used: int
) -> None:
    written_off = -net - used
    writer = Writer(database)
    await writer.programme(currency, digits)
    await writer.partner("A", (date(2017, 3, 1), Prices()), budget="1000")
    await writer.earn("A", 4_001, noon(2017, 3, 5))
    await pay_in(database, 1, deposit, currency=currency)
    await close_period(database, at(noon(2017, 4, 2)), "2017-03", "close-1")
    assert (await statement(database, 1)).due_minor == net
    await declare(database, IN_APRIL, (await default(database, IN_APRIL, 1)).proposal)
    assert covered(await statement(database, 1)) == {"deposit": used, "written_off": written_off, "open": 0}
    per_minor = 10 ** (6 - digits)
    entries = "SELECT kind, amount_micro FROM partner_entry WHERE kind LIKE '%DE%' ORDER BY kind"
    assert await rows(database, entries) == [
        ("BAD_DEBT", written_off * per_minor), ("DEPOSIT", used * per_minor), ("DEPOSIT_USED", used * per_minor),
    ]  # fmt: skip
    await pays(database, IN_APRIL, f"{Decimal(net).scaleb(-digits)}", key="late", partner_id=1, currency=currency)
    assert covered(await statement(database, 1)) == {
        "paid": net, "deposit": used, "written_off": written_off, "recovered": written_off, "open": used,
    }  # fmt: skip
    assert (await verify(database, at(IN_MAY))).holds


AMOUNTS = st.integers(min_value=1, max_value=10**12)


@drawn(owed=AMOUNTS, credits_micro=st.lists(AMOUNTS, max_size=5), held=st.integers(min_value=0, max_value=10**12))
def test_a_waterfall_covers_all_of_it_and_takes_the_next_only_when_the_one_before_is_used_up(
    owed: int, credits_micro: list[int], held: int
) -> None:
    found = waterfall(owed, list(enumerate(credits_micro)), held)
    taken = [amount for _, amount in found.offsets]
    assert sum(taken) + found.deposit_micro + found.bad_debt_micro == owed
    assert [place for place, _ in found.offsets] == list(range(len(taken)))
    assert taken[:-1] == credits_micro[: max(len(taken) - 1, 0)], "all but the last one taken are used up"
    assert all(0 < one <= there for one, there in zip(taken, credits_micro, strict=False))
    if found.deposit_micro:
        assert taken == credits_micro
    if found.bad_debt_micro:
        assert (taken, found.deposit_micro) == (credits_micro, held)
    assert found.bad_debt_micro >= 0 <= found.deposit_micro <= held


# ---------------------------------------------------------------- when


async def test_only_what_is_due_and_unpaid_is_declared(database: Database, at: At, booked_march: Example) -> None:
    before = await contents(database)
    assert (await refused(default(database, IN_APRIL))).code == RefusalCode.STATEMENT_NOT_FOUND
    assert await contents(database) == before
    await close_period(database, at(noon(2017, 4, 2)), "2017-03", "close-1")
    before = await contents(database)
    for now, state in ((noon(2017, 4, 5), "ISSUED"), (datetime.fromisoformat("2017-04-14T21:59:59Z"), "FINAL")):
        found = await refused(default(database, now))
        assert (found.code, found.field, found.message) == (
            RefusalCode.STATEMENT_NOT_DUE,
            "label",
            f"the statement is {state}: the 452.00 open of it is due at 2017-04-15T00:00:00+02:00",
        )
    for changed, code, field in (
        ({"partner_id": 99}, RefusalCode.INPUT_INVALID, "partnerId"),
        ({"partner_id": None}, RefusalCode.INPUT_INVALID, "partnerId"),
        ({"label": "March"}, RefusalCode.STATEMENT_NOT_FOUND, "label"),
        ({"label": "2017-04"}, RefusalCode.STATEMENT_NOT_FOUND, "label"),
        ({"key": "system:x"}, RefusalCode.INPUT_INVALID, "idempotencyKey"),
    ):
        given: dict[str, Any] = {"partner_id": 2, **changed}
        found = await refused(default(database, IN_APRIL, **given))
        assert (found.code, found.field) == (code, field)
    assert await contents(database) == before
    await default(database, datetime.fromisoformat("2017-04-14T22:00:00Z"))


async def test_the_same_key_proposes_once_whatever_was_paid_since(
    database: Database, at: At, two_months: Example
) -> None:
    first = await default(database, IN_MAY)
    await pays(database, IN_MAY, "-2.00", key="part")
    again = await default(database, IN_MAY)
    assert (again.replayed, again.proposal) == (True, first.proposal)
    assert (await refused(default(database, IN_MAY, 1))).code == RefusalCode.IDEMPOTENCY_CONFLICT
    await declare(database, IN_MAY, first.proposal)
    assert covered(await statement(database))["written_off"] == 15_000, "what was paid before the approval counts"


async def test_what_was_paid_meanwhile_is_not_declared(database: Database, two_months: Example) -> None:
    proposal = (await default(database, IN_MAY)).proposal
    await pays(database, IN_MAY, "-452.00", key="all")
    before = await contents(database)
    assert (await refused(declare(database, IN_MAY, proposal))).code == RefusalCode.STATEMENT_NOT_DUE
    owed_to_it = await refused(default(database, IN_MAY, label="2017-04", key="x-2"))
    assert (owed_to_it.code, owed_to_it.message) == (
        RefusalCode.STATEMENT_NOT_DUE, "the partner owes nothing of that statement",
    )  # fmt: skip
    assert await contents(database) == before


async def test_disputed_charges_stay_out_and_more_than_proposed_is_not_declared(
    database: Database, at: At, booked_march: Example
) -> None:
    await close_period(database, at(noon(2017, 4, 2)), "2017-03", "close-1")
    ask = disputed(is_operator=False)
    dispute = (await open_dispute(database, standing(noon(2017, 4, 3)), "B", "d-1", ask)).dispute
    first, second = [(await default(database, IN_APRIL, key=key)).proposal for key in ("x-1", "x-2")]
    assert first.content.amount_micro == 52 * MILLION
    await declare(database, IN_APRIL, first)
    assert covered(await statement(database)) == {"written_off": 5_200, "open": 0}
    assert (await verify(database, at(IN_MAY))).holds
    await withdraw_dispute(database, standing(IN_APRIL), 2, "w-1", dispute.id)
    before = await contents(database)
    assert (await refused(declare(database, IN_APRIL, second))).code == RefusalCode.EXCEEDS_ORIGINAL
    assert await contents(database) == before
    await declare(database, IN_APRIL, (await default(database, IN_APRIL, key="x-3")).proposal)
    assert covered(await statement(database)) == {"written_off": 45_200, "open": 0}
    assert (await verify(database, at(IN_MAY))).holds


async def test_a_payment_on_a_disputed_statement_recovers_no_more_than_it_brings(
    database: Database, at: At, booked_march: Example
) -> None:
    await close_period(database, at(noon(2017, 4, 2)), "2017-03", "close-1")
    await declare(database, IN_APRIL, (await default(database, IN_APRIL)).proposal)
    ask = disputed(is_operator=True)
    await open_dispute(database, standing(IN_APRIL), "desk", "d-1", ask)
    await pays(database, IN_APRIL, "-10.00", key="late")
    assert (await statement(database)).recovered_minor == 1_000
    assert (await verify(database, at(IN_MAY))).holds


# ---------------------------------------------------------------- at once


async def test_two_approvals_and_two_defaults_at_once_do_one(database: Database, at: At, two_months: Example) -> None:
    proposals = [(await default(database, IN_MAY, key=key)).proposal for key in ("x-1", "x-2")]
    answers = await asyncio.gather(
        *(
            declare(database, IN_MAY, proposal, client=client, key=f"{client}-{proposal.id}")
            for proposal in proposals
            for client in (APPROVER, THIRD)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Step) for one in answers) == 1
    codes = {one.code for one in answers if isinstance(one, Refused)}
    assert codes <= {RefusalCode.PROPOSAL_DECIDED, RefusalCode.STATEMENT_NOT_DUE}
    assert await rows(
        database, "SELECT owed_micro, offset_micro, deposit_micro, bad_debt_micro FROM partner_default"
    ) == [(452 * MILLION, 100 * MILLION, 200 * MILLION, 152 * MILLION)]
    assert (await verify(database, at(IN_JUNE))).holds


async def test_a_deposit_is_used_or_paid_out_and_not_both(database: Database, at: At, two_months: Example) -> None:
    out = await payout(database, 2, "150.00", now=IN_MAY, reason=ProposalReason.CORRECTION)
    declared = (await default(database, IN_MAY)).proposal
    answers = await asyncio.gather(
        pay_out(database, out, now=IN_MAY), declare(database, IN_MAY, declared), return_exceptions=True
    )
    [(used_micro,)] = await rows(database, "SELECT deposit_micro FROM partner_default")
    if isinstance(answers[0], Refused):
        assert (answers[0].code, used_micro) == (RefusalCode.LIMIT_EXCEEDED, 200 * MILLION)
    else:
        assert used_micro == 50 * MILLION
    assert (await account(database, 2)).held_micro == 0
    assert (await verify(database, at(IN_JUNE))).holds


# ---------------------------------------------------------------- what comes in later


async def test_what_was_written_off_and_is_paid_later_is_recovered(
    database: Database, at: At, two_months: Example
) -> None:
    await declare(database, IN_MAY, (await default(database, IN_MAY)).proposal)
    before = {"offset": 10_000, "deposit": 20_000, "written_off": 15_200}
    recovered = """
        SELECT amount_micro FROM partner_entry WHERE kind = 'BAD_DEBT' ORDER BY id
    """
    await pays(database, IN_MAY, "-100.00", key="one")
    await pays(database, IN_MAY, "-100.00", key="one")
    assert covered(await statement(database)) == {**before, "paid": -10_000, "recovered": 10_000, "open": 0}
    # More than was written off stays to be seen, and to be paid back.
    await pays(database, IN_MAY, "-60.00", key="two")
    assert covered(await statement(database)) == {**before, "paid": -16_000, "recovered": 15_200, "open": 800}
    await pays(database, IN_MAY, "8.00", key="back")
    assert covered(await statement(database)) == {**before, "paid": -15_200, "recovered": 15_200, "open": 0}
    assert await rows(database, recovered) == [(152 * MILLION,), (-100 * MILLION,), (-52 * MILLION,)]
    assert (await verify(database, at(IN_JUNE))).holds
    # The bank takes a payment back: what it had recovered is bad debt again, without anybody's approval.
    await pays(database, IN_MAY, "100.00", key="returned")
    assert covered(await statement(database)) == {**before, "paid": -5_200, "recovered": 5_200, "open": 0}
    assert (await rows(database, recovered))[3:] == [(100 * MILLION,)]
    report = await verify(database, at(IN_JUNE))
    assert report.holds, [one for one in report.checks if not one.holds]
    await close_period(database, at(IN_JUNE), "2017-05", "close-3")
    assert (await period_figures(database, [MAY]))[MAY].margin_micro == 100 * MILLION


async def test_a_part_that_was_let_off_is_recovered_after_what_is_open(
    database: Database, at: At, booked_march: Example
) -> None:
    await close_period(database, at(noon(2017, 4, 2)), "2017-03", "close-1")
    await approve(database, IN_APRIL, await write_off(database, IN_APRIL, 2, "2017-03", "400.00"))
    await pays(database, IN_APRIL, "-50.00", key="one")
    assert covered(await statement(database)) == {"paid": -5_000, "written_off": 40_000, "open": -200}
    await pays(database, IN_APRIL, "-12.00", key="two")
    assert covered(await statement(database)) == {"paid": -6_200, "written_off": 40_000, "recovered": 1_000, "open": 0}
    assert (await verify(database, at(IN_MAY))).holds
