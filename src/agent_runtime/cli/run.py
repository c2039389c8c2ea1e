"""`agent-runtime run`: one call."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.options import AgentOptions, agent_options, build_agent
from agent_runtime.cli.output import echo, echo_json
from agent_runtime.cli.sessions import EXIT_INTERRUPTED, show_pending
from agent_runtime.cli.state import event_recording, open_factory, open_sessions

if TYPE_CHECKING:
    from agent_runtime.chunks import Chunk
    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.orchestration.stream import AgentStream
    from agent_runtime.types import AgentContext, AgentResult


@click.command()
@agent_options
@click.argument("prompt", required=False)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object: output, usage, cost_usd, run_id, status...",
)
@click.option(
    "--jsonl",
    "as_jsonl",
    is_flag=True,
    help="Print one JSON object per event as it comes; the last is the result.",
)
def run(options: AgentOptions, prompt: str | None, *, as_json: bool, as_jsonl: bool) -> int:
    """Run AGENT (a template file or a name) once on PROMPT (default: stdin).

    The answer goes to stdout, and is streamed when that is a terminal; notes go to stderr.
    """
    if as_json and as_jsonl:
        raise click.UsageError("--json and --jsonl exclude each other")
    import asyncio  # not at the top: `--help` pays for every import

    return asyncio.run(_run(options, _prompt(prompt), as_json=as_json, as_jsonl=as_jsonl))


def _prompt(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("give a PROMPT, or pipe one into stdin")
    return sys.stdin.read().strip()


async def _run(options: AgentOptions, prompt: str, *, as_json: bool, as_jsonl: bool) -> int:
    import uuid

    from agent_runtime.errors import CallError
    from agent_runtime.factory import AgentFactory
    from agent_runtime.types import AgentContext

    may_interrupt = bool(AgentFactory().get_template(options.agent).spec.interrupt_on)
    session = (
        options.session if options.session is not None or not may_interrupt else uuid.uuid4().hex
    )
    # Without a session nothing of the conversation is left behind.
    sessions = None if session is None else open_sessions(options.store)
    async with (
        open_factory(session_manager=sessions, **options.factory_arguments()) as factory,
        event_recording(factory),
    ):
        executor = build_agent(factory, options)
        try:
            call = AgentContext(prompt, session_id=session)
            result = await _execute(executor, call, as_json=as_json, as_jsonl=as_jsonl)
        except CallError as error:
            if as_json or as_jsonl:
                echo_json(error_dict(error))
            raise
    if as_json:
        echo_json(result.to_dict())
    elif not options.quiet and sys.stderr.isatty():
        echo(summary(result), err=True, dim=True)
    show_pending(result)
    return EXIT_INTERRUPTED if result.status == "interrupted" else 0


async def _execute(
    executor: AgentExecutor, call: AgentContext, *, as_json: bool, as_jsonl: bool
) -> AgentResult:
    if as_json:
        return await executor.execute(call)
    async with executor.execute_stream(call) as stream:
        if as_jsonl:
            async for chunk in stream.chunks():
                echo_json(chunk_dict(chunk))
            echo_json({"type": "result", **stream.result.to_dict()})
        else:
            await print_answer(stream)
    return stream.result


async def print_answer(stream: AgentStream) -> None:
    """Print the text as it streams to a terminal; elsewhere the final answer only."""
    live = sys.stdout.isatty()
    printed_text = ""
    async for text in stream:
        if live:
            echo(text, nl=False)
            printed_text += text
    answer = stream.result.output
    if not printed_text.endswith(answer):  # a structured answer, or not a terminal
        echo(("\n" if printed_text else "") + answer, nl=False)
    echo()


def summary(result: AgentResult) -> str:
    """Return one line about a call's usage."""
    usage = result.usage
    tokens = f"{'about ' if usage.estimated else ''}{usage.total_tokens} tokens"
    cost = "cost unknown" if result.cost_usd is None else f"{result.cost_usd:f} USD"
    calls = f"{usage.model_calls} model calls, {usage.tool_calls} tool calls"
    return f"{calls}, {tokens}, {cost}, {result.duration_s:.2f} s"


def chunk_dict(chunk: Chunk) -> dict[str, Any]:
    """Return a chunk as `--jsonl` prints it: `{"type": "text", ...}` with its own fields."""
    fields = {f.name: getattr(chunk, f.name) for f in dataclasses.fields(chunk) if f.name != "part"}
    name = type(chunk).__name__.removesuffix("Chunk")
    return {
        "type": "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_"),
        **fields,
    }


def error_dict(error: Any) -> dict[str, Any]:
    """Return a failed call as `--json` and `--jsonl` print it."""
    cost = None if error.cost_usd is None else format(error.cost_usd, "f")
    return {
        "type": "error",
        "status": "failed",
        "error": {"code": error.code, "message": str(error)},
        "run_id": error.run_id,
        "usage": error.usage.to_dict(),
        "cost_usd": cost,
    }
