"""Import threads of LangGraph's own savers as sessions that can be continued."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import CheckpointTuple

from agent_runtime.checkpoints.backends.backend import FencingToken
from agent_runtime.checkpoints.operations import FENCING_TOKEN_KEY
from agent_runtime.checkpoints.thread_ids import thread_of
from agent_runtime.errors import ConfigurationError, InputInvalid, MissingExtra
from agent_runtime.sessions.records import DEFAULT_TENANT

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from agent_runtime.sessions.manager import SessionManager
    from agent_runtime.sessions.session import Session

_INVALID_ID_CHARACTERS = re.compile(r"[^A-Za-z0-9_-]+")


async def import_threads(
    manager: SessionManager,
    source: BaseCheckpointSaver[Any],
    *,
    thread_ids: Collection[str] | None = None,
    tenant: str = DEFAULT_TENANT,
    user_id: str | None = None,
) -> dict[str, Session]:
    """Copy threads with all their checkpoints into new sessions; return these by the threads' ids.

    A session has the id of its thread, with `-` for characters that a session's id may not have.
    `thread_ids` selects, all threads by default; a thread is imported whole or not at all. Raises
    InputInvalid for a thread that is not in the source, or an existing session, and
    StateNotSerializable for a class outside the manager's `allowed_types`. Earlier sessions stay.
    """
    threads: dict[str, list[CheckpointTuple]] = {}
    async for checkpoint_tuple in source.alist(None):
        threads.setdefault(str(checkpoint_tuple.config["configurable"]["thread_id"]), []).append(
            checkpoint_tuple
        )
    if missing := [name for name in thread_ids or () if name not in threads]:
        raise InputInvalid(f"there is no thread '{missing[0]}' in the source", "thread_ids")
    sessions_by_thread: dict[str, Session] = {}
    for thread_id in threads if thread_ids is None else thread_ids:
        session_id = _INVALID_ID_CHARACTERS.sub("-", thread_id).strip("-_")[:128]
        session = await manager.create_session(user_id, session_id=session_id, tenant=tenant)
        try:
            await _copy_checkpoints(manager, threads[thread_id], session)
        except BaseException:
            await manager.delete_session(session.id, tenant=tenant)
            raise
        sessions_by_thread[thread_id] = session
    return sessions_by_thread


async def _copy_checkpoints(
    manager: SessionManager, checkpoints: list[CheckpointTuple], session: Session
) -> None:
    thread = thread_of(session.tenant, session.id)
    async with manager.turns.acquire(thread) as turn_lease:
        thread_config = {
            "thread_id": thread,
            FENCING_TOKEN_KEY: FencingToken(turn_lease.lease.token),
        }
        for checkpoint_tuple in reversed(checkpoints):  # the oldest first
            namespace = checkpoint_tuple.config["configurable"].get("checkpoint_ns", "")
            configurable = {**thread_config, "checkpoint_ns": namespace}
            if checkpoint_tuple.parent_config is not None:
                configurable["checkpoint_id"] = checkpoint_tuple.parent_config["configurable"][
                    "checkpoint_id"
                ]
            versions = checkpoint_tuple.checkpoint["channel_versions"]
            stored = await manager.checkpointer.aput(
                {"configurable": configurable},
                checkpoint_tuple.checkpoint,
                checkpoint_tuple.metadata,
                versions,
            )
            configurable["checkpoint_id"] = stored["configurable"]["checkpoint_id"]
            for task_id, channel, value in checkpoint_tuple.pending_writes or ():
                await manager.checkpointer.aput_writes(
                    {"configurable": configurable}, [(channel, value)], task_id
                )


def _check_file(path: Path) -> None:
    if not path.is_file():  # SQLite would make one
        raise ConfigurationError(f"there is no file '{path}'")


@asynccontextmanager
async def open_langgraph_file(path: Path) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """Open a file of LangGraph's SqliteSaver.

    Raises ConfigurationError for other files, MissingExtra.

    Reading its values imports classes that it names: it must be the application's own file.
    """
    try:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    except ImportError as error:
        raise MissingExtra(
            "the import of LangGraph's threads", "langchain-agent-runtime[import]"
        ) from error
    _check_file(path)
    async with AsyncSqliteSaver.from_conn_string(str(path)) as source:
        yield source
