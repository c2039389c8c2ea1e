"""One job on one worker, from the sending of the call to its answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent_runtime.chunks import HAS_CAPACITY, TextChunk, discard
from agent_runtime.errors import AgentFailed, TransferFailed
from agent_runtime.remote.exceptions import deserialize_exception, serialize_exception
from agent_runtime.remote.frames import dumps, loads
from agent_runtime.remote.host_service import HostService
from agent_runtime.remote.link import MAX_INBOX, MAX_INBOX_BYTES
from agent_runtime.remote.worker_agent import JobRequest

if TYPE_CHECKING:
    from agent_runtime.remote.host_resources import HostResources
    from agent_runtime.remote.link import Link
    from agent_runtime.run.state import Run
    from agent_runtime.types import AgentContext, AgentResult


class JobClient:
    """Send a call to a worker, pass on its chunks, and answer its requests.

    `tainted`: leftovers of the job (a tool in a thread, a running exit) prevent another job there.
    """

    def __init__(self, number: int, link: Link, resources: HostResources, run: Run) -> None:
        self._number = number
        self._link = link
        self._run = run
        self._inbox: deque[tuple[Any, ...]] = deque()
        self._inbox_bytes = 0
        self._message_arrived = asyncio.Event()
        self._worker_error: BaseException | None = None
        self._service = HostService(resources, link, run)
        self.tainted = False
        self.answered = False

    def on_message(self, message: tuple[Any, ...]) -> None:
        """Handle a message from the worker; those of other jobs are ignored."""
        kind = message[0]
        if kind == "end":
            self._service.cancel_call(message[1])
        elif message[1] != self._number:
            if kind == "call":
                reject_call(self._link, message[2])
        elif kind == "call":
            self._service.start_call(*message[2:])
        else:
            self._inbox.append(message)
            self._inbox_bytes += sum(len(part) for part in message if isinstance(part, bytes | str))
            self._message_arrived.set()
            if len(self._inbox) > MAX_INBOX or self._inbox_bytes > MAX_INBOX_BYTES:
                self._link.pause()

    def fail(self, error: BaseException) -> None:
        """Report the worker's end, after the messages it sent before."""
        self._worker_error = error
        self._message_arrived.set()

    async def run(self, job: JobRequest) -> AgentResult:
        """Return the worker's answer; raises the agent's error, or why the worker has ended."""
        self._link.send("run", self._number, dumps(job))
        return await self._read_answer(self._run.context)

    async def stop(self) -> None:
        """Tell the worker to stop the job, and wait until it has.

        Its clean-up may still ask for things.
        """
        self._link.send("cancel", self._number)
        while not self.answered and await self._next_message() is not None:
            pass

    async def close(self, error: BaseException) -> None:
        """Stop serving the job, and settle its open model and tool calls."""
        await self._service.close(error)

    async def _read_answer(self, context: AgentContext) -> AgentResult:
        emit = context.emit
        while True:
            message = await self._next_message()
            if message is None:
                assert self._worker_error is not None  # noqa: S101 - that is what None says
                raise self._worker_error
            kind = message[0]
            if kind == "text":
                context.progress.message_open = True
                if (emitted := emit(TextChunk(message[2], message[3]))) is not HAS_CAPACITY:
                    await emitted
            elif kind == "chunk":
                await emit(loads(message[2]))
            elif kind == "tell":
                self._service.handle_notification(message[2], message[3])
            elif kind in ("ok", "error"):
                return self._finish(kind, message[2], message[3])

    async def _next_message(self) -> tuple[Any, ...] | None:
        """Return the next message; None when the worker has ended."""
        while not self._inbox:
            if self._worker_error is not None:
                return None
            self._message_arrived.clear()
            await self._message_arrived.wait()
        message = self._inbox.popleft()
        self._inbox_bytes -= sum(len(part) for part in message if isinstance(part, bytes | str))
        if (
            self._link.paused
            and len(self._inbox) < MAX_INBOX // 2
            and self._inbox_bytes <= MAX_INBOX_BYTES // 2
        ):
            self._link.resume()
        if message[0] in ("ok", "error"):
            self.answered = True
            self.tainted = bool(message[3].get("threads_left") or message[3].get("worn"))
        return message

    def _finish(self, kind: str, data: bytes, progress: Mapping[str, Any]) -> AgentResult:
        context = self._run.context
        context.progress.finished = progress.get("ended", False)
        context.progress.resumable = progress.get("resumable", False)
        context.progress.message_open = progress.get("message_open", False)
        for number in range(progress.get("threads_left", 0)):
            self._run.running_threads.add(("worker", number))
        if kind == "ok":
            result: AgentResult = loads(data)
            result.usage = context.usage
            result.run_id = context.run_id
            result.session_id = context.session_id
            result.template_digest = context.template_digest
            return result
        error = deserialize_exception(loads(data), self._service.raised_errors)
        if isinstance(error, Exception):
            raise error
        # SystemExit, KeyboardInterrupt: they end a program, but here only a call.
        raise AgentFailed(f"the agent raised {type(error).__name__}: {error}") from error


def make_job_request(context: AgentContext, run: Run) -> JobRequest:
    """Return the transferable part of a call, without callbacks and objects in `config`."""
    turn = context.turn
    config = context.config
    transferable_config: dict[str, Any] | None = None
    if config is not None:
        transferable_config = {
            k: v for k, v in config.items() if k in ("tags", "metadata", "recursion_limit")
        }
        configurable = config.get("configurable", {})
        transferable_config["configurable"] = {
            k: v for k, v in configurable.items() if not k.startswith("__") and _is_transferable(v)
        }
    return JobRequest(
        input=context.input,
        run_id=context.run_id,
        session_id=context.session_id,
        streaming=context.streaming,
        silent=context.emit is discard,
        options=dict(context.options),
        context=context.context,
        metadata=context.metadata,
        config=transferable_config,
        prompt=run.prompt,
        turn=None if turn is None else (turn.thread, turn.session.status, turn.unfinished),
        content=run.recorder.content,
        limits_loops=any(ancestor.gate.limits.tool_loop is not None for ancestor in run.ancestry),
    )


def reject_call(link: Link, number: int) -> None:
    """Answer a call of a job that has ended, so that the worker does not wait forever."""
    error = AgentFailed("the task that asked this has ended")
    link.send("reply", number, False, dumps(serialize_exception(error)))


def _is_transferable(value: Any) -> bool:
    try:
        dumps(value)
    except TransferFailed:
        return False
    return True
