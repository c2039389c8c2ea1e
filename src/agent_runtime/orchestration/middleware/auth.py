"""Who calls, and whether they may."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import SecretStr

from agent_runtime.auth.authenticator import Authenticator, refused
from agent_runtime.auth.identities import fault_of_name, is_reserved
from agent_runtime.auth.scopes import check_scope, checked_scopes
from agent_runtime.errors import ConfigurationError, Unauthenticated
from agent_runtime.orchestration.caller_input import (
    CALLER_ROLES,
    actions_of,
    check_roles,
    checked_roles,
)
from agent_runtime.orchestration.middleware.base import Middleware
from agent_runtime.run.state import current_run

if TYPE_CHECKING:
    from agent_runtime.types import AgentContext, AgentResult, Handler, Principal


class AuthMiddleware(Middleware):
    """Lets a call pass only for a principal that may make it.

    A principal that the application itself put on the call counts; otherwise one of
    `authenticators` must recognise its credentials, in their order. A call needs the scope
    `run:<template>`, `resume:<template>` when it answers an interrupt, `command:<template>` when it
    steers the graph (a Command with `goto`, `update` or `graph`), and those in `require`. Its
    messages have one of `roles`. An agent that another one calls acts for the outer call's
    principal, whose scopes and messages were checked there; only `require` is checked again.

    Raises ConfigurationError for a scope, a role or an authenticator that is none. Its `process`
    raises Unauthenticated (always the same), Forbidden, InputInvalid for a role that callers may
    not send, and StoreError when it cannot be known who calls: nothing passes then.
    """

    def __init__(
        self,
        *authenticators: Authenticator,
        require: Iterable[str] = (),
        roles: Iterable[str] = CALLER_ROLES,
    ) -> None:
        for each in authenticators:
            if not isinstance(each, Authenticator):
                raise ConfigurationError(
                    f"an authenticator has `async authenticate(credentials)`, unlike {each!r}"
                )
        self._authenticators = authenticators
        self._require = checked_scopes(require)
        self._roles = checked_roles(roles)

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Await the call for a caller who is known and may make it."""
        principal = context.principal
        if principal is None:
            principal = _checked(await self._recognised(context))
        around = current_run.get()
        if around is None or around.context.principal != principal:
            for action in actions_of(context.input):
                check_scope(principal, f"{action}:{context.agent_name}")
            check_roles(context.input, self._roles)
        for scope in self._require:
            check_scope(principal, scope)
        return await next_call(context.with_principal(principal))

    async def _recognised(self, context: AgentContext) -> Principal:
        credentials = context.credentials
        if credentials is None:
            raise refused("none was shown")
        if isinstance(credentials, SecretStr):
            credentials = credentials.get_secret_value()
        for authenticator in self._authenticators[:-1]:
            try:
                return await authenticator.authenticate(credentials)
            except Unauthenticated:
                continue
        if not self._authenticators:
            raise refused("nobody here can check one")
        return await self._authenticators[-1].authenticate(credentials)


def _checked(principal: Principal) -> Principal:
    """Return an authenticator's principal; raises Unauthenticated for a reserved name."""
    for name in (principal.id, principal.tenant):
        if (fault := fault_of_name(name)) is not None:
            raise refused(fault)
    if is_reserved(principal.id):
        raise refused("a name that is the runtime's own")
    return principal
