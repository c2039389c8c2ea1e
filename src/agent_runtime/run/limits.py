"""The limits of one run."""

from __future__ import annotations

from dataclasses import dataclass

from agent_runtime.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Limit one run; None is unlimited. Nested agents count towards the outer run.

    `max_steps` counts LangGraph supersteps, `tokens` input plus output tokens, `tool_loop`
    repetitions of one tool call with the same arguments. Each is checked before the next step, so
    the tokens of the last call may exceed it; `tool_calls` for a whole answer before any of its
    calls runs.

    `calls_per_answer` (128 when it is None) is for each answer: excess calls are answered by
    errors. `tool_result_bytes` (1 MiB when it is None) is for the texts of each tool's result,
    `tool_media_bytes` (16 MiB) for its images, files and artifact: longer ones are cut, with a mark
    for the model. Raises ConfigurationError for a value below 1.
    """

    max_steps: int | None = None
    model_calls: int | None = None
    tool_calls: int | None = None
    tokens: int | None = None
    tool_loop: int | None = None
    calls_per_answer: int | None = None
    tool_result_bytes: int | None = None
    tool_media_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"limit {name} must be at least 1, not {value}")


NO_LIMITS = RunLimits()
