"""The system prompt of a template that has inputs, set for each run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import SystemMessage

from agent_runtime.run.state import current_run


class PromptMiddleware(AgentMiddleware[Any, Any]):
    """Gives the model the prompt of the current run, so that one compiled graph serves every input.

    The hooks are plain functions that return the inner awaitable: LangChain's tracing makes two
    thread hops around an `async def` one, 340 us a call.
    """

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]
    ) -> Any:
        """Set the prompt, then call the model."""
        return handler(_with_prompt(request))

    def awrap_model_call(  # type: ignore[override]  # not `async def`, see above
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> Awaitable[ModelResponse[Any]]:
        """Set the prompt, then call the model."""
        return handler(_with_prompt(request))


def _with_prompt(request: ModelRequest[Any]) -> ModelRequest[Any]:
    run = current_run.get()
    if run is None or run.prompt is None:
        return request
    return request.override(system_message=SystemMessage(run.prompt))
