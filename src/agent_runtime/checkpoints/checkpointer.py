"""Save LangGraph's checkpoints in memory, SQLite or Redis."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
)

from agent_runtime.checkpoints import upkeep
from agent_runtime.checkpoints.backends.backend import CheckpointBackend
from agent_runtime.checkpoints.backends.memory import MemoryCheckpointBackend
from agent_runtime.checkpoints.blobs import Blobs
from agent_runtime.checkpoints.operations import CheckpointOperations
from agent_runtime.checkpoints.thread_ids import config_of, parse_config
from agent_runtime.errors import ConfigurationError
from agent_runtime.storage.operations import Steps

_PAGE = 50


class Checkpointer(BaseCheckpointSaver[Any]):
    """Save LangGraph checkpoints, for sync and async callers in one class.

    Its subclasses add a backend: `MemoryCheckpointer`, `SqliteCheckpointer`, `RedisCheckpointer`. A
    step stores its changes only: lists are chunks that later checkpoints share, so a conversation
    grows linearly. Every blob is sealed (`Seal`) and read by an allow-list (`Codec`); a blob that
    does not verify raises CheckpointCorrupt and is quarantined, and its thread accepts no more
    writes.

    Args:
        backend: the storage.
        allowed_types: application classes that states may contain (pydantic models, dataclasses,
            enums).
        mac_key: 32 to 64 secret bytes; then blobs carry a MAC instead of a digest.
        ttl_s: seconds after its last use at which a thread expires; None keeps it.

    Its methods raise StoreError when the store fails, StateNotSerializable, CheckpointVersion, and
    StaleWriter when a turn of the session layer has leased the thread and the caller is not that
    turn.
    """

    def __init__(
        self,
        backend: CheckpointBackend,
        *,
        allowed_types: Iterable[type | tuple[str, ...]] = (),
        mac_key: bytes | None = None,
        ttl_s: float | None = None,
    ) -> None:
        if isinstance(backend, str | Path):
            raise ConfigurationError(
                "an address is opened by SessionManager.from_url, or by from_conn_string"
            )
        super().__init__()
        self.operations = CheckpointOperations(
            backend, allowed_types=allowed_types, mac_key=mac_key, ttl_s=ttl_s
        )

    @property
    def backend(self) -> CheckpointBackend:
        """Return the storage."""
        return self.operations.backend

    @property
    def blobs(self) -> Blobs:
        """Return what encodes and seals values."""
        return self.operations.blobs

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Self:
        """Return a copy that allows these types as well; it shares the storage."""
        clone = copy.copy(self)
        clone.operations = self.operations.with_types(extra_allowlist)
        return clone

    def allow(self, types: Iterable[type | tuple[str, ...]]) -> None:
        """Allow these classes from now on, also for other holders of this saver."""
        self.operations.allow(types)

    def get_next_version(self, current: Any, channel: None) -> Any:
        """Return the version of a channel after `current`: the next integer.

        Threads from LangGraph's own savers have versions as text, ordered by a number of 32 digits;
        they continue in that form.
        """
        if isinstance(current, str):
            return f"{int(current.partition('.')[0]) + 1:032}.{0:016}"
        return super().get_next_version(current, channel)

    # -- LangGraph's interface

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or the thread's latest, or None."""
        return self.operations.run(self.operations.get_tuple(config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Run `get_tuple` for async callers."""
        return await self.operations.arun(self.operations.get_tuple(config))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint after the one of `config`; return the config that names it."""
        return self.operations.run(self.operations.put(config, checkpoint, metadata))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Run `put` for async callers."""
        return await self.operations.arun(self.operations.put(config, checkpoint, metadata))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store a task's writes after the checkpoint that `config` names."""
        self.operations.run(self.operations.put_writes(config, writes, task_id, task_path))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Run `put_writes` for async callers."""
        await self.operations.arun(self.operations.put_writes(config, writes, task_id, task_path))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, newest first, read page by page; of all threads for None."""
        yield from _Listing(self.operations, config, filter, before, limit)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Run `list` for async callers."""
        listing = _Listing(self.operations, config, filter, before, limit)
        while (checkpoint_tuple := await self.operations.arun(listing.next())) is not None:
            yield checkpoint_tuple

    def delete_thread(self, thread_id: str) -> None:
        """Delete everything of a thread."""
        self.operations.run(upkeep.delete_thread(self.operations, str(thread_id)))

    async def adelete_thread(self, thread_id: str) -> None:
        """Run `delete_thread` for async callers."""
        await self.operations.arun(upkeep.delete_thread(self.operations, str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the writes and checkpoints of these runs."""
        self.operations.run(upkeep.delete_for_runs(self.operations, run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Run `delete_for_runs` for async callers."""
        await self.operations.arun(upkeep.delete_for_runs(self.operations, run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with its whole history.

        Raises InputInvalid when the target has checkpoints.
        """
        self.operations.run(upkeep.copy_thread(self.operations, source_thread_id, target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Run `copy_thread` for async callers."""
        await self.operations.arun(
            upkeep.copy_thread(self.operations, source_thread_id, target_thread_id)
        )

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep each namespace's latest checkpoint and its dependencies; `delete` keeps nothing."""
        self.operations.run(upkeep.prune(self.operations, thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Run `prune` for async callers."""
        await self.operations.arun(upkeep.prune(self.operations, thread_ids, strategy))


class _Listing:
    """A position in a listing, and the steps to its next checkpoint."""

    def __init__(
        self,
        operations: CheckpointOperations,
        config: RunnableConfig | None,
        metadata_filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        self._operations = operations
        self._metadata_filter = metadata_filter
        self._remaining = limit
        self._is_single_thread = config is not None
        self._thread = ""
        self._namespace: str | None = None
        self._before = get_checkpoint_id(before) if before is not None else None
        self._page: deque[tuple[str, str]] = deque()
        self._checkpoint_id: str | None = None
        if config is not None:
            self._thread, namespace, self._checkpoint_id = parse_config(config)
            self._namespace = namespace if "checkpoint_ns" in config["configurable"] else None
        self._initial_before = self._before
        self._threads: list[str] = []

    def __iter__(self) -> Iterator[CheckpointTuple]:
        while (checkpoint_tuple := self._operations.run(self.next())) is not None:
            yield checkpoint_tuple

    def next(self) -> Steps[CheckpointTuple | None]:
        """Return the next matching checkpoint, or None at the end."""
        if (
            not self._is_single_thread
            and not self._thread
            and not (yield from self._advance_thread())
        ):
            return None
        while self._remaining is None or self._remaining > 0:
            if not self._page:
                page = yield from self._operations.backend.list_checkpoints(
                    self._thread, self._namespace, self._before, _PAGE
                )
                self._page = deque(page)
                if not self._page:
                    if self._is_single_thread or not (yield from self._advance_thread()):
                        return None
                    continue
            namespace, checkpoint_id = self._page.popleft()
            self._before = checkpoint_id
            if self._checkpoint_id not in (None, checkpoint_id):
                continue
            checkpoint_tuple = yield from self._operations.get_tuple(
                config_of(self._thread, namespace, checkpoint_id)
            )
            if checkpoint_tuple is not None and upkeep.matches_metadata(
                checkpoint_tuple.metadata, self._metadata_filter
            ):
                self._remaining = None if self._remaining is None else self._remaining - 1
                return checkpoint_tuple
        return None

    def _advance_thread(self) -> Steps[bool]:
        if not self._threads:
            names = yield from self._operations.backend.list_threads(self._thread, _PAGE)
            self._threads = [*names]
        if not self._threads:
            return False
        self._thread = self._threads.pop(0)
        self._before = self._initial_before
        return True


class MemoryCheckpointer(Checkpointer):
    """Checkpoints in memory, behind the same checks as the durable ones. Gone with the process."""

    def __init__(self, backend: MemoryCheckpointBackend | None = None, **settings: Any) -> None:
        super().__init__(backend or MemoryCheckpointBackend(), **settings)

    @classmethod
    @asynccontextmanager
    async def from_conn_string(cls, conn_string: str = "", **settings: Any) -> AsyncIterator[Self]:
        """Open a saver for the duration of an `async with`; the string is not used."""
        yield cls(**settings)


class SqliteCheckpointer(Checkpointer):
    """Checkpoints in one SQLite file, shared by any number of processes on a machine."""

    @classmethod
    @asynccontextmanager
    async def from_conn_string(cls, conn_string: str, **settings: Any) -> AsyncIterator[Self]:
        """Open a saver on the file at `conn_string` for the duration of an `async with`."""
        from agent_runtime.checkpoints.backends.sqlite import SqliteCheckpointBackend

        backend_settings = {
            name: settings.pop(name)
            for name in ("busy_timeout_s", "synchronous")
            if name in settings
        }
        async with _closing(SqliteCheckpointBackend(conn_string, **backend_settings)) as backend:
            yield cls(backend, **settings)


class RedisCheckpointer(Checkpointer):
    """Checkpoints on Redis (6.2 or later) or Valkey, with plain commands."""

    @classmethod
    @asynccontextmanager
    async def from_conn_string(cls, conn_string: str, **settings: Any) -> AsyncIterator[Self]:
        """Open a saver on the server at `conn_string` (`redis://...`)."""
        from agent_runtime.checkpoints.backends.redis import RedisCheckpointBackend

        names = ("prefix", "durable", "timeout_s", "max_connections")
        backend_settings = {name: settings.pop(name) for name in names if name in settings}
        async with _closing(RedisCheckpointBackend(conn_string, **backend_settings)) as backend:
            yield cls(backend, **settings)


@asynccontextmanager
async def _closing(backend: Any) -> AsyncIterator[Any]:
    try:
        yield backend
    finally:
        await backend.aclose()
