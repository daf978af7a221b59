"""Accounts that share, swap and change hands: transfers, merges and household pools."""

from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.model.driver import CARDS, Driver, ages, amounts_minor, baskets, cards, partners, parts, recent
from tests.model.ledger import OPERATOR, Dict

two = st.tuples(parts, parts)
callers = st.sampled_from((OPERATOR, OPERATOR, "grocer", "fuel"))
pairs = st.permutations(CARDS).map(lambda names: (names[0], names[1]))


class Accounts(Driver):
    """Three members who give, join and merge; nothing is imported here, so that ties of lots are those of one queue."""

    @initialize(name=st.sampled_from(("household", "clan")), first=st.lists(baskets, min_size=3, max_size=8))
    def open(self, name: str, first: list[tuple[str, str, int, timedelta]]) -> None:
        self.begin(name, [])
        self.enroll("cyd", "grocer")
        self.send([self.purchase(partner, card, amount, None, age) for partner, card, amount, age in first])

    def act(self, kind: str, caller: str, card: str, **rest: object) -> None:
        one = self.command(kind, caller, card, None, **rest)
        [answer] = self.send([one])
        if kind == "found" and isinstance(answer, dict):
            [(account_id, pool_id)] = self.rows(
                "SELECT p.account_id, p.id FROM pool AS p JOIN pool_member AS m ON m.pool_id = p.id"
                " JOIN command AS c ON c.id = m.command_id WHERE c.idempotency_key = :key",
                key=one["key"],
            )
            self.accounts[account_id] = f"pool {one['key']}"
            self.pool_ids[one["key"]] = pool_id

    def __init__(self) -> None:
        super().__init__()
        self.pool_ids: dict[str, int] = {"none": 1}

    # ------------------------------------------------------------ points that move

    @rule(pair=pairs, caller=callers, part=parts, age=ages, more=st.sampled_from((0, 0, 0, 9)))
    def transfer(self, pair: tuple[str, str], caller: str, part: int, age: timedelta, more: int) -> None:
        given = self.spend(caller, pair[0], part, age, more, kind="transfer") | {"to": pair[1]}
        del given["reference"]
        self.send([given])

    @rule(pair=pairs, caller=callers, parts=two, partner=partners)
    def give_and_return(self, pair: tuple[str, str], caller: str, parts: tuple[int, int], partner: str) -> None:
        """Points of a purchase are given away, in part or whole, perhaps back, and the goods come back after that."""
        bought = self.purchase(partner, pair[0], 5_000 * parts[0], None, timedelta(0))
        self.send([bought])
        for giver, taker in (pair, pair[::-1])[: parts[1]]:
            given = self.spend(caller, giver, parts[1], kind="transfer") | {"to": taker}
            del given["reference"]
            self.send([given])
        self.send([self.part_of(bought, parts[1])])

    @rule(
        pair=pairs, caller=callers, first=st.sampled_from((200, 250, 300)), more=st.sampled_from((0, 0, 1, 50)),
        hours=st.sampled_from((0, 1, 14, 23)),
    )  # fmt: skip
    def give_twice(self, pair: tuple[str, str], caller: str, first: int, more: int, hours: int) -> None:
        """Two gifts reach what may be given away on one day, or go over it, or happen on two days."""
        self.stock("fuel", pair[0], 60_000)
        for points in (first, 400 - first + more):
            self.send([self.command("transfer", caller, pair[0], self.now, points=points, to=pair[1])])
            self.now += timedelta(hours=hours)

    # ------------------------------------------------------------ members that are one person

    @rule(pair=pairs)
    def merge(self, pair: tuple[str, str]) -> None:
        self.act("merge", OPERATOR, pair[0], keep=pair[1])

    @rule(pair=pairs, partner=partners, amount_minor=amounts_minor, part=parts, undo=st.booleans())
    def merge_and_return(
        self, pair: tuple[str, str], partner: str, amount_minor: int, part: int, *, undo: bool
    ) -> None:
        """What a merged member had bought and burned comes back, and goes on to who stands for it."""
        bought = self.purchase(partner, pair[0], amount_minor, None, timedelta(0))
        burned = self.spend(partner, pair[0], part)
        self.send([bought, burned])
        self.merge(pair)
        self.send([self.part_of(burned, part)])
        if undo:
            self.unmerge(0)
        self.send([self.part_of(bought, part)])

    @precondition(lambda self: any(record["kind"] == "merge" for record in self.auditor.done.values()))
    @rule(back=st.integers(0, 2))
    def unmerge(self, back: int) -> None:
        merges = [record["command"] for record in self.auditor.done.values() if record["kind"] == "merge"]
        if merges:
            original = merges[-1 - back % len(merges)]["key"]
            self.send([self.command("unmerge", OPERATOR, None, None, original=original)])

    # ------------------------------------------------------------ households

    @rule(card=cards, caller=callers)
    def found(self, card: str, caller: str) -> None:
        self.act("found", caller, card)

    @rule(
        card=cards, caller=callers, back=st.integers(0, 2), role=st.sampled_from(("HEAD", "MEMBER", "MEMBER")),
        limit=st.sampled_from((None, 20, 90)),
    )  # fmt: skip
    def join(self, card: str, caller: str, back: int, role: str, limit: int | None) -> None:
        """A member comes into a pool, or changes its place there."""
        pool = list(self.pool_ids)[-1 - back % len(self.pool_ids)]
        self.act("join", caller, card, pool=pool, pool_id=self.pool_ids[pool], role=role, limit=limit)

    @rule(pair=pairs, caller=callers, limit=st.sampled_from((None, 40)), partner=partners, parts=two)
    def share(
        self, pair: tuple[str, str], caller: str, limit: int | None, partner: str, parts: tuple[int, int]
    ) -> None:
        """Two found a household, after a burn by one of them, and burn of its points; the burns are refunded."""
        before = self.spend(partner, pair[1], parts[0])
        self.send([before])
        self.act("found", caller, pair[0])
        pool = list(self.pool_ids)[-1]
        self.act("join", caller, pair[1], pool=pool, pool_id=self.pool_ids[pool], role="MEMBER", limit=limit)
        burns = [self.spend(partner, card, part) for card, part in zip(pair, parts, strict=True)]
        self.send([*burns, *(self.part_of(one, part) for one, part in zip((before, *burns), (2, *parts), strict=True))])

    @rule(card=cards, caller=callers)
    def leave(self, card: str, caller: str) -> None:
        self.act("leave", caller, card)

    # ------------------------------------------------------------ beside them

    @rule(partner=partners, card=cards, part=parts, age=ages)
    def authorize(self, partner: str, card: str, part: int, age: timedelta) -> None:
        self.send([self.spend(partner, card, part, age, kind="authorize")])

    @precondition(lambda self: any(record["kind"] == "authorize" for record in self.auditor.done.values()))
    @rule(back=st.integers(0, 4), part=st.one_of(st.none(), parts))
    def capture(self, back: int, part: int | None) -> None:
        held = [record["command"] for record in self.auditor.done.values() if record["kind"] == "authorize"]
        one = held[-1 - back % len(held)]
        points = part and max(one["points"] // part, 1)
        self.send([self.command("capture", one["partner"], None, self.now, original=one["key"], points=points)])

    @precondition(lambda self: self.accepted)
    @rule(back=recent, part=parts, age=ages)
    def reverse(self, back: int, part: int, age: timedelta) -> None:
        self.send([self.part_of(self.accepted[-1 - back % len(self.accepted)], part, age)])

    @precondition(lambda self: self.auditor.done)
    @rule(back=recent, how=st.sampled_from(("same", "new key")))
    def replay(self, back: int, how: str) -> None:
        before: list[Dict] = [record["command"] for record in self.auditor.done.values()]
        command = dict(before[-1 - back % len(before)])
        if how == "new key" and command["kind"] != "found":
            command["key"] = f"key-{next(self.keys)}"
        self.send([command])
