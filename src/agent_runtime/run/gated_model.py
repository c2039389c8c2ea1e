"""A chat model that reports every call to the gate of the run it is made in."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import aclosing, contextmanager, suppress
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from agent_runtime.budgets.prices import preload_price
from agent_runtime.cancel_watch import CancelWatch
from agent_runtime.errors import CallTimeout
from agent_runtime.providers.answers import (
    HttpAnswer,
    current_answer,
    empty_stream,
    message_of_answer,
    settle_failure,
)
from agent_runtime.run.gate import gate_of
from agent_runtime.run.model_call import ModelCall
from agent_runtime.run.request import ModelRequest
from agent_runtime.run.state import GATED_TAG, REPLAYED_TAG, block_live_models, current_run

M = TypeVar("M", bound=BaseChatModel)
T = TypeVar("T")


def gated(model: M) -> M:
    """Return a copy of `model` whose calls pass the ModelGate of the current run.

    Outside a run it behaves as the model itself. The copy's class is a subclass of the model's own
    with the same name, so `isinstance` checks, `profile`, `bind_tools` and traces work as before. A
    gated model is returned unchanged.
    """
    if GATED_TAG in (model.tags or ()):
        return model
    params = model._get_ls_params()
    preload_price(
        str(params.get("ls_provider") or "unknown"), str(params.get("ls_model_name") or "")
    )
    gated_copy = model.model_copy(update={"tags": [*(model.tags or ()), GATED_TAG]})
    gated_copy.__class__ = cast("type[M]", _gated_class(type(model)))
    return gated_copy


@lru_cache(maxsize=256)
def _gated_class(cls: type[BaseChatModel]) -> type[BaseChatModel]:
    # LangChain asks whether a class overrides `_stream` and `_astream` to decide whether a model
    # can stream: those two are wrapped only where the model really has them.
    methods: dict[str, Any] = {"_generate": _generate(cls), "_agenerate": _agenerate(cls)}
    if cls._stream is not BaseChatModel._stream:
        methods["_stream"] = _stream(cls)
    if cls._astream is not BaseChatModel._astream:
        methods["_astream"] = _astream(cls)
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {**methods, **names})


def _build_request(
    model: BaseChatModel, messages: list[BaseMessage], kwargs: dict[str, Any]
) -> ModelRequest | None:
    run = current_run.get()
    # Some providers implement one of the four methods by another (`_agenerate` by `_astream`): only
    # the outer one counts. An async stream sets no variable for each token: whether one of its
    # steps is running is seen on it.
    if run is None or current_answer.get() is not None or run.in_stream_step():
        return None
    if (block_model := block_live_models.get()) is not None and REPLAYED_TAG not in (
        model.tags or ()
    ):
        block_model(type(model).__name__)
    request = ModelRequest.of(run, model, messages, kwargs)
    if run.call_budget is not None and run.call_budget.is_limited:
        request.find_output_limit(model)
    return request


def _timeout_s(call: ModelCall | None) -> float | None:
    run = current_run.get()
    return None if run is None or call is None else run.gate.model_call_timeout_s


def _generate(cls: type[BaseChatModel]) -> Any:
    inner = cls._generate

    def _generate(
        self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> ChatResult:
        if (request := _build_request(self, messages, kwargs)) is None:
            return inner(self, messages, *args, **kwargs)
        call = gate_of(request.run).open(request)
        answer = HttpAnswer()
        token = current_answer.set(answer)
        try:
            generate = partial(inner, request.with_output_limit(self), messages, *args, **kwargs)
            result = _run_blocking(generate, call, _timeout_s(call))
            message, metadata = message_of_answer(result, call)
        except BaseException as error:  # noqa: BLE001 - settled, and raised again
            settle_failure(call, error, has_answered=answer.has_arrived)
        finally:
            current_answer.reset(token)
        call.end(message, metadata)
        return result

    return _generate


def _run_blocking(step: Callable[[], T], call: ModelCall, remaining_s: float | None) -> T:
    """Run one blocking step of a model call within `remaining_s` seconds; raises CallTimeout.

    A thread cannot be stopped: the provider's client continues in one that the run counts as
    leaked.
    """
    if remaining_s is None:
        return step()
    answer: Future[T] = Future()
    context = contextvars.copy_context()
    ancestry = call.run.ancestry

    def work() -> None:
        try:
            answer.set_result(context.run(step))
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            answer.set_exception(error)
        for run in ancestry:
            run.running_threads.discard(answer)

    threading.Thread(target=work, daemon=True, name="agent_runtime model call").start()
    try:
        return answer.result(max(remaining_s, 0))
    except TimeoutError as error:
        for run in ancestry:
            run.running_threads.add(answer)
        if answer.done():  # the provider's own client timed out, or it was a tie
            for run in ancestry:
                run.running_threads.discard(answer)
            return answer.result()
        raise CallTimeout(
            "model_call", call.run.gate.model_call_timeout_s or remaining_s
        ) from error


def _agenerate(cls: type[BaseChatModel]) -> Any:
    inner = cls._agenerate

    async def _agenerate(
        self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> ChatResult:
        if (request := _build_request(self, messages, kwargs)) is None:
            return await inner(self, messages, *args, **kwargs)
        call = await gate_of(request.run).aopen(request)
        timeout_s = _timeout_s(call)
        answer = HttpAnswer()
        token = current_answer.set(answer)
        awaitable = inner(request.with_output_limit(self), messages, *args, **kwargs)
        try:
            result = await (
                awaitable if timeout_s is None else _with_timeout(awaitable, timeout_s, timeout_s)
            )
            message, metadata = message_of_answer(result, call)
        except BaseException as error:  # noqa: BLE001 - settled, and raised again
            settle_failure(call, error, has_answered=answer.has_arrived)
        finally:
            current_answer.reset(token)
        call.end(message, metadata)
        return result

    return _agenerate


async def _with_timeout(awaitable: Any, remaining_s: float, timeout_s: float) -> Any:
    try:
        async with asyncio.timeout(remaining_s) as scope:
            return await awaitable
    except TimeoutError as error:
        if not scope.expired():  # the provider's own client timed out
            raise
        raise CallTimeout("model_call", timeout_s) from error


def _stream(cls: type[BaseChatModel]) -> Any:
    inner = cls._stream

    def _stream(
        self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        request = _build_request(self, messages, kwargs)
        call = None if request is None else gate_of(request.run).open(request)
        limited_model = self if request is None else request.with_output_limit(self)
        remaining_s = _timeout_s(call)
        with _closing(
            _open_stream(partial(inner, limited_model, messages, *args, **kwargs), call)
        ) as chunks:
            if call is None:
                yield from chunks
                return
            call.run.open_streams[call] = (
                None,
                None,
            )  # in a thread: it can be settled from outside, not closed
            has_chunks = False
            answer = HttpAnswer()
            try:
                while True:
                    started = time.monotonic()
                    chunk = _next_chunk(chunks, call, remaining_s, answer)
                    if chunk is None:
                        break
                    has_chunks = True
                    remaining_s = (
                        None if remaining_s is None else remaining_s - (time.monotonic() - started)
                    )
                    call.chunk(chunk.message, chunk.generation_info)
                    yield chunk
                if not has_chunks:
                    raise empty_stream()
            except BaseException as error:  # noqa: BLE001 - settled, and raised again
                settle_failure(call, error, has_answered=answer.has_arrived)
            finally:
                call.run.open_streams.pop(call, None)
            call.end()

    return _stream


def _open_stream(open_stream: Callable[[], Any], call: ModelCall | None) -> Any:
    """Open a provider's stream; a failure settles its call."""
    try:
        return open_stream()
    except BaseException as error:
        if call is not None:
            call.abort(error)
        raise


@contextmanager
def _closing(chunks: Any) -> Iterator[Iterator[ChatGenerationChunk]]:
    try:
        yield chunks
    finally:
        with suppress(
            ValueError
        ):  # a step that timed out still runs in its thread: it cannot be closed
            chunks.close()


def _next_chunk(
    chunks: Iterator[ChatGenerationChunk],
    call: ModelCall,
    remaining_s: float | None,
    answer: HttpAnswer,
) -> ChatGenerationChunk | None:
    token = current_answer.set(answer)
    try:
        return _run_blocking(lambda: next(chunks, None), call, remaining_s)
    finally:
        current_answer.reset(token)


def _astream(cls: type[BaseChatModel]) -> Any:
    inner = cls._astream

    async def _astream(
        self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = _build_request(self, messages, kwargs)
        call = None if request is None else await gate_of(request.run).aopen(request)
        limited_model = self if request is None else request.with_output_limit(self)
        timeout_s = _timeout_s(call)
        async with aclosing(
            _open_stream(partial(inner, limited_model, messages, *args, **kwargs), call)
        ) as chunks:
            if call is None:
                async for chunk in chunks:
                    yield chunk
                return
            source = chunks if timeout_s is None else _with_chunk_timeout(chunks, timeout_s)
            task = asyncio.current_task()
            call.run.open_streams[call] = (chunks, task)
            call.cancel_watch = CancelWatch(task)
            answer = HttpAnswer()
            try:
                # The request is sent in the first step; between steps the context is the reader's.
                token = current_answer.set(answer)
                try:
                    first = await anext(source, None)
                finally:
                    current_answer.reset(token)
                if first is None:
                    raise empty_stream()
                call.chunk(first.message, first.generation_info)
                yield first
                async for chunk in source:
                    call.chunk(chunk.message, chunk.generation_info)
                    yield chunk
            except BaseException as error:  # noqa: BLE001 - settled, and raised again
                settle_failure(call, error, has_answered=answer.has_arrived)
            finally:
                call.run.open_streams.pop(call, None)
            call.end()

    return _astream


async def _with_chunk_timeout(
    chunks: AsyncIterator[ChatGenerationChunk], timeout_s: float
) -> AsyncIterator[ChatGenerationChunk]:
    # Only the provider's time counts: the clock stops while the consumer has the chunk.
    remaining_s = timeout_s
    clock = asyncio.get_running_loop().time
    while True:
        started = clock()
        try:
            chunk = await _with_timeout(anext(chunks), remaining_s, timeout_s)
        except StopAsyncIteration:
            return
        remaining_s -= clock() - started
        yield chunk
