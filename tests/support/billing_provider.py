"""A model provider on loopback that bills.

It speaks OpenAI's wire format, and honours `Idempotency-Key`.

It counts what it was asked and what it billed, by itself: the truth that a ledger is compared with.
Run alone (`python -m ...billing_provider`) it prints its port, and its counts as JSON whenever a
line comes in on stdin; the line `admit` lets calls through that are held.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from tests.support.programs import with_tests
from tests.support.provider_server import Answer, openai_message
from tests.support.providers import forget_clients

MODEL = "openai:gpt-5-mini"
INPUT = 100
OUTPUT = 40
"""Tokens of every request."""


class BillingProvider:
    """Answers `did: <prompt>`.

    A key that it has answered before gets the same answer, and is not billed again.

    `delay_s` is what an answer takes. With `per_window` calls in any `window_s` more are answered
    by 429 with `Retry-After`, and, if `headers` says so, with what is left. With `holds_after` the
    calls after so many are held until `admitting` is set.
    """

    def __init__(
        self,
        delay_s: float = 0.01,
        *,
        per_window: int | None = None,
        window_s: float = 60.0,
        headers: bool = False,
        holds_after: float = math.inf,
    ) -> None:
        self.slow_s = 0.0
        """What an answer takes the first time that something is asked, instead."""
        self.delay_s = delay_s
        self._per_window = per_window
        self._window_s = window_s
        self._headers = headers
        self._holds_after = holds_after
        self.admitting = asyncio.Event()
        self.asked: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()
        self.refused = self.replayed = 0
        self._known: dict[str, bytes] = {}
        self._admitted: deque[float] = deque()
        self.times: list[tuple[float, bool]] = []
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def billed_usd(self) -> Decimal:
        """At the prices of the public table, as the ledger rounds them.

        Whole micro-USD for each call, up.
        """
        from agent_runtime.budgets.prices import PRICES

        price = PRICES.price("openai", "gpt-5-mini")
        assert price is not None
        one = price.cost_usd(
            {"input_tokens": INPUT, "output_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
        )
        assert one is not None
        return one * sum(self.billed.values())

    def counts(self) -> dict[str, Any]:
        asked = dict(self.asked)
        billed = dict(self.billed)
        return {
            "asked": asked,
            "billed": billed,
            "replayed": self.replayed,
            "usd": str(self.billed_usd),
        }

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(
                line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
            )
            request = json.loads(await reader.readexactly(int(fields["content-length"])))
            if self.asked.total() >= self._holds_after and not await self._admitted_from(reader):
                return
            await self._answer(request, fields.get("idempotency-key"), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            # LangChain's clients outlive a test's loop, so their connections must not
            writer.close()

    async def _admitted_from(self, reader: asyncio.StreamReader) -> bool:
        """Hold a call until it may go on; False when its client has hung up meanwhile."""
        gone = asyncio.ensure_future(reader.read(1))
        admitted = asyncio.ensure_future(self.admitting.wait())
        await asyncio.wait([gone, admitted], return_when=asyncio.FIRST_COMPLETED)
        admitted.cancel()
        if gone.done():
            return False
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        return True

    async def _answer(
        self, request: dict[str, Any], key: str | None, writer: asyncio.StreamWriter
    ) -> None:
        prompt = next(m["content"] for m in reversed(request["messages"]) if m["role"] == "user")
        self.asked[prompt] += 1
        if key is not None and key in self._known:
            self.replayed += 1
            await self._send(writer, 200, self._known[key], {})
            return
        wait_s = self._wait_s()
        self.times.append((time.monotonic(), wait_s is None))
        if wait_s is not None:
            self.refused += 1
            error = json.dumps(
                {"error": {"message": "too many requests", "code": "rate_limit_exceeded"}}
            ).encode()
            await self._send(writer, 429, error, {"retry-after": f"{wait_s:.3f}"})
            return
        first = self.slow_s if self.asked[prompt] == 1 else 0.0
        await asyncio.sleep(first or self.delay_s * random.uniform(0.5, 1.5))
        body = json.dumps(
            openai_message(Answer(text=f"did: {prompt}", usage=(INPUT, OUTPUT)))
        ).encode()
        self.billed[prompt] += 1  # from here on it is paid for, whoever hears of it
        if key is not None:
            self._known[key] = body
        left = {} if self._per_window is None or not self._headers else self._left()
        await self._send(writer, 200, body, left)

    def _wait_s(self) -> float | None:
        """None when the call is admitted, else after how long another one would be."""
        if self._per_window is None:
            return None
        now = time.monotonic()
        while self._admitted and now - self._admitted[0] >= self._window_s:
            self._admitted.popleft()
        if len(self._admitted) >= self._per_window:
            return self._admitted[0] + self._window_s - now
        self._admitted.append(now)
        return None

    def _left(self) -> dict[str, str]:
        assert self._per_window is not None
        reset_s = self._admitted[0] + self._window_s - time.monotonic() if self._admitted else 0.0
        left = self._per_window - len(self._admitted)
        return {
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": f"{max(0.0, reset_s):.3f}s",
        }

    async def _send(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str]
    ) -> None:
        lines = [f"HTTP/1.1 {status} X", "content-type: application/json", "connection: close"]
        lines.append(f"content-length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def billing(**settings: Any) -> AsyncIterator[BillingProvider]:
    provider = BillingProvider(**settings)
    server = await asyncio.start_server(provider.handle, "127.0.0.1", 0)
    provider.port = server.sockets[0].getsockname()[1]
    forget_clients()
    try:
        yield provider
    finally:
        server.close()
        await provider.close()


class ProviderProcess:
    """A provider in a process of its own; `with` starts and ends it."""

    def __init__(self, delay_s: float = 0.02, *, holds_after: float = math.inf) -> None:
        self._arguments = [str(delay_s), str(holds_after)]

    def __enter__(self) -> ProviderProcess:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.billing_provider", *self._arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**with_tests(),
            "DUMMY_KEY": "dummy"},
        )  # fmt: skip
        self.url = f"http://127.0.0.1:{int(self._line())}/v1"
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def counts(self, line: str = "") -> dict[str, Any]:
        """What it was asked, and what it billed, by prompt."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        counts: dict[str, Any] = json.loads(self._line())
        return counts

    def admit(self) -> None:
        """Answer what was held, and everything from now on."""
        self.counts("admit")

    def billed(self) -> int:
        """How many calls it has billed."""
        return sum(self.counts()["billed"].values())


def template(
    url: str, name: str = "stub", *, header: bool = True, runtime: str = "{retry: {attempts: 1}}"
) -> str:
    """An agent that asks the provider once."""
    named = "idempotency_header: Idempotency-Key, " if header else ""
    return (
        f"apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {{name: {name}}}\n"
        f"spec: {{model: {{id: '{MODEL}', base_url: '{url}', {named}api_key: {{from_env: "
        "DUMMY_KEY}, "
        f"params: {{max_tokens: 200}}}}, runtime: {runtime}}}\n"
    )


async def main() -> None:
    async with billing(delay_s=float(sys.argv[1]), holds_after=float(sys.argv[2])) as provider:
        print(provider.port, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line == "admit\n":
                provider.admitting.set()
            print(json.dumps(provider.counts()), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
