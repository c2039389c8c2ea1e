"""How a call can fail."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, Literal

from agent_runtime.errors.base import AgentRuntimeError


class CallError(AgentRuntimeError):
    """Report a failed call with its `run_id`, the `usage` until then, and `cost_usd`."""

    code = "call_failed"
    layer: ClassVar[str] = ""
    """Which layer refuses a call with this error, if one does."""

    def __init__(self, message: str) -> None:
        from agent_runtime.types import Usage

        super().__init__(message)
        self.run_id = ""
        self.usage = Usage()

    @property
    def cost_usd(self) -> Decimal | None:
        """Return the failed call's cost in USD, or None when unknown."""
        return self.usage.cost_usd


class AgentFailed(CallError):
    """The agent raised; the original exception is `__cause__`."""

    code = "agent_failed"


class ProviderError(AgentFailed):
    """Report a failed model provider.

    `status` is its HTTP status, or None without an answer. `retry_after_s` is the provider's
    requested delay in seconds, or None.
    """

    code = "provider_error"

    def __init__(
        self, message: str, *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(message)


class McpServerFailed(AgentFailed):
    """An MCP server cannot be opened, or its session ended during a call; `server` names it."""

    code = "mcp_server_failed"

    def __init__(self, server: str, reason: str) -> None:
        self.server = server
        super().__init__(f"the MCP server '{server}' failed: {reason}")


class CallTimeout(CallError):
    """Report an exceeded time limit: `scope` names it, `timeout_s` is its length in seconds."""

    code = "timeout"

    def __init__(self, scope: Literal["run", "idle", "model_call"], timeout_s: float) -> None:
        self.scope = scope
        self.timeout_s = timeout_s
        super().__init__(f"the {scope} timeout of {timeout_s:g} s passed")


class LimitExceeded(CallError):
    """A limit of the run refused the next step, before it was taken.

    `limit` is its name, `maximum` its value.

    With a session the run can be continued from its checkpoint.
    """

    code = "limit_exceeded"

    def __init__(self, limit: str, maximum: int, detail: str = "") -> None:
        self.limit = limit
        self.maximum = maximum
        super().__init__(
            f"the run reached its limit of {maximum} {limit}{': ' + detail if detail else ''}"
        )


class ToolLoop(LimitExceeded):
    """Report that the model repeated a tool call with the same arguments too often."""

    code = "tool_loop"


class CallCancelled(CallError):
    """The runtime cancelled the call while its reader was still reading."""

    code = "cancelled"


class CallDrained(CallError):
    """Report that a shutdown stopped the call at a checkpoint.

    Call the session again with input None to continue.
    """

    code = "drained"


class SessionBusy(CallError):
    """Another turn of the session runs (`reject`), or too many wait (`enqueue`)."""

    code = "session_busy"
    layer = "session"


class StaleWriter(CallError):
    """The turn lost its session.

    Its lease ran out and another writer came, or the head of the session moved.
    """

    code = "stale_writer"


class BudgetExceeded(CallError):
    """Report that a budget is too small for the next model call, which was not sent.

    `account` is the budget (`tenant=acme/day=2026-11-21`, or `run`), `spent_usd`, `held_usd` and
    `limit_usd` are USD, `spent_tokens` and `limit_tokens` tokens; a limit of neither kind is None.
    `pauses`: with a session the call ends as interrupted instead, and can be resumed after the
    budget was raised.
    """

    code = "budget_exceeded"
    layer = "cost"

    def __init__(
        self,
        account: str,
        spent_usd: Decimal,
        held_usd: Decimal,
        limit_usd: Decimal | None,
        spent_tokens: int,
        limit_tokens: int | None,
        *,
        pauses: bool = False,
    ) -> None:
        self.account = account
        self.spent_usd = spent_usd
        self.held_usd = held_usd
        self.limit_usd = limit_usd
        self.spent_tokens = spent_tokens
        self.limit_tokens = limit_tokens
        self.pauses = pauses
        usd_limit_text = "" if limit_usd is None else f" of {limit_usd:f}"
        token_limit_text = "" if limit_tokens is None else f" of {limit_tokens}"
        super().__init__(
            f"the budget '{account}' has too little left for another model call: "
            f"{spent_usd:f}{usd_limit_text} USD and "
            f"{spent_tokens}{token_limit_text} tokens are spent, {held_usd:f} USD is held by calls "
            "under way"
        )


class BudgetUnavailable(CallError):
    """Report that the ledger failed, so nothing was sent; `__cause__` is the store's error."""

    code = "budget_unavailable"
    layer = "cost"


class PriceUnknown(CallError):
    """Report that a budget in USD met a model of unknown price; nothing was sent."""

    code = "price_unknown"
    layer = "cost"

    def __init__(self, provider: str, model: str) -> None:
        self.provider = provider
        self.model = model
        super().__init__(
            f"the price of '{provider}:{model}' is not known, and the call has a budget in USD: "
            "add it to the prices, "
            "or allow models without a price (unknown_price: allow)"
        )


class RateLimited(CallError):
    """Report that a rate limit or concurrency limit refused the call before it started.

    `limit` is the configured limit, `retry_after_s` the seconds until a retry makes sense.
    """

    code = "rate_limited"
    layer = "rate_limit"

    def __init__(self, limit: str, retry_after_s: float) -> None:
        self.limit = limit
        self.retry_after_s = retry_after_s
        super().__init__(f"the limit '{limit}' is reached; try again in {retry_after_s:.3g} s")
