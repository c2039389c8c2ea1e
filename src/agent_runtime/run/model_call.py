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

from agent_runtime.budgets.ledger.ledger import MICRO, NOTHING, Amount, Spend, SpendLabels
from agent_runtime.budgets.table_prices import DEFAULT_TIERS
from agent_runtime.budgets.token_counts import TokenCounts, are_text, token_counts, with_numbers
from agent_runtime.cancel_watch import CancelWatch
from agent_runtime.errors.user_code import error_text
from agent_runtime.run.state import LEDGER
from agent_runtime.run.streamed_arguments import StreamedArguments
from agent_runtime.types import Usage
from agent_runtime.usage import TOKEN_COUNTS

if TYPE_CHECKING:
    from agent_runtime.budgets.call_budget import Purse
    from agent_runtime.budgets.prices import Price, PriceTable
    from agent_runtime.budgets.reservations import Draw
    from agent_runtime.budgets.table_prices import Conditions
    from agent_runtime.providers.limiter import Place
    from agent_runtime.run.request import ModelRequest

CHARS_PER_TOKEN = 4
"""The usual rule of thumb for English.

Used only where a provider sends no figures, and marked `estimated`.
"""
_STATED = ("service_tier", "speed", "processing")
"""What an answer may say of its price, in its metadata or in its raw usage."""
_STATED_IN = frozenset({*_STATED, "usage", "token_usage"})
_DETAILS = TOKEN_COUNTS[2:]


class ModelCall:
    """One admitted model call. The first `end` or `abort` settles it."""

    __slots__ = (
        "_answer",
        "_arguments",
        "_base_url",
        "_began",
        "_chars",
        "_conditions",
        "_draw",
        "_first_token_s",
        "_headers",
        "_last_usage",
        "_messages",
        "_metadata",
        "_place",
        "_prices",
        "_requested",
        "_started_at",
        "_started_s",
        "_tokens",
        "_usage",
        "call_id",
        "cancels",
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
        draw: Draw | None,
        place: Place | None = None,
    ) -> None:
        self.run = request.run
        self.model = request.model
        self.provider = request.provider
        self._messages = request.messages
        self._requested = request.model
        self._prices = prices
        self._draw = draw
        self._place = place
        self._base_url = request.base_url
        self._conditions = request.conditions
        self._started_at = prices.clock()
        self._headers: dict[str, str] | None = None
        self._metadata: dict[str, Any] = {}
        self._last_usage: UsageMetadata | None = None
        self._chars = 0
        self._usage = cast("UsageMetadata | None", None)
        self.settled = False
        self._began = False
        self._first_token_s = cast("float | None", None)
        self._arguments: StreamedArguments | None = None
        self.cancels: CancelWatch | None = None
        """Watches the task that reads the stream."""
        self._answer: Any = None  # a stream's chunks so far, where content is recorded
        self._started_s = time.perf_counter()
        self._tokens = self.run.recorder.wants_tokens
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
        if not self._began:
            self._began = True
            self._first_token_s = time.perf_counter() - self._started_s
        if message.response_metadata or info:
            self._read_metadata(message, info)
        self._chars += len(text) or _silent_chars(message)
        if self._tokens and text:
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
        if self.cancels is not None:
            self.cancels.check()

    def end(
        self, message: BaseMessage | None = None, info: Mapping[str, Any] | None = None
    ) -> None:
        """Settle a call that succeeded.

        `message` is the whole answer, or None when it was streamed.
        """
        if message is not None:
            self._read_metadata(message, info)
            self._usage = getattr(message, "usage_metadata", None)
            self._chars = len(str(message.text)) + _tool_call_chars(message)
        if self._arguments is not None:
            self.run.note_arguments(self._arguments)
        name = self._metadata.get("model_name") or self._metadata.get("model")
        self.model = name if isinstance(name, str) and name else self.model
        answer = (
            message
            if message is not None or self._answer is None
            else message_chunk_to_message(self._answer)
        )
        if self._place is not None:
            self._place.leave(headers=self._headers)
        self._settle(
            "llm_end",
            {"message": answer} if self.run.recorder.content and answer is not None else {},
        )

    def abort(self, error: BaseException, *, is_answered: bool = False) -> None:
        """Settle a call that failed or was cut.

        A provider that answered with an error bills nothing, so a call that streamed nothing and
        failed by itself is free; one that was cut (cancel, timeout, a connection lost in
        mid-stream) is estimated, and so is one whose answer came and cannot be read
        (`is_answered`).
        """
        self.run.context.progress.model_error = error
        if self._place is not None:
            self._place.leave(error)
        timed_out = "Timeout" in type(error).__name__  # ours, asyncio's and each SDK's own
        if not (timed_out or is_answered or self._began or not isinstance(error, Exception)):
            if not self.settled and not isinstance(error, GraphBubbleUp):
                self.settled = True
                self._free()
                self._record("llm_error", self._failure(error))
            return
        self._settle("llm_error", self._failure(error), whole=False)

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

    def _failure(self, error: BaseException) -> dict[str, Any]:
        said = {"message": error_text(error)} if self.run.recorder.content else {}
        return {"error": type(error).__name__, **said}

    def _settle(self, kind: str, data: dict[str, Any], *, whole: bool = True) -> None:
        if self.settled:
            return
        self.settled = True
        counts = None if self._usage is None else token_counts(self._usage)
        estimated = (
            not whole or counts is None or not believable(counts, bool(self._messages), self._chars)
        )
        if estimated or counts is None:
            seen = counts or (
                None if self._usage is None else token_counts(with_numbers(self._usage))
            )
            counts = self._estimate(seen)
        price = self._price(counts)
        cost = None if price is None else price.cost_usd(counts)
        estimated |= price is not None and not price.is_exact
        estimated |= self._usage is not None and are_text(self._usage, self._metadata)
        with LEDGER:
            for run in self.run.lineage:
                _add(run.context.usage, counts, cost, self._prices.version, estimated=estimated)
        ours = Usage()
        _add(ours, counts, cost, self._prices.version, estimated=estimated)
        if (purse := self.run.purse) is not None:
            purse.end(self._draw, *self._spent(purse, ours))
        shown = _shown(ours)
        shown["provider"] = self.provider
        shown["first_token_s"] = self._first_token_s
        shown.update(data)
        self._record(kind, shown)

    def _price(self, counts: TokenCounts) -> Price | None:
        """Return the price of the requested model, or else of the answering one.

        An alias or a deployment has no price of its own. One that has is not priced by what an
        answer says.
        """
        conditions = self._stated(counts)
        price = self._price_of(self._requested, conditions)
        if price is None and self.model != self._requested:
            price = self._price_of(self.model, conditions)
        return price

    def _price_of(self, model: str, conditions: Conditions) -> Price | None:
        return self._prices.price(
            self.provider, model, conditions, self._started_at, base_url=self._base_url
        )

    def _stated(self, counts: TokenCounts) -> Conditions:
        """Return the price's conditions: the answer's go before the request's."""
        if (
            not self._conditions
            and not counts.service_tier
            and self._metadata.keys().isdisjoint(_STATED_IN)
        ):
            return ()
        stated = {name: value for name, value in self._conditions if value != "auto"}
        raw = self._metadata.get("usage") or self._metadata.get("token_usage")
        for place in (raw if isinstance(raw, dict) else {}, self._metadata):
            stated.update(
                {name: place[name] for name in _STATED if isinstance(place.get(name), str)}
            )
        if counts.service_tier:
            stated["service_tier"] = counts.service_tier
        if stated.get("service_tier") == "batch":  # Anthropic's word for it
            stated["processing"] = stated.pop("service_tier")
        if stated.get("service_tier", "") in DEFAULT_TIERS:
            stated.pop("service_tier", None)
        if stated.get("speed") in ("standard", ""):
            del stated["speed"]
        return tuple(sorted(stated.items()))

    def _spent(self, purse: Purse, ours: Usage) -> tuple[Amount, Spend]:
        """What the ledger is told.

        Unknown costs are charged as they were held, which is the worst case.
        """
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

    def _estimate(self, seen: TokenCounts | None) -> TokenCounts:
        # A stream's first chunk may already carry the input's count (Anthropic): never go below
        # what was seen.
        inputs = max(count_tokens_approximately(self._messages), seen.input if seen else 0)
        outputs = max(-(-self._chars // CHARS_PER_TOKEN), seen.output if seen else 0)
        return TokenCounts(inputs, outputs)

    def _record(self, kind: str, data: dict[str, Any]) -> None:
        self.run.record(kind, self.model, self.call_id, data, self._started_s)


def _shown(ours: Usage) -> dict[str, Any]:
    """A model call's usage as its event has it: both totals, and what else there was."""
    shown: dict[str, Any] = {"input_tokens": ours.input_tokens, "output_tokens": ours.output_tokens}
    for name in _DETAILS:
        if count := getattr(ours, name):
            shown[name] = count
    shown["estimated"] = ours.estimated
    shown["cost_usd"] = None if ours.cost_usd is None else format(ours.cost_usd, "f")
    return shown


def _is_running_total(usage: UsageMetadata, before: UsageMetadata | None) -> bool:
    """Tell whether a chunk's usage has that of the chunk before it inside.

    Parts of a usage name the input once. Servers with continuous usage (vLLM, SGLang) repeat it on
    every chunk, with the output so far: 700 tokens of input would become 4,200.
    """
    if before is None or before["input_tokens"] == 0:
        return False
    return (
        usage["input_tokens"] >= before["input_tokens"]
        and usage["output_tokens"] >= before["output_tokens"]
    )


def believable(counts: TokenCounts, asked: bool, chars: int) -> bool:
    """Tell whether token counts fit request and answer: none bills nothing."""
    return not (asked and counts.input == 0) and not (chars and counts.output == 0)


def _add(
    ledger: Usage,
    counts: TokenCounts,
    cost_usd: Decimal | None,
    price_table: str,
    *,
    estimated: bool,
) -> None:
    ledger.input_tokens += counts.input
    ledger.output_tokens += counts.output
    ledger.cache_read_tokens += counts.cache_read
    ledger.cache_write_tokens += counts.cache_write
    ledger.reasoning_tokens += counts.reasoning
    ledger.audio_tokens += counts.input_audio + counts.output_audio
    ledger.price_table = price_table
    ledger.estimated |= estimated
    ledger.add_cost(cost_usd)


def _silent_chars(message: BaseMessage) -> int:
    """Characters of a chunk that are billed but are no text: tool-call arguments and reasoning."""
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
