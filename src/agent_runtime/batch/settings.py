"""Define all settings of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from agent_runtime.orchestration.failures import RETRY_CLASSES
from agent_runtime.pool.config import PoolConfig, check_grace
from agent_runtime.template.config_section import parse_section, read_section
from agent_runtime.template.duration import Duration
from agent_runtime.template.runtime_spec import Count, StrictModel, check_delays

RetryClass = Literal["rate_limit", "server_error", "connection", "timeout", "worker", "transient"]
Usd = Annotated[float, Field(gt=0)]


class QueueSettings(StrictModel):
    """The queue in front of the workers."""

    size: Annotated[
        Count, Field(description="Most tasks waiting in memory; producers wait beyond it.")
    ] = 1000
    order: Annotated[
        Literal["fifo", "lifo"],
        Field(description="Order within a priority: the oldest or the newest first."),
    ] = "fifo"
    aging: Annotated[
        Duration, Field(description="Waiting time that raises a task by one priority.")
    ] = 60.0


class RetrySettings(StrictModel):
    """Configure when a failed task runs again, in addition to retries of its agent's own layer."""

    attempts: Annotated[Count, Field(description="Most attempts at one task.")] = 3
    on: list[RetryClass] = Field(default=["transient"])
    initial_delay: Annotated[
        Duration, Field(description="Upper bound of the first wait, which doubles; full jitter.")
    ] = 0.5
    max_delay: Duration = 30.0
    budget: Annotated[
        float,
        Field(
            ge=0,
            le=10,
            description="Retries of the whole batch, as a share of its tasks; ten are free.",
        ),
    ] = 0.2

    @model_validator(mode="after")
    def _delays_grow(self) -> RetrySettings:
        check_delays(self)
        return self

    @property
    def classes(self) -> frozenset[str]:
        """Return the failure classes that are retried."""
        return frozenset(RETRY_CLASSES) if "transient" in self.on else frozenset(self.on)


class PilotSettings(StrictModel):
    """Configure the pilot: a sample of tasks that runs first, for the forecast."""

    share: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    at_least: Count = 5
    confidence: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95


class BatchSettings(StrictModel):
    """The `batch:` part of a configuration file; durations as text (`30s`, `5m`), money in USD."""

    max_concurrent: Annotated[int, Field(ge=1, le=10_000, description="Most concurrent tasks.")] = (
        10
    )
    backend: Literal["asyncio", "process"] = "asyncio"
    pool: Annotated[PoolConfig, Field(description="Pool of the backend `process`.")] = PoolConfig()
    scheduling: Annotated[
        Literal["least_busy", "round_robin", "weighted"],
        Field(description="Scheduling among several backends."),
    ] = "least_busy"
    queue: QueueSettings = QueueSettings()
    limits: dict[str, Count] = Field(default={}, description="Most concurrent tasks, by agent.")
    task_timeout: Annotated[Duration | None, Field(description="Time limit of one attempt.")] = (
        300.0
    )
    grace: Annotated[
        Duration, Field(description="Time for running tasks to end after a cancel.")
    ] = 10.0
    slow_after: Annotated[
        Duration, Field(description="Duration after which a task is reported by an event.")
    ] = 60.0
    retry: RetrySettings = RetrySettings()
    continue_on_error: Annotated[
        bool, Field(description="False: no task starts after a failure.")
    ] = True
    fail_fast: Annotated[
        bool, Field(description="A failure ends the batch and its running tasks at once.")
    ] = False
    fallback_strategy: Annotated[
        Literal["fail", "skip", "retry"],
        Field(
            description="A task that failed for good: counted, left out, or once more when all "
            "others have ended."
        ),
    ] = "fail"
    max_lost: Annotated[
        Count, Field(description="Ended workers after which a task is quarantined.")
    ] = 3
    max_cost_usd: Annotated[
        Usd | None, Field(description="Total budget; the batch pauses when it is spent.")
    ] = None
    pilot: PilotSettings | None = None
    approval: Annotated[
        bool, Field(description="Require an approval when the forecast is above max_cost_usd.")
    ] = True
    sessions: Annotated[
        bool,
        Field(description="Store each task's steps: a retry continues after its last one."),
    ] = False

    @model_validator(mode="after")
    def _fits(self) -> BatchSettings:
        if self.fail_fast and self.fallback_strategy != "fail":
            raise ValueError(
                "fail_fast ends a batch at its first failure: it goes with fallback_strategy 'fail'"
            )
        check_grace(self)
        return self

    @classmethod
    def parse(cls, content: Any) -> BatchSettings:
        """Return the settings of a map; raises ConfigurationError with every problem."""
        return parse_section(cls, content, "batch")

    @classmethod
    def load(cls, path: str | Path) -> BatchSettings:
        """Read the `batch:` part of a YAML file.

        Raises ConfigurationError, TemplateError for invalid YAML, OSError.
        """
        return read_section(cls, path, "batch")

    def with_changes(self, **changes: Any) -> BatchSettings:
        """Return a copy with changes, as `parse` takes them; raises ConfigurationError."""
        return parse_section(BatchSettings, {**self.explicit_settings(), **changes}, "batch")

    def explicit_settings(self) -> dict[str, Any]:
        """Return the settings that were set explicitly, JSON-ready, for `parse`."""
        return self.model_dump(mode="python", exclude_unset=True)
