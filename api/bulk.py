"""The bulk file: purchases, payments, burns, returns and enrolments as CSV rows, posted in strict file order.

Streams in constant memory. Every row carries its key, so a file that was interrupted is simply given again. A row
that cannot be posted goes to the reject file with its line number and refusal code; the others are not held up.
"""

import asyncio
import csv
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import NamedTuple, TextIO

from api.graphql.ids import IdCodec
from domain.commands import (
    Amount,
    Burn,
    Command,
    CommandKind,
    ConfirmPayment,
    Earn,
    Enroll,
    MemberRef,
    OriginalRef,
    Outcome,
    Posted,
    Refusal,
    Reverse,
    StoreRef,
)
from domain.errors import InputFileError, RefusalCode, Refused
from domain.members import IDENTIFIER_KINDS, normalised
from domain.queue import BATCH_MAX, PostingQueue
from domain.terms import Configuration


class _Values(NamedTuple):
    kind: str
    idempotency_key: str
    partner: str
    store: str
    member_kind: str
    member: str
    occurred_at: str
    amount: str
    currency: str
    points: str
    reference: str


HEADER = _Values._fields
"""Columns of the bulk file, in this order."""

REJECT_HEADER = ("line", "code", "message", *HEADER)
ENROLL_CHANNEL = "IMPORT"
FIELD_MAX_BYTES = 10_000
PORTION_ROWS = 20


@dataclass
class Summary:
    """What became of a file's rows; ``posted`` by kind, ``later_period``: booked after the period of occurrence."""

    rows: int = 0
    posted: Counter[str] = field(default_factory=Counter)
    replayed: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    later_period: int = 0

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "rows": self.rows,
            "posted": sum(self.posted.values()),
            "postedByKind": dict(self.posted),
            "replayed": self.replayed,
            "rejected": sum(self.rejected.values()),
            "rejectedByCode": {str(code): rows for code, rows in self.rejected.items()},
            "bookedInLaterPeriod": self.later_period,
        }


class Row(NamedTuple):
    """One line of the file as it was read."""

    line: int
    values: Sequence[str]


def read_rows(source: TextIO) -> Iterator[Row]:
    """The rows after the header. Raises InputFileError for a file that is not a bulk file."""
    csv.field_size_limit(FIELD_MAX_BYTES)
    reader = csv.reader(source)
    try:
        header = next(reader, None)
        if header is None or tuple(name.strip().lower() for name in header) != HEADER:
            raise InputFileError(f"the first line must be the header {','.join(HEADER)}")
        for values in reader:
            if values:
                yield Row(reader.line_num, values)
    except UnicodeDecodeError as error:
        # Text is read ahead of the lines, so the line itself is not known.
        message = f"somewhere after line {reader.line_num} the file is no UTF-8 text: save it as UTF-8, import it again"
        raise InputFileError(message) from error
    except csv.Error as error:
        message = f"line {reader.line_num} cannot be read ({error}): is a quote left open there or before?"
        raise InputFileError(message) from error


class Importer:
    """Posts rows through a queue, a batch at a time, and keeps the count."""

    def __init__(
        self,
        queue: PostingQueue,
        configuration: Configuration,
        ids: IdCodec,
        reject: Callable[[Row, Refusal], None],
    ) -> None:
        self._queue = queue
        self._configuration = configuration
        self._ids = ids
        self._reject = reject
        self._makers: dict[str, Callable[[int, _Values], Command]] = {
            "enroll": self._enroll,
            "earn": self._earn,
            "payment": self._payment,
            "burn": self._burn,
            "reverse": self._reverse,
        }
        self.summary = Summary()

    async def run(self, rows: Iterable[Row], progress: Callable[[Row], None]) -> Summary:
        """Posts every row, in order. ``progress`` is told the last row of each batch."""
        pending = iter(rows)
        posting: asyncio.Task[None] | None = None
        while chunk := list(islice(pending, BATCH_MAX)):
            read = [one async for one in self._commands(chunk)]
            if posting is not None:
                await posting
            posting = asyncio.create_task(self._post(chunk, read, progress))
        if posting is not None:
            await posting
        return self.summary

    async def _commands(self, chunk: Sequence[Row]) -> AsyncIterator[Command | Refusal]:
        # In small portions, so that the database works on the batch before while this one is read.
        for start in range(0, len(chunk), PORTION_ROWS):
            for row in chunk[start : start + PORTION_ROWS]:
                yield self._read(row)
            await asyncio.sleep(0)

    async def _post(
        self, chunk: Sequence[Row], read: Sequence[Command | Refusal], progress: Callable[[Row], None]
    ) -> None:
        self.summary.rows += len(chunk)
        posted = iter(await self._queue.post_many([one for one in read if not isinstance(one, Refusal)]))
        for row, one in zip(chunk, read, strict=True):
            self._count(row, one if isinstance(one, Refusal) else next(posted))
        progress(chunk[-1])

    def _read(self, row: Row) -> Command | Refusal:
        try:
            return self._command(row)
        except Refused as refused:
            return Refusal(refused.code, refused.message, refused.field, "")

    def _count(self, row: Row, outcome: Outcome) -> None:
        if isinstance(outcome, Refusal):
            self.summary.rejected[outcome.code] += 1
            self._reject(row, outcome)
        elif outcome.replayed:
            self.summary.replayed += 1
        else:
            self.summary.posted[row.values[0].strip().lower()] += 1
            if isinstance(outcome, Posted):
                occurred_in = self._configuration.programme.calendar.containing(outcome.command.occurred_at)
                self.summary.later_period += outcome.command.period_id > occurred_in

    def _command(self, row: Row) -> Command:
        if len(row.values) != len(HEADER):
            message = f"{len(row.values)} columns instead of {len(HEADER)}"
            raise Refused(RefusalCode.INPUT_INVALID, message)
        values = _Values(*map(str.strip, row.values))
        partner = self._configuration.partners_by_code.get(values.partner)
        if partner is None:
            raise Refused(RefusalCode.INPUT_INVALID, "no partner has this code", "partner")
        make = self._makers.get(values.kind.lower())
        if make is None:
            raise Refused(RefusalCode.INPUT_INVALID, "kind must be enroll, earn, payment, burn or reverse", "kind")
        return make(partner.id, values)

    def _enroll(self, partner_id: int, values: _Values) -> Command:
        if values.member_kind not in IDENTIFIER_KINDS:
            raise Refused(RefusalCode.INPUT_INVALID, "member_kind must be card, email or phone", "member_kind")
        identifiers: dict[str, str | None] = dict.fromkeys(IDENTIFIER_KINDS)
        identifiers[values.member_kind] = values.member
        return Enroll(
            partner_id,
            values.idempotency_key,
            identifiers["card"],
            identifiers["email"],
            identifiers["phone"],
            _store(values),
            ENROLL_CHANNEL,
            (),
            _instant(values.occurred_at) if values.occurred_at else None,
        )

    def _earn(self, partner_id: int, values: _Values) -> Command:
        amount = _amount(values)
        if amount is None:
            raise Refused(RefusalCode.AMOUNT_INVALID, "an earn row needs an amount", "amount")
        return Earn(
            partner_id,
            values.idempotency_key,
            self._member(partner_id, values),
            amount,
            _instant(values.occurred_at),
            values.reference,
            _store(values),
        )

    def _payment(self, partner_id: int, values: _Values) -> Command:
        purchase = OriginalRef(reference=values.reference, kind=CommandKind.EARN, store=_store(values))
        return ConfirmPayment(partner_id, values.idempotency_key, purchase, _instant(values.occurred_at))

    def _burn(self, partner_id: int, values: _Values) -> Command:
        points = _points(values)
        if points is None:
            raise Refused(RefusalCode.AMOUNT_INVALID, "a burn row needs points", "points")
        return Burn(
            partner_id,
            values.idempotency_key,
            self._member(partner_id, values),
            points,
            _instant(values.occurred_at),
            values.reference,
            _store(values),
        )

    def _reverse(self, partner_id: int, values: _Values) -> Command:
        amount, points = _amount(values), _points(values)
        # Amount or points tell which kind is meant; with neither, a reference that fits both is ambiguous.
        kind = CommandKind.EARN if amount is not None else CommandKind.BURN if points is not None else None
        original = OriginalRef(reference=values.reference, kind=kind, store=_store(values))
        return Reverse(
            partner_id,
            values.idempotency_key,
            original,
            _instant(values.occurred_at),
            amount,
            None,
            points,
        )

    def _member(self, partner_id: int, values: _Values) -> MemberRef:
        kind, raw = values.member_kind, values.member
        if kind == "id":
            numbers = self._ids.decode(partner_id, "Member", raw)
            return MemberRef(member_id=None if numbers is None else numbers[0])
        if kind not in IDENTIFIER_KINDS:
            raise Refused(RefusalCode.INPUT_INVALID, "member_kind must be card, email, phone or id", "member_kind")
        return MemberRef(None, normalised(kind, raw, self._configuration.programme.region))


def _store(values: _Values) -> StoreRef:
    return StoreRef(None, values.store or None)


def _instant(raw: str) -> datetime:
    try:
        instant = datetime.fromisoformat(raw)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        message = "occurred_at must be a time with its offset, such as 2017-03-05T17:04:00+01:00"
        raise Refused(RefusalCode.INPUT_INVALID, message, "occurred_at")
    return instant


def _amount(values: _Values) -> Amount | None:
    if not values.amount:
        return None
    try:
        return Amount(Decimal(values.amount), values.currency)
    except InvalidOperation:
        raise Refused(RefusalCode.AMOUNT_INVALID, "the amount is not a number", "amount") from None


def _points(values: _Values) -> int | None:
    raw = values.points
    if not raw:
        return None
    if not (raw.isascii() and raw.lstrip("-").isdigit()) or len(raw) > len(str(2**63)):
        raise Refused(RefusalCode.AMOUNT_INVALID, "points must be a whole number", "points")
    return int(raw)
