"""Define the command group, and map errors to exit codes."""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import Any

import click

from agent_runtime.cli.batch import batch
from agent_runtime.cli.chat import chat
from agent_runtime.cli.cost import cost
from agent_runtime.cli.dead_letters import dead
from agent_runtime.cli.doctor import doctor
from agent_runtime.cli.events import events
from agent_runtime.cli.keys import keys
from agent_runtime.cli.output import echo
from agent_runtime.cli.pool import pool
from agent_runtime.cli.run import run
from agent_runtime.cli.sessions import sessions
from agent_runtime.cli.state import settings
from agent_runtime.cli.templates import init, schema, templates, validate
from agent_runtime.cli.triggers import triggers

COMPLETE_VAR = "_AGENT_RUNTIME_COMPLETE"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="langchain-agent-runtime", prog_name="agent-runtime")
def cli() -> None:
    """Run agents from YAML templates, behind one pipeline of limits, retries and logging.

    Exit codes: 0 ok, 1 the run failed, 2 usage, 3 configuration or template invalid, 4 not found, 5
    timeout, 6 refused by a limit or a budget, 7 interrupted (a person is awaited), 130 Ctrl-C.
    """
    from agent_runtime.secrets.redaction import SECRETS

    SECRETS.add_environment()
    settings()  # a wrong one ends every command before it does anything


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell: eval "$(agent-runtime completion bash)"."""
    from click.shell_completion import get_completion_class

    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise click.UsageError(f"no completion for {shell}")
    echo(completion_class(cli, {}, "agent-runtime", COMPLETE_VAR).source())


events.add_command(dead)
for command in (
    run,
    chat,
    batch,
    pool,
    sessions,
    events,
    triggers,
    keys,
    cost,
    doctor,
    validate,
    templates,
    schema,
    init,
):
    cli.add_command(command)


def _redacted(error: BaseException) -> str:
    from agent_runtime.secrets.redaction import SECRETS

    return SECRETS.text(str(error))


def main(args: list[str] | None = None) -> None:
    """Run the command line; ends the process with the documented exit code."""
    try:
        code: Any = cli.main(
            args=args, prog_name="agent-runtime", complete_var=COMPLETE_VAR, standalone_mode=False
        )
    except click.exceptions.Abort:
        echo("interrupted", err=True)
        code = 130
    except click.ClickException as error:
        usage = io.StringIO()
        error.show(file=usage)
        echo(usage.getvalue(), err=True, nl=False)
        code = error.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last one: it ends as an exit code
        from agent_runtime.cli.exit_codes import EXPECTED, exit_code

        if not isinstance(error, EXPECTED) and os.environ.get("AGENT_RUNTIME_TRACEBACK"):
            from agent_runtime.secrets.redaction import SECRETS

            echo(SECRETS.text("".join(traceback.format_exception(error))), err=True)
        message = "interrupted" if isinstance(error, KeyboardInterrupt) else _redacted(error)
        kind = "" if isinstance(error, EXPECTED) else f" internal: {type(error).__name__}:"
        echo(message, err=True, label=f"error:{kind}", fg="red")
        code = exit_code(error)
    sys.exit(code if isinstance(code, int) else 0)
