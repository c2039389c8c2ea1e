"""Start agents when an event matches, a schedule is due, or a webhook calls."""

from agent_runtime.triggers.handler import TriggerHandler
from agent_runtime.triggers.rules import TriggerRule, load_triggers, parse_triggers
from agent_runtime.triggers.schedule import Schedules
from agent_runtime.triggers.webhook import WebhookApp

__all__ = [
    "Schedules",
    "TriggerHandler",
    "TriggerRule",
    "WebhookApp",
    "load_triggers",
    "parse_triggers",
]
