"""Every error of the platform, as one tree of facts.

    CoalitionError
    |-- Refused                a command that cannot be done; carries a RefusalCode and changes nothing
    |-- ConfigurationError     settings or a coalition file that cannot work; the text says what to do
    |-- InputFileError         a file that cannot be read as what it should be
    `-- LedgerFault            the ledger is not what the code relies on: a bug or an edit behind its back

Inside, they are raised; at the edge ``Refused`` becomes a ``Refusal`` of the GraphQL schema, a row of a reject file
or a line on the terminal, and everything else is logged and masked. Database constraints map to codes in
CONSTRAINT_CODES.
"""

from enum import StrEnum


class RefusalCode(StrEnum):
    """Why a command was refused; a code never changes its meaning and is never removed."""

    MEMBER_NOT_FOUND = "MEMBER_NOT_FOUND"
    MEMBER_CLOSED = "MEMBER_CLOSED"
    INSUFFICIENT_POINTS = "INSUFFICIENT_POINTS"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    PARTNER_SUSPENDED = "PARTNER_SUSPENDED"
    PARTNER_LEFT = "PARTNER_LEFT"
    PROGRAMME_ENDED = "PROGRAMME_ENDED"
    POINTS_OPEN = "POINTS_OPEN"
    STORE_NOT_FOUND = "STORE_NOT_FOUND"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    DUPLICATE_REFERENCE = "DUPLICATE_REFERENCE"
    TRANSACTION_NOT_FOUND = "TRANSACTION_NOT_FOUND"
    AMBIGUOUS_REFERENCE = "AMBIGUOUS_REFERENCE"
    ALREADY_REVERSED = "ALREADY_REVERSED"
    EXCEEDS_ORIGINAL = "EXCEEDS_ORIGINAL"
    NOT_REVERSIBLE = "NOT_REVERSIBLE"
    REVERSAL_WINDOW_OVER = "REVERSAL_WINDOW_OVER"
    HOLD_EXPIRED = "HOLD_EXPIRED"
    HOLD_RESOLVED = "HOLD_RESOLVED"
    OCCURRED_IN_FUTURE = "OCCURRED_IN_FUTURE"
    OCCURRED_TOO_LONG_AGO = "OCCURRED_TOO_LONG_AGO"
    AMOUNT_INVALID = "AMOUNT_INVALID"
    CURRENCY_MISMATCH = "CURRENCY_MISMATCH"
    PERIOD_NOT_ENDED = "PERIOD_NOT_ENDED"
    EARLIER_PERIOD_OPEN = "EARLIER_PERIOD_OPEN"
    AUDIT_FAILED = "AUDIT_FAILED"
    OVERLOADED = "OVERLOADED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    IDENTIFIER_CONFLICT = "IDENTIFIER_CONFLICT"
    INPUT_INVALID = "INPUT_INVALID"
    TERMS_MISSING = "TERMS_MISSING"
    PERIOD_NOT_FOUND = "PERIOD_NOT_FOUND"
    TRANSFER_NOT_ALLOWED = "TRANSFER_NOT_ALLOWED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    NOTHING_PENDING = "NOTHING_PENDING"
    FOUR_EYES = "FOUR_EYES"
    PROPOSAL_NOT_FOUND = "PROPOSAL_NOT_FOUND"
    PROPOSAL_DECIDED = "PROPOSAL_DECIDED"
    STATEMENT_NOT_FOUND = "STATEMENT_NOT_FOUND"
    STATEMENT_NOT_DUE = "STATEMENT_NOT_DUE"
    DISPUTE_NOT_FOUND = "DISPUTE_NOT_FOUND"
    DISPUTE_DECIDED = "DISPUTE_DECIDED"
    DISPUTE_WINDOW_OVER = "DISPUTE_WINDOW_OVER"
    MERGE_NOT_POSSIBLE = "MERGE_NOT_POSSIBLE"
    POOL_NOT_FOUND = "POOL_NOT_FOUND"
    POOL_NOT_POSSIBLE = "POOL_NOT_POSSIBLE"


RETRYABLE = frozenset({RefusalCode.OVERLOADED, RefusalCode.INTERNAL_ERROR, RefusalCode.AUDIT_FAILED})
"""Codes after which the very same command, with the same key, may succeed without anybody changing anything else."""


class CoalitionError(Exception):
    """Root of all errors of the platform."""


class Refused(CoalitionError):
    """A command that cannot be done. Nothing was changed; ``field`` names the input at fault, if one is."""

    def __init__(self, code: RefusalCode, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field


class ConfigurationError(CoalitionError):
    """Settings or a coalition file that cannot work; the text is one clear line for a person."""


class InputFileError(CoalitionError):
    """A file that cannot be read as what it should be."""


class LedgerFault(CoalitionError):
    """The ledger is not what the code relies on: a bug, or a change behind the application's back."""


CONSTRAINT_CODES = {
    "account_available_not_negative": RefusalCode.INSUFFICIENT_POINTS,
    "lot_remaining": RefusalCode.INSUFFICIENT_POINTS,
    "budget_not_exceeded": RefusalCode.BUDGET_EXHAUSTED,
    "command_reference_unique": RefusalCode.DUPLICATE_REFERENCE,
    "command_key_unique": RefusalCode.IDEMPOTENCY_CONFLICT,
    "proposal_decision_key_unique": RefusalCode.IDEMPOTENCY_CONFLICT,
    "proposal_four_eyes": RefusalCode.FOUR_EYES,
    "proposal_life": RefusalCode.PROPOSAL_DECIDED,
    "member_identifier_pkey": RefusalCode.IDENTIFIER_CONFLICT,
}
"""What a database constraint means to a caller. Code checks first, so these are met only through a race or a bug."""
