"""ModelGate: the one place before and after each model call of a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.messages.utils import count_tokens_approximately
from langgraph.errors import GraphBubbleUp

from agent_runtime.errors import ConfigurationError, LimitExceeded
from agent_runtime.models.run import LEDGER
from agent_runtime.monitoring.prices import PRICES

if TYPE_CHECKING:
    from decimal import Decimal

    from agent_runtime.models.run import Run
    from agent_runtime.types import Usage

CHARS_PER_TOKEN = 4
"""The usual rule of thumb for English; used only where a provider sends no figures, and marked `estimated`."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Hard limits of one run; None is no limit. Nested agents count towards the run around them.

    `max_steps` counts LangGraph supersteps, `tokens` input plus output tokens, `tool_loop` how often the
    same tool may be called with the same arguments. Each is checked before the next step is taken, so the
    tokens of the last call may go over. Raises ConfigurationError for a value below 1.
    """

    max_steps: int | None = None
    model_calls: int | None = None
    tool_calls: int | None = None
    tokens: int | None = None
    tool_loop: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"limit {name} must be at least 1, not {value}")


NO_LIMITS = RunLimits()


class ModelGate:
    """Admits model calls and settles what they used. One per executor; it keeps no state of a call."""

    def __init__(self, limits: RunLimits | None = None, *, model_call_timeout_s: float | None = None) -> None:
        self.limits = limits or NO_LIMITS
        self.model_call_timeout_s = model_call_timeout_s

    def open(self, run: Run, model: str, provider: str, messages: list[BaseMessage]) -> ModelCall:
        """Admit one model call, or raise `Refused` (which stops the run, resumable) before anything is sent."""
        with LEDGER:
            run.check_refusal()
            for each in run.lineage:
                each.gate._check(each)
            for each in run.lineage:
                each.context.usage.model_calls += 1
            number = run.context.usage.model_calls
        return ModelCall(run, model, provider, messages, number)

    def _check(self, run: Run) -> None:
        limits, used = self.limits, run.context.usage
        if limits.model_calls is not None and used.model_calls >= limits.model_calls:
            raise run.refuse(LimitExceeded("model_calls", limits.model_calls))
        if limits.tokens is not None and used.total_tokens >= limits.tokens:
            raise run.refuse(LimitExceeded("tokens", limits.tokens, f"{used.total_tokens} used"))


class ModelCall:
    """One admitted model call. Exactly one of `end` and `abort` settles it; later ones do nothing."""

    __slots__ = (
        "_began",
        "_chars",
        "_messages",
        "_started_s",
        "_tokens",
        "_usage",
        "call_id",
        "model",
        "provider",
        "run",
        "settled",
    )

    def __init__(self, run: Run, model: str, provider: str, messages: list[BaseMessage], number: int) -> None:
        self.run, self.model, self.provider, self._messages = run, model, provider, messages
        self._chars, self._usage, self.settled = 0, cast("UsageMetadata | None", None), False
        self._began = False
        self._started_s, self._tokens = time.perf_counter(), run.recorder.wants_tokens
        self.call_id = f"{run.context.run_id}:{number}"
        run.record("llm_start", model, self.call_id, {"messages": messages} if run.recorder.content else {})

    def chunk(self, message: BaseMessage) -> None:
        """Count one streamed chunk, so that an aborted stream can be settled."""
        content = message.content
        text = content if type(content) is str else str(message.text)
        self._began = True
        self._chars += len(text) or _silent_chars(message)
        if self._tokens and text:
            self.run.recorder.token(text, self.run.context.run_id, self.call_id)
        if (usage := getattr(message, "usage_metadata", None)) is not None:
            self._usage = add_usage(self._usage, usage)

    def end(self, message: BaseMessage | None = None) -> None:
        """Settle a call that succeeded; `message` is the whole answer, or None when it was streamed."""
        if message is not None:
            self._usage = getattr(message, "usage_metadata", None)
            self._chars = len(str(message.text)) + _tool_call_chars(message)
            name = message.response_metadata.get("model_name")
            self.model = name if isinstance(name, str) and name else self.model
        self._settle("llm_end", {"message": message} if self.run.recorder.content and message is not None else {})

    def abort(self, error: BaseException) -> None:
        """Settle a call that failed or was cut.

        A provider that answered with an error bills nothing, so a call that streamed nothing and failed by
        itself is free; one that was cut (cancel, timeout, a connection lost in mid-stream) is estimated.
        """
        self.run.context.progress.model_error = error
        timed_out = "Timeout" in type(error).__name__  # ours, asyncio's and each SDK's own
        if not (timed_out or self._began or not isinstance(error, Exception)):
            if not self.settled and not isinstance(error, GraphBubbleUp):
                self.settled = True
                self._record("llm_error", {"error": type(error).__name__})
            return
        self._settle("llm_error", {"error": type(error).__name__}, whole=False)

    def _settle(self, kind: str, data: dict[str, Any], *, whole: bool = True) -> None:
        if self.settled:
            return
        self.settled = True
        usage, estimated = self._usage, False
        if usage is None or not whole:
            usage, estimated = self._estimate(usage), True
        price = PRICES.price(self.provider, self.model)
        cost = None if price is None else price.cost_usd(usage)
        with LEDGER:
            for run in self.run.lineage:
                _add(run.context.usage, usage, cost, estimated=estimated)
        counts = {"input_tokens": usage["input_tokens"], "output_tokens": usage["output_tokens"]}
        self._record(kind, {**counts, "estimated": estimated, **data})

    def _estimate(self, seen: UsageMetadata | None) -> UsageMetadata:
        # A stream's first chunk may already carry the input's count (Anthropic): never go below what was seen.
        inputs = max(count_tokens_approximately(self._messages), seen["input_tokens"] if seen else 0)
        outputs = max(-(-self._chars // CHARS_PER_TOKEN), seen["output_tokens"] if seen else 0)
        return UsageMetadata(input_tokens=inputs, output_tokens=outputs, total_tokens=inputs + outputs)

    def _record(self, kind: str, data: dict[str, Any]) -> None:
        self.run.record(kind, self.model, self.call_id, data, self._started_s)


def _add(ledger: Usage, usage: UsageMetadata, cost_usd: Decimal | None, *, estimated: bool) -> None:
    inputs, outputs = usage.get("input_token_details") or {}, usage.get("output_token_details") or {}
    ledger.input_tokens += usage["input_tokens"]
    ledger.output_tokens += usage["output_tokens"]
    ledger.cache_read_tokens += inputs.get("cache_read", 0)
    ledger.cache_write_tokens += inputs.get("cache_creation", 0)
    ledger.reasoning_tokens += outputs.get("reasoning", 0)
    ledger.estimated |= estimated
    ledger.add_cost(cost_usd)


def _silent_chars(message: BaseMessage) -> int:
    """Characters of a chunk that are billed but are no text: tool-call arguments and reasoning."""
    calls = sum(len(c["args"] or "") for c in getattr(message, "tool_call_chunks", ()))
    blocks = message.content if isinstance(message.content, list) else ()
    return calls + sum(len(str(b.get("reasoning") or b.get("thinking") or "")) for b in blocks if isinstance(b, dict))


def _tool_call_chars(message: BaseMessage) -> int:
    return sum(len(str(c["args"])) for c in message.tool_calls) if isinstance(message, AIMessage) else 0
