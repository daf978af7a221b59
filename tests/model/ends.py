"""Partners that are suspended or leave, and a programme that ends."""

from datetime import date, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from domain.commands import Outcome
from domain.errors import ConfigurationError
from domain.proposals import Decision, ProposalKind, ProposalReason, ProposalState, Step
from partners.apply import apply_coalition
from partners.coalition_file import parse_coalition
from settlement.defaults import DefaultAsk, approve_default, propose_default
from settlement.deposits import NewDeposit, PayoutAsk, approve_payout, propose_payout, record_deposit
from tests.model.at_the_desk import OTHER, AtTheDesk
from tests.model.coalitions import ENDS
from tests.model.desk import PER_MINOR
from tests.model.driver import CARDS, PARTNERS, ages, baskets, cards, partners, parts, recent
from tests.model.leaving import may_end, may_leave
from tests.model.ledger import OPERATOR, Dict
from tests.model.money import small, ways
from tests.model.securing import SecuredDesk
from tests.model.translating import money

DEPOSITS_SQL = "SELECT partner_id, required_micro, held_micro::bigint, owes_micro::bigint FROM deposit_account"
COVERED_SQL = """
    SELECT p.label, b.partner_id, b.deposit_used_minor::bigint, b.offset_minor::bigint
      FROM statement_balance AS b JOIN period AS p ON p.id = b.period_id
     WHERE b.deposit_used_minor <> 0 OR b.offset_minor <> 0
"""

run_offs = st.sampled_from((0, 3, 15, 40))


class Ends(AtTheDesk):
    """The coalition file changes while points are pending, held and spent."""

    @initialize(first=st.lists(baskets, min_size=2, max_size=6), winds_down=st.booleans())
    def open(self, first: list[tuple[str, str, int, timedelta]], *, winds_down: bool) -> None:
        self.winds_down = winds_down
        self.set: dict[str, dict[str, Any]] = {name: {} for name in ("", *PARTNERS)}  # "": the programme
        self.begin("ends", [])
        self.desk: SecuredDesk = SecuredDesk(self.auditor)
        self.enroll("cyd", "grocer")
        self.send([self.purchase(partner, card, amount, None, age) for partner, card, amount, age in first])

    # ------------------------------------------------------------ the coalition file

    def apply(self, name: str, *, may: bool, **values: Any) -> None:
        """What the file says of a partner or of the programme by now; None: nothing."""
        wanted = {key: value for key, value in (self.set[name] | values).items() if value is not None}
        text = ENDS
        for one, lines in (self.set | {name: wanted}).items():
            mark = f'code = "{one}"\n' if one else "[programme]\n"
            added = "".join(f"{key} = {_toml(value)}\n" for key, value in lines.items())
            text = text.replace(mark, mark + added, 1)
        try:
            self.run(apply_coalition(self.database, parse_coalition(text), clock=self.clock))
            refused = None
        except ConfigurationError as refusal:
            refused = str(refusal)
        assert (refused is None) == may, (refused, name, values)
        if refused is None:
            section = self.auditor.partners[name] if name else self.auditor.programme
            for key in self.set[name]:
                del section[key]
            section |= wanted
            self.set[name] = wanted

    @rule(partner=partners, card=cards, state=st.sampled_from(("ACTIVE", "SUSPENDED", "SUSPENDED")),
          policy=st.sampled_from(("ALLOW", "CAPTURE", "REFUSE")), part=parts)  # fmt: skip
    def suspend(self, partner: str, card: str, state: str, policy: str, part: int) -> None:
        """A partner is suspended, or takes part again; it captures what it held, burns, sells, and takes goods back."""
        self.stock("fuel", card, 4_000)
        sold = self.purchase(partner, card, 1_000, None, timedelta(0))
        held = self.spend(partner, card, 3, kind="authorize")
        self.send([sold, held])
        self.apply(partner, may=True, state=state, suspended_burns=policy)
        self.send([
            self.command("capture", partner, None, self.now, original=held["key"], points=None),
            self.spend(partner, card, part), self.purchase(partner, card, 1_000, None, timedelta(0)),
            self.part_of(sold, part),
        ])  # fmt: skip

    def leave(self, partner: str, days: int | None, run_off: int) -> None:
        """So many days from now, or never; and everything is settled so many days later."""
        last = None if days is None else self.today + timedelta(days=days)
        until = None if last is None else last + timedelta(days=run_off)
        self.auditor.begin(self.now)
        may = may_leave(self.auditor, partner, last, until)
        self.apply(partner, may=may, leaves_on=last, run_off_until=until)

    @property
    def today(self) -> date:
        return self.auditor.days.day(self.now)

    @rule(partner=partners, days=st.sampled_from((None, -20, -1, 0, 2, 9)), run_off=run_offs)
    def plan_to_leave(self, partner: str, days: int | None, run_off: int) -> None:
        self.leave(partner, days, run_off)

    @precondition(lambda self: self.winds_down)
    @rule(days=st.sampled_from((None, -2, 0, 3, 12)), more=st.sampled_from((None, 0, 4, 25)))
    def end_programme(self, days: int | None, more: int | None) -> None:
        """No points are issued after so many days, and none burned so many later."""
        issue = None if days is None else self.today + timedelta(days=days)
        burn = None if issue is None or more is None else issue + timedelta(days=more)
        self.auditor.begin(self.now)
        self.apply("", may=may_end(self.auditor, issue, burn), issue_ends=issue, burn_ends=burn)

    @rule(two=st.permutations(PARTNERS), card=cards, run_off=run_offs, programme=st.booleans())
    def stop_as_of_yesterday(self, two: list[str], card: str, run_off: int, *, programme: bool) -> None:
        """Nothing was done since that somebody is not to do any more, though others did it, or something else."""
        self.now += timedelta(days=2)
        self.send([self.spend(two[1], card, 3)])
        if programme and self.winds_down:
            self.end_programme(-1, 25)
            return
        self.send([self.purchase(two[1], card, 3_000, None, timedelta(0))])
        self.leave(two[0], -1, run_off)

    # ------------------------------------------------------------ what is open when somebody leaves

    @rule(
        partner=partners, seller=partners, card=cards, days=st.sampled_from((0, 1)), run_off=run_offs,
        two=st.tuples(parts, parts), later=st.sampled_from((0, 1, 20)),
    )  # fmt: skip
    def leave_with_open_business(
        self, partner: str, seller: str, card: str, days: int, run_off: int, two: tuple[int, int], later: int
    ) -> None:
        """Pending and held points, goods and burns that may come back: in time, on the last day, or too late."""
        bought = [self.purchase(one, card, 4_000, None, timedelta(0)) for one in (partner, seller)]
        self.stock(seller, card, 3_000)
        burned = self.spend(partner, card, two[0])
        held = self.spend(partner, card, two[1], kind="authorize")
        self.send([*bought, burned, held])
        self.leave(partner, days, run_off)
        self.now += timedelta(days=days + run_off + later)
        captured = self.command("capture", partner, None, self.now, original=held["key"], points=None)
        paid = [self.command("pay", one["partner"], None, self.now, original=one["key"]) for one in bought]
        self.send([captured, self.part_of(burned, two[0]), *(self.part_of(one, two[1]) for one in bought), *paid])

    @rule(days=st.integers(0, 2), seller=partners, card=cards, more=st.sampled_from((0, 33)))
    def settle_out(self, days: int, seller: str, card: str, more: int) -> None:
        """Everything with somebody who leaves is settled; what lapses and expires then is found, and goods return."""
        finals = [label for label in map(self.auditor.ends.final, PARTNERS) if label is not None]
        bought = self.purchase(seller, card, 2_000, None, timedelta(0))
        self.send([bought])
        ends = [self.auditor.days.midnight(self.auditor.days.ends(label)) for label in finals]
        self.now = max(self.now, min(ends, default=self.now)) + timedelta(days=days)
        self.sweep_all()
        self.send([self.part_of(bought, 2)])
        self.period_end(days)
        if more:
            self.now += timedelta(days=more)
            self.sweep_all()

    @precondition(lambda self: self.winds_down)
    @rule(seller=partners, card=cards, days=st.sampled_from((0, 4)), part=parts)
    def wind_down(self, seller: str, card: str, days: int, part: int) -> None:
        """Points are burned until the last day, and are past after it; no period closes while there are any."""
        bought = self.purchase(seller, card, 2_000, None, timedelta(0))
        self.send([bought])
        self.stock("fuel", card, 4_000)
        burned = self.spend(seller, card, 2)
        self.send([burned, self.spend(seller, card, 3, kind="authorize")])
        self.end_programme(0, days)
        self.now += timedelta(days=days + 1)
        self.send([self.spend(seller, card, part), self.part_of(burned, part), self.part_of(bought, part)])
        self.period_end(0)
        self.period_end(0)
        self.sweep_all()
        self.period_end(0)

    # ------------------------------------------------------------ deposits and defaults

    async def books(self, members: list[str]) -> Dict:
        books = await super().books(members)
        deposits, covered = await self.reader.fetch(DEPOSITS_SQL), await self.reader.fetch(COVERED_SQL)
        return books | {
            "deposits": {self.codes[row[0]]: (*row[1:],) for row in deposits},
            "covered": {(row[0], self.codes[row[1]]): (*row[2:],) for row in covered},
        }

    def expected_books(self) -> Dict:
        desk = self.desk
        return super().expected_books() | {
            "deposits": {one: (desk.required(one), desk.held[one] * PER_MINOR, desk.owes(one)) for one in PARTNERS},
            "covered": {
                key: (one.secured, one.offset)
                for key, one in desk.statements.balances.items()
                if one.secured or one.offset
            },
        }

    async def _proposed(self, ask: Dict) -> Step:
        by, who, why = ask["client"], self.ids[ask["partner"]], "agreed by letter"
        if ask["kind"] == "DEPOSIT_PAYOUT":
            payout = PayoutAsk(who, money(ask["minor"]), ProposalReason(ask["reason"]), why)
            return await propose_payout(self.database, self.clock, by, self.key(), payout)
        if ask["kind"] == "DEFAULT":
            default = DefaultAsk(who, ask["label"], ProposalReason.UNCOLLECTABLE, why)
            return await propose_default(self.database, self.clock, by, self.key(), default)
        return await super()._proposed(ask)

    async def _decided(self, number: int, decision: Decision) -> Step | Outcome:
        proposal = self.proposals[number]
        approve = {ProposalKind.DEPOSIT_PAYOUT: approve_payout, ProposalKind.DEFAULT: approve_default}
        if decision.state != ProposalState.APPROVED or proposal.content.kind not in approve:
            return await super()._decided(number, decision)
        return await approve[proposal.content.kind](self.database, self.clock, proposal.id, decision)

    @rule(partner=partners, minor=small, twice=st.booleans())
    def deposit(self, partner: str, minor: int, *, twice: bool) -> None:
        key = self.key()
        given = NewDeposit(key, self.ids[partner], money(minor), self.today, f"bank {key}", "desk")
        for again in (False, True)[: 1 + twice]:
            assert self.run(record_deposit(self.database, self.clock, given)).replayed == again
        self.desk.held[partner] += minor

    @rule(partner=partners, off=st.sampled_from((-1, 0, 0, 1)), reason=st.sampled_from(("AGREEMENT", "CORRECTION")),
          how=ways, more=st.sampled_from((0, 0, 3_000)))  # fmt: skip
    def pay_out(self, partner: str, off: int, reason: str, how: str, more: int) -> None:
        """All of a deposit that is free, or a cent more or less; perhaps the partner buys meanwhile."""
        desk = self.desk
        needed = max(desk.required(partner), desk.owes(partner)) if reason == "AGREEMENT" else 0
        minor = max((desk.held[partner] * PER_MINOR - needed) // PER_MINOR + off, 1)
        number = self.agree("DEPOSIT_PAYOUT", partner, minor, "later" if more else how, reason=reason)
        if more and number is not None:
            self.send([self.purchase(partner, "ada", more, None, timedelta(0))])
            self.decide(number, "APPROVED", OTHER)

    @precondition(lambda self: self.statements)
    @rule(back=st.integers(0, 9), over=st.sampled_from((0, 0, 1, -1, 700)), days=st.sampled_from((0, 8, 30)))
    def pay_statement(self, back: int, over: int, days: int) -> None:
        self.now += timedelta(days=days)
        self.pay_open(*self.statements[-1 - back % len(self.statements)], over)

    @precondition(lambda self: self.statements)
    @rule(back=st.integers(0, 9), days=st.sampled_from((0, 15, 40)), how=ways, comes=st.sampled_from((0, 1, 2, 3)),
          paid=st.sampled_from((0, 0, 0, 1, -1)), all_due=st.booleans())  # fmt: skip
    def default(self, back: int, days: int, how: str, comes: int, paid: int, *, all_due: bool) -> None:
        """Statements are not paid: perhaps before that is decided, some of one is, or taken back; perhaps later."""
        self.now += timedelta(days=days)
        owing = [key for key in self.statements if self.desk.statements.left(*key) < 0] or self.statements
        label, partner = owing[-1 - back % len(owing)]
        owed = max(-self.desk.statements.left(label, partner), 1)
        which = None if all_due else label
        number = self.agree("DEFAULT", partner, None, "later" if paid else how, label=which)
        if paid:
            self.pay(label, partner, -paid * max(owed // 2, 1))
            if number is not None:
                self.decide(number, "APPROVED", OTHER)
        if comes:
            self.pay(label, partner, -max(owed // comes, 1))
        if comes == 2:  # and the bank takes it back
            self.pay(label, partner, max(owed // comes, 1))

    @rule(partner=partners, card=cards, part=parts, minor=st.sampled_from((0, 50, 200)),
          comes=st.sampled_from((0, 1, 2)), days=st.sampled_from((0, 20)), all_due=st.booleans())  # fmt: skip
    def fail(
        self, partner: str, card: str, part: int, minor: int, comes: int, days: int, *, all_due: bool
    ) -> None:  # fmt: skip
        """A partner is owed money of one month and owes it of the next, which it does not pay."""
        self.stock("fuel", card, 60_000)
        self.send([self.spend(partner, card, part)])
        self.period_end(0)
        if minor:
            self.deposit(partner, minor, twice=False)
        self.send([self.purchase(partner, card, 20_000, None, timedelta(0))])
        self.period_end(0)
        self.default(0, 15 + days, "agreed", comes, 0, all_due=all_due)
        self.pay_out(partner, 0, "AGREEMENT", "agreed", 0)

    # ------------------------------------------------------------ beside them

    @rule(partner=partners, card=cards, part=parts, age=ages)
    def authorize(self, partner: str, card: str, part: int, age: timedelta) -> None:
        self.send([self.spend(partner, card, part, age, kind="authorize")])

    @precondition(lambda self: any(record["kind"] == "authorize" for record in self.auditor.done.values()))
    @rule(
        back=st.integers(0, 4), part=st.one_of(st.none(), st.just(0), parts), kind=st.sampled_from(("capture", "void"))
    )
    def resolve(self, back: int, part: int | None, kind: str) -> None:
        held = [record["command"] for record in self.auditor.done.values() if record["kind"] == "authorize"]
        one = held[-1 - back % len(held)]
        rest = {"points": part and max(one["points"] // part, 1)} if kind == "capture" else {}
        self.send([self.command(kind, one["partner"], None, self.now, original=one["key"], **rest)])

    @precondition(lambda self: self.accepted)
    @rule(back=recent, part=parts, age=ages, pays=st.booleans())
    def reverse(self, back: int, part: int, age: timedelta, *, pays: bool) -> None:
        original = self.accepted[-1 - back % len(self.accepted)]
        if pays and original["kind"] == "earn":
            self.send([self.command("pay", original["partner"], None, self.now - age, original=original["key"])])
        self.send([self.part_of(original, part, age)])

    @rule(pair=st.permutations(CARDS), caller=st.sampled_from((OPERATOR, *PARTNERS)), part=parts)
    def transfer(self, pair: list[str], caller: str, part: int) -> None:
        given = self.spend(caller, pair[0], part, kind="transfer") | {"to": pair[1]}
        del given["reference"]
        self.send([given])


def _toml(value: object) -> str:
    return str(value) if isinstance(value, date) else f'"{value}"'
