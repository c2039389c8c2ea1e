"""A TCP proxy that loses replies: the server has done what it was asked, and the connection
ends."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def losing_proxy(port: int, share: float, seed: int = 7, listen: int = 0) -> Iterator[int]:
    """A port that leads to `port`, on a thread of its own; a `share` of replies is lost."""
    ready = threading.Event()
    ports: list[int] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    dice = random.Random(seed)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)

        async def forward(
            source: asyncio.StreamReader, target: asyncio.StreamWriter, lost: float
        ) -> None:
            try:
                while data := await source.read(1 << 16):
                    if dice.random() < lost:
                        break
                    target.write(data)
                    await target.drain()
            except ConnectionError:
                pass
            finally:
                for each in (writer, there[1]):
                    each.close()

        await asyncio.gather(forward(reader, there[1], 0), forward(there[0], writer, share))

    async def serve() -> None:
        over = asyncio.Event()
        server = await asyncio.start_server(handle, "127.0.0.1", listen)
        ports.append(server.sockets[0].getsockname()[1])
        loops.append((asyncio.get_running_loop(), over))
        ready.set()
        await over.wait()
        server.close()
        mine = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not mine:
                task.cancel()
        await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield ports[0]
    finally:
        loop, over = loops[0]
        loop.call_soon_threadsafe(over.set)
        thread.join(5)
