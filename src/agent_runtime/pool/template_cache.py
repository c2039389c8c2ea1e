"""Cache templates by name or path, until one of their files changes."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.template import AgentTemplate
from agent_runtime.template.overrides import apply_overrides
from agent_runtime.template.spec import is_path

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory

Stamp = tuple[Any, ...]
MAX_OVERRIDDEN = 1_000


class TemplateCache:
    """Return a factory's templates without reading unchanged files.

    A file is unchanged while its times of change (of contents and of inode), its size and its inode
    are: the time of contents alone can be set, and is too coarse for two successive writes.
    Variables of the environment that the template reads count too.
    """

    def __init__(self, factory: AgentFactory) -> None:
        self._factory = factory
        self._by_path: dict[str, tuple[Stamp, AgentTemplate]] = {}
        self._overridden: OrderedDict[tuple[Any, str], AgentTemplate] = OrderedDict()

    def get(
        self, source: str | Path | AgentTemplate, overrides: Mapping[str, Any] | None = None
    ) -> AgentTemplate:
        """Return the template, with keys of its spec replaced.

        Raises UnknownComponent, TemplateError, FileNotFoundError.
        """
        template = self._load(source)
        if not overrides:
            return template
        key = (template.identity, repr(overrides))
        if (overridden_template := self._overridden.get(key)) is None:
            overridden_template = self._overridden[key] = apply_overrides(template, overrides)
            while len(self._overridden) > MAX_OVERRIDDEN:
                self._overridden.popitem(last=False)
        return overridden_template

    def _load(self, source: str | Path | AgentTemplate) -> AgentTemplate:
        if isinstance(source, AgentTemplate):
            return source
        if not is_path(source):
            return self._factory.get_template(source)
        path = str(source)
        cached_entry = self._by_path.get(path)
        if cached_entry is not None and stamp_of(cached_entry[1]) == cached_entry[0]:
            return cached_entry[1]
        template = self._factory.get_template(source)
        stamp = stamp_of(template)
        # Read between two equal stamps: a file written meanwhile is read again at the next call.
        reloaded = self._factory.get_template(source)
        if stamp_of(reloaded) == stamp and reloaded.digest == template.digest:
            self._by_path[path] = (stamp, reloaded)
        return reloaded


def stamp_of(template: AgentTemplate) -> Stamp:
    """Return the present stamps of a template's files, and of its environment variables."""
    return stamp_of_files(template.files), tuple(
        [os.environ.get(name) for name in template.variables]
    )


def stamp_of_files(files: Iterable[Path]) -> tuple[Any, ...]:
    """Return the present stamps of these files and folders; a missing one has its own stamp."""
    stamps = []
    for file in files:
        try:
            stat = os.stat(file)
        except OSError:
            stamps.append((0, 0, 0, 0))
        else:
            stamps.append((stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))
    return tuple(stamps)
