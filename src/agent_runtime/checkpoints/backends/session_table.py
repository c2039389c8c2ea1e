"""Define the table of session records, which is what sessions are found by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.storage.operations import Operation


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session's record: `data` is sealed, the rest is for finding it.

    Times are seconds since the epoch.
    """

    key: str
    tenant: str
    user: str
    created_at: float
    expires_at: float | None
    data: bytes
    deleted_reason: str = ""


class SessionTable(ABC):
    """Store session records. Operations are atomic, and raise StoreError when the store fails."""

    @abstractmethod
    def put(self, row: SessionRow, old: SessionRow | None) -> Operation[bool]:
        """Store a record in place of `old` (None: it must be new); False when that has changed."""

    @abstractmethod
    def get(self, key: str) -> Operation[SessionRow | None]:
        """Return a record, also a deleted one."""

    @abstractmethod
    def page(
        self, tenant: str, user: str | None, before: tuple[float, str] | None, limit: int
    ) -> Operation[Sequence[SessionRow]]:
        """Return records of a tenant, or its user, newest first, before a (created_at, key)."""

    @abstractmethod
    def list_expired(self, limit: int) -> Operation[Sequence[SessionRow]]:
        """Return records that may be deleted, by the store's clock of deletions."""
