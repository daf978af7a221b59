"""Who stands for the member of an earlier command, and where that member's points are now.

A command keeps the member and the account that it was booked on. Merges let another member stand for its own, and an
account that nobody uses any more passes on what comes back to it.
"""

from domain.batch import Batch, Member, Original, StartOver


def standing_id(batch: Batch, original: Original) -> int:
    """The id of the command's member, or of who stands for it since."""
    stored = original.command.member_id if original.member_now is None else original.member_now.id
    return batch.merged.get(stored, stored)


def member_now(batch: Batch, original: Original) -> Member:
    """The command's member, or who stands for it since. Raises StartOver where its account is not locked."""
    member = batch.members.get(standing_id(batch, original))
    if member is None or member.account_id not in batch.accounts:
        raise StartOver
    return member


def is_left(batch: Batch, original: Original) -> bool:
    """Whether no member uses the command's account any more."""
    return batch.left_accounts.get(original.command.account_id, original.is_left)


def print_member_id(batch: Batch, member: Member | None, earlier: Original | None) -> int | None:
    """Whom a command's fingerprint names: a merge since the first posting makes no conflict out of a replay."""
    if member is None or earlier is None or standing_id(batch, earlier) != member.id:
        return None if member is None else member.id
    return earlier.command.member_id
