"""Authenticate and authorize callers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import SecretStr

from agent_runtime.auth.authenticator import Authenticator, unauthenticated_error
from agent_runtime.auth.identities import fault_of_name, is_reserved
from agent_runtime.auth.scopes import check_scope, validate_scopes
from agent_runtime.errors import ConfigurationError, Unauthenticated
from agent_runtime.orchestration.caller_input import (
    CALLER_ROLES,
    check_roles,
    required_actions,
    validate_roles,
)
from agent_runtime.orchestration.middleware.base import Middleware
from agent_runtime.run.state import current_run

if TYPE_CHECKING:
    from agent_runtime.types import AgentContext, AgentResult, Handler, Principal


class AuthMiddleware(Middleware):
    """Admit calls of principals with the required scopes.

    A principal that the application set on the call counts; otherwise one of `authenticators` must
    accept its credentials, in their order. A call needs the scope `run:<template>`,
    `resume:<template>` when it answers an interrupt, `command:<template>` when it steers the graph
    (a Command with `goto`, `update` or `graph`), and those in `require`. Its messages have one of
    `roles`. An agent called by another one acts for the outer call's principal, whose scopes and
    messages were checked there; only `require` is checked again.

    Raises ConfigurationError for an invalid scope, role or authenticator. Its `process` raises
    Unauthenticated (always the same), Forbidden, InputInvalid for a role that callers may not send,
    and StoreError when the caller cannot be verified: no call passes then.
    """

    def __init__(
        self,
        *authenticators: Authenticator,
        require: Iterable[str] = (),
        roles: Iterable[str] = CALLER_ROLES,
    ) -> None:
        for authenticator in authenticators:
            if not isinstance(authenticator, Authenticator):
                raise ConfigurationError(
                    "an authenticator has `async authenticate(credentials)`, unlike "
                    f"{authenticator!r}"
                )
        self._authenticators = authenticators
        self._required_scopes = validate_scopes(require)
        self._roles = validate_roles(roles)

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Await the call of an authenticated and authorized caller."""
        principal = context.principal
        if principal is None:
            principal = _check_principal_names(await self._authenticate(context))
        parent_run = current_run.get()
        if parent_run is None or parent_run.context.principal != principal:
            for action in required_actions(context.input):
                check_scope(principal, f"{action}:{context.agent_name}")
            check_roles(context.input, self._roles)
        for scope in self._required_scopes:
            check_scope(principal, scope)
        return await next_call(context.with_principal(principal))

    async def _authenticate(self, context: AgentContext) -> Principal:
        credentials = context.credentials
        if credentials is None:
            raise unauthenticated_error("none was shown")
        if isinstance(credentials, SecretStr):
            credentials = credentials.get_secret_value()
        for authenticator in self._authenticators[:-1]:
            try:
                return await authenticator.authenticate(credentials)
            except Unauthenticated:
                continue
        if not self._authenticators:
            raise unauthenticated_error("no authenticator is configured")
        return await self._authenticators[-1].authenticate(credentials)


def _check_principal_names(principal: Principal) -> Principal:
    """Return an authenticator's principal; raises Unauthenticated for a reserved name."""
    for name in (principal.id, principal.tenant):
        if (fault := fault_of_name(name)) is not None:
            raise unauthenticated_error(fault)
    if is_reserved(principal.id):
        raise unauthenticated_error("a name that is the runtime's own")
    return principal
