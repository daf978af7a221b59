"""What may be watched of the till without touching it: batches, and faults told without anybody's data."""

from collections.abc import Sequence
from contextvars import ContextVar
from traceback import walk_tb
from typing import Protocol

from domain.commands import Command, Outcome
from domain.errors import LedgerFault

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that is being answered; what is logged for it carries it. None outside of requests."""


class QueueObserver(Protocol):
    """Somebody who counts. Called between batches: it must be quick and must not raise."""

    def batch_posted(self, commands: Sequence[Command], outcomes: Sequence[Outcome], duration_us: int) -> None:
        """A batch was answered; ``duration_us`` is from the first statement to the commit, retries included."""

    def turned_away(self, kind: type[Command]) -> None:
        """The queue was full or closing, so that a command of that kind was not taken."""


def fault_facts(error: BaseException) -> dict[str, object]:
    """What may be logged of a surprise: its type, SQLSTATE, constraint and frames.

    Not its text: drivers put a row's values into theirs. Only the ledger's own faults and the operating system's,
    which name no member, are quoted.
    """
    driver = getattr(error, "orig", None) or error
    facts = {
        "error": type(error).__qualname__,
        "sqlstate": getattr(driver, "sqlstate", None),
        "constraint": getattr(getattr(error, "driver_exception", driver), "constraint_name", None),
        "text": str(error) if isinstance(error, LedgerFault) else getattr(error, "strerror", None),
        "cause": None if error.__cause__ is None else type(error.__cause__).__qualname__,
    }
    frames = [
        f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}" for frame, line in walk_tb(error.__traceback__)
    ]
    return {**{name: fact for name, fact in facts.items() if fact is not None}, "frames": frames}
