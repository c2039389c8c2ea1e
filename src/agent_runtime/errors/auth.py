"""How a caller can be refused."""

from __future__ import annotations

from agent_runtime.errors.base import AgentRuntimeError, InputInvalid
from agent_runtime.errors.calls import CallError


class Unauthenticated(CallError):
    """Report that no caller was authenticated; only the log has the reason."""

    code = "unauthenticated"
    layer = "auth"

    def __init__(self) -> None:
        super().__init__("a valid credential is needed")


class KeyNotFound(AgentRuntimeError):
    """No API key has this id."""

    code = "key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no API key has the id '{key_id}'")


class KeyInUrl(InputInvalid):
    """A credential stood in a URL, where logs and histories keep it.

    Send it in a header, and replace it.
    """

    code = "key_in_url"

    def __init__(self) -> None:
        super().__init__(
            "a credential does not belong into a URL: send it as `Authorization: Bearer`, and "
            "replace it"
        )


class CredentialTooLarge(InputInvalid):
    """A credential is longer than any can be."""

    code = "credential_too_large"

    def __init__(self, maximum: int) -> None:
        super().__init__(f"a credential has at most {maximum} bytes")


class Forbidden(CallError):
    """Report that the caller lacks a permission; `scope` is the required one."""

    code = "forbidden"
    layer = "auth"

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__(f"this needs the scope '{scope}'")
