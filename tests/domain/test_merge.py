"""Members who are one person: one stands for the other, and again for itself when that was a mistake."""

from datetime import timedelta

from domain.commands import Command, ConfirmPayment, MemberRef, OriginalRef, Posted, Refusal, Sweep, Swept
from domain.database import Database
from domain.errors import RefusalCode
from settlement.verifying import verify
from tests.domain.books import contents
from tests.domain.coalitions import Day, Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import Till

MEMBERS = "SELECT state, merged_into FROM member ORDER BY id"
LOTS = "SELECT account_id, granted, remaining, parent_id IS NULL FROM lot ORDER BY id"
WITHOUT_HISTORY = ("account", "lot", "member", "member_identifier")


async def test_the_kept_member_has_the_points_and_the_identifiers(till: Till, database: Database) -> None:
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("k2", "60.00", card="card-2", partner="fuel"))
    one, other = till.members["card-1"], till.members["card-2"]
    posted = await till.accept(till.merge("m", reason="two cards, one person"))

    assert (posted.points, posted.balance.account_id, posted.balance.available) == (60, one.account_id, 160)
    assert await till.rows(MEMBERS) == [("ACTIVE", None), ("CLOSED", one.member_id)]
    assert await till.rows("SELECT value, member_id, enrolled_member_id FROM member_identifier ORDER BY 1") == [
        ("card-1", one.member_id, None),
        ("card-2", one.member_id, other.member_id),
    ]
    assert await till.movements("m", "account_id", "kind", "points") == [
        (other.account_id, "TRANSFER_OUT", -60),
        (one.account_id, "TRANSFER_IN", 60),
    ]
    # Its card and its id mean the kept member, at any partner.
    await till.accept(till.purchase("k3", "5.00", card="card-2"))
    await till.accept(till.purchase("k4", "5.00", member=MemberRef(other.member_id)))
    burned = await till.accept(till.burn("b", 170, card="card-2"))
    assert (burned.command.member_id, burned.balance.available) == (one.member_id, 0)
    assert (await verify(database, till.clock)).holds


async def test_what_was_sent_for_the_duplicate_before_is_found_again(till: Till) -> None:
    earn, burn = till.purchase("k", "50.00", card="card-2"), till.burn("b", 10, card="card-2")
    returned = till.reversal("v", "k", amount="5.00")
    sent: list[Command] = [earn, burn, returned, till.merge("m")]
    for command in sent:
        await till.accept(command)
    before = await contents(till.database)
    for command in sent:
        posted = await till.accept(command)
        assert (posted.replayed, posted.balance.available) == (True, 35)
    assert await contents(till.database) == before
    await till.refuse(till.purchase("k", "51.00", card="card-2"), RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")
    await till.refuse(till.merge("m", reason="x"), RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


async def test_what_named_a_member_that_was_merged_since_is_found_again(till: Till) -> None:
    await till.enrolled("card-3")
    sent: list[Command] = [till.purchase("k", "50.00"), till.transfer("t", 20, target="card-2")]
    sent += [till.merge("m1", "card-2", "card-1"), till.merge("m2", "card-3", "card-2")]
    for command in sent:
        await till.accept(command)
    before = await contents(till.database)
    for command in sent:
        assert (await till.accept(command)).replayed
    assert await contents(till.database) == before
    await till.enrolled("card-4")
    others: list[Command] = [till.transfer("t", 20, target="card-4"), till.merge("m1", "card-4", "card-1")]
    for other in others:
        await till.refuse(other, RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


async def test_what_was_sent_while_members_were_merged_is_found_again_when_they_are_not(till: Till) -> None:
    await till.enrolled("card-3")
    sent: list[Command] = [till.purchase("k", "50.00", card="card-2"), till.burn("b", 10, card="card-2")]
    sent += [till.transfer("t", 5, source="card-2", target="card-3"), till.transfer("u", 5, target="card-2")]
    await till.accept(till.merge("m1", "card-3", "card-2"))
    await till.accept(till.merge("m2", "card-1", "card-3"))
    for command in sent[:2]:
        await till.accept(command)
    await till.refuse(sent[2], RefusalCode.INPUT_INVALID, "to")
    await till.accept(till.unmerge("x2", "m2"))
    await till.accept(till.purchase("l", "5.00"))
    await till.accept(sent[3])  # to who stands for card-2
    await till.refuse(till.unmerge("x1", "m2"), RefusalCode.ALREADY_REVERSED)
    await till.accept(till.unmerge("x1", "m1"))
    before = await contents(till.database)
    for command in (*sent[:2], sent[3]):
        assert (await till.accept(command)).replayed
    assert await contents(till.database) == before
    await till.refuse(till.purchase("k", "50.00", card="card-4"), RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


async def test_a_return_takes_its_own_lot_before_one_that_moved_here_of_the_same_instant(till: Till) -> None:
    await till.accept(till.purchase("k1", "60.00", card="card-2"))
    await till.accept(till.merge("m"))
    await till.accept(till.purchase("k2", "50.00"))
    await till.accept(till.reversal("r", "k2"))
    assert await till.movements("r", "points") == [(-50,)]


async def test_what_cannot_be_merged(till: Till) -> None:
    nobody = MemberRef(identifier=("card", "nobody"))
    await till.refuse(till.merge("m", duplicate="card-1"), RefusalCode.INPUT_INVALID, "duplicate")
    await till.refuse(till.merge("m", keep=nobody), RefusalCode.MEMBER_NOT_FOUND, "keep")
    await till.refuse(till.merge("m", duplicate=nobody), RefusalCode.MEMBER_NOT_FOUND, "duplicate")
    await till.refuse(till.merge("m", reason=""), RefusalCode.INPUT_INVALID, "reason")
    await till.accept(till.merge("m"))
    await till.refuse(till.merge("n"), RefusalCode.INPUT_INVALID, "duplicate")


async def test_a_merge_of_nothing_is_a_row_of_nothing(till: Till, database: Database) -> None:
    posted = await till.accept(till.merge("m"))
    assert (posted.points, await till.movements("m", "kind", "points")) == (0, [("TRANSFER_OUT", 0)])
    assert (await verify(database, till.clock)).holds
    await till.accept(till.unmerge("u", "m"))
    assert await till.rows(MEMBERS) == [("ACTIVE", None)] * 2
    assert (await verify(database, till.clock)).holds


async def test_undone_everything_is_as_it_was(till: Till, database: Database) -> None:
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("k2", "60.00", card="card-2", partner="fuel"))
    await till.accept(till.purchase("k3", "40.00", card="card-2"))
    await till.accept(till.burn("b", 30, card="card-2"))
    before = await contents(database)
    await till.accept(till.merge("m"))
    posted = await till.accept(till.unmerge("u", "m", reason="they are two"))

    assert (posted.points, posted.balance.available) == (70, 100)
    after = await contents(database)
    # All that was stored of them is as before, but for the lots that the merge opened, which are empty.
    assert {name for name in WITHOUT_HISTORY if before[name] != after[name]} == {"lot"}
    one, other = till.members["card-1"].account_id, till.members["card-2"].account_id
    assert await till.rows(LOTS) == [
        (one, 100, 100, True), (other, 60, 30, True), (other, 40, 40, True), (one, 30, 0, False), (one, 40, 0, False),
    ]  # fmt: skip
    assert await till.rows("SELECT lot_id = parent, points FROM (SELECT u.*, (SELECT min(id) FROM lot"
                           " WHERE account_id = u.account_id AND id = u.lot_id) AS parent FROM lot_use AS u"
                           " WHERE kind = 'TRANSFER_IN' ORDER BY id) AS u") == [(True, 30), (True, 40)]  # fmt: skip
    assert (await verify(database, till.clock)).holds
    # Its purchases are its own again, and so is a return.
    assert (await till.accept(till.reversal("v", "k3", amount="15.00"))).balance.available == 55
    replay = await till.accept(till.unmerge("u", "m", reason="they are two"))
    assert (replay.replayed, replay.points) == (True, 70)
    await till.refuse(till.unmerge("w", "m"), RefusalCode.ALREADY_REVERSED)


async def test_merged_undone_and_merged_again_can_be_undone_again(till: Till) -> None:
    await till.accept(till.purchase("k", "60.00", card="card-2"))
    for number in range(3):
        await till.accept(till.merge(f"m{number}"))
        await till.accept(till.unmerge(f"u{number}", f"m{number}"))
    assert (await till.available("card-1"), await till.available("card-2")) == (0, 60)
    await till.accept(till.merge("m"))
    assert await till.available("card-2") == 60
    assert (await till.accept(till.burn("b", 60, card="card-2"))).balance.available == 0


async def test_after_any_use_of_what_moved_a_merge_stands(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), partner("fuel"), expiry_months=1))
    await till.accept(till.purchase("k1", "10.00"))
    await till.accept(till.purchase("k2", "60.00", card="card-2"))
    await till.accept(till.merge("m"))
    await till.refuse(till.unmerge("u", "nothing"), RefusalCode.TRANSACTION_NOT_FOUND)
    await till.refuse(till.unmerge("u", "k2"), RefusalCode.TRANSACTION_NOT_FOUND)
    await till.refuse(till.unmerge("u", "m")._replace(original=OriginalRef(given=0)), RefusalCode.INPUT_INVALID,
                      "transactionId")  # fmt: skip
    # The kept member's own points are its own to spend, and an earning of the duplicate's card stays with it.
    await till.accept(till.purchase("k3", "5.00", card="card-2"))
    burned = await till.accept(till.burn("b1", 61))
    await till.refuse(till.unmerge("u", "m"), RefusalCode.MERGE_NOT_POSSIBLE)
    await till.accept(till.reversal("v", burned.command.key))
    await till.accept(till.unmerge("u", "m"))
    assert (await till.available("card-1"), await till.available("card-2")) == (15, 60)

    await till.accept(till.merge("m2"))
    till.clock.forward(days=40)
    await till.refuse(till.unmerge("u2", "m2"), RefusalCode.MERGE_NOT_POSSIBLE)


async def test_what_comes_back_to_the_duplicate_s_account_follows_it(till: Till, database: Database) -> None:
    await till.accept(till.purchase("k", "100.00", card="card-2"))
    await till.accept(till.burn("b", 40, card="card-2"))
    await till.accept(till.merge("m"))
    refunded = await till.accept(till.reversal("v", "b"))
    # The burn's lot is the duplicate's: it is filled, and passed on at once by a command of the operator's own.
    assert (refunded.points, refunded.balance.available, await till.available("card-1")) == (40, 100, 100)
    assert await till.rows("SELECT available FROM account WHERE id = :id", id=till.members["card-2"].account_id) == [
        (0,)
    ]
    assert await till.rows(
        "SELECT partner_id, kind, points FROM command WHERE starts_with(idempotency_key, 'system:')"
    ) == [(0, "TRANSFER", 40)]
    assert (await verify(database, till.clock)).holds
    # Both moved lots are whole, so the merge can still be undone: all of the points go back.
    assert (await till.accept(till.unmerge("u", "m"))).points == 100
    assert (await till.available("card-1"), await till.available("card-2")) == (0, 100)
    # What was passed on in a merge that is undone has nothing to do with the next one.
    await till.accept(till.merge("m2"))
    assert (await till.accept(till.unmerge("u2", "m2"))).points == 100
    assert (await verify(database, till.clock)).holds


async def test_a_return_for_the_duplicate_takes_from_the_kept_member(till: Till, database: Database) -> None:
    await till.accept(till.purchase("own", "20.00"))
    await till.accept(till.purchase("k", "100.00", card="card-2"))
    await till.accept(till.merge("m"))
    returned = await till.accept(till.reversal("v", "k", amount="30.00"))
    assert (returned.points, returned.shortfall_points, returned.balance.available) == (30, 0, 90)
    # Out of the lot that came from the purchase, not out of the kept member's own, which is older.
    assert await till.rows(LOTS.replace("account_id, ", "")) == [
        (20, 20, True), (100, 0, True), (100, 70, False), (30, 0, False),
    ]  # fmt: skip
    rest = await till.accept(till.reversal("w", "k"))
    assert (rest.points, rest.shortfall_points, rest.balance.available) == (70, 0, 20)
    assert (await verify(database, till.clock)).holds


async def test_chains_of_merges_are_undone_from_the_end(till: Till, database: Database) -> None:
    await till.enrolled("card-3")
    one, two, three = (till.members[f"card-{number}"].member_id for number in (1, 2, 3))
    await till.accept(till.purchase("k", "60.00", card="card-3"))
    await till.accept(till.merge("m1", "card-2", "card-3"))
    await till.accept(till.merge("m2", "card-1", "card-2"))
    assert await till.rows(MEMBERS) == [("ACTIVE", None), ("CLOSED", one), ("CLOSED", one)]
    assert (await till.accept(till.purchase("k2", "1.00", member=MemberRef(three)))).command.member_id == one
    await till.refuse(till.unmerge("u", "m1"), RefusalCode.MERGE_NOT_POSSIBLE)
    await till.accept(till.unmerge("u2", "m2"))
    assert await till.rows(MEMBERS) == [("ACTIVE", None), ("ACTIVE", None), ("CLOSED", two)]
    assert [await till.available(f"card-{number}") for number in (1, 2, 3)] == [1, 60, 60]
    await till.accept(till.unmerge("u1", "m1"))
    assert [await till.available(f"card-{number}") for number in (1, 2, 3)] == [1, 0, 60]
    assert (await verify(database, till.clock)).holds


async def test_points_that_moved_twice_are_their_purchase_s(open_till: OpenTill, database: Database) -> None:
    march_and_april: list[Table] = [{"to": Day("2017-03-31")}, {"from": Day("2017-04-01"), "issue_price": "0.010200"}]
    till = await open_till(coalition(partner("grocer", terms=march_and_april), partner("fuel")))
    await till.enrolled("card-3")
    await till.accept(till.purchase("older", "100.00", card="card-3"))
    till.clock.to(2017, 4, 2)
    await till.accept(till.purchase("k", "100.00", card="card-2"))
    await till.accept(till.merge("m1", "card-1", "card-2"))
    await till.accept(till.merge("m2", "card-3", "card-1"))
    assert (await till.accept(till.reversal("v", "k"))).points == 100
    # Out of April's lot at April's price, though March's expires first; nothing is left for the operator's spread.
    assert await till.movements("v", "points", "issue_value_micro", "pool_value_micro") == [
        (0, 0, 0), (-100, 1_020_000, -1_020_000),
    ]  # fmt: skip
    assert (await verify(database, till.clock)).holds


async def test_what_rolled_while_merged_keeps_its_date_when_that_is_undone(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), expiry="rolling", expiry_months=12))
    await till.accept(till.purchase("k", "100.00", card="card-2"))
    await till.accept(till.merge("m"))
    till.clock.to(2018, 2, 1)
    await till.accept(till.purchase("use", "1.00"))
    # The day on which they would have expired without that purchase is over.
    till.clock.to(2018, 4, 20)
    await till.accept(till.unmerge("u", "m"))
    assert (await till.accept(till.burn("b", 100, card="card-2"))).balance.available == 0


async def test_one_batch_may_do_all_of_it(till: Till, database: Database) -> None:
    other = till.members["card-2"]
    outcomes = await till.queue.post_many(
        [
            till.purchase("k1", "60.00", card="card-2"),
            till.merge("m"),
            till.purchase("k2", "5.00", card="card-2"),
            till.burn("b", 5, card="card-1"),
            till.reversal("v", "b"),
            till.unmerge("u", "m"),
            till.purchase("k3", "7.00", card="card-2"),
            till.purchase("k4", "1.00", member=MemberRef(other.member_id)),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [Posted] * 8, outcomes
    assert (await till.available("card-1"), await till.available("card-2")) == (5, 68)
    assert (await verify(database, till.clock)).holds


async def test_past_points_expire_before_a_merge(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), expiry_months=1))
    await till.accept(till.purchase("k", "60.00", card="card-2"))
    till.clock.now += timedelta(days=40)
    assert (await till.accept(till.merge("m"))).points == 0
    assert await till.rows("SELECT kind, points FROM transaction ORDER BY id") == [
        ("EARN", 60), ("EXPIRE", -60), ("TRANSFER_OUT", 0),
    ]  # fmt: skip


async def test_a_partner_s_enrolment_finds_the_kept_member(till: Till) -> None:
    await till.accept(till.merge("m"))
    found = await till.enroll(till.enrolment("card-2", key="again", partner="fuel"))
    assert (found.member_id, found.created) == (till.members["card-1"].member_id, False)
    outcome = await till.queue.post(till.merge("n", "card-2", "card-1"))
    assert isinstance(outcome, Refusal)


async def test_pending_points_follow_once_they_are_confirmed(open_till: OpenTill, database: Database) -> None:
    till = await open_till(coalition(partner("grocer", terms={"pending_days": 10}), partner("fuel", risk="PAID_FIRST")))
    await till.accept(till.purchase("k", "60.00", card="card-2"))
    await till.accept(till.purchase("l", "30.00", card="card-2", partner="fuel"))
    await till.accept(till.merge("m"))
    account_id = till.members["card-2"].account_id
    assert await till.rows("SELECT available, pending FROM account WHERE id = :id", id=account_id) == [(0, 90)]
    # The payment comes in at a partner that knows of no merge: the points are the kept member's at once.
    paid = await till.accept(ConfirmPayment(till.id_of("fuel"), "p", OriginalRef(key="l"), till.clock.now))
    assert (paid.points, paid.balance.available) == (30, 30)
    till.clock.forward(days=11)
    swept = await till.queue.post(Sweep(account_id))
    assert isinstance(swept, Swept)
    assert (swept.confirmed_points, await till.available("card-1")) == (60, 90)
    assert await till.rows("SELECT available, pending FROM account WHERE id = :id", id=account_id) == [(0, 0)]
    assert (await verify(database, till.clock)).holds
    assert (await till.accept(till.unmerge("u", "m"))).points == 90
