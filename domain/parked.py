"""A reversal that arrived before what it reverses, as a batch sees it."""

from dataclasses import dataclass
from datetime import datetime

from domain.commands import CommandKind, CommandRow, OriginalRef, ParkedReversal
from domain.values import NO_STORE_ID


@dataclass(slots=True)
class Parked:
    """One row of ``early_reversal``: how its original was named, how much is to be reversed, and what became of it.

    ``state`` is WAITING, POSTED (``command_id`` is the reversal), REFUSED (``refusal_code`` says why) or EXPIRED.
    """

    id: int
    partner_id: int
    key: str
    fingerprint: bytes
    original_key: str | None
    reference: str | None
    kind: CommandKind | None
    store_id: int
    amount_minor: int | None
    lines: str | None
    points: int | None
    reason: str | None
    occurred_at: datetime
    recorded_at: datetime
    expires_at: datetime
    state: str = "WAITING"
    command_id: int | None = None
    refusal_code: str | None = None
    is_new: bool = False
    is_changed: bool = False

    @property
    def ref(self) -> OriginalRef:
        """The original as it was named, but for its store."""
        return OriginalRef(key=self.original_key, reference=self.reference, kind=self.kind)

    def means(self, command: CommandRow) -> bool:
        """Whether that command, of a kind that it may mean, is what it reverses."""
        if command.partner_id != self.partner_id or self.store_id not in (NO_STORE_ID, command.store_id):
            return False
        if self.original_key is not None:
            return command.key == self.original_key
        return command.reference == self.reference

    def resolve(self, state: str, *, command_id: int | None = None, refusal_code: str | None = None) -> None:
        """Notes what became of it."""
        self.state, self.command_id, self.refusal_code = state, command_id, refusal_code
        self.is_changed = True

    def view(self, *, replayed: bool) -> ParkedReversal:
        """As its sender is answered."""
        return ParkedReversal(
            self.id, self.partner_id, self.key, self.original_key, self.reference, self.kind, self.state,
            self.occurred_at, self.recorded_at, self.expires_at, self.command_id, self.refusal_code, replayed,
        )  # fmt: skip
