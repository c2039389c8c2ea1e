"""AgentSessionContext: an agent with everything built, for one key of a pool."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Self

from agent_runtime.errors import InputInvalid

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.template import AgentTemplate

_UNCOUNTED_TYPES = (
    type,
    ModuleType,
    FunctionType,
    BuiltinFunctionType,
    MethodType,
    CodeType,
    threading.Thread,
)
MAX_OBJECTS = 200_000


@dataclass(frozen=True, slots=True)
class SessionKey:
    """A context's key: `tenant`, `project`, `mode`, written `{tenant}:{project}:{mode}`."""

    tenant: str
    project: str = "default"
    mode: str = "default"

    def __post_init__(self) -> None:
        for name in ("tenant", "project", "mode"):
            value = getattr(self, name)
            if not value or ":" in value or len(value) > 128 or not value.isprintable():
                raise InputInvalid(f"a {name} has 1 to 128 printable characters and no ':'", name)

    @classmethod
    def parse(cls, key: str | SessionKey) -> SessionKey:
        """Return the key of a text; raises InputInvalid."""
        if isinstance(key, SessionKey):
            return key
        parts = key.split(":")
        if len(parts) != 3:
            raise InputInvalid(f"a key is tenant:project:mode, not '{key[:100]}'", "key")
        return cls(*parts)

    @property
    def scope(self) -> str:
        """Return the credential scope of its agents: MCP programs are not shared beyond it."""
        return f"{self.tenant}:{self.project}"

    def __str__(self) -> str:
        return f"{self.tenant}:{self.project}:{self.mode}"


@dataclass(slots=True, eq=False)
class AgentSessionContext:
    """Hold a warm agent for any number of concurrent callers.

    `tools` are its tools with their schemas converted, `fingerprint` identifies its sources,
    `build_s` is the duration of its build in seconds, `size_bytes` its approximate memory. While it
    is entered (`with context:`) it is not evicted; its users may keep an evicted or outdated one.
    """

    key: SessionKey
    template: AgentTemplate
    agent: AgentExecutor
    tools: Sequence[BaseTool]
    fingerprint: tuple[Any, ...]
    build_s: float
    size_bytes: int
    built_monotonic: float = field(default_factory=time.monotonic)
    last_used_monotonic: float = field(default_factory=time.monotonic)
    uses: int = 0
    pins: int = 0

    @property
    def system_prompt(self) -> str:
        """Return the template's prompt, before inputs are filled in."""
        prompt = self.template.spec.system_prompt
        return prompt if isinstance(prompt, str) else ""

    @property
    def subagents(self) -> list[str]:
        """Return the names of its sub-agents."""
        return [subagent.name for subagent in self.template.spec.subagents]

    @property
    def mcp_servers(self) -> list[str]:
        """Return the commands or addresses of its MCP servers."""
        return [
            str(tool.mcp.command or tool.mcp.url)
            for tool in self.template.spec.all_tools()
            if tool.mcp is not None
        ]

    def __enter__(self) -> Self:
        self.pins += 1
        return self

    def __exit__(self, *exc: object) -> None:
        self.pins -= 1
        self.last_used_monotonic = time.monotonic()

    def to_dict(self) -> dict[str, Any]:
        """Return its public fields, JSON-ready."""
        now = time.monotonic()
        return {
            "key": str(self.key),
            "template": self.template.metadata.name,
            "digest": self.template.digest,
            "uses": self.uses,
            "pins": self.pins,
            "age_s": round(now - self.built_monotonic, 3),
            "idle_s": round(now - self.last_used_monotonic, 3),
            "build_s": round(self.build_s, 4),
            "size_bytes": self.size_bytes,
        }


def estimate_size(root: Any, excluded: Sequence[Any]) -> int:
    """Estimate the bytes of an object, without objects of `excluded`, code and classes."""
    visited_ids = {id(excluded_object) for excluded_object in excluded}
    pending = [root]
    total_bytes = 0
    while pending and len(visited_ids) < MAX_OBJECTS:
        node = pending.pop()
        if id(node) in visited_ids or isinstance(node, _UNCOUNTED_TYPES):
            continue
        visited_ids.add(id(node))
        total_bytes += sys.getsizeof(node, 0)
        pending.extend(gc.get_referents(node))
    return total_bytes
