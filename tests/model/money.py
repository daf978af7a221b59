"""The money of partners: budgets, floats, campaigns, adjustments, statements and what is paid and disputed of them."""

from copy import deepcopy
from datetime import timedelta
from fractions import Fraction
from math import ceil

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.factories import apply_toml
from tests.model.at_the_desk import ONE, OTHER, AtTheDesk
from tests.model.closing import close, next_to_close
from tests.model.contracts import STARTS, coalitions
from tests.model.desk import Desk
from tests.model.driver import PARTNERS, partners, parts, recent
from tests.model.ledger import Dict, micro

Baskets = list[tuple[str, str, int, timedelta]]
HOUR = timedelta(hours=1)
CARDS = ("ada", "ben")
holders = st.sampled_from(CARDS)
late = st.sampled_from((0, 0, 0, 5, 30, 100)).map(lambda hours: hours * HOUR)
small = st.one_of(st.integers(1, 400), st.sampled_from((1, 50, 99, 100, 101, 5_000)))
two = st.tuples(parts, parts)
few = st.integers(0, 4)
cents = st.one_of(st.integers(0, 8_000), st.integers(1, 60).map(lambda units: units * 100))
baskets = st.lists(st.tuples(partners, holders, cents, late), max_size=3)
ways = st.sampled_from(("agreed", "agreed", "agreed", "agreed", "twice", "own", "rejected", "withdrawn", "later"))
"""What becomes of a proposal."""


class Money(AtTheDesk):
    """Two members of coalitions that are drawn, and the desk."""

    @initialize(coalition=coalitions(), first=baskets)
    def open(self, coalition: str, first: Baskets) -> None:
        self.clone(self.templates[""], STARTS)
        self.run(apply_toml(self.database, coalition))
        self.set_out(coalition, [])
        self.desk = Desk(self.auditor)
        self.shop(first)

    def shop(self, baskets: Baskets, *, history: bool = False) -> None:
        one = [self.purchase(partner, card, amount, None, age) for partner, card, amount, age in baskets]
        if one:
            self.send(one, history=history)

    # ------------------------------------------------------------ purchases at the limit

    @rule(baskets=baskets, partner=partners, card=holders, amount_minor=cents, part=parts, age=late,
          history=st.booleans())  # fmt: skip
    def earn(
        self, baskets: Baskets, partner: str, card: str, amount_minor: int, part: int, age: timedelta,
        *, history: bool,
    ) -> None:  # fmt: skip
        """Several purchases, of which the last earns what is spent elsewhere."""
        self.shop([*baskets, (PARTNERS[len(baskets) % 3], card, amount_minor, age)], history=history)
        self.burn(partner, card, part, age)

    @rule(partner=partners, card=holders, food=st.integers(0, 9_000), rest=st.integers(0, 5_000), part=parts)
    def earn_by_lines(self, partner: str, card: str, food: int, rest: int, part: int) -> None:
        """Of which some categories count for some campaigns; a part of the food comes back."""
        basket = (("bread", "food", 2, food), ("pipe", "tobacco", 1, rest))
        one = self.purchase(partner, card, food + rest, basket, timedelta(0))
        self.send([one])
        self.send([self.reversal(one, timedelta(0), lines=(("bread", "food", 1, food // part),))])

    @rule(partner=partners, card=holders, over=st.integers(-3, 3), more=small, two=two, at_once=st.booleans())
    def to_the_limit(
        self, partner: str, card: str, over: int, more: int, two: tuple[int, int], *, at_once: bool
    ) -> None:
        """A budget is spent down to within an award, then one more is asked for, and parts of both come back."""
        first = self.purchase(partner, card, self.amount_for(partner, min(over, 0)), None, timedelta(0))
        second = self.purchase(partner, card, (over if over > 0 else more) * 10, None, timedelta(0))
        returns = [self.part_of(one, part) for one, part in zip((first, second), two, strict=True)]
        if at_once:
            self.send([first, second, *returns])
        else:
            self.send([first])
            self.send([second])
            self.send(returns)

    def amount_for(self, partner: str, over: int) -> int:
        """Cents of a purchase whose own awards take what is left of the budget, and so many points more."""
        self.auditor.begin(self.now)
        window, contract = self.auditor.window(partner), self.auditor.partners[partner]
        terms = self.auditor.terms(partner, self.now)
        rate = sum(Fraction(rule["points_per_unit"]) for rule in contract["earn_rule"] if rule["code"] == "base")
        left = 0 if window is None else max(self.auditor.free(window), 0)
        points = max(left // (micro(terms["issue_price"]) + micro(terms["service_fee"])) + over, 1)
        return min(ceil(points / rate * 100), 2_000_000)

    def burn(self, partner: str, card: str, part: int, age: timedelta) -> None:
        self.send([self.spend(partner, card, part, age)])

    @precondition(lambda self: self.accepted)
    @rule(back=recent, part=parts, age=late, history=st.booleans(), closes=st.booleans())
    def give_back(self, back: int, part: int, age: timedelta, *, history: bool, closes: bool) -> None:
        """A part of one of the last purchases or burns, perhaps in the next period."""
        original = self.accepted[-1 - back % len(self.accepted)]
        if closes:
            self.period_end(0)
        self.send([self.part_of(original, part, age)], history=history)

    @rule(card=holders, partner=partners, part=parts, amount_minor=cents)
    def burn_and_return(self, card: str, partner: str, part: int, amount_minor: int) -> None:
        """The points of a purchase are spent before the goods come back, some of them in the next period."""
        one = self.purchase(partner, card, amount_minor, None, timedelta(0))
        self.send([one, self.spend(partner, card, 1), self.part_of(one, part)])
        self.period_end(0)
        self.send([self.part_of(one, part)])

    @precondition(lambda self: any(award["open"] and award["waits"] for award in self.auditor.awards))
    @rule(back=recent)
    def money_comes(self, back: int) -> None:
        one = [one for one in self.accepted if one["kind"] == "earn"]
        original = one[-1 - back % len(one)]
        self.send([self.command("pay", original["partner"], None, self.now, original=original["key"])])

    # ------------------------------------------------------------ campaigns

    @rule(number=few, card=holders, over=st.integers(-3, 3), returned=st.lists(small, max_size=3),
          at_once=st.booleans(), closes=st.booleans())  # fmt: skip
    def campaign(self, number: int, card: str, over: int, returned: list[int], *, at_once: bool, closes: bool) -> None:
        """A bonus just fits what its own budget has left, or just does not; the goods come back piece by piece."""
        campaigns = self.auditor.campaigns
        one = campaigns[number % len(campaigns)]
        tills = one.get("partners", PARTNERS)
        bought = [
            self.purchase(tills[number % len(tills)], card, self.amount_of_bonus(one, over), None, timedelta(0))
            for _ in range(1 + at_once)
        ]
        self.send(bought)
        if closes:
            self.period_end(0)
        for minor in returned:
            self.send([self.reversal(bought[0], timedelta(0), amount_minor=minor)])
        self.send([self.reversal(bought[-1], timedelta(0))])

    def amount_of_bonus(self, one: Dict, over: int) -> int:
        """Cents of a purchase whose bonus takes what the campaign has left, or 37 points, and so many more."""
        points = 37
        if "budget" in one:
            self.auditor.begin(self.now)
            left = self.auditor.free(self.auditor.window_of(f"campaign {one['code']}", one["budget"]))
            payer = one["funding"][0].get("partner", "grocer")
            terms = self.auditor.terms(payer, self.now)
            points = left // (micro(terms["issue_price"]) + micro(terms["service_fee"]))
        if "bonus_points" in one:
            return int(Fraction(one["min_amount"]) * 100) + over
        rate = Fraction(one["points_per_unit"]) if "points_per_unit" in one else Fraction(one["multiplier"]) - 1
        return min(ceil(max(points + over, 1) / rate * 100), 50_000)

    # ------------------------------------------------------------ budgets

    def with_budget(self, number: int, key: str, value: str) -> str:
        """A partner that has such a budget, if one has."""
        found = [
            code for code, one in self.auditor.partners.items() if any(plan.get(key) == value for plan in one["budget"])
        ]
        return (found or list(PARTNERS))[number % len(found or PARTNERS)]

    @rule(number=few, minors=st.lists(small, min_size=1, max_size=2), ages=st.tuples(late, late), card=holders,
          over=st.integers(-3, 1), two=two, closes=st.booleans())  # fmt: skip
    def fill(
        self, number: int, minors: list[int], ages: tuple[timedelta, timedelta], card: str, over: int,
        two: tuple[int, int], *, closes: bool,
    ) -> None:  # fmt: skip
        """Money comes in for a float, in any order; a purchase draws on several blocks, and comes back in parts."""
        partner = self.with_budget(number, "funding", "PREPAID")
        for minor, age in zip(minors, ages, strict=False):
            self.top_up(partner, minor, age)
        one = self.purchase(partner, card, self.amount_for(partner, over), None, timedelta(0))
        self.send([one, self.part_of(one, two[0])])
        if closes:
            self.period_end(0)
        self.send([self.part_of(one, two[1])])

    @rule(number=few, minor=small, how=ways, hours=st.sampled_from((None, 0, 30, 30, 400)), card=holders,
          over=st.integers(-3, 3), ahead=st.sampled_from((None, None, 0, 1)), ends=st.booleans())  # fmt: skip
    def overdraw(
        self, number: int, minor: int, how: str, hours: int | None, card: str, over: int, ahead: int | None,
        *, ends: bool,
    ) -> None:  # fmt: skip
        """A budget may be overdrawn, for a while or as long as it lasts, and is."""
        partner = self.with_budget(number, "on_limit", "OVERDRAFT")
        label = None
        if ahead is not None:
            days = self.auditor.days
            label = days.period(days.day(self.now))
            label = days.period(days.ends(label)) if ahead else next_to_close(self.auditor)
        until = None if hours is None else self.now + hours * HOUR
        self.agree("OVERDRAFT", partner, minor, how, label=label, until=until)
        amount = self.amount_for(partner, over) // (1 + ends)  # some of it is left when it ends
        self.send([self.purchase(partner, card, amount, None, timedelta(0))])
        if ends and hours:
            self.now += hours * HOUR
            self.send([self.purchase(partner, card, self.amount_for(partner, over), None, timedelta(0))])

    # ------------------------------------------------------------ four eyes

    @rule(partner=partners, card=holders, points=st.one_of(st.integers(1, 99), st.integers(-99, -1)), how=ways,
          part=parts, takes=st.booleans())  # fmt: skip
    def points(self, partner: str, card: str, points: int, how: str, part: int, *, takes: bool) -> None:
        """The operator gives points, or takes some; some are spent, and what it gave is taken again."""
        member_id = self.member_id(card)
        self.agree("POINTS", partner, None, how, card=card, points=points, member_id=member_id)
        if takes and points > 0:
            self.send([self.spend(partner, card, part)])
            own = sum(
                lot["left"] for lot in self.auditor.usable(self.auditor.account(card)) if lot["funder"] == "operator"
            )
            self.agree("POINTS", partner, None, "agreed", card=card, points=-max(own // part, 1), member_id=member_id)

    @rule(partner=partners, minor=small, sign=st.sampled_from((1, -1)), how=ways, back=recent, names=st.booleans(),
          baskets=baskets)  # fmt: skip
    def adjust(
        self, partner: str, minor: int, sign: int, how: str, back: int, baskets: Baskets, *, names: bool
    ) -> None:
        """A partner is credited or debited, perhaps for a line of a closed statement."""
        self.shop(baskets)
        label = line = None
        if names and self.lines:
            label, partner, line, _ = self.lines[-1 - back % len(self.lines)]
        self.agree("ADJUSTMENT", partner, sign * minor, how, label=label, line=line)

    @precondition(lambda self: self.proposals)
    @rule(back=few, state=st.sampled_from(("APPROVED", "APPROVED", "REJECTED", "WITHDRAWN")), own=st.booleans(),
          baskets=baskets)  # fmt: skip
    def decide_later(self, back: int, state: str, baskets: Baskets, *, own: bool) -> None:
        """One of the last proposals, decided or not."""
        self.shop(baskets)
        self.decide(len(self.proposals) - 1 - back % len(self.proposals), state, ONE if own else OTHER)

    # ------------------------------------------------------------ statements

    @rule(partner=partners, off=st.integers(-1, 1), sign=st.sampled_from((1, -1)), days=few)
    def close_at_the_minimum(self, partner: str, off: int, sign: int, days: int) -> None:
        """An adjustment makes what a statement comes to the smallest amount that is paid, or a cent from it."""
        label = next_to_close(self.auditor)
        ends = self.auditor.days.midnight(self.auditor.days.ends(label))
        if self.now < ends:
            self.now = ends - HOUR
            last = deepcopy(self.auditor)
            close(last, label, ends)
            total = last.closed[label]["due"].get(partner, 0) + last.closed[label]["left"].get(partner, 0)
            goal = sign * int(Fraction(self.auditor.programme["minimum_settlement"]) * 100) + off
            if total != goal:
                self.agree("ADJUSTMENT", partner, goal - total, "agreed")
        self.period_end(days)

    @precondition(lambda self: self.lines)
    @rule(back=recent, share=st.sampled_from((None, None, 1, 2, 3)), over=st.sampled_from((0, 0, 0, 1)),
          by_operator=st.booleans(), of_each=st.sampled_from((0, 0, 1, 2)), how=st.one_of(st.none(), ways),
          accepts=st.sampled_from((True, True, False)))  # fmt: skip
    def dispute_line(
        self, back: int, share: int | None, over: int, of_each: int, how: str | None, *, by_operator: bool,
        accepts: bool,
    ) -> None:  # fmt: skip
        """All of a line of a closed statement, some of it, or purchases or burns of it; perhaps it is decided soon."""
        label, partner, kind, billed = self.lines[-1 - back % len(self.lines)]
        commands = None
        if of_each and kind in ("ISSUE", "SERVICE_FEE", "REIMBURSEMENT"):
            commands = self.behind(label, partner, kind)[:of_each] or None
        minor = None if share is None else max(abs(billed) // share, 1) + over
        number = self.dispute({"label": label, "partner": partner, "kind": kind, "commands": commands, "minor": minor,
                               "by_operator": by_operator})  # fmt: skip

        if number is not None and how is not None:
            self.agree("DISPUTE", None, None, how, dispute=number, accepts=accepts)

    def behind(self, label: str, partner: str, kind: str) -> list[tuple[str, str]]:
        """Purchases and burns, the last first, most of which are behind the line."""
        wanted = "burn" if kind == "REIMBURSEMENT" else "earn"
        found: list[tuple[str, str]] = [
            key
            for key, record in self.auditor.done.items()
            if record["kind"] == wanted
            and (any(one["funder"] == partner for one in record["awards"]) or key[0] == partner)
            and record["period"] >= label
        ]
        return found[::-1]

    @precondition(lambda self: self.desk.statements.disputes)
    @rule(back=few, accepts=st.sampled_from((True, True, False)), share=st.sampled_from((None, 1, 2)), how=ways,
          over=st.sampled_from((0, 0, 0, 1)), withdraws=st.sampled_from((False, False, False, True)))  # fmt: skip
    def end_dispute(self, back: int, share: int | None, how: str, over: int, *, accepts: bool, withdraws: bool) -> None:
        """It is accepted in whole or in part, rejected, or taken back."""
        number = len(self.dispute_ids) - 1 - back % len(self.dispute_ids)
        minor = None
        if accepts and share is not None:
            minor = max(self.desk.statements.disputes[number]["minor"] // share, 1) + over
        self.agree("DISPUTE", None, minor, how, dispute=number, accepts=accepts)
        if withdraws:
            self.withdraw_dispute(number)

    @rule(back=recent, share=st.sampled_from((None, 2)), accepted=st.sampled_from((None, 1, 2)), days=few,
          pays=st.booleans())  # fmt: skip
    def contest(self, back: int, share: int | None, accepted: int | None, days: int, *, pays: bool) -> None:
        """A period ends; a charge is disputed, the rest is paid, and what is accepted enters the next period."""
        self.period_end(days)
        charges = [line for line in self.lines if line[-1] < 0 and line[2] != "CARRIED_FORWARD"]
        if not charges:
            return
        label, partner, kind, billed = charges[-1 - back % len(charges)]
        minor = None if share is None else max(-billed // share, 1)
        number = self.dispute({"label": label, "partner": partner, "kind": kind, "commands": None, "minor": minor,
                               "by_operator": False})  # fmt: skip
        if pays:
            self.pay_open(label, partner, 0)
        if number is not None:
            part = None
            if accepted is not None:
                part = max(self.desk.statements.disputes[number]["minor"] // accepted, 1)
            self.agree("DISPUTE", None, part, "agreed", dispute=number, accepts=True)
            self.period_end(0)

    @precondition(lambda self: self.statements)
    @rule(back=recent, over=st.sampled_from((0, 0, 0, 1, -1, 700)), days=st.sampled_from((0, 0, 8, 30)))
    def pay_statement(self, back: int, over: int, days: int) -> None:
        """What is open of a statement, or a little less or more; perhaps late."""
        self.now += days * 24 * HOUR
        self.pay_open(*self.statements[-1 - back % len(self.statements)], over)

    @precondition(lambda self: self.statements)
    @rule(back=recent, share=parts, how=ways, over=st.sampled_from((0, 0, 1)), comes=st.sampled_from((0, 0, 1, 2, 3)))
    def write_off(self, back: int, share: int, how: str, over: int, comes: int) -> None:
        """What a partner owes of a statement, or some of it; some of it comes in after all, and is taken back."""
        owing = [key for key in self.statements if self.desk.statements.left(*key) < 0] or self.statements
        label, partner = owing[-1 - back % len(owing)]
        minor = max(-self.desk.statements.left(label, partner) // share, 1) + over
        self.agree("WRITE_OFF", partner, minor, how, label=label)
        if comes:
            self.pay(label, partner, -max(minor // comes, 1))
        if comes == 2:  # and the bank takes it back
            self.pay(label, partner, max(minor // comes, 1))

    # ------------------------------------------------------------ time

    @rule(hours=st.one_of(st.integers(1, 48), st.integers(24, 9 * 24)), sweeps=st.booleans(), baskets=baskets)
    def wait(self, hours: int, baskets: Baskets, *, sweeps: bool) -> None:
        self.shop(baskets)
        self.now += hours * HOUR
        if sweeps:
            self.sweep_all()

    @rule(days=few, baskets=baskets)
    def end_period(self, days: int, baskets: Baskets) -> None:
        """The next period ends after some more purchases."""
        self.shop(baskets)
        self.period_end(days)

    # Steps of their own in other machines; here they are parts of others, so that more of the steps move money.

    def enroll(self, card: str, partner: str) -> None:
        super().enroll(card, partner)

    def sweep_all(self) -> None:
        super().sweep_all()

    def period_end(self, days: int) -> None:
        super().period_end(days)

    def close(self, ahead: int) -> None:
        super().close(ahead)
