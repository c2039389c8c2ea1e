"""What commands share on disk: where sessions are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_runtime.sessions import SessionManager

HOME_VAR, STORE_VAR, KEY_VAR = "AGENT_RUNTIME_HOME", "AGENT_RUNTIME_SESSIONS", "AGENT_RUNTIME_SESSION_KEY"


def state_folder() -> Path:
    """The state directory: `AGENT_RUNTIME_HOME`, or the platform's own place for a user's state."""
    if given := os.environ.get(HOME_VAR):
        return Path(given)
    import platformdirs

    return platformdirs.user_state_path("agent_runtime")


def open_sessions(store: str | None = None) -> SessionManager:
    """The sessions of the command line: `store`, or `AGENT_RUNTIME_SESSIONS`, or SQLite in the state directory.

    `AGENT_RUNTIME_SESSION_KEY` (32 to 64 characters) seals what is stored. Raises ConfigurationError, StoreUnavailable.
    """
    from agent_runtime.sessions import SessionManager

    url = store or os.environ.get(STORE_VAR) or f"sqlite:{state_folder() / 'sessions.db'}"
    key = os.environ.get(KEY_VAR)
    return SessionManager.from_url(url, mac_key=key.encode() if key else None)
