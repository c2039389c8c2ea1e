"""A folder of templates, watched: what changes is checked, then served; what is broken is said, and not served."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from agent_runtime.errors import AgentRuntimeError, Problem, TemplateError
from agent_runtime.event_bus import Event
from agent_runtime.pool.template_files import Stamp, stamp_of
from agent_runtime.template import AgentTemplate, load_template

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory

_LOG = logging.getLogger("agent_runtime.templates")


class TemplateWatch:
    """Registers the templates of a folder by their names, and again when a file of theirs changes.

    A file is loaded and checked whole before it takes the place of the version before it, for calls that begin from
    then on. A broken one changes nothing: the version before goes on serving, a `template.rejected` event and
    `problems` say what is wrong. A template whose file is gone is no longer registered.

    It looks at the files twice a second (at their stamps, see `TemplateFiles`), which works on every file system.
    `async with` loads everything and watches; it raises TemplateError for files that are broken then.
    """

    def __init__(self, factory: AgentFactory, folder: str | Path, *, interval_s: float = 0.5) -> None:
        self._factory, self.folder, self._interval_s = factory, Path(folder), interval_s
        self._names: dict[Path, str] = {}
        self._digests: dict[Path, str] = {}
        self.problems: dict[str, list[str]] = {}
        """What is wrong with files that are broken now, by file name."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        seen = self._stamp()
        self.reload()
        if self.problems:
            raise TemplateError([Problem(each, file=file) for file, found in self.problems.items() for each in found])
        self._task = asyncio.get_running_loop().create_task(self._watch(seen))
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self, seen: Stamp) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            now = await asyncio.to_thread(self._stamp)
            if now != seen:  # looked at before it is read: what is written meanwhile is seen the next time
                seen = now
                await asyncio.to_thread(self.reload)

    def _files(self) -> list[Path]:
        return sorted(each for each in self.folder.iterdir() if each.suffix in (".yaml", ".yml") and each.is_file())

    def _stamp(self) -> Stamp:
        """How the folder's templates, and the files that they are made of, are now."""
        read = {file for name in self._names.values() for file in self._factory.get_template(name).files}
        return stamp_of(tuple(sorted({*self._files(), *read})))

    def reload(self) -> None:
        """Load every template of the folder, and take over those that are right and have changed."""
        files = self._files()
        for gone in [path for path in self._names if path not in files]:
            with suppress(AgentRuntimeError):
                self._factory.unregister_template(self._names[gone])
            del self._names[gone], self._digests[gone]
            self.problems.pop(gone.name, None)
        for path in files:
            try:
                template = load_template(path)
                self._factory.check_template(template)
            except (AgentRuntimeError, OSError) as error:
                self._reject(path, error)
            else:
                self._take(path, template)

    def _take(self, path: Path, template: AgentTemplate) -> None:
        self.problems.pop(path.name, None)
        if self._digests.get(path) == template.digest:
            return
        before = self._names.get(path)
        if before is not None and before != template.metadata.name:
            with suppress(AgentRuntimeError):
                self._factory.unregister_template(before)
        self._names[path] = self._factory.register_template(template)
        self._digests[path] = template.digest
        data = {"template": template.metadata.name, "digest": template.digest}
        self._factory.event_bus.publish(Event("template.changed", data))

    def _reject(self, path: Path, error: Exception) -> None:
        found = [str(each) for each in error.problems] if isinstance(error, TemplateError) else [str(error)]
        if self.problems.get(path.name) == found:
            return
        self.problems[path.name] = found
        name = self._names.get(path, path.stem)
        _LOG.error("template %s is broken, the version before it goes on serving: %s", path, "; ".join(found))
        self._factory.event_bus.publish(Event("template.rejected", {"template": name, "problems": found}))
