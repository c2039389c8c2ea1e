"""The form of the names of users and tenants, and the names that only the runtime itself has."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME = 256
TRIGGER_PREFIX = "trigger:"
"""Begins the user id that a trigger's rule has."""
OPERATOR = "operator"
"""The user id of the command line."""
_RESERVED_PREFIXES = (TRIGGER_PREFIX, "runtime:")
_COMBINABLE_SCRIPTS = (
    {"HIRAGANA", "KATAKANA", "CJK", "LATIN"},
    {"HANGUL", "CJK", "LATIN"},
    {"BOPOMOFO", "CJK", "LATIN"},
)
"""Scripts that are used together within one name: Japanese, Korean, Chinese."""
_SCRIPTLESS_PREFIXES = (
    "DIGIT",
    "FULLWIDTH DIGIT",
    "MODIFIER",
    "COMBINING",
    "FEMININE",
    "MASCULINE",
    "MICRO",
)
_SCRIPT_BY_PREFIX = {
    "FULLWIDTH": "LATIN",
    "IDEOGRAPHIC": "CJK",
    "KATAKANA-HIRAGANA": "KATAKANA",
    "HALFWIDTH": "KATAKANA",
}
"""Characters whose Unicode names do not begin with their script's name."""

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that Unicode does not show (Default_Ignorable), and the Braille blank."""


def fault_of_name(name: str, *, ascii_only: bool = False) -> str | None:
    """Return why a text may not be the id of a user or tenant, or None.

    Two ids that look alike are two users to a program and one to a person: so an id is in NFC, has
    nothing around it that cannot be seen, and letters of one script in each word.
    """
    if not name.strip() or len(name) > MAX_NAME:
        return f"a name has 1 to {MAX_NAME} characters"
    if name != name.strip() or not name.isprintable():
        return "a name has no blanks around it, and no characters that cannot be seen"
    if ascii_only and not name.isascii():
        return "a name has ASCII characters only"
    if name.isascii():
        return None
    if _INVISIBLE.search(name):
        return "a name has no characters that cannot be seen"
    if unicodedata.normalize("NFC", name) != name:
        return "a name is in Unicode's normal form C"
    for word in re.findall(
        r"[^\W\d_]+", name
    ):  # an address has a name in one script and a host in another
        scripts = {script for character in word if (script := _script_of(character)) is not None}
        if len(scripts) > 1 and not any(
            scripts <= combinable for combinable in _COMBINABLE_SCRIPTS
        ):
            return (
                "a word of a name has letters of one script, not of "
                f"{', '.join(sorted(scripts)).lower()}"
            )
    return None


def is_reserved(user: str) -> bool:
    """Tell whether a user id is one that the runtime gives to itself, so that no credential may."""
    return user == OPERATOR or user.startswith(_RESERVED_PREFIXES)


def _script_of(character: str) -> str | None:
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "")
    if name.startswith(_SCRIPTLESS_PREFIXES):
        return None
    first = name.split(" ", 1)[0]
    return _SCRIPT_BY_PREFIX.get(first, first)
