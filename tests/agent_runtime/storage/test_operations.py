"""Operations: one definition for sync and async callers, and for larger operations."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from agent_runtime.storage.operations import (
    InlineStore,
    Operation,
    Steps,
    StorePart,
    adrive,
    drive,
    operation,
    steps_operation,
)


class Numbers(InlineStore):
    """Counts, and remembers in which thread its bodies ran."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.even = EvenNumbers(self)

    @operation
    def add(self, number: int, *, times: int = 1) -> int:
        """Add a number."""
        if number < 0:
            raise ValueError("negative")
        self.total += number * times
        return self.total


class EvenNumbers(StorePart[Numbers]):
    @operation
    def add_double(self, number: int) -> int:
        self.store.total += 2 * number
        return self.store.total


class Server:
    """A store whose bodies are steps; it answers each request with the next one's number."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def perform(self, request: Any) -> int:
        self.requests.append(request)
        if request == "fail":
            raise KeyError(request)
        return len(self.requests)

    async def aperform(self, request: Any) -> int:
        await asyncio.sleep(0)
        return self.perform(request)

    def run_body(self, body: Any, args: tuple[Any, ...]) -> Any:
        return drive(body(self, *args), self.perform)

    async def arun_body(self, body: Any, args: tuple[Any, ...]) -> Any:
        return await adrive(body(self, *args), self.aperform)

    @steps_operation
    def send(self, *requests: str) -> Steps[list[int]]:
        answers = []
        for request in requests:
            try:
                answers.append((yield request))
            except KeyError:
                answers.append(-1)
        return answers

    @steps_operation
    def send_plainly(self, request: str) -> Steps[int]:
        return int((yield request))


async def test_an_operation_runs_for_each_kind_of_caller_and_not_before() -> None:
    numbers = Numbers()
    adding = numbers.add(2, times=3)
    assert numbers.total == 0
    assert adding.run() == 6
    assert await adding == 12
    assert await numbers.even.add_double(4) == numbers.total == 20
    assert numbers.even.add_double(5).run() == 30
    with pytest.raises(ValueError, match="negative"):
        numbers.add(-1).run()
    with pytest.raises(ValueError, match="negative"):
        await numbers.add(-1)
    assert numbers.add.__doc__ == "Add a number."


def test_steps_consist_of_operations() -> None:
    numbers = Numbers()

    def both() -> Steps[tuple[int, int]]:
        first: int = yield from numbers.add(1)
        second: int = yield from numbers.even.add_double(first)
        return first, second

    assert drive(both(), lambda request: request.run()) == (1, 3)

    async def perform(request: Operation[Any]) -> Any:
        return await request

    assert asyncio.run(adrive(both(), perform)) == (4, 12)


def test_a_failed_request_is_raised_in_the_steps() -> None:
    runs: list[Callable[[Operation[Any]], Any]] = [
        lambda request: request.run(),
        lambda request: asyncio.run(awaited(request)),
    ]
    for run in runs:
        server = Server()
        assert run(server.send("a", "fail", "b")) == [1, -1, 3]
        assert server.requests == ["a", "fail", "b"]
        with pytest.raises(KeyError):
            run(server.send_plainly("fail"))


async def awaited(request: Operation[Any]) -> Any:
    return await request


async def test_a_cancelled_operation_ends_its_steps() -> None:
    ended = asyncio.Event()
    waiting = asyncio.Event()

    class Slow(Server):
        async def aperform(self, request: Any) -> int:
            waiting.set()
            await asyncio.sleep(60)
            return 0

        @steps_operation
        def slow(self) -> Steps[None]:
            try:
                yield "request"
            finally:
                ended.set()

    running = asyncio.ensure_future(awaited(Slow().slow()))
    await waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()


def test_operations_of_threads_run_one_at_a_time() -> None:
    class Checked(InlineStore):
        def __init__(self) -> None:
            super().__init__()
            self.inside = 0
            self.most = 0

        @operation
        def enter(self) -> None:
            self.inside += 1
            self.most = max(self.most, self.inside)
            threading.Event().wait(0.001)
            self.inside -= 1

    checked = Checked()
    threads = [threading.Thread(target=lambda: checked.enter().run()) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert checked.most == 1
