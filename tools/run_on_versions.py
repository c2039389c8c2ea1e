"""Run the tests that meet LangChain on the lowest and the newest versions that resolve.

    uv run python -m tools.run_on_versions lowest newest

Each has an environment of its own (.venv-lowest, .venv-newest), which is brought up to date. The
versions in use are printed. Exits with 1 when tests fail on one of them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("langchain", "langchain-core", "langgraph", "pyyaml")
"""The packages whose versions differ; all others are the newest in both."""
TESTS = (
    "auth",
    "checkpoints",
    "factory",
    "mcp",
    "models",
    "orchestration",
    "providers",
    "replay",
    "run",
    "sessions",
    "template",
    "tools",
)
"""Folders of tests whose code meets LangChain, LangGraph or YAML."""


def run(*command: str) -> str:
    """Return the output of a command; exits with its error when it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def lowest_pins() -> list[str]:
    """Return requirements of the lowest versions that resolve together."""
    compiled = run("uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct",
                   "--no-annotate", "--no-header", "pyproject.toml")  # fmt: skip
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", compiled, re.MULTILINE))
    return [f"{name}=={pins[name]}" for name in PACKAGES]


def environment(name: str) -> str:
    """Return the Python of an environment with the versions of this name."""
    folder = f".venv-{name}"
    run("uv", "venv", "--quiet", "--clear", folder)
    python = f"{folder}/bin/python"
    pins = lowest_pins() if name == "lowest" else []
    run("uv", "pip", "install", "--quiet", "--python", python, "--editable", ".",
        "--group", "test", *pins)  # fmt: skip
    listed = run("uv", "pip", "list", "--python", python, "--format", "freeze")
    versions = [line for line in listed.splitlines() if line.partition("==")[0].lower() in PACKAGES]
    print(f"{name}: {' '.join(versions)}", flush=True)
    return python


def main(names: list[str]) -> int:
    """Run the tests on each of the named versions; return the exit code."""
    failed = []
    for name in names:
        python = environment(name)
        tests = [f"tests/agent_runtime/{folder}" for folder in TESTS]
        command = [python, "-m", "pytest", "-q", *tests]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed on the versions: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["lowest", "newest"]))
