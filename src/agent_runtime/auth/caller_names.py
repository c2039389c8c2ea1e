"""Build the names of tenants, users, keys, templates and sessions for limits and budgets.

Names are quoted, so that no name can collide with another account. Limits are checked and counted
under the same name, because both come from this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias
from urllib.parse import quote

if TYPE_CHECKING:
    from agent_runtime.types import AgentContext

Part: TypeAlias = Literal["user", "tenant", "key", "template", "session", "global"]
PARTS: tuple[Part, ...] = ("user", "tenant", "key", "template", "session", "global")
DEFAULT_TENANT = "default"


class Caller(NamedTuple):
    """Identify the caller of a call by names of the application.

    `session` and `key` are None for a call without one.
    """

    tenant: str
    user: str
    template: str
    session: str | None
    key: str | None = None


def caller_of(context: AgentContext) -> Caller:
    """Return a call's caller: its principal, or the nameless user of the default tenant."""
    principal = context.principal
    if principal is None:
        return Caller(DEFAULT_TENANT, "", context.agent_name, context.session_id)
    return Caller(
        principal.tenant,
        principal.id,
        context.agent_name,
        context.session_id,
        principal.key or None,
    )


def part_name(part: Part, caller: Caller) -> str | None:
    """Return a caller's name as one part of a limit's key, or None for a call without a session.

    Users and sessions belong to their tenant, so the tenant is part of their names. A caller
    without a key (a token without an id, a principal of the application) is counted as the user.
    """
    if part == "global":
        return ""
    if part == "template":
        return quoted(caller.template)
    tenant = quoted(caller.tenant)
    if part == "tenant":
        return tenant
    if part == "session":
        return None if caller.session is None else f"{tenant}:{quoted(caller.session)}"
    if part == "key" and caller.key is not None:
        return quoted(caller.key)
    user = f"{tenant}:{quoted(caller.user)}"
    return f"user:{user}" if part == "key" else user


def quoted(name: str) -> str:
    """Return a name in which nothing can be taken for a separator of ours."""
    return quote(name, safe="")
