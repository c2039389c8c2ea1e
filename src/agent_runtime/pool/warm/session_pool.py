"""AgentSessionPool.

Agents that are built before the call comes, and never served when they are no longer right.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Self

from agent_runtime.errors import ConfigurationError
from agent_runtime.event_bus import Event
from agent_runtime.factory.template_cache import TemplateFiles
from agent_runtime.mcp.server import credential_scope
from agent_runtime.pool.warm.cache import Contexts
from agent_runtime.pool.warm.session_context import AgentSessionContext, SessionKey, size_of
from agent_runtime.template import AgentTemplate

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory

MAX_TRIES = 5
ROUND_S = 30.0
"""How often contexts that nobody used are looked for, at least."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be built; `template` has the overrides in it already."""

    place: SessionKey
    template: AgentTemplate
    inputs: Mapping[str, Any] | None
    overrides: Mapping[str, Any]
    source: str | Path | AgentTemplate


@dataclass(slots=True, eq=False)
class _Build:
    """A build under way."""

    wanted: _Wanted
    future: Future[AgentSessionContext] | None = None


_Slot = tuple[SessionKey, tuple[Any, ...]]


class AgentSessionPool:
    """Warm agents, by key.

    A context is served only while its fingerprint is what the template, the code of its tools, the
    tool lists of its MCP servers and its secrets give now. One build serves all who wait for it; a
    build that fails is raised to them and forgotten. What is merely old is served, and built anew
    behind.

    Args:
        factory: makes the agents.
        ttl_s: a context that nobody used for so many seconds is dropped.
        max_age_s: one that was built so long ago is built anew, behind the callers' backs; None for
        never.
        max_contexts: how many are kept; those used longest ago go first. Contexts in use stay.
        max_memory_mb: how much they may keep together, about.
        builders: how many are built at the same time.

    Methods may be used from any loop. `async with` starts the clean-up and ends it.
    """

    def __init__(
        self,
        factory: AgentFactory,
        *,
        ttl_s: float = 1800.0,
        max_age_s: float | None = None,
        max_contexts: int = 256,
        max_memory_mb: float = 512.0,
        builders: int = 4,
    ) -> None:
        if ttl_s <= 0 or max_contexts < 1 or max_memory_mb <= 0 or builders < 1:
            raise ConfigurationError(
                "ttl_s, max_contexts, max_memory_mb and builders must be positive"
            )
        self.factory = factory
        self._max_age_s = max_age_s
        self._contexts = Contexts(ttl_s, max_contexts, max_memory_mb * 2**20, self._dropped)
        self.counts = self._contexts.counts
        self._files = TemplateFiles(factory)
        self._lock = RLock()
        self._building: dict[_Slot, _Build] = {}
        self._builders = ThreadPoolExecutor(builders, thread_name_prefix="agent_runtime build")
        self._upkeep: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._upkeep = asyncio.get_running_loop().create_task(self._look_after())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._upkeep is not None:
            self._upkeep.cancel()
            with suppress(asyncio.CancelledError):
                await self._upkeep
        await asyncio.to_thread(self._builders.shutdown, cancel_futures=True)
        self.invalidate()

    # -- getting one
    # ---------------------------------------------------------------------------------------

    async def get_or_create(
        self,
        key: str | SessionKey,
        template: str | Path | AgentTemplate,
        inputs: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> AgentSessionContext:
        """The context of `key`, built if it is not there or not right any more.

        Raises InputInvalid for a key or inputs, and whatever building raises. Cancelling does not
        stop a build that others wait for too.
        """
        place = SessionKey.parse(key)
        token = credential_scope.set(place.scope)
        try:
            for _ in range(MAX_TRIES):
                found = self._kept_or_building(place, template, inputs, overrides)
                if isinstance(found, AgentSessionContext):
                    return found
                context = await asyncio.shield(asyncio.wrap_future(found))
                # Who joined a build that had begun earlier may have come after a change that it
                # does not have.
                now, _ = self._fingerprint(self._files.get(template, overrides), inputs)
                if now == context.fingerprint:
                    return context
            raise ConfigurationError(f"the agent of '{place}' changes faster than it can be built")
        finally:
            credential_scope.reset(token)

    def _kept_or_building(
        self,
        place: SessionKey,
        source: str | Path | AgentTemplate,
        inputs: Mapping[str, Any] | None,
        overrides: Mapping[str, Any],
    ) -> AgentSessionContext | Future[AgentSessionContext]:
        template = self._files.get(source, overrides)
        fingerprint, aged = self._fingerprint(template, inputs)
        wanted = _Wanted(place, template, inputs, overrides, source)
        if (
            fingerprint is not None
            and (context := self._contexts.get(place, fingerprint)) is not None
        ):
            self.counts.hits += 1
            if aged or self._is_old(context):
                self._refresh(wanted)
            return context
        self.counts.misses += 1
        return self._begin(wanted, fingerprint)

    @asynccontextmanager
    async def acquire(
        self,
        key: str | SessionKey,
        template: str | Path | AgentTemplate,
        inputs: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> AsyncIterator[AgentSessionContext]:
        """`get_or_create`, and the context is not evicted until the block ends."""
        with await self.get_or_create(key, template, inputs, **overrides) as context:
            yield context

    def invalidate(
        self, key: str | SessionKey | None = None, *, template: str | None = None
    ) -> int:
        """Drop the context of a key, those of a template's name, or all; returns how many.

        Builds under way are finished for those who wait, and not kept.
        """
        place = None if key is None else SessionKey.parse(key)
        with self._lock:
            for slot, build in list(self._building.items()):
                if place in (None, slot[0]) and template in (
                    None,
                    build.wanted.template.metadata.name,
                ):
                    del self._building[slot]
        return self._contexts.remove(place, template)

    def _fingerprint(
        self, template: AgentTemplate, inputs: Mapping[str, Any] | None
    ) -> tuple[tuple[Any, ...] | None, bool]:
        """What the agent is built from, and whether that is an old answer.

        None where a server must be asked.
        """
        key, aged = self.factory.keys.known(template, inputs)
        return (None if key is None else (key, repr(inputs))), aged

    def _is_old(self, context: AgentSessionContext) -> bool:
        return self._max_age_s is not None and time.monotonic() - context.built_s > self._max_age_s

    # -- building
    # ------------------------------------------------------------------------------------------

    def _begin(
        self, wanted: _Wanted, fingerprint: tuple[Any, ...] | None
    ) -> Future[AgentSessionContext]:
        slot = (wanted.place, fingerprint or (wanted.template.identity, repr(wanted.inputs)))
        with self._lock:
            build = self._building.get(slot)
            if build is None:
                build = self._building[slot] = _Build(wanted)
                run = contextvars.copy_context().run  # the scope of the credentials goes with it
                build.future = self._builders.submit(run, self._build, slot, build)
            assert build.future is not None  # noqa: S101 - set under the same lock
            return build.future

    def _build(self, slot: _Slot, build: _Build) -> AgentSessionContext:
        wanted = build.wanted
        began = time.perf_counter()
        try:
            context = self._made(wanted, began)
        except BaseException as error:
            with self._lock:
                self._is_wanted(slot, build)
                self.counts.failures += 1
            self._tell(wanted.place, "failed", type(error).__name__)
            raise
        with self._lock:
            self.counts.builds += 1
            self.counts.build_seconds += context.build_s
            kept = self._is_wanted(slot, build)
        if kept:
            self._contexts.put(context)
        self._tell(wanted.place, "built", "", context.build_s)
        return context

    def _made(self, wanted: _Wanted, began: float) -> AgentSessionContext:
        template = wanted.template
        inputs = wanted.inputs
        # Taken before the build: what changes meanwhile makes the context outdated, not wrong.
        fingerprint = (self.factory.keys.of(template, inputs), repr(inputs))
        source = wanted.source
        name = source.metadata.name if isinstance(source, AgentTemplate) else str(source)
        ref = {"template": name, "inputs": dict(inputs or {}), "overrides": dict(wanted.overrides)}
        agent = self.factory.build_agent(template, inputs, ref=ref)
        size = size_of(agent.agent, [self.factory, self.factory.registry, template])
        took_s = time.perf_counter() - began
        return AgentSessionContext(
            wanted.place, template, agent, agent.tools, fingerprint, took_s, size
        )

    def _is_wanted(self, slot: _Slot, build: _Build) -> bool:
        """Whether nobody has invalidated the build since it began.

        Its place is free for the next one.
        """
        if self._building.get(slot) is not build:
            return False
        del self._building[slot]
        return True

    def _refresh(self, wanted: _Wanted) -> None:
        """Build anew what is old.

        Who has the old one keeps it, and callers get it until the new one is there.
        """
        with self._lock:
            if any(slot[0] == wanted.place for slot in self._building):
                return
            self.counts.refreshes += 1
        self._begin(wanted, None)

    # -- upkeep
    # --------------------------------------------------------------------------------------------

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(min(ROUND_S, self._contexts.ttl_s / 2))
            self.expire()

    def expire(self) -> int:
        """Drop what nobody has used for the time to live; returns how many."""
        return self._contexts.expire()

    def contexts(self) -> list[AgentSessionContext]:
        """Those that are kept, the one used longest ago first."""
        return self._contexts.all()

    def status(self) -> dict[str, Any]:
        """The pool in numbers, and its contexts, JSON-ready."""
        contexts = self.contexts()
        return {
            **asdict(self.counts),
            "hit_rate": round(self.counts.hit_rate, 4),
            "size": len(contexts),
            "size_bytes": sum(context.size_bytes for context in contexts),
            "contexts": [context.to_dict() for context in contexts],
        }

    def _dropped(self, place: SessionKey, why: str) -> None:
        self._tell(place, "dropped", why)

    def _tell(self, place: SessionKey, what: str, why: str, build_s: float | None = None) -> None:
        data: dict[str, Any] = {"key": str(place), "what": what}
        if why:
            data["why"] = why
        if build_s is not None:
            data["build_s"] = build_s
        self.factory.event_bus.publish(Event("pool.context", data, tenant=place.tenant))
