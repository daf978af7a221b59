"""Which earlier command a caller means: the purchase or burn to be reversed, the purchase that was paid."""

from domain.asked import reversible
from domain.batch import Batch, Original, StartOver
from domain.commands import CommandKind, OriginalRef
from domain.errors import RefusalCode, Refused
from domain.standing import member_now


def original_of(
    batch: Batch, partner_id: int, ref: OriginalRef, earlier: Original | None, *, is_paid: bool = False
) -> Original:
    """The caller's own command that is meant; ``earlier`` is what the caller's key posted before, if anything.

    ``is_paid``: it is the purchase of a payment, and refusals speak of that; else what is to be reversed.

    Raises Refused (INPUT_INVALID, TRANSACTION_NOT_FOUND, NOT_REVERSIBLE, AMBIGUOUS_REFERENCE), or StartOver where the
    batch did not lock what it found.
    """
    if ref.given != 1:
        message = "name the original by exactly one of transactionId, originalKey, or reference with kind"
        if is_paid:
            message = "name the purchase by exactly one of transactionId, originalKey or reference"
        field = "kind" if ref.given == 0 and ref.reference is not None else "transactionId"
        raise Refused(RefusalCode.INPUT_INVALID, message, field)
    store_id = batch.store_id(partner_id, ref.store)
    found = batch.originals(partner_id, ref, store_id, reversible(ref))
    if earlier is not None:
        # A replay means the command it meant the first time, even where its reference has become ambiguous since.
        found = [o for o in found if o.command.id == earlier.command.reverses_id] or found
    if not found:
        if is_paid:
            message = "this partner has no purchase with that id, key or reference"
            raise Refused(RefusalCode.TRANSACTION_NOT_FOUND, message)
        if batch.originals(partner_id, ref, store_id, (CommandKind.AUTHORIZATION, CommandKind.VOID)):
            message = "an authorization is voided, not reversed; once it is captured, reverse the capture"
            raise Refused(RefusalCode.NOT_REVERSIBLE, message)
        message = "this partner has no purchase or burn with that id, key or reference"
        raise Refused(RefusalCode.TRANSACTION_NOT_FOUND, message)
    if len(found) > 1:
        message = "the reference fits several transactions: name the kind and the store, or use the key or the id"
        raise Refused(RefusalCode.AMBIGUOUS_REFERENCE, message, "reference")
    if not found[0].has_details or found[0].command.account_id not in batch.accounts:
        # Another process committed it after this batch chose its locks: without them its returns may change.
        raise StartOver
    member_now(batch, found[0])  # where its points are now is locked too
    return found[0]
