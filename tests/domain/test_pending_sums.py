"""Any purchase, any returns of it, a release anywhere among them: every sum is exact. Decided without a database."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.batch import Batch, Budget, LastUse, Member, TransactionRow, budget_window
from domain.batch_clock import BatchClock
from domain.commands import Amount, ConfirmPayment, Earn, MemberRef, MovementKind, OriginalRef, Posted, Reverse, Sweep
from domain.database import Database
from domain.deciding import decide
from domain.lots import Account
from domain.terms import Configuration
from domain.values import decimal_from_minor
from tests.domain.coalitions import coalition, partner
from tests.factories import apply_toml

BOUGHT = datetime(2017, 3, 15, 12, tzinfo=UTC)
SHOP, MEMBER, ACCOUNT = 1, 7, 8
GROSS_MICRO = 11_000


@pytest.fixture
async def shop(database: Database) -> Configuration:
    """A coalition of one partner whose points are pending for two weeks."""
    return await apply_toml(database, coalition(partner("shop", terms={"pending_days": 14})))


@dataclass
class Changes:
    """How an example differs from it."""

    rules: list[tuple[int, int | None]]
    limit_micro: int
    on_limit: str
    risk: str

    def of(self, shop: Configuration) -> Configuration:
        [plan], [rule] = shop.budget_plans[SHOP], shop.earn_rules[SHOP]
        rules = tuple(
            replace(
                rule, id=number, code="base" if number == 1 else f"extra-{number}", rate_micro=rate, max_points=most
            )
            for number, (rate, most) in enumerate(self.rules, start=1)
        )
        return replace(
            shop,
            partners={SHOP: replace(shop.partners[SHOP], risk=self.risk)},
            budget_plans={SHOP: (replace(plan, limit_micro=self.limit_micro, on_limit=self.on_limit),)},
            earn_rules={SHOP: rules},
        )


@dataclass
class Books:
    """One member's purchase, decided by batches that share their state: what a database would give the next one."""

    batch: Batch

    def decide(self, command: Earn | Reverse | Sweep | ConfirmPayment, now: datetime) -> Posted | None:
        self.batch.clock = BatchClock(self.batch.configuration, now, 0, is_history=False)
        outcome = decide(self.batch, command)
        assert not hasattr(outcome, "code"), outcome
        return outcome if isinstance(outcome, Posted) else None

    def rows(self, *kinds: MovementKind) -> list[TransactionRow]:
        return [row for row in self.batch.new_transactions if row.kind in kinds]

    def points(self, *kinds: MovementKind) -> int:
        return sum(row.points for row in self.rows(*kinds))

    @property
    def account(self) -> Account:
        return self.batch.accounts[ACCOUNT]

    def check(self) -> None:
        """Every sum that ties the rows to the state, in the middle of it all."""
        account, kind = self.account, MovementKind
        assert account.pending == sum(award.open_points for award in account.awards)
        assert account.available == sum(lot.remaining for lot in account.lots)
        assert account.pending == self.points(kind.EARN_PENDING, kind.CANCEL) - self.points(kind.CONFIRM)
        assert account.available == self.points(kind.CONFIRM, kind.EARN, kind.EARN_REVERSAL)
        pool_micro = sum(row.pool_value_micro for row in self.batch.new_transactions)
        assert pool_micro == sum(lot.remaining * lot.price_micro for lot in account.lots)
        for budget in self.batch.budgets.values():
            drawn = sum(row.budget_micro for row in self.batch.new_transactions if row.budget_id == budget.id)
            assert budget.consumed_micro == drawn
            held = sum(award.reserved_micro for award in account.awards if award.budget_id == budget.id)
            assert budget.reserved_micro == held
        for award in account.awards:
            gross_micro = 0 if award.budget_id is None else GROSS_MICRO
            assert award.reserved_micro == award.open_points * gross_micro
        for row in self.rows(kind.EARN_PENDING, kind.CANCEL):
            assert (row.issue_value_micro, row.service_fee_micro, row.pool_value_micro, row.budget_micro) == (
                0,
                0,
                0,
                0,
            )


def books(made: Configuration) -> Books:
    batch = Batch(BatchClock(made, BOUGHT, 0, is_history=False), count(100), b"")
    batch.members = {MEMBER: Member(MEMBER, ACCOUNT, "ACTIVE")}
    batch.accounts = {ACCOUNT: Account(ACCOUNT, 0, 0, 0, None, all_lots_loaded=True)}
    batch.last_uses = {ACCOUNT: LastUse(MEMBER, batch.members[MEMBER], is_left=False)}
    [plan] = made.budget_plans[SHOP]
    for number, month in enumerate((BOUGHT, BOUGHT + timedelta(days=31), BOUGHT + timedelta(days=61))):
        booking = BatchClock(made, month, 0, is_history=False).booking(month)
        window = budget_window(plan, booking)
        batch.budgets[window] = Budget(50 + number, plan, booking.period_id, plan.limit_micro, 0, 0, 0, None)
    return Books(batch)


CHANGES = st.builds(
    Changes,
    st.lists(st.tuples(st.integers(0, 3_000_000), st.none() | st.integers(0, 400)), min_size=1, max_size=3),
    st.sampled_from([0, 500_000, 5_000_000, 10**9]),
    st.sampled_from(["PARTIAL", "OPERATOR_FUNDED"]),
    st.sampled_from(["NORMAL", "PAID_FIRST"]),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=CHANGES,
    amount=st.integers(1, 60_000),
    cuts=st.lists(st.integers(1, 60_000), max_size=6),
    days=st.lists(st.integers(0, 60), min_size=7, max_size=7),
    release_after=st.integers(0, 7),
)
def test_all_returns_with_a_release_anywhere_give_back_exactly_what_was_granted(
    shop: Configuration, changes: Changes, amount: int, cuts: list[int], days: list[int], release_after: int
) -> None:
    made = books(changes.of(shop))
    bought = made.decide(
        Earn(SHOP, "k", MemberRef(member_id=MEMBER), Amount(decimal_from_minor(amount, 2), "EUR"), BOUGHT, "k"), BOUGHT
    )
    assert bought is not None
    made.check()
    # Cut points make parts of the amount; what is left comes back last.
    borders = sorted({cut % amount for cut in cuts} - {0})
    parts = [after - before for before, after in zip([0, *borders], [*borders, amount], strict=True)]
    moments = sorted(BOUGHT + timedelta(days=number) for number in days)
    for number, part in enumerate(parts):
        if number == release_after:
            release(made, moments[min(number, 6)])
        returned = Amount(decimal_from_minor(part, 2), "EUR")
        moment = moments[min(number, 6)]
        answer = made.decide(Reverse(SHOP, f"r{number}", OriginalRef(key="k"), moment, returned), moment)
        assert answer is not None
        assert answer.shortfall_points == 0
        made.check()
    kind = MovementKind
    assert -made.points(kind.CANCEL, kind.EARN_REVERSAL) == bought.points
    assert (made.account.available, made.account.pending) == (0, 0)
    assert sum(row.issue_value_micro + row.service_fee_micro for row in made.batch.new_transactions) == 0
    assert sum(budget.reserved_micro for budget in made.batch.budgets.values()) == 0
    assert sum(budget.consumed_micro for budget in made.batch.budgets.values()) == 0
    per_award = {award.lot_id: award.granted for award in made.batch.by_key[(SHOP, "k")].awards}
    for lot_id, granted in per_award.items():
        assert granted == -sum(row.points for row in made.rows(kind.CANCEL, kind.EARN_REVERSAL) if row.lot_id == lot_id)


def release(made: Books, now: datetime) -> None:
    """A payment where one is missing, then a sweep: confirms whatever the clock lets it."""
    if any(award.waits_for_payment and award.open_points for award in made.account.awards):
        made.decide(ConfirmPayment(SHOP, "p", OriginalRef(key="k"), now), now)
        made.check()
    made.decide(Sweep(ACCOUNT), now)
    made.check()
