"""The production runtime for LangChain agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime._lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.auth import ApiKeys, Authenticator, JwtAuthenticator, open_keys
    from agent_runtime.budgets import (
        Budget,
        Ledger,
        MemoryLedger,
        PriceTable,
        RedisLedger,
        SqliteLedger,
        open_ledger,
    )
    from agent_runtime.callback_handler import AgentCallbackHandler
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
        CredentialTooLarge,
        Forbidden,
        InputInvalid,
        KeyInUrl,
        KeyNotFound,
        LimitExceeded,
        MissingExtra,
        NotRecorded,
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
    from agent_runtime.event_bus.brokers import (
        Broker,
        Delivery,
        EventQuery,
        MemoryBroker,
        SqliteBroker,
        open_broker,
    )
    from agent_runtime.event_bus.consumer import EventConsumer
    from agent_runtime.event_bus.dead_letter import DeadLetter, DeadLetters
    from agent_runtime.event_bus.dead_letters import open_dead_letters
    from agent_runtime.event_bus.relay import Relay
    from agent_runtime.factory import AgentFactory
    from agent_runtime.limits import ConcurrencyLimit, LimitStore, RateLimit, open_limits
    from agent_runtime.monitoring import RuntimeMetrics, RuntimeTracing, configure_logging
    from agent_runtime.monitoring.callback_event import CallbackEvent, ExecutionSummary
    from agent_runtime.orchestration.approvals import Resume
    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.orchestration.middleware import (
        AuthMiddleware,
        ConcurrencyMiddleware,
        CostTrackingMiddleware,
        LoggingMiddleware,
        Middleware,
        RateLimitMiddleware,
        RetryMiddleware,
        SessionMiddleware,
        SpendingPolicy,
    )
    from agent_runtime.orchestration.stream import AgentStream
    from agent_runtime.orchestration.timeouts import Timeouts
    from agent_runtime.registry import Registry, tool_factory
    from agent_runtime.replay import Replay, replay_run
    from agent_runtime.run.gate import ModelGate
    from agent_runtime.run.gated_model import gated
    from agent_runtime.run.limits import RunLimits
    from agent_runtime.sessions import Session, SessionManager
    from agent_runtime.template import AgentTemplate, load_template, parse_template
    from agent_runtime.triggers import TriggerHandler, load_triggers
    from agent_runtime.types import AgentContext, AgentResult, Handler, Principal, Usage

# Loaded at first use: `import agent_runtime` costs nothing, and the command line answers `--help`
# without LangChain.
_MODULES = {
    "agent_runtime.replay": ("Replay", "replay_run"),
    "agent_runtime.triggers": ("TriggerHandler", "load_triggers"),
    "agent_runtime.event_bus.dead_letter": ("DeadLetter", "DeadLetters"),
    "agent_runtime.event_bus.dead_letters": ("open_dead_letters",),
    "agent_runtime.event_bus.brokers": (
        "Broker",
        "Delivery",
        "EventQuery",
        "MemoryBroker",
        "SqliteBroker",
        "open_broker",
    ),
    "agent_runtime.event_bus.relay": ("Relay",),
    "agent_runtime.event_bus.consumer": ("EventConsumer",),
    "agent_runtime.auth": ("ApiKeys", "Authenticator", "JwtAuthenticator", "open_keys"),
    "agent_runtime.budgets": (
        *(
            "Budget",
            "Ledger",
            "MemoryLedger",
            "PriceTable",
            "RedisLedger",
            "SqliteLedger",
            "open_ledger",
        ),
    ),
    "agent_runtime.limits": ("ConcurrencyLimit", "LimitStore", "RateLimit", "open_limits"),
    "agent_runtime.monitoring": ("RuntimeMetrics", "RuntimeTracing", "configure_logging"),
    "agent_runtime.monitoring.callback_event": ("CallbackEvent", "ExecutionSummary"),
    "agent_runtime.callback_handler": ("AgentCallbackHandler",),
    "agent_runtime.chunks": (
        *(
            "Chunk",
            "CustomChunk",
            "Emit",
            "InterruptChunk",
            "PartChunk",
            "ReasoningChunk",
            "TextChunk",
        ),
        *("ToolCallChunk", "ToolResultChunk"),
    ),
    "agent_runtime.errors": (
        *(
            "AgentFailed",
            "AgentRuntimeError",
            "CallCancelled",
            "CallDrained",
            "CallError",
            "CallTimeout",
        ),
        *(
            "CheckpointCorrupt",
            "CheckpointVersion",
            "ConfigurationError",
            "InputInvalid",
            "LimitExceeded",
        ),
        *(
            "MissingExtra",
            "Problem",
            "ProviderError",
            "ReservedKey",
            "SessionBusy",
            "SessionError",
            "SessionGone",
        ),
        *(
            "SessionIdInvalid",
            "SessionNotFound",
            "StaleWriter",
            "StateNotSerializable",
            "StoreError",
            "StoreFull",
        ),
        *(
            "StoreTimeout",
            "StoreUnavailable",
            "StreamMisuse",
            "TemplateError",
            "ToolLoop",
            "UnknownComponent",
        ),
        *(
            "BudgetExceeded",
            "BudgetUnavailable",
            "PriceUnknown",
            "Unauthenticated",
            "Forbidden",
            "RateLimited",
        ),
        *("CredentialTooLarge", "KeyInUrl", "KeyNotFound", "NotRecorded"),
    ),
    "agent_runtime.event_bus": ("Event", "EventBus", "Subscription"),
    "agent_runtime.factory": ("AgentFactory",),
    "agent_runtime.run.gate": ("ModelGate",),
    "agent_runtime.run.limits": ("RunLimits",),
    "agent_runtime.run.gated_model": ("gated",),
    "agent_runtime.orchestration.approvals": ("Resume",),
    "agent_runtime.orchestration.executor": ("AgentExecutor",),
    "agent_runtime.orchestration.timeouts": ("Timeouts",),
    "agent_runtime.orchestration.middleware": (
        *("AuthMiddleware", "ConcurrencyMiddleware", "CostTrackingMiddleware", "LoggingMiddleware"),
        *(
            "Middleware",
            "RateLimitMiddleware",
            "RetryMiddleware",
            "SessionMiddleware",
            "SpendingPolicy",
        ),
    ),
    "agent_runtime.orchestration.stream": ("AgentStream",),
    "agent_runtime.sessions": ("Session", "SessionManager"),
    "agent_runtime.registry": ("Registry", "tool_factory"),
    "agent_runtime.template": ("AgentTemplate", "load_template", "parse_template"),
    "agent_runtime.types": ("AgentContext", "AgentResult", "Handler", "Principal", "Usage"),
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
    "ApiKeys",
    "AuthMiddleware",
    "Authenticator",
    "Broker",
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
    "ConcurrencyLimit",
    "ConcurrencyMiddleware",
    "ConfigurationError",
    "CostTrackingMiddleware",
    "CredentialTooLarge",
    "CustomChunk",
    "DeadLetter",
    "DeadLetters",
    "Delivery",
    "Emit",
    "Event",
    "EventBus",
    "EventConsumer",
    "EventQuery",
    "ExecutionSummary",
    "Forbidden",
    "Handler",
    "InputInvalid",
    "InterruptChunk",
    "JwtAuthenticator",
    "KeyInUrl",
    "KeyNotFound",
    "Ledger",
    "LimitExceeded",
    "LimitStore",
    "LoggingMiddleware",
    "MemoryBroker",
    "MemoryLedger",
    "Middleware",
    "MissingExtra",
    "ModelGate",
    "NotRecorded",
    "PartChunk",
    "PriceTable",
    "PriceUnknown",
    "Principal",
    "Problem",
    "ProviderError",
    "RateLimit",
    "RateLimitMiddleware",
    "RateLimited",
    "ReasoningChunk",
    "RedisLedger",
    "Registry",
    "Relay",
    "Replay",
    "ReservedKey",
    "Resume",
    "RetryMiddleware",
    "RunLimits",
    "RuntimeMetrics",
    "RuntimeTracing",
    "Session",
    "SessionBusy",
    "SessionError",
    "SessionGone",
    "SessionIdInvalid",
    "SessionManager",
    "SessionMiddleware",
    "SessionNotFound",
    "SpendingPolicy",
    "SqliteBroker",
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
    "TriggerHandler",
    "Unauthenticated",
    "UnknownComponent",
    "Usage",
    "configure_logging",
    "gated",
    "load_template",
    "load_triggers",
    "open_broker",
    "open_dead_letters",
    "open_keys",
    "open_ledger",
    "open_limits",
    "parse_template",
    "replay_run",
    "tool_factory",
]


__getattr__ = lazy_exports(__name__, _HOME)


def __dir__() -> list[str]:
    return __all__
