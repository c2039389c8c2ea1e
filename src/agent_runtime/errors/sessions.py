"""Define the errors of sessions and their stores."""

from __future__ import annotations

from typing import Literal

from agent_runtime.errors.base import AgentRuntimeError


class SessionError(AgentRuntimeError):
    """A session cannot be used."""

    code = "session_error"


class SessionNotFound(SessionError):
    """Report that the caller has no such session; another caller's is reported alike."""

    code = "session_not_found"

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        super().__init__(f"there is no session '{session_id}'")


class SessionGone(SessionError):
    """Report that the session was deleted or has expired; its id is not used again."""

    code = "session_gone"

    def __init__(self, session_id: str, reason: Literal["deleted", "expired"]) -> None:
        self.session_id = session_id
        self.why = reason
        super().__init__(
            f"the session '{session_id}' was {reason}"
            if reason == "deleted"
            else f"'{session_id}' has expired"
        )


class CheckpointCorrupt(SessionError):
    """Stored bytes do not verify, or cannot be read here (`damaged` is False); both stay."""

    code = "checkpoint_corrupt"

    def __init__(self, location: str, reason: str, *, damaged: bool = True) -> None:
        self.place = location
        self.damaged = damaged
        # The second part names the thread, `tenant:session`; a caller knows only the session.
        parts = location.split("\x1f")
        visible_location = "/".join(
            [*parts[:1], *(part.rpartition(":")[2] for part in parts[1:2]), *parts[2:]]
        )
        super().__init__(f"stored data cannot be trusted ({visible_location}): {reason}")


class CheckpointVersion(SessionError):
    """Stored by another version of the format; the bytes are left as they are."""

    code = "checkpoint_version"

    def __init__(self, stored_version: int, supported_version: int) -> None:
        super().__init__(
            f"stored with format version {stored_version}; this release reads version "
            f"{supported_version}"
        )


class StateNotSerializable(SessionError):
    """A value of the state may not be stored; the message names its type and the remedy."""

    code = "state_not_serializable"


class StoreError(AgentRuntimeError):
    """The store behind sessions failed; nothing was half written."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """The store cannot be reached, or refuses to serve."""

    code = "store_unavailable"


class StoreVersion(StoreUnavailable):
    """Report a store of an incompatible version of agent_runtime. Nothing was changed."""

    code = "store_version"


class StoreTimeout(StoreError):
    """The store did not answer in time; whether the last write arrived is not known."""

    code = "store_timeout"


class StoreFull(StoreError):
    """The store takes no more data."""

    code = "store_full"
