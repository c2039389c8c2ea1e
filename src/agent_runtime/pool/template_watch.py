"""Watch a folder of templates: a changed one is checked, then served, a broken one is reported."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agent_runtime.errors import AgentRuntimeError, ConfigurationError, Problem, TemplateError
from agent_runtime.event_bus import Event
from agent_runtime.pool.template_cache import stamp_of, stamp_of_files
from agent_runtime.template import AgentTemplate

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory

MAX_FILES = 10_000
_LOG = logging.getLogger("agent_runtime.templates")


class TemplateWatch:
    """Register the templates of a folder by their names, and again when one of their files changes.

    A file is loaded and checked completely before it replaces the previous version, for later
    calls. A broken one changes nothing: the previous version stays, and a `template.rejected` event
    and `problems` have the reason. A template whose file is deleted is unregistered. The files'
    stamps are checked twice a second, which works on every file system.

    `async with` loads everything and watches; it raises TemplateError for files that are broken
    then.
    """

    def __init__(
        self, factory: AgentFactory, folder: str | Path, *, interval_s: float = 0.5
    ) -> None:
        self._factory = factory
        self.folder = Path(folder)
        self._interval_s = interval_s
        self._templates: dict[str, AgentTemplate] = {}
        self._paths: dict[str, Path] = {}
        self.problems: dict[str, list[str]] = {}
        """The problems of broken files, by file name."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        stamp = self._stamp()
        self.reload()
        if self.problems:
            raise TemplateError(
                [
                    Problem(message, file=file)
                    for file, messages in self.problems.items()
                    for message in messages
                ]
            )
        self._task = asyncio.get_running_loop().create_task(self._poll(stamp))
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _poll(self, last_stamp: tuple[Any, ...]) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                current_stamp = await asyncio.to_thread(self._stamp)
                if (
                    current_stamp != last_stamp
                ):  # stamped before it is read: a write meanwhile is noticed the next time
                    await asyncio.to_thread(self.reload)
                    last_stamp = current_stamp
            except Exception:  # noqa: BLE001 - logged, and the watch continues
                _LOG.exception("the templates in %s cannot be read; tried again", self.folder)

    def _stamp(self) -> tuple[Any, ...]:
        """Return the state of all files below the folder and of those its templates use."""
        paths_below = sorted(path for path in self.folder.rglob("*"))[:MAX_FILES]
        template_files = {file for template in self._templates.values() for file in template.files}
        return (
            tuple(map(str, paths_below)),
            stamp_of_files([*paths_below, *sorted(template_files)]),
            *map(stamp_of, self._templates.values()),
        )

    def reload(self) -> None:
        """Load every template of the folder, and replace those that are valid and changed."""
        files = sorted(
            entry
            for entry in self.folder.iterdir()
            if entry.suffix in (".yaml", ".yml") and entry.is_file()
        )
        loaded_by_name: dict[str, tuple[Path, AgentTemplate]] = {}
        broken: dict[Path, Exception] = {}
        for path in files:
            try:
                template = self._factory.get_template(path)
                self._factory.check_template(template)
                if template.metadata.name in loaded_by_name:
                    other = loaded_by_name[template.metadata.name][0].name
                    raise ConfigurationError(
                        f"'{other}' has a template of the same name '{template.metadata.name}'"
                    )
            except (AgentRuntimeError, OSError) as error:
                broken[path] = error
            else:
                loaded_by_name[template.metadata.name] = (path, template)
        self._apply(loaded_by_name, broken)

    def _apply(
        self, loaded_by_name: dict[str, tuple[Path, AgentTemplate]], broken: dict[Path, Exception]
    ) -> None:
        self.problems = {
            name: messages
            for name, messages in self.problems.items()
            if self.folder / name in broken
        }
        for path, error in broken.items():
            self._reject(path, error)
        still_served = {
            name for name, path in self._paths.items() if path in broken
        }  # the previous version stays
        for name in [
            template_name
            for template_name in self._templates
            if template_name not in loaded_by_name and template_name not in still_served
        ]:
            with suppress(AgentRuntimeError):
                self._factory.unregister_template(name)
            del self._templates[name], self._paths[name]
        for name, (path, template) in loaded_by_name.items():
            previous = self._templates.get(name)
            self._templates[name] = template
            self._paths[name] = path
            if previous is None or previous.identity != template.identity:
                self._factory.register_template(template)
                data = {"template": name, "digest": template.digest}
                self._factory.event_bus.publish(Event("template.changed", data))

    def _reject(self, path: Path, error: Exception) -> None:
        messages = (
            [str(problem) for problem in error.problems]
            if isinstance(error, TemplateError)
            else [str(error)]
        )
        if self.problems.get(path.name) == messages:
            return
        self.problems[path.name] = messages
        name = next(
            (name for name, template_path in self._paths.items() if template_path == path),
            path.stem,
        )
        _LOG.error(
            "template %s is broken, its previous version stays in use: %s",
            path,
            "; ".join(messages),
        )
        self._factory.event_bus.publish(
            Event("template.rejected", {"template": name, "problems": messages})
        )
