"""Implement `agent-runtime sessions`: stored conversations."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.options import shared_factory_arguments
from agent_runtime.cli.output import echo, echo_json
from agent_runtime.cli.state import event_recording, open_factory, open_sessions
from agent_runtime.strict_json import DuplicateName, loads_unique

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from agent_runtime.sessions import Session, SessionManager
    from agent_runtime.types import AgentResult

EXIT_INTERRUPTED = 7
_ANSWER_WITH_ID = re.compile("(?P<id>[0-9a-f-]{32,36})=(?P<answer>.*)", re.DOTALL)
"""An answer behind the id of its question."""


@click.group()
@click.option(
    "--store",
    metavar="URL",
    help="memory:, sqlite:FILE or redis://...; default: the state directory.",
)
@click.pass_context
def sessions(context: click.Context, store: str | None) -> None:
    """List, show, resume, fork, import, delete and export sessions."""
    context.obj = store


def _with_manager(store: str | None, action: Callable[[SessionManager], Awaitable[Any]]) -> Any:
    import asyncio

    async def run() -> Any:
        async with open_sessions(store) as manager:
            return await action(manager)

    return asyncio.run(run())


@sessions.command("list")
@click.option("--user", help="Only this user's.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--cursor", help="The cursor of the next page.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def list_sessions(
    store: str | None, user: str | None, limit: int, cursor: str | None, *, as_json: bool
) -> None:
    """List sessions, newest first."""
    page = _with_manager(store, lambda m: m.list_sessions(user_id=user, limit=limit, cursor=cursor))
    if as_json:
        document = {"sessions": [s.to_dict() for s in page.sessions], "cursor": page.cursor}
        echo_json(document)
        return
    for session in page.sessions:
        echo(
            f"{session.id:32} {session.status:11} {_format_time(session.updated_at)}  "
            f"{session.title}"
        )
    if page.cursor:
        echo(f"more: --cursor {page.cursor}", err=True)


@sessions.command()
@click.argument("session_id")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def show(store: str | None, session_id: str, *, as_json: bool) -> None:
    """Show the conversation SESSION_ID."""
    session, checkpoint = _with_manager(store, lambda m: _session_and_checkpoint(m, session_id))
    messages = [] if checkpoint is None else checkpoint.messages
    if as_json:
        echo_json(_session_document(session, messages))
        return
    echo(f"{session.id}  {session.status}  {_format_time(session.updated_at)}  {session.title}")
    for message in messages:
        echo(_message_text(message), label=f"{message.type}:", bold=True)


@sessions.command()
@click.argument("session_id")
@click.option(
    "--approve", "decision", flag_value="approve", help="Run the pending actions as they are."
)
@click.option(
    "--reject", "reason", metavar="REASON", help="Do not run them; the model receives REASON."
)
@click.option(
    "--edit",
    "edited",
    metavar="JSON",
    help="Run the one pending action with these arguments instead.",
)
@click.option(
    "--answer",
    "answers",
    metavar="[ID=]ANSWER",
    multiple=True,
    help="Answer a question: `approve`, text or JSON. If several are pending, repeat it with "
    "each id.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def resume(
    store: str | None,
    session_id: str,
    decision: str | None,
    reason: str | None,
    edited: str | None,
    answers: tuple[str, ...],
    *,
    as_json: bool,
) -> int:
    """Answer what SESSION_ID waits for, and resume it."""
    import asyncio

    if (
        sum(
            option_value is not None for option_value in (decision, reason, edited, answers or None)
        )
        != 1
    ):
        raise click.UsageError("say one of --approve, --reject, --edit and --answer")
    answer: Any = _parse_answers(answers) if answers else decision
    if reason is not None:
        answer = {"type": "reject", "message": reason}
    result: AgentResult = asyncio.run(_resume(open_sessions(store), session_id, answer, edited))
    if as_json:
        echo_json(result.to_dict())
    else:
        echo(result.output)
        show_pending(result)
    return EXIT_INTERRUPTED if result.status == "interrupted" else 0


async def _resume(
    manager: SessionManager, session_id: str, answer: Any, edited: str | None
) -> AgentResult:
    # The factory builds the session's agent with the same ledger, limits and event log as other
    # calls.
    async with (
        open_factory(session_manager=manager, **shared_factory_arguments()) as factory,
        event_recording(factory),
    ):
        if edited is not None:
            name = await _pending_action(manager, session_id)
            answer = {
                "type": "edit",
                "edited_action": {"name": name, "args": _parse_arguments(edited)},
            }
        return await manager.resume_session(session_id, answer)


def _parse_answers(texts: Sequence[str]) -> Any:
    """Return the value of `--answer`: one answer, or a map by the ids of the questions."""
    matches = [_ANSWER_WITH_ID.fullmatch(text) for text in texts]
    if len(texts) == 1 and matches[0] is None:
        return _parse_answer(texts[0])
    by_id: dict[str, Any] = {}
    for text, match in zip(texts, matches, strict=True):
        if match is None:
            raise click.BadParameter(
                f"name its question, ID=ANSWER: '{text}'", param_hint="--answer"
            )
        if match["id"] in by_id:
            raise click.BadParameter(
                f"question {match['id']} is answered twice", param_hint="--answer"
            )
        by_id[match["id"]] = _parse_answer(match["answer"])
    return by_id


def _parse_answer(text: str) -> Any:
    try:
        return loads_unique(text)
    except DuplicateName as error:
        raise click.BadParameter(str(error), param_hint="--answer") from None
    except ValueError:
        return text


def _parse_arguments(text: str) -> dict[str, Any]:
    try:
        arguments = loads_unique(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--edit") from None
    if not isinstance(arguments, dict):
        raise click.BadParameter("give the arguments as a JSON object", param_hint="--edit")
    return arguments


async def _pending_action(manager: SessionManager, session_id: str) -> str:
    checkpoint = await manager.checkpoints.get(session_id)
    messages = [] if checkpoint is None else checkpoint.messages
    calls = getattr(messages[-1], "tool_calls", []) if messages else []
    if len(calls) != 1:
        raise click.UsageError(f"--edit fits one pending action; this session has {len(calls)}")
    return str(calls[0]["name"])


@sessions.command()
@click.argument("session_id")
@click.option("--checkpoint", help="Only up to this checkpoint (listed by `export`).")
@click.option("--title")
@click.pass_obj
def fork(store: str | None, session_id: str, checkpoint: str | None, title: str | None) -> None:
    """Copy SESSION_ID into a new session, and print its id."""
    echo(_with_manager(store, lambda m: m.checkpoints.fork(session_id, checkpoint, title=title)).id)


@sessions.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--thread",
    "threads",
    multiple=True,
    metavar="ID",
    help="Only this thread; may be given more than once.",
)
@click.pass_obj
def import_(store: str | None, file: Path, threads: tuple[str, ...]) -> None:
    """Copy the threads of FILE, which LangGraph's SqliteSaver wrote, into new sessions."""
    from agent_runtime.sessions.thread_import import import_threads, open_langgraph_file

    async def copy_threads(manager: SessionManager) -> dict[str, Session]:
        async with open_langgraph_file(file) as source:
            return await import_threads(manager, source, thread_ids=threads or None)

    for thread, session in _with_manager(store, copy_threads).items():
        echo(f"{session.id}  from thread {thread}")


@sessions.command()
@click.argument("session_ids", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(store: str | None, session_ids: tuple[str, ...], *, yes: bool) -> None:
    """Delete sessions with all stored data."""
    if not yes:
        click.confirm(f"Delete {', '.join(session_ids)}?", abort=True, err=True)

    async def delete_all(manager: SessionManager) -> None:
        for session_id in session_ids:
            await manager.delete_session(session_id)

    _with_manager(store, delete_all)


@sessions.command()
@click.argument("session_id")
@click.pass_obj
def export(store: str | None, session_id: str) -> None:
    """Print SESSION_ID with its messages and checkpoints as one JSON object."""

    async def read_export(manager: SessionManager) -> dict[str, Any]:
        session, checkpoint = await _session_and_checkpoint(manager, session_id)
        history = await manager.checkpoints.history(session_id, limit=1000)
        fields = ("id", "parent_id", "created_at", "step", "source", "run_id")
        checkpoints = [{name: getattr(c, name) for name in fields} for c in history]
        return {
            **_session_document(session, checkpoint.messages if checkpoint else []),
            "checkpoints": checkpoints,
        }

    echo_json(_with_manager(store, read_export))


async def _session_and_checkpoint(manager: SessionManager, session_id: str) -> Any:
    return await manager.get_session(session_id), await manager.checkpoints.get(session_id)


def _session_document(session: Session, messages: list[BaseMessage]) -> dict[str, Any]:
    from langchain_core.messages import messages_to_dict

    return {"session": session.to_dict(), "messages": messages_to_dict(messages)}


def _message_text(message: BaseMessage) -> str:
    calls = [
        f"{c['name']}({json.dumps(c['args'], ensure_ascii=False)})"
        for c in getattr(message, "tool_calls", ())
    ]
    return " ".join([text for text in (str(message.text),) if text] + calls)


def _format_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def show_pending(result: AgentResult) -> None:
    """Print a call's pending questions on stderr, and how to answer them."""
    if result.status != "interrupted":
        return
    for interrupt in result.interrupts:
        value = getattr(interrupt, "value", interrupt)
        requests = value.get("action_requests") if isinstance(value, dict) else None
        for request in requests or [{"name": "question", "args": value}]:
            args = json.dumps(request.get("args"), ensure_ascii=False, default=str)
            name = request.get("name")
            echo(f"{name} {args} (id {interrupt.id})", err=True, label="waits:", fg="yellow")
    if result.session_id:
        option_hint = "--approve | --reject REASON | --answer ID=ANSWER"
        echo(f"decide: agent-runtime sessions resume {result.session_id} {option_hint}", err=True)
