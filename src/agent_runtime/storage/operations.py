"""Define the operations of a store: typed, and the same for sync and async callers.

class Notes(Protocol):
def add(self, text: str) -> Operation[int]: ...

class MemoryNotes(InlineStore):
@operation
def add(self, text: str) -> int: ...

number = await notes.add("tea")  # async callers
number = notes.add("tea").run()  # sync callers
number = yield from notes.add("tea")  # inside a larger operation
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Generator
from functools import partial, wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S", bound="OperationRunner")
Steps: TypeAlias = Generator[Any, Any, R]
"""A computation without its I/O: yields requests, is sent their answers, and returns a result."""


class OperationRunner(Protocol):
    """Run the body of an operation: in this thread, in another one, or on a server."""

    def run_body(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Return the result of `body(self, *args)`; blocks. Raises StoreError."""

    async def arun_body(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Return the result of `body(self, *args)` without blocking. Raises StoreError."""


class Operation(Generic[R_co]):
    """Describe one call of a store; it runs when it is awaited, or by `run`."""

    __slots__ = ("_args", "_body", "_store")

    def __init__(
        self, store: OperationRunner, body: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        self._store = store
        self._body = body
        self._args = args

    def run(self) -> R_co:
        """Run it and return its result; blocks. Raises StoreError."""
        return cast("R_co", self._store.run_body(self._body, self._args))

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self._store.arun_body(self._body, self._args).__await__()

    def __iter__(self) -> Generator[Operation[Any], Any, R_co]:
        """Yield this operation to the driver of a larger one, and return the result."""
        return cast("R_co", (yield self))


def operation(
    body: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], Operation[R]]:
    """Make a method an operation of its store: a call returns an Operation of its result."""

    @wraps(body)
    def start(store: S, *args: P.args, **kwargs: P.kwargs) -> Operation[R]:
        return Operation(store, partial(body, **kwargs) if kwargs else body, args)

    return cast("Callable[Concatenate[S, P], Operation[R]]", start)


def steps_operation(
    body: Callable[Concatenate[S, P], Steps[R]],
) -> Callable[Concatenate[S, P], Operation[R]]:
    """Make a generator method an operation: its store carries out the requests that it yields."""
    return cast("Callable[Concatenate[S, P], Operation[R]]", operation(body))


class InlineStore:
    """Run operations in memory, one at a time; they never wait."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def run_body(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run the body under the lock."""
        with self._lock:
            return body(self, *args)

    async def arun_body(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run the body under the lock, in the event loop's thread."""
        return self.run_body(body, args)

    async def aclose(self) -> None:
        """Do nothing: there is no resource to close."""


class StorePart(Generic[S]):
    """Run operations of a part of a store on that store."""

    def __init__(self, store: S) -> None:
        self.store = store

    def run_body(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run the body on the store."""
        return self.store.run_body(self._bound(body), args)

    async def arun_body(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run the body on the store, without blocking."""
        return await self.store.arun_body(self._bound(body), args)

    def _bound(self, body: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(getattr(body, "func", body))
        def run(_store: S, *args: Any) -> Any:
            return body(self, *args)

        return run


def drive(steps: Steps[R], perform: Callable[[Any], Any]) -> R:
    """Run steps for a sync caller: `perform` carries out each request.

    An exception of a request is raised in the steps, which may handle it.
    """
    try:
        request = next(steps)
        while True:
            try:
                answer = perform(request)
            except Exception as error:  # noqa: BLE001 - the steps decide
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as stop:
        return cast("R", stop.value)
    finally:
        steps.close()  # also when the caller was cancelled


async def adrive(steps: Steps[R], perform: Callable[[Any], Awaitable[Any]]) -> R:
    """Run steps for an async caller, as `drive` does."""
    try:
        request = next(steps)
        while True:
            try:
                answer = await perform(request)
            except Exception as error:  # noqa: BLE001 - the steps decide
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as stop:
        return cast("R", stop.value)
    finally:
        steps.close()  # also when the caller was cancelled
