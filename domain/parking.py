"""Reversals that arrive before what they reverse: parked, and posted together with their original.

Two batches that do not know of each other, one that parks and one that brings the original, would both find nothing.
So a batch that may park takes an advisory lock alone that all others share: whoever comes second sees the first.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import text

from domain.asked import REVERSIBLE, Known, reversible
from domain.baskets import lines_from_text, lines_text
from domain.batch import Batch, StartOver
from domain.commands import (
    Amount,
    BasketLine,
    Command,
    CommandKind,
    CommandRow,
    OriginalRef,
    ParkedReversal,
    Posted,
    Reverse,
)
from domain.database import BatchConnection, Database, int_array
from domain.enrolling import key_conflict
from domain.errors import LedgerFault, RefusalCode, Refused
from domain.ledger import fingerprint
from domain.loading import PARKING_LOCKS_SQL, load_commands
from domain.parked import Parked
from domain.reversing import decide_reverse, read_ask
from domain.terms import Programme
from domain.values import decimal_from_minor

QUANTITY_DIGITS = 3


def may_park(commands: Iterable[Command]) -> bool:
    """Whether one of these commands may have to be parked."""
    return any(isinstance(command, Reverse) and command.awaits_original for command in commands)


async def lock_parking(connection: BatchConnection, periods: Iterable[int]) -> None:
    """Step 1 of a batch that may park: what ``lock_shared`` takes, but nobody else meanwhile posts an original."""
    await connection.execute(PARKING_LOCKS_SQL, {"periods": sorted(periods)})


PARKED_COLUMNS = (
    "id", "partner_id", "idempotency_key", "fingerprint", "original_key", "reference", "kind", "store_id",
    "amount_minor", "lines", "points", "reason", "occurred_at", "recorded_at", "expires_at", "state", "command_id",
    "refusal_code",
)  # fmt: skip
"""Every column of ``early_reversal``, in the table's order: that of its row type and of ``Parked``."""

PARKED_SQL = text(
    f"""
    SELECT {", ".join(f"e.{column}" for column in PARKED_COLUMNS)}
      FROM early_reversal AS e
     WHERE e.state = 'WAITING' AND e.id IN (
        SELECT k.id FROM unnest(CAST(CAST(:key_partners AS text) AS integer[]), CAST(:keys AS text[]))
                    AS asked (partner_id, idempotency_key)
          JOIN early_reversal AS k USING (partner_id, idempotency_key) WHERE k.state = 'WAITING'
        UNION
        SELECT o.id FROM unnest(CAST(CAST(:key_partners AS text) AS integer[]), CAST(:keys AS text[]))
                    AS asked (partner_id, original_key)
          JOIN early_reversal AS o USING (partner_id, original_key) WHERE o.state = 'WAITING'
        UNION
        SELECT r.id FROM unnest(CAST(CAST(:reference_partners AS text) AS integer[]), CAST(:references AS text[]))
                    AS asked (partner_id, reference)
          JOIN early_reversal AS r USING (partner_id, reference) WHERE r.state = 'WAITING')
     ORDER BY e.id FOR NO KEY UPDATE
    """  # noqa: S608 (constants of this module)
)
INSERT_PARKED_SQL = text(
    f"INSERT INTO early_reversal ({', '.join(PARKED_COLUMNS)})"  # noqa: S608 (constants of this module)
    f" SELECT {', '.join(PARKED_COLUMNS)} FROM unnest(CAST(:rows AS early_reversal[])) ORDER BY id"
)
UPDATE_PARKED_SQL = text(
    """
    UPDATE early_reversal AS e
       SET state = new.state, command_id = new.command_id, refusal_code = new.refusal_code
      FROM unnest(CAST(:ids AS bigint[]), CAST(:states AS text[]), CAST(:commands AS bigint[]),
                  CAST(:codes AS text[])) AS new (id, state, command_id, refusal_code)
     WHERE e.id = new.id AND e.state = 'WAITING'
    """
)
EXPIRE_PARKED_SQL = text("UPDATE early_reversal SET state = 'EXPIRED' WHERE state = 'WAITING' AND expires_at <= :now")


async def load_parked(connection: BatchConnection, batch: Batch, commands: Sequence[Command], known: Known) -> None:
    """Step 6, only while some are parked: those that the batch's keys and references mean, locked.

    Raises StartOver where an original arrived since step 0 looked for it: what is parked now would miss it for ever.
    """
    asked = known.asked
    if may_park(commands):
        arrived = await load_commands(
            connection, asked.original_ids, asked.original_keys, originals=asked.original_references
        )
        if not {original.command.id for original in arrived} <= known.original_ids:
            raise StartOver
    # A capture bears the reference of its authorization.
    held = {
        (hold.partner_id, hold.reference)
        for account in batch.accounts.values()
        for hold in account.holds.values()
        if hold.reference is not None
    }
    named = sorted(asked.references | held)
    rows = await connection.execute(
        PARKED_SQL,
        {
            "key_partners": int_array([partner_id for partner_id, _ in asked.keys]),
            "keys": [key for _, key in asked.keys],
            "reference_partners": int_array([partner_id for partner_id, _ in named]),
            "references": [reference for _, reference in named],
        },
    )
    batch.parked = [_parked(row) for row in rows.all()]


def _parked(row: Sequence[object]) -> Parked:
    parked = Parked(*row)  # type: ignore[arg-type]  # the columns' own types
    parked.kind = None if parked.kind is None else CommandKind(parked.kind)
    return parked


async def write_parked(connection: BatchConnection, batch: Batch) -> None:
    """Writes what the batch parked, and what became of what was parked. Raises LedgerFault as ``write_batch`` does."""
    new = [one for one in batch.parked if one.is_new]
    await _update_parked(connection, [one for one in batch.parked if one.is_changed and not one.is_new])
    if new:
        rows = [
            (
                one.id, one.partner_id, one.key, one.fingerprint, one.original_key, one.reference, one.kind,
                one.store_id, one.amount_minor, one.lines, one.points, one.reason, one.occurred_at, one.recorded_at,
                one.expires_at, one.state, one.command_id, one.refusal_code,
            )
            for one in new
        ]  # fmt: skip
        await connection.execute(INSERT_PARKED_SQL, {"rows": rows})


async def _update_parked(connection: BatchConnection, changed: Sequence[Parked]) -> None:
    if changed:
        result = await connection.execute(
            UPDATE_PARKED_SQL,
            {
                "ids": [one.id for one in changed],
                "states": [one.state for one in changed],
                "commands": [one.command_id for one in changed],
                "codes": [one.refusal_code for one in changed],
            },
        )
        if result.rowcount != len(changed):
            raise LedgerFault(f"{len(changed)} parked reversals expected, {result.rowcount} found waiting")


async def expire_parked(database: Database, now: datetime) -> int:
    """Gives up what waited in vain; answers how many. Safe to run at any time: it moves nothing."""
    async with database.posting() as connection:
        return (await connection.execute(EXPIRE_PARKED_SQL, {"now": now})).rowcount


# ---------------------------------------------------------------- deciding


def decide_reversal(batch: Batch, command: Reverse) -> Posted | ParkedReversal:
    """Accepts a reversal, or parks it where its original did not arrive yet and the caller wants that.

    Raises Refused and changes nothing.
    """
    held = under_key(batch, command.partner_id, command.key)
    if held is not None and held.fingerprint != _fingerprint(batch, command):
        raise key_conflict()
    try:
        posted = decide_reverse(batch, command)
    except Refused as refused:
        if refused.code != RefusalCode.TRANSACTION_NOT_FOUND:
            raise
        if held is not None and held.expires_at > batch.clock.recorded_at:
            return held.view(replayed=True)
        if not command.awaits_original:
            raise
        return _park(batch, command, held)
    if held is not None:
        held.resolve("POSTED", command_id=posted.command.id)
    return posted


def under_key(batch: Batch, partner_id: int, key: str) -> Parked | None:
    """The reversal that waits under this key."""
    return next(
        (one for one in batch.parked if one.state == "WAITING" and (one.partner_id, one.key) == (partner_id, key)), None
    )


def _park(batch: Batch, command: Reverse, held: Parked | None) -> ParkedReversal:
    ref = command.original
    if (command.partner_id, command.key) in batch.by_key:
        raise key_conflict()
    if ref.key is None and ref.reference is None:
        message = "an original that did not arrive yet has no id here: name it by originalKey, or reference and kind"
        raise Refused(RefusalCode.TRANSACTION_NOT_FOUND, message, "transactionId")
    if ref.reference is not None:
        batch.check_reference(ref.reference)
    if ref.reference is not None and ref.kind not in (CommandKind.EARN, CommandKind.BURN):
        message = "with a reference, an original that did not arrive yet needs its kind: EARN or BURN"
        raise Refused(RefusalCode.INPUT_INVALID, message, "kind")
    if ref.key is not None:
        batch.check_key(ref.key)
    batch.clock.check_occurred(command.occurred_at)
    ask = read_ask(batch, command)
    programme = batch.configuration.programme
    if held is not None:
        held.resolve("EXPIRED")
    parked = Parked(
        id=next(batch.new_ids),
        partner_id=command.partner_id,
        key=command.key,
        fingerprint=_fingerprint(batch, command),
        original_key=ref.key,
        reference=ref.reference,
        kind=ref.kind,
        store_id=batch.store_id(command.partner_id, ref.store),
        amount_minor=ask.amount_minor,
        lines=lines_text(ask.lines),
        points=ask.points,
        reason=command.reason,
        occurred_at=command.occurred_at,
        recorded_at=batch.clock.recorded_at,
        # Its original happened before it, and nothing is accepted that happened longer ago than this.
        expires_at=command.occurred_at + timedelta(days=programme.max_backdate_days),
        is_new=True,
    )
    batch.parked.append(parked)
    return parked.view(replayed=False)


def _fingerprint(batch: Batch, command: Reverse) -> bytes:
    ref, ask = command.original, read_ask(batch, command)
    return fingerprint(
        kind=CommandKind.REVERSAL,
        member_id=None,
        store_id=batch.store_id(command.partner_id, ref.store),
        reference=ref.reference,
        channel=ref.kind,
        amount_minor=ask.amount_minor,
        points=ask.points,
        lines=lines_text(ask.lines),
        reason=command.reason,
        input_digest=ref.key,
        occurred_at=command.occurred_at,
    )


def with_what_waited(batch: Batch, posted: Posted) -> Posted:
    """Posts the reversals that waited for this command; answers it with the balances after them.

    One that cannot be posted is given up with the code of its refusal, and changes nothing.
    """
    row = posted.command
    if row.kind not in REVERSIBLE or posted.replayed or batch.is_quote:
        return posted
    for parked in list(batch.parked):
        # In history a reversal may belong to a period that the batch did not lock: its till sends it again.
        if parked.state != "WAITING" or batch.clock.is_history or not _meets(batch, parked, row):
            continue
        try:
            undone = decide_reverse(batch, _command(parked, row, batch.configuration.programme))
        except Refused as refused:
            parked.resolve("REFUSED", refusal_code=refused.code)
            continue
        parked.resolve("POSTED", command_id=undone.command.id)
        posted = posted._replace(balance=undone.balance, budget=undone.budget or posted.budget)
    return posted


def _meets(batch: Batch, parked: Parked, row: CommandRow) -> bool:
    return parked.means(row) and row.kind in reversible(parked.ref) and parked.expires_at > batch.clock.recorded_at


def _command(parked: Parked, original: CommandRow, programme: Programme) -> Reverse:
    def money(minor: int) -> Amount:
        return Amount(decimal_from_minor(minor, programme.currency_digits), programme.currency)

    lines = lines_from_text(parked.lines)
    return Reverse(
        partner_id=parked.partner_id,
        key=parked.key,
        original=OriginalRef(command_id=original.id),
        occurred_at=parked.occurred_at,
        amount=None if parked.amount_minor is None else money(parked.amount_minor),
        lines=None
        if lines is None
        else tuple(
            BasketLine(
                line.sku,
                line.category,
                decimal_from_minor(line.quantity_milli, QUANTITY_DIGITS),
                money(line.amount_minor),
            )
            for line in lines
        ),
        points=parked.points,
        reason=parked.reason,
    )
