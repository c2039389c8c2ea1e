"""Define the result of a task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from agent_runtime.event_bus.cloud_event import to_jsonable

TaskStatus: TypeAlias = Literal[
    "pending", "running", "completed", "failed", "skipped", "poisoned", "interrupted"
]
FINAL_STATUSES: tuple[TaskStatus, ...] = (
    "completed",
    "failed",
    "skipped",
    "poisoned",
    "interrupted",
)
"""A task has one of these for good.

`skipped` failed and was left out, `poisoned` ended its workers, `interrupted`
waits for a person."""
UNSUCCESSFUL_STATUSES: tuple[TaskStatus, ...] = ("failed", "skipped", "poisoned")
_encode_json = json.JSONEncoder(ensure_ascii=True, default=to_jsonable).encode
USAGE_COUNTERS = ("input_tokens", "output_tokens", "cache_read_tokens", "model_calls", "tool_calls")


@dataclass(slots=True)
class Failure:
    """One attempt that failed.

    `kind` is the error's class (`timeout`, `rate_limit`, ...), `code` its stable code.
    """

    attempt: int
    kind: str
    code: str
    message: str
    failed_at: float = 0.0
    worker: str = ""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Failure:
        """Return the failure of stored fields; `at_s` is an older name of `failed_at`."""
        return cls(**{"failed_at" if k == "at_s" else k: v for k, v in fields.items()})


@dataclass(slots=True)
class TaskResult:
    """Describe the result of a task.

    `usage` and `cost_usd` sum all its attempts, `duration_s` is of the last one. `position` is its
    number in the batch, from 1. `cost_usd` is decimal text, None when a price is unknown.
    `ended_at` is in Unix seconds.
    """

    task_id: str
    position: int
    status: TaskStatus
    agent: str = ""
    output: str = ""
    structured_response: Any = None
    error: Failure | None = None
    history: list[Failure] = field(default_factory=list)
    attempts: int = 1
    usage: dict[str, int] = field(default_factory=dict)
    cost_usd: str | None = "0"
    estimated: bool = False
    duration_s: float = 0.0
    ended_at: float = 0.0
    run_id: str = ""
    session_id: str | None = None
    worker: str = ""
    template_digest: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    interrupts: list[Any] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        """Return whether there is an answer."""
        return self.status == "completed"

    @property
    def cost(self) -> Decimal | None:
        """Return the cost in USD."""
        return None if self.cost_usd is None else Decimal(self.cost_usd)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready, in a fixed order."""
        return asdict(self)

    def to_json(self) -> str:
        """Return one line of JSON."""
        content = {name: getattr(self, name) for name in self.__slots__}
        if self.error is not None:
            content["error"] = _failure_to_dict(self.error)
        content["history"] = [_failure_to_dict(failure) for failure in self.history]
        return _encode_json(content)

    @classmethod
    def from_json(cls, text: str) -> TaskResult:
        """Return the result that `to_json` describes; `ended_s` is an older name of `ended_at`."""
        content = json.loads(text)
        if "ended_s" in content:
            content["ended_at"] = content.pop("ended_s")
        content["error"] = None if content["error"] is None else Failure.from_dict(content["error"])
        content["history"] = [Failure.from_dict(failure) for failure in content["history"]]
        return cls(**content)


def _failure_to_dict(failure: Failure) -> dict[str, Any]:
    return {name: getattr(failure, name) for name in failure.__slots__}


@dataclass(slots=True)
class UsageTotals:
    """Sum the usage of a task's attempts."""

    usage: dict[str, int] = field(default_factory=lambda: dict.fromkeys(USAGE_COUNTERS, 0))
    cost_usd: str | None = "0"
    estimated: bool = False

    def add(self, usage: Any) -> None:
        """Add the usage of one call."""
        if not usage.model_calls and not usage.tool_calls:
            return
        for name in USAGE_COUNTERS:
            self.usage[name] += getattr(usage, name)
        self.estimated |= usage.estimated
        is_priced = self.cost_usd is not None and usage.cost_usd is not None
        self.cost_usd = (
            format(Decimal(self.cost_usd or 0) + usage.cost_usd, "f") if is_priced else None
        )
