"""Tape: answers the calls of a replayed run from its recording, and finds where the two differ."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent_runtime.errors import AgentRuntimeError
from agent_runtime.escapes import escape_to_one_line
from agent_runtime.event_bus.cloud_event import to_jsonable
from agent_runtime.replay.recording import Step
from agent_runtime.secrets.redaction import SECRETS

Kind = Literal["llm", "tool"]
_COMPARED_FIELDS = ("type", "content", "tool_calls", "tool_call_id", "name", "status")


@dataclass(frozen=True, slots=True)
class Difference:
    """Describe the first difference between a replay and its recording.

    `step` is the recorded step there, or None for the run's end; `what` names the field
    (`messages.3.content`, `args`, `output`, `status`, ...), `recorded` and `replayed` are its
    values.
    """

    step: int | None
    what: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        where = "the end" if self.step is None else f"step {self.step}"
        what = escape_to_one_line(self.what)
        return (
            f"{where}: {what}\n  recorded: {_abbreviate(self.recorded)}\n  replayed: "
            f"{_abbreviate(self.replayed)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        return {name: to_jsonable(getattr(self, name)) for name in self.__slots__}


class ReplayDiverged(AgentRuntimeError):
    """Report a call of the replayed run that its recording lacks; `difference` has the details."""

    code = "replay_diverged"

    def __init__(self, difference: Difference) -> None:
        self.difference = difference
        super().__init__(str(difference))


class RecordedFailure(Exception):
    """Represent a recorded failure: raised as a class of the same name, with the same text."""

    @classmethod
    def of(cls, step: Step) -> Exception:
        """Return the failure of a step."""
        failure_class: type[Exception] = type(step.error or cls.__name__, (cls,), {})
        return failure_class(step.message)


class Cassette:
    """Answer calls from recorded steps, each once.

    Calls are matched by their request, so that concurrent ones may come in another order.
    Thread-safe.

    Args:
        steps: of the recording.
        from_step: the first step that is not answered from the recording; None answers all of them.
    """

    def __init__(self, steps: Sequence[Step], from_step: int | None = None) -> None:
        self._from_step = from_step
        self._remaining_steps = [
            step for step in steps if from_step is None or step.number < from_step
        ]
        self._lock = threading.Lock()
        self.difference: Difference | None = None
        self.live_calls = 0

    def answer(
        self, kind: Kind, name: str, request: Any, call_id: str | None = None
    ) -> tuple[bool, Any]:
        """Return whether the recording answers the call, and the answer.

        Otherwise it is for a fork's live agent. Raises ReplayDiverged for a call that the recording
        should have and lacks, and a recorded failure.
        """
        comparable_request = normalize_request(kind, SECRETS.redact_json(to_jsonable(request)))
        with self._lock:
            step = self._find_step(kind, name, comparable_request, call_id)
            if step is None:
                return self._handle_unrecorded(kind, name, comparable_request)
            self._remove_step(step)
        if step.error is not None:
            raise RecordedFailure.of(step)
        return True, step.answer

    def _find_step(
        self, kind: Kind, name: str, comparable_request: Any, call_id: str | None
    ) -> Step | None:
        candidates = [
            step
            for step in self._remaining_steps
            if step.kind == kind and (kind == "llm" or step.name == name)
        ]
        matching_steps = [
            step
            for step in candidates
            if normalize_request(kind, step.request) == comparable_request
        ]
        if kind == "tool":
            return next(
                (step for step in matching_steps if step.call_id == call_id),
                matching_steps[0] if matching_steps else None,
            )
        # A model call that was retried is answered by the attempt that succeeded.
        matching_step = next(
            (step for step in matching_steps if step.error is None),
            matching_steps[0] if matching_steps else None,
        )
        if matching_step is not None:
            failed_attempts = [
                step
                for step in matching_steps
                if step.error is not None and step.number < matching_step.number
            ]
            self._remaining_steps = [
                step for step in self._remaining_steps if step not in failed_attempts
            ]
        return matching_step

    def _remove_step(self, step: Step) -> None:
        self._remaining_steps.remove(step)
        if step.kind == "tool" and step.call_id is not None:  # its code does not run again
            for inner in [
                nested_step
                for nested_step in self._remaining_steps
                if nested_step.parent == step.call_id and nested_step.run_id == step.run_id
            ]:
                if inner in self._remaining_steps:
                    self._remove_step(inner)

    def refuse_live_model(self, name: str) -> None:
        """Refuse a model that is not one of the replay's."""
        if self.difference is None:
            self.difference = Difference(
                None, f"the model {name} was asked, which no recording stands in for", None, name
            )
        raise ReplayDiverged(self.difference)

    def _handle_unrecorded(
        self, kind: Kind, name: str, comparable_request: Any
    ) -> tuple[bool, Any]:
        if not self._remaining_steps and self._from_step is not None:
            self.live_calls += 1
            return False, None
        expected = next(
            (
                step
                for step in self._remaining_steps
                if step.kind == kind and (kind == "llm" or step.name == name)
            ),
            None,
        )
        if self.difference is None:
            if expected is None:
                self.difference = Difference(
                    None, f"a further {kind} call", None, comparable_request
                )
            else:
                path, recorded, replayed = first_difference(
                    normalize_request(kind, expected.request), comparable_request
                )
                path = f"{'messages' if kind == 'llm' else 'args'}{'.' if path else ''}{path}"
                self.difference = Difference(expected.number, path, recorded, replayed)
        raise ReplayDiverged(self.difference)

    def next_unplayed(self) -> Step | None:
        """Return the first recorded model call that the replay did not make."""
        return next(
            (
                step
                for step in self._remaining_steps
                if step.kind == "llm" and step.error is None and not step.parent
            ),
            None,
        )


def normalize_request(kind: Kind, request: Any) -> Any:
    """Return the comparable part of a request, without ids and provider's metadata of messages."""
    if kind == "llm" and isinstance(request, list):
        return [_normalize_message(message) for message in request]
    return request


def _normalize_message(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    comparable_fields = {
        name: message[name]
        for name in _COMPARED_FIELDS
        if message.get(name) not in (None, [], "success")
    }
    if comparable_fields.get("type") in ("AIMessageChunk", "HumanMessageChunk"):
        comparable_fields["type"] = (
            "ai" if comparable_fields["type"] == "AIMessageChunk" else "human"
        )
    return comparable_fields


def first_difference(one: Any, other: Any, path: str = "") -> tuple[str, Any, Any]:
    """Return the path of the first difference of two JSON values, and both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in [*one, *(key for key in other if key not in one)]:
            if one.get(key) != other.get(key) or (key in one) != (key in other):
                return first_difference(
                    one.get(key), other.get(key), f"{path}.{key}" if path else str(key)
                )
    if isinstance(one, list) and isinstance(other, list):
        for index in range(max(len(one), len(other))):
            one_element = one[index] if index < len(one) else None
            other_element = other[index] if index < len(other) else None
            if one_element != other_element:
                return first_difference(
                    one_element, other_element, f"{path}.{index}" if path else str(index)
                )
    return path, one, other


def _abbreviate(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}... ({len(text)} characters)"
