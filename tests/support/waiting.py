"""Wait for conditions."""

from __future__ import annotations

import asyncio
from typing import Any

FAST: dict[str, Any] = {"backoff_s": 0.001}


async def until(condition: Any, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)
