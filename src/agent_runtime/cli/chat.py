"""`agent-runtime chat`: a conversation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.options import AgentOptions, agent_options, build_agent
from agent_runtime.cli.output import echo
from agent_runtime.cli.run import print_answer
from agent_runtime.cli.sessions import show_pending
from agent_runtime.cli.state import event_recording, open_factory, open_sessions

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory
    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.types import AgentResult

_DECISIONS = {
    "y": "approve",
    "yes": "approve",
    "approve": "approve",
    "n": "reject",
    "no": "reject",
    "reject": "reject",
}


@click.command()
@agent_options
def chat(options: AgentOptions) -> None:
    """Chat with AGENT: one line a turn, until the end of input or /exit.

    With --session the conversation is stored and can be continued later. From a pipe every line is
    a turn. After a failed turn the conversation continues. When the agent asks for approval, `yes`
    and `no` decide; any other line is a new message instead.
    """
    import asyncio  # not at the top: `--help` pays for every import

    asyncio.run(_chat(options))


async def _chat(options: AgentOptions) -> None:
    import asyncio
    import uuid

    from agent_runtime.errors import AgentRuntimeError, CallError, SessionError

    session_id = options.session if options.session is not None else str(uuid.uuid4())
    store = options.store if options.session is not None else "memory:"
    async with (
        open_factory(
            session_manager=open_sessions(store), **options.factory_arguments()
        ) as factory,
        event_recording(factory),
    ):
        executor = build_agent(factory, options)
        is_interrupted = await _is_interrupted(factory, session_id)
        while (line := await asyncio.to_thread(_line)) is not None:
            if not line:
                continue
            try:
                result = await _run_turn(
                    executor, session_id, _turn_input(line, is_interrupted=is_interrupted)
                )
                is_interrupted = result.status == "interrupted"
            except (SessionError, CallError) as error:
                echo(f"{error}", err=True, label="error:", fg="red")
                if isinstance(error, SessionError):  # the session cannot continue
                    raise AgentRuntimeError("the session cannot be used") from None


async def _is_interrupted(factory: AgentFactory, session_id: str) -> bool:
    from agent_runtime.errors import SessionNotFound

    assert factory.session_manager is not None  # noqa: S101
    try:
        return (await factory.session_manager.get_session(session_id)).status == "interrupted"
    except SessionNotFound:
        return False


def _turn_input(line: str, *, is_interrupted: bool) -> Any:
    from agent_runtime.orchestration.approvals import Resume

    decision = _DECISIONS.get(line.lower()) if is_interrupted else None
    return line if decision is None else Resume(decision)


async def _run_turn(executor: AgentExecutor, session_id: str, value: Any) -> AgentResult:
    from agent_runtime.types import AgentContext

    async with executor.execute_stream(AgentContext(value, session_id=session_id)) as stream:
        await print_answer(stream)
    show_pending(stream.result)
    return stream.result


def _line() -> str | None:
    """Return the next line, or None at the end of the conversation."""
    if sys.stdin.isatty():
        echo(nl=False, err=True, label="you>", bold=True)
    line = sys.stdin.readline()
    return None if not line or line.strip() in ("/exit", "/quit") else line.strip()
