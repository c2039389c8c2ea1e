"""Tape: answers the calls of a replayed run from its recording, and finds where the two differ."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent_runtime.errors import AgentRuntimeError
from agent_runtime.escapes import on_one_line
from agent_runtime.event_bus.cloud_event import plain
from agent_runtime.replay.recording import Step
from agent_runtime.secrets.redaction import SECRETS

Kind = Literal["llm", "tool"]
_OF_A_MESSAGE = ("type", "content", "tool_calls", "tool_call_id", "name", "status")


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where a replay is not what was recorded.

    `step` is the recorded step there, or None for the run's end; `what` says what differs
    (`messages.3.content`, `args`, `output`, `status`, ...), `recorded` and `replayed` the two
    values.
    """

    step: int | None
    what: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        where = "the end" if self.step is None else f"step {self.step}"
        what = on_one_line(self.what)
        return (
            f"{where}: {what}\n  recorded: {_short(self.recorded)}\n  replayed: "
            f"{_short(self.replayed)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return {name: plain(getattr(self, name)) for name in self.__slots__}


class ReplayDiverged(AgentRuntimeError):
    """A call of the replayed run is not in its recording; `difference` says how it differs."""

    code = "replay_diverged"

    def __init__(self, difference: Difference) -> None:
        self.difference = difference
        super().__init__(str(difference))


class RecordedFailure(Exception):
    """What a recorded call failed with: raised as a class of the same name, with the same text."""

    @classmethod
    def of(cls, step: Step) -> Exception:
        """The failure of a step."""
        named: type[Exception] = type(step.error or cls.__name__, (cls,), {})
        return named(step.message)


class Tape:
    """The recorded steps, each given out once.

    Args:
        steps: of the recording.
        from_step: the first step that is not answered from the recording; None answers all of them.

    A call is matched by what it asks, so that calls side by side may come in another order.
    Thread-safe.
    """

    def __init__(self, steps: Sequence[Step], from_step: int | None = None) -> None:
        self._from_step = from_step
        self._left = [step for step in steps if from_step is None or step.number < from_step]
        self._lock = threading.Lock()
        self.difference: Difference | None = None
        self.live_calls = 0

    def answer(
        self, kind: Kind, name: str, request: Any, call_id: str | None = None
    ) -> tuple[bool, Any]:
        """Whether the recording answers the call, and what.

        Otherwise it is for a fork's live agent.

        Raises ReplayDiverged for a call that the recording should have and has not, and what a
        recorded one failed with.
        """
        asked = comparable(kind, SECRETS.whole(plain(request)))
        with self._lock:
            step = self._found(kind, name, asked, call_id)
            if step is None:
                return self._unknown(kind, name, asked)
            self._drop(step)
        if step.error is not None:
            raise RecordedFailure.of(step)
        return True, step.answer

    def _found(self, kind: Kind, name: str, asked: Any, call_id: str | None) -> Step | None:
        of_it = [
            step
            for step in self._left
            if step.kind == kind and (kind == "llm" or step.name == name)
        ]
        same = [step for step in of_it if comparable(kind, step.request) == asked]
        if kind == "tool":
            return next(
                (step for step in same if step.call_id == call_id), same[0] if same else None
            )
        # A model call that failed and was tried again is answered by the try that did not.
        found = next((step for step in same if step.error is None), same[0] if same else None)
        if found is not None:
            failed = [
                step for step in same if step.error is not None and step.number < found.number
            ]
            self._left = [step for step in self._left if step not in failed]
        return found

    def _drop(self, step: Step) -> None:
        self._left.remove(step)
        if step.kind == "tool" and step.call_id is not None:  # what its code did is not done again
            for inner in [
                each
                for each in self._left
                if each.parent == step.call_id and each.run_id == step.run_id
            ]:
                if inner in self._left:
                    self._drop(inner)

    def guard(self, name: str) -> None:
        """Refuse a model that is not one of the replay's."""
        if self.difference is None:
            self.difference = Difference(
                None, f"the model {name} was asked, which no recording stands in for", None, name
            )
        raise ReplayDiverged(self.difference)

    def _unknown(self, kind: Kind, name: str, asked: Any) -> tuple[bool, Any]:
        if not self._left and self._from_step is not None:
            self.live_calls += 1
            return False, None
        expected = next(
            (
                step
                for step in self._left
                if step.kind == kind and (kind == "llm" or step.name == name)
            ),
            None,
        )
        if self.difference is None:
            if expected is None:
                self.difference = Difference(None, f"a further {kind} call", None, asked)
            else:
                what, recorded, replayed = first_difference(
                    comparable(kind, expected.request), asked
                )
                what = f"{'messages' if kind == 'llm' else 'args'}{'.' if what else ''}{what}"
                self.difference = Difference(expected.number, what, recorded, replayed)
        raise ReplayDiverged(self.difference)

    def unplayed(self) -> Step | None:
        """The first recorded model call that the replay did not make."""
        return next(
            (
                step
                for step in self._left
                if step.kind == "llm" and step.error is None and not step.parent
            ),
            None,
        )


def comparable(kind: Kind, request: Any) -> Any:
    """The part of a request that says what is asked.

    Ids and provider's metadata of messages are not compared.
    """
    if kind == "llm" and isinstance(request, list):
        return [_message(each) for each in request]
    return request


def _message(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    made = {
        name: message[name]
        for name in _OF_A_MESSAGE
        if message.get(name) not in (None, [], "success")
    }
    if made.get("type") in ("AIMessageChunk", "HumanMessageChunk"):
        made["type"] = "ai" if made["type"] == "AIMessageChunk" else "human"
    return made


def first_difference(one: Any, other: Any, path: str = "") -> tuple[str, Any, Any]:
    """The path of the first place where two JSON values differ, and the two values there."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in [*one, *(key for key in other if key not in one)]:
            if one.get(key) != other.get(key) or (key in one) != (key in other):
                return first_difference(
                    one.get(key), other.get(key), f"{path}.{key}" if path else str(key)
                )
    if isinstance(one, list) and isinstance(other, list):
        for index in range(max(len(one), len(other))):
            ours = one[index] if index < len(one) else None
            theirs = other[index] if index < len(other) else None
            if ours != theirs:
                return first_difference(ours, theirs, f"{path}.{index}" if path else str(index))
    return path, one, other


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}... ({len(text)} characters)"
