"""What lines of a statement are for."""

from enum import StrEnum

from api.graphql.fields import described_enum


class StatementLineKind(StrEnum):
    """Kind of a statement line."""

    ISSUE = "ISSUE"
    SERVICE_FEE = "SERVICE_FEE"
    REIMBURSEMENT = "REIMBURSEMENT"
    EARN_REVERSAL = "EARN_REVERSAL"
    SERVICE_FEE_REFUND = "SERVICE_FEE_REFUND"
    BURN_REVERSAL = "BURN_REVERSAL"
    BREAKAGE_SHARE = "BREAKAGE_SHARE"
    FIXED_FEE = "FIXED_FEE"
    ADJUSTMENT = "ADJUSTMENT"
    PREPAID = "PREPAID"
    TAX = "TAX"
    CARRIED_FORWARD = "CARRIED_FORWARD"


described_enum(
    StatementLineKind,
    "What a statement line is for.",
    {
        "ISSUE": "Points that you awarded, or paid for in a campaign, at the issue price: a charge.",
        "SERVICE_FEE": "The operator's fee for the points of ISSUE: a charge.",
        "REIMBURSEMENT": "Points that members burned with you: a credit.",
        "EARN_REVERSAL": "Points taken back for returned goods, at the award's issue price: a credit.",
        "SERVICE_FEE_REFUND": "The service fee of points taken back: a credit.",
        "BURN_REVERSAL": "Burns that you refunded, at the burn's reimbursement: a charge.",
        "BREAKAGE_SHARE": "Your share of the value of your points that expired: a credit.",
        "FIXED_FEE": "The fixed fee of the period: a charge.",
        "ADJUSTMENT": "A correction by the operator.",
        "PREPAID": "What your awards drew on money that you had paid in before: a credit; a charge where returns gave"
        " more back. Not taxed.",
        "TAX": "Tax on the lines.",
        "CARRIED_FORWARD": "What earlier statements left, being too little to be paid, less what this one leaves to the"
        " next; shown, part of due, and no part of net.",
    },
)
