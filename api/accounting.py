"""Members' accounts for the command line: transfers, pools, merges, all of it done by GraphQL as the operator."""

from typing import Any

from sqlalchemy import text

from api.graphql.scalars import date_time_text
from api.operating import operate
from api.runtime import Runtime
from domain.errors import ConfigurationError, RefusalCode, Refused
from domain.values import OPERATOR_ID

REFERENCES = ("id", "card", "email", "phone")
"""Ways to name a member: its id as the operator's queries give it, or one of its identifiers."""

REFUSAL = "... on Refusal { code message field }"
TRANSACTION = "transaction { id kind points idempotencyKey occurredAt reason }"
BALANCE = "balance { available pending held value { amount currency } }"
MEMBER = "id balance { available }"
POOL = f"pool {{ id members {{ member {{ {MEMBER} }} role burnLimit since }} }}"

TRANSFER_DOCUMENT = f"""mutation ($input: TransferPointsInput!) {{ transferPoints(input: $input) {{ __typename {REFUSAL}
  ... on TransferReceipt {{ points replayed {TRANSACTION} {BALANCE} }} }} }}"""
MERGE = f"... on MergeReceipt {{ points replayed {TRANSACTION} kept {{ {MEMBER} }} duplicate {{ {MEMBER} }} }}"
MERGE_DOCUMENT = f"""mutation ($input: MergeMembersInput!) {{ mergeMembers(input: $input) {{ __typename {REFUSAL}
  {MERGE} }} }}"""
UNMERGE_DOCUMENT = f"""mutation ($input: UnmergeMembersInput!) {{ unmergeMembers(input: $input) {{ __typename {REFUSAL}
  {MERGE} }} }}"""
RECEIPT = f"... on PoolReceipt {{ points replayed {TRANSACTION} {BALANCE} {POOL} }}"
CREATE_POOL_DOCUMENT = f"""mutation ($input: CreatePoolInput!) {{ createPool(input: $input) {{ __typename {REFUSAL}
  {RECEIPT} }} }}"""
JOIN_POOL_DOCUMENT = f"""mutation ($input: JoinPoolInput!) {{ joinPool(input: $input) {{ __typename {REFUSAL}
  {RECEIPT} }} }}"""
LEAVE_POOL_DOCUMENT = f"""mutation ($input: LeavePoolInput!) {{ leavePool(input: $input) {{ __typename {REFUSAL}
  {RECEIPT} }} }}"""
POOL_DOCUMENT = f"query ($by: MemberRef!) {{ member(by: $by) {{ {MEMBER} {POOL} }} }}"

OCCURRED_SQL = text("SELECT occurred_at FROM command WHERE partner_id = :operator AND idempotency_key = :key")


def member_reference(named: str) -> dict[str, str]:
    """A member as typed, such as card:1234. Raises ConfigurationError."""
    way, colon, value = named.partition(":")
    if not colon or way not in REFERENCES or not value:
        ways = ", ".join(f"{one}:…" for one in REFERENCES)
        raise ConfigurationError(f'"{named}" names no member: give one of {ways}')
    return {way: value}


async def transfer_and_describe(
    runtime: Runtime, source: str, target: str, points: int, *, key: str, reason: str | None
) -> dict[str, Any]:
    """Moves points as the operator; sent again with its key it is the same transfer. Raises Refused."""
    async with runtime.database.reading(OPERATOR_ID) as connection:
        first = (await connection.execute(OCCURRED_SQL, {"operator": OPERATOR_ID, "key": key})).scalar()
    given = {
        "idempotencyKey": key,
        "from": member_reference(source),
        "to": member_reference(target),
        "points": points,
        "occurredAt": date_time_text(first or runtime.clock()),
        "reason": reason,
    }
    return await _done(runtime, TRANSFER_DOCUMENT, given)


async def merge_and_describe(
    runtime: Runtime, keep: str, duplicate: str, *, key: str, reason: str | None
) -> dict[str, Any]:
    """Lets one member stand for another. Raises Refused."""
    given = {"keep": member_reference(keep), "duplicate": member_reference(duplicate)}
    return await _done(runtime, MERGE_DOCUMENT, {"idempotencyKey": key, **given, "reason": reason})


async def unmerge_and_describe(runtime: Runtime, merge_key: str, *, key: str, reason: str | None) -> dict[str, Any]:
    """Undoes the merge that was sent under that key. Raises Refused."""
    given = {"idempotencyKey": key, "originalKey": merge_key, "reason": reason}
    return await _done(runtime, UNMERGE_DOCUMENT, given)


async def create_pool_and_describe(runtime: Runtime, head: str, *, key: str) -> dict[str, Any]:
    """Founds a pool. Raises Refused."""
    return await _done(runtime, CREATE_POOL_DOCUMENT, {"idempotencyKey": key, "head": member_reference(head)})


async def join_pool_and_describe(
    runtime: Runtime, pool_of: str, member: str, *, role: str, burn_limit: int | None, key: str
) -> dict[str, Any]:
    """Takes a member into the pool of another, or changes its place there. Raises Refused."""
    pool = await describe_pool(runtime, pool_of)
    given = {"poolId": pool["pool"]["id"], "member": member_reference(member), "role": role, "burnLimit": burn_limit}
    return await _done(runtime, JOIN_POOL_DOCUMENT, {"idempotencyKey": key, **given})


async def leave_pool_and_describe(runtime: Runtime, member: str, *, key: str) -> dict[str, Any]:
    """Lets a member leave its pool. Raises Refused."""
    return await _done(runtime, LEAVE_POOL_DOCUMENT, {"idempotencyKey": key, "member": member_reference(member)})


async def describe_pool(runtime: Runtime, member: str) -> dict[str, Any]:
    """The pool in which a member is. Raises Refused(MEMBER_NOT_FOUND, POOL_NOT_FOUND)."""
    found: dict[str, Any] | None = await operate(runtime, POOL_DOCUMENT, {"by": member_reference(member)})
    if found is None:
        raise Refused(RefusalCode.MEMBER_NOT_FOUND, f"no member is {member}")
    if found["pool"] is None:
        raise Refused(RefusalCode.POOL_NOT_FOUND, f"{member} is in no pool")
    return found


async def _done(runtime: Runtime, document: str, given: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = await operate(runtime, document, {"input": given})
    return answer
