"""A tool that reports every call to the run it is made in."""

from __future__ import annotations

import threading
from functools import lru_cache, wraps
from typing import Any

from langchain_core.tools import BaseTool

from agent_runtime.models.callback_gate import with_callback_gate
from agent_runtime.models.run import GATED_TAG, ToolCall, current_run
from agent_runtime.tools.effects import once


def gated_tool(tool: BaseTool) -> BaseTool:
    """A copy of `tool` that passes the run's limits before it starts and is counted while it runs.

    Models that it calls inside reach the gate through callbacks. The copy's class is a subclass of the tool's
    own with the same name; outside a run it behaves as the tool itself.
    """
    if GATED_TAG in (tool.tags or ()):
        return tool
    copy = tool.model_copy(update={"tags": [*(tool.tags or ()), GATED_TAG]})
    copy.__class__ = _gated_class(type(tool))
    return copy


@lru_cache(maxsize=256)
def _gated_class(cls: type[BaseTool]) -> type[BaseTool]:
    methods = {"run": _run_method(cls), "arun": _arun_method(cls), "_run": _thread_method(cls)}
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {**methods, **names})


def _open(tool: BaseTool, tool_input: Any, kwargs: dict[str, Any]) -> ToolCall | None:
    run = current_run.get()
    if run is None:
        return None
    call = run.open_tool(tool.name, tool_input, kwargs.get("tool_call_id"))
    kwargs["callbacks"] = with_callback_gate(kwargs.get("callbacks"))
    return call


def _run_method(cls: type[BaseTool]) -> Any:
    inner = cls.run

    def run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        if (call := _open(self, tool_input, kwargs)) is None:
            return inner(self, tool_input, *args, **kwargs)
        try:
            output = inner(self, tool_input, *args, **kwargs)
        except BaseException as error:
            call.abort(error)
            raise
        call.end(output)
        return output

    return run


def _arun_method(cls: type[BaseTool]) -> Any:
    inner = cls.arun

    async def arun(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        if (call := _open(self, tool_input, kwargs)) is None:
            return await inner(self, tool_input, *args, **kwargs)
        try:
            output = await once(self, tool_input, kwargs, lambda: inner(self, tool_input, *args, **kwargs))
        except BaseException as error:
            call.abort(error)
            raise
        call.end(output)
        return output

    return arun


def _thread_method(cls: type[BaseTool]) -> Any:
    inner = cls._run

    @wraps(inner)  # LangChain reads the signature of `_run`
    def _run(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        run = current_run.get()
        if run is None:
            return inner(self, *args, **kwargs)
        # A cancel returns at once, this thread goes on: the run counts the ones it leaves behind.
        thread = threading.get_ident()
        for each in run.lineage:
            each.threads.add(thread)
        try:
            return inner(self, *args, **kwargs)
        finally:
            for each in run.lineage:
                each.threads.discard(thread)

    return _run
