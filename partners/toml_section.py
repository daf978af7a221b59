"""Checked reading of one TOML table. Every problem is kept, so that a file is put right in one go."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from difflib import get_close_matches

from domain.values import AMOUNT_MAX_UNITS, MICRO_DIGITS, MICRO_PER_UNIT, decimal_from_micro, scaled

TEXT_LENGTH = 200

CODE = re.compile(r"[A-Za-z0-9._-]{1,64}")
CODE_HINT = "1 to 64 letters, digits, dots, dashes or underscores"

RATE_MAX_MICRO = 10**6 * MICRO_PER_UNIT
MONEY_MAX_MICRO = AMOUNT_MAX_UNITS * MICRO_PER_UNIT

FIRST_DAY = date(1970, 1, 1)
LAST_DAY = date(9000, 12, 31)
"""Days a file may name; what is computed from them (months later, the day after) still is a date."""

_AMOUNT = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?")


@dataclass
class Section:
    """One table of the file: ``where`` names it in messages, ``known`` are its keys.

    A reading that fails adds its problem to ``problems``, clears ``sound`` and returns a neutral value, which
    nobody sees: a file with problems is never returned.
    """

    table: Mapping[str, object]
    where: str
    known: Sequence[str]
    problems: list[str]
    sound: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        for key in self.table:
            if key not in self.known:
                near = get_close_matches(key, self.known, n=1)
                hint = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(self.known)}"
                self.refuse(f'unknown key "{key}"; {hint}')

    def refuse(self, problem: str) -> None:
        """Keeps a problem of this table."""
        self.sound = False
        self.problems.append(f"{self.where}: {problem}")

    def has(self, key: str) -> bool:
        """Whether the file gives the key."""
        return key in self.table

    def text(self, key: str, default: str | None = None, *, form: re.Pattern[str] | None = None, hint: str = "") -> str:
        """A text of 1 to 200 printable characters, and of ``form``, which ``hint`` says in words."""
        value = self._value(key, default)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.refuse(f'{key} must be a text in quotes, such as {key} = "…"')
        elif not _is_clean(value):
            self.refuse(f"{key} must have 1 to {TEXT_LENGTH} printable characters and no blanks around them")
        elif form is not None and not form.fullmatch(value):
            self.refuse(f'{key} = "{value}" must be {hint}')
        else:
            return value
        return ""

    def texts(self, key: str) -> list[str]:
        """A list of texts, sorted and each once; none without the key."""
        value = self.table.get(key, [])
        if isinstance(value, list) and all(isinstance(one, str) and _is_clean(one) for one in value):
            return sorted(set(value))
        self.refuse(f'{key} must be a list of texts, such as {key} = ["…", "…"]')
        return []

    def choice(self, key: str, options: Sequence[str], default: str | None = None) -> str:
        """One of the options."""
        value = self._value(key, default)
        if value is None:
            return ""
        if isinstance(value, str) and value in options:
            return value
        self.refuse(f"{key} = {_shown(value)} must be one of {', '.join(options)}")
        return ""

    def flag(self, key: str, *, default: bool) -> bool:
        """A boolean."""
        value = self.table.get(key, default)
        if isinstance(value, bool):
            return value
        self.refuse(f"{key} must be true or false, without quotes")
        return default

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self._value(key, default)
        if value is None:
            return 0
        if type(value) is int and low <= value <= high:
            return value
        self.refuse(f"{key} = {_shown(value)} must be a whole number from {low} to {high}, without quotes")
        return 0

    def micro(self, key: str, high_micro: int, *, digits: int = MICRO_DIGITS, default: int | None = None) -> int:
        """An amount from 0 to ``high_micro``, with at most ``digits`` decimals, in millionths."""
        value = self._value(key, default)
        if value is None:
            return 0
        if isinstance(value, float):
            # Refused and not converted: 0.1 in binary is not 0.1, and nobody could say which price was meant.
            self.refuse(f'{key} = {value} is a binary fraction; write it in quotes: {key} = "{value}"')
            return 0
        if type(value) is not int and not (isinstance(value, str) and _AMOUNT.fullmatch(value)):
            self.refuse(f'{key} = {_shown(value)} must be an amount in quotes, such as "12.50"')
            return 0
        if scaled(Decimal(str(value)), digits) is None:
            self.refuse(f'{key} = "{value}" must have at most {digits} decimals')
            return 0
        amount = scaled(Decimal(str(value)), MICRO_DIGITS)
        if amount is None or not 0 <= amount <= high_micro:
            self.refuse(f'{key} = "{value}" must be from 0 to {plain(high_micro)}')
            return 0
        return amount

    def day(self, key: str) -> date:
        """A TOML date."""
        value = self._value(key, None)
        if value is None:
            return FIRST_DAY
        if type(value) is not date:
            self.refuse(f"{key} = {_shown(value)} must be a date without quotes, such as {key} = 2017-01-01")
        elif not FIRST_DAY <= value <= LAST_DAY:
            self.refuse(f"{key} = {value} must be from {FIRST_DAY} to {LAST_DAY}")
        else:
            return value
        return FIRST_DAY

    def last_days(self, first: str, then: str, *, needs_both: bool) -> tuple[date | None, date | None]:
        """Two last days, the second not before the first and never without it; ``needs_both``: nor the other way."""
        one = self.day(first) if self.has(first) else None
        other = self.day(then) if self.has(then) else None
        if (other is not None and one is None) or (needs_both and one is not None and other is None):
            missing, given = (first, then) if one is None else (then, first)
            self.refuse(f"{given} needs {missing}: give both")
        elif one is not None and other is not None and other < one:
            self.refuse(f"{then} = {other} lies before {first} = {one}")
        return one, other

    def tables(self, key: str, shape: str) -> list[Mapping[str, object]]:
        """A list of tables, none without the key; ``shape`` shows how it is written."""
        value = self.table.get(key, [])
        if isinstance(value, list) and all(isinstance(one, dict) for one in value):
            return value
        self.refuse(f"{key} must be a list of tables, written {shape}")
        return []

    def _value(self, key: str, default: object) -> object:
        value = self.table.get(key, default)
        if value is None:
            self.refuse(f"{key} is missing")
        return value


def _is_clean(value: str) -> bool:
    return 1 <= len(value) <= TEXT_LENGTH and value.isprintable() and value == value.strip()


def plain(micro: int, decimals: int = 0) -> str:
    """Millionths as people write them: no zeros at the end beyond that many decimals."""
    whole, _, fraction = str(decimal_from_micro(micro)).partition(".")
    fraction = fraction[:decimals] + fraction[decimals:].rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
