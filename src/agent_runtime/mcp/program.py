"""MCP servers that are programs: started under a supervisor, on their stdio."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import termios
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from agent_runtime.size_limits import size_limit

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

    from mcp.shared.message import SessionMessage

SUPERVISOR = str(Path(__file__).with_name("supervisor.py"))
GRACE_S = 2.0
"""Seconds that a server has to end after its input has ended; the protocol asks for such a time."""
MAX_MESSAGE_BYTES = size_limit("mcp_message_bytes")
_CHUNK_BYTES = 64 * 1024


class NotDelivered(ConnectionError):
    """Report that the server cannot have read a request, so that it may be sent again."""


class ProgramWriter:
    """The input of a program, as a session's stream of messages."""

    def __init__(self, stdin: StreamWriter) -> None:
        self._stdin = stdin
        # A duplicate: asyncio closes the other descriptor as soon as the program has ended.
        self._fd: int | None = os.dup(stdin.get_extra_info("pipe").fileno())
        self._written_bytes = 0
        self._end_offsets: dict[int | str | None, int] = {}
        self._read_bytes = 0

    async def send(self, message: SessionMessage) -> None:
        """Write a message.

        Raises NotDelivered when the program has ended before it read the whole of it.
        """
        data = message.message.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n"
        request_id = getattr(message.message.root, "id", None)
        try:
            self._stdin.write(data)
            if self._stdin.is_closing():  # the reading end is closed, and nothing was written
                raise NotDelivered("the server has ended")
            self._written_bytes += len(data)
            self._end_offsets[request_id] = self._written_bytes
            await self._stdin.drain()
        except NotDelivered:
            raise
        except (ConnectionError, RuntimeError) as error:
            if self.has_read(request_id):
                raise ConnectionError("the server has ended") from error
            raise NotDelivered("the server has ended") from error

    def has_read(self, request_id: int | str | None) -> bool:
        """Return whether the program may have read a request.

        An unread one is in the pipe, and an answered one was read.
        """
        if self._fd is not None:
            unread = int.from_bytes(
                fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)), sys.byteorder
            )
            transport: Any = self._stdin.transport
            self._read_bytes = self._written_bytes - unread - transport.get_write_buffer_size()
        return self._end_offsets.get(request_id, 0) <= self._read_bytes

    def close_request(self, request_id: int | str) -> None:
        """Drop a request that needs no answer any more."""
        self._end_offsets.pop(request_id, None)

    async def aclose(self) -> None:
        """End the program's input."""
        if self._fd is not None:
            self.has_read(None)
            os.close(self._fd)
            self._fd = None
        self._stdin.close()


@asynccontextmanager
async def run_program(
    connection: Mapping[str, Any], stderr: TextIO
) -> AsyncIterator[tuple[Any, ProgramWriter]]:
    """Start a server; yield the stream of its messages and its input; end it with all its children.

    `connection` has `command`, `args`, `env` and `cwd`; `stderr` receives the program's stderr. On
    Linux the server also ends with this process, however that ends. Raises OSError, ValueError for
    a message of more than MAX_MESSAGE_BYTES.
    """
    import anyio
    from mcp.client.stdio import get_default_environment

    process = await asyncio.create_subprocess_exec(
        *_supervised_command([connection["command"], *connection["args"]]),
        stdin=PIPE,
        stdout=PIPE,
        stderr=stderr,
        env={**get_default_environment(), **connection["env"]},
        cwd=connection["cwd"],
        start_new_session=True,
    )
    sink, messages = anyio.create_memory_object_stream[Any](0)
    writer = ProgramWriter(cast("StreamWriter", process.stdin))
    try:
        async with sink, messages, anyio.create_task_group() as group:
            group.start_soon(_read_messages, cast("StreamReader", process.stdout), sink)
            yield messages, writer
            group.cancel_scope.cancel()
    finally:
        await writer.aclose()
        await _terminate(process)


def _supervised_command(command: list[str]) -> list[str]:
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", SUPERVISOR, str(os.getpid()), *command]


async def _read_messages(stdout: StreamReader, sink: Any) -> None:
    """Send every message of the program; an invalid line is sent as an error."""
    import anyio
    from mcp.shared.message import SessionMessage
    from mcp.types import JSONRPCMessage

    partial_line: list[bytes] = []
    size = 0
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async with sink:
            while data := await stdout.read(_CHUNK_BYTES):
                *lines, last = data.split(b"\n")
                for line in lines:
                    full_line = b"".join([*partial_line, line])
                    partial_line.clear()
                    size = 0
                    try:
                        message: Any = SessionMessage(JSONRPCMessage.model_validate_json(full_line))
                    except ValueError as error:
                        message = error
                    await sink.send(message)
                partial_line.append(last)
                size += len(last)
                if size > MAX_MESSAGE_BYTES:
                    raise ValueError(
                        f"the server sent a message of more than {MAX_MESSAGE_BYTES} bytes"
                    )


async def _terminate(process: Process) -> None:
    try:
        for send_signal in (process.terminate, process.kill):
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await process.wait()
                return
            with suppress(ProcessLookupError):
                send_signal()
        await process.wait()
    finally:
        if process.returncode is None:  # cancelled again: the supervisor ends the rest
            with suppress(ProcessLookupError):
                process.terminate()
