"""Check the permissions of callers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from agent_runtime.errors import ConfigurationError, Forbidden

if TYPE_CHECKING:
    from agent_runtime.types import Principal

_SCOPE = re.compile(
    r"\*|[A-Za-z0-9_.-]{1,64}(:(\*|[A-Za-z0-9_./-]{1,128}))?|\*:[A-Za-z0-9_./-]{1,128}"
)


def validate_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """Return the scopes; raises ConfigurationError for an invalid one."""
    unique_scopes = frozenset(scopes)
    for scope in unique_scopes:
        if not isinstance(scope, str) or _SCOPE.fullmatch(scope) is None:
            raise ConfigurationError(
                f"a scope is `action:template`, `action:*`, `*` or a name, not {scope!r}"
            )
    return unique_scopes


def check_scope(principal: Principal, needed: str) -> None:
    """Raise Forbidden, which names the scope, for a principal that does not have it."""
    if not allows(principal.scopes, needed):
        raise Forbidden(needed)


def allows(scopes: Collection[str], needed: str) -> bool:
    """Return whether `scopes` include `needed`.

    They do by the scope itself, its action on anything (`run:*`), anything on it, or `*`.
    """
    if needed in scopes or "*" in scopes:
        return True
    action, colon, thing = needed.partition(":")
    return bool(colon) and (f"{action}:*" in scopes or f"*:{thing}" in scopes)
