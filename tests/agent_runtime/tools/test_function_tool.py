"""Agents that are built in several threads at once, as a web server's are."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from agent_runtime.registry import as_tool
from agent_runtime.tools.function_tool import structured_tool

THREADS = 4


def add(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Let threads take turns every 10 us instead of every 5 ms, so that a race is met within a few
    calls."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize(
    "make",
    [lambda: as_tool(add, "add", {}), lambda: structured_tool(add)],
    ids=["registered function", "structured tool"],
)
def test_tools_made_in_many_threads_leave_the_warning_filters_alone(
    make: Callable[[], Any],
) -> None:
    start = Barrier(THREADS)

    def work() -> list[Any]:
        start.wait()
        return [make() for _ in range(20)]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with ThreadPoolExecutor(THREADS) as threads:
            running = [threads.submit(work) for _ in range(THREADS)]
            tools = [tool for each in running for tool in each.result()]
        assert list(warnings.filters) == before
    assert {tool.name for tool in tools} == {"add"}
    assert len(tools) == THREADS * 20
