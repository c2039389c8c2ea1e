"""The part of the template that is about the onion around a call: limits, retries, money."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent_runtime.budgets.budget import fault_of_names
from agent_runtime.template.duration import Duration

Count = Annotated[int, Field(ge=1)]
RateText = Annotated[
    str,
    Field(
        pattern=r"^\s*\d+\s*(/|\s+per\s+)\s*([1-9]\d*\s*)?(second|minute|hour|day|month|year)s?"
        r"(\s+per\s+(user|tenant|key|template|session|global)(\s*(,|and)\s*(user|tenant|key|template|session|global))*)?\s*$"
    ),
]


RetryClass = Literal["transient", "rate_limit", "server_error", "connection", "timeout", "worker"]


class StrictModel(BaseModel):
    """Reject unknown keys and values of another type in every part of a template."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class TimeoutSpec(StrictModel):
    """Time limits: the whole call, silence of the agent, one model call."""

    run: Duration | None = None
    idle: Duration | None = None
    model_call: Duration | None = None


class LimitsSpec(StrictModel):
    """Hard limits of one run; reaching one stops it before the next step."""

    max_steps: Count | None = None
    model_calls: Count | None = None
    tool_calls: Count | None = None
    calls_per_answer: Annotated[
        Annotated[int, Field(ge=1, le=1024)] | None,
        Field(
            description="Tool calls that one answer may have (128); the rest are answered by "
            "errors."
        ),
    ] = None
    tokens: Count | None = None
    tool_loop: Count | None = None
    tool_result_bytes: Annotated[
        Annotated[int, Field(ge=1024)] | None,
        Field(
            description="Texts of one tool's result (1 MiB); the rest is cut, with a mark that "
            "the model reads."
        ),
    ] = None
    tool_media_bytes: Annotated[
        Annotated[int, Field(ge=1024)] | None,
        Field(description="Images, files and the artifact of one tool's result (16 MiB)."),
    ] = None


def check_delays(settings: Any) -> None:
    """Raise ValueError for an explicit first delay that is longer than the longest one."""
    if "initial_delay" in settings.model_fields_set and settings.initial_delay > settings.max_delay:
        raise ValueError(
            "initial_delay is longer than max_delay: no wait would be as long as it says"
        )


class RetrySpec(StrictModel):
    """Configure retries of a failed call; delays double from `initial_delay` up to `max_delay`."""

    attempts: Annotated[int, Field(ge=1, le=20)] = 2
    retry_on: list[
        Literal["transient", "rate_limit", "server_error", "connection", "timeout", "worker"]
    ] = ["transient"]
    initial_delay: Duration = 0.5
    max_delay: Duration = 30.0

    @model_validator(mode="after")
    def _check_delays(self) -> RetrySpec:
        check_delays(self)
        return self


class BudgetSpec(StrictModel):
    """Limit the spending of one scope in one period (UTC), for each user, tenant, ..."""

    scope: Literal["run", "session", "user", "tenant", "template", "global"]
    usd: Annotated[float | None, Field(gt=0, le=1_000_000_000)] = None
    tokens: Count | None = None
    per: Literal["hour", "day", "month", "total"] = "total"
    only: Annotated[str | None, Field(description="The one template or tenant it applies to.")] = (
        None
    )
    tenant: Annotated[
        str | None,
        Field(description="The one tenant it applies to; for tenants, users and sessions."),
    ] = None
    user: Annotated[str | None, Field(description="The one user of that tenant it applies to.")] = (
        None
    )
    warn_at: list[Annotated[float, Field(gt=0, le=1)]] = [0.8]

    @model_validator(mode="after")
    def _check_budget(self) -> BudgetSpec:
        if self.usd is None and self.tokens is None:
            raise ValueError("give usd, tokens or both")
        if self.scope == "run" and self.per != "total":
            raise ValueError("the budget of a run has no period")
        if (fault := fault_of_names(self.scope, self.only, self.tenant, self.user)) is not None:
            raise ValueError(fault)
        return self


class CostSpec(StrictModel):
    """Budgets of this agent, and how it spends."""

    budgets: list[BudgetSpec] = []
    on_exhausted: Annotated[
        Literal["stop", "pause"],
        Field(description="'pause' ends a call that has a session as interrupted."),
    ] = "stop"
    unknown_price: Literal["refuse", "allow"] = "refuse"
    max_output_tokens: Annotated[
        Count, Field(description="Output limit of model calls without their own.")
    ] = 8192
    min_output_tokens: Count = 64
    slab_calls: Annotated[
        int, Field(ge=1, le=100, description="Model calls that one reservation covers.")
    ] = 1
    hold_ttl: Duration = 900.0


class AuthSpec(StrictModel):
    """Require further scopes of a caller, and restrict the roles of their messages."""

    require: list[Annotated[str, Field(min_length=1, max_length=200)]] = []
    roles: Annotated[
        list[Literal["user", "assistant", "tool", "system", "remove"]],
        Field(
            min_length=1,
            description="Roles of messages that callers may send; `remove` is RemoveMessage.",
        ),
    ] = ["user", "assistant", "tool"]


class AtOnceSpec(StrictModel):
    """Limit concurrent calls for each user, tenant, ..., or combination of them."""

    calls: Count
    per: Annotated[
        list[Literal["user", "tenant", "key", "template", "session", "global"]], Field(min_length=1)
    ] = ["global"]


class ConcurrencySpec(StrictModel):
    """How many calls run at once, and how long another one waits."""

    limits: list[AtOnceSpec] = []
    wait: Annotated[
        Duration | None,
        Field(description="How long a call waits for a slot; by default it is refused at once."),
    ] = None


class LoggingSpec(StrictModel):
    """Configure the log of a call beside its outcome."""

    content: Annotated[bool, Field(description="Log question and answer, redacted.")] = False


class RuntimeSpec(StrictModel):
    """The onion around the whole call."""

    pipeline: Annotated[list[str] | None, Field(description="Layers by name, outermost first.")] = (
        None
    )
    timeout: TimeoutSpec = TimeoutSpec()
    limits: LimitsSpec = LimitsSpec()
    retry: RetrySpec = RetrySpec()
    auth: AuthSpec = AuthSpec()
    rate_limits: Annotated[
        list[RateText], Field(description="'60/minute per user', '5 per 10 seconds'")
    ] = []
    concurrency: ConcurrencySpec = ConcurrencySpec()
    logging: LoggingSpec = LoggingSpec()
    cost: CostSpec = CostSpec()
    durability: Annotated[
        Literal["sync", "async", "exit"],
        Field(description="When a session's checkpoints are written."),
    ] = "sync"
