"""Serve one job in the application: model calls, tools' permits, checkpoints, within its run."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from agent_runtime.checkpoints.operations import FENCING_TOKEN_KEY
from agent_runtime.errors import SessionNotFound
from agent_runtime.remote.exceptions import deserialize_exception, serialize_exception
from agent_runtime.remote.frames import dumps, loads
from agent_runtime.remote.remote_model import serialize_chunk
from agent_runtime.run.gate import gate_of
from agent_runtime.run.model_call import ModelCall
from agent_runtime.run.request import ModelRequest
from agent_runtime.run.state import Run, ToolCall, current_tool
from agent_runtime.types import AgentContext

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from agent_runtime.remote.host_resources import HostResources
    from agent_runtime.remote.link import Link

MAX_LISTED_CHECKPOINTS = 100


class HostService:
    """Answers a job's requests, each in its own task and in the context of its run."""

    def __init__(self, resources: HostResources, link: Link, run: Run) -> None:
        self._resources = resources
        self._link = link
        self._run = run
        self._context = contextvars.copy_context()
        self._answer_tasks: dict[int, asyncio.Task[None]] = {}
        self._open_tools: dict[int, ToolCall] = {}
        self._open_models: dict[int, ModelCall] = {}
        self.raised_errors: dict[int, BaseException] = {}
        """Exceptions that were raised here and told to the worker.

        When they come back, they are themselves again.
        """

    # -- messages

    def start_call(self, number: int, method: str, data: bytes, tool_call_id: str | None) -> None:
        """Begin to answer a call."""
        context = self._context.copy()
        context.run(current_tool.set, tool_call_id)
        task = asyncio.get_running_loop().create_task(
            self._answer(number, method, data), context=context
        )
        self._answer_tasks[number] = task
        task.add_done_callback(lambda _: self._answer_tasks.pop(number, None))

    def cancel_call(self, number: int) -> None:
        """Cancel an answer that the worker no longer waits for."""
        if (task := self._answer_tasks.get(number)) is not None:
            task.cancel()

    def handle_notification(self, method: str, data: bytes) -> None:
        """Handle a message that needs no answer."""
        getattr(self, f"_on_{method}")(*loads(data))

    async def close(self, error: BaseException) -> None:
        """Stop all answers, and settle open calls."""
        tasks = list(self._answer_tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for model_call in self._open_models.values():
            model_call.abort(error)
        for tool_call in self._open_tools.values():
            tool_call.abort(error)
        self._open_models.clear()
        self._open_tools.clear()

    async def _answer(self, number: int, method: str, data: bytes) -> None:
        try:
            response = getattr(self, f"_do_{method}")(*loads(data))
            if isinstance(response, AsyncIterator):
                await self._send_parts(number, response)
                answer = dumps(None)
            else:
                answer = dumps(await response)
            self._link.send("reply", number, True, answer)
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # by us: there is no waiter
            self.raised_errors[number] = error
            self._link.send("reply", number, False, dumps(serialize_exception(error, ref=number)))

    async def _send_parts(self, number: int, parts: AsyncIterator[Any]) -> None:
        async with aclosing(cast("Any", parts)):
            async for part in parts:
                self._link.send("part", number, part)
                await self._link.wait_writable()

    # -- models

    async def _do_model(
        self, key: int, messages: Any, stop: Any, tools: bytes | None, kwargs: Any
    ) -> Any:
        return await self._resources.bound_model(key, tools, kwargs).ainvoke(messages, stop=stop)

    async def _do_model_stream(
        self, key: int, messages: Any, stop: Any, tools: bytes | None, kwargs: Any
    ) -> AsyncIterator[Any]:
        async with aclosing(
            self._resources.bound_model(key, tools, kwargs).astream(messages, stop=stop)
        ) as chunks:
            async for chunk in chunks:
                yield serialize_chunk(chunk)

    async def _do_open_model(
        self, number: int, model: str, provider: str, messages: Any, kwargs: Any
    ) -> None:
        self._open_models[number] = await gate_of(self._run).aopen(
            ModelRequest(self._run, model, provider, messages, kwargs)
        )

    def _on_model_chunk(self, number: int, message: Any) -> None:
        if (call := self._open_models.get(number)) is not None:
            call.chunk(message)

    def _on_model_end(self, number: int, message: Any) -> None:
        if (call := self._open_models.pop(number, None)) is not None:
            call.end(message)

    def _on_model_abort(self, number: int, failure: Any) -> None:
        if (call := self._open_models.pop(number, None)) is not None:
            call.abort(deserialize_exception(failure, self.raised_errors))

    # -- tools and agents

    async def _do_check_calls(self, _number: int, count: int) -> None:
        self._run.check_tool_calls(count)

    async def _do_open_tool(self, number: int, name: str, args: Any, call_id: str | None) -> None:
        self._open_tools[number] = self._run.start_tool_call(name, args, call_id)

    def _on_tool_end(self, number: int, output: Any) -> None:
        if (call := self._open_tools.pop(number, None)) is not None:
            call.end(output)

    def _on_tool_abort(self, number: int, failure: Any) -> None:
        if (call := self._open_tools.pop(number, None)) is not None:
            call.abort(deserialize_exception(failure, self.raised_errors))

    async def _do_tool(self, key: int, arguments: Any) -> Any:
        tool: Any = self._resources.tools[key]
        answer = await tool.call(arguments)  # counted in the worker, where the model requested it
        return answer if tool.response_format == "content_and_artifact" else (answer, None)

    async def _do_agent(self, key: int, request: Any) -> str:
        call = AgentContext(request, deadline=self._run.context.deadline)
        return (await self._resources.agents[key].execute(call)).output

    async def _do_store(self, name: str, ops: Any) -> Any:
        return await self._resources.store(name).abatch(ops)

    # -- the session

    def _with_fencing_token(self, config: RunnableConfig) -> RunnableConfig:
        """Return the config with the turn's fencing token.

        Raises SessionNotFound for other threads.
        """
        context = self._run.context
        thread_id = context.session_id if context.turn is None else context.turn.thread
        configurable = config["configurable"]
        if configurable.get("thread_id") != thread_id:
            raise SessionNotFound(str(configurable.get("thread_id")))
        fencing_entry = (
            {} if context.turn is None else {FENCING_TOKEN_KEY: context.turn.fencing_token}
        )
        return cast("RunnableConfig", {**config, "configurable": {**configurable, **fencing_entry}})

    async def _do_saver_get(self, config: RunnableConfig) -> Any:
        return _to_worker_checkpoint(
            await self._resources.saver.aget_tuple(self._with_fencing_token(config))
        )

    async def _do_saver_put(
        self, config: RunnableConfig, checkpoint: Any, metadata: Any, versions: Any
    ) -> Any:
        return _without_fencing_token(
            await self._resources.saver.aput(
                self._with_fencing_token(config), checkpoint, metadata, versions
            )
        )

    async def _do_saver_writes(
        self, config: RunnableConfig, writes: Any, task_id: str, task_path: str
    ) -> None:
        await self._resources.saver.aput_writes(
            self._with_fencing_token(config), writes, task_id, task_path
        )

    async def _do_saver_list(
        self, config: RunnableConfig, metadata_filter: Any, before: Any, limit: int | None
    ) -> Any:
        effective_limit = (
            MAX_LISTED_CHECKPOINTS if limit is None else min(limit, MAX_LISTED_CHECKPOINTS)
        )
        checkpoint_tuples = self._resources.saver.alist(
            self._with_fencing_token(config),
            filter=metadata_filter,
            before=before,
            limit=effective_limit,
        )
        return [
            _to_worker_checkpoint(checkpoint_tuple) async for checkpoint_tuple in checkpoint_tuples
        ]

    async def _do_turn(self, method: str, *args: Any) -> Any:
        if method not in ("tool_started", "tool_ended", "tool_failed", "tool_results", "settled"):
            raise AttributeError(method)
        return await getattr(self._run.context.turn, method)(*args)

    def _on_turn_begins(self) -> None:
        if self._run.context.turn is not None:
            self._run.context.turn.mark_running()


def _without_fencing_token(config: Any) -> Any:
    configurable = config["configurable"]
    return {
        "configurable": {
            name: value for name, value in configurable.items() if name != FENCING_TOKEN_KEY
        }
    }


def _to_worker_checkpoint(checkpoint_tuple: Any) -> Any:
    if checkpoint_tuple is None:
        return None
    parent = (
        None
        if checkpoint_tuple.parent_config is None
        else _without_fencing_token(checkpoint_tuple.parent_config)
    )
    return checkpoint_tuple._replace(
        config=_without_fencing_token(checkpoint_tuple.config), parent_config=parent
    )
