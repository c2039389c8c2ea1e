"""Every error that agent_runtime raises, each with a stable `code`.

AgentRuntimeError
├── ConfigurationError            configuration_invalid   a wrong setting; raised before any call
│   ├── TemplateError             template_invalid        all problems of a template, with file:line:column
│   ├── UnknownComponent          unknown_component       a name that nothing is registered under
│   └── MissingExtra              missing_extra           an optional package is not installed
├── InputInvalid                  input_invalid           a call's input cannot be given to the agent
│   ├── SessionIdInvalid          session_id_invalid      no id that a session may have
│   └── ReservedKey               reserved_key            a key that callers may not set
├── SessionError                  session_error           a session cannot be used
│   ├── SessionNotFound           session_not_found       there is none, or it is another tenant's: the same answer
│   ├── SessionGone               session_gone            it was deleted, or has expired
│   ├── CheckpointCorrupt         checkpoint_corrupt      stored bytes do not verify; they are kept
│   ├── CheckpointVersion         checkpoint_version      stored by another version of the format
│   └── StateNotSerializable      state_not_serializable  a value of the state may not be stored
├── StoreError                    store_error             the store behind sessions failed
│   ├── StoreUnavailable          store_unavailable       it cannot be reached
│   ├── StoreTimeout              store_timeout           it did not answer in time
│   └── StoreFull                 store_full              it takes no more
├── StreamMisuse                  stream_misuse           a stream used outside `async with`
└── CallError                     a call failed; carries run_id, usage and cost_usd
    ├── AgentFailed               agent_failed            the agent, a tool or a model raised; see __cause__
    │   └── ProviderError         provider_error          a model provider answered with an error
    ├── CallTimeout               timeout                 run, idle or model_call took too long
    ├── LimitExceeded             limit_exceeded          a limit of the run was reached
    │   └── ToolLoop              tool_loop               the same tool call again and again
    ├── CallCancelled             cancelled               the runtime, not the caller, cancelled the call
    ├── CallDrained               drained                 stopped at a checkpoint by a shutdown; resume it
    ├── SessionBusy               session_busy            another turn of the session is running or too many wait
    └── StaleWriter               stale_writer            this turn lost its session to another writer
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar, Literal


def close_matches(name: str, known: Iterable[str]) -> str:
    """A ready sentence for an error about an unknown name: the nearest known ones, or all of a few."""
    known = sorted(known)
    if near := difflib.get_close_matches(name, known, n=3, cutoff=0.5):
        return "did you mean " + " or ".join(f"'{n}'" for n in near) + "?"
    if not known:
        return "nothing is registered"
    return "known: " + ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")


class AgentRuntimeError(Exception):
    """The root of the tree; `code` is stable and meant for machines."""

    code: ClassVar[str] = "internal"


class ConfigurationError(AgentRuntimeError):
    """A setting is wrong; raised when an object is built, never during a call."""

    code = "configuration_invalid"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a template. `path` is the field (`spec.model.params.temperature`); lines count from 1."""

    message: str
    path: str = ""
    file: str = "<template>"
    line: int = 1
    column: int = 1
    code: str = "template_invalid"

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class TemplateError(ConfigurationError):
    """A template is invalid; `problems` lists everything that is wrong with it, not just the first."""

    code = "template_invalid"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class UnknownComponent(ConfigurationError):
    """Nothing is registered under this name. `kind` is tool, model, middleware, layer, template, workflow."""

    code = "unknown_component"

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name = kind, name
        super().__init__(f"unknown {kind} '{name}': {close_matches(name, known)}")


class MissingExtra(ConfigurationError):
    """A feature needs an optional package; the message has the command that installs it."""

    code = "missing_extra"

    def __init__(self, feature: str, install: str) -> None:
        super().__init__(f"{feature} needs a package that is not installed: pip install '{install}'")


class InputInvalid(AgentRuntimeError):
    """The input of a call, or the `inputs` of a template, cannot be used; `path` names the field."""

    code = "input_invalid"

    def __init__(self, message: str, path: str = "") -> None:
        self.path = path
        super().__init__(f"{path}: {message}" if path else message)


class SessionIdInvalid(InputInvalid):
    """Not an id that a session (or a tenant) may have: 1 to 128 ASCII letters, digits, `_` and `-`."""

    code = "session_id_invalid"


class ReservedKey(InputInvalid):
    """A key of `configurable` that callers may not set; `path` names it."""

    code = "reserved_key"


class SessionError(AgentRuntimeError):
    """A session cannot be used."""

    code = "session_error"


class SessionNotFound(SessionError):
    """There is no such session for this caller. Whether another caller has one is not said."""

    code = "session_not_found"

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        super().__init__(f"there is no session '{session_id}'")


class SessionGone(SessionError):
    """The session was deleted or has expired; its id is not used again."""

    code = "session_gone"

    def __init__(self, session_id: str, why: Literal["deleted", "expired"]) -> None:
        self.session_id, self.why = session_id, why
        super().__init__(f"the session '{session_id}' was {why}" if why == "deleted" else f"'{session_id}' has expired")


class CheckpointCorrupt(SessionError):
    """Stored bytes do not verify (then quarantined), or are not of this configuration (`damaged` False). Both stay."""

    code = "checkpoint_corrupt"

    def __init__(self, place: str, why: str, *, damaged: bool = True) -> None:
        self.place, self.damaged = place, damaged
        super().__init__(f"stored data cannot be trusted ({place.replace(chr(31), '/')}): {why}")


class CheckpointVersion(SessionError):
    """Stored by another version of the format; the bytes are left as they are."""

    code = "checkpoint_version"

    def __init__(self, found: int, known: int) -> None:
        super().__init__(f"stored with format version {found}; this release reads version {known}")


class StateNotSerializable(SessionError):
    """A value of the agent's state may not be stored; the message says which type and what to do."""

    code = "state_not_serializable"


class StoreError(AgentRuntimeError):
    """The store behind sessions failed; nothing was half written."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """The store cannot be reached, or refuses to serve."""

    code = "store_unavailable"


class StoreTimeout(StoreError):
    """The store did not answer in time; whether the last write arrived is not known."""

    code = "store_timeout"


class StoreFull(StoreError):
    """The store takes no more data."""

    code = "store_full"


class StreamMisuse(AgentRuntimeError):
    """A stream was used before or without `async with`, or twice."""

    code = "stream_misuse"


class CallError(AgentRuntimeError):
    """A call failed. The edge fills in `run_id`, `usage` (what was spent until then) and so `cost_usd`."""

    code = "call_failed"

    def __init__(self, message: str) -> None:
        from agent_runtime.types import Usage

        super().__init__(message)
        self.run_id, self.usage = "", Usage()

    @property
    def cost_usd(self) -> Decimal | None:
        """What the failed call cost in USD, or None when unknown."""
        return self.usage.cost_usd


class AgentFailed(CallError):
    """The agent raised; the original exception is `__cause__`."""

    code = "agent_failed"


class ProviderError(AgentFailed):
    """A model provider failed. `status` is its HTTP status, or None when no answer came.

    `retry_after_s` is what the provider asked to wait, in seconds, or None.
    """

    code = "provider_error"

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        self.status, self.retry_after_s = status, retry_after_s
        super().__init__(message)


class CallTimeout(CallError):
    """A time limit passed: `scope` says which one, `timeout_s` how long it was, in seconds."""

    code = "timeout"

    def __init__(self, scope: Literal["run", "idle", "model_call"], timeout_s: float) -> None:
        self.scope, self.timeout_s = scope, timeout_s
        super().__init__(f"the {scope} timeout of {timeout_s:g} s passed")


class LimitExceeded(CallError):
    """A limit of the run refused the next step, before it was taken: `limit` is its name, `maximum` its value.

    With a session the run can be continued from its checkpoint.
    """

    code = "limit_exceeded"

    def __init__(self, limit: str, maximum: int, detail: str = "") -> None:
        self.limit, self.maximum = limit, maximum
        super().__init__(f"the run reached its limit of {maximum} {limit}{': ' + detail if detail else ''}")


class ToolLoop(LimitExceeded):
    """The model asked for the same tool call with the same arguments more often than allowed."""

    code = "tool_loop"


class CallCancelled(CallError):
    """The runtime cancelled the call while its reader was still reading."""

    code = "cancelled"


class CallDrained(CallError):
    """A shutdown stopped the call at a checkpoint: calling the session again with input None goes on from there."""

    code = "drained"


class SessionBusy(CallError):
    """Another turn of the session is running (`reject`), or too many wait for theirs (`enqueue`)."""

    code = "session_busy"


class StaleWriter(CallError):
    """The turn lost its session: its lease ran out and another writer came, or the head of the session moved."""

    code = "stale_writer"
