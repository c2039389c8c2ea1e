"""Detect cancel requests that a library swallowed."""

from __future__ import annotations

import asyncio


class CancelWatch:
    """Detect whether a task, by default the current one, has been cancelled since.

    `asyncio.wait_for` of Python 3.11 swallows a cancel that arrives as its awaitable ends (CPython
    gh-86296), and langchain-openai awaits each chunk of a stream by it: such a stream is read to
    its end, and billed, although its caller has left. The task still counts the request.
    """

    __slots__ = ("_cancels", "_task")

    def __init__(self, task: asyncio.Task[object] | None = None) -> None:
        self._task = task or _current_task()
        self._cancels = 0 if self._task is None else self._task.cancelling()

    @property
    def is_cancelled(self) -> bool:
        """Return whether the task was cancelled and has not uncancelled; False without a task."""
        return self._task is not None and self._task.cancelling() > self._cancels

    def check(self) -> None:
        """Raise CancelledError when the task was cancelled and is still running."""
        task = self._task  # a task that has ended may have handed its stream on
        if task is not None and task.cancelling() > self._cancels and not task.done():
            raise asyncio.CancelledError


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return None
