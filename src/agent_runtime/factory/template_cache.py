"""Templates by name or path, read again only when one of their files has changed."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.template import AgentTemplate
from agent_runtime.template.overrides import overridden
from agent_runtime.template.spec import is_path

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory

Stamp = tuple[Any, ...]
MAX_CHANGED = 1_000


class TemplateFiles:
    """What a factory's `get_template` gives, without reading files that have not changed.

    A file is the same while its times of change (of contents and of inode), its size and its inode
    are: the time of contents alone can be set, and is too coarse for two writes in a row. What the
    template takes from the environment counts too.
    """

    def __init__(self, factory: AgentFactory) -> None:
        self._factory = factory
        self._read: dict[str, tuple[Stamp, AgentTemplate]] = {}
        self._changed: OrderedDict[tuple[Any, str], AgentTemplate] = OrderedDict()

    def get(
        self, source: str | Path | AgentTemplate, overrides: Mapping[str, Any] | None = None
    ) -> AgentTemplate:
        """The template, with keys of its spec replaced.

        Raises UnknownComponent, TemplateError, FileNotFoundError.
        """
        template = self._template(source)
        if not overrides:
            return template
        key = (template.identity, repr(overrides))
        if (known := self._changed.get(key)) is None:
            known = self._changed[key] = overridden(template, overrides)
            while len(self._changed) > MAX_CHANGED:
                self._changed.popitem(last=False)
        return known

    def _template(self, source: str | Path | AgentTemplate) -> AgentTemplate:
        if isinstance(source, AgentTemplate):
            return source
        if not is_path(source):
            return self._factory.get_template(source)
        path = str(source)
        known = self._read.get(path)
        if known is not None and stamp_of(known[1]) == known[0]:
            return known[1]
        template = self._factory.get_template(source)
        before = stamp_of(template)
        # Read between two equal stamps: a file that is written meanwhile is read again at the next
        # call.
        again = self._factory.get_template(source)
        if stamp_of(again) == before and again.digest == template.digest:
            self._read[path] = (before, again)
        return again


def stamp_of(template: AgentTemplate) -> Stamp:
    """How the files of a template are now, and the environment's values that it has."""
    return stamp_of_files(template.files), tuple(
        [os.environ.get(name) for name in template.variables]
    )


def stamp_of_files(files: Iterable[Path]) -> tuple[Any, ...]:
    """How these files and folders are now; one that is not there has a stamp of its own."""
    found = []
    for file in files:
        try:
            stat = os.stat(file)
        except OSError:
            found.append((0, 0, 0, 0))
        else:
            found.append((stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))
    return tuple(found)
