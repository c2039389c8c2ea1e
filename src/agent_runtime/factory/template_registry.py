"""Store the templates that a factory knows by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from agent_runtime.errors import ConfigurationError, UnknownComponent
from agent_runtime.template import AgentTemplate, builtin_templates, load_template
from agent_runtime.template.spec import is_path


class TemplateRegistry:
    """Find templates by name or path; the built-in ones are there. Safe in any thread.

    Args:
        on_change: called under the lock after a template was added or removed.
        environ: fills `${VAR}` of templates, and makes them confined: one does not replace another
            of the same name. By default the process's environment, and templates are trusted.
    """

    def __init__(
        self, on_change: Callable[[], None], environ: Mapping[str, str] | None = None
    ) -> None:
        self._on_change = on_change
        self._environ = environ
        self._templates: dict[str, AgentTemplate | Path] = dict(builtin_templates())
        self._lock = threading.RLock()

    def register(self, template: AgentTemplate | str | Path, name: str | None = None) -> str:
        """Add a template, or the one in a file, under `name`, by default its own; return it."""
        loaded = template if isinstance(template, AgentTemplate) else self._load(template)
        name = name or loaded.metadata.name
        with self._lock:
            self._check_owner(name, loaded)
            self._templates[name] = loaded
            self._on_change()
        return name

    def _check_owner(self, name: str, template: AgentTemplate) -> None:
        """Raise ConfigurationError when a confined template takes the name of another one."""
        existing = self._templates.get(name)
        if self._environ is None or existing is None:  # trusted templates may replace each other
            return
        folder = existing.parent if isinstance(existing, Path) else existing.folder
        if folder != template.folder:
            raise ConfigurationError(
                f"'{name}' is the name of another template, and confined ones do not replace it"
            )

    def unregister(self, name: str) -> None:
        """Remove a name; existing executors stay usable. Raises UnknownComponent."""
        with self._lock:
            if self._templates.pop(name, None) is None:
                raise UnknownComponent("template", name, self._templates)
            self._on_change()

    def get(self, name_or_path: str | Path) -> AgentTemplate:
        """Return the template of a registered name, or in a file.

        Raises UnknownComponent, TemplateError, FileNotFoundError.
        """
        name = str(name_or_path)
        if is_path(name_or_path):
            return self._load(name_or_path)
        with self._lock:
            template_or_path = self._templates.get(name)
            if template_or_path is None:
                raise UnknownComponent("template", name, self._templates)
            if isinstance(template_or_path, Path):  # a shipped one, read at its first use
                template_or_path = self._templates[name] = self._load(template_or_path)
            return template_or_path

    def _load(self, path: str | Path) -> AgentTemplate:
        return load_template(path, environ=self._environ)

    def add_all(self, other: TemplateRegistry) -> None:
        """Add every template of `other`."""
        with self._lock, other._lock:
            self._templates.update(other._templates)
            self._on_change()

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        return sorted(self._templates)
