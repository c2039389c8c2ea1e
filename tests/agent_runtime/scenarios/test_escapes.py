"""What others wrote steers no terminal, reorders no line and ends none, on every way out."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import agent_runtime
from agent_runtime.cli.main import cli, main
from agent_runtime.cli.state import settings
from agent_runtime.escapes import escape_controls, escape_to_one_line, json_line
from agent_runtime.monitoring.logs import ConsoleFormatter, JsonFormatter

EVIL = "a\x1b]0;owned\x07b \u202eevil\u2066 \u2028 \x85 \u200f \x9b31m \U000e0041 \ufeff end"
FORBIDDEN = sorted(set(EVIL) - set("ab ]0;ownedevil31m"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AGENT_RUNTIME_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def out(*args: str) -> str:
    found = CliRunner().invoke(cli, args, standalone_mode=False)
    assert found.exception is None, found.exception
    assert found.output
    return found.output


def check(text: str) -> None:
    assert [hex(ord(c)) for c in FORBIDDEN if c in text] == []


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for each in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from texts_in(each)


def test_no_command_prints_what_steers_a_terminal(home: Path) -> None:
    # The offline stand-in quotes the question where it has no tool for it.
    check(out("run", "writer", EVIL, "--session", "s1"))
    check(out("run", "writer", EVIL, "--json"))
    check(out("run", "writer", EVIL, "--jsonl", "--record", "--session", "s2"))
    for command in (
        ["list"],
        ["list", "--json"],
        ["show", "s1"],
        ["show", "s1", "--json"],
        ["export", "s1"],
    ):
        check(out("sessions", *command))
    check(out("events", "query"))
    events = out("events", "query", "--json")
    check(events)
    assert any(EVIL in text for line in events.splitlines() for text in texts_in(json.loads(line)))
    check(out("cost", "report"))


def test_every_line_of_the_command_line_is_printed_in_one_place() -> None:
    folder = Path(agent_runtime.__file__).parent / "cli"
    prints = re.compile(r"click\.s?echo\(|(?<!\w)print\(")
    assert [p.name for p in folder.glob("*.py") if prints.search(p.read_text())] == ["output.py"]


def ended(*args: str) -> str:
    """Return what the program itself prints on stderr when a command fails."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        stream = io.StringIO()
        patch.setattr("sys.stderr", stream)
        main(list(args))
    return stream.getvalue()


@pytest.mark.parametrize(
    "args",
    [
        ("run", EVIL, "hi"),
        ("sessions", "show", EVIL),
        ("validate", EVIL),
        (EVIL,),
        ("pool", "drain", EVIL),
    ],
)
def test_no_error_does_either(args: tuple[str, ...], home: Path) -> None:
    text = ended(*args)
    check(text)
    assert "rror: " in text


def test_a_traceback_that_an_operator_asks_for_does_neither(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError(EVIL)

    monkeypatch.setenv("AGENT_RUNTIME_TRACEBACK", "1")
    monkeypatch.setattr("agent_runtime.cli.doctor._checks", fail)
    text = ended("doctor")
    check(text)
    assert "Traceback" in text


def raised() -> Any:
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        return type(error), error, error.__traceback__


@pytest.mark.parametrize("formatter", [JsonFormatter(), ConsoleFormatter()])
@pytest.mark.parametrize("place", ["message", "field", "exception"])
def test_no_log_line_does(formatter: logging.Formatter, place: str) -> None:
    message = EVIL if place == "message" else "plain"
    info = raised() if place == "exception" else None
    record = logging.LogRecord("agent_runtime", logging.INFO, __file__, 1, message, (), info)
    if place == "field":
        record.session_id = EVIL
    line = formatter.format(record)
    check(line)
    if isinstance(formatter, JsonFormatter):
        assert len(line.splitlines()) == 1
        assert EVIL in str(
            json.loads(line)[
                "message" if place == "message" else {"field": "session_id"}.get(place, place)
            ]
        )


@pytest.mark.parametrize("way", [escape_controls, escape_to_one_line, json_line])
@pytest.mark.parametrize(
    "text",
    ["grün \u4f60\u597d \u05e9\u05dc\u05d5\u05dd \U0001f468\u200d\U0001f469 \u00a0x", "", "a b"],
)
def test_what_people_write_is_left_as_it_is(way: Callable[[str], str], text: str) -> None:
    if way is escape_controls:
        assert way(text) == text
    assert json.loads(f'"{way(text)}"' if way is not json_line else way(text)) == text


def test_lines_stay_in_a_text_and_not_in_a_line() -> None:
    assert escape_controls("a\r\n\tb\rc") == "a\r\n\tb\\u000dc"
    assert escape_to_one_line("a\r\n\tb") == "a\\u000d\\u000a\\u0009b"


@given(
    st.recursive(
        st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_is_one_printable_line_and_means_the_same(value: Any) -> None:
    line = json_line(value)
    assert all(c.isprintable() or c == "\u00a0" or c.isspace() for c in line)
    assert len(line.splitlines()) <= 1
    assert json.loads(line) == json.loads(json.dumps(value))


@given(st.text(st.characters()))
def test_an_escaped_text_has_nothing_that_is_not_printable_but_lines(text: str) -> None:
    assert not [
        c
        for c in escape_controls(text)
        if not c.isprintable() and c not in "\r\n\t\u200c\u200d\u00ad" and not c.isspace()
    ]
