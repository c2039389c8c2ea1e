"""Secrets out of everything that is written: by their values, and by the usual forms of keys."""

from __future__ import annotations

import os
import re
import threading
from decimal import Decimal
from typing import Any
from urllib.parse import unquote, urlsplit

from agent_runtime.secrets.forms import SecretForms

MIN_SECRET_LENGTH = 6
"""Shorter values are too common in ordinary text to be masked."""
MAX_TEXT = 64 * 1024
"""Characters of one log record; longer ones are cut."""
MARGIN = 16 * 1024
"""Longer than any secret."""
MASK = "[redacted]"

# Linear patterns only: no nested repetition, and no match that restarts from many positions.
_KEY_PATTERNS = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic and those that copy them
    r"|\bart_[0-9A-Za-z]{12}_[0-9A-Za-z]{20,}"
    r"|\b(?:ghp|gho|ghs|ghu|github_pat|glpat|xox[abps]|hf|lsv2|npm|pypi)[_-][A-Za-z0-9_-]{16,}"
    r"|\bAIza[A-Za-z0-9_-]{30,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    r"|(?i:\b(?:bearer|basic))[ ]+[A-Za-z0-9+/=._~-]{8,}"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s\\]{0,8000}"
)
_SECRET_NAME = re.compile(
    r"(?i)(key|token|secret|password|passwd|passphrase|pepper|credentials?|_(pw|pwd|pass|auth|dsn))$"
)
_IN_ADDRESS = re.compile(r"(?<=://)([^\s/@:]{0,256}):([^\s/@]{1,256})@")
_NAMED_SECRET = re.compile(
    r"(?i)((?:(?:api|access|secret|private|auth)[_-]?key|token|secret|password|passwd|pepper))"
    r"([\"']?\s{0,3}[=:]\s{0,3}[\"']?)(?!\[redacted\])([^\s\"'&,;})\]]{6,512})"
)


_IN_QUERY = re.compile(
    r"(?i)([?&;](?:[a-z0-9.-]{0,32}[_-])?(?:key|sig|signature|auth|jwt|pass|pwd|credential)=)(?!\[redacted\])([^&\s\"'#<>]{6,1024})"
)
"""A credential in the query of an address, under a name that is one only there: `?key=`."""
_FORM_HINTS = (
    "k-",
    "art_",
    "gh",
    "glpat",
    "xox",
    "hf_",
    "hf-",
    "lsv2",
    "npm",
    "pypi",
    "bearer",
    "basic",
    "-----begin",
)
"""Lower-case texts in every match of `_KEY_PATTERNS`; for capitals: `_may_have_uppercase_key`."""
_SECRET_WORDS = ("token", "secret", "password", "passwd", "pepper", "key")
_KINDS_OF_KEY = ("api", "access", "secret", "private", "auth")
_NAMES_A_SECRET = re.compile(
    r"(?i)(?:(?:api|access|secret|private|auth)[_-]?key|token|secret|password|passwd|pepper)$"
)
_AFTER_NAME = re.compile(r"[\"']?\s{0,3}[=:]")
_SECRET_WORD_ENDS = {word: re.compile(rf"{word}(?=[\"'=:\s]|\Z)") for word in _SECRET_WORDS}
"""The words where they end, in a text in small letters."""


def _may_have_uppercase_key(text: str) -> bool:
    """Return whether a key with capitals may be present; single letters are fastest to search."""
    if "J" in text and "eyJ" in text:
        return True
    return "I" in text and ("AKIA" in text or "ASIA" in text or "AIza" in text)


def _may_name_a_secret(text: str, lowered: str, word: str) -> bool:
    """Return whether `word` may be a name in the sense of `_NAMED_SECRET`."""
    if word not in lowered or _SECRET_WORD_ENDS[word].search(lowered) is None:  # not of "tokens"
        return False
    if len(text) != len(lowered):
        # Some letters change their length in lower case, so the offsets differ.
        return True
    for match in _SECRET_WORD_ENDS[word].finditer(lowered):
        end = match.end()
        if text[end : end + 1] in ("", "\n") or _AFTER_NAME.match(text, end):
            before = lowered[max(0, match.start() - 8) : match.start()]
            if word != "key" or (before[:-1] if before[-1:] in ("_", "-") else before).endswith(
                _KINDS_OF_KEY
            ):
                return True
    return False


def names_a_secret(variable: str) -> bool:
    """Tell whether a variable of the environment has a name as secrets have."""
    return _SECRET_NAME.search(variable) is not None


class Redactor:
    """Mask registered secrets in all encodings, and whatever looks like a key.

    Secrets are found as `SecretForms` does: raw, in other case, broken, quoted, escaped,
    URL-encoded, in base64 (twice, too), in hexadecimal and in UTF-16, but not split over two texts.
    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._added: set[str | bytes] = set()
        self._forms = SecretForms()

    def add(self, secret: str | bytes | None) -> None:
        """Mask this value from now on.

        One under six characters is not registered, it would mask ordinary words.
        """
        if secret is None or len(secret.strip()) < MIN_SECRET_LENGTH:
            return
        stripped = secret.strip()
        with self._lock:
            if stripped not in self._added:
                self._added.add(stripped)
                self._forms.add(stripped)

    def add_environment(self) -> None:
        """Register the values of variables with a secret's name, and passwords in addresses."""
        for name, value in os.environ.items():
            if names_a_secret(name):
                self.add(value)
            elif "://" in value:
                self.add_address(value)

    def add_address(self, url: str) -> None:
        """Register the password in a URL, raw and decoded."""
        try:
            password = urlsplit(url).password
        except ValueError:
            return
        self.add(password)
        self.add(None if password is None else unquote(password))

    def text(self, text: str) -> str:
        """Return `text` without secrets, and cut to 64 KiB."""
        if len(text) > MAX_TEXT:
            # Half a secret is not recognised: text near the cut is omitted, however short the rest
            # is.
            masked = self._mask(text[: MAX_TEXT + MARGIN])
            return masked[: max(0, min(MAX_TEXT, len(masked) - MARGIN))] + " [cut]"
        return self._mask(text)

    def may_contain_secret(self, text: str) -> bool:
        """Return whether `text` may contain a secret, a cheap check before `redact_json`."""
        # Searching plain words takes a hundredth of the expressions' time, and most texts have
        # none.
        lowered = text.casefold()  # as the expressions compare letters: a long s is an s
        return (
            self._forms.may_be_in(text)
            or any(hint in lowered for hint in _FORM_HINTS)
            or _may_have_uppercase_key(text)
            or ("://" in text and "@" in text)
            or ("=" in text and ("?" in text or "&" in text) and _IN_QUERY.search(text) is not None)
            or any(_may_name_a_secret(text, lowered, word) for word in _SECRET_WORDS)
        )

    def redact_json(self, value: Any) -> Any:
        """Return JSON data with every text masked and none cut, for programs that parse it."""
        if isinstance(value, str):
            return self._mask(value)
        if isinstance(value, dict):
            return {
                self._mask(key): self._redact_member(key, member_value)
                for key, member_value in value.items()
            }
        return (
            [self.redact_json(element) for element in value] if isinstance(value, list) else value
        )

    def _redact_member(self, key: str, value: Any) -> Any:
        named = (
            isinstance(value, str)
            and len(value) >= MIN_SECRET_LENGTH
            and _NAMES_A_SECRET.search(key)
        )
        return MASK if named else self.redact_json(value)

    def _mask(self, text: str) -> str:
        if not self.may_contain_secret(text):
            return text
        if spans := self._forms.find(text):
            pieces = []
            position = 0
            for span in spans:
                pieces += [text[position : span.start], MASK]
                position = span.end
            text = "".join([*pieces, text[position:]])
        text = _KEY_PATTERNS.sub(MASK, text)
        text = _IN_ADDRESS.sub(rf"\1:{MASK}@", text)
        text = _IN_QUERY.sub(rf"\1{MASK}", text)
        return _NAMED_SECRET.sub(rf"\1\2{MASK}", text)

    def value(self, value: Any, depth: int = 6) -> Any:
        """Mask every text in plain nested data; other objects become their masked repr."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, Decimal):
            return format(value, "f")
        if depth and isinstance(value, dict):
            return {self.text(str(k)): self.value(v, depth - 1) for k, v in value.items()}
        if depth and isinstance(value, (list, tuple, set, frozenset)):
            return [self.value(v, depth - 1) for v in value]
        return self.text(repr(value))


SECRETS = Redactor()
"""The registry of this process: model keys, peppers, store passwords register themselves.

Applications add theirs.
"""
