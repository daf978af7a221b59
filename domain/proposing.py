"""The SQL of proposals: storing, finding, locking and deciding them (``domain.proposals``)."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text

from domain.batch import KEY_MAX_CHARACTERS, SYSTEM_KEY_PREFIX, is_key
from domain.database import Connection, Database
from domain.errors import RefusalCode, Refused
from domain.periods import Clock
from domain.proposals import (
    Content,
    Decision,
    Proposal,
    ProposalKind,
    ProposalReason,
    ProposalState,
    Step,
    check_decision,
    check_note,
    key_conflict,
)

_CONTENT_COLUMNS = ", ".join(Content._fields)
_COLUMNS = (
    f"id, {_CONTENT_COLUMNS}, idempotency_key, proposed_by, proposed_at, state, decided_by, decided_at, decision_note,"
    " decision_key"
)
INSERT_SQL = text(
    f"""
    INSERT INTO proposal ({_CONTENT_COLUMNS}, idempotency_key, proposed_by, proposed_at)
    VALUES (:kind, CAST(:partner_id AS integer), :reason_code, :note, CAST(:amount_micro AS bigint),
            CAST(:points AS bigint), CAST(:member_id AS bigint), CAST(:of_period_id AS integer), :of_line_kind,
            CAST(:window_day AS date), CAST(:until AS timestamptz), CAST(:dispute_id AS bigint), :key, :client_id, :now)
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING {_COLUMNS}
    """  # noqa: S608 (columns of this module)
)
BY_KEY_SQL = text(f"SELECT {_COLUMNS} FROM proposal WHERE idempotency_key = :key")  # noqa: S608 (the same)
BY_ID_SQL = text(f"SELECT {_COLUMNS} FROM proposal WHERE id = :id")  # noqa: S608 (the same)
LOCK_SQL = text(
    f"""
    SELECT {_COLUMNS} FROM proposal
     WHERE id = ANY(CAST(:ids AS bigint[])) OR decision_key = ANY(CAST(:keys AS text[]))
     ORDER BY id FOR NO KEY UPDATE
    """  # noqa: S608 (the same)
)
DECIDE_SQL = text(
    f"""
    UPDATE proposal SET state = :state, decided_by = :client_id, decided_at = :now, decision_note = :note,
           decision_key = :key
     WHERE id = :id AND state = 'PROPOSED'
    RETURNING {_COLUMNS}
    """  # noqa: S608 (the same)
)
PAGE_SQL = text(
    f"""
    SELECT {_COLUMNS} FROM proposal
     WHERE id < :before AND (CAST(:state AS text) IS NULL OR state = :state)
       AND (CAST(:kind AS text) IS NULL OR kind = :kind)
       AND (CAST(:partner_id AS integer) IS NULL OR partner_id = :partner_id)
     ORDER BY id DESC LIMIT :limit
    """  # noqa: S608 (the same)
)


def _proposal(row: Sequence[Any]) -> Proposal:
    width = len(Content._fields)
    content = Content._make(row[1 : 1 + width])
    content = content._replace(kind=ProposalKind(content.kind), reason_code=ProposalReason(content.reason_code))
    key, proposed_by, proposed_at, state, *decision = row[1 + width :]
    return Proposal(row[0], content, key, proposed_by, proposed_at, ProposalState(state), *decision)


async def add_proposal(connection: Connection, now: datetime, client_id: str, key: str, content: Content) -> Step:
    """Stores what is proposed, or finds it again under its key.

    Raises Refused: INPUT_INVALID (key or note), IDEMPOTENCY_CONFLICT (the key was used for something else).
    """
    check_key(key)
    check_note(content.note, "note")
    # Who comes second under a key waits for the first here, and then finds its row.
    given = {**content._asdict(), "key": key, "client_id": client_id, "now": now}
    made = (await connection.execute(INSERT_SQL, given)).all()
    if made:
        return Step(_proposal(made[0]), replayed=False)
    [row] = (await connection.execute(BY_KEY_SQL, {"key": key})).all()
    found = _proposal(row)
    if found.content != content:
        raise key_conflict("this key was used before to propose something else")
    return Step(found, replayed=True)


def check_key(key: str) -> None:
    """Raises Refused(INPUT_INVALID) for a key that cannot be stored, or that is reserved."""
    if not is_key(key) or key.startswith(SYSTEM_KEY_PREFIX):
        message = (
            f"an idempotency key has 1 to {KEY_MAX_CHARACTERS} printable characters and does not begin with "
            f'"{SYSTEM_KEY_PREFIX}"'
        )
        raise Refused(RefusalCode.INPUT_INVALID, message, "idempotencyKey")


async def proposal_by_id(connection: Connection, proposal_id: int) -> Proposal | None:
    """The proposal as it stands, without a lock."""
    rows = (await connection.execute(BY_ID_SQL, {"id": proposal_id})).all()
    return _proposal(rows[0]) if rows else None


async def proposal_by_key(connection: Connection, key: str) -> Proposal | None:
    """The proposal that was made under this key, without a lock."""
    rows = (await connection.execute(BY_KEY_SQL, {"key": key})).all()
    return _proposal(rows[0]) if rows else None


async def lock_proposals(
    connection: Connection, ids: Collection[int], decision_keys: Collection[str]
) -> dict[int, Proposal]:
    """Locks these proposals in the order of their ids, and whichever were decided under these keys."""
    parameters = {"ids": list(ids), "keys": [key for key in decision_keys if is_key(key)]}
    rows = (await connection.execute(LOCK_SQL, parameters)).all()
    return {proposal.id: proposal for proposal in map(_proposal, rows)}


def check_step(decision: Decision) -> None:
    """Raises Refused(INPUT_INVALID) for a key or a note that cannot be stored."""
    check_key(decision.key)
    if decision.note is not None:
        check_note(decision.note, "note")


async def end_proposal(database: Database, clock: Clock, proposal_id: int, decision: Decision) -> Step:
    """Rejects or withdraws a proposal, which does nothing else. Raises Refused as ``check_decision`` does."""
    check_step(decision)
    async with database.posting() as connection:
        step = check_decision(await lock_proposals(connection, [proposal_id], [decision.key]), proposal_id, decision)
        if step.replayed:
            return step
        return Step(await settle_proposal(connection, proposal_id, decision, clock()), replayed=False)


async def settle_proposal(connection: Connection, proposal_id: int, decision: Decision, now: datetime) -> Proposal:
    """Stores the decision about a proposal that ``check_decision`` allowed under its lock."""
    [row] = (
        await connection.execute(
            DECIDE_SQL,
            {
                "id": proposal_id,
                "state": decision.state,
                "client_id": decision.client_id,
                "now": now,
                "note": decision.note,
                "key": decision.key,
            },
        )
    ).all()
    return _proposal(row)


async def proposals_page(
    connection: Connection,
    before: int,
    limit: int,
    *,
    state: ProposalState | None = None,
    kind: ProposalKind | None = None,
    partner_id: int | None = None,
) -> list[Proposal]:
    """At most ``limit`` proposals from before that id on, latest first."""
    parameters = {"before": before, "limit": limit, "state": state, "kind": kind, "partner_id": partner_id}
    return [_proposal(row) for row in (await connection.execute(PAGE_SQL, parameters)).all()]
