"""What a coalition file would change, in words and as values for the writer. Pure.

A partner in the file is declared whole: a version of it that is in the database and not in the file is
deleted, if it was never used (``partners.used`` refuses otherwise). Partners and stores that the file leaves
out stay.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

from domain.terms import BudgetPlan, Configuration, EarnRule, Partner, Programme, Store, TaxRate, Terms
from domain.values import MICRO_DIGITS
from partners.advice import warnings_of
from partners.campaigns import CampaignSection, StoredCampaign, stored_campaigns
from partners.coalition_file import (
    BudgetSection,
    CoalitionFile,
    EarnRuleSection,
    PartnerSection,
    ProgrammeSection,
    StoreSection,
    TaxSection,
    TermsSection,
)
from partners.toml_section import plain

Stored = TypeVar("Stored", bound=Programme | Partner | Store | Terms | BudgetPlan | EarnRule | TaxRate | StoredCampaign)
Wanted = TypeVar(
    "Wanted",
    bound=ProgrammeSection
    | PartnerSection
    | StoreSection
    | TermsSection
    | BudgetSection
    | EarnRuleSection
    | TaxSection
    | CampaignSection,
)

NOT_COMPARED = frozenset({"code", "starts", "stores", "terms", "budgets", "earn_rules", "taxes"})
"""Fields that name a thing, or hold things with changes of their own."""

ENDS = frozenset({"leaves_on", "run_off_until", "issue_ends", "burn_ends", "reversal_days"})
"""With what something ends; what is new mostly has none."""

COALITION = ""
"""Where a thing of the file belongs to no partner of it."""

PRICES = frozenset({"point_value_micro", "issue_price_micro", "service_fee_micro", "reimbursement_micro"})

FILE_KEYS = {
    "begins": "from",
    "ends": "to",
    "per_period": "every",
    "rate_micro": "points_per_unit",
    "overdraft_micro": "approved_overdraft",
}
"""Keys of the file that are not just the field's name without its unit."""


@dataclass(frozen=True)
class Change(Generic[Stored, Wanted]):
    """One thing that the file creates (``old`` is None), changes, or deletes (``new`` is None)."""

    subject: str
    partner_code: str
    old: Stored | None
    new: Wanted | None

    @property
    def action(self) -> str:
        """In one word."""
        if self.old is None:
            return "create"
        return "delete" if self.new is None else "change"

    @property
    def differs(self) -> bool:
        """Whether there is anything to write."""
        return self.old is None or self.new is None or bool(self.values)

    @property
    def values(self) -> dict[str, tuple[str | None, str]]:
        """Old and new value of what differs, by the file's keys and written as in the file."""
        if self.new is None:
            return {}
        return {
            _file_key(name): (
                None if self.old is None else _shown(name, getattr(self.old, name)),
                _shown(name, getattr(self.new, name)),
            )
            for name in (field.name for field in fields(self.new))
            if name not in NOT_COMPARED
            and (self._is_said(name) if self.old is None else getattr(self.old, name) != getattr(self.new, name))
        }

    def _is_said(self, name: str) -> bool:
        """Whether a new thing is described by that field: a campaign has many that it does without."""
        if name in ENDS:
            return getattr(self.new, name) is not None
        return not isinstance(self.new, CampaignSection) or name == "partners" or bool(getattr(self.new, name))

    def line(self) -> str:
        """The change in words."""
        if self.new is None:
            return f"delete {self.subject}: it is not in the file"
        shown = [f"{key} {new}" if old is None else f"{key} {old} → {new}" for key, (old, new) in self.values.items()]
        return f"{self.action} {self.subject}: {', '.join(shown)}"

    def as_json(self) -> dict[str, object]:
        """The change for programs."""
        values = {key: {"old": old, "new": new} for key, (old, new) in self.values.items()}
        return {"action": self.action, "subject": self.subject, "values": values}


@dataclass(frozen=True)
class Plan:
    """What a file changes; ``unchanged`` counts the things that it says and that are so already."""

    programme: Change[Programme, ProgrammeSection] | None
    partners: tuple[Change[Partner, PartnerSection], ...]
    stores: tuple[Change[Store, StoreSection], ...]
    terms: tuple[Change[Terms, TermsSection], ...]
    budgets: tuple[Change[BudgetPlan, BudgetSection], ...]
    earn_rules: tuple[Change[EarnRule, EarnRuleSection], ...]
    taxes: tuple[Change[TaxRate, TaxSection], ...]
    campaigns: tuple[Change[StoredCampaign, CampaignSection], ...]
    unchanged: int
    warnings: list[str]

    @property
    def all_changes(self) -> tuple[Change[Any, Any], ...]:
        """Every change: programme, partners, stores, terms, budgets, earn rules."""
        first = () if self.programme is None else (self.programme,)
        return (
            *first,
            *self.partners,
            *self.stores,
            *self.terms,
            *self.budgets,
            *self.earn_rules,
            *self.taxes,
            *self.campaigns,
        )

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.all_changes)

    def lines(self) -> list[str]:
        """The plan for a person: a line per change, then what stays."""
        lines = [change.line() for change in self.all_changes]
        return [*lines, f"{self.unchanged} unchanged"] if lines else ["nothing to change"]

    def as_json(self) -> dict[str, object]:
        """The plan for programs."""
        changes = [change.as_json() for change in self.all_changes]
        return {"changes": changes, "unchanged": self.unchanged, "warnings": self.warnings}


def plan(current: Configuration | None, file: CoalitionFile) -> Plan:
    """What applying the file to the current configuration (None: nothing yet) would change."""
    programme = _named("programme", "", current.programme if current else None, file.programme)
    known = current.partners_by_code if current else {}
    partners = [_named(f"partner {one.code}", one.code, known.get(one.code), one) for one in file.partners]
    stores: list[Change[Store, StoreSection]] = []
    terms: list[Change[Terms, TermsSection]] = []
    budgets: list[Change[BudgetPlan, BudgetSection]] = []
    rules: list[Change[EarnRule, EarnRuleSection]] = []
    taxes: list[Change[TaxRate, TaxSection]] = []
    by_start = attrgetter("starts")
    for one in file.partners:
        held = _held(current, known.get(one.code))
        stores += _listed("store", one.code, held.stores, one.stores, attrgetter("code"))
        terms += _listed("terms", one.code, held.terms, one.terms, by_start)
        budgets += _listed("budget", one.code, held.budgets, one.budgets, by_start)
        rules += _listed("earn rule", one.code, held.earn_rules, one.earn_rules, attrgetter("code", "starts"))
        taxes += _listed("tax", one.code, held.taxes, one.taxes, attrgetter("code", "starts"))
    campaigns = _listed("campaign", COALITION, stored_campaigns(current), file.campaigns, attrgetter("code"))
    everything: list[Change[Any, Any]] = [programme, *partners, *stores, *terms, *budgets, *rules, *taxes, *campaigns]
    return Plan(
        programme if programme.differs else None,
        _differing(partners),
        # A store that the file leaves out stays: purchases name it, and tills may still send its code.
        tuple(store for store in _differing(stores) if store.new is not None),
        _differing(terms),
        _differing(budgets),
        _differing(rules),
        _differing(taxes),
        _differing(campaigns),
        sum(not change.differs for change in everything),
        warnings_of(current, file),
    )


class _Held(NamedTuple):
    """What the database holds of one partner."""

    stores: Sequence[Store] = ()
    terms: Sequence[Terms] = ()
    budgets: Sequence[BudgetPlan] = ()
    earn_rules: Sequence[EarnRule] = ()
    taxes: Sequence[TaxRate] = ()


def _held(current: Configuration | None, partner: Partner | None) -> _Held:
    if current is None or partner is None:
        return _Held()
    return _Held(
        [store for store in current.stores.values() if store.partner_id == partner.id],
        current.terms.get(partner.id, ()),
        current.budget_plans.get(partner.id, ()),
        current.earn_rules.get(partner.id, ()),
        current.tax_rates.get(partner.id, ()),
    )


def _named(subject: str, code: str, old: Stored | None, new: Wanted) -> Change[Stored, Wanted]:
    return Change(subject, code, old, new)


def _listed(
    kind: str,
    code: str,
    stored: Sequence[Stored],
    wanted: Sequence[Wanted],
    key: Callable[[object], Hashable],
) -> list[Change[Stored, Wanted]]:
    """The two lists side by side: first as the file has them, then what only the database has."""
    old, new = {key(one): one for one in stored}, {key(one): one for one in wanted}
    return [
        Change(_subject(kind, code, new.get(one) or old[one]), code, old.get(one), new.get(one))
        for one in (*new, *(left for left in old if left not in new))
    ]


def _differing(changes: Sequence[Change[Stored, Wanted]]) -> tuple[Change[Stored, Wanted], ...]:
    return tuple(change for change in changes if change.differs)


def _subject(kind: str, partner_code: str, one: object) -> str:
    code, starts = getattr(one, "code", None), getattr(one, "starts", None)
    if partner_code == COALITION:
        return f"{kind} {code}"
    return " ".join([kind, *([code] if code else []), "of", partner_code, *([f"from {starts}"] if starts else [])])


def _file_key(name: str) -> str:
    return FILE_KEYS.get(name, name.removesuffix("_micro").removesuffix("_ppm"))


def _shown(name: str, value: object) -> str:
    if name == "ends":
        return str(value - timedelta(days=1)) if isinstance(value, date) else "open"
    if name == "per_period":
        return "period" if value else "none"
    if name == "partners" and value is None:
        return "all"
    match value:
        case None | []:
            shown = "none"
        case list():
            shown = ", ".join(value)
        case dict():
            shown = ", ".join(f"{code} {plain(share_ppm)}" for code, share_ppm in value.items())
        case bool():
            shown = str(value).lower()
        case int() if name.endswith(("_micro", "_ppm")):
            shown = plain(value, MICRO_DIGITS if name in PRICES else 0)
        case _:
            shown = str(value)
    return shown
