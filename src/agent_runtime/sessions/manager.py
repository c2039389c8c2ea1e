"""SessionManager: conversations by id, owned by a tenant and a user, over any of the stores."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from agent_runtime.checkpoints.backends.backend import Lease
from agent_runtime.checkpoints.checkpointer import Checkpointer, MemoryCheckpointer
from agent_runtime.checkpoints.thread_ids import (
    decode_cursor,
    encode_cursor,
    thread_of,
)
from agent_runtime.errors import (
    ConfigurationError,
    InputInvalid,
    SessionNotFound,
)
from agent_runtime.sessions.agent_record import check_agent
from agent_runtime.sessions.checkpoints import SessionCheckpoints
from agent_runtime.sessions.opening import open_checkpointer
from agent_runtime.sessions.records import DEFAULT_TENANT, SessionRecords
from agent_runtime.sessions.session import (
    ResumableAgent,
    Session,
    SessionPage,
    SessionStatus,
    check_sizes,
    tenant_of,
)
from agent_runtime.sessions.turn import Turn
from agent_runtime.sessions.turns import MultitaskStrategy, Turns
from agent_runtime.storage.process_identity import lease_owner
from agent_runtime.types import ALL_SESSIONS, AgentResult, Principal


class SessionManager:
    """Create, find, continue and delete sessions. One per store, shared by all agents and tasks.

    Every method takes the `principal` of the caller. A session of another tenant, or of another
    user of the same one (without the scope `sessions:all`), is answered exactly as one that does
    not exist: SessionNotFound. None is the application's own code: it may use every session of
    `tenant`, by default "default".

    Args:
        checkpointer: stores everything; in memory by default.
        default_ttl_s: for sessions without one; counted from the last use. None keeps them.
        lease_s, max_waiting: of `Turns`.
    """

    def __init__(
        self,
        checkpointer: Checkpointer | None = None,
        *,
        default_ttl_s: float | None = None,
        lease_s: float = 30.0,
        max_waiting: int = 100,
    ) -> None:
        self.checkpointer = checkpointer or MemoryCheckpointer()
        self._backend = self.checkpointer.backend
        self.records = SessionRecords(self.checkpointer, default_ttl_s)
        self.turns = Turns(self._backend, lease_s=lease_s, max_waiting=max_waiting)
        self.checkpoints = SessionCheckpoints(self.records, self.turns)
        self.agent_of: Callable[[Session, Principal | None], ResumableAgent] | None = None
        """Makes a session's agent again, for a principal who may resume it; the factory sets it."""

    @classmethod
    def from_url(
        cls, url: str, *, mac_key: bytes | None = None, allowed_types: Any = (), **settings: Any
    ) -> Self:
        """Make a manager of the sessions at an address (`StoreUrl`: memory, SQLite, Redis).

        Raises ConfigurationError for another address, StoreUnavailable when the store cannot be
        used (Redis: at the first use).
        """
        return cls(open_checkpointer(url, mac_key=mac_key, allowed_types=allowed_types), **settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the store's connections."""
        await self._backend.aclose()

    async def create_session(
        self,
        user_id: str | None = None,
        *,
        session_id: str | None = None,
        title: str = "",
        metadata: Mapping[str, Any] | None = None,
        ttl_s: float | None = None,
        tenant: str = DEFAULT_TENANT,
        principal: Principal | None = None,
    ) -> Session:
        """Create a session; its id is random (128 bit) unless one is set.

        The executor of its first turn records its agent. Raises SessionIdInvalid, InputInvalid when
        the id is taken, `user_id` is not the principal's own, or title or metadata are too large.
        """
        return await self.records.create(
            user_id,
            {},
            tenant,
            principal,
            session_id=session_id,
            title=title,
            metadata=metadata,
            ttl_s=ttl_s,
        )

    async def get_session(
        self, session_id: str, *, tenant: str = DEFAULT_TENANT, principal: Principal | None = None
    ) -> Session:
        """Return the session.

        Raises SessionIdInvalid, SessionNotFound, or SessionGone when it was deleted or has expired.
        """
        return await self.records.get(session_id, tenant=tenant, principal=principal)

    async def list_sessions(
        self,
        *,
        user_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        tenant: str = DEFAULT_TENANT,
        principal: Principal | None = None,
    ) -> SessionPage:
        """Return a page of sessions, newest first, of `user_id` or of all the caller may use."""
        if principal is not None and ALL_SESSIONS not in principal.scopes:
            user_id = principal.id if user_id in (None, principal.id) else "\x00nobody"
        if not 1 <= limit <= 1000:
            raise InputInvalid("a page has 1 to 1000 sessions", "limit")
        effective_tenant = tenant_of(principal, tenant)
        rows = await self._backend.sessions.page(
            effective_tenant,
            user_id,
            decode_cursor(cursor, effective_tenant),
            limit + 1,
        )
        unexpired = [r for r in rows[:limit] if r.expires_at is None or r.expires_at > time.time()]
        last = rows[limit - 1] if len(rows) > limit else None
        return SessionPage(
            [s for r in unexpired if (s := self.records.try_decode(r))],
            None if last is None else encode_cursor(last),
        )

    async def update_session(
        self,
        session_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        tenant: str = DEFAULT_TENANT,
        principal: Principal | None = None,
    ) -> Session:
        """Change the title or replace the metadata.

        Raises as `get_session`, InputInvalid if too large.
        """
        check_sizes(title, metadata)
        session = await self.get_session(session_id, tenant=tenant, principal=principal)
        changes: dict[str, Any] = {} if title is None else {"title": title}
        changes |= {} if metadata is None else {"metadata": dict(metadata)}
        return await self.records.update(session, lambda _: changes)

    async def delete_session(
        self, session_id: str, *, tenant: str = DEFAULT_TENANT, principal: Principal | None = None
    ) -> None:
        """Delete the session with all stored data; its id stays taken. Raises as `get_session`."""
        await self.records.delete(session_id, tenant=tenant, principal=principal)

    async def cleanup_expired(self, limit: int = 1000) -> int:
        """Delete at most `limit` expired sessions without a running turn; return how many.

        A wall clock that has jumped ahead deletes nothing for an hour, so nothing is lost when it
        was wrong. Until then expired sessions are refused (SessionGone), and stored.
        """
        deleted_count = 0
        for row in await self._backend.sessions.list_expired(limit):
            owner = lease_owner("cleanup")
            lease: Lease | None = await self._backend.acquire_lease(
                row.key, owner, self.turns.lease_s
            )
            if lease is not None:
                was_deleted = await self.records.soft_delete(row, "expired")
                deleted_count += was_deleted
                if not was_deleted:  # it was used after we had read of it
                    await self._backend.release_lease(lease, lease.clean_shutdown)
        return deleted_count

    @asynccontextmanager
    async def turn(
        self,
        session_id: str,
        *,
        agent: Mapping[str, Any] | None = None,
        create: bool = True,
        strategy: MultitaskStrategy = "enqueue",
        ttl_s: float | None = None,
        tenant: str = DEFAULT_TENANT,
        principal: Principal | None = None,
    ) -> AsyncIterator[Turn]:
        """Hold a session's turn.

        With `create` a missing session is created for the caller. `agent` is the record of the
        turn's agent: a session without one gets it, and a turn that continues an interrupted one
        (`create` is False) requires the session's own agent. Raises as `get_session`, as
        `Turns.hold`, and InputInvalid for another agent that would continue.
        """
        try:
            session = await self.get_session(session_id, tenant=tenant, principal=principal)
        except SessionNotFound:
            if not create:
                raise
            session = await self._create_for_turn(session_id, agent or {}, ttl_s, tenant, principal)
        async with self.turns.acquire(
            thread_of(session.tenant, session.id), strategy
        ) as turn_lease:
            # Read again: earlier turns may have changed or deleted it.
            session = await self.get_session(session_id, tenant=tenant, principal=principal)
            if not create:
                check_agent(session, agent or {})
            elif agent and not session.agent:
                session = await self.records.update(session, lambda _: {"agent": dict(agent)})
            yield Turn(session, turn_lease, self._backend, self.checkpointer.blobs)

    async def _create_for_turn(
        self,
        session_id: str,
        agent: Mapping[str, Any],
        ttl_s: float | None,
        tenant: str,
        principal: Principal | None,
    ) -> Session:
        try:
            return await self.records.create(
                None, agent, tenant, principal, session_id=session_id, ttl_s=ttl_s
            )
        except InputInvalid:  # created concurrently; or another user's, which looks the same
            return await self.get_session(session_id, tenant=tenant, principal=principal)

    async def end_turn(self, session: Session, status: SessionStatus, title: str = "") -> Session:
        """Record the outcome of a turn, and renew the session's time to live.

        Other changes of the session stay.
        """
        return await self.records.update(
            session, lambda now: {"status": status, "title": now.title or title}
        )

    async def resume_session(
        self,
        session_id: str,
        decision: Any,
        *,
        agent: ResumableAgent | None = None,
        tenant: str = DEFAULT_TENANT,
        principal: Principal | None = None,
    ) -> AgentResult:
        """Resume an interrupted session, in any process. Decisions are those of `Resume`.

        The factory builds the session's agent, unless `agent` is set: only when a decision is
        pending, and the principal may make it. Raises as `get_session`, InputInvalid when none is
        pending or `agent` is another one, Forbidden, and the errors of the call.
        """
        session = await self.get_session(session_id, tenant=tenant, principal=principal)
        if session.status == "idle" and not await self.checkpoints.is_interrupted(session):
            raise InputInvalid("this session has no pending decision", "decision")
        if principal is None and tenant != DEFAULT_TENANT:
            principal = Principal(session.user_id, tenant, frozenset({ALL_SESSIONS, "*"}))
        if agent is None:
            if self.agent_of is None:
                raise ConfigurationError(
                    "resume_session needs the agent, or a manager that a factory holds"
                )
            agent = self.agent_of(session, principal)
        if principal is not None:
            agent = agent.with_caller(principal=principal)
        return await agent.resume(session_id, decision)
