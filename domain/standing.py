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


def once_named(batch: Batch, member: Member | None) -> list[str]:
    """Whom a digest may name that was made when the command came first: the member, or one it was merged with."""
    return [""] if member is None else [str(one) for one in (member.id, *batch.merged_with.get(member.id, ()))]


def print_member_id(batch: Batch, member: Member | None, earlier: Original | None) -> int | None:
    """Whom a command's fingerprint names: no merge since the first posting, nor its undoing, makes a conflict of it."""
    if member is None or earlier is None:
        return None if member is None else member.id
    stored = earlier.command.member_id
    is_known = standing_id(batch, earlier) == member.id or stored in batch.merged_with.get(member.id, ())
    return stored if is_known else member.id
