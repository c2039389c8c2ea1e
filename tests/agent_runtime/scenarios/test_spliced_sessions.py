"""A sealed session whose pieces come from different times, each of them sealed rightly for its
place."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import AgentContext, AgentFactory, InputInvalid, Resume, SessionManager
from agent_runtime.errors import CheckpointCorrupt
from agent_runtime.template import parse_template
from agent_runtime.testing import ScriptedChatModel, say

KEY = b"dummy-key-of-sessions-with-48-bytes-0123456789abc"[:48]
HEAD = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: %s}\n"
PAYER = HEAD % "payer" + "spec: {model: m, tools: [pay], interrupt_on: {pay: true}}\n"
FREE = HEAD % "free" + "spec: {model: m, tools: [pay]}\n"


class Shop:
    """An application whose sessions are in one file; each call of it is another process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "s.db"
        self.paid: list[int] = []

    async def call(self, name: str, given: Any, amount: int = 0) -> Any:
        def pay(amount: int) -> str:
            """Pay."""
            self.paid.append(amount)
            return "paid"

        script = [say("", ("pay", {"amount": amount})), say("done")] if amount else [say("done")]
        manager = SessionManager.from_url(f"sqlite:{self.file}", mac_key=KEY)
        async with AgentFactory(session_manager=manager) as factory:
            factory.register_tool("pay", pay)
            factory.register_model("m", ScriptedChatModel(script=script))
            for text in (PAYER, FREE):
                factory.register_template(parse_template(text))
            return await factory.create_from_template(name).execute(
                AgentContext(given, session_id="s1")
            )

    async def create(self) -> None:
        async with SessionManager.from_url(f"sqlite:{self.file}", mac_key=KEY) as manager:
            await manager.create_session(session_id="s1")

    def copy(self, name: str) -> Path:
        with sqlite3.connect(self.file) as database:
            database.execute("pragma wal_checkpoint(truncate)")
        database.close()
        return Path(shutil.copy(self.file, self.folder / name))

    def put_back(self, copy: Path) -> None:
        for suffix in ("-wal", "-shm"):
            Path(f"{self.file}{suffix}").unlink(missing_ok=True)
        shutil.copy(copy, self.file)
        self.file.chmod(0o600)

    def change(self, old: Path, change: Callable[[Any, Any], None]) -> None:
        source = sqlite3.connect(old)
        target = sqlite3.connect(self.file)
        change(source, target)
        target.commit()
        source.close()
        target.close()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


async def test_an_approval_is_of_what_was_asked(shop: Shop) -> None:
    await shop.create()
    empty = shop.copy("empty.db")
    assert (await shop.call("payer", "pay", 1_000_000)).status == "interrupted"
    first = shop.copy("first.db")
    shop.put_back(empty)  # the whole session, to an earlier state: that is promised to nobody
    assert (await shop.call("payer", "pay", 1)).status == "interrupted"

    def splice(old: Any, new: Any) -> None:
        rows = old.execute(
            "SELECT thread, namespace, channel, number, data FROM chunks WHERE channel = 'messages'"
        )
        for thread, namespace, channel, number, data in rows:
            new.execute(
                "UPDATE chunks SET data = ? WHERE thread = ? AND namespace = ? AND channel = ? "
                "AND number = ?",
                (data, thread, namespace, channel, number),
            )

    shop.change(first, splice)
    with pytest.raises(CheckpointCorrupt, match="of different states"):
        await shop.call("payer", Resume("approve"))
    assert shop.paid == []


async def test_the_agent_that_asked_stands_in_the_checkpoint_too(shop: Shop) -> None:
    await shop.create()
    empty = shop.copy("empty.db")
    assert (await shop.call("payer", "pay", 5)).status == "interrupted"

    def forget_the_agent(old: Any, new: Any) -> None:
        columns = [row[1] for row in old.execute("pragma table_info(sessions)")]
        (row,) = old.execute("SELECT * FROM sessions").fetchall()
        new.execute("DELETE FROM sessions")
        new.execute(
            f"INSERT INTO sessions VALUES ({', '.join('?' * len(columns))})",
            row,
        )

    shop.change(empty, forget_the_agent)
    with pytest.raises(InputInvalid, match="waits for its agent 'payer'"):
        await shop.call("free", Resume("approve"))
    assert shop.paid == []


async def test_a_sealed_conversation_goes_on_is_read_and_is_forked(shop: Shop) -> None:
    for _ in range(3):
        assert (await shop.call("free", "hi")).output == "done"
    async with SessionManager.from_url(f"sqlite:{shop.file}", mac_key=KEY) as manager:
        fork = await manager.checkpoints.fork("s1")
        for name in ("s1", fork.id):
            checkpoint = await manager.checkpoints.get(name)
            assert checkpoint is not None
            assert len(checkpoint.messages) == 6
