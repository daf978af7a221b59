"""Which scopes each field needs, declared once: on the schema, in its description, and in the one table of the docs.

A requirement is a tuple of alternatives (any one suffices), each a tuple of scopes (all of it is needed). Fields that
are selected inside a mutation's payload are covered by the mutation's own requirement.
"""

from collections.abc import Iterable

import strawberry
from strawberry.schema_directive import Location

Requirement = tuple[tuple[str, ...], ...]


def any_of(*scopes: str) -> Requirement:
    """Any one of these scopes suffices."""
    return tuple((scope,) for scope in scopes)


READ_MEMBERS = any_of("members:read", "members:admin")
READ_PARTNERS = any_of("partner:read", "program:read")
READ_TRANSACTIONS = any_of("partner:read", "settlement:read", "audit:read")
READ_HOLDS = any_of("points:burn", "partner:read", "settlement:read", "audit:read")
READ_SETTLEMENT = any_of("settlement:read", "settlement:operate", "audit:read")
READ_COALITION = any_of("settlement:operate", "program:read", "audit:read")

DECIDE_PROPOSALS = any_of("settlement:operate", "points:adjust", "program:write")
READ_PROPOSALS = (*DECIDE_PROPOSALS, *any_of("audit:read"))

SCOPES: dict[str, Requirement] = {
    "Query.node": any_of(
        "members:read", "members:admin", "partner:read", "program:read", "settlement:read", "audit:read", "points:burn"
    ),
    "Query.member": READ_MEMBERS,
    "Query.members": READ_MEMBERS,
    "Query.expiringPoints": READ_MEMBERS,
    "Query.partner": READ_PARTNERS,
    "Query.partners": READ_PARTNERS,
    "Query.campaigns": READ_PARTNERS,
    "Query.transactions": READ_TRANSACTIONS,
    "Query.quoteEarn": any_of("points:earn"),
    "Query.quoteBurn": any_of("points:burn"),
    "Query.settlementPeriod": READ_SETTLEMENT,
    "Query.settlementPeriods": READ_SETTLEMENT,
    "Query.settlementStatement": READ_SETTLEMENT,
    "Query.paymentList": READ_SETTLEMENT,
    "Query.budgetAlerts": READ_PARTNERS,
    "Query.deposits": READ_COALITION,
    "Query.debtors": any_of("members:admin", "settlement:operate", "audit:read"),
    "Query.performanceReport": any_of("reports:read"),
    "Mutation.enrollMember": any_of("members:write"),
    "Mutation.earn": any_of("points:earn"),
    "Mutation.earnMany": any_of("points:earn"),
    "Mutation.confirmPayment": any_of("settlement:operate"),
    "Mutation.confirmPaymentMany": any_of("settlement:operate"),
    "Query.holds": READ_HOLDS,
    "Query.parkedReversals": any_of("points:reverse", "partner:read", "settlement:read", "audit:read"),
    "Mutation.burn": any_of("points:burn"),
    "Mutation.burnMany": any_of("points:burn"),
    "Mutation.authorizeBurn": any_of("points:burn"),
    "Mutation.captureBurn": any_of("points:burn"),
    "Mutation.voidBurn": any_of("points:burn"),
    "Mutation.reverse": any_of("points:reverse"),
    "Mutation.transferPoints": any_of("points:burn", "members:admin"),
    "Mutation.reverseMany": any_of("points:reverse"),
    "BurnHold.balance": READ_MEMBERS,
    "Mutation.createPool": any_of("members:write", "members:admin"),
    "Mutation.joinPool": any_of("members:write", "members:admin"),
    "Mutation.leavePool": any_of("members:write", "members:admin"),
    "Mutation.mergeMembers": any_of("members:admin"),
    "Mutation.unmergeMembers": any_of("members:admin"),
    "Mutation.closePeriod": any_of("settlement:operate"),
    "Query.disputes": READ_SETTLEMENT,
    "Mutation.disputeStatement": any_of("settlement:dispute", "settlement:operate"),
    "Mutation.withdrawDispute": any_of("settlement:dispute"),
    "Mutation.decideDispute": any_of("settlement:operate"),
    "Mutation.topUpBudget": any_of("settlement:operate"),
    "Query.proposals": READ_PROPOSALS,
    "Mutation.proposeAdjustment": any_of("settlement:operate"),
    "Mutation.proposePointsAdjustment": any_of("points:adjust"),
    "Mutation.proposeOverdraft": any_of("program:write"),
    "Mutation.proposeWriteOff": any_of("settlement:operate"),
    "Mutation.recordDeposit": any_of("settlement:operate"),
    "Mutation.proposeDepositPayout": any_of("settlement:operate"),
    "Mutation.proposeDefault": any_of("settlement:operate"),
    "Mutation.approveProposal": DECIDE_PROPOSALS,
    "Mutation.rejectProposal": DECIDE_PROPOSALS,
    "Mutation.withdrawProposal": DECIDE_PROPOSALS,
    "Proposal.member": READ_MEMBERS,
    "Mutation.recordPayment": any_of("settlement:operate"),
    "Member.identifiers": READ_MEMBERS,
    "Member.attributes": READ_MEMBERS,
    "Member.acquiredBy": READ_MEMBERS,
    "Member.pool": READ_MEMBERS,
    "Partner.budget": READ_PARTNERS,
    "Partner.deposit": (*READ_PARTNERS, *any_of("settlement:read", "settlement:operate", "audit:read")),
    "Transaction.member": READ_MEMBERS,
    "SettlementPeriod.operatorNet": READ_COALITION,
    "SettlementPeriod.poolChange": READ_COALITION,
    "SettlementPeriod.margin": READ_COALITION,
    "SettlementPeriod.tax": READ_COALITION,
    "SettlementPeriod.memberReceivableChange": READ_COALITION,
    "SettlementPeriod.depositChange": READ_COALITION,
}
"""Requirement per field, as Type.field. ``Query.viewer`` is open to every valid token."""

NODE_SCOPES: dict[str, Requirement] = {
    "Member": READ_MEMBERS,
    "Partner": READ_PARTNERS,
    "Transaction": READ_TRANSACTIONS,
    "BurnHold": READ_HOLDS,
}
"""What ``node`` needs on top, per type that it is asked for."""


PROPOSAL_SCOPES: dict[str, Requirement] = {
    "ADJUSTMENT": any_of("settlement:operate"),
    "WRITE_OFF": any_of("settlement:operate"),
    "DISPUTE": any_of("settlement:operate"),
    "DEPOSIT_PAYOUT": any_of("settlement:operate"),
    "DEFAULT": any_of("settlement:operate"),
    "POINTS": any_of("points:adjust"),
    "OVERDRAFT": any_of("program:write"),
}
"""What deciding a proposal needs on top, per kind."""


def satisfies(requirement: Requirement, held: frozenset[str]) -> bool:
    """Whether these scopes meet the requirement; an empty one is always met."""
    return not requirement or any(held.issuperset(alternative) for alternative in requirement)


def in_words(requirement: Requirement) -> str:
    """The requirement as a person reads it: "points:earn", "members:read or members:admin"."""
    return " or ".join(" and ".join(alternative) for alternative in requirement)


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="requiresScopes",
    description="The token must hold all scopes of at least one of the inner lists, else FORBIDDEN and nothing runs.",
)
class RequiresScopes:
    """The directive through which the schema shows a field's scopes."""

    scopes: list[list[str]] = strawberry.directive_field(name="scopes")


def scope_table() -> Iterable[tuple[str, str]]:
    """Field and scopes in words, sorted by field: the table of the docs."""
    return sorted((coordinate, in_words(requirement)) for coordinate, requirement in SCOPES.items())
