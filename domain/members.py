"""Identifiers of members in one normal form, so that a card, e-mail or phone is found however it is typed."""

import hashlib
import hmac
import json
import unicodedata
from collections.abc import Iterable

import phonenumbers
from email_validator import EmailNotValidError, validate_email

IDENTIFIER_KINDS = ("card", "email", "phone")
"""The kinds of identifier, in the order in which they are claimed."""

CARD_MAX_CHARACTERS = 100


def normalised(kind: str, raw: str, region: str) -> tuple[str, str] | None:
    """The stored form of an identifier as (kind, value), or None when it cannot be one.

    Phones become E.164 (a national number is read in ``region``), e-mails are folded whole, cards are opaque.
    """
    if kind == "phone":
        value = _phone(raw, region)
    elif kind == "email":
        value = _email(raw)
    else:
        value = raw if is_clean_text(raw, CARD_MAX_CHARACTERS) else None
    return None if value is None else (kind, value)


def _phone(raw: str, region: str) -> str | None:
    try:
        number = phonenumbers.parse(raw, region)
    except phonenumbers.NumberParseException:
        return None
    # "Possible", not "valid": numbering plans change faster than the library, and a refused member never comes back.
    # But not "possible locally": without its area code one number is many people's.
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _email(raw: str) -> str | None:
    try:
        address = validate_email(raw.strip(), check_deliverability=False, globally_deliverable=False).normalized
    except EmailNotValidError:
        return None
    return unicodedata.normalize("NFC", address.casefold())


def is_clean_text(value: str, characters_max: int) -> bool:
    """Whether a caller's text can be stored and shown: not empty, not too long, no control characters, real Unicode."""
    if not 0 < len(value) <= characters_max or value != value.strip():
        return False
    if value.isprintable():  # most are, and it is quick
        return True
    return not any(unicodedata.category(character) in {"Cc", "Cs"} for character in value)


def input_digest(secret: bytes, identifiers: Iterable[tuple[str, str]], attributes: Iterable[tuple[str, str]]) -> str:
    """Keyed digest of an enrolment's personal input: tells a replay from a conflict without storing the input."""
    canonical = json.dumps([sorted(identifiers), sorted(attributes)], ensure_ascii=False, separators=(",", ":"))
    return hmac.digest(secret, canonical.encode(), hashlib.sha256).hex()
