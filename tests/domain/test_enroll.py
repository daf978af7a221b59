"""Enrolling: one person is one member, however the identifiers are typed and whoever enrols."""

import json
from datetime import timedelta

import pytest

from domain.commands import Enroll, Enrolled, Refusal, StoreRef
from domain.errors import RefusalCode
from domain.members import CARD_MAX_CHARACTERS, normalised
from tests.domain.coalitions import coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import Till

BAD_TEXTS = ["", " ", " x", "x ", "\x00", "a\x00b", "a\nb", "\x7f", "\x85", "\ud800", "x" * 201]


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        ("card", "0042-A", "0042-A"),
        ("card", "Ünï-1 2", "Ünï-1 2"),
        ("card", "x" * CARD_MAX_CHARACTERS, "x" * CARD_MAX_CHARACTERS),
        ("email", "Some.One@Example.COM", "some.one@example.com"),
        ("email", "  STRASSE@example.com ", "strasse@example.com"),
        ("email", "a+b@münchen.de", "a+b@münchen.de"),
        ("email", "a+b@xn--mnchen-3ya.de", "a+b@münchen.de"),
        ("email", "u\u0308ber@example.com", "über@example.com"),
        ("phone", "030 1234567", "+49301234567"),
        ("phone", "(030) 123-45 67", "+49301234567"),
        ("phone", "+49 30 1234567", "+49301234567"),
        ("phone", "0049301234567", "+49301234567"),
        ("phone", "+1 202-555-0123", "+12025550123"),
    ],
)
def test_identifiers_have_one_normal_form(kind: str, raw: str, value: str) -> None:
    assert normalised(kind, raw, "DE") == (kind, value)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        *(("card", text) for text in [*BAD_TEXTS, "x" * (CARD_MAX_CHARACTERS + 1)]),
        *(
            ("email", text)
            for text in [*BAD_TEXTS, "no-at.example.com", "a@", "@b.de", "a@b c.de", "a\x00@b.de", "a\ud800@b.de"]
        ),
        *(("phone", text) for text in [*BAD_TEXTS, "12", "abc", "+", "+999 123 456 789", "0" * 40]),
    ],
)
def test_what_cannot_be_an_identifier_is_none(kind: str, raw: str) -> None:
    assert normalised(kind, raw, "DE") is None


def test_a_national_number_needs_a_region() -> None:
    assert normalised("phone", "030 1234567", "ZZ") is None
    assert normalised("phone", "+49 30 1234567", "ZZ") == ("phone", "+49301234567")


async def test_a_new_member_is_made_once_and_found_by_each_identifier(till: Till) -> None:
    first = await till.enroll(
        till.enrolment(
            "A-1",
            email="Some.One@Example.com",
            phone="030 1234567",
            store=StoreRef(code="grocer-2"),
            attributes=(("postal_area", "101"), ("household_size", "3")),
        )
    )
    assert (first.created, first.replayed, first.key) == (True, False, "enrol-A-1")

    again = [
        await till.enroll(till.enrolment("A-1", key="by-card", partner="fuel")),
        await till.enroll(till.enrolment(key="by-email", email="SOME.ONE@example.com", partner="fuel")),
        await till.enroll(till.enrolment(key="by-phone", phone="+49 (30) 1234567")),
    ]
    assert {(found.member_id, found.account_id) for found in again} == {(first.member_id, first.account_id)}
    assert {(found.created, found.replayed) for found in again} == {(False, False)}

    assert await till.rows(
        "SELECT state, enrolled_at, partner_id, store_id, channel FROM member WHERE id = :id", id=first.member_id
    ) == [("ACTIVE", till.clock.now, till.id_of("grocer"), till.store_of("grocer", "grocer-2"), None)]
    attributes = await till.one("SELECT attributes::text FROM member WHERE id = :id", id=first.member_id)
    assert json.loads(attributes) == {"postal_area": "101", "household_size": "3"}
    assert await till.rows(
        "SELECT kind, value, partner_id FROM member_identifier WHERE member_id = :id ORDER BY kind", id=first.member_id
    ) == [("card", "A-1", 1), ("email", "some.one@example.com", 1), ("phone", "+49301234567", 1)]
    assert await till.rows("SELECT count(*), sum(available) FROM account") == [(3, 0)]


async def test_an_existing_member_gets_neither_identifiers_nor_attributes(till: Till) -> None:
    found = await till.enroll(
        till.enrolment("card-1", key="k", email="new@example.com", attributes=(("sex", "x"),), partner="fuel")
    )

    assert (found.member_id, found.created) == (till.members["card-1"].member_id, False)
    assert await till.rows("SELECT value FROM member_identifier WHERE member_id = :id", id=found.member_id) == [
        ("card-1",)
    ]
    assert await till.one("SELECT attributes FROM member WHERE id = :id", id=found.member_id) is None
    # So the address is still free.
    other = await till.enroll(till.enrolment(key="k2", email="new@example.com"))
    assert other.created


async def test_the_same_key_finds_the_first_answer(till: Till) -> None:
    command = till.enrolment("B-1", email="b@example.com", attributes=(("sex", "x"), ("age_band", "35-44")))
    first = await till.enroll(command)
    spelled_otherwise = till.enrolment("B-1", email="B@EXAMPLE.com", attributes=(("age_band", "35-44"), ("sex", "x")))

    for again in (command, spelled_otherwise):
        assert await till.enroll(again) == first._replace(replayed=True)
    # The key stays the first one's, whoever else uses the same words.
    assert (await till.enroll(till.enrolment("B-1", partner="fuel"))).replayed is False


async def test_the_same_key_for_something_else_is_refused(till: Till) -> None:
    await till.enroll(till.enrolment("C-1", key="k", attributes=(("sex", "x"),)))

    for other in (
        till.enrolment("C-2", key="k", attributes=(("sex", "x"),)),
        till.enrolment("C-1", key="k"),
        till.enrolment("C-1", key="k", attributes=(("sex", "y"),)),
        till.enrolment("C-1", key="k", email="c@example.com", attributes=(("sex", "x"),)),
        till.enrolment("C-1", key="k", attributes=(("sex", "x"),), store=StoreRef(code="grocer-1")),
    ):
        await till.refuse(other, RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")
    await till.refuse(till.purchase("k"), RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


async def test_two_identifiers_of_two_members_conflict(till: Till) -> None:
    await till.enroll(till.enrolment(key="k", email="d@example.com"))

    await till.refuse(till.enrolment("card-1", key="k2", email="D@example.com"), RefusalCode.IDENTIFIER_CONFLICT)
    await till.refuse(
        till.enrolment("card-1", key="k3", email="D@example.com", phone="030 1234567"), RefusalCode.IDENTIFIER_CONFLICT
    )


async def test_what_is_wrong_with_an_enrolment_is_named(till: Till) -> None:
    refused = RefusalCode.INPUT_INVALID
    for field_name, command in [
        ("card", till.enrolment(key="k")),
        ("card", till.enrolment("x" * 101, key="k")),
        ("card", till.enrolment("a\x00", key="k")),
        ("card", till.enrolment("", key="k", email="fine@example.com")),
        ("email", till.enrolment("fine", key="k", email="nobody")),
        ("email", till.enrolment("fine", key="k", email="a\ud800@example.com")),
        ("phone", till.enrolment("fine", key="k", phone="12")),
        ("attributes", till.enrolment("fine", key="k", attributes=(("sex", "\x00"),))),
        ("attributes", till.enrolment("fine", key="k", attributes=(("\ud800", "x"),))),
        ("attributes", till.enrolment("fine", key="k", attributes=(("sex", "x" * 201),))),
        ("attributes", till.enrolment("fine", key="k", attributes=tuple((f"name-{n}", "x") for n in range(51)))),
        *(
            (field_name, till.enrolment("fine", key="k", attributes=((name, text),)))
            for field_name, name, texts in (
                ("attributes.birthYear", "birth_year", ("1899", str(till.clock.now.year + 1), "-5")),
                ("attributes.householdSize", "household_size", ("0", "100", "-2")),
            )
            for text in texts
        ),
        ("channel", Enroll(till.id_of("grocer"), "k", "fine", None, None, channel="\x00")),
        *(("idempotencyKey", till.enrolment("fine", key=key)) for key in BAD_TEXTS if key),
        ("idempotencyKey", till.enrolment("fine", key="system:enrol")),
    ]:
        await till.refuse(command, refused, field_name)
    empty_key = Enroll(till.id_of("grocer"), "", "fine", None, None)
    await till.refuse(empty_key, refused, "idempotencyKey")
    for store in (
        StoreRef(code="nowhere"),
        StoreRef(code="fuel-1"),
        StoreRef(store_id=till.store_of("fuel", "fuel-1")),
    ):
        field_name = "storeId" if store.code is None else "storeCode"
        await till.refuse(till.enrolment("fine", key="k", store=store), RefusalCode.STORE_NOT_FOUND, field_name)
    late, soon = (
        till.clock.now - timedelta(days=30, microseconds=1),
        till.clock.now + timedelta(minutes=5, microseconds=1),
    )
    await till.refuse(till.enrolment("fine", key="k", at=late), RefusalCode.OCCURRED_TOO_LONG_AGO, "occurredAt")
    await till.refuse(till.enrolment("fine", key="k", at=soon), RefusalCode.OCCURRED_IN_FUTURE, "occurredAt")

    # None of the refused used up the key or the identifiers; the ends of each range are fine.
    assert (await till.enroll(till.enrolment("fine", key="k", email="fine@example.com"))).created
    for number, values in enumerate((("1900", "1"), (str(till.clock.now.year), "99"))):
        attributes = tuple(zip(("birth_year", "household_size"), values, strict=True))
        assert (await till.enroll(till.enrolment(f"end-{number}", key=f"end-{number}", attributes=attributes))).created


async def test_a_suspended_partner_enrols_nobody(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), partner("fuel", state="SUSPENDED")))

    await till.refuse(till.enrolment("new", partner="fuel"), RefusalCode.PARTNER_SUSPENDED)
    assert (await till.enroll(till.enrolment("new"))).created


async def test_in_one_batch_the_first_to_name_an_identifier_makes_the_member(till: Till) -> None:
    first, second, third, conflict, last = await till.queue.post_many(
        [
            till.enrolment("E-1", key="k1"),
            till.enrolment("E-1", key="k2", email="e@example.com", partner="fuel"),
            till.enrolment(key="k3", email="e@example.com", partner="fuel"),
            till.enrolment("E-1", key="k4", email="e@example.com"),
            till.enrolment(key="k5", email="E@example.com"),
        ]
    )
    assert isinstance(first, Enrolled)
    assert isinstance(third, Enrolled)
    assert (first.created, third.created) == (True, True)
    assert second == first._replace(created=False, key="k2")
    # The second found the card's member and left the address free, so the third made another one.
    assert isinstance(conflict, Refusal)
    assert conflict.code == RefusalCode.IDENTIFIER_CONFLICT
    assert last == third._replace(created=False, key="k5")
    assert await till.rows(
        "SELECT value, member_id, partner_id FROM member_identifier WHERE value ILIKE 'e%' ORDER BY 1"
    ) == [
        ("E-1", first.member_id, till.id_of("grocer")),
        ("e@example.com", third.member_id, till.id_of("fuel")),
    ]


async def test_an_identifier_belongs_to_the_enrolment_that_was_accepted(till: Till) -> None:
    refused, accepted, alone = await till.queue.post_many(
        [
            till.enrolment("F-1", key="system:no", email="f@example.com"),
            till.enrolment("F-1", key="k", partner="fuel"),
            till.enrolment("F-2", key="\x00"),
        ]
    )
    assert isinstance(refused, Refusal)
    assert isinstance(accepted, Enrolled)
    assert isinstance(alone, Refusal)
    # The supplier is who enrolled, and what only refused enrolments named is free.
    assert await till.rows("SELECT value, member_id, partner_id FROM member_identifier WHERE value ILIKE 'f%'") == [
        ("F-1", accepted.member_id, till.id_of("fuel"))
    ]
