"""Each invariant fails, alone and naming the place, when the data it guards is changed behind the ledger's back."""

from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest
from sqlalchemy import text

from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.ledger import HASHED_PARTNER_ENTRY_COLUMNS, HASHED_TRANSACTION_COLUMNS, row_hash_sql
from domain.periods import Clock
from domain.values import OPERATOR_ID
from settlement.checks import NAMES
from settlement.closing import close_period
from settlement.reading import period_by_label
from settlement.verifying import verify
from tests.settlement.rows import noon
from tests.settlement.worked_example import Example

Tamper = Callable[[str], Awaitable[None]]
At = Callable[[datetime], Clock]

REHASH = (
    f"UPDATE transaction AS t SET row_hash = {row_hash_sql(HASHED_TRANSACTION_COLUMNS, 't')}",
    """
    UPDATE position AS p SET hash_sum = (
        SELECT sum(t.row_hash) FROM transaction AS t
         WHERE t.period_id = p.period_id AND (p.kind = 'POOL' OR (t.party_id = p.partner_id
           AND t.kind =
               CASE p.kind WHEN 'ISSUE' THEN 'EARN' WHEN 'SERVICE_FEE' THEN 'EARN'
                           WHEN 'SERVICE_FEE_REFUND' THEN 'EARN_REVERSAL' WHEN 'REIMBURSEMENT' THEN 'BURN'
                           ELSE p.kind END)))
     WHERE p.kind <> 'FIXED_FEE'
    """,
)
"""Makes row hashes and positions fit rows that were changed: what a faulty writer, not a forger, would leave."""

ENTRY_HASH = row_hash_sql(HASHED_PARTNER_ENTRY_COLUMNS, "e")

ONE_LEGGED_VIEW = """
    CREATE OR REPLACE VIEW ledger_entry WITH (security_invoker = true) AS
    SELECT period_id, id AS transaction_id, NULL::bigint AS partner_entry_id, kind, 'POINTS' AS unit, 'MEMBER' AS book,
           NULL::integer AS party_id, points AS amount
      FROM transaction
"""

OTHER_POINTS = "UPDATE period SET certificate = jsonb_set(certificate, '{totals,outstanding_points}', '1')"

AFTER_THE_CLOSE: list[tuple[str, list[str], set[int], str]] = [
    ("a leg of every entry is missing", [ONE_LEGGED_VIEW], {1}, "period 24206: points entries sum to 116518"),
    (
        "a point moves between two lots of one account",
        [
            "UPDATE lot SET remaining = remaining - 1 WHERE account_id = 1 AND granted = 118000",
            "UPDATE lot SET remaining = remaining + 1 WHERE account_id = 1 AND granted = 2000",
        ],
        {2},
        "of account 1: granted 118000, used 42000, remaining 75999, reserved 0",
    ),
    (
        "a point moves between two accounts",
        [
            "UPDATE account SET available = available + 1 WHERE id = 1",
            "UPDATE account SET available = available - 1 WHERE id = 2",
        ],
        {3},
        "account 1: available 76778, pending 0, held 0; its lots remain 76777 and reserve 0, its pending awards",
    ),
    (
        "the certificate claims other points",
        [OTHER_POINTS],
        {4, 9},
        "period 24206 closed with 1 points, not 116518",
    ),
    (
        "the period claims another pool",
        ["UPDATE period SET pool_micro = pool_micro + 1 WHERE label = '2017-03'"],
        {5},
        "period 24206 closed with a pool of 1207.216001, not 1207.216000",
    ),
    (
        "an unused lot changes its price",
        ["UPDATE lot SET price_micro = price_micro + 1 WHERE granted = 777"],
        {2, 5},
        "movements leave a pool of 1215.141400, lots are worth 1215.142177",
    ),
    (
        "the period claims another margin",
        ["UPDATE period SET margin_micro = margin_micro + 1 WHERE label = '2017-03'"],
        {6},
        "period 2017-03: stored margin 355284001 instead of 355284000",
    ),
    (
        "a use names another issuer",
        ["UPDATE lot_use SET issuer_id = 2 WHERE kind = 'BURN' AND points = 18000"],
        {7},
        "copies issuer 2, funder 1, price 10000 of lot",
    ),
    (
        "a statement's net changes",
        ["UPDATE statement SET net_minor = net_minor + 1 WHERE partner_id = 1"],
        {8, 16},
        "statement of A for 2017-03: net -1077.99, its lines sum to -1078.00",
    ),
    (
        "a row is edited",
        ["UPDATE transaction SET store_id = 5 WHERE kind = 'BURN' AND points = -18000"],
        {9},
        "BURN, partner A) was altered",
    ),
    (
        "a fixed fee is edited",
        ["UPDATE partner_entry SET terms_id = 9 WHERE kind = 'FIXED_FEE' AND partner_id = 2"],
        {9},
        "(FIXED_FEE, partner B) was altered",
    ),
    (
        "a budget is credited by hand",
        ["UPDATE budget SET consumed_micro = consumed_micro - 1 WHERE partner_id = 2"],
        {11},
        "of partner 2: consumed 467.999999, its entries draw 468.000000",
    ),
    (
        "a command is edited",
        ["UPDATE command SET amount_minor = amount_minor + 1 WHERE kind = 'EARN' AND partner_id = 3"],
        {12},
        "(EARN, key key-",
    ),
    (
        "a key stands twice",
        [
            "ALTER TABLE command DROP CONSTRAINT command_key_unique",
            "UPDATE command SET idempotency_key = 'twice' WHERE kind = 'BURN' AND partner_id = 2",
        ],
        {12},
        "key twice of partner 2 stands on commands ",
    ),
    (
        "a command claims to have declined more",
        ["UPDATE command SET declined_points = 1483 WHERE declined_points = 1482"],
        {12, 13},
        "points unnamed, declined 1483; its transactions move 18518 of 20000 requested",
    ),
    (
        "a rounding entry changes",
        [
            "UPDATE partner_entry SET amount_micro = amount_micro + 1 WHERE kind = 'ROUNDING' AND line_kind = 'ISSUE'",
            f"UPDATE partner_entry AS e SET row_hash = {ENTRY_HASH}",
        ],
        {14, 16},
        "statement of C for 2017-03, line ISSUE: ROUNDING has 0.003999, the line leaves 0.004000",
    ),
    (
        "a line is billed a cent further off, everywhere",
        [
            "UPDATE statement_line SET billed_minor = billed_minor - 1 WHERE partner_id = 3 AND kind = 'ISSUE'",
            "UPDATE statement SET net_minor = net_minor - 1 WHERE partner_id = 3",
            "UPDATE partner_entry SET amount_micro = amount_micro - 10000 WHERE line_kind = 'ISSUE'",
            f"UPDATE partner_entry AS e SET row_hash = {ENTRY_HASH}",
        ],
        {8, 14, 16},
        "statement of C for 2017-03, line ISSUE: residue 0.014000",
    ),
    (
        "a stored statement changes its bytes",
        ["UPDATE statement SET document = document || ' ' WHERE partner_id = 3"],
        {9, 15},
        "statement of C for 2017-03: its bytes are not what its rows make",
    ),
    (
        "a certificate is forged",
        ["UPDATE period SET certificate_sha256 = sha256('x') WHERE label = '2017-03'"],
        {9},
        "period 2017-03: its statements, positions or totals are not what was certified",
    ),
]


@pytest.mark.parametrize(
    ("changes", "numbers", "place"), [case[1:] for case in AFTER_THE_CLOSE], ids=[case[0] for case in AFTER_THE_CLOSE]
)
async def test_verify_names_what_was_changed_after_the_close(
    database: Database, at: At, booked_march: Example, tamper: Tamper, changes: list[str], numbers: set[int], place: str
) -> None:
    await close_period(database, at(noon(2017, 4, 1)), "2017-03", "close")
    await booked_march.writer.earn("A", 777, noon(2017, 4, 2))
    sound = await verify(database, at(noon(2017, 4, 3)))
    assert [(check.number, check.holds) for check in sound.checks] == [(number, True) for number in NAMES]
    for change in changes:
        await tamper(change)
    report = await verify(database, at(noon(2017, 4, 3)))
    failed = {check.number: check.detail for check in report.checks if not check.holds}
    assert not report.holds
    assert set(failed) == numbers, failed
    assert place in " ".join(failed.values())


BEFORE_THE_CLOSE: list[tuple[str, list[str], set[int], str]] = [
    (
        "a point moves between two lots of one account",
        AFTER_THE_CLOSE[1][1],
        {2},
        "of account 1: granted 118000, used 42000, remaining 75999, reserved 0",
    ),
    ("a point moves between two accounts", AFTER_THE_CLOSE[2][1], {3}, "account 1: available 76001"),
    ("a use names another issuer", AFTER_THE_CLOSE[7][1], {7}, "copies issuer 2, funder 1, price 10000 of lot"),
    ("a row is edited", AFTER_THE_CLOSE[9][1], {9}, "BURN, partner A) was altered"),
    (
        "a reversal carries other terms",
        ["UPDATE transaction SET terms_id = 2 WHERE kind = 'EARN_REVERSAL'", *REHASH],
        {10},
        "carries another party, terms, price or period",
    ),
    (
        "a reversal undoes more than there was",
        ["UPDATE transaction SET shortfall_points = 1 WHERE kind = 'EARN_REVERSAL'", *REHASH],
        {10},
        "undo 2001 of 2000 points",
    ),
    (
        "an award is charged at another price",
        [
            """
            UPDATE transaction SET issue_value_micro = issue_value_micro - 1, service_fee_micro = service_fee_micro + 1
             WHERE kind = 'EARN' AND points = 40000
            """,
            "UPDATE position SET amount_micro = amount_micro - 1 WHERE partner_id = 2 AND kind = 'ISSUE'",
            "UPDATE position SET amount_micro = amount_micro + 1 WHERE partner_id = 2 AND kind = 'SERVICE_FEE'",
            *REHASH,
        ],
        {10},
        "period 24206, partner 2: EARN not at the prices of terms 3",
    ),
    ("a budget is credited by hand", AFTER_THE_CLOSE[11][1], {11}, "of partner 2: consumed 467.999999"),
    (
        "the index of keys is gone",
        ["ALTER TABLE command DROP CONSTRAINT command_key_unique"],
        {12},
        "the unique index command_key_unique is missing or broken",
    ),
    ("a command claims to have declined more", AFTER_THE_CLOSE[14][1], {13}, "declined 1483"),
    (
        "uses change places",
        [
            """
            UPDATE lot_use AS u SET transaction_id = o.transaction_id FROM lot_use AS o
             WHERE (u.points, o.points) IN ((18000, 20000), (20000, 18000))
            """,
        ],
        {13},
        "(BURN) moves -18000 points worth -180000000, its lot uses -20000 worth -200000000",
    ),
    (
        "a position is edited",
        ["UPDATE position SET amount_micro = amount_micro + 1 WHERE partner_id = 1 AND kind = 'ISSUE'"],
        {1, 6, 9},
        "partner 1, position ISSUE: amount_micro -1199999999 instead of -1200000000",
    ),
    (
        "a row is gone",
        ["DELETE FROM transaction WHERE kind = 'BURN' AND points = -18000"],
        {1, 3, 4, 5, 6, 7, 9, 13},
        "(BURN) has no transaction in its period",
    ),
]


@pytest.mark.parametrize(
    ("changes", "numbers", "place"), [case[1:] for case in BEFORE_THE_CLOSE], ids=[case[0] for case in BEFORE_THE_CLOSE]
)
async def test_a_close_refuses_and_names_what_was_changed_before_it(
    database: Database, at: At, booked_march: Example, tamper: Tamper, changes: list[str], numbers: set[int], place: str
) -> None:
    for change in changes:
        await tamper(change)
    with pytest.raises(Refused) as refused:
        await close_period(database, at(noon(2017, 4, 1)), "2017-03", "close")
    assert refused.value.code == RefusalCode.AUDIT_FAILED
    assert {number for number in NAMES if f"Invariant {number} (" in refused.value.message} == numbers, (
        refused.value.message
    )
    assert place in refused.value.message
    period = await period_by_label(database, OPERATOR_ID, "2017-03")
    assert period is not None
    assert (period.state, period.certificate) == ("CLOSING", None)
    async with database.reading(OPERATOR_ID) as connection:
        kept = "SELECT (SELECT count(*) FROM statement), (SELECT count(*) FROM partner_entry WHERE kind = 'ROUNDING')"
        assert tuple((await connection.execute(text(kept))).one()) == (0, 0)


async def test_a_close_finds_that_the_one_before_claims_other_points(
    database: Database, at: At, booked_march: Example, tamper: Tamper
) -> None:
    await close_period(database, at(noon(2017, 4, 1)), "2017-03", "close")
    await tamper(OTHER_POINTS)
    with pytest.raises(Refused) as refused:
        await close_period(database, at(noon(2017, 5, 1)), "2017-04", "close again")
    failed = {number for number in NAMES if f"Invariant {number} (" in refused.value.message}
    assert failed == {4}
    assert "period 24207 closes with 1 points, all movements until then leave 116518" in refused.value.message


async def test_an_altered_fingerprint_in_this_close_s_share_is_found(
    database: Database, at: At, booked_march: Example, tamper: Tamper
) -> None:
    await tamper("UPDATE command SET fingerprint = sha256('x')")
    with pytest.raises(Refused, match=r"Invariant 12 .*does not match its fingerprint"):
        await close_period(database, at(noon(2017, 4, 1)), "2017-03", "close")


async def test_an_empty_database_verifies(database: Database, at: At) -> None:
    report = await verify(database, at(noon(2017, 4, 1)))
    assert report.holds
    assert report.checks == ()
