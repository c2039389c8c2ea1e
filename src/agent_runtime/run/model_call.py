"""One model call, from its admission to its settlement."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import AIMessage, BaseMessage, message_chunk_to_message
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.messages.utils import count_tokens_approximately
from langgraph.errors import GraphBubbleUp

from agent_runtime.budgets.ledger.ledger import (
    MICROS_PER_USD,
    ZERO_AMOUNT,
    Amount,
    Spend,
    SpendLabels,
)
from agent_runtime.budgets.table_prices import DEFAULT_TIERS
from agent_runtime.budgets.token_counts import (
    TokenCounts,
    is_sent_as_text,
    parse_text_counts,
    token_counts,
)
from agent_runtime.cancel_watch import CancelWatch
from agent_runtime.errors.user_code import error_text
from agent_runtime.run.state import USAGE_LOCK
from agent_runtime.run.streamed_arguments import StreamedArguments
from agent_runtime.types import Usage
from agent_runtime.usage import TOKEN_COUNTS

if TYPE_CHECKING:
    from agent_runtime.budgets.call_budget import CallBudget
    from agent_runtime.budgets.grants import Grant
    from agent_runtime.budgets.prices import Price, PriceTable
    from agent_runtime.budgets.table_prices import Conditions
    from agent_runtime.providers.limiter import Permit
    from agent_runtime.run.request import ModelRequest

CHARS_PER_TOKEN = 4
"""The usual rule of thumb for English.

Used only where a provider sends no figures, and marked `estimated`.
"""
_CONDITION_KEYS = ("service_tier", "speed", "processing")
"""Conditions of the price in an answer's metadata or raw usage."""
_CONDITION_SOURCE_KEYS = frozenset({*_CONDITION_KEYS, "usage", "token_usage"})
_DETAIL_COUNTS = TOKEN_COUNTS[2:]


class ModelCall:
    """One admitted model call. The first `end` or `abort` settles it."""

    __slots__ = (
        "_answer",
        "_answer_chars",
        "_arguments",
        "_base_url",
        "_conditions",
        "_first_token_s",
        "_grant",
        "_has_streamed",
        "_headers",
        "_last_usage",
        "_messages",
        "_metadata",
        "_permit",
        "_prices",
        "_records_tokens",
        "_requested_model",
        "_started",
        "_started_at",
        "_usage",
        "call_id",
        "cancel_watch",
        "model",
        "provider",
        "run",
        "settled",
    )

    def __init__(
        self,
        request: ModelRequest,
        number: int,
        prices: PriceTable,
        grant: Grant | None,
        permit: Permit | None = None,
    ) -> None:
        self.run = request.run
        self.model = request.model
        self.provider = request.provider
        self._messages = request.messages
        self._requested_model = request.model
        self._prices = prices
        self._grant = grant
        self._permit = permit
        self._base_url = request.base_url
        self._conditions = request.conditions
        self._started_at = prices.clock()
        self._headers: dict[str, str] | None = None
        self._metadata: dict[str, Any] = {}
        self._last_usage: UsageMetadata | None = None
        self._answer_chars = 0
        self._usage = cast("UsageMetadata | None", None)
        self.settled = False
        self._has_streamed = False
        self._first_token_s = cast("float | None", None)
        self._arguments: StreamedArguments | None = None
        self.cancel_watch: CancelWatch | None = None
        """Watches the task that reads the stream."""
        self._answer: Any = None  # a stream's chunks so far, where content is recorded
        self._started = time.perf_counter()
        self._records_tokens = self.run.recorder.wants_tokens
        self.call_id = f"{self.run.context.run_id}:{number}"
        data = {"messages": self._messages} if self.run.recorder.content else {}
        self.run.record("llm_start", self.model, self.call_id, data)

    def chunk(self, message: BaseMessage, info: Mapping[str, Any] | None = None) -> None:
        """Count one streamed chunk, so that an aborted stream can be settled.

        `info` is the generation's metadata.

        Raises CancelledError when the reader's task was cancelled and the provider's client
        swallowed it.
        """
        content = message.content
        text = content if type(content) is str else str(message.text)
        if not self._has_streamed:
            self._has_streamed = True
            self._first_token_s = time.perf_counter() - self._started
        if message.response_metadata or info:
            self._read_metadata(message, info)
        self._answer_chars += len(text) or _non_text_chars(message)
        if self._records_tokens and text:
            self.run.recorder.token(text, self.run.context.run_id, self.call_id)
        if (usage := getattr(message, "usage_metadata", None)) is not None:
            self._usage = (
                usage
                if _is_running_total(usage, self._last_usage)
                else add_usage(self._usage, usage)
            )
            self._last_usage = usage
        if pieces := getattr(message, "tool_call_chunks", None):
            self._arguments = self._arguments or StreamedArguments()
            self._arguments.add(pieces)
        if self.run.recorder.content:
            self._answer = message if self._answer is None else self._answer + message
        if self.cancel_watch is not None:
            self.cancel_watch.check()

    def end(
        self, message: BaseMessage | None = None, info: Mapping[str, Any] | None = None
    ) -> None:
        """Settle a call that succeeded.

        `message` is the whole answer, or None when it was streamed.
        """
        if message is not None:
            self._read_metadata(message, info)
            self._usage = getattr(message, "usage_metadata", None)
            self._answer_chars = len(str(message.text)) + _tool_call_chars(message)
        if self._arguments is not None:
            self.run.record_unreadable_arguments(self._arguments)
        name = self._metadata.get("model_name") or self._metadata.get("model")
        self.model = name if isinstance(name, str) and name else self.model
        answer = (
            message
            if message is not None or self._answer is None
            else message_chunk_to_message(self._answer)
        )
        if self._permit is not None:
            self._permit.release(headers=self._headers)
        self._settle(
            "llm_end",
            {"message": answer} if self.run.recorder.content and answer is not None else {},
        )

    def abort(self, error: BaseException, *, is_answered: bool = False) -> None:
        """Settle a call that failed or was cut.

        A provider that answered with an error bills nothing, so a call that failed before its first
        chunk is free; one that was cut (cancel, timeout, a connection lost in mid-stream) is
        estimated, and so is one with an unreadable answer (`is_answered`).
        """
        self.run.context.progress.model_error = error
        if self._permit is not None:
            self._permit.release(error)
        timed_out = "Timeout" in type(error).__name__  # ours, asyncio's and each SDK's own
        if not (timed_out or is_answered or self._has_streamed or not isinstance(error, Exception)):
            if not self.settled and not isinstance(error, GraphBubbleUp):
                self.settled = True
                self._release()
                self._record("llm_error", self._failure_data(error))
            return
        self._settle("llm_error", self._failure_data(error), is_complete=False)

    def note_usage(self, usage: Any) -> None:
        """Keep the raw figures of an answer that has no message.

        They bound its estimate from below.
        """
        if isinstance(usage, dict):
            inputs = usage.get("prompt_tokens") or usage.get("input_tokens") or 0
            outputs = usage.get("completion_tokens") or usage.get("output_tokens") or 0
            if type(inputs) is int and type(outputs) is int:
                self._usage = UsageMetadata(
                    input_tokens=inputs, output_tokens=outputs, total_tokens=inputs + outputs
                )

    def _read_metadata(self, message: BaseMessage, info: Mapping[str, Any] | None) -> None:
        """Store the answer's metadata, and the provider's headers apart from the message."""
        headers = message.response_metadata.pop("headers", None)
        if isinstance(headers, dict):
            self._headers = headers
        self._metadata.update(info or {})
        self._metadata.update(message.response_metadata)

    def _failure_data(self, error: BaseException) -> dict[str, Any]:
        content_fields = {"message": error_text(error)} if self.run.recorder.content else {}
        return {"error": type(error).__name__, **content_fields}

    def _settle(self, kind: str, data: dict[str, Any], *, is_complete: bool = True) -> None:
        if self.settled:
            return
        self.settled = True
        counts = None if self._usage is None else token_counts(self._usage)
        estimated = (
            not is_complete
            or counts is None
            or not is_plausible(counts, bool(self._messages), self._answer_chars)
        )
        if estimated or counts is None:
            reported_counts = counts or (
                None if self._usage is None else token_counts(parse_text_counts(self._usage))
            )
            counts = self._estimate(reported_counts)
        price = self._price(counts)
        cost = None if price is None else price.cost_usd(counts)
        estimated |= price is not None and not price.is_exact
        estimated |= self._usage is not None and is_sent_as_text(self._usage, self._metadata)
        with USAGE_LOCK:
            for run in self.run.ancestry:
                _add_usage(
                    run.context.usage, counts, cost, self._prices.version, estimated=estimated
                )
        call_usage = Usage()
        _add_usage(call_usage, counts, cost, self._prices.version, estimated=estimated)
        if (call_budget := self.run.call_budget) is not None:
            call_budget.settle(self._grant, *self._ledger_entry(call_budget, call_usage))
        event_data = _usage_dict(call_usage)
        event_data["provider"] = self.provider
        event_data["first_token_s"] = self._first_token_s
        event_data.update(data)
        self._record(kind, event_data)

    def _price(self, counts: TokenCounts) -> Price | None:
        """Return the price of the requested model, or else of the answering one.

        An alias or a deployment has no price of its own. A priced model is not priced by its
        answer.
        """
        conditions = self._price_conditions(counts)
        price = self._price_of(self._requested_model, conditions)
        if price is None and self.model != self._requested_model:
            price = self._price_of(self.model, conditions)
        return price

    def _price_of(self, model: str, conditions: Conditions) -> Price | None:
        return self._prices.price(
            self.provider, model, conditions, self._started_at, base_url=self._base_url
        )

    def _price_conditions(self, counts: TokenCounts) -> Conditions:
        """Return the price's conditions: the answer's go before the request's."""
        if (
            not self._conditions
            and not counts.service_tier
            and self._metadata.keys().isdisjoint(_CONDITION_SOURCE_KEYS)
        ):
            return ()
        conditions = {name: value for name, value in self._conditions if value != "auto"}
        raw_usage = self._metadata.get("usage") or self._metadata.get("token_usage")
        for source in (raw_usage if isinstance(raw_usage, dict) else {}, self._metadata):
            conditions.update(
                {
                    name: source[name]
                    for name in _CONDITION_KEYS
                    if isinstance(source.get(name), str)
                }
            )
        if counts.service_tier:
            conditions["service_tier"] = counts.service_tier
        if conditions.get("service_tier") == "batch":  # Anthropic's word for it
            conditions["processing"] = conditions.pop("service_tier")
        if conditions.get("service_tier", "") in DEFAULT_TIERS:
            conditions.pop("service_tier", None)
        if conditions.get("speed") in ("standard", ""):
            del conditions["speed"]
        return tuple(sorted(conditions.items()))

    def _ledger_entry(self, call_budget: CallBudget, call_usage: Usage) -> tuple[Amount, Spend]:
        """Return the ledger's settlement; unknown costs are charged as reserved, the worst case."""
        reserved_micro_usd = 0 if self._grant is None else self._grant.granted.micro_usd
        cost = call_usage.cost_usd
        micro_usd = (
            reserved_micro_usd
            if cost is None
            else int((cost * MICROS_PER_USD).to_integral_value(ROUND_CEILING))
        )
        tenant, user, template, _ = call_budget.labels
        spend = Spend(
            SpendLabels(tenant, user, template, f"{self.provider}:{self._requested_model}"),
            1,
            call_usage.input_tokens,
            call_usage.output_tokens,
            call_usage.cache_read_tokens,
            call_usage.cache_write_tokens,
            call_usage.reasoning_tokens,
            call_usage.audio_tokens,
            0 if cost is None else micro_usd,
            int(call_usage.estimated),
            int(cost is None),
        )
        return Amount(micro_usd, call_usage.total_tokens), spend

    def _release(self) -> None:
        if self.run.call_budget is not None and self._grant is not None:
            self.run.call_budget.settle(self._grant, ZERO_AMOUNT, None)

    def _estimate(self, reported_counts: TokenCounts | None) -> TokenCounts:
        # A stream's first chunk may have the input's count (Anthropic): never go below a seen
        # count.
        inputs = max(
            count_tokens_approximately(self._messages),
            reported_counts.input if reported_counts else 0,
        )
        outputs = max(
            -(-self._answer_chars // CHARS_PER_TOKEN),
            reported_counts.output if reported_counts else 0,
        )
        return TokenCounts(inputs, outputs)

    def _record(self, kind: str, data: dict[str, Any]) -> None:
        self.run.record(kind, self.model, self.call_id, data, self._started)


def _usage_dict(call_usage: Usage) -> dict[str, Any]:
    """Return a model call's usage as its event has it: both totals, and other counts if present."""
    usage_data: dict[str, Any] = {
        "input_tokens": call_usage.input_tokens,
        "output_tokens": call_usage.output_tokens,
    }
    for name in _DETAIL_COUNTS:
        if count := getattr(call_usage, name):
            usage_data[name] = count
    usage_data["estimated"] = call_usage.estimated
    usage_data["cost_usd"] = (
        None if call_usage.cost_usd is None else format(call_usage.cost_usd, "f")
    )
    return usage_data


def _is_running_total(usage: UsageMetadata, previous_usage: UsageMetadata | None) -> bool:
    """Tell whether a chunk's usage has that of the chunk before it inside.

    Parts of a usage name the input once. Servers with continuous usage (vLLM, SGLang) repeat it on
    every chunk, with the output so far: 700 tokens of input would become 4,200.
    """
    if previous_usage is None or previous_usage["input_tokens"] == 0:
        return False
    return (
        usage["input_tokens"] >= previous_usage["input_tokens"]
        and usage["output_tokens"] >= previous_usage["output_tokens"]
    )


def is_plausible(counts: TokenCounts, has_input: bool, answer_chars: int) -> bool:
    """Return whether token counts fit request and answer: zero would bill nothing."""
    return not (has_input and counts.input == 0) and not (answer_chars and counts.output == 0)


def _add_usage(
    usage: Usage,
    counts: TokenCounts,
    cost_usd: Decimal | None,
    price_table: str,
    *,
    estimated: bool,
) -> None:
    usage.input_tokens += counts.input
    usage.output_tokens += counts.output
    usage.cache_read_tokens += counts.cache_read
    usage.cache_write_tokens += counts.cache_write
    usage.reasoning_tokens += counts.reasoning
    usage.audio_tokens += counts.input_audio + counts.output_audio
    usage.price_table = price_table
    usage.estimated |= estimated
    usage.add_cost(cost_usd)


def _non_text_chars(message: BaseMessage) -> int:
    """Count the billed characters of a chunk other than text: tool arguments and reasoning."""
    calls = sum(len(c["args"] or "") for c in getattr(message, "tool_call_chunks", ()))
    blocks = message.content if isinstance(message.content, list) else ()
    return calls + sum(
        len(str(b.get("reasoning") or b.get("thinking") or ""))
        for b in blocks
        if isinstance(b, dict)
    )


def _tool_call_chars(message: BaseMessage) -> int:
    if not isinstance(message, AIMessage) or not message.tool_calls:
        return 0
    return sum(len(str(call["args"])) for call in message.tool_calls)
