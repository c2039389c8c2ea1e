"""What the benchmarks share: an instant model, paired measurement, and the table with its
verdicts."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

USAGE = UsageMetadata(input_tokens=10, output_tokens=5, total_tokens=15)


class InstantModel(BaseChatModel):
    """Answers at once, without I/O.

    Streams `tokens` pieces and awaits once for each, as a socket would.
    """

    tokens: int = 1

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "instant", "ls_model_name": "instant", "ls_model_type": "chat"}

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[])

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(
            generations=[ChatGeneration(message=AIMessage("hello", usage_metadata=USAGE))]
        )

    async def _agenerate(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> ChatResult:
        return self._generate(messages)

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for _ in range(self.tokens):
            await asyncio.sleep(0)
            yield ChatGenerationChunk(message=AIMessageChunk(content="word "))
        yield ChatGenerationChunk(
            message=AIMessageChunk(content="", usage_metadata=USAGE, chunk_position="last")
        )


@dataclass
class Row:
    """One figure: what was measured, its value and unit, the bar, and the goal if there is one."""

    what: str
    value: float
    bar: float | None
    unit: str = "x"
    goal: float | None = None
    note: str = ""
    at_least: bool = False
    """The bar is a floor: more is better."""

    @property
    def missed(self) -> bool:
        return self.bar is not None and not self._meets(self.bar)

    def _meets(self, bar: float) -> bool:
        return self.value >= bar if self.at_least else self.value <= bar

    def line(self) -> str:
        verdict = "stated" if self.bar is None else "MISSED" if self.missed else "ok"
        if self.goal is not None and not self.missed:
            verdict = "ok, goal met" if self._meets(self.goal) else "ok, goal missed"
        bar = "" if self.bar is None else f"{'>=' if self.at_least else '<='} {self.bar:g}"
        goal = "" if self.goal is None else f" (goal {self.goal:g})"
        return (
            f"{self.what:<66} {self.value:>9.3f} {self.unit:<6} {bar + goal:<22} {verdict}  "
            f"{self.note}"
        ).rstrip()


Case = Callable[[], Awaitable[Any]]


async def paired(
    ours: Case, bare: Case, *, pairs: int, batch: int, prepare: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """Median over `pairs` of (CPU of ours / CPU of bare), and the median CPU microseconds of one
    bare call.

    Ours and bare alternate, and so does which of them goes first; both are warmed up before.
    `prepare` runs
    before each measured batch, outside the time.
    """
    for _ in range(20):
        prepare()
        await ours()
        await bare()
    ratios = []
    bares = []
    for index in range(pairs):
        order = (ours, bare) if index % 2 else (bare, ours)
        taken: dict[Case, float] = {}
        for case in order:
            prepare()
            started = time.process_time_ns()
            for _ in range(batch):
                await case()
            taken[case] = time.process_time_ns() - started
        ratios.append(taken[ours] / taken[bare])
        bares.append(taken[bare] / batch / 1000)
        if index % 20 == 0:
            gc.collect()
    return statistics.median(ratios), statistics.median(bares)
