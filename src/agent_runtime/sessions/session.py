"""Describe sessions to callers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeAlias

from langchain_core.messages import BaseMessage

from agent_runtime.auth.identities import TRIGGER_PREFIX
from agent_runtime.errors import InputInvalid
from agent_runtime.size_limits import size_limit
from agent_runtime.types import AgentResult, Principal

SessionStatus: TypeAlias = Literal["idle", "interrupted", "failed", "drained"]
"""`interrupted`: a person is awaited. `failed` and `drained`: the last turn did not reach its end.
"""


@dataclass(frozen=True, slots=True)
class Session:
    """Describe one conversation. Times are Unix seconds.

    `expires_at` moves with every use, None is never. `agent` describes how to build its agent
    again: `template` (a registered name or a file), `inputs`, `overrides`.
    """

    id: str
    tenant: str
    user_id: str
    agent: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    status: SessionStatus = "idle"
    created_at: float = 0.0
    updated_at: float = 0.0
    expires_at: float | None = None
    ttl_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Sessions, newest first, and the cursor of the next page (None: this is the last)."""

    sessions: list[Session]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class SessionCheckpoint:
    """Describe a saved state of a session.

    The values of its channels, and its place in the history.
    """

    id: str
    parent_id: str | None
    created_at: str
    step: int
    source: str
    run_id: str | None
    values: dict[str, Any]

    @property
    def messages(self) -> list[BaseMessage]:
        """Return the conversation up to here."""
        stored_messages = self.values.get("messages")
        return (
            [m for m in stored_messages if isinstance(m, BaseMessage)]
            if isinstance(stored_messages, list)
            else []
        )


class ResumableAgent(Protocol):
    """Define what `resume_session` needs of an agent."""

    async def resume(self, session_id: str, decision: Any) -> AgentResult:
        """Answer the session's pending questions."""
        ...

    def with_caller(self, *, principal: Principal | None = None, credentials: Any = None) -> Self:
        """Return the same agent, called by `principal`."""
        ...


MAX_TITLE_CHARACTERS = size_limit("title_characters")
MAX_METADATA_BYTES = size_limit("metadata_bytes")
"""As JSON: every page of sessions carries the metadata of each."""


def check_sizes(title: str | None, metadata: Mapping[str, Any] | None) -> None:
    """Raise InputInvalid for a title or metadata larger than a record holds."""
    if title is not None and (not isinstance(title, str) or len(title) > MAX_TITLE_CHARACTERS):
        raise InputInvalid(f"a title is text of at most {MAX_TITLE_CHARACTERS} characters", "title")
    if metadata:
        try:
            size = len(
                json.dumps(dict(metadata), ensure_ascii=False, default=str).encode(errors="replace")
            )
        except (ValueError, RecursionError) as error:
            raise InputInvalid(f"metadata cannot be stored: {error}", "metadata") from None
        if size > MAX_METADATA_BYTES:
            raise InputInvalid(
                f"metadata has at most {MAX_METADATA_BYTES} bytes, not {size}", "metadata"
            )


TRIGGER_SESSION_PREFIX = "trigger-"
"""Prefix of the session ids of trigger rules, which callers must not take."""


def check_not_reserved(session_id: str | None, principal: Principal | None) -> None:
    """Raise InputInvalid for an id that only a trigger's rule may give to its session."""
    if session_id is None or not session_id.startswith(TRIGGER_SESSION_PREFIX):
        return
    if principal is not None and not principal.id.startswith(TRIGGER_PREFIX):
        raise InputInvalid(
            f"ids that begin with '{TRIGGER_SESSION_PREFIX}' are those of trigger rules",
            "session_id",
        )


def tenant_of(principal: Principal | None, tenant: str) -> str:
    """Return the tenant of a request: a principal's own, regardless of the argument."""
    return tenant if principal is None else principal.tenant
