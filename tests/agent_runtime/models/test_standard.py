"""LangChain's own tests of chat models, for the two that come with this package."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from agent_runtime.models.offline import OfflineChatModel
from agent_runtime.testing import ScriptedChatModel, say


def script(messages: list[BaseMessage]) -> Any:
    return say("Hello, this is what the script says.")


class Offline:
    """What the tests ask of the offline model."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return OfflineChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {}


class Scripted:
    """What the tests ask of the scripted model."""

    has_tool_calling = False
    has_structured_output = False

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ScriptedChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"script": script}


class TestOfflineUnit(Offline, ChatModelUnitTests):
    pass


class TestOffline(Offline, ChatModelIntegrationTests):
    pass


class TestScriptedUnit(Scripted, ChatModelUnitTests):
    pass


class TestScripted(Scripted, ChatModelIntegrationTests):
    pass
