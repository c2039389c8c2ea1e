"""A tool that reports every call to the run it is made in."""

from __future__ import annotations

import copy
import threading
from functools import lru_cache, wraps
from typing import Any

from langchain_core.tools import BaseTool

from agent_runtime.errors.user_code import as_user_exception
from agent_runtime.run.callback_gate import with_callback_gate
from agent_runtime.run.idempotency import run_once
from agent_runtime.run.result_bound import truncate_result
from agent_runtime.run.state import GATED_TAG, ToolCall, current_run, current_tool
from agent_runtime.run.tool_result import UnusableResult, check_result
from agent_runtime.run.unreadable_arguments import unreadable_answer


def gated_tool(tool: BaseTool) -> BaseTool:
    """Return a copy of `tool` that is checked against the run's limits and counted.

    Models that it calls inside reach the gate through callbacks. The copy's class is a subclass of
    the tool's own with the same name; outside a run it behaves as the tool itself.
    """
    if GATED_TAG in (tool.tags or ()):
        return tool
    gated_copy = tool.model_copy(update={"tags": [*(tool.tags or ()), GATED_TAG]})
    gated_copy.__class__ = _gated_class(type(tool))
    return gated_copy


@lru_cache(maxsize=256)
def _gated_class(cls: type[BaseTool]) -> type[BaseTool]:
    # LangChain runs `_arun` in a separate task, so exceptions must be caught inside it.
    methods = {
        "run": _run_method(cls), "arun": _arun_method(cls), "_run": _thread_method(cls),
        "_arun": _task_method(cls)
    }  # fmt: skip
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {**methods, **names})


def model_arguments(tool: BaseTool, tool_input: Any) -> Any:
    """Return the model's arguments without those that LangChain injects."""
    if not isinstance(tool_input, dict):
        return tool_input
    names = tool.__dict__.get("_agent_runtime_sent")
    if names is None:
        schema: Any = tool.tool_call_schema
        fields = schema.get("properties", {}) if isinstance(schema, dict) else schema.model_fields
        names = tool.__dict__["_agent_runtime_sent"] = frozenset(fields)
    return {name: copy.deepcopy(value) for name, value in tool_input.items() if name in names}


def _start_call(tool: BaseTool, tool_input: Any, kwargs: dict[str, Any]) -> ToolCall | None:
    run = current_run.get()
    if run is None:
        return None
    arguments = model_arguments(tool, tool_input) if run.recorder.content else tool_input
    call = run.start_tool_call(tool.name, arguments, kwargs.get("tool_call_id"))
    kwargs["callbacks"] = with_callback_gate(kwargs.get("callbacks"))
    return call


def _run_method(cls: type[BaseTool]) -> Any:
    inner = cls.run

    def run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        if (
            answer := unreadable_answer(self.name, tool_input, kwargs.get("tool_call_id"))
        ) is not None:
            return answer
        if (call := _start_call(self, tool_input, kwargs)) is None:
            return inner(self, tool_input, *args, **kwargs)
        token = current_tool.set(kwargs.get("tool_call_id"))
        try:
            output = _run_checked(inner, self, tool_input, args, kwargs)
        except BaseException as error:
            current_tool.reset(token)
            call.abort(error)
            if (failure := as_user_exception(error)) is error:
                raise
            raise failure from error
        current_tool.reset(token)
        call.end(output)
        return output

    return run


def _arun_method(cls: type[BaseTool]) -> Any:
    inner = cls.arun

    async def arun(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        if (
            answer := unreadable_answer(self.name, tool_input, kwargs.get("tool_call_id"))
        ) is not None:
            return answer
        if (call := _start_call(self, tool_input, kwargs)) is None:
            return await inner(self, tool_input, *args, **kwargs)
        token = current_tool.set(kwargs.get("tool_call_id"))
        try:
            output = await run_once(
                self,
                tool_input,
                kwargs,
                lambda: _arun_checked(inner, self, tool_input, args, kwargs),
            )
        except BaseException as error:
            current_tool.reset(token)
            call.abort(error)
            if (failure := as_user_exception(error)) is error:
                raise
            raise failure from error
        current_tool.reset(token)
        call.end(output)
        return output

    return arun


async def _arun_checked(
    inner: Any, tool: BaseTool, tool_input: Any, args: Any, kwargs: dict[str, Any]
) -> Any:
    try:
        return truncate_result(
            tool, await inner(tool, tool_input, *args, **kwargs)
        )  # texts of errors, too
    except UnusableResult as unusable:
        return _message_for_model(unusable, tool, kwargs)


def _run_checked(
    inner: Any, tool: BaseTool, tool_input: Any, args: Any, kwargs: dict[str, Any]
) -> Any:
    try:
        return truncate_result(tool, inner(tool, tool_input, *args, **kwargs))
    except UnusableResult as unusable:
        return _message_for_model(unusable, tool, kwargs)


def _message_for_model(unusable: UnusableResult, tool: BaseTool, kwargs: dict[str, Any]) -> Any:
    """Return the error message that a model reads; raise the error where the caller is code."""
    if (call_id := kwargs.get("tool_call_id")) is None:
        raise unusable
    return unusable.to_message(tool, call_id)


def _task_method(cls: type[BaseTool]) -> Any:
    inner = cls._arun

    @wraps(inner)  # LangChain reads the signature of `_arun`
    async def _arun(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        try:
            return check_result(self, await inner(self, *args, **kwargs))
        except BaseException as error:
            if (failure := as_user_exception(error)) is error:
                raise
            raise failure from error

    return _arun


def _thread_method(cls: type[BaseTool]) -> Any:
    inner = cls._run

    @wraps(inner)  # LangChain reads the signature of `_run`
    def _run(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        run = current_run.get()
        if run is None:
            return inner(self, *args, **kwargs)
        # A cancel returns at once while this thread continues: the run counts leaked ones.
        thread_id = threading.get_ident()
        for ancestor in run.ancestry:
            ancestor.running_threads.add(thread_id)
        try:
            return check_result(self, inner(self, *args, **kwargs))
        finally:
            for ancestor in run.ancestry:
                ancestor.running_threads.discard(thread_id)

    return _run
