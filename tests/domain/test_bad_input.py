"""Whatever a till may send: refused by name, without a trace, and without harm to its neighbours in the batch."""

from collections.abc import Iterator
from datetime import timedelta

from domain.commands import BasketLine, Burn, Command, Earn, Enrolled, OriginalRef, Posted, Refusal, StoreRef
from domain.errors import RefusalCode
from tests.domain.tills import Till

UNPRINTABLE = [
    "",
    " x",
    "x ",
    "\t",
    "\x00",
    "a\x00b",
    "a\r\nb",
    "\x1b[0m",
    "\x7f",
    "\x9f",
    "\ud800",
    "a\udfffb",
    "x" * 201,
]
LINE = ("sku", "category", "1", "1.00")


def bad_commands(till: Till) -> Iterator[tuple[Command, RefusalCode, str | None]]:
    """Commands with exactly one thing wrong, the code that says so and the field that it names."""
    invalid, amount_invalid = RefusalCode.INPUT_INVALID, RefusalCode.AMOUNT_INVALID
    earn, burn = till.purchase("bad", "1.00"), till.burn("bad", 1)
    reverse = till.reversal("bad", "good")
    for text in UNPRINTABLE:
        yield earn._replace(key=text), invalid, "idempotencyKey"
        yield burn._replace(key=text), invalid, "idempotencyKey"
        yield reverse._replace(key=text), invalid, "idempotencyKey"
        yield earn._replace(reference=text), invalid, "reference"
        yield burn._replace(reference=text), invalid, "reference"
        yield earn._replace(channel=text), invalid, "channel"
        yield reverse._replace(reason=text if len(text) < 200 else "x" * 501), invalid, "reason"
        yield reverse._replace(original=OriginalRef(key=text)), RefusalCode.TRANSACTION_NOT_FOUND, None
        yield reverse._replace(original=OriginalRef(reference=text)), RefusalCode.TRANSACTION_NOT_FOUND, None
        yield earn._replace(store=StoreRef(code=text)), RefusalCode.STORE_NOT_FOUND, "storeCode"
        yield earn._replace(lines=(_line(till)._replace(sku=text),)), invalid, "lines.0.sku"
        yield earn._replace(lines=(_line(till)._replace(category=text),)), invalid, "lines.0.category"
    for key in ("system:", "system:expiry:1"):
        yield earn._replace(key=key), invalid, "idempotencyKey"
    for amount in ("-0.01", "-1", "0.001", "1.005", "1000000000000.01", "NaN", "Infinity", "-Infinity", "1E+400"):
        money = till.money(amount)
        yield earn._replace(amount=money), amount_invalid, "amount.amount"
        yield reverse._replace(amount=money), amount_invalid, "amount.amount"
        yield earn._replace(lines=(_line(till)._replace(amount=money),)), amount_invalid, "lines.0.amount.amount"
    for quantity in ("-1", "0.0001", "NaN", "Infinity", "1000000000.001"):
        lines = (_line(till), *(till.basket([("sku", None, quantity, "0.00")]) or ()))
        yield earn._replace(lines=lines), amount_invalid, "lines.1.quantity"
    for currency in ("USD", "eur", "", "\x00", "\ud800"):
        yield earn._replace(amount=till.money("1.00", currency)), RefusalCode.CURRENCY_MISMATCH, "amount.currency"
    for lines_of in ([], [LINE, LINE], [("sku", None, "1", "0.99")]):
        yield earn._replace(lines=till.basket(lines_of)), amount_invalid, "lines"
    for points in (0, -1, 10**9 + 1, 2**63, 2**70):
        yield burn._replace(points=points), amount_invalid, "points"
        yield reverse._replace(points=points), amount_invalid, "points"
    yield burn._replace(points=10**9), RefusalCode.INSUFFICIENT_POINTS, "points"
    for given in (0, 2, 3):
        yield reverse._replace(original=OriginalRef(key="good", given=given)), invalid, "transactionId"
    yield till.purchase("bad", "1000000000000.00"), amount_invalid, "amount"  # more points than one command may earn
    for command in (earn, burn, reverse):
        late = till.clock.now + timedelta(minutes=6)
        yield command._replace(occurred_at=late), RefusalCode.OCCURRED_IN_FUTURE, "occurredAt"


def _line(till: Till) -> BasketLine:
    [line] = till.basket([LINE]) or ()
    return line


async def test_each_is_refused_alone_and_by_name(till: Till) -> None:
    await till.accept(till.purchase("good", "50.00"))

    for command, code, field_name in bad_commands(till):
        await till.refuse(command, code, field_name)


async def test_all_of_them_in_one_batch_harm_no_good_one(till: Till) -> None:
    await till.accept(till.purchase("good", "50.00"))
    bad = list(bad_commands(till))
    commands: list[Command] = []
    for number, (command, _, _) in enumerate(bad):
        commands += [till.purchase(f"ok-{number}", "1.00", card="card-2"), command]
    outcomes = await till.queue.post_many(commands)

    assert len(bad) > 100
    for (command, code, field_name), outcome in zip(bad, outcomes[1::2], strict=True):
        assert isinstance(outcome, Refusal)
        assert (outcome.code, outcome.field, outcome.key) == (code, field_name, command.key)
        assert not outcome.retryable
    for number, outcome in enumerate(outcomes[::2], start=1):
        assert isinstance(outcome, Posted)
        assert (outcome.points, outcome.balance.available) == (1, number)
    assert await till.available("card-1") == 50


async def test_the_longest_texts_are_taken(till: Till) -> None:
    longest = "ü" * 200
    posted = await till.accept(till.purchase(longest, reference=longest, lines=[("s" * 100, "c" * 100, "1", "100.00")]))

    assert (posted.command.key, posted.command.reference) == (longest, longest)
    reversal = till.reversal("r", longest, reason="because\u2026 " + "x" * 490)
    assert (await till.accept(reversal)).command.reason == reversal.reason


async def test_text_is_kept_as_it_is(till: Till) -> None:
    tricky = "';--\" \\ %s :name {} \U0001f6d2 \u202e\u200bx"
    posted = await till.accept(till.purchase(tricky, reference=tricky, lines=[(tricky, tricky, "1", "100.00")]))

    assert await till.rows("SELECT idempotency_key, reference FROM command WHERE id = :id", id=posted.command.id) == [
        (tricky, tricky)
    ]
    assert (
        await till.accept(till.purchase(tricky, reference=tricky, lines=[(tricky, tricky, "1", "100.00")]))
    ).replayed
    enrolled = await till.enroll(till.enrolment(tricky, key="e", attributes=((tricky, tricky),)))
    assert isinstance(enrolled, Enrolled)


async def test_a_reference_is_used_once_per_store_and_kind(till: Till) -> None:
    store = StoreRef(code="grocer-1")
    await till.accept(till.purchase("k1", reference="r", store=store))

    duplicate = RefusalCode.DUPLICATE_REFERENCE
    await till.refuse(till.purchase("k2", reference="r", store=store), duplicate, "reference")
    await till.refuse(till.purchase("k2", "5.00", card="card-2", reference="r", store=store), duplicate, "reference")
    # Another store, no store, another kind, another partner: each counts its own.
    others: list[Earn | Burn] = [
        till.purchase("k3", reference="r", store=StoreRef(code="grocer-2")),
        till.purchase("k4", reference="r"),
        till.burn("k5", 1, reference="r", store=store),
        till.purchase("k6", reference="r", partner="fuel"),
        till.purchase("k7", reference="R", store=store),
    ]
    for other in others:
        await till.accept(other)
    await till.refuse(till.purchase("k8", reference="r"), duplicate, "reference")
    await till.refuse(till.burn("k9", 1, reference="r", store=store), duplicate, "reference")
    # A return does not free it.
    await till.accept(till.reversal("v", "k1"))
    await till.refuse(till.purchase("k2", reference="r", store=store), duplicate, "reference")


async def test_of_one_reference_in_one_batch_the_first_counts(till: Till) -> None:
    first, second, third = await till.queue.post_many(
        [
            till.purchase("k1", reference="r"),
            till.purchase("k2", reference="r", card="card-2"),
            till.purchase("k1", reference="r"),
        ]
    )
    assert isinstance(first, Posted)
    assert isinstance(second, Refusal)
    assert second.code == RefusalCode.DUPLICATE_REFERENCE
    assert isinstance(third, Posted)
    assert (first.replayed, third.replayed) == (False, True)


async def test_only_the_caller_s_own_purchases_and_burns_can_be_reversed(till: Till) -> None:
    posted = await till.accept(till.purchase("good", "50.00"))
    undone = await till.accept(till.reversal("undone", "good", amount="10.00"))
    for command in (
        till.reversal("v", "good", partner="fuel"),
        till.reversal("v", OriginalRef(command_id=posted.command.id), partner="fuel"),
        till.reversal("v", OriginalRef(reference="good"), partner="fuel"),
        till.reversal("v", "undone"),
        till.reversal("v", OriginalRef(command_id=undone.command.id)),
        till.reversal("v", "enrol-card-1"),
        till.reversal("v", "never"),
        till.reversal("v", OriginalRef(command_id=1)),
        till.reversal("v", OriginalRef()),
    ):
        await till.refuse(command, RefusalCode.TRANSACTION_NOT_FOUND)
