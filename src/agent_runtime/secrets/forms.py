"""Find registered secrets in a text in any encoding.

A text is reduced to its lower-case letters and digits, with percent-encoding, entities and escapes
decoded; so is each secret, raw and in the encodings that change its letters (base64, hexadecimal,
UTF-16). Separators, quotes and line breaks in the text do not hide it then.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, quote_plus

MIN_LONG = 15
MIN_SHORT = 7
"""Shortest form for windows of 8 or of 4 bytes, one of which it contains at any offset."""
# Nested encodings are bounded: a run of backslashes would be tried from each position.
_ESCAPED = re.compile(
    r"%(?:25){0,8}(?P<percent>[0-9A-Fa-f]{2})"
    r"|&(?:amp;){0,8}(?:#0{0,8}(?P<decimal>[0-9]{1,7})|#[xX]0{0,8}(?P<hex>[0-9A-Fa-f]{1,6})"
    r"|(?:amp|lt|gt|quot|apos|nbsp|sol|bsol|plus|equals|num|excl|dollar|percnt|ast|lpar|rpar|comma|period|colon|semi"
    r"|quest|commat|lsqb|rsqb|lbrack|rbrack|lowbar|grave|lcub|rcub|verbar|hyphen|dash|Tab|NewLine));"
    r"|\\{1,8}(?:u(?P<unicode>[0-9A-Fa-f]{4})|u\{(?P<braced>[0-9A-Fa-f]{1,6})\}|U(?P<long>[0-9A-Fa-f]{8})"
    r"|x(?P<byte>[0-9A-Fa-f]{2})|[nrtbfv0ae])"
    r"|\x1b\[[0-9;]{0,16}[A-Za-z]|<[^<>]{1,40}>"
)
"""Encodings of one character, or nothing: percent-encoding, entities, escapes, colours, tags."""
_PIECE = re.compile(rf"{_ESCAPED.pattern}|[A-Za-z0-9]+")
_LETTERS = re.compile("[A-Za-z0-9]+")
_LOWER_ALPHANUMERIC = bytes(range(ord("0"), ord("9") + 1)) + bytes(range(ord("a"), ord("z") + 1))
_TO_LOWER = bytes(range(256)).lower()
_DROPPED = bytes(
    byte for byte in range(256) if byte not in _LOWER_ALPHANUMERIC and not 65 <= byte <= 90
)


class Span(NamedTuple):
    """Locate a secret in a text."""

    start: int
    end: int


class SecretForms:
    """An index of secrets. Readers need no lock: an entry is whole before it can be looked up."""

    __slots__ = ("_edges", "_exact", "_long", "_long_forms", "_short", "_short_forms")

    def __init__(self) -> None:
        self._exact: frozenset[str] = frozenset()
        self._edges: dict[bytes, tuple[str, str]] = {}
        self._long: dict[int, tuple[bytes, ...]] = {}
        self._short: dict[int, tuple[bytes, ...]] = {}
        self._long_forms: frozenset[bytes] = frozenset()
        self._short_forms: frozenset[bytes] = frozenset()

    def add(self, secret: str | bytes) -> None:
        """Find this secret from now on. One writer at a time; readers never see part of a form."""
        raw = secret if isinstance(secret, bytes) else secret.encode("utf-8", "surrogatepass")
        text = raw.decode("utf-8", "replace")
        plain = normalize(text)
        if len(plain) < MIN_SHORT:  # symbols or another script: only exact matches
            written_forms = (
                [repr(raw)[2:-1]] if isinstance(secret, bytes) else [text, repr(text)[1:-1]]
            )
            self._exact |= {
                *written_forms,
                json.dumps(text)[1:-1],
                quote(raw, safe=""),
                quote_plus(raw),
            }
        else:
            first = re.search(r"[A-Za-z0-9]", text)
            last = re.search(r"[A-Za-z0-9][^A-Za-z0-9]*\Z", text)
            if first is not None and last is not None:
                self._edges[plain] = (text[: first.start()], text[last.start() + 1 :])
        for form in _forms_of(raw, text):
            if len(form) >= MIN_LONG and form not in self._long_forms:
                for offset in range(8):
                    _add_to_index(
                        self._long, int.from_bytes(form[offset : offset + 8], "little"), form
                    )
                self._long_forms |= {form}
            elif MIN_SHORT <= len(form) < MIN_LONG and form not in self._short_forms:
                for offset in range(4):
                    _add_to_index(
                        self._short, int.from_bytes(form[offset : offset + 4], "little"), form
                    )
                self._short_forms |= {form}

    def may_be_in(self, text: str) -> bool:
        """Tell, fast, whether a registered secret may be in the text; False is certain."""
        if any(exact in text for exact in self._exact):
            return True
        return any(
            form in content
            for content in _normalizations(text)
            for form in self._candidates(content)
        )

    def _candidates(self, content: bytes) -> set[bytes]:
        """Return the forms with a window in the content."""
        forms: set[bytes] = set()
        for width, code, index in ((8, "Q", self._long), (4, "I", self._short)):
            if not index:
                continue
            windows = struct.unpack_from(f"<{len(content) // width}{code}", content)
            if index.keys().isdisjoint(windows):
                continue
            for window in index.keys() & set(
                windows
            ):  # each once, however often the text repeats it
                forms.update(index[window])
        return forms

    def find(self, text: str) -> list[Span]:
        """Return the spans with a secret, in order and disjoint."""
        spans = [
            Span(match.start(), match.end())
            for exact in self._exact
            for match in re.finditer(re.escape(exact), text)
        ]
        for piece, plain in ((_PIECE, normalize(text)), (_LETTERS, _lower_alphanumerics(text))):
            forms = [form for form in self._candidates(plain) if form in plain]
            if not forms:
                continue
            content, starts, ends = _normalize_with_positions(text, piece)
            for form in forms:
                position = content.find(form)
                while position >= 0:
                    last = position + len(form) - 1
                    spans.append(
                        self._widened_span(
                            text, form, starts[position], ends.get(last, starts[last] + 1)
                        )
                    )
                    position = content.find(form, last + 1)
        return _merge_overlapping(spans)

    def _widened_span(self, text: str, form: bytes, start: int, end: int) -> Span:
        """Return a secret's span, widened by its leading and trailing punctuation."""
        before, after = self._edges.get(form, ("", ""))
        if before and text.endswith(before, 0, start):
            start -= len(before)
        if after and text.startswith(after, end):
            end += len(after)
        return Span(start, end)


def normalize(text: str) -> bytes:
    """Return a text's letters and digits in lower case, with encodings decoded."""
    return (
        _lower_alphanumerics(_ESCAPED.sub(_decode_escape, text))
        if _has_escapes(text)
        else _lower_alphanumerics(text)
    )


def _has_escapes(text: str) -> bool:
    # A tenth of the time of a regular expression.
    return "%" in text or "&" in text or "\\" in text or "<" in text or "\x1b" in text


def _lower_alphanumerics(text: str) -> bytes:
    return text.encode("ascii", "ignore").translate(_TO_LOWER, _DROPPED)


def _normalizations(text: str) -> Iterator[bytes]:
    """Yield the letters of a text, decoded and raw: an apparent escape may be part of a secret."""
    yield normalize(text)
    if _has_escapes(text):
        yield _lower_alphanumerics(text)


def _decode_escape(match: re.Match[str]) -> str:
    if match[0][0] in "<\x1b":
        return ""
    kinds = ("percent", "hex", "unicode", "braced", "long", "byte")
    code = next((match[kind] for kind in kinds if match[kind]), None)
    number = int(code, 16) if code else int(match["decimal"] or 0)
    return chr(number) if 0 < number < 128 else ""


def _normalize_with_positions(
    text: str, piece: re.Pattern[str]
) -> tuple[bytes, list[int], dict[int, int]]:
    """Return the reduced text, the start of each character and the end of decoded ones."""
    content = bytearray()
    starts: list[int] = []
    ends: dict[int, int] = {}
    for match in piece.finditer(text):
        if not text[match.start()].isalnum():
            character = normalize(_decode_escape(match))
            if character:
                ends[len(starts)] = match.end()
                starts.append(match.start())
                content += character
        else:
            content += match[0].lower().encode()
            starts.extend(range(match.start(), match.end()))
    return bytes(content), starts, ends


def _add_to_index(index: dict[int, tuple[bytes, ...]], window: int, form: bytes) -> None:
    index[window] = (*index.get(window, ()), form)


def _merge_overlapping(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def _forms_of(raw: bytes, text: str) -> set[bytes]:
    """Return a secret's reduced forms: raw, and in encodings that change its letters."""
    # Also raw: an apparent escape in a secret may be its own letters.
    forms = {normalize(text), _lower_alphanumerics(text)}
    for coded in (
        raw,
        text.encode("utf-16-le", "surrogatepass"),
        text.encode("utf-16-be", "surrogatepass"),
    ):
        forms.add(coded.hex().encode())
        for once in _base64_cores(coded):
            forms.add(once.lower().translate(None, _DROPPED))
            for twice in _base64_cores(once):
                forms.add(twice.lower().translate(None, _DROPPED))
    return forms


def _base64_cores(raw: bytes) -> Iterator[bytes]:
    """Yield the base64 forms of the bytes at each of three alignments, without edges.

    Preceding bytes shift the alignment; the edge characters depend on the neighbours.
    """
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + raw).rstrip(b"=")
        core = coded[-(-shift * 8 // 6) : len(coded) - 1]
        if len(core) >= 8:
            yield core
