"""What changes whose points lie on which account, as values: merges of members, and pools that they share."""

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(slots=True)
class MergeRecord:
    """One merge: ``kept_id`` stands for ``duplicate_id``, whose points moved from its account to the kept one's."""

    command_id: int
    kept_id: int
    duplicate_id: int
    kept_account_id: int
    duplicate_account_id: int
    is_undone: bool = False
    moved: list[tuple[int, int]] = field(default_factory=list)
    """(lot at the kept member, the lot that it came from) of all that moved with the merge, or after it."""

    identifiers: set[tuple[str, str]] = field(default_factory=set)
    """Identifiers that are the duplicate's again when the merge is undone."""


@dataclass(frozen=True, slots=True)
class MergeChange:
    """A merge that a batch makes (``undone_by`` None), or the command by which it undoes one."""

    record: MergeRecord
    undone_by: int | None = None


class PoolRole(StrEnum):
    """What a member is in a pool."""

    HEAD = "HEAD"
    """Burns without a limit; a pool with members always has one."""

    MEMBER = "MEMBER"


@dataclass(frozen=True, slots=True)
class Membership:
    """One member's place in a pool, as the command ``command_id`` made it."""

    command_id: int
    member_id: int
    home_account_id: int
    role: PoolRole
    burn_limit: int | None
    """Most points that the member may burn of the pool on one local day; None: no limit."""


@dataclass(slots=True)
class Pool:
    """A household that shares one account; ``members`` are those who are in it, by their ids."""

    id: int
    account_id: int
    members: dict[int, Membership] = field(default_factory=dict)
    is_new: bool = False

    def has_other_head(self, member_id: int) -> bool:
        """Whether somebody else is a head."""
        return any(one.role == PoolRole.HEAD and one.member_id != member_id for one in self.members.values())


@dataclass(frozen=True, slots=True)
class PoolChange:
    """What one command changes about a pool: the places that it ends and begins."""

    command_id: int
    pool: Pool
    ended: Membership | None
    begun: Membership | None
    is_founding: bool = False
