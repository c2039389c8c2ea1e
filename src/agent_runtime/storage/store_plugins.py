"""Open stores of other packages, which register a scheme for a kind of store.

    [project.entry-points."agent_runtime.stores"]
    "ledger.postgres" = "my_package:open_ledger"

Then `open_ledger("postgres://db/app")` calls `my_package.open_ledger("postgres://db/app")`.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeAlias

from agent_runtime.errors import ConfigurationError
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.storage.store_url import BUILTIN_SCHEMES

GROUP = "agent_runtime.stores"
StoreName: TypeAlias = Literal[
    "sessions", "ledger", "keys", "events", "batches", "dead_letters", "limits"
]
"""The kinds of stores, as the settings name them."""


def find_plugin(store: StoreName, url: str) -> EntryPoint | None:
    """Return the entry point for an address; None for a built-in scheme or an unknown one."""
    scheme, colon, _ = url.partition(":") if isinstance(url, str) else ("", "", "")
    if not colon or scheme in BUILTIN_SCHEMES:
        return None
    return next(iter(entry_points(group=GROUP, name=f"{store}.{scheme}")), None)


def open_plugin(store: StoreName, url: str, store_type: type, **settings: Any) -> Any:
    """Open a store of another package; None when no package has registered the address.

    `settings` are keyword arguments of its opener. Passwords in the address are redacted. Raises
    ConfigurationError when the opener cannot be loaded or returns no `store_type`, and the opener's
    own errors.
    """
    plugin = find_plugin(store, url)
    if plugin is None:
        return None
    SECRETS.add_address(url)
    try:
        opener = plugin.load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"the entry point '{plugin.name}' of {GROUP} cannot be loaded: {error}"
        ) from error
    opened = opener(url, **settings)
    if not isinstance(opened, store_type):
        raise ConfigurationError(
            f"the entry point '{plugin.name}' of {GROUP} opens a {type(opened).__name__}, "
            f"not a {store_type.__name__}"
        )
    return opened
