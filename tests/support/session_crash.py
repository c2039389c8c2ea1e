"""Kills a process at every boundary of a turn, restarts, and says what the next process finds.

Run as a program: `crash.py STORE_URL MODE FOLDER [STRIDE]` (STRIDE 1: every boundary). It forks a
child for each boundary (before and after every storage operation, before and after the tool's
effect), which kills itself there with SIGKILL; then another child that goes on, by a new message
(`message`) or by continuing the run (`continue`). Prints one JSON line for each boundary.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool

from agent_runtime import AgentContext, AgentFactory, AgentTemplate, SessionManager
from agent_runtime.testing import ScriptedChatModel, say
from tests.support.operations import operation_name

LEASE_S = 0.15


class Bomb:
    """Counts boundaries, and kills the process at number `at`."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0

    def tick(self) -> None:
        if self.passed == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed += 1


def script(messages: list[Any]) -> Any:
    if isinstance(messages[-1], ToolMessage):
        return say("done")
    return say("", ("pay", {})) if messages[-1].text == "pay" else say("hello")


async def turn(url: str, session: str, folder: Path, value: Any, bomb: Bomb) -> dict[str, Any]:
    """One turn in a process of its own: what it found, and what it did."""
    effects = folder / f"{session}.effects"
    acknowledged = folder / f"{session}.acknowledged"

    @tool
    async def pay() -> str:
        """Pay."""
        bomb.tick()
        with effects.open("a") as file:
            file.write("paid\n")
        bomb.tick()
        return "paid"

    async with SessionManager.from_url(url, lease_s=LEASE_S) as manager:
        records: Any = manager.checkpointer.backend
        arun_body = records.arun_body

        async def ticking(body: Any, args: Any) -> Any:
            if operation_name(body) == "renew_lease":
                return await arun_body(body, args)
            bomb.tick()
            answer = await arun_body(body, args)
            bomb.tick()
            return answer

        records.arun_body = ticking
        factory = AgentFactory(session_manager=manager)
        factory.register_model("script", ScriptedChatModel(script=script))
        factory.register_tool("pay", pay)
        spec = {"model": "script", "tools": ["pay"]}
        agent = factory.create_agent(
            AgentTemplate.model_validate(
                {
                    "apiVersion": "agent-runtime/v1",
                    "kind": "AgentTemplate",
                    "metadata": {"name": "t"},
                    "spec": spec,
                }
            )
        )
        result = await agent.execute(AgentContext(value, session_id=session))
        with acknowledged.open("a") as file:
            file.write(f"{value}\n")
        bomb.tick()
        return {"status": result.status, "messages": result.messages, "boundaries": bomb.passed}


def forked(work: Any) -> int:
    """Run `work` in a forked child; its exit status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        faulthandler.dump_traceback_later(40, exit=True)  # a child that hangs says where
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def run_turn(url: str, session: str, folder: Path, value: Any, at: int = -1) -> bool:
    """A turn in a child; False when the bomb went off."""

    def work() -> None:
        found = asyncio.run(turn(url, session, folder, value, Bomb(at)))
        messages = found.pop("messages")
        found["texts"] = [[m.type, str(m.text)] for m in messages]
        found["open"] = open_calls(messages)
        (folder / f"{session}.found").write_text(json.dumps(found))

    status = forked(work)
    if status and not os.WIFSIGNALED(status):
        raise SystemExit(f"the turn failed: {session} {value} at {at}")
    return status == 0


def open_calls(messages: list[Any]) -> list[str]:
    """Tool calls that are not answered before the next message of another kind."""
    found: list[str] = []
    for index, message in enumerate(messages):
        if isinstance(message, AIMessage):
            answered = set()
            for later in messages[index + 1 :]:
                if not isinstance(later, ToolMessage):
                    break
                answered.add(later.tool_call_id)
            found += [str(c["id"]) for c in message.tool_calls if c["id"] not in answered]
    return found


def main(url: str, mode: str, folder: Path, stride: int = 1) -> None:
    at = 0
    while True:
        session = f"s{at}"
        run_turn(url, session, folder, "hi")
        survived = run_turn(url, session, folder, "pay", at)
        run_turn(url, session, folder, "and now?" if mode == "message" else None)
        found = json.loads((folder / f"{session}.found").read_text())
        effects = folder / f"{session}.effects"
        found["at"] = at
        found["effects"] = len(effects.read_text().split()) if effects.exists() else 0
        found["acknowledged"] = (folder / f"{session}.acknowledged").read_text().split("\n")
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        if survived:
            return
        at += stride


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:]))
