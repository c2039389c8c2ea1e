"""A tool that reports every call to the run it is made in."""

from __future__ import annotations

import threading
from functools import lru_cache, wraps
from typing import Any

from langchain_core.tools import BaseTool

from agent_runtime.models.callback_gate import with_callback_gate
from agent_runtime.models.run import GATED_TAG, current_run


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
    inner_run, inner_arun, inner_thread = cls.run, cls.arun, cls._run

    def run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        current = current_run.get()
        if current is None:
            return inner_run(self, tool_input, *args, **kwargs)
        call = current.open_tool(self.name, tool_input, kwargs.get("tool_call_id"))
        kwargs["callbacks"] = with_callback_gate(kwargs.get("callbacks"))
        try:
            output = inner_run(self, tool_input, *args, **kwargs)
        except BaseException as error:
            call.error(error)
            raise
        call.end(output)
        return output

    async def arun(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        current = current_run.get()
        if current is None:
            return await inner_arun(self, tool_input, *args, **kwargs)
        call = current.open_tool(self.name, tool_input, kwargs.get("tool_call_id"))
        kwargs["callbacks"] = with_callback_gate(kwargs.get("callbacks"))
        try:
            output = await inner_arun(self, tool_input, *args, **kwargs)
        except BaseException as error:
            call.error(error)
            raise
        call.end(output)
        return output

    @wraps(inner_thread)  # LangChain reads the signature of `_run`
    def _run(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        current = current_run.get()
        if current is None:
            return inner_thread(self, *args, **kwargs)
        # A cancel returns at once, this thread goes on: the run counts the ones it leaves behind.
        thread = threading.get_ident()
        current.threads.add(thread)
        try:
            return inner_thread(self, *args, **kwargs)
        finally:
            current.threads.discard(thread)

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {"run": run, "arun": arun, "_run": _run, **names})
