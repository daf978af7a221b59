"""Coalition files for the till's tests, put together from what a test wants to differ."""

from collections.abc import Mapping, Sequence
from itertools import chain

Value = str | int | bool | Sequence[str]
Table = Mapping[str, Value]

PROGRAMME: Table = {
    "name": "Harbour Coalition",
    "currency": "EUR",
    "timezone": "Europe/Berlin",
    "point_value": "0.01",
    "period": "month",
    "expiry_months": 24,
    "grace_days": 30,
    "max_backdate_days": 30,
}
TERMS: Table = {
    "issue_price": "0.010000",
    "service_fee": "0.001000",
    "reimbursement": "0.009000",
    "breakage_share": "0.50",
    "fixed_fee": "0",
}
BUDGET: Table = {
    "every": "month",
    "limit": "1500.00",
    "on_limit": "PARTIAL",
    "after_period": "CREDIT_CURRENT",
    "alert_at": "0.80",
    "funding": "POSTPAID",
}


class Day(str):
    """A date of the file, which stands there without quotes."""

    __slots__ = ()


def coalition(*partners: str, **programme: Value) -> str:
    """A file with these partners, and campaigns after them; keywords change the programme."""
    table = {**PROGRAMME, **programme}
    if table.get("expiry") == "year_end":
        del table["expiry_months"]
    return "\n".join([_section("[programme]", table), *partners])


def partner(
    code: str = "grocer",
    *,
    terms: Sequence[Table] | Table = (),
    budgets: Sequence[Table] | Table = (),
    rules: Sequence[Table] = ({"code": "base", "points_per_unit": "1"},),
    stores: Sequence[str] = (),
    starts: str = "2017-01-01",
    **values: Value,
) -> str:
    """A partner with a store "<code>-1" and "<code>-2"; a table of terms or budget changes the usual one."""
    named = list(stores) or [f"{code}-1", f"{code}-2"]
    head = _section("[[partner]]", {"code": code, "name": code.title(), "category": "shop", **values})
    shops = ", ".join(f'{{ code = "{store}", name = "{store}" }}' for store in named)
    all_terms: Sequence[Table] = [terms] if isinstance(terms, Mapping) else (terms or [{}])
    all_budgets: Sequence[Table] = [budgets] if isinstance(budgets, Mapping) else (budgets or [{}])
    usual_from: Table = {"from": Day(starts)}
    sections = chain(
        (_section("[[partner.terms]]", {**usual_from, **TERMS, **one}) for one in all_terms),
        (_section("[[partner.budget]]", _budget({**usual_from, **BUDGET, **one})) for one in all_budgets),
        (_section("[[partner.earn_rule]]", {**usual_from, **one}) for one in rules),
    )
    return "\n".join([head, f"stores = [{shops}]", *sections])


def campaign(
    code: str,
    *funding: tuple[str, str],
    budget: Table | None = None,
    days: tuple[str, str] | None = None,
    **values: Value,
) -> str:
    """A campaign of the year 2017 (or of ``days``) that these funders pay in shares; "operator" is one of them."""
    first, last = days or ("2017-01-01", "2017-12-31")
    payers = {code: "operator = true" if code == "operator" else f'partner = "{code}"' for code, _ in funding}
    parts = ", ".join(f'{{ {payers[code]}, share = "{share}" }}' for code, share in funding)
    head: Table = {"code": code, "name": code.title(), "from": Day(first), "to": Day(last), **values}
    section = f"{_section('[[campaign]]', head)}\nfunding = [{parts}]"
    return section if budget is None else f"{section}\n{_section('[campaign.budget]', budget)}"


def _budget(table: Table) -> Table:
    # A window either comes back every month or ends on a day; a prepaid one need not end at all.
    is_single = "to" in table or table["funding"] == "PREPAID"
    return {key: value for key, value in table.items() if not (key == "every" and is_single)}


def without_budget(text: str) -> str:
    """The same file where no partner plans any money."""
    kept, skipping = [], False
    for line in text.split("\n"):
        skipping = line == "[[partner.budget]]" or (skipping and not line.startswith("["))
        if not skipping:
            kept.append(line)
    return "\n".join(kept)


def _section(name: str, table: Table) -> str:
    return "\n".join([name, *(f"{key} = {_value(value)}" for key, value in table.items())])


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Day | int):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"'
    return "[" + ", ".join(f'"{one}"' for one in value) + "]"
