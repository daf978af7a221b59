"""What a batch reads: first what decides the locks, then, under the locks, everything that deciding needs.

Each function is one statement, so that a batch has a constant number of them (DESIGN.md section 4, "Group commit").
A statement that waited for a lock keeps the snapshot from before the wait; that is why reading follows locking in
statements of its own.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text

from domain.awards import match_returned_lines
from domain.baskets import lines_from_text
from domain.batch import Budget, BurnUse, Member, Original, StoredAward
from domain.commands import CommandKind, CommandRow, MovementKind
from domain.database import (
    CONFIGURATION_LOCK_CLASS,
    PARKING_LOCK_CLASS,
    PERIOD_LOCK_CLASS,
    BatchConnection,
    Connection,
    int_array,
)
from domain.lots import Account, Lot
from domain.terms import BudgetPlan
from domain.values import NO_STORE_ID


def _locks_sql(parking: str) -> TextClause:
    return text(
        f"""
        SELECT pg_advisory_xact_lock_shared({CONFIGURATION_LOCK_CLASS}, 0)
        UNION ALL
        SELECT pg_advisory_xact_lock_shared({PERIOD_LOCK_CLASS}, p)
          FROM (SELECT p FROM unnest(CAST(:periods AS integer[])) AS p ORDER BY p OFFSET 0) AS ascending
        UNION ALL
        SELECT {parking}({PARKING_LOCK_CLASS}, 0)
        """  # noqa: S608 (numbers and functions named by this module)
    )


LOCKS_SQL = _locks_sql("pg_advisory_xact_lock_shared")
PARKING_LOCKS_SQL = _locks_sql("pg_advisory_xact_lock")

STATE_SQL = text(
    """
    SELECT (SELECT version FROM programme) AS version,
           (SELECT max(id) FROM period WHERE state <> 'OPEN') AS last_not_open,
           (SELECT array_agg(id) FROM period WHERE id = ANY(CAST(:periods AS integer[]))) AS present,
           EXISTS (SELECT FROM early_reversal WHERE state = 'WAITING') AS has_parked
    """
)


class State(NamedTuple):
    """What stands after the advisory locks: configuration version, the last period not open, which rows exist.

    ``has_parked``: reversals wait for originals that did not arrive yet.
    """

    version: int | None
    last_not_open: int | None
    present: list[int] | None
    has_parked: bool


async def lock_shared(connection: Connection, periods: Iterable[int]) -> None:
    """Step 1: shares the configuration and these periods with other batches; apply and closing take them alone."""
    await connection.execute(LOCKS_SQL, {"periods": sorted(periods)})


async def load_state(connection: Connection, periods: Iterable[int]) -> State:
    """Step 2: a new statement, so that it sees what was committed while the locks were waited for."""
    return State(*(await connection.execute(STATE_SQL, {"periods": sorted(periods)})).one())


RESOLVE_SQL = text(
    """
    SELECT i.kind, i.value, m.id AS asked_id, m.id, m.account_id, m.state
      FROM unnest(CAST(:kinds AS text[]), CAST(:values AS text[])) AS asked (kind, value)
      JOIN member_identifier AS i USING (kind, value) JOIN member AS m ON m.id = i.member_id
    UNION ALL
    SELECT NULL, NULL, asked.id, m.id, m.account_id, m.state
      FROM member AS asked JOIN member AS m ON m.id = coalesce(asked.merged_into, asked.id)
     WHERE asked.id = ANY(CAST(:ids AS bigint[]))
    """
)


async def resolve_members(
    connection: BatchConnection, identifiers: Collection[tuple[str, str]], ids: Collection[int]
) -> tuple[dict[tuple[str, str], int], dict[int, Member], dict[int, int]]:
    """Step 0: whom the commands mean; answers (identifier -> member id, members by id, merged id -> member id)."""
    rows = await connection.execute(
        RESOLVE_SQL,
        {"kinds": [kind for kind, _ in identifiers], "values": [value for _, value in identifiers], "ids": list(ids)},
    )
    by_identifier: dict[tuple[str, str], int] = {}
    members: dict[int, Member] = {}
    merged: dict[int, int] = {}
    for kind, value, asked_id, member_id, account_id, state in rows.all():
        members[member_id] = Member(member_id, account_id, state)
        if kind is not None:
            by_identifier[(kind, value)] = member_id
        elif asked_id != member_id:
            merged[asked_id] = member_id
    return by_identifier, members, merged


MEMBERS_AGAIN_SQL = text(
    "SELECT id, account_id, state, merged_into, burn_limit FROM member"
    " WHERE id = ANY(CAST(CAST(:ids AS text) AS bigint[]))"
)


async def load_members(connection: BatchConnection, ids: Collection[int]) -> dict[int, Member]:
    """Step 6: the members again, now that their accounts are locked."""
    rows = await connection.execute(MEMBERS_AGAIN_SQL, {"ids": int_array(ids)})
    return {member_id: Member(member_id, *values) for member_id, *values in rows.all()}


COMMAND_COLUMNS = """
    c.id, c.partner_id, c.idempotency_key, c.kind, c.account_id, c.member_id, c.store_id, c.reference, c.channel,
    c.amount_minor, c.points, c.reverses_id, c.reason, c.declined_points, c.occurred_at, c.recorded_at, c.period_id
"""
COMMAND_KIND_INDEX = 3
MOVED_POINTS_SQL = """
    coalesce((SELECT sum(t.points)::bigint FROM transaction AS t
               WHERE t.command_id = c.id AND t.account_id = c.account_id
                 AND (t.kind <> 'RELEASE' OR c.kind <> 'CAPTURE')), 0)
"""

# A reference need not be unique (a partner's setting): two fitting ones are enough to know that it is ambiguous.
ORIGINALS_SQL = text(
    f"""
    SELECT {COMMAND_COLUMNS}, {MOVED_POINTS_SQL} AS moved_points, c.fingerprint, c.lines, c.created_member,
           k.id AS now_id, k.account_id AS now_account_id, k.state AS now_state, k.merged_into,
           NOT EXISTS (SELECT FROM member AS u WHERE u.account_id = c.account_id AND u.merged_into IS NULL) AS is_left
      FROM command AS c JOIN member AS m ON m.id = c.member_id JOIN member AS k ON k.id = coalesce(m.merged_into, m.id)
     WHERE c.id IN (
        SELECT id FROM command WHERE id = ANY(CAST(:ids AS bigint[]))
        UNION
        SELECT unnest(ARRAY[k.id, k.reverses_id])
          FROM unnest(CAST(CAST(:key_partners AS text) AS integer[]), CAST(:keys AS text[]))
               AS asked (partner_id, idempotency_key)
          JOIN command AS k USING (partner_id, idempotency_key)
        UNION
        SELECT r.id
          FROM unnest(CAST(CAST(:reference_partners AS text) AS integer[]), CAST(:references AS text[]))
               AS asked (partner_id, reference)
          JOIN command AS r USING (partner_id, reference)
         WHERE r.reference_unique
        UNION
        SELECT r.id
          FROM unnest(CAST(:original_partners AS integer[]), CAST(:original_references AS text[]),
                      CAST(:original_kinds AS text[]), CAST(:original_stores AS integer[]))
               AS asked (partner_id, reference, kinds, store_id)
         CROSS JOIN LATERAL (
            (SELECT o.id FROM command AS o
              WHERE o.partner_id = asked.partner_id AND o.reference = asked.reference AND o.reference_unique
                AND o.kind IN ('EARN', 'BURN') AND o.kind = ANY(string_to_array(asked.kinds, ','))
                AND (asked.store_id = {NO_STORE_ID} OR o.store_id = asked.store_id)
              ORDER BY o.id LIMIT 2)
            UNION ALL
            (SELECT o.id FROM command AS o
              WHERE o.partner_id = asked.partner_id AND o.reference = asked.reference AND NOT o.reference_unique
                AND o.kind IN ('EARN', 'BURN') AND o.kind = ANY(string_to_array(asked.kinds, ','))
                AND (asked.store_id = {NO_STORE_ID} OR o.store_id = asked.store_id)
              ORDER BY o.id LIMIT 2)
            UNION ALL
            (SELECT o.id FROM command AS o
              WHERE o.partner_id = asked.partner_id AND o.reference = asked.reference
                AND o.kind IN ('AUTHORIZATION', 'CAPTURE') AND o.kind = ANY(string_to_array(asked.kinds, ','))
                AND (asked.store_id = {NO_STORE_ID} OR o.store_id = asked.store_id)
              ORDER BY o.id LIMIT 2)) AS r
     )
     ORDER BY c.id
    """  # noqa: S608 (constants of this application)
)


@dataclass(frozen=True, slots=True)
class AskedOriginal:
    """A reference by which a command of one of these kinds is named; ``store_id`` 0 leaves the store open."""

    partner_id: int
    reference: str
    kinds: tuple[CommandKind, ...]
    store_id: int


async def load_commands(
    connection: BatchConnection,
    ids: Collection[int],
    keys: Collection[tuple[int, str]],
    references: Collection[tuple[int, str]] = (),
    originals: Collection[AskedOriginal] = (),
) -> list[Original]:
    """Commands by id, by (partner, key) with what they reverse, by (partner, unique reference), and as originals."""
    rows = await connection.execute(
        ORIGINALS_SQL,
        {
            "ids": list(ids),
            "key_partners": int_array([partner_id for partner_id, _ in keys]),
            "keys": [key for _, key in keys],
            "reference_partners": int_array([partner_id for partner_id, _ in references]),
            "references": [reference for _, reference in references],
            "original_partners": [asked.partner_id for asked in originals],
            "original_references": [asked.reference for asked in originals],
            "original_kinds": [",".join(asked.kinds) for asked in originals],
            "original_stores": [asked.store_id for asked in originals],
        },
    )
    return [_original(row) for row in rows.all()]


def command_row(values: Sequence[Any]) -> CommandRow:
    """A row selected as COMMAND_COLUMNS and the sum of its points."""
    fields = list(values)
    fields[COMMAND_KIND_INDEX] = CommandKind(fields[COMMAND_KIND_INDEX])
    return CommandRow(*fields)


def _original(row: Sequence[Any]) -> Original:
    width = len(CommandRow._fields)
    fingerprint, lines, created_member, *member_now, is_left = row[width:]
    return Original(
        command_row(row[:width]),
        fingerprint,
        lines_from_text(lines),
        created_member=created_member,
        member_now=Member(*member_now),
        is_left=is_left,
        has_details=False,
    )


DETAILS_SQL = text(
    """
    SELECT t.command_id, t.id, t.kind, t.rule_id, t.requested_points, t.points, t.funder_id, t.terms_id, t.budget_id,
           t.lot_id, t.shortfall_points
      FROM transaction AS t WHERE t.command_id = ANY(CAST(:ids AS bigint[])) ORDER BY t.id
    """
)
RETURNS_SQL = text(
    """
    SELECT c.reverses_id, c.amount_minor, c.lines, u.lot_id, u.points
      FROM command AS c
      LEFT JOIN transaction AS t ON t.command_id = c.id AND t.kind = 'BURN_REVERSAL'
      LEFT JOIN lot_use AS u ON u.transaction_id = t.id
     WHERE c.reverses_id = ANY(CAST(:ids AS bigint[])) AND c.kind = 'REVERSAL'
     ORDER BY c.id
    """
)
AWARDING = (MovementKind.EARN, MovementKind.EARN_PENDING)
"""Kinds of movement that are awards of a purchase."""

USES_SQL = text(
    """
    SELECT u.transaction_id, u.lot_id, u.points FROM lot_use AS u
     WHERE u.transaction_id = ANY(CAST(:ids AS bigint[])) AND u.kind IN ('BURN', 'CAPTURE') ORDER BY u.id
    """
)


async def load_details(connection: BatchConnection, originals: Sequence[Original]) -> None:
    """Fills in what originals awarded or burned, and what their reversals did so far."""
    by_id = {original.command.id: original for original in originals}
    for original in originals:
        original.has_details = True
    for command_id, kind, award, shortfall_points in map(
        _movement, (await connection.execute(DETAILS_SQL, {"ids": list(by_id)})).all()
    ):
        original = by_id[command_id]
        original.shortfall_points += shortfall_points
        if kind in AWARDING and original.command.kind == CommandKind.EARN:
            award.is_pending = kind == MovementKind.EARN_PENDING
            original.awards.append(award)
        elif kind in ("BURN", "CAPTURE"):
            original.burn_transaction_id, original.burn_terms_id = award.transaction_id, award.terms_id
    burns = {o.burn_transaction_id: o for o in originals if o.burn_transaction_id is not None}
    if burns:
        uses = (await connection.execute(USES_SQL, {"ids": list(burns)})).all()
        for transaction_id, lot_id, points in uses:
            burns[transaction_id].uses.append(BurnUse(lot_id, points, 0))
    for reverses_id, *returned in (await connection.execute(RETURNS_SQL, {"ids": list(by_id)})).all():
        _note_return(by_id[reverses_id], *returned)


def _movement(row: Sequence[Any]) -> tuple[int, str, StoredAward, int]:
    command_id, transaction_id, kind, *award, shortfall_points = row
    return command_id, kind, StoredAward(transaction_id, *award), shortfall_points


def _note_return(
    original: Original, amount_minor: int | None, lines: str | None, lot_id: int | None, points: int | None
) -> None:
    if lot_id is not None:
        assert points is not None
        next(use for use in original.uses if use.lot_id == lot_id).restored += points
    if original.command.kind != CommandKind.EARN:
        return
    returned_lines = lines_from_text(lines)
    if returned_lines is None:
        assert amount_minor is not None
        original.returned = original.returned.plus(amount_minor, ())
    else:
        assert original.lines is not None
        matched = match_returned_lines(original.lines, original.returned, returned_lines)
        original.returned = original.returned.plus(0, matched)
    original.is_returned = original.returned.total_minor == original.command.amount_minor


CLAIM_SQL = text(
    """
    INSERT INTO member_identifier (kind, value, member_id, partner_id)
    SELECT kind, value, member_id, partner_id
      FROM unnest(CAST(:kinds AS text[]), CAST(:values AS text[]), CAST(:members AS bigint[]),
                  CAST(:partners AS integer[])) AS claim (kind, value, member_id, partner_id)
     ORDER BY kind, value
    ON CONFLICT (kind, value) DO NOTHING
    """
)


async def claim_identifiers(connection: BatchConnection, claims: dict[tuple[str, str], tuple[int, int]]) -> bool:
    """Step 3: claims identifiers for (member, partner), in sorted order; False when another process was first."""
    ordered = sorted(claims)
    result = await connection.execute(
        CLAIM_SQL,
        {
            "kinds": [kind for kind, _ in ordered],
            "values": [value for _, value in ordered],
            "members": [claims[identifier][0] for identifier in ordered],
            "partners": [claims[identifier][1] for identifier in ordered],
        },
    )
    return result.rowcount == len(ordered)


# A float opens with its plan's limit: that is its first block, as old as the plan.
CREATE_BUDGETS_SQL = text(
    """
    WITH made AS (
        INSERT INTO budget (id, plan_id, partner_id, period_id, limit_micro, overdraft_micro)
        SELECT id, plan_id, partner_id, period_id, limit_micro, overdraft_micro
          FROM unnest(CAST(:ids AS bigint[]), CAST(:plans AS integer[]), CAST(:partners AS integer[]),
                      CAST(:periods AS integer[]), CAST(:limits AS bigint[]), CAST(:overdrafts AS bigint[]))
            AS missing (id, plan_id, partner_id, period_id, limit_micro, overdraft_micro)
         ORDER BY plan_id, period_id
        ON CONFLICT (plan_id, period_id) DO NOTHING
        RETURNING id, plan_id, partner_id, limit_micro)
    INSERT INTO float_block (id, budget_id, partner_id, amount_micro, occurred_at, recorded_at)
    SELECT m.id, m.id, m.partner_id, m.limit_micro, p.since, p.since
      FROM made AS m
      JOIN (SELECT id, lower(valid)::timestamp AT TIME ZONE (SELECT timezone FROM programme) AS since
              FROM budget_plan WHERE funding = 'PREPAID') AS p ON p.id = m.plan_id
     WHERE m.limit_micro > 0
    """
)
LIVE_OVERDRAFT_SQL = """
    b.overdraft_micro - coalesce((SELECT sum(o.amount_micro) FROM overdraft AS o
                                   WHERE o.budget_id = b.id AND o.until <= CAST(:now AS timestamptz)), 0)::bigint
"""
"""SQL of what a window ``b`` may still be overdrawn by: the row keeps what was approved until some time by now past."""

LOCK_BUDGETS_SQL = text(
    f"""
    SELECT b.id, b.plan_id, b.period_id, b.limit_micro, {LIVE_OVERDRAFT_SQL}, b.consumed_micro, b.reserved_micro,
           b.alerted_at
      FROM budget AS b
     WHERE (b.plan_id, b.period_id) IN (SELECT * FROM unnest(CAST(:plans AS integer[]), CAST(:periods AS integer[])))
        OR b.id = ANY(CAST(:ids AS bigint[]))
     ORDER BY b.id FOR NO KEY UPDATE
    """  # noqa: S608 (constants of this module)
)


async def create_budgets(connection: Connection, windows: Sequence[tuple[BudgetPlan, int]], ids: Sequence[int]) -> None:
    """Step 4, only when a window may be missing: creates it as its plan says."""
    await connection.execute(
        CREATE_BUDGETS_SQL,
        {
            "ids": list(ids),
            "plans": [plan.id for plan, _ in windows],
            "partners": [plan.partner_id for plan, _ in windows],
            "periods": [period_id for _, period_id in windows],
            "limits": [plan.limit_micro for plan, _ in windows],
            "overdrafts": [plan.overdraft_micro for plan, _ in windows],
        },
    )


async def lock_budgets(
    connection: BatchConnection,
    windows: Sequence[tuple[BudgetPlan, int]],
    ids: Collection[int],
    plans: Mapping[int, BudgetPlan],
    now: datetime,
) -> dict[tuple[int, int], Budget]:
    """Step 4: the windows of this batch, and those with these ids, locked in the order of their ids, as always.

    ``plans`` are all plans by their ids.
    """
    rows = await connection.execute(
        LOCK_BUDGETS_SQL,
        {
            "plans": [plan.id for plan, _ in windows],
            "periods": [period_id for _, period_id in windows],
            "ids": list(ids),
            "now": now,
        },
    )
    return {
        (plan_id, period_id): Budget(id_, plans[plan_id], period_id, *amounts)
        for id_, plan_id, period_id, *amounts in rows.all()
    }


LOCK_ACCOUNTS_SQL = text(
    """
    SELECT id, available, pending, held, next_expires_at, owed FROM account
     WHERE id = ANY(CAST(CAST(:ids AS text) AS bigint[])) ORDER BY id FOR NO KEY UPDATE
    """
)


async def lock_accounts(connection: BatchConnection, ids: Collection[int]) -> dict[int, Account]:
    """Step 5: the accounts of this batch, locked in the order of their ids."""
    rows = await connection.execute(LOCK_ACCOUNTS_SQL, {"ids": int_array(ids)})
    return {account.id: account for account in (Account(*row) for row in rows.all())}


LOTS_SQL = text(
    """
    SELECT account_id, id, transaction_id, issuer_id, funder_id, terms_id, price_micro, breakage_share_ppm, granted,
           remaining, earned_at, expires_at, grace_until, rolling_months, parent_id, reserved
      FROM lot
     WHERE account_id = ANY(CAST(:accounts AS bigint[])) AND (remaining > 0 OR id = ANY(CAST(:lots AS bigint[])))
     ORDER BY id
    """
)


async def load_lots(connection: BatchConnection, accounts: Collection[Account], lot_ids: Collection[int]) -> None:
    """Step 6: the open lots of these accounts, and those that a reversal may restore or that it asks about."""
    by_id = {account.id: account for account in accounts}
    for row in (await connection.execute(LOTS_SQL, {"accounts": list(by_id), "lots": list(lot_ids)})).all():
        by_id[row[0]].lots.append(Lot(*row))
    for account in accounts:
        account.all_lots_loaded = True


ID_BLOCK_SQL = text("SELECT nextval('ledger_id')")
ID_BLOCK_SIZE = 5000
"""Increment of the sequence ledger_id."""


async def next_id_block(connection: Connection) -> range:
    """A block of ids that no other process gets."""
    last: int = (await connection.execute(ID_BLOCK_SQL)).scalar_one()
    return range(last, last + ID_BLOCK_SIZE)


SECRET_SQL = text("SELECT secret FROM installation")


async def load_secret(connection: BatchConnection) -> bytes:
    """The installation's 32 secret bytes: key of digests and of opaque ids."""
    return bytes((await connection.execute(SECRET_SQL)).scalar_one())
