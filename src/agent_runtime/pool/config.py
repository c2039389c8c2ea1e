"""Configure the size of a pool, and the limits of its instances."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from agent_runtime.template.config_section import parse_section, read_section
from agent_runtime.template.duration import Duration
from agent_runtime.template.runtime_spec import Count, StrictModel

Megabytes = Annotated[int, Field(ge=16)]


def check_grace(settings: Any) -> None:
    """Raise ValueError for an explicit `grace` that is longer than the task's timeout."""
    limit_s = settings.task_timeout
    if "grace" in settings.model_fields_set and limit_s is not None and settings.grace > limit_s:
        raise ValueError(
            "grace, which follows task_timeout, is longer than that: a task would take twice its "
            "time"
        )


class AgentLimits(StrictModel):
    """Override settings for one agent type."""

    limit: Annotated[Count | None, Field(description="Most instances of this agent.")] = None
    warm: Annotated[int, Field(ge=0, description="Instances that are kept warm.")] = 0
    memory_mb: Annotated[Megabytes | None, Field(description="Replaces the pool's limit.")] = None


class PoolConfig(StrictModel):
    """The `pool:` part of a configuration file; durations as text (`30s`, `5m`), memory in MiB."""

    size: Annotated[int, Field(ge=1, le=1000, description="Most instances.")] = 6
    agents: dict[str, AgentLimits] = Field(default={})
    memory_mb: Annotated[
        Megabytes, Field(description="Most resident memory of an instance and its children.")
    ] = 1024
    total_memory_mb: Annotated[
        Megabytes | None,
        Field(description="Most memory of all instances, by their limits."),
    ] = None
    address_space_mb: Annotated[
        int,
        Field(
            ge=0, description="RLIMIT_AS of an instance; 0 is no limit. It counts virtual memory."
        ),
    ] = 0
    output_mb: Annotated[
        Count, Field(description="Most output of an instance in one task, in MiB.")
    ] = 10
    task_timeout: Annotated[
        Duration | None, Field(description="Time limit of tasks without their own.")
    ] = 300.0
    idle_timeout: Annotated[
        Duration | None, Field(description="Time after which an unused instance ends.")
    ] = 600.0
    max_tasks: Annotated[Count, Field(description="Tasks after which an instance is replaced.")] = (
        1000
    )
    max_kills: Annotated[
        Count, Field(description="Ended instances after which a task is quarantined.")
    ] = 3
    queue: Annotated[
        int, Field(ge=0, description="Most waiting calls; further ones are refused.")
    ] = 1000
    start_timeout: Duration = 30.0
    starting: Annotated[Count, Field(description="Most instances starting at the same time.")] = 4
    stall_timeout: Annotated[
        Duration, Field(description="Time without a heartbeat after which an instance is killed.")
    ] = 30.0
    grace: Annotated[Duration, Field(description="Time from a cancel to the kill.")] = 1.0
    preload: Annotated[
        list[str], Field(description="Modules that the fork server imports once for all instances.")
    ] = []
    setup: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
            description="A function that registers components in a worker's Registry.",
        ),
    ] = None

    @model_validator(mode="after")
    def _check_sizes(self) -> PoolConfig:
        if sum(limits.warm for limits in self.agents.values()) > self.size:
            raise ValueError("more warm instances are asked for than the pool's size allows")
        for name, limits in self.agents.items():
            if limits.limit is not None and limits.warm > limits.limit:
                raise ValueError(f"agents.{name}: more warm instances than its limit allows")
        if self.total_memory_mb is not None and self.total_memory_mb < self.memory_mb:
            raise ValueError("total_memory_mb is less than one instance may use")
        check_grace(self)
        return self

    def memory_of(self, agent: str) -> int:
        """Return the memory limit of an agent's instances, in MiB."""
        return self.limits_for(agent).memory_mb or self.memory_mb

    def limits_for(self, agent: str) -> AgentLimits:
        """Return the settings of an agent type."""
        return self.agents.get(agent, NO_LIMITS)

    @classmethod
    def parse(cls, content: Any) -> PoolConfig:
        """Parse a map; raises ConfigurationError with all problems."""
        return parse_section(cls, content, "pool")

    @classmethod
    def load(cls, path: str | Path) -> PoolConfig:
        """Read the `pool:` part of a YAML file.

        Raises ConfigurationError, TemplateError for invalid YAML, OSError.
        """
        return read_section(cls, path, "pool")


NO_LIMITS = AgentLimits()
