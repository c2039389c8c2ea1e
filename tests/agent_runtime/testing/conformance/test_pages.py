"""The examples of the pages on writing a store, a broker or a backend conform."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.testing.conformance.batch_backend import BACKEND_CHECKS, run_backend_check
from agent_runtime.testing.conformance.broker import BROKER_CHECKS, run_broker_check
from agent_runtime.testing.conformance.key_store import KEY_STORE_CHECKS, run_key_store_check
from agent_runtime.testing.conformance.ledger import LEDGER_CHECKS, run_ledger_check

DOCS = Path(__file__).parents[4] / "docs"


def example(page: str, name: str) -> Any:
    """The class of this name in a page."""
    for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL):
        if f"class {name}" in block:
            names: dict[str, Any] = {"__name__": "page"}
            lines = [line for line in block.splitlines() if "await " not in line or line[0] == " "]
            exec("\n".join(lines), names)  # noqa: S102 - our own documentation
            return names[name]
    raise AssertionError(f"{page} has no class {name}")


@pytest.mark.parametrize("check", KEY_STORE_CHECKS)
async def test_the_key_store_conforms(check: Callable[..., Any]) -> None:
    store = example("write_a_store.md", "TableKeyStore")
    await run_key_store_check(check, lambda: store(":memory:"))


@pytest.mark.parametrize("check", LEDGER_CHECKS)
async def test_the_ledger_conforms(check: Callable[..., Any]) -> None:
    await run_ledger_check(check, example("write_a_store.md", "MyLedger"))


@pytest.mark.parametrize("check", BROKER_CHECKS)
async def test_the_broker_conforms(check: str) -> None:
    log = example("write_a_broker.md", "ListBroker")()
    await run_broker_check(check, connect=lambda: log)


@pytest.mark.parametrize("check", BACKEND_CHECKS)
async def test_the_backend_conforms(check: Callable[..., Any]) -> None:
    await run_backend_check(check, example("write_a_batch_backend.md", "LocalBackend"))


@pytest.mark.parametrize("page", ["write_a_store.md", "write_a_broker.md", "write_a_layer.md"])
def test_the_names_that_a_page_imports_from_exist(page: str) -> None:
    for path in re.findall(r"`(agent_runtime\.[\w.]+)`", (DOCS / page).read_text()):
        if path == "agent_runtime.stores":  # the group of entry points
            continue
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name) or importlib.import_module(path), path
