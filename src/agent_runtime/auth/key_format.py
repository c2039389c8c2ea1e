"""Define the format of API keys: `art_<id>_<secret><checksum>`.

Secret scanners recognise the prefix, and the checksum exposes typing errors.
"""

from __future__ import annotations

import re
import secrets
import string
import zlib

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH = 12
SECRET_LENGTH = 43
CHECKSUM_LENGTH = 6
"""43 digits to the base 62 hold 256 bits."""
PATTERN = f"art_[0-9A-Za-z]{{{ID_LENGTH}}}_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}"
_KEY = re.compile(PATTERN.encode())
_CHECKSUM_OFFSET = 4 + ID_LENGTH + 1 + SECRET_LENGTH


def new_key() -> tuple[str, str]:
    """Return a new id and a key with 256 random bits."""
    key_id = "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))
    body = f"art_{key_id}_{_base62_encode(secrets.randbits(256), SECRET_LENGTH)}"
    return key_id, body + _base62_encode(zlib.crc32(body.encode()), CHECKSUM_LENGTH)


def key_id_of(key: bytes) -> str | None:
    """Return the id in a well-formed key with a valid checksum, else None."""
    if _KEY.fullmatch(key) is None or _base62_decode(key[_CHECKSUM_OFFSET:]) != zlib.crc32(
        key[:_CHECKSUM_OFFSET]
    ):
        return None
    return key[4 : 4 + ID_LENGTH].decode()


def _base62_encode(number: int, length: int) -> str:
    encoded = ""
    for _ in range(length):
        number, digit = divmod(number, 62)
        encoded = ALPHABET[digit] + encoded
    return encoded


_VALUE_BY_DIGIT = {ord(digit): value for value, digit in enumerate(ALPHABET)}


def _base62_decode(digits: bytes) -> int:
    number = 0
    for digit in digits:
        number = number * 62 + _VALUE_BY_DIGIT[digit]
    return number
