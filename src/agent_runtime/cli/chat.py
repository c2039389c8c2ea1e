"""`agent-runtime chat`: a conversation."""

from __future__ import annotations

import sys

import click

from agent_runtime.cli.options import AgentOptions, agent_options, build_agent
from agent_runtime.cli.run import print_answer


@click.command()
@agent_options
def chat(options: AgentOptions) -> None:
    """Talk to AGENT: one line a turn, the conversation is remembered until the end of input or /exit.

    From a pipe every line is a turn. A turn that fails says so and the conversation goes on.
    """
    import asyncio  # not at the top: `--help` pays for every import

    asyncio.run(_chat(options))


async def _chat(options: AgentOptions) -> None:
    import asyncio
    import uuid

    from langgraph.checkpoint.memory import InMemorySaver

    from agent_runtime.errors import CallError
    from agent_runtime.factory import AgentFactory
    from agent_runtime.types import AgentContext

    session_id = str(uuid.uuid4())
    async with AgentFactory(checkpointer=InMemorySaver()) as factory:
        executor = build_agent(factory, options)
        while (line := await asyncio.to_thread(_line)) is not None:
            if not line:
                continue
            try:
                async with executor.execute_stream(AgentContext(line, session_id=session_id)) as stream:
                    await print_answer(stream)
            except CallError as error:
                click.echo(f"{click.style('error:', fg='red')} {error}", err=True)


def _line() -> str | None:
    """The next line, or None when the conversation is over."""
    if sys.stdin.isatty():
        click.echo(click.style("you> ", bold=True), nl=False, err=True)
    line = sys.stdin.readline()
    return None if not line or line.strip() in ("/exit", "/quit") else line.strip()
