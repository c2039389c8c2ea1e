"""Contain exceptions of an agent's functions: one beyond Exception fails its own run only.

LangChain and LangGraph run functions in separate tasks, and asyncio propagates SystemExit and
KeyboardInterrupt of any task out of the event loop. No caller can catch that, so the functions
themselves are wrapped.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import (
    RunnableAssign,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase, RunnableEachBase
from langgraph._internal._runnable import RunnableCallable
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel
from langgraph.pregel._read import DEFAULT_BOUND
from langgraph.pregel._write import ChannelWrite

from agent_runtime.errors.user_code import as_user_exception
from agent_runtime.orchestration.answer_bounds import enforce_answer_limits, is_model_node
from agent_runtime.run.gated_tool import gated_tool
from agent_runtime.run.idempotency import IDEMPOTENT
from agent_runtime.run.state import GATED_TAG


def contain_exceptions(function: Any) -> Any:
    """Return a wrapped function. Sync, async and generator functions keep their kind."""
    if function is None or getattr(function, "__agent_runtime_guarded__", False):
        return function
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return function  # read by its caller, in the caller's own task
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    )
    check = enforce_answer_limits if is_model_node(function) else _identity
    wrapper = _contain_async(function, check) if is_async else _contain_sync(function, check)
    wrapper.__agent_runtime_guarded__ = True  # type: ignore[attr-defined]
    return wrapper


def _identity(returned: Any) -> Any:
    return returned


def _contain_async(function: Callable[..., Any], check: Callable[[Any], Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return check(await function(*args, **kwargs))
        except BaseException as error:
            if (failure := as_user_exception(error)) is error:
                raise
            raise failure from error

    return call


def _contain_sync(function: Callable[..., Any], check: Callable[[Any], Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return check(function(*args, **kwargs))
        except BaseException as error:
            if (failure := as_user_exception(error)) is error:
                raise
            raise failure from error

    return call


def with_boundaries(runnable: Any) -> Any:
    """Return a copy of an agent with wrapped functions.

    A graph's nodes and routers, a chain's steps.

    Subgraphs and nested chains are included; a Runnable of another class stays as it is.
    """
    if isinstance(runnable, Pregel):
        return copy_graph(
            runnable,
            nodes={name: _node_with_boundaries(node) for name, node in runnable.nodes.items()},
        )
    if isinstance(runnable, ToolNode):
        return _gate_tool_node(runnable)
    if isinstance(runnable, ChannelWrite):  # LangGraph's own code
        return runnable
    if isinstance(runnable, RunnableCallable | RunnableLambda):
        contained_copy = copy.copy(runnable)
        for name in ("func", "afunc"):
            if getattr(runnable, name, None) is not None:
                setattr(contained_copy, name, contain_exceptions(getattr(runnable, name)))
        return contained_copy
    if isinstance(runnable, RunnableSequence):
        return runnable.model_copy(
            update={
                "first": with_boundaries(runnable.first),
                "middle": [with_boundaries(step) for step in runnable.middle],
                "last": with_boundaries(runnable.last),
            }
        )
    if isinstance(runnable, RunnableParallel):
        steps = {name: with_boundaries(step) for name, step in runnable.steps__.items()}
        return runnable.model_copy(update={"steps__": steps})
    if isinstance(runnable, RunnableBindingBase | RunnableEachBase):
        return runnable.model_copy(update={"bound": with_boundaries(runnable.bound)})
    if isinstance(runnable, RunnableAssign):
        return runnable.model_copy(update={"mapper": with_boundaries(runnable.mapper)})
    if isinstance(runnable, RunnableWithFallbacks):
        fallbacks = [with_boundaries(fallback) for fallback in runnable.fallbacks]
        return runnable.model_copy(
            update={"runnable": with_boundaries(runnable.runnable), "fallbacks": fallbacks}
        )
    if isinstance(runnable, RunnableBranch):
        branches = [
            (with_boundaries(condition), with_boundaries(step))
            for condition, step in runnable.branches
        ]
        return runnable.model_copy(
            update={"branches": branches, "default": with_boundaries(runnable.default)}
        )
    return runnable


def copy_graph(graph: Pregel[Any, Any, Any, Any], **changes: Any) -> Pregel[Any, Any, Any, Any]:
    """Return a copy of a graph with these attributes, complete where LangGraph's is not.

    The mappers make version 2's values of a state that is a Pydantic model or a dataclass. The list
    of the classes that a checkpoint may hold is taken, too.
    """
    graph_copy = graph.copy(changes)
    for name in ("_output_mapper", "_state_mapper", "_serde_allowlist"):
        if name in graph.__dict__:
            setattr(graph_copy, name, graph.__dict__[name])
    return graph_copy


def _gate_tool_node(node: ToolNode) -> ToolNode:
    """Return a copy whose tools report to their run, like a template's.

    Limits, and the record of started effects, then apply to custom graphs, too.
    """
    gated_copy: Any = copy.copy(node)
    gated_copy._tools_by_name = {
        name: gated_tool(tool) for name, tool in node.tools_by_name.items()
    }
    gated_copy.func = contain_exceptions(gated_copy._func)
    gated_copy.afunc = contain_exceptions(gated_copy._afunc)
    # Each call is a separate task, and so are these hooks around it.
    gated_copy._wrap_tool_call = contain_exceptions(gated_copy._wrap_tool_call)
    gated_copy._awrap_tool_call = contain_exceptions(gated_copy._awrap_tool_call)
    return gated_copy  # type: ignore[no-any-return]


def recorded_tool_names(graph: Any) -> set[str]:
    """Return the tools of a graph whose calls a session records before they start."""
    nodes = [node.bound for node in graph.nodes.values() if isinstance(node.bound, ToolNode)]
    return {
        name
        for node in nodes
        for name, tool in node.tools_by_name.items()
        if GATED_TAG in (tool.tags or ()) and not (tool.metadata or {}).get(IDEMPOTENT)
    }


def _node_with_boundaries(node: Any) -> Any:
    # LangGraph compares its own pass-through by identity: a copy of it would be one more traced
    # step in every run.
    bound = node.bound if node.bound is DEFAULT_BOUND else with_boundaries(node.bound)
    return node.copy(
        {"bound": bound, "writers": [with_boundaries(writer) for writer in node.writers]}
    )
