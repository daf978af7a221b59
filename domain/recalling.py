"""What returns could not take because holds had set it aside: taken when a hold lets points go (SETTLEMENT.md c.3).

A return that finds too few points leaves a shortfall, charged to the issuer. Of points that are held nobody knows yet
whether they will be spent. Those that a return would have taken, were they not held, are noted with their hold; what
comes back of them, by a void, the hold's time-out or a capture of less, makes the shortfall good first, at the prices
and in the way of the return: a return of no goods, in the name of the purchase's partner, in the period of what brought
the points back. Its row carries the points as a negative shortfall.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby

from sqlalchemy import text

from domain.asked import LocksMissing, MoreLocks, credited_windows
from domain.batch import Batch, CommandInput
from domain.batch_clock import Booking
from domain.commands import Command, CommandKind, CommandRow
from domain.database import BatchConnection
from domain.errors import LedgerFault
from domain.ledger import fingerprint
from domain.lots import Account, Charge, Hold, Lot, Missing, Recall
from domain.rows import command_row
from domain.taking_back import take_back
from domain.transferring import move_by_itself

RECALL_KEY = "system:recall:{}:{}"
"""Key of the command that makes a shortfall good, by hold and shortfall: it cannot be booked twice."""

# What is missing still is the shortfall less what came back of it out of any hold.
RECALLS_SQL = text(
    """
    SELECT r.account_id, r.hold_id, r.lot_id, r.place, r.taken_points, t.account_id, t.id, c.reverses_id, c.member_id,
           c.reference,
           t.shortfall_points - (SELECT sum(s.taken_points) FROM recall AS s
                                  WHERE s.missing_account_id = t.account_id AND s.missing_id = t.id)::bigint,
           t.partner_id, t.store_id, t.funder_id, t.issuer_id, t.terms_id, t.rule_id, o.budget_id, t.reverses_id,
           t.reverses_period_id
      FROM unnest(CAST(:accounts AS bigint[]), CAST(:holds AS bigint[])) AS asked (account_id, hold_id)
      JOIN recall AS r USING (account_id, hold_id)
      JOIN transaction AS t ON t.account_id = r.missing_account_id AND t.id = r.missing_id
      JOIN command AS c ON c.id = t.command_id
      JOIN transaction AS o ON o.account_id = t.account_id AND o.id = t.reverses_id
     ORDER BY t.id, r.place
    """
)
INSERT_RECALLS_SQL = text(
    """
    INSERT INTO recall (account_id, hold_id, lot_id, missing_account_id, missing_id, place, taken_points)
    SELECT account_id, hold_id, lot_id, missing_account_id, missing_id, place, taken_points
      FROM unnest(CAST(:rows AS recall[])) AS new ORDER BY account_id, hold_id, missing_id, lot_id
    """
)
UPDATE_RECALLS_SQL = text(
    """
    UPDATE recall AS r SET taken_points = new.taken_points
      FROM unnest(CAST(:rows AS recall[])) AS new
     WHERE (r.account_id, r.hold_id, r.missing_id, r.lot_id)
           = (new.account_id, new.hold_id, new.missing_id, new.lot_id)
    """
)


async def load_recalls(
    connection: BatchConnection, batch: Batch, commands: Sequence[Command], holds: Collection[tuple[int, int]]
) -> None:
    """Step 6: what returns miss of these holds, by their accounts and ids.

    Raises LocksMissing where the batch did not lock what making it good would change.
    """
    parameters = {"accounts": [account_id for account_id, _ in holds], "holds": [hold_id for _, hold_id in holds]}
    known: dict[int, Missing] = {}
    for row in (await connection.execute(RECALLS_SQL, parameters)).all():
        account_id, hold_id, lot_id, place, taken_points, *facts = row
        on_account_id, id_, purchase_id, member_id, reference, open_points, *charge = facts
        found = Missing(on_account_id, id_, purchase_id, member_id, reference, Charge(*charge), open_points)
        missing = known.setdefault(id_, found)
        hold = batch.accounts[account_id].holds[hold_id]
        hold.recalls.append(Recall(account_id, hold_id, lot_id, place, missing, taken_points))
    charges = {missing.charge for missing in known.values()}
    needed = MoreLocks(
        budget_ids={charge.budget_id for charge in charges if charge.budget_id is not None},
        account_ids={missing.account_id for missing in known.values()},
        charges=charges,
    )
    are_locked = (
        needed.account_ids <= batch.accounts.keys()
        and needed.budget_ids <= {budget.id for budget in batch.budgets.values()}
        and credited_windows(batch, commands, charges).keys() <= batch.budgets.keys()
    )
    if not are_locked:
        raise LocksMissing(needed)


async def write_recalls(connection: BatchConnection, batch: Batch) -> None:
    """Step 8: what the batch noted with holds, and what came back. Raises LedgerFault where rows were not as loaded."""
    recalls = [r for account in batch.accounts.values() for hold in account.holds.values() for r in hold.recalls]
    for statement, those in (
        (INSERT_RECALLS_SQL, [recall for recall in recalls if recall.is_new]),
        (UPDATE_RECALLS_SQL, [recall for recall in recalls if recall.is_changed and not recall.is_new]),
    ):
        rows = [
            (r.account_id, r.hold_id, r.lot_id, r.missing.account_id, r.missing.id, r.place, r.taken_points)
            for r in those
        ]
        if rows and (await connection.execute(statement, {"rows": rows})).rowcount != len(rows):
            raise LedgerFault(f"{len(rows)} recalls were not written as they were read")


def note_missing(accounts: Iterable[Account], missing: Missing, lots: Sequence[Lot]) -> None:
    """Notes with each open hold what a return would have taken of its points; ``lots`` in the return's order."""
    places = {lot.id: place for place, lot in enumerate(lots)}
    for account in accounts:
        for hold in account.holds.values():
            if hold.state == "OPEN":
                reached = sorted((places[lot_id], lot_id) for lot_id, _ in hold.uses if lot_id in places)
                hold.recalls += [
                    Recall(account.id, hold.id, lot_id, place, missing, is_new=True) for place, lot_id in reached
                ]


def make_good(
    batch: Batch, cause: CommandRow, hold: Hold, released: Iterable[tuple[Lot, int]], booking: Booking
) -> None:
    """Takes of what a hold just let go what returns missed of it, the oldest return first; the rest is the member's."""
    left = {
        lot.id: (lot, points)
        for lot, points in released
        if not lot.is_past(batch.clock.expiry_instant(cause.occurred_at))
    }
    for _, group in groupby(hold.recalls, key=lambda recall: recall.missing.id):
        parts = []
        for recall in group:
            lot, points = left.get(recall.lot_id, (None, 0))
            part = min(points, recall.missing.open_points)
            if lot is not None and part:
                recall.take(part)
                left[lot.id] = (lot, points - part)
                parts.append((lot, part))
        if parts:
            _take(batch, cause, hold, recall.missing, parts, booking)


def _take(
    batch: Batch, cause: CommandRow, hold: Hold, missing: Missing, parts: Sequence[tuple[Lot, int]], booking: Booking
) -> None:
    account = batch.accounts[missing.account_id]
    if account.id != hold.account_id:
        # Taken on the account of the purchase, as the return would have.
        moved = move_by_itself(batch, cause, parts, batch.accounts[hold.account_id], account)
        parts = list(zip(moved, [part for _, part in parts], strict=True))
    row = command_row(
        batch,
        CommandKind.REVERSAL,
        partner_id=missing.charge.partner_id,
        key=RECALL_KEY.format(hold.id, missing.id),
        account_id=account.id,
        member_id=missing.member_id,
        store_id=missing.charge.store_id,
        reference=missing.reference,
        amount_minor=0,
        reverses_id=missing.purchase_id,
        occurred_at=cause.occurred_at,
        period_id=booking.period_id,
        moved_points=-sum(part for _, part in parts),
    )
    print_ = fingerprint(
        kind=row.kind,
        member_id=row.member_id,
        store_id=row.store_id,
        reference=row.reference,
        amount_minor=row.amount_minor,
        reverses_id=row.reverses_id,
        occurred_at=row.occurred_at,
    )
    batch.new_commands.append((row, CommandInput(print_, reference_unique=False)))
    for lot, part in parts:
        take_back(batch, row, account, missing.charge, booking, lot=lot, points=part, shortfall=-part)
