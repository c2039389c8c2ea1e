"""Read restricted YAML into nodes with locations.

No tags, anchors, aliases or duplicate keys; one document; size and depth limits; scalars by the
YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema), so that `on`, `yes` and `no`
are strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from agent_runtime.errors import Problem, TemplateError
from agent_runtime.size_limits import size_limit

MAX_BYTES = size_limit("yaml_bytes")
MAX_DEPTH = 32

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF = re.compile(r"[-+]?\.(inf|Inf|INF)")
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """Locate a position in a file; line and column count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def problem(self, message: str, path: str = "", code: str = "template_invalid") -> Problem:
        """Return a problem at this location."""
        return Problem(message, path, self.file, self.line, self.column, code)


@dataclass(slots=True)
class Node:
    """Hold a value and its location: a dict or list of nodes, or a scalar.

    `key` locates its key.
    """

    kind: Literal["map", "list", "scalar"]
    value: Any
    mark: Mark
    key: Mark | None = None
    unquoted: bool = False
    """A scalar without quotes: its type is parsed after `${VAR}` is filled in."""


def parse_scalar(text: str) -> Any:
    """Return the YAML 1.2 core value of an unquoted scalar."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) > 400:  # no sensible number; Python refuses to parse the longest
        return text
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INF.fullmatch(text):
        return float("-inf") if text.startswith("-") else float("inf")
    return text


def read_yaml(data: bytes, file: str) -> Node:
    """Read one document; raises TemplateError with every problem of its syntax."""
    text = _decode(data, file)
    try:
        return _read(text, file, _Loader)
    except _NestingLimit:  # it reads ahead of the limit here, and stops at its own
        return _read(text, file, yaml.SafeLoader)


class _NestingLimit(Exception):
    """The parser's own limit of nesting, which libyaml has from PyYAML 6.0.4 on."""


def _read(text: str, file: str, loader: Any) -> Node:
    problems: list[Problem] = []
    try:
        node = _NodeBuilder(yaml.parse(text, Loader=loader), file, problems).document()
    except yaml.MarkedYAMLError as error:
        if error.problem == "exceeded maximum nesting depth":
            raise _NestingLimit from None
        syntax_mark = error.problem_mark
        mark = (
            Mark(file)
            if syntax_mark is None
            else Mark(file, syntax_mark.line + 1, syntax_mark.column + 1)
        )
        raise TemplateError([*problems, mark.problem(_syntax_message(error, text, mark))]) from None
    except yaml.YAMLError as error:
        raise TemplateError([*problems, Mark(file).problem(str(error).splitlines()[0])]) from None
    if problems:
        raise TemplateError(problems)
    return node


def _syntax_message(error: yaml.MarkedYAMLError, text: str, mark: Mark) -> str:
    line = text.split("\n")[mark.line - 1] if mark.line <= text.count("\n") + 1 else ""
    if "\t" in line[: mark.column]:
        return "a tab cannot indent YAML: use spaces"
    return f"not valid YAML: {error.problem or error.context}"


def _decode(data: bytes, file: str) -> str:
    if len(data) > MAX_BYTES:
        raise TemplateError(
            [Mark(file).problem(f"the file has {len(data)} bytes; at most {MAX_BYTES} are read")]
        )
    if data.startswith(b"\xef\xbb\xbf"):
        raise TemplateError(
            [
                Mark(file).problem(
                    "the file starts with a byte-order mark (BOM): save it as plain UTF-8"
                )
            ]
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        message = f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise TemplateError([Mark(file, line, column).problem(message)]) from None


class _NodeBuilder:
    def __init__(self, events: Iterator[Any], file: str, problems: list[Problem]) -> None:
        self._events = events
        self._file = file
        self._problems = problems

    def document(self) -> Node:
        root: Node | None = None
        for event in self._events:
            if isinstance(
                event, (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentEndEvent)
            ):
                continue
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise TemplateError(
                        [self._mark(event).problem("more than one YAML document in the file")]
                    )
                root = self._node(next(self._events), 1)
        if root is None:
            raise TemplateError([Mark(self._file).problem("the file is empty")])
        return root

    def _mark(self, event: Any) -> Mark:
        return Mark(self._file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _node(self, event: Any, depth: int) -> Node:
        mark = self._mark(event)
        if depth > MAX_DEPTH:
            raise TemplateError(
                [*self._problems, mark.problem(f"nested deeper than {MAX_DEPTH} levels")]
            )
        if isinstance(event, yaml.AliasEvent):
            self._problems.append(mark.problem(f"alias '*{event.anchor}': aliases are not allowed"))
            return Node("scalar", None, mark)
        if event.anchor is not None:
            self._problems.append(
                mark.problem(f"anchor '&{event.anchor}': anchors are not allowed")
            )
        if event.tag is not None:
            self._problems.append(mark.problem(f"tag '{event.tag}': tags are not allowed"))
        if isinstance(event, yaml.ScalarEvent):
            unquoted = not event.style  # the C parser returns "", the Python one None
            return Node(
                "scalar",
                parse_scalar(event.value) if unquoted else event.value,
                mark,
                unquoted=unquoted,
            )
        return (
            self._list(mark, depth)
            if isinstance(event, yaml.SequenceStartEvent)
            else self._map(mark, depth)
        )

    def _list(self, mark: Mark, depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Node("list", items, mark)

    def _map(self, mark: Mark, depth: int) -> Node:
        items: dict[str, Node] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            node = self._node(next(self._events), depth + 1)
            if key.kind != "scalar":
                self._problems.append(key.mark.problem("a key must be a plain string"))
                continue
            name = (
                event.value if isinstance(event, yaml.ScalarEvent) else ""
            )  # a key is a string, also `on` and `1`
            if name in items:
                first_key_mark = items[name].key
                line = first_key_mark.line if first_key_mark else mark.line
                self._problems.append(
                    key.mark.problem(
                        f"key '{name}' appears twice: lines {line} and {key.mark.line}"
                    )
                )
                continue
            node.key = key.mark
            items[name] = node
        return Node("map", items, mark)
