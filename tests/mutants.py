"""Breaks the code in ways that matter and checks that a named test notices (part of `make soak`).

Each mutant is one replacement in a copy of the sources; its test has to fail on it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """What is broken, where, how, and the test that has to notice."""

    breaks: str
    file: str
    old: str
    new: str
    test: str


O, M = "orchestration", "models"
CONTRACTS, RETRY, GATE = f"{O}/test_contracts.py", f"{O}/test_retry.py", f"{M}/test_gate.py"
RUNNABLE, BAD = f"{O}/test_runnable.py", "template/test_bad_templates.py"

MUTANTS = [
    Mutant("order of layers", f"{O}/middleware/base.py", "in reversed(layers)", "in layers", f"{CONTRACTS} -k outermost"),
    Mutant("what is no layer is let through", f"{O}/middleware/base.py", "if not isinstance(layer, Middleware)", "if False", f"{CONTRACTS} -k not_a_layer"),
    Mutant("leaving a stream does not cancel", f"{O}/stream.py", "            task.cancel()\n", "            pass\n", f"{CONTRACTS} -k leaving_a_stream"),
    Mutant("leaving does not wait for clean-up", f"{O}/stream.py", "            await _finished(task)\n", "            pass\n", f"{CONTRACTS} -k leaving_a_stream"),
    Mutant("no back-pressure", f"{O}/stream.py", "if len(self._waiting) >= self._buffer:", "if False:", f"{CONTRACTS} -k back_pressure"),
    Mutant("runtime cancel as CancelledError", f"{O}/stream.py", "                    raise self._cancelled()\n", "                    raise asyncio.CancelledError\n", f"{CONTRACTS} -k call_cancelled"),
    Mutant("text emitted twice", f"{O}/parts.py", "with_text=message.id not in self._streamed", "with_text=True", f"{CONTRACTS} -k text_chunks"),
    Mutant("a unary call emits nothing", f"{O}/core.py", "if context.emit is not discard:", "if False:", f"{CONTRACTS} -k text_chunks"),
    Mutant("the run's variable leaks", f"{O}/core.py", "            current_run.reset(token)\n", "            pass\n", f"{CONTRACTS} -k leaks"),
    Mutant("retry after the first chunk", f"{O}/middleware/retry.py", "if progress.tools_started or opened:", "if progress.tools_started:", f"{RETRY} -k first_chunk"),
    Mutant("retry after the first tool", f"{O}/middleware/retry.py", "if progress.tools_started or opened:", "if opened:", f"{RETRY} -k tool_start"),
    Mutant("no resume from the checkpoint", f"{O}/core.py", "context.progress.resumable = bool(", "context.progress.resumable = not bool(", f"{RETRY} -k resumed"),
    Mutant("resume in mid-message", f"{O}/middleware/retry.py", "context.streaming and progress.message_open", "False", f"{RETRY} -k seen_part"),
    Mutant("control flow treated as failure", f"{O}/executor.py", "except GraphBubbleUp:", "except ZeroDivisionError:", f"{RUNNABLE} -k control_flow"),
    Mutant("limits not checked", f"{M}/gate.py", "            each.gate._check(each)\n", "            pass\n", f"{GATE} -k refused_before"),
    Mutant("a swallowed refusal is forgotten", f"{M}/run.py", "            self.refusal = error\n", "            pass\n", f"{GATE} -k cure"),
    Mutant("nested agents do not count", f"{M}/run.py", "(self,) if parent is None else (self, *parent.lineage)", "(self,)", f"{GATE} -k agent_used_as_a_tool"),
    Mutant("calls counted twice", f"{M}/callback_gate.py", "GATED_TAG in", "None in", f"{GATE} -k counted_once"),
    Mutant("cancelled calls are free", f"{M}/gate.py", "not isinstance(error, Exception)):", "False):", f"{CONTRACTS} -k cancelling_a_unary"),
    Mutant("no model call timeout", f"{M}/gated_model.py", "return None if run is None or call is None else run.gate.model_call_timeout_s", "return None", f"{GATE} -k times_out"),
    Mutant("a blocking model call is not timed", f"{M}/gated_model.py", "    if left_s is None:\n        return step()", "    if True:\n        return step()", f"{GATE} -k blocking_model_call"),
    Mutant("a context serves two calls", f"{O}/executor.py", "        if context.progress.started:", "        if False:", f"{CONTRACTS} -k one_call"),
    Mutant("a rewriting hook streams", "assembly.py", '("wrap_model_call", "awrap_model_call")', "()", "test_factory.py -k vouches"),
    Mutant("no idle timeout", f"{O}/core.py", "return parts if self._idle_timeout_s is None else", "return parts if True else", f"{GATE} -k is_idle"),
    Mutant("no run timeout", f"{O}/executor.py", "asyncio.timeout_at(context.deadline)", "asyncio.timeout_at(None)", f"{GATE} -k run_timeout"),
    Mutant("threads not counted", "tools/gated_tool.py", "            each.threads.add(thread)\n", "            pass\n", f"{GATE} -k threads_of_sync_tools"),
    Mutant("a sessionless call is saved", f"{O}/core.py", 'copy({"checkpointer": None})', "copy({})", f"{RUNNABLE} -k nothing_is_left_behind"),
    Mutant("aliases allowed", "template/yaml_reader.py", "isinstance(event, yaml.AliasEvent)", "False", f"{BAD} -k T-06"),
    Mutant("links followed out of the folder", "template/document.py", "elif not candidate.resolve().is_relative_to(self.root):", "elif False:", f"{BAD} -k link"),
    Mutant("secrets accepted", "template/document.py", "if _SECRET.search(text):", "if False:", f"{BAD} -k T-41"),
    Mutant("any reference allowed", "assembly.py", 'check(f"spec.tools.{i}.ref" if tool.ref else "", "tool", tool.ref, registry.allowed_refs)', "pass", "test_factory.py -k python_references"),
    Mutant("PII streamed before it is redacted", "assembly.py", "hold_text=any(", "hold_text=False and any(", "test_factory.py -k pii"),
    Mutant("bus grows without bound", "event_bus/bus.py", "deque(maxlen=buffer)", "deque()", "event_bus/test_bus.py -k drops_the_oldest"),
]  # fmt: skip


def survives(mutant: Mutant, folder: Path) -> bool:
    """Whether the named test passes on the broken code, which it must not."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source)
    (folder / "templates").symlink_to(ROOT / "templates")
    path = source / "agent_runtime" / mutant.file
    text = path.read_text()
    if mutant.old not in text:
        raise SystemExit(f"'{mutant.breaks}': the text to replace is gone from {mutant.file}")
    path.write_text(text.replace(mutant.old, mutant.new))
    test = str(ROOT / "tests" / "agent_runtime" / mutant.test.split(" ")[0])
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-x", "--timeout=20", "-p", "no:cacheprovider", test]
    done = subprocess.run(
        [*command, *mutant.test.split(" ")[1:]],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"'{mutant.breaks}': the test did not run\n{done.stdout[-2000:]}")
    return done.returncode == 0


def main() -> int:
    """Print a line for each mutant; 1 when one survives."""
    alive = []
    for mutant in MUTANTS:
        with tempfile.TemporaryDirectory() as folder:
            survived = survives(mutant, Path(folder))
        print(f"{'SURVIVED' if survived else 'killed  '}  {mutant.breaks}", flush=True)
        alive += [mutant.breaks] if survived else []
    print(f"{len(MUTANTS) - len(alive)} of {len(MUTANTS)} mutants killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
