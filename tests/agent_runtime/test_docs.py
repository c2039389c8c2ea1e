"""The documentation's Python runs, its template is valid, and its links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from agent_runtime import AgentFactory, errors, parse_template
from agent_runtime.registry import LANGCHAIN_MIDDLEWARE

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
async def test_python_in_the_documentation_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("templates", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)  # what it writes is not left in the checkout
    code = compile(block, "<doc>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(code, {"__name__": "doc"})  # noqa: S307 - our own documentation
    if inspect.isawaitable(made):
        await made


def test_the_readmes_template_is_valid() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    AgentFactory().check_template(parse_template(text, folder=ROOT / "templates"))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_every_middleware_name_and_error_code_is_documented() -> None:
    templates = (ROOT / "docs/templates.md").read_text()
    assert all(f"`{name}`" in templates for name in LANGCHAIN_MIDDLEWARE)
    tree = errors.__doc__ or ""
    for name, found in vars(errors).items():
        if (
            inspect.isclass(found)
            and issubclass(found, errors.AgentRuntimeError)
            and name != "AgentRuntimeError"
        ):
            assert name in tree
            assert found.code in tree or found.code == "call_failed", name
