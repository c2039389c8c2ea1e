"""One turn of a session, as the layers and the core see it."""

from __future__ import annotations

from typing import Any

from agent_runtime.checkpoints.backends.backend import Guard, Records
from agent_runtime.checkpoints.blobs import Blobs
from agent_runtime.errors import StateNotSerializable
from agent_runtime.sessions.session import Session
from agent_runtime.sessions.turns import Held


class Turn:
    """A turn's lease, its thread in LangGraph, and the record of its tools' effects.

    `unfinished`: a turn before this one did not reach its end, and nobody has put the conversation
    in order since.
    """

    __slots__ = (
        "_blobs",
        "_held",
        "_own",
        "_records",
        "guard",
        "lease",
        "session",
        "thread",
        "unfinished",
    )

    def __init__(self, session: Session, held: Held, records: Records, blobs: Blobs) -> None:
        self.session = session
        self.lease = held.lease
        self.thread = held.lease.thread
        self.guard = Guard(held.lease.token)
        self._records = records
        self._blobs = blobs
        self._held = held
        self.unfinished = not held.lease.clean
        self._own: set[str] = set()

    def begins(self) -> None:
        """Mark the turn unfinished until it ends in order."""
        self._held.clean = False
        self._own.clear()

    async def tool_started(self, key: str) -> tuple[str, Any]:
        """Record that a tool call is about to have its effect.

        Returns `new`, or what an earlier attempt left: `ended` with its result, or `unknown` when
        it never ended.
        """
        found: bytes | None = await self._records.acall("tool_start", self.thread, key, self.guard)
        if found is None or key in self._own:
            self._own.add(key)  # the same attempt may call again: middleware that retries does
            return "new", None
        return (
            ("unknown", None)
            if found == b""
            else ("ended", self._blobs.open(found, "tool", self.thread, key)[0])
        )

    async def tool_ended(self, key: str, result: Any) -> None:
        """Record what the tool answered, so that the same call is never made twice."""
        try:
            data = self._blobs.close(result, "tool", self.thread, key)
        except StateNotSerializable:
            return  # the checkpoint will refuse it too; until then its effect is unknown
        await self._records.acall("tool_put", self.thread, key, data, self.guard)

    async def tool_failed(self, key: str) -> None:
        """The tool said that it failed: it may be tried again."""
        await self._records.acall("tool_put", self.thread, key, None, self.guard)

    async def tool_results(self) -> dict[str, Any]:
        """What tools of unfinished turns answered, by the key of their call.

        None for those that never ended.
        """
        found: dict[str, bytes] = await self._records.acall("tool_list", self.thread)
        return {
            key: self._blobs.open(data, "tool", self.thread, key)[0] if data else None
            for key, data in found.items()
        }

    async def settled(self) -> None:
        """Everything is saved and in order: the ledger is no longer needed."""
        await self._records.acall("tool_forget", self.thread, self.guard)
        self._held.clean = True
