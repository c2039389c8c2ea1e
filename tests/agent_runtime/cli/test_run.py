"""The command line, as a user runs it.

In processes of its own where output, exit codes or imports matter.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent_runtime.cli import cli
from agent_runtime.cli.exit_codes import exit_code
from agent_runtime.cli.main import main
from agent_runtime.cli.options import AgentOptions
from agent_runtime.errors import (
    AgentFailed,
    CallTimeout,
    ConfigurationError,
    InputInvalid,
    LimitExceeded,
    TemplateError,
    UnknownComponent,
)
from agent_runtime.template import template_schema_text

RUN = [sys.executable, "-m", "agent_runtime"]
ROOT = Path(__file__).parents[3]


def run(*args: str, stdin: str = "", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command in this process.

    Importing LangChain anew for each test would take most of its time.
    """
    out = io.StringIO()
    err = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(contextlib.chdir(cwd))
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(sys, "stdin", io.StringIO(stdin))
        ended = stack.enter_context(pytest.raises(SystemExit))
        main(list(args))
    return subprocess.CompletedProcess(
        args, int(ended.value.code or 0), out.getvalue(), err.getvalue()
    )


def run_process(*args: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    environ = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    return subprocess.run(
        [*RUN, *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environ,
        check=False,
        timeout=50,
    )


def test_help_imports_nothing_that_takes_long() -> None:
    code = (
        "import sys\nsys.argv = ['agent-runtime', '--help']\nfrom agent_runtime.cli import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "slow = ('langchain', 'langchain_core', 'langgraph', 'redis', 'pydantic', 'asyncio', "
        "'yaml')\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in slow]\n"
        "assert not bad, bad\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    for command in ("run", "chat", "validate", "templates", "schema", "init", "completion"):
        assert command in done.stdout


def test_the_main_job() -> None:
    done = run_process("run", "templates/analyst.yaml", "Which region sells most?")
    assert done.returncode == 0, done.stderr
    assert "North" in done.stdout
    assert "offline stand-in answers" in done.stderr
    assert (
        "note:" not in run("run", "templates/analyst.yaml", "Which region sells most?", "-q").stderr
    )


def test_json_is_one_object_with_the_documented_fields() -> None:
    done = run("run", "analyst", "-", "--json", stdin="How many orders are there?\n")
    found = json.loads(done.stdout)
    assert {
        "output",
        "usage",
        "cost_usd",
        "run_id",
        "status",
        "duration_s",
        "template_digest",
    } <= set(found)
    assert (found["status"], found["cost_usd"], found["usage"]["model_calls"]) == (
        "completed",
        "0",
        3,
    )


def test_jsonl_is_one_object_an_event_and_the_result_last() -> None:
    lines = [
        json.loads(line)
        for line in run("run", "searcher", "warranty of chairs", "--jsonl").stdout.splitlines()
    ]
    kinds = [line["type"] for line in lines]
    assert kinds[:2] == ["tool_call", "tool_result"]
    assert kinds[-1] == "result"
    assert "".join(line["text"] for line in lines if line["type"] == "text") == lines[-1]["output"]


def test_a_prompt_may_be_piped() -> None:
    assert (
        "five years" in run("run", "searcher", stdin="How long is the warranty of chairs?").stdout
    )


def test_inputs_and_model_and_timeout_are_taken(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("n\n1\n2\n")
    done = run(
        "run",
        "analyst",
        "What is the total n?",
        "--input",
        f"data={tmp_path / 'd.csv'}",
        "--timeout",
        "30",
        "-q",
    )
    assert "is 3." in done.stdout
    done = run("run", "analyst", "x", "--model", "groq:none")
    assert (done.returncode, "pip install 'langchain-groq'" in done.stderr) == (3, True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["run", "nosuch", "x"], 4, "unknown template 'nosuch'"),
        (["run", "missing.yaml", "x"], 4, "missing.yaml"),
        (["run", "analyst", "x", "--input", "data"], 2, "NAME=VALUE"),
        (["run", "analyst", "x", "--input", "dat=1"], 2, "did you mean 'data'"),
        (["run", "analyst", "x", "--input", "data=/nonexistent"], 3, "there is no file or folder"),
        (["run", "analyst", "x", "--timeout", "soon"], 2, "with a unit"),
        (["run", "analyst", "x", "--json", "--jsonl"], 2, "exclude each other"),
        (["run", "analyst", "x", "--model", "nothing"], 3, "unknown model"),
        (["run", "analyst", ""], 2, "empty"),
        (["validate", "missing.yaml"], 4, "cannot be read"),
        (["frobnicate"], 2, "No such command"),
        (["run"], 2, "Missing argument"),
    ],
)
def test_failures_have_their_exit_code_and_a_message_without_traceback(
    args: list[str], code: int, message: str
) -> None:
    done = run(*args, stdin="")
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_errors_map_to_exit_codes() -> None:
    cases: list[tuple[BaseException, int]] = [
        (AgentFailed("x"), 1), (InputInvalid("x"), 2), (ConfigurationError("x"), 3),
        (TemplateError([]), 3),
        (UnknownComponent("template", "x", []), 4), (UnknownComponent("model", "x", []), 3),
        (FileNotFoundError(), 4),
        (CallTimeout("run", 1), 5), (LimitExceeded("tokens", 1), 6), (KeyboardInterrupt(), 130),
    ]  # fmt: skip
    assert [exit_code(error) for error, _ in cases] == [code for _, code in cases]


LIMITED = """\
apiVersion: agent-runtime/v1
kind: AgentTemplate
metadata: {name: limited}
spec:
  model: "offline:"
  tools: [{use: document_search, args: {docs: .}}]
  runtime: {limits: {model_calls: 1}}
"""


def test_a_refused_run_prints_an_error_object_with_json(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(LIMITED)
    done = run("run", "t.yaml", "search for something", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (done.returncode, found["error"]["code"], found["usage"]["model_calls"]) == (
        6,
        "limit_exceeded",
        1,
    )


def test_a_timeout_exits_5(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(LIMITED)
    done = run("run", "t.yaml", "search", "--timeout", "1ms", cwd=tmp_path)
    assert done.returncode == 5, done.stderr


def test_ctrl_c_cancels_and_exits_130(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import asyncio, sys\nfrom agent_runtime.cli import main\n"
        "from agent_runtime.models.offline import OfflineChatModel\n"
        "async def slow(self, *a, **k):\n    print('ready', flush=True)\n    await "
        "asyncio.sleep(30)\n    yield\n"
        "OfflineChatModel._astream = slow\nmain(['run', 'analyst', 'x', '-q'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "slow.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors


def test_chat_remembers_the_conversation(tmp_path: Path) -> None:
    done = run(
        "chat", "searcher", "-q", stdin="warranty of chairs\n\nopening on saturdays\n/exit\nnever\n"
    )
    assert done.returncode == 0, done.stderr
    assert "five years" in done.stdout
    assert "16:00" in done.stdout
    assert "never" not in done.stdout


async def test_chat_turns_share_a_session(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from agent_runtime.cli import chat as module
    from agent_runtime.factory import AgentFactory
    from agent_runtime.testing import ScriptedChatModel, say

    lines = iter(["a", "", "b", None])
    monkeypatch.setattr(module, "_line", lambda: next(lines))
    made = AgentFactory.__init__

    def init(self: AgentFactory, **kw: Any) -> None:
        made(self, **kw)
        self.register_model(
            "count", ScriptedChatModel(script=lambda m: say(str(sum(x.type == "human" for x in m))))
        )

    monkeypatch.setattr(AgentFactory, "__init__", init)
    await module._chat(AgentOptions("searcher", "count", (), None, quiet=True))
    assert capsys.readouterr().out.split() == ["1", "2"]


async def test_a_failed_turn_does_not_end_the_chat(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from agent_runtime.cli import chat as module

    lines = iter(["warranty", "warranty of lamps", None])
    monkeypatch.setattr(module, "_line", lambda: next(lines))
    await module._chat(AgentOptions("searcher", None, (), "1ms", quiet=True))
    assert capsys.readouterr().err.count("error:") == 2


def test_validate_shows_name_version_digest_and_json() -> None:
    done = run("validate", "templates/analyst.yaml", "templates/writer.yaml")
    assert done.stdout.count(": ok, ") == 2
    found = json.loads(run("validate", "templates/analyst.yaml", "--json").stdout)["files"][0]
    assert (found["valid"], found["problems"], len(found["digest"])) == (True, [], 64)


def test_templates_list_show_and_schema() -> None:
    assert [line.split()[0] for line in run("templates", "list").stdout.splitlines()] == [
        "analyst",
        "searcher",
        "writer",
    ]
    assert (
        json.loads(run("templates", "list", "--json").stdout)["templates"][0]["name"] == "analyst"
    )
    assert (
        run("templates", "show", "analyst").stdout == (ROOT / "templates/analyst.yaml").read_text()
    )
    shown = json.loads(run("templates", "show", "writer", "--json").stdout)
    assert shown["template"]["spec"]["response_format"]["schema"]["title"] == "draft"
    assert run("schema").stdout == template_schema_text()


@pytest.mark.parametrize("tools", ["none", "csv", "documents"])
def test_new_writes_a_template_that_runs(tools: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("n\n4\n5\n")
    (tmp_path / "d.md").write_text("The total n is in the other file.\n")
    done = run("templates", "new", "mine", "--tools", tools, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run("validate", "mine.yaml", cwd=tmp_path).returncode == 0
    done = run("run", "mine.yaml", "What is the total n?", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"none": "cannot think", "csv": "is 9.", "documents": "other file"}[tools] in done.stdout
    assert (tmp_path / "agent-template.v1.schema.json").exists()
    again = run("templates", "new", "mine", cwd=tmp_path)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    assert run("templates", "new", "../bad name", cwd=tmp_path).returncode == 3


def test_init_asks_then_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = CliRunner().invoke(
        cli, ["init"], input='helper\nAnswers "odd": {{ questions }}.\nauto\nnone\n'
    )
    assert asked.exit_code == 0, asked.output
    assert run("run", "helper.yaml", "hello", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    shown = CliRunner().invoke(cli, ["completion", shell])
    assert "_AGENT_RUNTIME_COMPLETE" in shown.output
    environ = {
        **os.environ,
        "_AGENT_RUNTIME_COMPLETE": "bash_complete",
        "COMP_WORDS": "agent-runtime run an",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(RUN, capture_output=True, text=True, env=environ, check=False, timeout=50)
    assert "plain,analyst" in done.stdout


def test_tokens_are_streamed_to_a_terminal() -> None:
    """In a pseudo-terminal the text arrives in pieces; a summary line goes to stderr."""
    import pty

    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*RUN, "run", "searcher", "warranty of chairs"], stdout=terminal, stderr=terminal, cwd=ROOT
    )
    os.close(terminal)
    text = ""
    until = time.monotonic() + 40
    while time.monotonic() < until:
        try:
            piece = os.read(controller, 4096)
        except OSError:
            break
        text += piece.decode()
    assert process.wait(10) == 0
    assert "five years" in text
    assert "2 model calls, 1 tool calls" in text
    os.close(controller)
