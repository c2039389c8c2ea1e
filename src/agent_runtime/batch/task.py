"""Define a batch's tasks and build them from texts, maps and other items."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from agent_runtime.errors import InputInvalid, close_matches
from agent_runtime.pool.task import TaskPriority, parse_priority
from agent_runtime.size_limits import size_limit

MAX_TASK_BYTES = size_limit("task_bytes")
"""Of one task as JSON: more is a file that the task should name."""
MAX_ID = 200
MAX_TIMEOUT_S = 1e9
_encode_json = json.JSONEncoder(allow_nan=False).encode
AnyTask: TypeAlias = "BatchTask | str | Mapping[str, Any]"


@dataclass(slots=True)
class BatchTask:
    """Describe one call of an agent in a batch. All of it is JSON.

    It is stored in the journal before it is accepted.

    Args:
        input: as for `AgentExecutor.execute`: text, a list of messages as maps, or the agent's
            input map.
        agent: a template's name or path; the batch's own agent when it is empty.
        id: unique within the batch; by default from its position: `t1`, `t2`, ...
        inputs: the template's parameters.
        priority: urgent, high, normal or low.
        timeout_s: seconds of one attempt; the batch's own by default.
        metadata: labels that come back with the result, and reach traces and tools.

    Raises InputInvalid for an invalid task.
    """

    input: Any
    agent: str = ""
    id: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    priority: TaskPriority = TaskPriority.NORMAL
    timeout_s: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.priority = parse_priority(self.priority)
        if self.input is None or not isinstance(self.input, str | list | Mapping):
            raise InputInvalid(
                f"a task's input is text, messages or a map, not {type(self.input).__name__}",
                "input",
            )
        if not isinstance(self.id, str) or len(self.id) > MAX_ID or not self.id.isprintable():
            raise InputInvalid(
                f"a task's id is printable text of at most {MAX_ID} characters", "id"
            )
        if self.timeout_s is not None and not (
            _is_number(self.timeout_s) and 0 < self.timeout_s <= MAX_TIMEOUT_S
        ):
            raise InputInvalid(
                f"a task's timeout is a positive number of seconds, not {self.timeout_s}",
                "timeout_s",
            )
        for name in ("inputs", "metadata"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputInvalid(f"a task's {name} are a map", name)
        if not isinstance(self.agent, str):
            raise InputInvalid("a task's agent is a template's name or path", "agent")

    def to_json(self) -> str:
        """Return the task as JSON for the journal.

        Raises InputInvalid for values that cannot be JSON, or too many of them.
        """
        content: dict[str, Any] = {"input": self.input, "priority": int(self.priority)}
        for name in _OPTIONAL_FIELDS:
            if value := getattr(self, name):  # defaults are left out
                content[name] = value
        try:
            text = _encode_json(content)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputInvalid(f"a task is JSON: {error}", "input") from None
        if len(text) > MAX_TASK_BYTES:
            raise InputInvalid(
                f"a task has at most {MAX_TASK_BYTES} bytes, this one has {len(text)}", "input"
            )
        return text

    @classmethod
    def from_json(cls, text: str) -> BatchTask:
        """Return the task that `to_json` describes."""
        return cls(**json.loads(text))


_OPTIONAL_FIELDS = ("agent", "id", "inputs", "timeout_s", "metadata")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_task(raw_task: AnyTask, agent: str = "") -> BatchTask:
    """Return a task from text, from a map with a task's fields, or unchanged.

    Raises InputInvalid.
    """
    if isinstance(raw_task, BatchTask):
        return raw_task if raw_task.agent or not agent else replace(raw_task, agent=agent)
    if isinstance(raw_task, str):
        return BatchTask(raw_task, agent=agent)
    if not isinstance(raw_task, Mapping):
        raise InputInvalid(f"a task is text, a map or a BatchTask, not {type(raw_task).__name__}")
    field_names = BatchTask.__slots__
    if unknown := [key for key in raw_task if key not in field_names]:
        raise InputInvalid(
            f"unknown field of a task: {close_matches(str(unknown[0]), field_names)}",
            str(unknown[0]),
        )
    if "input" not in raw_task:
        raise InputInvalid("a task has an 'input'", "input")
    return BatchTask(**{"agent": agent, **raw_task})


def create_batch_tasks(
    items: Iterable[Any],
    agent: str = "",
    *,
    priority: TaskPriority | str | int | None = None,
    make: Callable[[Any], AnyTask] | None = None,
) -> list[BatchTask]:
    """Build tasks from texts, maps with a task's fields, or other items that `make` converts.

    `agent` and `priority` are defaults. Raises InputInvalid, which names the item.
    """
    tasks = []
    for position, item in enumerate(items, 1):
        try:
            task = as_task(item if make is None else make(item), agent)
        except InputInvalid as error:
            raise InputInvalid(f"item {position}: {error}") from None
        has_priority = isinstance(item, BatchTask) or (
            isinstance(item, Mapping) and "priority" in item
        )
        tasks.append(
            task
            if priority is None or has_priority
            else replace(task, priority=parse_priority(priority))
        )
    return tasks


def prioritize_tasks(
    tasks: Iterable[BatchTask], by: Callable[[BatchTask], TaskPriority | str | int] | None = None
) -> list[BatchTask]:
    """Sort tasks by priority, the highest first; the order within a priority stays.

    `by` assigns priorities before: `lambda task: "urgent" if task.metadata.get("vip") else
    "normal"`.
    """
    ranked = [
        task if by is None else replace(task, priority=parse_priority(by(task))) for task in tasks
    ]
    return sorted(ranked, key=lambda task: -task.priority)
