"""The callback route to the gate, for models and tools that the factory did not build."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, Callbacks
from langchain_core.outputs import LLMResult
from langchain_core.runnables.config import merge_configs

from agent_runtime.cancel_watch import CancelWatch
from agent_runtime.monitoring.callback_handler import message_of
from agent_runtime.providers.answers import no_message, settle_failure
from agent_runtime.run.gate import gate_of
from agent_runtime.run.model_call import ModelCall
from agent_runtime.run.request import ModelRequest
from agent_runtime.run.state import GATED_TAG, REPLAYED_TAG, Run, block_live_models, current_run


class CallbackGate(BaseCallbackHandler):
    """Report model and tool calls to the current run; a refusal raised here prevents their start.

    A gated model or tool carries `GATED_TAG` and is skipped. It costs 6-9 % of a turn, so it is
    attached only around agents whose models are not ours, and inside tools, which may hide a model
    of their own.
    """

    run_inline = True  # in the task of the call: that is where `current_run` is set
    raise_error = True

    def on_chat_model_start(  # noqa: D102
        self, serialized: Any, messages: list[list[Any]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        run = current_run.get()
        if run is None or GATED_TAG in (kwargs.get("tags") or ()):
            return
        if (block_model := block_live_models.get()) is not None and REPLAYED_TAG not in (
            kwargs.get("tags") or ()
        ):
            block_model(str(kwargs.get("name") or "a model"))
        metadata = kwargs.get("metadata") or {}
        model = str(metadata.get("ls_model_name") or kwargs.get("name") or "unknown")
        provider = str(metadata.get("ls_provider") or "unknown")
        # LangChain does not await handlers of this kind, so the ledger is called blocking, and
        # output cannot be limited.
        request = ModelRequest(
            run, model, provider, messages[0] if messages else [], dict(kwargs.get("options") or {})
        )
        call = gate_of(run).open(request)
        call.cancel_watch = CancelWatch()
        run.open_calls[run_id] = call

    def on_llm_start(  # noqa: D102
        self, serialized: Any, prompts: list[str], *, run_id: UUID, **kwargs: Any
    ) -> None:
        from langchain_core.messages import HumanMessage

        self.on_chat_model_start(
            serialized, [[HumanMessage(p) for p in prompts]], run_id=run_id, **kwargs
        )

    def on_llm_new_token(  # noqa: D102
        self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any
    ) -> None:
        run = current_run.get()
        message = getattr(chunk, "message", None)
        call = None if run is None else run.open_calls.get(run_id)
        if message is not None and isinstance(call, ModelCall):
            call.chunk(message, getattr(chunk, "generation_info", None))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        if (call := self._pop_call(run_id)) is None:
            return
        message = message_of(response)
        metadata = dict(response.llm_output or {})
        if message is None and isinstance(call, ModelCall) and not any(response.generations):
            settle_failure(call, no_message(call, metadata), has_answered=True)
        call.end(message, metadata)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        if (call := self._pop_call(run_id)) is not None:
            call.abort(error)

    def on_tool_start(  # noqa: D102
        self, serialized: Any, input_str: str, *, run_id: UUID, **kwargs: Any
    ) -> None:
        run = current_run.get()
        if run is None or GATED_TAG in (kwargs.get("tags") or ()):
            return
        inputs = kwargs.get("inputs")
        args = input_str if inputs is None else inputs
        if _is_worker_thread():
            for ancestor in run.ancestry:
                ancestor.running_threads.add(run_id)
        run.open_calls[run_id] = run.start_tool_call(
            (serialized or {}).get("name", "tool"), args, kwargs.get("tool_call_id")
        )

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        self._unregister_thread(run_id)
        if (call := self._pop_call(run_id)) is not None:
            call.end(output)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        self._unregister_thread(run_id)
        if (call := self._pop_call(run_id)) is not None:
            call.abort(error)

    @staticmethod
    def _unregister_thread(run_id: UUID) -> None:
        run = current_run.get()
        for ancestor in () if run is None else run.ancestry:
            ancestor.running_threads.discard(run_id)

    @staticmethod
    def _pop_call(run_id: UUID) -> Any:
        run: Run | None = current_run.get()
        return None if run is None else run.open_calls.pop(run_id, None)


def _is_worker_thread() -> bool:
    """Return whether this is a worker thread of a sync tool, which cannot be stopped."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def _is_not_refusal(record: logging.LogRecord) -> bool:
    # LangChain logs a handler's exception as its fault; a refusal has its own error.
    args = record.args
    return not (
        isinstance(args, tuple)
        and args[:1] == (CallbackGate.__name__,)
        and "Refused(" in str(args[-1])
    )


logging.getLogger("langchain_core.callbacks.manager").addFilter(_is_not_refusal)

CALLBACK_GATE = CallbackGate()
"""One for the process: it keeps nothing, the current run does."""


def with_callback_gate(callbacks: Callbacks) -> Callbacks:
    """Return `callbacks` with the gate added for all inner calls, without changing them."""
    if not callbacks:
        return [CALLBACK_GATE]
    return merge_configs({"callbacks": callbacks}, {"callbacks": [CALLBACK_GATE]})["callbacks"]
