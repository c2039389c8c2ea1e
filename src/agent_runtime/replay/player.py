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
from agent_runtime.replay.cassette import RecordedFailure, Tape
from agent_runtime.replay.recording import revived
from agent_runtime.run.gated_model import gated
from agent_runtime.run.gated_tool import sent_arguments
from agent_runtime.run.state import PLAYED_TAG

if TYPE_CHECKING:
    from agent_runtime.template.parts_spec import ModelSpec

_TAPE = "_agent_runtime_tape"


class ReplayChatModel(BaseChatModel):
    """Says what the model said.

    In a fork the live model is made, and asked, from the chosen step on.

    Its own answers are not streamed: how a text was cut into pieces is not recorded.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)
    model_id: str
    tape: Any
    live: Callable[[], BaseChatModel]
    llm_type: str = "replay"
    _made: BaseChatModel | None = PrivateAttr(default=None)

    @property
    def _llm_type(self) -> str:
        return self.llm_type

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        provider, _, name = self.model_id.partition(":")
        return {"ls_provider": provider, "ls_model_name": name or provider, "ls_model_type": "chat"}

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """Offer tools, as for any chat model."""
        return self.bind(replay_tools=tools, **kwargs)

    def _recorded(self, messages: list[BaseMessage]) -> ChatResult | None:
        known, answer = self.tape.answer("llm", self.model_id, messages)
        if not known:
            return None
        message = revived(answer)
        if not isinstance(message, BaseMessage):
            message = AIMessage(str(message))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _live_call(self, kwargs: dict[str, Any]) -> Any:
        model = self._made = self._made or self.live()
        tools = kwargs.pop("replay_tools", None)
        return model.bind_tools(tools, **kwargs) if tools else model.bind(**kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        found = self._recorded(messages)
        if found is None:
            message = self._live_call(kwargs).invoke(messages)
            found = ChatResult(generations=[ChatGeneration(message=message)])
        return found

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        found = self._recorded(messages)
        if found is None:
            message = await self._live_call(kwargs).ainvoke(messages)
            found = ChatResult(generations=[ChatGeneration(message=message)])
        return found


class ReplayRegistry(Registry):
    """Another registry's components, whose models and tools play a tape."""

    def __init__(self, original: Registry, tape: Tape, model: str | None = None) -> None:
        super().__init__(original.allowed_refs)
        self._original = original
        self._tape = tape
        self._live_model = model
        for table in (
            "tools",
            "models",
            "middleware",
            "keeps_answer",
            "layers",
            "workflows",
            "memories",
        ):
            setattr(self, table, getattr(original, table))

    def model(self, spec: ModelSpec) -> BaseChatModel:
        """A model that plays the tape, and looks like the one that it stands for.

        LangChain builds by its profile.
        """
        chosen = (
            spec if self._live_model is None else spec.model_copy(update={"id": self._live_model})
        )
        seen = self._looked_at(spec)
        made = ReplayChatModel(
            model_id=spec.id,
            tape=self._tape,
            live=lambda: self._original.model(chosen),
            tags=[PLAYED_TAG],
            llm_type="replay" if seen is None else seen._llm_type,
            profile=None if seen is None else seen.profile,
        )
        return gated(made)

    def _looked_at(self, spec: ModelSpec) -> BaseChatModel | None:
        """The real model, which is made but never asked; None where it cannot be made here."""
        for key in ({}, {"api_key": "replay-asks-nobody"}):
            params = spec.params.model_copy(update={"extra": {**spec.params.extra, **key}})
            try:
                return self._original.model(
                    spec.model_copy(update={"api_key": None, "params": params})
                )
            except ConfigurationError:
                continue
        return None

    def adopted(self, tool: BaseTool) -> BaseTool:
        """A tool that a middleware brings: it plays the tape too."""
        return taped(tool, self._tape)

    def tool(self, name: str, args: Mapping[str, Any]) -> BaseTool:
        """The tool, which plays the tape."""
        return taped(super().tool(name, args), self._tape)

    def ref(self, ref: str, args: Mapping[str, Any]) -> BaseTool:
        """The tool, which plays the tape."""
        return taped(super().ref(ref, args), self._tape)


def taped(tool: BaseTool, tape: Tape) -> BaseTool:
    """A copy of `tool` that answers what was recorded instead of running."""
    copy = tool.model_copy()
    copy.__class__ = _taped_class(type(tool))
    copy.metadata = {**(tool.metadata or {}), _TAPE: tape}
    return copy


@lru_cache(maxsize=256)
def _taped_class(cls: type[BaseTool]) -> type[BaseTool]:
    def run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        known, answer = _played(self, tool_input, kwargs)
        return revived(answer) if known else cls.run(self, tool_input, *args, **kwargs)

    async def arun(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        known, answer = _played(self, tool_input, kwargs)
        return revived(answer) if known else await cls.arun(self, tool_input, *args, **kwargs)

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {"run": run, "arun": arun, **names})


def _played(tool: BaseTool, tool_input: Any, kwargs: dict[str, Any]) -> tuple[bool, Any]:
    tape: Tape = (tool.metadata or {})[_TAPE]
    call_id = kwargs.get("tool_call_id")
    try:
        return tape.answer("tool", tool.name, sent_arguments(tool, tool_input), call_id)
    except RecordedFailure as failure:
        if type(failure).__name__ == "ValidationError":
            tool._parse_input(
                tool_input, call_id
            )  # says again what does not fit, as an error that LangChain knows
        raise
