"""One dead letter: an event or a task that could not be handled."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

from agent_runtime.errors.user_code import error_text
from agent_runtime.event_bus.cloud_event import to_jsonable
from agent_runtime.secrets.redaction import SECRETS


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Describe a failed event or task.

    `queue` names its consumer, `payload` is its JSON data, `error` the last failure's class and
    `message` its text, without secrets; `attempts` counts attempts, `added_at` is in Unix seconds;
    `tenant` and `user` own it, empty for the application's own.
    """

    queue: str
    payload: Any
    error: str
    message: str = ""
    attempts: int = 1
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    added_at: float = field(default_factory=time.time)
    tenant: str = ""
    user: str = ""

    @classmethod
    def of(
        cls,
        queue: str,
        payload: Any,
        error: BaseException,
        attempts: int,
        *,
        tenant: str | None = None,
        user: str | None = None,
    ) -> DeadLetter:
        """Return the letter of a failure; secrets are masked."""
        content = SECRETS.redact_json(to_jsonable(payload))
        message = SECRETS.text(error_text(error))
        return cls(
            queue,
            content,
            type(error).__name__,
            message,
            attempts,
            tenant=tenant or "",
            user=user or "",
        )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> DeadLetter:
        """Return the letter that `to_dict` describes; `added_s` is an older name of `added_at`."""
        return cls(**{"added_at" if k == "added_s" else k: v for k, v in content.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        return asdict(self)


@runtime_checkable
class DeadLetters(Protocol):
    """Store dead letters. Methods raise StoreError when the store fails."""

    def add(self, letter: DeadLetter) -> Awaitable[None]:
        """Keep a letter. Adding one with a known id changes nothing."""

    def list(
        self, queue: str | None = None, *, limit: int = 100
    ) -> Awaitable[Sequence[DeadLetter]]:
        """Return the oldest letters first, of one queue or of all."""

    def get(self, letter_id: str) -> Awaitable[DeadLetter | None]:
        """Return the letter, or None."""

    def remove(self, letter_id: str) -> Awaitable[bool]:
        """Throw it away; False when it is not there."""

    def count(self, queue: str | None = None) -> Awaitable[int]:
        """Return how many letters there are."""

    async def aclose(self) -> None:
        """Close the store."""
