"""Four eyes: what one client of the operator proposes and another one decides, once.

Here stands what all kinds share: the proposal, its life, and who may decide it; ``domain.proposing`` stores it. What an
approval does belongs to the module of its kind, in the transaction that decides: ``domain.adjusting`` (points),
``settlement.adjustments`` (money), ``settlement.deposits``, ``settlement.defaults``, ``partners.overdrafts`` (budgets).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import NamedTuple

from domain.errors import RefusalCode, Refused
from domain.members import is_clean_text

NOTE_MAX_CHARACTERS = 1000


class ProposalKind(StrEnum):
    """What would be done."""

    ADJUSTMENT = "ADJUSTMENT"
    POINTS = "POINTS"
    OVERDRAFT = "OVERDRAFT"
    WRITE_OFF = "WRITE_OFF"
    DISPUTE = "DISPUTE"
    DEPOSIT_PAYOUT = "DEPOSIT_PAYOUT"
    DEFAULT = "DEFAULT"


class ProposalState(StrEnum):
    """Where a proposal is in its life; it leaves PROPOSED once."""

    PROPOSED = "PROPOSED"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    WITHDRAWN = "WITHDRAWN"


class ProposalReason(StrEnum):
    """Why, as far as it can be counted; the note says it in words."""

    CORRECTION = "CORRECTION"
    AGREEMENT = "AGREEMENT"
    GOODWILL = "GOODWILL"
    FRAUD = "FRAUD"
    UNCOLLECTABLE = "UNCOLLECTABLE"
    DISPUTE = "DISPUTE"
    OTHER = "OTHER"


class Content(NamedTuple):
    """What is proposed, in the columns of ``proposal``; which of them are given depends on the kind.

    ``amount_micro`` of an ADJUSTMENT is signed from the partner's side; ``points`` from the member's.
    """

    kind: ProposalKind
    partner_id: int
    reason_code: ProposalReason
    note: str
    amount_micro: int | None = None
    points: int | None = None
    member_id: int | None = None
    of_period_id: int | None = None
    of_line_kind: str | None = None
    window_day: date | None = None
    until: datetime | None = None
    dispute_id: int | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A row of ``proposal``."""

    id: int
    content: Content
    key: str
    proposed_by: str
    proposed_at: datetime
    state: ProposalState
    decided_by: str | None
    decided_at: datetime | None
    decision_note: str | None
    decision_key: str | None


class Decision(NamedTuple):
    """Who decides, under which key, with which note; and what becomes of the proposal."""

    state: ProposalState
    client_id: str
    key: str
    note: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """Answer to a step: the proposal after it, and whether this key had taken the step before."""

    proposal: Proposal
    replayed: bool


def check_note(note: str, field: str) -> None:
    """Raises Refused(INPUT_INVALID) for a note that cannot be stored."""
    if not is_clean_text(note, NOTE_MAX_CHARACTERS):
        message = f"a note has 1 to {NOTE_MAX_CHARACTERS} printable characters on one line"
        raise Refused(RefusalCode.INPUT_INVALID, message, field)


def key_conflict(message: str) -> Refused:
    """The refusal of a key that means something else already."""
    return Refused(RefusalCode.IDEMPOTENCY_CONFLICT, message, "idempotencyKey")


def check_decision(held: Mapping[int, Proposal], proposal_id: int, decision: Decision) -> Step:
    """Whether the client may decide so, of locked proposals; ``replayed`` when it did so before under this key.

    Raises Refused: PROPOSAL_NOT_FOUND, IDEMPOTENCY_CONFLICT, PROPOSAL_DECIDED, FOUR_EYES.
    """
    proposal = held.get(proposal_id)
    if proposal is None:
        raise Refused(RefusalCode.PROPOSAL_NOT_FOUND, "there is no such proposal", "proposalId")
    if any(one.decision_key == decision.key and one.id != proposal_id for one in held.values()):
        raise key_conflict("this key decided another proposal")
    if (proposal.decision_key, proposal.decided_by) == (decision.key, decision.client_id):
        if (proposal.state, proposal.decision_note) != (decision.state, decision.note):
            raise key_conflict("this key decided the proposal otherwise")
        return Step(proposal, replayed=True)
    if proposal.state != ProposalState.PROPOSED:
        message = f"the proposal is {proposal.state} since {proposal.decided_at:%Y-%m-%d}"
        raise Refused(RefusalCode.PROPOSAL_DECIDED, message, "proposalId")
    is_own = decision.client_id == proposal.proposed_by
    if decision.state == ProposalState.WITHDRAWN and not is_own:
        message = "only the client that proposed it withdraws it: reject it instead"
        raise Refused(RefusalCode.FOUR_EYES, message, "proposalId")
    if decision.state != ProposalState.WITHDRAWN and is_own:
        message = "your client proposed it: another client decides; you may withdraw it"
        raise Refused(RefusalCode.FOUR_EYES, message, "proposalId")
    return Step(proposal, replayed=False)
