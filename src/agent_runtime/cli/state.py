"""Open what commands share on disk: sessions, spending, keys."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.cli.output import echo

if TYPE_CHECKING:
    from agent_runtime.auth import ApiKeys
    from agent_runtime.budgets import Ledger
    from agent_runtime.event_bus.brokers import Broker, EventLog
    from agent_runtime.event_bus.dead_letter import DeadLetters
    from agent_runtime.event_bus.relay import Relay
    from agent_runtime.factory import AgentFactory
    from agent_runtime.sessions import SessionManager
    from agent_runtime.settings import Settings


@cache
def settings() -> Settings:
    """Return the settings of this process; raises ConfigurationError."""
    from agent_runtime.settings import read_settings

    return read_settings()


def state_folder() -> Path:
    """Return the state directory: `AGENT_RUNTIME_HOME`, or the platform's place for a user's state.

    Raises ConfigurationError for one that is another user's, or that others may write to.
    """
    from agent_runtime.storage.file_safety import (
        check_folder_ownership,
    )  # with the errors, which `--help` does not need

    if home := settings().home:
        folder = Path(home)
    else:
        import platformdirs

        folder = platformdirs.user_state_path("agent_runtime")
    check_folder_ownership(folder, is_private=True)
    return folder


def open_sessions(store: str | None = None) -> SessionManager:
    """Open the sessions: `store`, or `AGENT_RUNTIME_SESSIONS`, or SQLite in the state directory.

    `AGENT_RUNTIME_SESSION_KEY` (32 to 64 characters) seals stored data. Raises ConfigurationError,
    StoreUnavailable.
    """
    from agent_runtime.sessions import SessionManager

    url = store or settings().sessions or f"sqlite:{state_folder() / 'sessions.db'}"
    key = settings().session_key or settings().session_key_file
    return SessionManager.from_url(url, mac_key=key.encode() if key else None)


def open_ledger(url: str | None = None) -> Ledger:
    """Open the ledger: `url`, or `AGENT_RUNTIME_LEDGER`, or SQLite in the state directory."""
    from agent_runtime.budgets import open_ledger as open_at

    return open_at(url or settings().ledger or f"sqlite:{state_folder() / 'ledger.db'}")


def open_keys(url: str | None = None) -> ApiKeys:
    """Open the API keys: `url`, or `AGENT_RUNTIME_KEYS`, or SQLite in the state directory.

    Their pepper is `AGENT_RUNTIME_KEY_PEPPER` or the file `AGENT_RUNTIME_KEY_PEPPER_FILE`; without
    both it is created once, in the state directory, readable by its owner only.
    """
    from agent_runtime.auth import open_keys as open_at

    pepper = (
        settings().key_pepper
        or settings().key_pepper_file
        or _load_or_create_pepper(state_folder() / "key_pepper")
    )
    return open_at(
        url or settings().keys or f"sqlite:{state_folder() / 'keys.db'}", pepper.encode()
    )


def _events_url(url: str | None) -> str:
    return url or settings().events or f"sqlite:{state_folder() / 'events.db'}"


def open_events(url: str | None = None) -> EventLog:
    """Open the event log: `url`, or `AGENT_RUNTIME_EVENTS`, or SQLite in the state directory."""
    from agent_runtime.event_bus.brokers import open_event_log

    configured_url = _events_url(url)
    address = (
        f"sqlite:{state_folder() / 'events.db'}" if configured_url == "off" else configured_url
    )
    return open_event_log(address, seal_key=_event_key())


def open_event_broker(url: str | None = None) -> Broker:
    """Open the broker of the event log."""
    from agent_runtime.event_bus.brokers import open_broker

    return open_broker(_events_url(url), seal_key=_event_key())


def _event_key() -> bytes | None:
    key = settings().event_key or settings().event_key_file
    return key.encode() if key else None


def open_dead_letters(url: str | None = None) -> DeadLetters:
    """Open the dead letters.

    `url`, or `AGENT_RUNTIME_DEAD_LETTERS`, or SQLite in the state directory.
    """
    from agent_runtime.event_bus.dead_letters import open_dead_letters

    return open_dead_letters(
        url or settings().dead_letters or f"sqlite:{state_folder() / 'dead_letters.db'}"
    )


RELAY_CLOSE_TIMEOUT_S = 5.0


@asynccontextmanager
async def open_factory(**factory_arguments: Any) -> AsyncIterator[AgentFactory]:
    """Open a factory.

    A store that fails on closing is a warning, because the answer is complete.
    """
    from agent_runtime.errors import StoreError
    from agent_runtime.factory import AgentFactory

    factory = AgentFactory(**factory_arguments)
    try:
        yield factory
    finally:
        try:
            await factory.aclose()
        except StoreError as error:
            echo(
                f"spending could not be written: {error}",
                err=True,
                label="warning:",
                fg="yellow",
            )


@asynccontextmanager
async def event_recording(factory: AgentFactory) -> AsyncIterator[Relay | None]:
    """Write the factory's events to the event log, unless `AGENT_RUNTIME_EVENTS` is `off`.

    Yields the relay.
    """
    if _events_url(None) == "off":
        yield None
        return
    from agent_runtime.event_bus.relay import Relay

    broker = open_event_broker()
    try:
        relay = Relay(factory.event_bus, broker)
        relay.start()
        try:
            yield relay
        finally:
            await relay.aclose(RELAY_CLOSE_TIMEOUT_S)
    finally:
        await broker.aclose()


def _load_or_create_pepper(path: Path) -> str:
    import secrets

    from agent_runtime.secret_files import read_secret_file

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Whole or not at all, and never over one that another process has just made.
    temporary_path = path.with_name(f"{path.name}.{os.getpid()}")
    temporary_path.touch(mode=0o600)
    temporary_path.write_text(secrets.token_urlsafe(48))
    try:
        os.link(temporary_path, path)
    except FileExistsError:
        pass
    finally:
        temporary_path.unlink()
    return read_secret_file(path, min_bytes=32)
