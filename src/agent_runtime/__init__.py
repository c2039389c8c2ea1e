"""The production runtime for LangChain agents."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_runtime.callback_handler import AgentCallbackHandler, CallbackEvent, ExecutionSummary
    from agent_runtime.chunks import (
        Chunk,
        CustomChunk,
        Emit,
        InterruptChunk,
        PartChunk,
        ReasoningChunk,
        TextChunk,
        ToolCallChunk,
        ToolResultChunk,
    )
    from agent_runtime.errors import (
        AgentFailed,
        AgentRuntimeError,
        BudgetExceeded,
        BudgetUnavailable,
        CallCancelled,
        CallDrained,
        CallError,
        CallTimeout,
        CheckpointCorrupt,
        CheckpointVersion,
        ConfigurationError,
        Forbidden,
        InputInvalid,
        LimitExceeded,
        MissingExtra,
        PriceUnknown,
        Problem,
        ProviderError,
        RateLimited,
        ReservedKey,
        SessionBusy,
        SessionError,
        SessionGone,
        SessionIdInvalid,
        SessionNotFound,
        StaleWriter,
        StateNotSerializable,
        StoreError,
        StoreFull,
        StoreTimeout,
        StoreUnavailable,
        StreamMisuse,
        TemplateError,
        ToolLoop,
        Unauthenticated,
        UnknownComponent,
    )
    from agent_runtime.event_bus import Event, EventBus, Subscription
    from agent_runtime.factory import AgentFactory
    from agent_runtime.models.gate import ModelGate, RunLimits
    from agent_runtime.models.gated_model import gated
    from agent_runtime.monitoring import (
        Budget,
        Ledger,
        MemoryLedger,
        PriceTable,
        RedisLedger,
        SqliteLedger,
        open_ledger,
    )
    from agent_runtime.orchestration.conversation import Resume
    from agent_runtime.orchestration.executor import AgentExecutor, Timeouts
    from agent_runtime.orchestration.middleware import (
        CostTrackingMiddleware,
        LoggingMiddleware,
        Middleware,
        RetryMiddleware,
        SessionMiddleware,
        Spending,
    )
    from agent_runtime.orchestration.stream import AgentStream
    from agent_runtime.registry import Registry, tool_factory
    from agent_runtime.sessions import Session, SessionManager
    from agent_runtime.template import AgentTemplate, load_template, parse_template
    from agent_runtime.types import AgentContext, AgentResult, Handler, Principal, Usage

# Loaded at first use: `import agent_runtime` costs nothing, and the command line answers `--help` without LangChain.
_MODULES = {
    "monitoring": ("Budget", "Ledger", "MemoryLedger", "SqliteLedger", "RedisLedger", "PriceTable", "open_ledger"),
    "callback_handler": ("AgentCallbackHandler", "CallbackEvent", "ExecutionSummary"),
    "chunks": (
        *("Chunk", "CustomChunk", "Emit", "InterruptChunk", "PartChunk", "ReasoningChunk", "TextChunk"),
        *("ToolCallChunk", "ToolResultChunk"),
    ),
    "errors": (
        *("AgentFailed", "AgentRuntimeError", "CallCancelled", "CallDrained", "CallError", "CallTimeout"),
        *("CheckpointCorrupt", "CheckpointVersion", "ConfigurationError", "InputInvalid", "LimitExceeded"),
        *("MissingExtra", "Problem", "ProviderError", "ReservedKey", "SessionBusy", "SessionError", "SessionGone"),
        *("SessionIdInvalid", "SessionNotFound", "StaleWriter", "StateNotSerializable", "StoreError", "StoreFull"),
        *("StoreTimeout", "StoreUnavailable", "StreamMisuse", "TemplateError", "ToolLoop", "UnknownComponent"),
        "BudgetExceeded",
        "BudgetUnavailable",
        "PriceUnknown",
        "Unauthenticated",
        "Forbidden",
        "RateLimited",
    ),
    "event_bus": ("Event", "EventBus", "Subscription"),
    "factory": ("AgentFactory",),
    "models.gate": ("ModelGate", "RunLimits"),
    "models.gated_model": ("gated",),
    "orchestration.conversation": ("Resume",),
    "orchestration.executor": ("AgentExecutor", "Timeouts"),
    "orchestration.middleware": (
        "LoggingMiddleware",
        "Middleware",
        "RetryMiddleware",
        "SessionMiddleware",
        "CostTrackingMiddleware",
        "Spending",
    ),
    "orchestration.stream": ("AgentStream",),
    "sessions": ("Session", "SessionManager"),
    "registry": ("Registry", "tool_factory"),
    "template": ("AgentTemplate", "load_template", "parse_template"),
    "types": ("AgentContext", "AgentResult", "Handler", "Principal", "Usage"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AgentCallbackHandler",
    "AgentContext",
    "AgentExecutor",
    "AgentFactory",
    "AgentFailed",
    "AgentResult",
    "AgentRuntimeError",
    "AgentStream",
    "AgentTemplate",
    "Budget",
    "BudgetExceeded",
    "BudgetUnavailable",
    "CallCancelled",
    "CallDrained",
    "CallError",
    "CallTimeout",
    "CallbackEvent",
    "CheckpointCorrupt",
    "CheckpointVersion",
    "Chunk",
    "ConfigurationError",
    "CostTrackingMiddleware",
    "CustomChunk",
    "Emit",
    "Event",
    "EventBus",
    "ExecutionSummary",
    "Forbidden",
    "Handler",
    "InputInvalid",
    "InterruptChunk",
    "Ledger",
    "LimitExceeded",
    "LoggingMiddleware",
    "MemoryLedger",
    "Middleware",
    "MissingExtra",
    "ModelGate",
    "PartChunk",
    "PriceTable",
    "PriceUnknown",
    "Principal",
    "Problem",
    "ProviderError",
    "RateLimited",
    "ReasoningChunk",
    "RedisLedger",
    "Registry",
    "ReservedKey",
    "Resume",
    "RetryMiddleware",
    "RunLimits",
    "Session",
    "SessionBusy",
    "SessionError",
    "SessionGone",
    "SessionIdInvalid",
    "SessionManager",
    "SessionMiddleware",
    "SessionNotFound",
    "Spending",
    "SqliteLedger",
    "StaleWriter",
    "StateNotSerializable",
    "StoreError",
    "StoreFull",
    "StoreTimeout",
    "StoreUnavailable",
    "StreamMisuse",
    "Subscription",
    "TemplateError",
    "TextChunk",
    "Timeouts",
    "ToolCallChunk",
    "ToolLoop",
    "ToolResultChunk",
    "Unauthenticated",
    "UnknownComponent",
    "Usage",
    "gated",
    "load_template",
    "open_ledger",
    "parse_template",
    "tool_factory",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agent_runtime' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"agent_runtime.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
