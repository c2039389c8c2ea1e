"""Make checkpoints, and the configs that name them."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6


def checkpoint(messages: list[Any], version: int = 1, **values: Any) -> Any:
    made = empty_checkpoint()
    made["id"] = str(uuid6())
    made["channel_values"] = {"messages": messages, **values}
    made["channel_versions"] = dict.fromkeys(made["channel_values"], version)
    return made


def config_of(thread: str) -> Any:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


METADATA: Any = {"source": "loop", "step": 1, "parents": {}}
