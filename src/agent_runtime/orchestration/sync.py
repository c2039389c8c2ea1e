"""Run calls for sync callers on one long-lived event loop in a separate thread."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

from agent_runtime.errors import ConfigurationError

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for threads that have no event loop.

    Started at the first use, ends with the process.
    """

    def __init__(self, name: str = "agent_runtime sync calls") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Block until `coroutine` has finished, in a copy of the caller's context variables.

        A KeyboardInterrupt (or any exception) in the waiting thread cancels the coroutine and waits
        for its clean-up. Raises ConfigurationError when called from the loop's own thread, where it
        could never finish.
        """
        loop = self._ensure_loop()
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise ConfigurationError(
                "a sync call from the runtime's own loop thread would wait for itself: use await"
            )
        context = contextvars.copy_context()
        done = threading.Event()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            task = loop.create_task(coroutine, context=context)
            tasks.append(task)
            task.add_done_callback(lambda _: done.set())

        loop.call_soon_threadsafe(start)
        try:
            done.wait()
        except BaseException:
            loop.call_soon_threadsafe(lambda: tasks[0].cancel())  # noqa: PLW0108 - it exists only by then
            done.wait()
            raise
        return tasks[0].result()

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await `coroutine` there, from another loop; cancelling cancels it."""
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(coroutine, self._ensure_loop())
        )

    def close(self) -> None:
        """End the thread; a later use starts another one."""
        with self._lock:
            loop = self._loop
            thread = self._thread
            self._loop = None
            self._thread = None
        if loop is not None and thread is not None and thread is not threading.current_thread():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)
            loop.close()

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Iterate an async iterator from a sync caller; closing early closes it too."""

        async def step() -> T:
            return await anext(items)

        try:
            while True:
                try:
                    item = self.run(step())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            aclose = getattr(items, "aclose", None)
            if aclose is not None:
                self.run(aclose())

    def _ensure_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if (
                self._loop is None or self._thread is None or not self._thread.is_alive()
            ):  # also after a fork
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name=self._name, daemon=True
                )
                self._thread.start()
            return self._loop


LOOP_THREAD = LoopThread()
