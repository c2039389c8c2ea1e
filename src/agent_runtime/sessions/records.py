"""The records of sessions: their rows in the store, their owners, and their events."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from agent_runtime.checkpoints.backends.session_table import SessionRow
from agent_runtime.checkpoints.checkpointer import Checkpointer
from agent_runtime.checkpoints.thread_ids import checked_name, thread_of
from agent_runtime.errors import (
    CheckpointCorrupt,
    CheckpointVersion,
    InputInvalid,
    SessionGone,
    SessionNotFound,
)
from agent_runtime.event_bus import Event, EventBus
from agent_runtime.sessions.session import (
    Session,
    check_not_reserved,
    check_sizes,
    tenant_of,
)
from agent_runtime.sessions.session_shape import is_session
from agent_runtime.types import ALL_SESSIONS, Principal, may_use

DEFAULT_TENANT = "default"


class SessionRecords:
    """Create, read, update and delete the records of sessions, and publish their events.

    Args:
        checkpointer: stores the records beside the checkpoints.
        default_ttl_s: for sessions without one; None keeps them.
    """

    def __init__(self, checkpointer: Checkpointer, default_ttl_s: float | None) -> None:
        self.checkpointer = checkpointer
        self._backend = checkpointer.backend
        self.bus: EventBus | None = None
        """Receives the sessions' events; the factory sets it."""
        self._default_ttl_s = default_ttl_s

    async def create(
        self,
        user_id: str | None,
        agent: Mapping[str, Any],
        tenant: str,
        principal: Principal | None,
        *,
        session_id: str | None = None,
        title: str = "",
        metadata: Mapping[str, Any] | None = None,
        ttl_s: float | None = None,
    ) -> Session:
        """Create a session of `agent`'s record. Raises as `SessionManager.create_session`."""
        owner = principal.id if principal is not None else user_id or ""
        if (
            principal is not None
            and user_id not in (None, owner)
            and ALL_SESSIONS not in principal.scopes
        ):
            raise InputInvalid("a principal creates sessions for its own user only", "user_id")
        owner = user_id or owner
        if ttl_s is not None and not ttl_s > 0:
            raise InputInvalid(f"a time to live is above 0 seconds, not {ttl_s}", "ttl_s")
        check_sizes(title, metadata)
        check_not_reserved(session_id, principal)
        now = time.time()
        ttl_s = self._default_ttl_s if ttl_s is None else ttl_s
        session = Session(
            id=uuid.uuid4().hex if session_id is None else checked_name(session_id),
            tenant=checked_name(tenant_of(principal, tenant), "tenant"),
            user_id=owner,
            agent=dict(agent),
            title=title,
            metadata=dict(metadata or {}),
            created_at=now,
            updated_at=now,
            expires_at=None if ttl_s is None else now + ttl_s,
            ttl_s=ttl_s,
        )
        if not await self._backend.sessions.put(self._encode(session), None):
            # Also for a deleted one: an id is not reused.
            raise InputInvalid(f"the id '{session.id}' is taken", "session_id")
        self.publish("created", session, {"agent": session.agent, "title": title})
        return session

    async def get(
        self, session_id: str, *, tenant: str = DEFAULT_TENANT, principal: Principal | None = None
    ) -> Session:
        """Return the session.

        Raises SessionIdInvalid, SessionNotFound, or SessionGone when it was deleted or has expired.
        """
        key = thread_of(tenant_of(principal, tenant), session_id)
        return self.decode(await self.load_row(key, session_id, principal))

    async def load_row(self, key: str, session_id: str, principal: Principal | None) -> SessionRow:
        """Return the row of a session that the caller may use; raises as `get`."""
        row: SessionRow | None = await self._backend.sessions.get(key)
        if row is None or not may_use(principal, row.user):
            raise SessionNotFound(session_id)
        if row.deleted_reason:
            raise SessionGone(
                session_id, "deleted" if row.deleted_reason == "deleted" else "expired"
            )
        if row.expires_at is not None and row.expires_at <= time.time():
            raise SessionGone(session_id, "expired")
        return row

    async def update(
        self, session: Session, changes: Callable[[Session], Mapping[str, Any]]
    ) -> Session:
        """Update the session's record with `changes` and renew its time to live."""
        key = thread_of(session.tenant, session.id)
        while True:
            row: SessionRow | None = await self._backend.sessions.get(key)
            if row is None or row.deleted_reason:  # one that was deleted stays so
                return session
            current = self.decode(row)
            now = time.time()
            expires_at = None if current.ttl_s is None else now + current.ttl_s
            new = dataclasses.replace(
                current, updated_at=now, expires_at=expires_at, **changes(current)
            )
            if await self._backend.sessions.put(self._encode(new), row):
                return new

    async def delete(
        self, session_id: str, *, tenant: str = DEFAULT_TENANT, principal: Principal | None = None
    ) -> None:
        """Delete a session with all stored data; its id stays taken. Raises as `get`."""
        key = thread_of(tenant_of(principal, tenant), session_id)
        while not await self.soft_delete(
            await self.load_row(key, session_id, principal), "deleted"
        ):
            pass  # it was changed in between: read it again

    async def soft_delete(self, row: SessionRow, reason: str) -> bool:
        """Replace a row by a tombstone and delete its thread; False when it has changed."""
        tombstone = dataclasses.replace(row, data=b"", expires_at=None, deleted_reason=reason)
        if not await self._backend.sessions.put(tombstone, row):
            return False
        await self._backend.revoke_lease(row.key)  # a turn that runs may write no more
        await self.checkpointer.adelete_thread(row.key)
        self.publish(
            "deleted", Session(row.key.partition(":")[2], row.tenant, row.user), {"reason": reason}
        )
        return True

    def try_decode(self, row: SessionRow) -> Session | None:
        """Return the session of a row, or None for a damaged one."""
        try:
            return self.decode(row)
        except (CheckpointCorrupt, CheckpointVersion):  # its own error appears on access by id
            return None

    def decode(self, row: SessionRow) -> Session:
        """Return the session of a row; raises CheckpointCorrupt, CheckpointVersion."""
        session = Session(
            **self.checkpointer.blobs.decode_as(is_session, row.data, "session", row.key)
        )
        if (session.tenant, session.user_id) != (row.tenant, row.user):
            raise CheckpointCorrupt(
                row.key, "the record and its index name different owners", damaged=False
            )
        return session

    def publish(
        self, kind: str, session: Session, data: Mapping[str, Any], run_id: str | None = None
    ) -> None:
        """Publish an event of a session."""
        if self.bus is not None:
            owner = session.user_id or None
            self.bus.publish(
                Event(f"session.{kind}", data, run_id, session.id, owner, tenant=session.tenant)
            )

    def _encode(self, session: Session) -> SessionRow:
        key = thread_of(session.tenant, session.id)
        data = self.checkpointer.blobs.encode(session.to_dict(), "session", key)
        return SessionRow(
            key, session.tenant, session.user_id, session.created_at, session.expires_at, data
        )
