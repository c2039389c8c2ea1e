"""The agent of a replay.

Its models and tools answer from a tape, in a fork from the live ones where that ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, PrivateAttr

from agent_runtime.errors import ConfigurationError
from agent_runtime.registry import Registry
from agent_runtime.replay.cassette import Cassette, RecordedFailure
from agent_runtime.replay.recording import revive
from agent_runtime.run.gated_model import gated
from agent_runtime.run.gated_tool import model_arguments
from agent_runtime.run.state import REPLAYED_TAG

if TYPE_CHECKING:
    from agent_runtime.template.parts_spec import ModelSpec

_CASSETTE_KEY = "_agent_runtime_tape"


class ReplayChatModel(BaseChatModel):
    """Answer with recorded messages.

    In a fork the live model answers from the chosen step on, unstreamed, because the division of
    texts into chunks is not recorded.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)
    model_id: str
    cassette: Any
    create_live_model: Callable[[], BaseChatModel]
    llm_type: str = "replay"
    _live_model: BaseChatModel | None = PrivateAttr(default=None)

    @property
    def _llm_type(self) -> str:
        return self.llm_type

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        provider, _, name = self.model_id.partition(":")
        return {"ls_provider": provider, "ls_model_name": name or provider, "ls_model_type": "chat"}

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """Return the model bound to tools."""
        return self.bind(replay_tools=tools, **kwargs)

    def _recorded_result(self, messages: list[BaseMessage]) -> ChatResult | None:
        is_recorded, answer = self.cassette.answer("llm", self.model_id, messages)
        if not is_recorded:
            return None
        message = revive(answer)
        if not isinstance(message, BaseMessage):
            message = AIMessage(str(message))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _bind_live_model(self, kwargs: dict[str, Any]) -> Any:
        model = self._live_model = self._live_model or self.create_live_model()
        tools = kwargs.pop("replay_tools", None)
        return model.bind_tools(tools, **kwargs) if tools else model.bind(**kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        chat_result = self._recorded_result(messages)
        if chat_result is None:
            message = self._bind_live_model(kwargs).invoke(messages)
            chat_result = ChatResult(generations=[ChatGeneration(message=message)])
        return chat_result

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        chat_result = self._recorded_result(messages)
        if chat_result is None:
            message = await self._bind_live_model(kwargs).ainvoke(messages)
            chat_result = ChatResult(generations=[ChatGeneration(message=message)])
        return chat_result


class ReplayRegistry(Registry):
    """Wrap another registry's components, whose models and tools replay a cassette."""

    def __init__(
        self, original: Registry, cassette: Cassette, live_model: str | None = None
    ) -> None:
        super().__init__(original.allowed_refs)
        self._original = original
        self._cassette = cassette
        self._live_model = live_model
        for table in (
            "tools",
            "models",
            "middleware",
            "streams_safely",
            "layers",
            "workflows",
            "memories",
        ):
            setattr(self, table, getattr(original, table))

    def model(self, spec: ModelSpec) -> BaseChatModel:
        """Return a model that replays the cassette, with the original's profile for LangChain."""
        live_spec = (
            spec if self._live_model is None else spec.model_copy(update={"id": self._live_model})
        )
        real_model = self._try_build_model(spec)
        replay_model = ReplayChatModel(
            model_id=spec.id,
            cassette=self._cassette,
            create_live_model=lambda: self._original.model(live_spec),
            tags=[REPLAYED_TAG],
            llm_type="replay" if real_model is None else real_model._llm_type,
            profile=None if real_model is None else real_model.profile,
        )
        return gated(replay_model)

    def _try_build_model(self, spec: ModelSpec) -> BaseChatModel | None:
        """Return the real model, which is never called; None where it cannot be built."""
        for api_key_param in ({}, {"api_key": "unused-in-a-replay"}):
            params = spec.params.model_copy(
                update={"extra": {**spec.params.extra, **api_key_param}}
            )
            try:
                return self._original.model(
                    spec.model_copy(update={"api_key": None, "params": params})
                )
            except ConfigurationError:
                continue
        return None

    def wrap_middleware_tool(self, tool: BaseTool) -> BaseTool:
        """Return a middleware's tool that replays the cassette."""
        return replayed_tool(tool, self._cassette)

    def tool(self, name: str, args: Mapping[str, Any]) -> BaseTool:
        """Return a tool that replays the cassette."""
        return replayed_tool(super().tool(name, args), self._cassette)

    def ref(self, ref: str, args: Mapping[str, Any]) -> BaseTool:
        """Return a tool that replays the cassette."""
        return replayed_tool(super().ref(ref, args), self._cassette)


def replayed_tool(tool: BaseTool, cassette: Cassette) -> BaseTool:
    """Return a copy of `tool` that answers from the recording instead of running."""
    copy = tool.model_copy()
    copy.__class__ = _replayed_tool_class(type(tool))
    copy.metadata = {**(tool.metadata or {}), _CASSETTE_KEY: cassette}
    return copy


@lru_cache(maxsize=256)
def _replayed_tool_class(cls: type[BaseTool]) -> type[BaseTool]:
    def run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        is_recorded, answer = _replay_tool_call(self, tool_input, kwargs)
        return revive(answer) if is_recorded else cls.run(self, tool_input, *args, **kwargs)

    async def arun(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        is_recorded, answer = _replay_tool_call(self, tool_input, kwargs)
        return revive(answer) if is_recorded else await cls.arun(self, tool_input, *args, **kwargs)

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {"run": run, "arun": arun, **names})


def _replay_tool_call(tool: BaseTool, tool_input: Any, kwargs: dict[str, Any]) -> tuple[bool, Any]:
    cassette: Cassette = (tool.metadata or {})[_CASSETTE_KEY]
    call_id = kwargs.get("tool_call_id")
    try:
        return cassette.answer("tool", tool.name, model_arguments(tool, tool_input), call_id)
    except RecordedFailure as failure:
        if type(failure).__name__ == "ValidationError":
            tool._parse_input(
                tool_input, call_id
            )  # raises invalid arguments as an error that LangChain handles
        raise
