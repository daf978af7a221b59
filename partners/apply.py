"""Applies a coalition file: one transaction, alone with the configuration, all of it or nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.database import CONFIGURATION_LOCK_CLASS, LOCK_TIMEOUT, Database, sqlstate
from domain.errors import ConfigurationError, LedgerFault
from domain.periods import Clock
from domain.terms import BudgetPlan, EarnRule, TaxRate, Terms, load_configuration
from domain.values import OPERATOR_ID
from partners.campaigns import write_campaign
from partners.coalition_file import (
    BudgetSection,
    CoalitionFile,
    EarnRuleSection,
    ProgrammeSection,
    TaxSection,
    TermsSection,
)
from partners.endings import refusals_of_endings
from partners.overdrafts import refusals_of_raises
from partners.plan import Change, Plan, plan
from partners.used import refusals_of_use
from partners.windows import decide_windows, load_windows, lock_windows, update_windows

LOCK_CONFIGURATION_SQL = text(f"SELECT pg_advisory_xact_lock({CONFIGURATION_LOCK_CLASS}, 0)")
SHARE_CONFIGURATION_SQL = text(f"SELECT pg_advisory_xact_lock_shared({CONFIGURATION_LOCK_CLASS}, 0)")

PROGRAMME_COLUMNS = tuple(column.name for column in fields(ProgrammeSection))
INSERT_PROGRAMME_SQL = text(
    f"INSERT INTO programme ({', '.join(PROGRAMME_COLUMNS)}, rolling_lots)"  # noqa: S608 (columns of this application)
    f" VALUES ({', '.join(f':{column}' for column in PROGRAMME_COLUMNS)}, :expiry = 'rolling')"
)
UPDATE_PROGRAMME_SQL = text(
    f"UPDATE programme SET {', '.join(f'{column} = :{column}' for column in PROGRAMME_COLUMNS)},"  # noqa: S608 (the same)
    " rolling_lots = rolling_lots OR :expiry = 'rolling'"
)
RAISE_VERSION_SQL = text("UPDATE programme SET version = version + 1 RETURNING version")

INSERT_PARTNER_SQL = text(
    """
    INSERT INTO partner (code, name, category, state, reference_unique, risk, hold_minutes, suspended_burns, leaves_on,
                         run_off_until)
    VALUES (:code, :name, :category, :state, :reference_unique, :risk, :hold_minutes, :suspended_burns, :leaves_on,
            :run_off_until)
    """
)
UPDATE_PARTNER_SQL = text(
    """
    UPDATE partner
       SET name = :name, category = :category, state = :state, reference_unique = :reference_unique,
           risk = :risk, hold_minutes = :hold_minutes, suspended_burns = :suspended_burns, leaves_on = :leaves_on,
           run_off_until = :run_off_until
     WHERE id = :id
    """
)
REQUIRE_DEPOSIT_SQL = text(
    """
    INSERT INTO deposit_requirement (partner_id, required_micro) VALUES (:partner_id, :required_micro)
        ON CONFLICT (partner_id) DO UPDATE SET required_micro = excluded.required_micro
    """
)
PARTNER_IDS_SQL = text("SELECT code, id FROM partner")

INSERT_STORE_SQL = text("INSERT INTO store (partner_id, code, name) VALUES (:partner_id, :code, :name)")
UPDATE_STORE_SQL = text("UPDATE store SET name = :name WHERE id = :id")

INSERT_TERMS_SQL = text(
    """
    INSERT INTO terms (partner_id, valid, issue_price_micro, service_fee_micro, reimbursement_micro,
                       breakage_share_ppm, fixed_fee_micro, pending_days, reversal_days)
    VALUES (:partner_id, daterange(:starts, :ends), :issue_price_micro, :service_fee_micro,
            :reimbursement_micro, :breakage_share_ppm, :fixed_fee_micro, :pending_days, :reversal_days)
    """
)
UPDATE_TERMS_SQL = text(
    """
    UPDATE terms
       SET valid = daterange(:starts, :ends), issue_price_micro = :issue_price_micro,
           service_fee_micro = :service_fee_micro, reimbursement_micro = :reimbursement_micro,
           breakage_share_ppm = :breakage_share_ppm, fixed_fee_micro = :fixed_fee_micro,
           pending_days = :pending_days, reversal_days = :reversal_days
     WHERE id = :id
    """
)
DELETE_TERMS_SQL = text("DELETE FROM terms WHERE id = :id")

INSERT_BUDGET_SQL = text(
    """
    INSERT INTO budget_plan (partner_id, valid, per_period, limit_micro, overdraft_micro, on_limit,
                             after_period, alert_at_ppm, funding)
    VALUES (:partner_id, daterange(:starts, :ends), :per_period, :limit_micro, :overdraft_micro, :on_limit,
            :after_period, :alert_at_ppm, :funding)
    """
)
UPDATE_BUDGET_SQL = text(
    """
    UPDATE budget_plan
       SET valid = daterange(:starts, :ends), per_period = :per_period, limit_micro = :limit_micro,
           overdraft_micro = :overdraft_micro, on_limit = :on_limit, after_period = :after_period,
           alert_at_ppm = :alert_at_ppm, funding = :funding
     WHERE id = :id
    """
)
DELETE_BUDGET_SQL = text("DELETE FROM budget_plan WHERE id = :id")

INSERT_RULE_SQL = text(
    """
    INSERT INTO earn_rule (partner_id, code, valid, rate_micro, max_points, exclude_categories,
                           exclude_products)
    VALUES (:partner_id, :code, daterange(:starts, :ends), :rate_micro, :max_points,
            :exclude_categories, :exclude_products)
    """
)
UPDATE_RULE_SQL = text(
    """
    UPDATE earn_rule
       SET valid = daterange(:starts, :ends), rate_micro = :rate_micro, max_points = :max_points,
           exclude_categories = :exclude_categories, exclude_products = :exclude_products
     WHERE id = :id
    """
)
DELETE_RULE_SQL = text("DELETE FROM earn_rule WHERE id = :id")


INSERT_TAX_SQL = text(
    "INSERT INTO tax_rate (partner_id, code, valid, rate_ppm)"
    " VALUES (:partner_id, :code, daterange(:starts, :ends), :rate_ppm)"
)
UPDATE_TAX_SQL = text("UPDATE tax_rate SET valid = daterange(:starts, :ends), rate_ppm = :rate_ppm WHERE id = :id")
DELETE_TAX_SQL = text("DELETE FROM tax_rate WHERE id = :id")


VersionChange = (
    Change[Terms, TermsSection]
    | Change[BudgetPlan, BudgetSection]
    | Change[EarnRule, EarnRuleSection]
    | Change[TaxRate, TaxSection]
)


@dataclass(frozen=True)
class AppliedPlan:
    """What was written, and the version of the configuration after it."""

    plan: Plan
    version: int


async def plan_coalition(database: Database, file: CoalitionFile, *, clock: Clock) -> Plan:
    """What ``apply_coalition`` would do now; writes nothing. Raises ConfigurationError where that would."""
    async with database.reading(OPERATOR_ID) as connection:
        await _take(connection, SHARE_CONFIGURATION_SQL)
        current = await load_configuration(connection)
        made = plan(current, file)
        if current is not None:
            windows = await load_windows(connection, made, current.programme.calendar)
            now = clock()
            _, refusals = decide_windows(windows, file, now)
            refusals += await refusals_of_endings(connection, current, made, now)
            refusals += refusals_of_raises(current, made)
            _refuse_any([*await refusals_of_use(connection, current, made), *refusals])
    return made


async def apply_coalition(database: Database, file: CoalitionFile, *, clock: Clock) -> AppliedPlan:
    """Makes the configuration what the file says and raises its version by one; without a change, neither.

    Raises ConfigurationError, with a line per reason, when the ledger forbids a change (nothing is written then).
    """
    async with database.posting() as connection:
        await _take(connection, LOCK_CONFIGURATION_SQL)
        # New statements: the one that waited still sees what was there before, these see what others wrote.
        current = await load_configuration(connection)
        made = plan(current, file)
        if current is None:
            await connection.execute(INSERT_PROGRAMME_SQL, asdict(file.programme))
            await _write(connection, made, clock())
            return AppliedPlan(made, version=1)
        if not made.changes:
            return AppliedPlan(made, current.programme.version)
        await lock_windows(connection, made)
        windows = await load_windows(connection, made, current.programme.calendar)
        now = clock()
        updates, refusals = decide_windows(windows, file, now)
        refusals += await refusals_of_endings(connection, current, made, now)
        refusals += refusals_of_raises(current, made)
        _refuse_any([*await refusals_of_use(connection, current, made), *refusals])
        if made.programme is not None:
            await connection.execute(UPDATE_PROGRAMME_SQL, asdict(file.programme))
        await _write(connection, made, now)
        if await update_windows(connection, updates) != len(updates):
            raise LedgerFault("a budget window changed while the configuration was locked")
        version = (await connection.execute(RAISE_VERSION_SQL)).scalar_one()
        return AppliedPlan(made, version)


async def _take(connection: AsyncConnection, lock: TextClause) -> None:
    try:
        await connection.execute(lock)
    except DBAPIError as error:
        if sqlstate(error) != LOCK_TIMEOUT:
            raise
        message = "the configuration is in use by postings or another apply that take long: try again"
        raise ConfigurationError(message) from error


def _refuse_any(refusals: Sequence[str]) -> None:
    if refusals:
        raise ConfigurationError("\n".join(refusals))


async def _write(connection: AsyncConnection, made: Plan, now: datetime) -> None:
    for partner in made.partners:
        statement = INSERT_PARTNER_SQL if partner.old is None else UPDATE_PARTNER_SQL
        await connection.execute(statement, _parameters(partner))
    ids = {row.code: row.id for row in await connection.execute(PARTNER_IDS_SQL)}
    for partner in made.partners:
        if partner.new is not None and "deposit_required" in partner.values:
            required = {"partner_id": ids[partner.partner_code], "required_micro": partner.new.deposit_required_micro}
            await connection.execute(REQUIRE_DEPOSIT_SQL, required)
    for store in made.stores:
        statement = INSERT_STORE_SQL if store.old is None else UPDATE_STORE_SQL
        await connection.execute(statement, _parameters(store) | {"partner_id": ids[store.partner_code]})
    await _write_versions(connection, made.terms, ids, (INSERT_TERMS_SQL, UPDATE_TERMS_SQL, DELETE_TERMS_SQL))
    budget_sql = (INSERT_BUDGET_SQL, UPDATE_BUDGET_SQL, DELETE_BUDGET_SQL)
    await _write_versions(connection, made.budgets, ids, budget_sql)
    rule_sql = (INSERT_RULE_SQL, UPDATE_RULE_SQL, DELETE_RULE_SQL)
    await _write_versions(connection, made.earn_rules, ids, rule_sql)
    # Nothing stands on a rate but statements not closed yet: closed ones keep theirs (statement_tax).
    await _write_versions(connection, made.taxes, ids, (INSERT_TAX_SQL, UPDATE_TAX_SQL, DELETE_TAX_SQL))
    for campaign in made.campaigns:
        await write_campaign(connection, campaign, ids, now)


async def _write_versions(
    connection: AsyncConnection,
    changes: Sequence[VersionChange],
    ids: Mapping[str, int],
    statements: tuple[TextClause, TextClause, TextClause],
) -> None:
    # No two versions may overlap at any moment of the transaction (the temporal key is not deferrable): first
    # what goes, then what ends earlier, then what ends later, so that new ones find their days free.
    insert, update, delete = statements
    for change in sorted(changes, key=_place):
        statement = insert if change.old is None else delete if change.new is None else update
        await connection.execute(statement, _parameters(change) | {"partner_id": ids[change.partner_code]})


def _place(change: VersionChange) -> int:
    if change.new is None:
        return 0
    if change.old is None:
        return 3
    return 1 if (change.new.ends or date.max) < (change.old.ends or date.max) else 2


def _parameters(change: Change[Any, Any]) -> dict[str, object]:
    """The columns of what is wanted, and the id of what there is."""
    columns = () if change.new is None else fields(change.new)
    values = {column.name: getattr(change.new, column.name) for column in columns}
    return values | ({} if change.old is None else {"id": change.old.id})
