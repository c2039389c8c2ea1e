"""Templates by name or path, read again only when one of their files has changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent_runtime.components import is_path
from agent_runtime.template import AgentTemplate

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory

Stamp = tuple[tuple[str, int, int, int, int], ...]


class TemplateFiles:
    """What a factory's `get_template` gives, without reading files that have not changed.

    A file is the same while its times of change (of contents and of inode), its size and its inode are: the time of
    contents alone can be set, and is too coarse for two writes in a row.
    """

    def __init__(self, factory: AgentFactory) -> None:
        self._factory = factory
        self._read: dict[str, tuple[Stamp, AgentTemplate]] = {}

    def get(self, source: str | Path | AgentTemplate) -> AgentTemplate:
        """The template; raises UnknownComponent, TemplateError, FileNotFoundError."""
        if isinstance(source, AgentTemplate):
            return source
        if not is_path(source):
            return self._factory.get_template(source)
        path = str(source)
        known = self._read.get(path)
        if known is not None and stamp_of(known[1].files) == known[0]:
            return known[1]
        template = self._factory.get_template(source)
        before = stamp_of(template.files)
        # Read between two equal stamps: a file that is written meanwhile is read again at the next call.
        again = self._factory.get_template(source)
        if stamp_of(again.files) == before and again.digest == template.digest:
            self._read[path] = (before, again)
        return again


def stamp_of(files: tuple[Path, ...]) -> Stamp:
    """How these files are now; one that is gone has a stamp of its own."""
    found = []
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            found.append((str(file), 0, 0, 0, 0))
        else:
            found.append((str(file), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))
    return tuple(found)
