"""Read, save and fork the checkpoints of sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from agent_runtime.auth.scopes import check_scope
from agent_runtime.checkpoints import upkeep
from agent_runtime.checkpoints.backends.backend import FencingToken
from agent_runtime.checkpoints.operations import FENCING_TOKEN_KEY
from agent_runtime.checkpoints.thread_ids import config_of, thread_of
from agent_runtime.sessions.records import DEFAULT_TENANT, SessionRecords
from agent_runtime.sessions.session import Session, SessionCheckpoint
from agent_runtime.types import Principal

if TYPE_CHECKING:
    from agent_runtime.sessions.turns import Turns

_INTERRUPT = "__interrupt__"
"""The channel that LangGraph writes questions to."""


class SessionCheckpoints:
    """Read, save and fork the checkpoints of sessions that the caller may use."""

    def __init__(self, records: SessionRecords, turns: Turns) -> None:
        self._records = records
        self._checkpointer = records.checkpointer
        self._turns = turns

    async def get(
        self,
        session_id: str,
        checkpoint_id: str | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        principal: Principal | None = None,
    ) -> SessionCheckpoint | None:
        """Return the latest saved state, or the one of that id; None without one.

        Raises as `SessionManager.get_session`.
        """
        session = await self._records.get(session_id, tenant=tenant, principal=principal)
        checkpoint_tuple = await self._checkpointer.aget_tuple(self._config(session, checkpoint_id))
        return None if checkpoint_tuple is None else _to_session_checkpoint(checkpoint_tuple)

    async def history(
        self,
        session_id: str,
        *,
        limit: int = 50,
        before: str | None = None,
        tenant: str = DEFAULT_TENANT,
        principal: Principal | None = None,
    ) -> list[SessionCheckpoint]:
        """Return saved states, newest first, from before the checkpoint `before`.

        Raises as `SessionManager.get_session`.
        """
        session = await self._records.get(session_id, tenant=tenant, principal=principal)
        before_config = None if before is None else self._config(session, before)
        listing = self._checkpointer.alist(self._config(session), before=before_config, limit=limit)
        return [_to_session_checkpoint(checkpoint_tuple) async for checkpoint_tuple in listing]

    async def save(
        self,
        session_id: str,
        values: Mapping[str, Any],
        *,
        tenant: str = DEFAULT_TENANT,
        principal: Principal | None = None,
    ) -> str:
        """Save `values` (channels such as `messages`) as the next turn's state.

        Channels that are not named keep theirs. Waits for a running turn. Returns the checkpoint's
        id. A principal needs the scope `command:<template>`, because a state steers the agent;
        raises Forbidden, and as `SessionManager.get_session`.
        """
        session = await self._records.get(session_id, tenant=tenant, principal=principal)
        scope = f"command:{session.agent.get('name') or '*'}"
        if principal is not None:
            check_scope(principal, scope)
        thread = thread_of(session.tenant, session.id)
        async with self._turns.acquire(thread) as turn_lease:
            latest = await self._checkpointer.aget_tuple(self._config(session))
            checkpoint = empty_checkpoint() if latest is None else latest.checkpoint
            versions = dict(checkpoint["channel_versions"])
            for channel in values:
                versions[channel] = self._checkpointer.get_next_version(versions.get(channel), None)
            merged = {**checkpoint["channel_values"], **values}
            new_id = str(uuid6())
            checkpoint = {
                **checkpoint,
                "id": new_id,
                "channel_values": merged,
                "channel_versions": versions,
            }
            config = self._config(
                session, None if latest is None else latest.config["configurable"]["checkpoint_id"]
            )
            config["configurable"][FENCING_TOKEN_KEY] = FencingToken(turn_lease.lease.token)
            step = -1 if latest is None else latest.metadata.get("step", -1)
            await self._checkpointer.aput(
                config, checkpoint, {"source": "update", "step": step + 1, "parents": {}}, {}
            )
        await self._records.update(session, lambda _: {})
        return new_id

    async def fork(
        self,
        session_id: str,
        checkpoint_id: str | None = None,
        *,
        title: str | None = None,
        tenant: str = DEFAULT_TENANT,
        principal: Principal | None = None,
    ) -> Session:
        """Create a session with the history of this one, up to a checkpoint or whole.

        Raises as `SessionManager.get_session`.
        """
        session = await self._records.get(session_id, tenant=tenant, principal=principal)
        new = await self._records.create(
            session.user_id,
            session.agent,
            session.tenant,
            None,
            title=session.title if title is None else title,
            metadata={**session.metadata, "forked_from": session.id},
            ttl_s=session.ttl_s,
        )
        source = thread_of(session.tenant, session.id)
        target = thread_of(new.tenant, new.id)
        try:
            async with self._turns.acquire(source):  # not a turn that is half done
                operations = self._checkpointer.operations
                await operations.arun(upkeep.copy_thread(operations, source, target, checkpoint_id))
        except BaseException:
            await self._records.delete(new.id, tenant=new.tenant)
            raise
        async with self._turns.acquire(target) as turn_lease:
            turn_lease.clean_shutdown = False  # its first turn looks whether a call was left open
        status = session.status if checkpoint_id is None else "failed"
        self._records.publish("forked", new, {"from": session.id})
        return await self._records.update(new, lambda _: {"status": status})

    async def is_interrupted(self, session: Session) -> bool:
        """Return whether the last saved state waits for a decision.

        After a crash the record may be idle.
        """
        saved = await self._checkpointer.aget_tuple(self._config(session))
        return saved is not None and any(
            channel == _INTERRUPT for _, channel, _ in saved.pending_writes or ()
        )

    @staticmethod
    def _config(session: Session, checkpoint_id: str | None = None) -> RunnableConfig:
        thread = thread_of(session.tenant, session.id)
        if checkpoint_id is not None:
            return config_of(thread, "", checkpoint_id)
        return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


def _to_session_checkpoint(checkpoint_tuple: CheckpointTuple) -> SessionCheckpoint:
    parent = (
        checkpoint_tuple.parent_config["configurable"]["checkpoint_id"]
        if checkpoint_tuple.parent_config
        else None
    )
    metadata: Any = checkpoint_tuple.metadata
    return SessionCheckpoint(
        id=checkpoint_tuple.checkpoint["id"],
        parent_id=parent,
        created_at=checkpoint_tuple.checkpoint["ts"],
        step=metadata.get("step", -1),
        source=metadata.get("source", ""),
        run_id=metadata.get("run_id"),
        values={
            k: v
            for k, v in checkpoint_tuple.checkpoint["channel_values"].items()
            if not k.startswith(("__", "branch:"))
        },
    )
