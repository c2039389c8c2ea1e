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
from agent_runtime.mcp.server import credential_scope
from agent_runtime.pool.template_cache import TemplateCache
from agent_runtime.pool.warm.cache import WarmCache
from agent_runtime.pool.warm.session_context import AgentSessionContext, SessionKey, estimate_size
from agent_runtime.template import AgentTemplate

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory

MAX_BUILD_ATTEMPTS = 5
EVICTION_INTERVAL_S = 30.0
"""Longest seconds between evictions of unused contexts."""


@dataclass(frozen=True, slots=True)
class _BuildRequest:
    """Describe a build; `template` includes the overrides."""

    key: SessionKey
    template: AgentTemplate
    inputs: Mapping[str, Any] | None
    overrides: Mapping[str, Any]
    source: str | Path | AgentTemplate


@dataclass(slots=True, eq=False)
class _Build:
    """Track a running build."""

    request: _BuildRequest
    future: Future[AgentSessionContext] | None = None


_BuildKey = tuple[SessionKey, tuple[Any, ...]]


class AgentSessionPool:
    """Keep warm agents by key.

    A context is served only while its fingerprint matches the current template, code of tools, tool
    lists of MCP servers and secrets. One build serves all its waiters; a failed build is raised to
    them and not cached. A merely old context is served while a new one is built
    (stale-while-revalidate).

    Methods may be used from any loop. `async with` starts the clean-up and ends it.

    Args:
        factory: builds the agents.
        ttl_s: seconds after which an unused context is dropped.
        max_age_s: seconds after which a context is rebuilt in the background; None for never.
        max_contexts: the size of the cache; the least recently used go first. Contexts in use stay.
        max_memory_mb: their approximate memory together.
        builders: how many are built at the same time.
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
        self._cache = WarmCache(ttl_s, max_contexts, max_memory_mb * 2**20, self._on_drop)
        self.stats = self._cache.stats
        self._files = TemplateCache(factory)
        self._lock = RLock()
        self._builds: dict[_BuildKey, _Build] = {}
        self._builders = ThreadPoolExecutor(builders, thread_name_prefix="agent_runtime build")
        self._eviction_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._eviction_task = asyncio.get_running_loop().create_task(self._evict_periodically())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._eviction_task is not None:
            self._eviction_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._eviction_task
        await asyncio.to_thread(self._builders.shutdown, cancel_futures=True)
        self.invalidate()

    # -- getting one

    async def get_or_create(
        self,
        key: str | SessionKey,
        template: str | Path | AgentTemplate,
        inputs: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> AgentSessionContext:
        """Return the context of `key`, built if it is missing or outdated.

        Raises InputInvalid for an invalid key or inputs, and the errors of building. Cancelling
        does not stop a build with other waiters.
        """
        session_key = SessionKey.parse(key)
        token = credential_scope.set(session_key.scope)
        try:
            for _ in range(MAX_BUILD_ATTEMPTS):
                context_or_future = self._cached_or_building(
                    session_key, template, inputs, overrides
                )
                if isinstance(context_or_future, AgentSessionContext):
                    return context_or_future
                context = await asyncio.shield(asyncio.wrap_future(context_or_future))
                # Callers that joined an earlier build may have seen a change that it lacks.
                current_fingerprint, _ = self._fingerprint(
                    self._files.get(template, overrides), inputs
                )
                if current_fingerprint == context.fingerprint:
                    return context
            raise ConfigurationError(
                f"the agent of '{session_key}' changes faster than it can be built"
            )
        finally:
            credential_scope.reset(token)

    def _cached_or_building(
        self,
        key: SessionKey,
        source: str | Path | AgentTemplate,
        inputs: Mapping[str, Any] | None,
        overrides: Mapping[str, Any],
    ) -> AgentSessionContext | Future[AgentSessionContext]:
        template = self._files.get(source, overrides)
        fingerprint, is_stale = self._fingerprint(template, inputs)
        request = _BuildRequest(key, template, inputs, overrides, source)
        if fingerprint is not None and (context := self._cache.get(key, fingerprint)) is not None:
            self.stats.hits += 1
            if is_stale or self._is_old(context):
                self._rebuild(request)
            return context
        self.stats.misses += 1
        return self._start_build(request, fingerprint)

    @asynccontextmanager
    async def acquire(
        self,
        key: str | SessionKey,
        template: str | Path | AgentTemplate,
        inputs: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> AsyncIterator[AgentSessionContext]:
        """Return the context of `key`, which is not evicted until the block ends."""
        with await self.get_or_create(key, template, inputs, **overrides) as context:
            yield context

    def invalidate(
        self, key: str | SessionKey | None = None, *, template: str | None = None
    ) -> int:
        """Drop the context of a key, those of a template's name, or all; return how many.

        Running builds complete for their waiters, and are not cached.
        """
        session_key = None if key is None else SessionKey.parse(key)
        with self._lock:
            for build_key, build in list(self._builds.items()):
                if session_key in (None, build_key[0]) and template in (
                    None,
                    build.request.template.metadata.name,
                ):
                    del self._builds[build_key]
        return self._cache.remove(session_key, template)

    def _fingerprint(
        self, template: AgentTemplate, inputs: Mapping[str, Any] | None
    ) -> tuple[tuple[Any, ...] | None, bool]:
        """Return the sources of the agent and whether they are outdated.

        None requires a server query.
        """
        key, is_stale = self.factory.keys.cached(template, inputs)
        return (None if key is None else (key, repr(inputs))), is_stale

    def _is_old(self, context: AgentSessionContext) -> bool:
        return (
            self._max_age_s is not None
            and time.monotonic() - context.built_monotonic > self._max_age_s
        )

    # -- building

    def _start_build(
        self, request: _BuildRequest, fingerprint: tuple[Any, ...] | None
    ) -> Future[AgentSessionContext]:
        build_key = (request.key, fingerprint or (request.template.identity, repr(request.inputs)))
        with self._lock:
            build = self._builds.get(build_key)
            if build is None:
                build = self._builds[build_key] = _Build(request)
                run_in_context = (
                    contextvars.copy_context().run
                )  # the scope of the credentials goes with it
                build.future = self._builders.submit(
                    run_in_context, self._run_build, build_key, build
                )
            assert build.future is not None  # noqa: S101 - set under the same lock
            return build.future

    def _run_build(self, build_key: _BuildKey, build: _Build) -> AgentSessionContext:
        request = build.request
        started = time.perf_counter()
        try:
            context = self._create_context(request, started)
        except BaseException as error:
            with self._lock:
                self._remove_build(build_key, build)
                self.stats.failures += 1
            self._publish(request.key, "failed", type(error).__name__)
            raise
        with self._lock:
            self.stats.builds += 1
            self.stats.build_seconds += context.build_s
            still_valid = self._remove_build(build_key, build)
        if still_valid:
            self._cache.put(context)
        self._publish(request.key, "built", "", context.build_s)
        return context

    def _create_context(self, request: _BuildRequest, started: float) -> AgentSessionContext:
        template = request.template
        inputs = request.inputs
        # Taken before the build: a change meanwhile makes the context outdated, not wrong.
        fingerprint = (self.factory.keys.compute(template, inputs), repr(inputs))
        source = request.source
        name = source.metadata.name if isinstance(source, AgentTemplate) else str(source)
        ref = {"template": name, "inputs": dict(inputs or {}), "overrides": dict(request.overrides)}
        agent = self.factory.build_agent(template, inputs, ref=ref)
        size_bytes = estimate_size(agent.agent, [self.factory, self.factory.registry, template])
        build_s = time.perf_counter() - started
        return AgentSessionContext(
            request.key, template, agent, agent.tools, fingerprint, build_s, size_bytes
        )

    def _remove_build(self, build_key: _BuildKey, build: _Build) -> bool:
        """Remove a build; return whether it is still valid."""
        if self._builds.get(build_key) is not build:
            return False
        del self._builds[build_key]
        return True

    def _rebuild(self, request: _BuildRequest) -> None:
        """Rebuild an old context; callers receive the old one until then."""
        with self._lock:
            if any(build_key[0] == request.key for build_key in self._builds):
                return
            self.stats.refreshes += 1
        self._start_build(request, None)

    # -- upkeep

    async def _evict_periodically(self) -> None:
        while True:
            await asyncio.sleep(min(EVICTION_INTERVAL_S, self._cache.ttl_s / 2))
            self.expire()

    def expire(self) -> int:
        """Drop contexts unused for the time to live; return how many."""
        return self._cache.expire()

    def contexts(self) -> list[AgentSessionContext]:
        """Return all contexts, the least recently used first."""
        return self._cache.all()

    def status(self) -> dict[str, Any]:
        """Return the pool's figures and its contexts, JSON-ready."""
        contexts = self.contexts()
        return {
            **asdict(self.stats),
            "hit_rate": round(self.stats.hit_rate, 4),
            "size": len(contexts),
            "size_bytes": sum(context.size_bytes for context in contexts),
            "contexts": [context.to_dict() for context in contexts],
        }

    def _on_drop(self, key: SessionKey, reason: str) -> None:
        self._publish(key, "dropped", reason)

    def _publish(
        self, key: SessionKey, action: str, reason: str, build_s: float | None = None
    ) -> None:
        data: dict[str, Any] = {"key": str(key), "what": action}
        if reason:
            data["reason"] = reason
        if build_s is not None:
            data["build_s"] = build_s
        self.factory.event_bus.publish(Event("pool.context", data, tenant=key.tenant))
