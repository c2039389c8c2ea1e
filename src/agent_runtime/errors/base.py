"""Define the root of the tree and the errors before a call: configuration, templates, inputs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from agent_runtime.secrets.redaction import SECRETS


def close_matches(name: str, valid_names: Iterable[str]) -> str:
    """Return a sentence for an unknown name: the nearest known ones, or all of a few."""
    valid_names = sorted(valid_names)
    if suggestions := difflib.get_close_matches(name, valid_names, n=3, cutoff=0.5):
        return "did you mean " + " or ".join(f"'{n}'" for n in suggestions) + "?"
    if not valid_names:
        return "nothing is registered"
    return "known: " + ", ".join(valid_names[:20]) + (", ..." if len(valid_names) > 20 else "")


class AgentRuntimeError(Exception):
    """Be the root of all errors; `code` is stable and meant for machines.

    Registered secrets, and whatever looks like a key, are masked in the message, which callers see.
    An error of the application's own code or a library is unchanged in `__cause__`.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, *args: object) -> None:
        super().__init__(
            *(
                SECRETS.text(argument) if isinstance(argument, str) else argument
                for argument in args
            )
        )


class ConfigurationError(AgentRuntimeError):
    """A setting is wrong; raised when an object is built, never during a call."""

    code = "configuration_invalid"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a template. `path` is the field (`spec.model.params.temperature`).

    Lines count from 1.
    """

    message: str
    path: str = ""
    file: str = "<template>"
    line: int = 1
    column: int = 1
    code: str = "template_invalid"

    def __str__(self) -> str:
        location = f"{self.file}:{self.line}:{self.column}"
        return (
            f"{location}: {self.path}: {self.message}"
            if self.path
            else f"{location}: {self.message}"
        )


class TemplateError(ConfigurationError):
    """A template is invalid; `problems` lists everything that is wrong with it."""

    code = "template_invalid"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class UnknownComponent(ConfigurationError):
    """Nothing is registered under this name.

    `kind` is tool, model, middleware, layer, template, workflow.
    """

    code = "unknown_component"

    def __init__(self, kind: str, name: str, registered_names: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        super().__init__(f"unknown {kind} '{name}': {close_matches(name, registered_names)}")


class MissingExtra(ConfigurationError):
    """A feature needs an optional package; the message has the command that installs it."""

    code = "missing_extra"

    def __init__(self, feature: str, install: str) -> None:
        super().__init__(
            f"{feature} needs a package that is not installed: pip install '{install}'"
        )


class InputInvalid(AgentRuntimeError):
    """A call's input or a template's `inputs` cannot be used; `path` names the field."""

    code = "input_invalid"

    def __init__(self, message: str, path: str = "") -> None:
        self.path = path
        super().__init__(f"{path}: {message}" if path else message)


class SessionIdInvalid(InputInvalid):
    """Not a session's or tenant's id: 1 to 128 ASCII letters, digits, `_` and `-`."""

    code = "session_id_invalid"


class ReservedKey(InputInvalid):
    """A key of `configurable` that callers may not set; `path` names it."""

    code = "reserved_key"


class StreamMisuse(AgentRuntimeError):
    """A stream was used before or without `async with`, or twice."""

    code = "stream_misuse"


class NotRecorded(AgentRuntimeError):
    """Report that the event log lacks data for a replay."""

    code = "not_recorded"
