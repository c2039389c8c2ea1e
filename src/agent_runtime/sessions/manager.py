"""SessionManager: conversations by id, owned by a tenant and a user, over any of the stores."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from agent_runtime.checkpoints import upkeep
from agent_runtime.checkpoints.backends.backend import Lease, SessionRow
from agent_runtime.checkpoints.checkpointer import Checkpointer, MemoryCheckpointer
from agent_runtime.checkpoints.thread_ids import (
    checked_name,
    decode_cursor,
    encode_cursor,
    thread_of,
)
from agent_runtime.errors import (
    CheckpointCorrupt,
    CheckpointVersion,
    ConfigurationError,
    InputInvalid,
    SessionGone,
    SessionNotFound,
)
from agent_runtime.sessions.agent_record import check_agent
from agent_runtime.sessions.history import DEFAULT_TENANT, SessionHistory
from agent_runtime.sessions.opening import open_checkpointer
from agent_runtime.sessions.session import (
    ResumableAgent,
    Session,
    SessionPage,
    SessionStatus,
    check_not_reserved,
    check_sizes,
    tenant_of,
)
from agent_runtime.sessions.session_shape import is_session
from agent_runtime.sessions.turn import Turn
from agent_runtime.sessions.turns import MultitaskStrategy, Turns
from agent_runtime.storage.process_identity import lease_owner
from agent_runtime.types import ALL_SESSIONS, AgentResult, Principal, may_use


class SessionManager(SessionHistory):
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
        self._backend = self.checkpointer.records
        self._default_ttl_s = default_ttl_s
        self.turns = Turns(self._backend, lease_s=lease_s, max_waiting=max_waiting)
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
        return await self._create(
            user_id,
            {},
            tenant,
            principal,
            session_id=session_id,
            title=title,
            metadata=metadata,
            ttl_s=ttl_s,
        )

    async def _create(  # type: ignore[override]  # the general one names no keywords
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
        owner = principal.id if principal is not None else user_id or ""
        if (
            principal is not None
            and user_id not in (None, owner)
            and ALL_SESSIONS not in principal.scopes
        ):
            raise InputInvalid("a session is made for the one who asks", "user_id")
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
        if not await self._backend.acall("put_session", self._encode(session), None):
            # Also for a deleted one: an id is not reused.
            raise InputInvalid(f"the id '{session.id}' is taken", "session_id")
        self.publish("created", session, {"agent": session.agent, "title": title})
        return session

    async def get_session(
        self, session_id: str, *, tenant: str = DEFAULT_TENANT, principal: Principal | None = None
    ) -> Session:
        """Return the session.

        Raises SessionIdInvalid, SessionNotFound, or SessionGone when it was deleted or has expired.
        """
        key = thread_of(tenant_of(principal, tenant), session_id)
        return self._decode(await self._load_row(key, session_id, principal))

    async def _load_row(self, key: str, session_id: str, principal: Principal | None) -> SessionRow:
        row: SessionRow | None = await self._backend.acall("get_session", key)
        if row is None or not may_use(principal, row.user):
            raise SessionNotFound(session_id)
        if row.deleted_reason:
            raise SessionGone(
                session_id, "deleted" if row.deleted_reason == "deleted" else "expired"
            )
        if row.expires_at is not None and row.expires_at <= time.time():
            raise SessionGone(session_id, "expired")
        return row

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
        rows = await self._backend.acall(
            "page_sessions",
            effective_tenant,
            user_id,
            decode_cursor(cursor, effective_tenant),
            limit + 1,
        )
        unexpired = [r for r in rows[:limit] if r.expires_at is None or r.expires_at > time.time()]
        last = rows[limit - 1] if len(rows) > limit else None
        return SessionPage(
            [s for r in unexpired if (s := self._try_decode(r))],
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
        return await self._update(session, lambda _: changes)

    async def delete_session(
        self, session_id: str, *, tenant: str = DEFAULT_TENANT, principal: Principal | None = None
    ) -> None:
        """Delete the session with all stored data; its id stays taken. Raises as `get_session`."""
        key = thread_of(tenant_of(principal, tenant), session_id)
        while not await self._soft_delete(
            await self._load_row(key, session_id, principal), "deleted"
        ):
            pass  # it was changed in between: read it again

    async def cleanup_expired(self, limit: int = 1000) -> int:
        """Delete at most `limit` expired sessions without a running turn; return how many.

        A wall clock that has jumped ahead deletes nothing for an hour, so nothing is lost when it
        was wrong. Until then expired sessions are refused (SessionGone), and stored.
        """
        deleted_count = 0
        for row in await self._backend.acall("expired_sessions", limit):
            owner = lease_owner("cleanup")
            lease: Lease | None = await self._backend.acall(
                "acquire", row.key, owner, self.turns.lease_s
            )
            if lease is not None:
                was_deleted = await self._soft_delete(row, "expired")
                deleted_count += was_deleted
                if not was_deleted:  # it was used after we had read of it
                    await self._backend.acall("release", lease, lease.clean_shutdown)
        return deleted_count

    async def _soft_delete(self, row: SessionRow, reason: str) -> bool:
        tombstone = dataclasses.replace(row, data=b"", expires_at=None, deleted_reason=reason)
        if not await self._backend.acall("put_session", tombstone, row):
            return False
        await self._backend.acall("seize", row.key)  # a turn that runs may write no more
        await self.checkpointer.arun(upkeep.delete_thread(self.checkpointer, row.key))
        self.publish(
            "deleted", Session(row.key.partition(":")[2], row.tenant, row.user), {"reason": reason}
        )
        return True

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
                session = await self._update(session, lambda _: {"agent": dict(agent)})
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
            return await self._create(
                None, agent, tenant, principal, session_id=session_id, ttl_s=ttl_s
            )
        except InputInvalid:  # created concurrently; or another user's, which looks the same
            return await self.get_session(session_id, tenant=tenant, principal=principal)

    async def end_turn(self, session: Session, status: SessionStatus, title: str = "") -> Session:
        """Record the outcome of a turn, and renew the session's time to live.

        Other changes of the session stay.
        """
        return await self._update(
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
        if session.status == "idle" and not await self._is_interrupted(session):
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

    async def _update(
        self, session: Session, changes: Callable[[Session], Mapping[str, Any]]
    ) -> Session:
        """Update the session's record with `changes` and renew its time to live."""
        key = thread_of(session.tenant, session.id)
        while True:
            row: SessionRow | None = await self._backend.acall("get_session", key)
            if row is None or row.deleted_reason:  # one that was deleted stays so
                return session
            current = self._decode(row)
            now = time.time()
            expires_at = None if current.ttl_s is None else now + current.ttl_s
            new = dataclasses.replace(
                current, updated_at=now, expires_at=expires_at, **changes(current)
            )
            if await self._backend.acall("put_session", self._encode(new), row):
                return new

    def _encode(self, session: Session) -> SessionRow:
        key = thread_of(session.tenant, session.id)
        data = self.checkpointer.blobs.encode(session.to_dict(), "session", key)
        return SessionRow(
            key, session.tenant, session.user_id, session.created_at, session.expires_at, data
        )

    def _decode(self, row: SessionRow) -> Session:
        session = Session(
            **self.checkpointer.blobs.decode_as(is_session, row.data, "session", row.key)
        )
        if (session.tenant, session.user_id) != (row.tenant, row.user):
            raise CheckpointCorrupt(
                row.key, "the record and its index name different owners", damaged=False
            )
        return session

    def _try_decode(self, row: SessionRow) -> Session | None:
        try:
            return self._decode(row)
        except (CheckpointCorrupt, CheckpointVersion):  # its own error appears on access by id
            return None
