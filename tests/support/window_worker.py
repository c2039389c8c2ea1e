"""A process that knocks at one rate limit as often as it can, and writes down when it was let in.

Arguments: Redis URL, limit, seconds to go on, file.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from agent_runtime.limits.rate_limits import RateLimit, Window
from agent_runtime.limits.windows import RedisSlidingWindowStore


async def main(url: str, limit: str, seconds: float, file: str) -> None:
    item = RateLimit.parse(limit)
    window = Window("everybody", item.amount, item.window_s, limit)
    windows = RedisSlidingWindowStore(url, durable=False)
    until = time.monotonic() + seconds
    admitted = []

    async def knock() -> None:
        while time.monotonic() < until:
            answer = await windows.acquire([window])
            if answer.refused is None:
                admitted.append(answer.decided_at)
            await asyncio.sleep(0.002)

    await asyncio.gather(*(knock() for _ in range(10)))
    await windows.aclose()
    Path(file).write_text("\n".join(f"{at:.6f}" for at in admitted))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]))
