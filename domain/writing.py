"""What a batch writes: one statement a table, rows in a fixed order, row counts asserted.

These are steps 7 to 9 of DESIGN.md section 4, "Group commit".
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from sqlalchemy import TextClause, text

from domain.batch import Batch, CommandInput, LotUseRow, NewMember, TransactionRow
from domain.commands import CommandRow, MovementKind
from domain.database import BatchConnection, Connection, int_array
from domain.errors import LedgerFault
from domain.floats import on_floats, write_float_uses
from domain.ledger import (
    AWARD_WAITS,
    HASHED_COMMAND_COLUMNS,
    HASHED_TRANSACTION_COLUMNS,
    LOT_ENDS,
    award_hash_sql,
    lot_hash_sql,
    row_hash_sql,
)
from domain.lots import Account, Lot, PendingAward
from domain.merging import write_merge
from domain.owing import write_debts
from domain.parking import write_parked
from domain.pooling import write_pool_change
from domain.positions import Contribution, MovementSums, contributions
from domain.proposing import settle_proposal
from domain.recalling import write_recalls


def _insert_sql(table: str, columns: Iterable[str], order: str, row_hash: str = "", returning: str = "") -> TextClause:
    # An array of the table's own row type is one parameter: an array per column costs the driver twice as much.
    names = ", ".join(columns)
    return text(
        f"INSERT INTO {table} ({names}{row_hash and ', row_hash'})"  # noqa: S608 (constants of this module)
        f" SELECT {names}{row_hash and f', {row_hash}'} FROM unnest(CAST(:rows AS {table}[])) AS new"
        f" ORDER BY {order}{returning and f' RETURNING {returning}'}"
    )


LOT_COLUMNS = (
    "account_id", "id", "transaction_id", "issuer_id", "funder_id", "terms_id", "price_micro", "breakage_share_ppm",
    "granted", "remaining", "reserved", "earned_at", "expires_at", "grace_until", "parent_id", "rolling_months",
)  # fmt: skip
PENDING_AWARD_COLUMNS = (
    "account_id", "id", "transaction_id", "command_id", "member_id", "partner_id", "issuer_id", "funder_id",
    "terms_id", "rule_id", "budget_id", "granted", "open_points", "reserved_micro", "release_at",
    "waits_for_payment", "earned_at",
)  # fmt: skip
MEMBER_COLUMNS = (
    "id", "account_id", "state", "enrolled_at", "partner_id", "store_id", "channel", "attributes", "merged_into",
    "burn_limit",
)  # fmt: skip
HOLD_COLUMNS = (
    "account_id", "id", "command_id", "transaction_id", "partner_id", "points", "captured", "released", "state",
    "expires_at",
)  # fmt: skip
ACCOUNT_COLUMNS = ("id", "available", "pending", "held", "next_expires_at", "owed")

INSERT_COMMANDS_SQL = _insert_sql(
    "command", HASHED_COMMAND_COLUMNS, "partner_id, idempotency_key", row_hash_sql(HASHED_COMMAND_COLUMNS, "new")
)
INSERT_TRANSACTIONS_SQL = _insert_sql(
    "transaction", HASHED_TRANSACTION_COLUMNS, "id", row_hash_sql(HASHED_TRANSACTION_COLUMNS, "new"), "row_hash"
)
INSERT_LOTS_SQL = _insert_sql("lot", LOT_COLUMNS, "account_id, id", lot_hash_sql("new"))
INSERT_LOT_USES_SQL = _insert_sql("lot_use", LotUseRow._fields, "account_id, id")
INSERT_AWARDS_SQL = _insert_sql("pending_award", PENDING_AWARD_COLUMNS, "account_id, id", award_hash_sql("new"))
INSERT_HOLDS_SQL = _insert_sql("hold", HOLD_COLUMNS, "account_id, id")
INSERT_MEMBERS_SQL = _insert_sql("member", MEMBER_COLUMNS, "id")
INSERT_ACCOUNTS_SQL = _insert_sql("account", ACCOUNT_COLUMNS, "id")

# What may change leaves the hash as it was and comes in as it is: of what else was changed nothing is sealed.
UPDATE_LOTS_SQL = text(
    f"""
    UPDATE lot
       SET remaining = new.remaining, reserved = new.reserved, expires_at = new.expires_at,
           grace_until = new.grace_until,
           row_hash = lot.row_hash # {row_hash_sql(LOT_ENDS, "lot")} # {row_hash_sql(LOT_ENDS, "new")}
      FROM unnest(CAST(:accounts AS bigint[]), CAST(:ids AS bigint[]), CAST(:remaining AS bigint[]),
                  CAST(:reserved AS bigint[]), CAST(:expiries AS timestamptz[]), CAST(:graces AS timestamptz[]))
        AS new (account_id, id, remaining, reserved, expires_at, grace_until)
     WHERE lot.account_id = new.account_id AND lot.id = new.id
    """  # noqa: S608 (constants)
)
UPDATE_ACCOUNTS_SQL = text(
    """
    UPDATE account
       SET available = new.available, pending = new.pending, held = new.held, next_expires_at = new.next_expires_at
      FROM unnest(CAST(CAST(:id AS text) AS bigint[]), CAST(CAST(:available AS text) AS bigint[]),
                  CAST(CAST(:pending AS text) AS bigint[]), CAST(CAST(:held AS text) AS bigint[]),
                  CAST(:next_expires_at AS timestamptz[]))
        AS new (id, available, pending, held, next_expires_at)
     WHERE account.id = new.id
    """
)
UPDATE_AWARDS_SQL = text(
    f"""
    UPDATE pending_award
       SET open_points = new.open_points, reserved_micro = new.reserved_micro,
           waits_for_payment = new.waits_for_payment,
           row_hash = pending_award.row_hash # {row_hash_sql(AWARD_WAITS, "pending_award")}
                      # {row_hash_sql(AWARD_WAITS, "new")}
      FROM unnest(CAST(:accounts AS bigint[]), CAST(:ids AS bigint[]), CAST(:open AS bigint[]),
                  CAST(:reserved AS bigint[]), CAST(:waits AS boolean[]))
        AS new (account_id, id, open_points, reserved_micro, waits_for_payment)
     WHERE pending_award.account_id = new.account_id AND pending_award.id = new.id
    """  # noqa: S608 (constants)
)
UPDATE_HOLDS_SQL = text(
    """
    UPDATE hold SET captured = new.captured, released = new.released, state = new.state
      FROM unnest(CAST(:accounts AS bigint[]), CAST(:ids AS bigint[]), CAST(:captured AS bigint[]),
                  CAST(:released AS bigint[]), CAST(:states AS text[]))
        AS new (account_id, id, captured, released, state)
     WHERE hold.account_id = new.account_id AND hold.id = new.id
    """
)
UPDATE_BUDGETS_SQL = text(
    """
    UPDATE budget
       SET consumed_micro = new.consumed_micro, reserved_micro = new.reserved_micro, alerted_at = new.alerted_at
      FROM unnest(CAST(:ids AS bigint[]), CAST(:consumed AS bigint[]), CAST(:reserved AS bigint[]),
                  CAST(:alerted AS timestamptz[])) AS new (id, consumed_micro, reserved_micro, alerted_at)
     WHERE budget.id = new.id
    """
)
UPSERT_POSITIONS_SQL = text(
    """
    INSERT INTO position AS p (period_id, partner_id, kind, entries, points, amount_micro, prior_amount_micro, hash_sum)
    SELECT period_id, partner_id, kind, entries, points::numeric, amount_micro::numeric, prior_amount_micro::numeric,
           hash_sum::numeric
      FROM unnest(CAST(:periods AS integer[]), CAST(:partners AS integer[]), CAST(:kinds AS text[]),
                  CAST(:entries AS bigint[]), CAST(:points AS text[]), CAST(:amounts AS text[]),
                  CAST(:priors AS text[]), CAST(:hashes AS text[]))
        AS new (period_id, partner_id, kind, entries, points, amount_micro, prior_amount_micro, hash_sum)
     ORDER BY period_id, partner_id, kind
    ON CONFLICT (period_id, partner_id, kind) DO UPDATE SET
        entries = p.entries + EXCLUDED.entries,
        points = p.points + EXCLUDED.points,
        amount_micro = p.amount_micro + EXCLUDED.amount_micro,
        prior_amount_micro = p.prior_amount_micro + EXCLUDED.prior_amount_micro,
        hash_sum = p.hash_sum + EXCLUDED.hash_sum
    """
)
REASSIGN_CLAIMS_SQL = text(
    """
    UPDATE member_identifier SET member_id = new.member_id, partner_id = new.partner_id
      FROM unnest(CAST(:kinds AS text[]), CAST(:values AS text[]), CAST(:members AS bigint[]),
                  CAST(:partners AS integer[])) AS new (kind, value, member_id, partner_id)
     WHERE member_identifier.kind = new.kind AND member_identifier.value = new.value
    """
)
RELEASE_CLAIMS_SQL = text(
    """
    DELETE FROM member_identifier USING unnest(CAST(:kinds AS text[]), CAST(:values AS text[])) AS old (kind, value)
     WHERE member_identifier.kind = old.kind AND member_identifier.value = old.value
    """
)


async def write_batch(connection: BatchConnection, batch: Batch) -> None:
    """Writes everything a batch decided. Raises LedgerFault when a statement did not touch exactly its rows."""
    await _write_members(connection, batch)
    for change in batch.merge_changes:
        await write_merge(connection, change)
    for place in batch.pool_changes:
        await write_pool_change(connection, batch, place)
    await write_ahead(connection, batch)
    await _update_lots(connection, batch.accounts.values())
    await _update_awards(connection, batch.accounts.values())
    await _write_holds(connection, batch)
    await write_recalls(connection, batch)
    await write_parked(connection, batch)
    await _update_accounts(connection, batch.accounts.values())
    await write_debts(connection, batch)
    await _update_budgets(connection, batch)
    await write_float_uses(connection, batch.on_floats)
    await add_positions(connection, batch.position_changes)
    for proposal_id, decision in batch.decisions:
        await settle_proposal(connection, proposal_id, decision, batch.clock.recorded_at)


async def write_ahead(connection: BatchConnection, batch: Batch) -> None:
    """Writes the new rows of the commands that are decided by now, perhaps while others still are.

    A lot that changes afterwards is updated in the end. Raises LedgerFault as ``write_batch`` does.
    """
    commands, batch.new_commands = batch.new_commands, []
    batch.written_commands += commands
    # A refund takes its id before it expires what still lies in its lot: rows are not always decided in order.
    transactions, batch.new_transactions = sorted(batch.new_transactions, key=attrgetter("id")), []
    batch.on_floats += on_floats(batch, transactions)
    lots, batch.new_lots = batch.new_lots, []
    lot_uses, batch.new_lot_uses = batch.new_lot_uses, []
    awards, batch.new_awards = batch.new_awards, []
    lot_rows = [_lot_values(lot) for lot in lots]
    award_rows = [_award_values(award) for award in awards]
    for lot in lots:
        lot.is_new = lot.is_changed = False
    for award in awards:
        award.is_new = award.is_changed = False
    if commands:
        await _insert(connection, INSERT_COMMANDS_SQL, [_command_values(*new) for new in commands])
    hashes = await _write_transactions(connection, transactions)
    batch.position_changes += _position_changes(transactions, hashes)
    if lot_rows:
        await _insert(connection, INSERT_LOTS_SQL, lot_rows)
    if award_rows:
        await _insert(connection, INSERT_AWARDS_SQL, award_rows)
    if lot_uses:
        await _insert(connection, INSERT_LOT_USES_SQL, lot_uses)


async def _insert(connection: BatchConnection, statement: TextClause, rows: Sequence[tuple[object, ...]]) -> None:
    await _expect(connection, statement, {"rows": rows}, len(rows))


async def _expect(
    connection: BatchConnection, statement: TextClause, parameters: Mapping[str, object], rows: int
) -> None:
    result = await connection.execute(statement, parameters)
    if result.rowcount != rows:
        raise LedgerFault(f"{rows} rows expected, {result.rowcount} written by: {' '.join(statement.text.split()[:4])}")


async def _write_members(connection: BatchConnection, batch: Batch) -> None:
    if batch.new_members:
        accounts = [batch.accounts[new.account_id] for new in batch.new_members]
        owed = 0  # what a new account owes already is written with its debts
        rows = [(a.id, a.available, a.pending, a.held, a.next_expires_at, owed) for a in accounts]
        await _insert(connection, INSERT_ACCOUNTS_SQL, rows)
        await _insert(connection, INSERT_MEMBERS_SQL, [_member_values(new) for new in batch.new_members])
    if batch.claims:
        await _settle_claims(connection, batch)


def _member_values(new: NewMember) -> tuple[object, ...]:
    attributes = json.dumps(dict(new.attributes)) if new.attributes else None
    merged_into = burn_limit = None
    return (
        new.id, new.account_id, "ACTIVE", new.enrolled_at, new.partner_id, new.store_id, new.channel, attributes,
        merged_into, burn_limit,
    )  # fmt: skip


def _command_values(row: CommandRow, stored: CommandInput) -> tuple[object, ...]:
    return (
        row.id, row.partner_id, row.key, stored.fingerprint, row.kind, row.account_id, row.member_id, row.store_id,
        row.reference, stored.reference_unique, row.channel, row.amount_minor, stored.eligible_minor, stored.lines,
        row.points, stored.whole, row.reverses_id, row.reason, stored.input_digest, stored.created_member,
        row.declined_points, row.occurred_at, row.recorded_at, row.period_id, None,
    )  # fmt: skip


def _lot_values(lot: Lot) -> tuple[object, ...]:
    return (
        lot.account_id, lot.id, lot.transaction_id, lot.issuer_id, lot.funder_id, lot.terms_id, lot.price_micro,
        lot.breakage_share_ppm, lot.granted, lot.remaining, lot.reserved, lot.earned_at, lot.expires_at,
        lot.grace_until, lot.parent_id, lot.rolling_months, None,
    )  # fmt: skip


def _award_values(award: PendingAward) -> tuple[object, ...]:
    return (
        award.account_id, award.id, award.transaction_id, award.command_id, award.member_id, award.partner_id,
        award.issuer_id, award.funder_id, award.terms_id, award.rule_id, award.budget_id, award.granted,
        award.open_points, award.reserved_micro, award.release_at, award.waits_for_payment, award.earned_at, None,
    )  # fmt: skip


async def _settle_claims(connection: BatchConnection, batch: Batch) -> None:
    # Claims were made for the first enrolment that named an identifier; if that one was refused, another may have it.
    owners: dict[tuple[str, str], NewMember] = {
        identifier: member for member in batch.new_members for identifier in member.identifiers
    }
    moved = sorted(i for i, member in owners.items() if batch.claims.get(i) != (member.id, member.partner_id))
    released = sorted(i for i in batch.claims if i not in owners)
    if moved:
        parameters = {
            "kinds": [kind for kind, _ in moved],
            "values": [value for _, value in moved],
            "members": [owners[i].id for i in moved],
            "partners": [owners[i].partner_id for i in moved],
        }
        await _expect(connection, REASSIGN_CLAIMS_SQL, parameters, len(moved))
    if released:
        gone = {
            "kinds": [kind for kind, _ in released],
            "values": [value for _, value in released],
        }
        await _expect(connection, RELEASE_CLAIMS_SQL, gone, len(released))


async def _write_transactions(connection: BatchConnection, rows: Sequence[TransactionRow]) -> list[int]:
    if not rows:
        return []
    # They are inserted in the order of their ids, which is that of ``rows``, and so the hashes come back.
    values = [(*row, None) for row in rows]
    hashes = [row_hash for (row_hash,) in (await connection.execute(INSERT_TRANSACTIONS_SQL, {"rows": values})).all()]
    if len(hashes) != len(rows):
        raise LedgerFault(f"{len(rows)} transactions expected, {len(hashes)} written")
    return hashes


async def _update_lots(connection: BatchConnection, accounts: Iterable[Account]) -> None:
    lots = [lot for account in accounts for lot in account.lots if lot.is_changed and not lot.is_new]
    if lots:
        parameters: dict[str, list[object]] = {
            "accounts": [lot.account_id for lot in lots],
            "ids": [lot.id for lot in lots],
            "remaining": [lot.remaining for lot in lots],
            "reserved": [lot.reserved for lot in lots],
            "expiries": [lot.expires_at for lot in lots],
            "graces": [lot.grace_until for lot in lots],
        }
        await _expect(connection, UPDATE_LOTS_SQL, parameters, len(lots))


async def _update_awards(connection: BatchConnection, accounts: Iterable[Account]) -> None:
    awards = [award for account in accounts for award in account.awards if award.is_changed and not award.is_new]
    if awards:
        parameters: dict[str, list[object]] = {
            "accounts": [award.account_id for award in awards],
            "ids": [award.id for award in awards],
            "open": [award.open_points for award in awards],
            "reserved": [award.reserved_micro for award in awards],
            "waits": [award.waits_for_payment for award in awards],
        }
        await _expect(connection, UPDATE_AWARDS_SQL, parameters, len(awards))


async def _write_holds(connection: BatchConnection, batch: Batch) -> None:
    if batch.new_holds:
        rows = [
            (h.account_id, h.id, h.id, h.transaction_id, h.partner_id, h.points, h.captured, h.released, h.state,
             h.expires_at)
            for h in batch.new_holds
        ]  # fmt: skip
        await _insert(connection, INSERT_HOLDS_SQL, rows)
    changed = [
        hold
        for account in batch.accounts.values()
        for hold in account.holds.values()
        if hold.is_changed and not hold.is_new
    ]
    if changed:
        parameters: dict[str, list[object]] = {
            "accounts": [hold.account_id for hold in changed],
            "ids": [hold.id for hold in changed],
            "captured": [hold.captured for hold in changed],
            "released": [hold.released for hold in changed],
            "states": [hold.state for hold in changed],
        }
        await _expect(connection, UPDATE_HOLDS_SQL, parameters, len(changed))


async def _update_accounts(connection: BatchConnection, accounts: Iterable[Account]) -> None:
    changed = [account for account in accounts if account.is_changed and not account.is_new]
    if changed:
        parameters = {
            "id": int_array([account.id for account in changed]),
            "available": int_array([account.available for account in changed]),
            "pending": int_array([account.pending for account in changed]),
            "held": int_array([account.held for account in changed]),
            "next_expires_at": [account.next_expires_at for account in changed],
        }
        await _expect(connection, UPDATE_ACCOUNTS_SQL, parameters, len(changed))


async def _update_budgets(connection: BatchConnection, batch: Batch) -> None:
    changed = [budget for budget in batch.budgets.values() if budget.is_changed]
    if changed:
        parameters: dict[str, list[object]] = {
            "ids": [budget.id for budget in changed],
            "consumed": [budget.consumed_micro for budget in changed],
            "reserved": [budget.reserved_micro for budget in changed],
            "alerted": [budget.alerted_at for budget in changed],
        }
        await _expect(connection, UPDATE_BUDGETS_SQL, parameters, len(changed))


def _position_changes(rows: Sequence[TransactionRow], hashes: Sequence[int]) -> list[tuple[int, Contribution]]:
    sums: dict[tuple[int, MovementKind, int, bool], list[int]] = defaultdict(lambda: [0] * 8)
    for row, row_hash in zip(rows, hashes, strict=True):
        prior = row.reverses_period_id is not None and row.reverses_period_id < row.period_id
        group = sums[(row.period_id, row.kind, row.party_id, prior)]
        group[0] += 1
        group[1] += row.points
        group[2] += row.issue_value_micro
        group[3] += row.service_fee_micro
        group[4] += row.reimbursement_micro
        group[5] += row.breakage_share_micro
        group[6] += row.pool_value_micro
        group[7] += row_hash
    return [
        (period_id, contribution)
        for (period_id, kind, party_id, prior), group in sums.items()
        for contribution in contributions(MovementSums(kind, party_id, prior, *group))
    ]


async def add_positions(connection: Connection, changes: Iterable[tuple[int, Contribution]]) -> None:
    """Step 9: adds contributions to the positions of their periods, in the order of the primary key."""
    merged: dict[tuple[int, int, str], list[int]] = {}
    for period_id, change in changes:
        totals = merged.setdefault((period_id, change.partner_id, change.kind), [0] * 5)
        for index, value in enumerate(change[2:]):
            totals[index] += value
    if not merged:
        return
    keys = sorted(merged)
    entries, points, amounts, priors, hashes = zip(*(merged[key] for key in keys), strict=True)
    await connection.execute(
        UPSERT_POSITIONS_SQL,
        {
            "periods": [period_id for period_id, _, _ in keys],
            "partners": [partner_id for _, partner_id, _ in keys],
            "kinds": [kind for _, _, kind in keys],
            "entries": list(entries),
            "points": list(map(str, points)),
            "amounts": list(map(str, amounts)),
            "priors": list(map(str, priors)),
            "hashes": list(map(str, hashes)),
        },
    )
