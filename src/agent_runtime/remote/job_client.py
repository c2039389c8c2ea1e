"""One job on one worker, from the sending of the call to its answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent_runtime.chunks import HAS_ROOM, TextChunk, discard
from agent_runtime.errors import AgentFailed, TransferFailed
from agent_runtime.remote.exceptions import received, sent
from agent_runtime.remote.frames import packed, unpacked
from agent_runtime.remote.host_service import Service
from agent_runtime.remote.link import MAX_INBOX, MAX_INBOX_BYTES
from agent_runtime.remote.worker_agent import Job

if TYPE_CHECKING:
    from agent_runtime.remote.host_resources import Desk
    from agent_runtime.remote.link import Link
    from agent_runtime.run.state import Run
    from agent_runtime.types import AgentContext, AgentResult


class JobRun:
    """Sends a call to a worker, passes on its chunks, and answers its requests.

    `worn`: what it left behind (a tool in a thread, an exit under way) is in the way of another job
    there.
    """

    def __init__(self, number: int, link: Link, desk: Desk, run: Run) -> None:
        self._number = number
        self._link = link
        self._run = run
        self._inbox: deque[tuple[Any, ...]] = deque()
        self._bytes = 0
        self._came = asyncio.Event()
        self._dead: BaseException | None = None
        self._service = Service(desk, link, run)
        self.worn = False
        self.answered = False

    def take(self, message: tuple[Any, ...]) -> None:
        """A message from the worker; what another job says is not for this one's reader."""
        kind = message[0]
        if kind == "end":
            self._service.end(message[1])
        elif message[1] != self._number:
            if kind == "call":
                refuse(self._link, message[2])
        elif kind == "call":
            self._service.call(*message[2:])
        else:
            self._inbox.append(message)
            self._bytes += sum(len(part) for part in message if isinstance(part, bytes | str))
            self._came.set()
            if len(self._inbox) > MAX_INBOX or self._bytes > MAX_INBOX_BYTES:
                self._link.pause()

    def fail(self, error: BaseException) -> None:
        """The worker is gone; what it sent before is read first."""
        self._dead = error
        self._came.set()

    async def run(self, job: Job) -> AgentResult:
        """The worker's answer; raises what the agent raised there, or why the worker is gone."""
        self._link.send("run", self._number, packed(job))
        return await self._answer(self._run.context)

    async def stop(self) -> None:
        """Tell the worker to stop the job, and wait until it has.

        Its clean-up may still ask for things.
        """
        self._link.send("cancel", self._number)
        while not self.answered and await self._next() is not None:
            pass

    async def close(self, error: BaseException) -> None:
        """Stop what is done here for the job, and settle its open model and tool calls."""
        await self._service.close(error)

    async def _answer(self, context: AgentContext) -> AgentResult:
        emit = context.emit
        while True:
            message = await self._next()
            if message is None:
                assert self._dead is not None  # noqa: S101 - that is what None says
                raise self._dead
            kind = message[0]
            if kind == "text":
                context.progress.message_open = True
                if (emitted := emit(TextChunk(message[2], message[3]))) is not HAS_ROOM:
                    await emitted
            elif kind == "chunk":
                await emit(unpacked(message[2]))
            elif kind == "tell":
                self._service.tell(message[2], message[3])
            elif kind in ("ok", "error"):
                return self._ended(kind, message[2], message[3])

    async def _next(self) -> tuple[Any, ...] | None:
        """The next message; None when the worker is gone."""
        while not self._inbox:
            if self._dead is not None:
                return None
            self._came.clear()
            await self._came.wait()
        message = self._inbox.popleft()
        self._bytes -= sum(len(part) for part in message if isinstance(part, bytes | str))
        if (
            self._link.paused
            and len(self._inbox) < MAX_INBOX // 2
            and self._bytes <= MAX_INBOX_BYTES // 2
        ):
            self._link.resume()
        if message[0] in ("ok", "error"):
            self.answered = True
            self.worn = bool(message[3].get("threads_left") or message[3].get("worn"))
        return message

    def _ended(self, kind: str, data: bytes, progress: Mapping[str, Any]) -> AgentResult:
        context = self._run.context
        context.progress.ended = progress.get("ended", False)
        context.progress.resumable = progress.get("resumable", False)
        context.progress.message_open = progress.get("message_open", False)
        for number in range(progress.get("threads_left", 0)):
            self._run.threads.add(("worker", number))
        if kind == "ok":
            result: AgentResult = unpacked(data)
            result.usage = context.usage
            result.run_id = context.run_id
            result.session_id = context.session_id
            result.template_digest = context.template_digest
            return result
        error = received(unpacked(data), self._service.kept)
        if isinstance(error, Exception):
            raise error
        # SystemExit, KeyboardInterrupt: what ends a program there is a failed call here.
        raise AgentFailed(f"the agent raised {type(error).__name__}: {error}") from error


def job_of(context: AgentContext, run: Run) -> Job:
    """What of a call travels. Callbacks and a caller's own objects in `config` stay."""
    turn = context.turn
    config = context.config
    kept: dict[str, Any] | None = None
    if config is not None:
        kept = {k: v for k, v in config.items() if k in ("tags", "metadata", "recursion_limit")}
        given = config.get("configurable", {})
        kept["configurable"] = {
            k: v for k, v in given.items() if not k.startswith("__") and _travels(v)
        }
    return Job(
        input=context.input,
        run_id=context.run_id,
        session_id=context.session_id,
        streaming=context.streaming,
        silent=context.emit is discard,
        options=dict(context.options),
        context=context.context,
        metadata=context.metadata,
        config=kept,
        prompt=run.prompt,
        turn=None if turn is None else (turn.thread, turn.session.status, turn.unfinished),
        content=run.recorder.content,
        limits_loops=any(each.gate.limits.tool_loop is not None for each in run.lineage),
    )


def refuse(link: Link, number: int) -> None:
    """Answer a call of a job that has ended, so that nobody over there waits for ever."""
    ended = AgentFailed("the task that asked this has ended")
    link.send("reply", number, False, packed(sent(ended)))


def _travels(value: Any) -> bool:
    try:
        packed(value)
    except TransferFailed:
        return False
    return True
