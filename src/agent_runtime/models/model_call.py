"""One model call, from its admission to its settlement."""

from __future__ import annotations

import time
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import AIMessage, BaseMessage, message_chunk_to_message
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.messages.utils import count_tokens_approximately
from langgraph.errors import GraphBubbleUp

from agent_runtime.models.run import LEDGER
from agent_runtime.monitoring.ledger import MICRO, NOTHING, Amount, Spend, SpendLabels
from agent_runtime.types import Usage
from agent_runtime.usage import TOKEN_COUNTS

if TYPE_CHECKING:
    from agent_runtime.models.provider_limiter import Place
    from agent_runtime.models.request import ModelRequest
    from agent_runtime.monitoring.holds import Draw
    from agent_runtime.monitoring.prices import PriceTable
    from agent_runtime.monitoring.purse import Purse

CHARS_PER_TOKEN = 4
"""The usual rule of thumb for English; used only where a provider sends no figures, and marked `estimated`."""
MAX_PLAUSIBLE_TOKENS = 50_000_000
"""More than any context window: a count above it is no count."""


class ModelCall:
    """One admitted model call. Exactly one of `end` and `abort` settles it; later ones do nothing."""

    __slots__ = (
        "_answer",
        "_began",
        "_chars",
        "_draw",
        "_first_token_s",
        "_headers",
        "_messages",
        "_place",
        "_prices",
        "_requested",
        "_started_s",
        "_tokens",
        "_usage",
        "call_id",
        "model",
        "provider",
        "run",
        "settled",
    )

    def __init__(
        self, request: ModelRequest, number: int, prices: PriceTable, draw: Draw | None, place: Place | None = None
    ) -> None:
        self.run, self.model, self.provider = request.run, request.model, request.provider
        self._messages, self._requested = request.messages, request.model
        self._prices, self._draw, self._place = prices, draw, place
        self._headers: dict[str, str] | None = None
        self._chars, self._usage, self.settled = 0, cast("UsageMetadata | None", None), False
        self._began, self._first_token_s = False, cast("float | None", None)
        self._answer: Any = None  # a stream's chunks so far, where content is recorded
        self._started_s, self._tokens = time.perf_counter(), self.run.recorder.wants_tokens
        self.call_id = f"{self.run.context.run_id}:{number}"
        data = {"messages": self._messages} if self.run.recorder.content else {}
        self.run.record("llm_start", self.model, self.call_id, data)

    def chunk(self, message: BaseMessage) -> None:
        """Count one streamed chunk, so that an aborted stream can be settled."""
        content = message.content
        text = content if type(content) is str else str(message.text)
        if not self._began:
            self._began, self._first_token_s = True, time.perf_counter() - self._started_s
        if message.response_metadata:
            self._take_headers(message)
        self._chars += len(text) or _silent_chars(message)
        if self._tokens and text:
            self.run.recorder.token(text, self.run.context.run_id, self.call_id)
        if (usage := getattr(message, "usage_metadata", None)) is not None:
            self._usage = add_usage(self._usage, usage)
        if self.run.recorder.content:
            self._answer = message if self._answer is None else self._answer + message

    def end(self, message: BaseMessage | None = None) -> None:
        """Settle a call that succeeded; `message` is the whole answer, or None when it was streamed."""
        if message is not None:
            self._take_headers(message)
            self._usage = getattr(message, "usage_metadata", None)
            self._chars = len(str(message.text)) + _tool_call_chars(message)
            name = message.response_metadata.get("model_name")
            self.model = name if isinstance(name, str) and name else self.model
        answer = message if message is not None or self._answer is None else message_chunk_to_message(self._answer)
        if self._place is not None:
            self._place.leave(headers=self._headers)
        self._settle("llm_end", {"message": answer} if self.run.recorder.content and answer is not None else {})

    def abort(self, error: BaseException) -> None:
        """Settle a call that failed or was cut.

        A provider that answered with an error bills nothing, so a call that streamed nothing and failed by
        itself is free; one that was cut (cancel, timeout, a connection lost in mid-stream) is estimated.
        """
        self.run.context.progress.model_error = error
        if self._place is not None:
            self._place.leave(error)
        timed_out = "Timeout" in type(error).__name__  # ours, asyncio's and each SDK's own
        if not (timed_out or self._began or not isinstance(error, Exception)):
            if not self.settled and not isinstance(error, GraphBubbleUp):
                self.settled = True
                self._free()
                self._record("llm_error", self._failure(error))
            return
        self._settle("llm_error", self._failure(error), whole=False)

    def _take_headers(self, message: BaseMessage) -> None:
        """Keep the provider's headers for its limits; they do not belong into a conversation."""
        headers = message.response_metadata.pop("headers", None)
        if isinstance(headers, dict):
            self._headers = headers

    def _failure(self, error: BaseException) -> dict[str, Any]:
        said = {"message": str(error)} if self.run.recorder.content else {}
        return {"error": type(error).__name__, **said}

    def _settle(self, kind: str, data: dict[str, Any], *, whole: bool = True) -> None:
        if self.settled:
            return
        self.settled = True
        usage, estimated = self._usage, False
        if usage is None or not whole or not believable(usage, bool(self._messages), self._chars):
            usage, estimated = self._estimate(usage), True
        cost = self._cost_usd(usage)
        with LEDGER:
            for run in self.run.lineage:
                _add(run.context.usage, usage, cost, self._prices.version, estimated=estimated)
        ours = Usage()
        _add(ours, usage, cost, self._prices.version, estimated=estimated)
        if (purse := self.run.purse) is not None:
            purse.end(self._draw, *self._spent(purse, ours))
        self._record(kind, {**_shown(ours), "provider": self.provider, "first_token_s": self._first_token_s, **data})

    def _cost_usd(self, usage: UsageMetadata) -> Decimal | None:
        price = self._prices.price(self.provider, self.model) or self._prices.price(self.provider, self._requested)
        return None if price is None else price.cost_usd(usage)

    def _spent(self, purse: Purse, ours: Usage) -> tuple[Amount, Spend]:
        """What the ledger is told: unknown costs are charged as they were held, which is the worst case."""
        held = 0 if self._draw is None else self._draw.granted.micro_usd
        cost = ours.cost_usd
        micro_usd = held if cost is None else int((cost * MICRO).to_integral_value(ROUND_CEILING))
        tenant, user, template, _ = purse.labels
        spend = Spend(
            SpendLabels(tenant, user, template, f"{self.provider}:{self._requested}"),
            1,
            ours.input_tokens,
            ours.output_tokens,
            ours.cache_read_tokens,
            ours.cache_write_tokens,
            ours.reasoning_tokens,
            ours.audio_tokens,
            0 if cost is None else micro_usd,
            int(ours.estimated),
            int(cost is None),
        )
        return Amount(micro_usd, ours.total_tokens), spend

    def _free(self) -> None:
        if self.run.purse is not None and self._draw is not None:
            self.run.purse.end(self._draw, NOTHING, None)

    def _estimate(self, seen: UsageMetadata | None) -> UsageMetadata:
        # A stream's first chunk may already carry the input's count (Anthropic): never go below what was seen.
        seen = seen if seen is not None and plausible(seen) else None
        inputs = max(count_tokens_approximately(self._messages), seen["input_tokens"] if seen else 0)
        outputs = max(-(-self._chars // CHARS_PER_TOKEN), seen["output_tokens"] if seen else 0)
        return UsageMetadata(input_tokens=inputs, output_tokens=outputs, total_tokens=inputs + outputs)

    def _record(self, kind: str, data: dict[str, Any]) -> None:
        self.run.record(kind, self.model, self.call_id, data, self._started_s)


def _shown(ours: Usage) -> dict[str, Any]:
    """A model call's usage as its event has it: both totals, and what else there was."""
    counts = {name: count for name in TOKEN_COUNTS[2:] if (count := getattr(ours, name))}
    cost = None if ours.cost_usd is None else format(ours.cost_usd, "f")
    shown = {"input_tokens": ours.input_tokens, "output_tokens": ours.output_tokens, **counts}
    return {**shown, "estimated": ours.estimated, "cost_usd": cost}


def plausible(usage: UsageMetadata) -> bool:
    """Whether a provider's counts can be counts at all."""
    counts = usage["input_tokens"], usage["output_tokens"]
    return all(isinstance(n, int) and 0 <= n <= MAX_PLAUSIBLE_TOKENS for n in counts)


def believable(usage: UsageMetadata, asked: bool, chars: int) -> bool:
    """Whether they fit what was sent and what came: nobody bills nothing for something."""
    return (
        plausible(usage) and not (asked and usage["input_tokens"] == 0) and not (chars and not usage["output_tokens"])
    )


def _add(ledger: Usage, usage: UsageMetadata, cost_usd: Decimal | None, price_table: str, *, estimated: bool) -> None:
    inputs, outputs = usage.get("input_token_details") or {}, usage.get("output_token_details") or {}
    ledger.input_tokens += usage["input_tokens"]
    ledger.output_tokens += usage["output_tokens"]
    ledger.cache_read_tokens += inputs.get("cache_read") or 0
    ledger.cache_write_tokens += inputs.get("cache_creation") or 0
    ledger.reasoning_tokens += outputs.get("reasoning") or 0
    ledger.audio_tokens += (inputs.get("audio") or 0) + (outputs.get("audio") or 0)
    ledger.price_table = price_table
    ledger.estimated |= estimated
    ledger.add_cost(cost_usd)


def _silent_chars(message: BaseMessage) -> int:
    """Characters of a chunk that are billed but are no text: tool-call arguments and reasoning."""
    calls = sum(len(c["args"] or "") for c in getattr(message, "tool_call_chunks", ()))
    blocks = message.content if isinstance(message.content, list) else ()
    return calls + sum(len(str(b.get("reasoning") or b.get("thinking") or "")) for b in blocks if isinstance(b, dict))


def _tool_call_chars(message: BaseMessage) -> int:
    return sum(len(str(c["args"])) for c in message.tool_calls) if isinstance(message, AIMessage) else 0
