"""Opaque ids. A member's or transaction's id differs per viewer, so that two partners cannot join their data by it.

Form: base64url of ``Type:key``. The key of a Member, Transaction, Movement or cursor is encrypted deterministically
(AES-SIV) under a key that HKDF derives from the installation secret for each viewer, with the type as associated
data; it is authenticated, so a foreign or invented id decodes to None. Other keys stand as they are.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import text

from domain.database import Database

KEY_BYTES = 64
NUMBER_BYTES = 8
ID_CHARACTERS_MAX = 200

INSTALLATION_SECRET_SQL = text("SELECT secret FROM installation")


async def load_installation_secret(database: Database) -> bytes:
    """The 32 random bytes that were drawn when this installation's database was made."""
    async with database.posting() as connection:
        secret: bytes = (await connection.execute(INSTALLATION_SECRET_SQL)).scalar_one()
    return secret


def plain_id(type_name: str, key: str | int) -> str:
    """Id of something that is no secret: a partner, a store, a period."""
    return _encoded(f"{type_name}:{key}".encode())


def plain_key(type_name: str, given: str) -> str | None:
    """What an id of that type names; None when it is no such id."""
    found = split(given)
    if found is None or found[0] != type_name or not found[1].isascii():
        return None
    return found[1].decode()


def plain_number(type_name: str, given: str) -> int | None:
    """The whole number that an id of that type names; None when it is no such id."""
    key = plain_key(type_name, given)
    return int(key) if key is not None and key.isdigit() and len(key) < len(str(2**31)) else None


def split(given: str) -> tuple[str, bytes] | None:
    """Type and key of an id; None when the text is no id at all."""
    if not given.isascii() or len(given) > ID_CHARACTERS_MAX:
        return None
    bare = given.rstrip("=")
    try:
        raw = urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except (Base64Error, ValueError):
        return None
    type_name, colon, key = raw.partition(b":")
    return (type_name.decode("ascii", "replace"), key) if colon else None


class IdCodec:
    """Makes and reads the ids that differ per viewer (a partner's id, 0 for the operator)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._ciphers: dict[int, AESSIV] = {}

    def encode(self, viewer_id: int, type_name: str, *numbers: int) -> str:
        """The id under which this viewer knows the thing with these numbers."""
        tag = type_name.encode()
        clear = b"".join(number.to_bytes(NUMBER_BYTES, "big") for number in numbers)
        return _encoded(tag + b":" + self._cipher(viewer_id).encrypt(clear, [tag]))

    def decode(self, viewer_id: int, type_name: str, given: str) -> tuple[int, ...] | None:
        """The numbers of an id that this viewer was given for that type; None for any other text."""
        found = split(given)
        if found is None or found[0] != type_name:
            return None
        try:
            clear = self._cipher(viewer_id).decrypt(found[1], [type_name.encode()])
        except (InvalidTag, ValueError):
            return None
        numbers = range(0, len(clear), NUMBER_BYTES)
        return tuple(int.from_bytes(clear[at : at + NUMBER_BYTES], "big") for at in numbers)

    def _cipher(self, viewer_id: int) -> AESSIV:
        cipher = self._ciphers.get(viewer_id)
        if cipher is None:
            info = f"coalition relay ids, viewer {viewer_id}".encode()
            key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self._secret)
            cipher = self._ciphers[viewer_id] = AESSIV(key)
        return cipher


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
