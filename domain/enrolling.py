"""Deciding about enrolments: a new member, or the one who already has an identifier."""

from collections.abc import Mapping, Sequence

from domain.batch import Batch, CommandInput, Member, NewMember, Original
from domain.commands import CommandKind, CommandRow, Enroll, Enrolled
from domain.errors import RefusalCode, Refused
from domain.ledger import fingerprint
from domain.lots import Account
from domain.members import CARD_MAX_CHARACTERS, IDENTIFIER_KINDS, input_digest, is_clean_text, normalised
from domain.rows import command_row
from domain.taking_part import check_issues

ATTRIBUTES_MAX = 50
ATTRIBUTE_MAX_CHARACTERS = 200
BIRTH_YEAR_MIN = 1900
HOUSEHOLD_SIZE_MAX = 99
UNUSABLE = {
    "card": f"a card has 1 to {CARD_MAX_CHARACTERS} printable characters and no space around it",
    "email": 'this is no e-mail address: write it as "name@example.com"',
    "phone": 'this is no phone number: write it with its area code, or as "+" and country code',
}


def enrolment_identifiers(command: Enroll, region: str) -> tuple[tuple[str, str], ...]:
    """The normalised identifiers of an enrolment. Raises Refused(INPUT_INVALID) for none, or one that cannot be."""
    found = []
    for kind in IDENTIFIER_KINDS:
        raw = getattr(command, kind)
        if raw is None:
            continue
        identifier = normalised(kind, raw, region)
        if identifier is None:
            raise Refused(RefusalCode.INPUT_INVALID, UNUSABLE[kind], kind)
        found.append(identifier)
    if not found:
        message = "an enrolment needs at least one of card, email and phone"
        raise Refused(RefusalCode.INPUT_INVALID, message, "card")
    return tuple(found)


def decide_enroll(batch: Batch, command: Enroll) -> Enrolled:
    """Accepts an enrolment: the identifiers' one member, or a new one. Raises Refused."""
    batch.check_key(command.key)
    store_id = batch.store_id(command.partner_id, command.store)
    identifiers = enrolment_identifiers(command, batch.configuration.programme.region)
    batch.check_channel(command.channel)
    _check_attributes(command.attributes)
    digest = input_digest(batch.secret, identifiers, command.attributes)
    print_ = fingerprint(
        kind=CommandKind.ENROLL, member_id=None, store_id=store_id, channel=command.channel, input_digest=digest
    )
    earlier = batch.by_key.get((command.partner_id, command.key))
    if earlier is not None:
        return replayed_enrolment(batch, command, earlier, print_)
    _check_numbers(dict(command.attributes), batch.clock.recorded_at.year)
    check_issues(batch, command.partner_id, command.occurred_at or batch.clock.recorded_at)
    if command.occurred_at is not None:
        batch.clock.check_occurred(command.occurred_at)
    owners = {batch.identifiers[i] for i in identifiers if i in batch.identifiers}
    if len(owners) > 1:
        message = "these identifiers belong to different members: enroll with one of them, or ask the operator to merge"
        raise Refused(RefusalCode.IDENTIFIER_CONFLICT, message)
    created = not owners
    member = _new_member(batch, command, store_id, identifiers) if created else batch.members[owners.pop()]
    row = _command_row(batch, command, member, store_id)
    stored = CommandInput(print_, reference_unique=False, input_digest=digest, created_member=created)
    batch.new_commands.append((row, stored))
    batch.remember(Original(row, print_, None, created_member=created))
    return Enrolled(member.id, member.account_id, created, replayed=False, key=command.key)


def _check_attributes(attributes: Sequence[tuple[str, str]]) -> None:
    clean = all(is_clean_text(text, ATTRIBUTE_MAX_CHARACTERS) for attribute in attributes for text in attribute)
    if len(attributes) > ATTRIBUTES_MAX or not clean:
        message = f"at most {ATTRIBUTES_MAX} attributes, each of 1 to {ATTRIBUTE_MAX_CHARACTERS} printable characters"
        raise Refused(RefusalCode.INPUT_INVALID, message, "attributes")


def _check_numbers(attributes: Mapping[str, str], year_now: int) -> None:
    for name, field, lowest, highest in (
        ("birth_year", "attributes.birthYear", BIRTH_YEAR_MIN, year_now),
        ("household_size", "attributes.householdSize", 1, HOUSEHOLD_SIZE_MAX),
    ):
        if name in attributes and not lowest <= int(attributes[name]) <= highest:
            message = f"{field.removeprefix('attributes.')} is from {lowest} to {highest}; leave out what is not known"
            raise Refused(RefusalCode.INPUT_INVALID, message, field)


def replayed_enrolment(batch: Batch, command: Enroll, earlier: Original, print_: bytes) -> Enrolled:
    """The first answer again. Raises Refused(IDEMPOTENCY_CONFLICT) where the key was used for anything else."""
    if earlier.fingerprint != print_:
        raise key_conflict()
    row = earlier.command
    again = batch.is_replay(row)
    return Enrolled(row.member_id, row.account_id, earlier.created_member, replayed=again, key=command.key)


def key_conflict() -> Refused:
    """The refusal of a key that stands for another command already."""
    message = "this idempotency key was used before with other input: use a new key for a new command"
    return Refused(RefusalCode.IDEMPOTENCY_CONFLICT, message, "idempotencyKey")


def _new_member(batch: Batch, command: Enroll, store_id: int, identifiers: tuple[tuple[str, str], ...]) -> Member:
    enrolled_at = batch.clock.recorded_at
    if batch.clock.is_history and command.occurred_at is not None:
        enrolled_at = command.occurred_at
    new = NewMember(
        id=_claimed_id(batch, identifiers),
        account_id=next(batch.new_ids),
        partner_id=command.partner_id,
        store_id=store_id,
        channel=command.channel,
        attributes=command.attributes,
        enrolled_at=enrolled_at,
        identifiers=identifiers,
    )
    batch.new_members.append(new)
    member = Member(new.id, new.account_id, "ACTIVE")
    batch.members[member.id] = member
    for identifier in identifiers:
        batch.identifiers[identifier] = member.id
    batch.accounts[new.account_id] = Account(new.account_id, 0, 0, 0, None, all_lots_loaded=True, is_new=True)
    return member


def _claimed_id(batch: Batch, identifiers: tuple[tuple[str, str], ...]) -> int:
    # The id under which the identifier was claimed before deciding, unless an earlier enrolment of the batch took it.
    claimed, _ = batch.claims[identifiers[0]]
    return next(batch.new_ids) if claimed in batch.members else claimed


def _command_row(batch: Batch, command: Enroll, member: Member, store_id: int) -> CommandRow:
    return command_row(
        batch,
        CommandKind.ENROLL,
        partner_id=command.partner_id,
        key=command.key,
        account_id=member.account_id,
        member_id=member.id,
        store_id=store_id,
        channel=command.channel,
        occurred_at=command.occurred_at or batch.clock.recorded_at,
    )
