"""What a broker has acknowledged is handled at least once, in order, whatever is killed or cut."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.support.durable_consumer import prove
from tests.support.proxy import losing_proxy


@pytest.mark.parametrize("kind", ["redis", pytest.param("nats", marks=pytest.mark.integration)])
@pytest.mark.timeout(120)
async def test_a_subscriber_killed_at_random_behind_a_cutting_proxy_sees_everything(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url: Any = request.getfixturevalue(f"{kind}_url")
    name = uuid.uuid4().hex
    with losing_proxy(urlsplit(url).port or 0, share=0.01) as port:
        cut = f"{kind}://127.0.0.1:{port}?name={name}"
        await prove(cut, cut, tmp_path, kills=2, events=480, seed=11)


async def test_the_same_on_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'events.db'}"
    await prove(url, url, tmp_path, kills=2, events=480, seed=12)
