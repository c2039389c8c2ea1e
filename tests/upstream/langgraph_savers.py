"""A pytest plugin for a checkout of LangGraph.

Its tests get one saver and one store, those that the environment names.

It stands for the checkout's `tests.conftest_checkpointer` and `tests.conftest_store`, which need a
PostgreSQL server, and leaves only the tests that use a saver or a store. It is imported by itself:
`tests` is the checkout's package.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import ModuleType
from typing import Any

SAVER = os.environ["UPSTREAM_SAVER"]
OWN = "InMemorySaver"
FIXTURES = {"sync_checkpointer", "async_checkpointer", "sync_store", "async_store"}
NAMES = {"memory", "in_memory"}
LOOKS_INSIDE = {
    "test_delta_channel_snapshot_version_based",  # reads the dict `saver.blobs`
    "test_delta_channel_async_write_ordering",  # replaces methods of the class InMemorySaver
    "test_checkpoint_errors",  # gives the saver another serializer, and derives faulty ones
    "test_get_channel_writes_at_root_returns_empty",  # private methods
    "test_get_channel_writes_collects_ancestor_writes_only",
    "test_load_blobs_omits_delta_channel",
    "test_memory_saver",  # asks whether it is an InMemorySaver
    "test_async_batch_store_deduplication",  # counts calls of the class InMemoryStore
}
"""Tests of what is inside of InMemorySaver: no other saver can be put in its place."""
RACES = {"test_error_handler_resumes_after_crash_multiple_nodes"}
"""Tests that fail one time in three with InMemorySaver, too."""
ALLOWED_TYPES = (
    ("tests.agents", "AgentAction"),
    ("tests.agents", "AgentFinish"),
    ("tests.test_pydantic", "FunctionalState"),
    ("tests.test_react_agent", "CustomStatePydantic"),
)
"""The classes of the tests' modules that stand in states.

An application names its own in the same way.
"""
_MAKES_ONE = re.compile(r"\b(InMemorySaver|MemorySaver|InMemoryStore|MockAsyncBatchedStore)\(\)")
_NUMBERS = count(os.getpid() * 1_000_000)


def make_saver() -> Any:
    """Return a new saver of the kind that is under test.

    `InMemorySaver` is LangGraph's own, to compare with.
    """
    if SAVER == OWN:
        return importlib.import_module("tests.memory_assert").MemorySaverAssertImmutable()
    from agent_runtime.sessions.opening import open_checkpointer

    urls = {
        "memory": "memory:",
        "sqlite": f"sqlite:{os.environ['UPSTREAM_FOLDER']}/{next(_NUMBERS)}.db",
        "redis": f"{os.environ['UPSTREAM_REDIS']}?prefix=u{next(_NUMBERS)}",
    }
    return open_checkpointer(urls[SAVER], allowed_types=ALLOWED_TYPES)


def make_store() -> Any:
    """Return a new store: that of Redis where the saver is, else LangGraph's own."""
    if SAVER != "redis":
        from langgraph.store.memory import InMemoryStore

        return InMemoryStore()
    from agent_runtime.sessions import RedisStore
    from agent_runtime.storage import RedisConnection

    return RedisStore(RedisConnection(f"{os.environ['UPSTREAM_REDIS']}?prefix=s{next(_NUMBERS)}"))


class _UnderTest:
    """Stand for LangGraph's own class in a test.

    What is made of it is a new one of the kind that is under test.

    A class that a test derives from it, and `isinstance`, mean LangGraph's own.
    """

    def __init__(self, own: type, make: Callable[[], Any]) -> None:
        self._own = own
        self._make = make

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return self._own(*args, **settings) if args or settings else self._make()

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._own,)

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, self._own)


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave the tests that use the saver under test, or the store.

    One that a test makes itself is one, too.
    """
    chosen = []
    for item in items:
        used = FIXTURES & set(getattr(item, "fixturenames", ()))
        params = getattr(getattr(item, "callspec", None), "params", {})
        makes_one = _MAKES_ONE.search(inspect.getsource(item.function))
        is_ours = (used or makes_one) and item.originalname not in LOOKS_INSIDE | RACES
        if is_ours and all(params.get(name, "memory") in NAMES for name in used):
            chosen.append(item)
            _replace(item.module)
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def _replace(module: ModuleType) -> None:
    for name in ("InMemorySaver", "MemorySaver", "InMemoryStore"):
        own = getattr(module, name, None)
        if isinstance(own, type) and SAVER != OWN:
            setattr(module, name, _UnderTest(own, make_store if "Store" in name else make_saver))


@contextmanager
def _saver() -> Iterator[Any]:
    yield make_saver()


@contextmanager
def _store() -> Iterator[Any]:
    yield make_store()


def _absent() -> Any:
    raise RuntimeError("only the saver under test is there")


def _stand_for(name: str, prefix: str, kinds: list[str], memory: Callable[[], Any]) -> None:
    module = ModuleType(name)
    for kind in kinds:
        setattr(module, f"{prefix}_{kind}", memory if kind == "memory" else _absent)
    sys.modules[name] = module


_POSTGRES = [
    "postgres",
    "postgres_pipe",
    "postgres_pool",
    "postgres_aio",
    "postgres_aio_pipe",
    "postgres_aio_pool",
]
_SAVERS = ["memory", "memory_migrate_sends", "sqlite", "sqlite_aes", "sqlite_aio", *_POSTGRES]
_stand_for("tests.conftest_checkpointer", "_checkpointer", _SAVERS, _saver)
_stand_for("tests.conftest_store", "_store", ["memory", *_POSTGRES], _store)
