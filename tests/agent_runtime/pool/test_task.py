"""A task of a pool: one set of priorities, on every way in."""

from __future__ import annotations

from typing import Any

import pytest

from agent_runtime import InputInvalid
from agent_runtime.batch import BatchTask
from agent_runtime.pool import AgentTask
from agent_runtime.pool.task import TaskPriority, parse_priority

WAYS: list[Any] = [
    parse_priority,
    lambda priority: AgentTask("a", "x", priority=priority).priority,
    lambda priority: BatchTask("x", priority=priority).priority,
]


@pytest.mark.parametrize("read", WAYS)
@pytest.mark.parametrize("value", ["urgent", "URGENT", 3, TaskPriority.URGENT])
def test_the_highest_priority_is_urgent(read: Any, value: Any) -> None:
    assert read(value) is TaskPriority.URGENT
    assert read(value).name == "URGENT"


@pytest.mark.parametrize("read", WAYS)
@pytest.mark.parametrize("value", ["critical", "", 4, -1, None, [], 1.5])
def test_another_priority_is_refused_with_the_names(read: Any, value: Any) -> None:
    with pytest.raises(InputInvalid, match="urgent, high, normal, low"):
        read(value)
