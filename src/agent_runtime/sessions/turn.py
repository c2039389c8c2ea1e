"""One turn of a session, as the layers and the core see it."""

from __future__ import annotations

from typing import Any

from agent_runtime.checkpoints.backends.backend import CheckpointBackend, FencingToken
from agent_runtime.checkpoints.blobs import Blobs
from agent_runtime.errors import StateNotSerializable
from agent_runtime.sessions.session import Session
from agent_runtime.sessions.turns import TurnLease


class Turn:
    """Hold a turn's lease, its thread in LangGraph, and the record of its tools' effects.

    `unfinished`: an earlier turn did not reach its end, and has not been recovered since.
    """

    __slots__ = (
        "_backend",
        "_blobs",
        "_started_keys",
        "_turn_lease",
        "fencing_token",
        "lease",
        "session",
        "thread",
        "unfinished",
    )

    def __init__(
        self, session: Session, turn_lease: TurnLease, backend: CheckpointBackend, blobs: Blobs
    ) -> None:
        self.session = session
        self.lease = turn_lease.lease
        self.thread = turn_lease.lease.thread
        self.fencing_token = FencingToken(turn_lease.lease.token)
        self._backend = backend
        self._blobs = blobs
        self._turn_lease = turn_lease
        self.unfinished = not turn_lease.lease.clean_shutdown
        self._started_keys: set[str] = set()

    def mark_running(self) -> None:
        """Mark the turn unfinished until it ends in order."""
        self._turn_lease.clean_shutdown = False
        self._started_keys.clear()

    async def tool_started(self, key: str) -> tuple[str, Any]:
        """Record that a tool call is about to have its effect.

        Returns `new`, or the state of an earlier attempt: `ended` with its result, or `unknown`
        without an end.
        """
        recorded_result: bytes | None = await self._backend.start_tool_call(
            self.thread, key, self.fencing_token
        )
        if recorded_result is None or key in self._started_keys:
            self._started_keys.add(key)  # middleware that retries may call again
            return "new", None
        return (
            ("unknown", None)
            if recorded_result == b""
            else ("ended", self._blobs.decode(recorded_result, "tool", self.thread, key)[0])
        )

    async def tool_ended(self, key: str, result: Any) -> None:
        """Record a tool's result, so that the same call is never repeated."""
        try:
            data = self._blobs.encode(result, "tool", self.thread, key)
        except StateNotSerializable:
            return  # the checkpoint will refuse it too; until then its effect is unknown
        await self._backend.record_tool_result(self.thread, key, data, self.fencing_token)

    async def tool_failed(self, key: str) -> None:
        """Record that the tool failed: it may be run again."""
        await self._backend.record_tool_result(self.thread, key, None, self.fencing_token)

    async def tool_results(self) -> dict[str, Any]:
        """Return the results of unfinished turns' tools, by the key of their call.

        None without an end.
        """
        encoded_results = await self._backend.tool_results(self.thread)
        return {
            key: self._blobs.decode(data, "tool", self.thread, key)[0] if data else None
            for key, data in encoded_results.items()
        }

    async def settled(self) -> None:
        """Delete the tools' records: everything is saved and consistent."""
        await self._backend.forget_tool_calls(self.thread, self.fencing_token)
        self._turn_lease.clean_shutdown = True
