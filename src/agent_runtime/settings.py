"""Read the settings of a process from the environment and a file, all checked at once."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from agent_runtime import size_limits
from agent_runtime.bounded_file import read_bounded
from agent_runtime.errors import ConfigurationError, close_matches
from agent_runtime.monitoring.logs import LEVELS
from agent_runtime.secret_files import read_secret_file
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.secrets.strength import weakness_of
from agent_runtime.size_limits import size_limit
from agent_runtime.storage.store_plugins import StoreName, find_plugin
from agent_runtime.storage.store_url import FORMS, SHARED_STORES, StoreKind, StoreUrl

PREFIX = "AGENT_RUNTIME_"
FILE_VAR = f"{PREFIX}CONFIG"
STORE_SETTINGS: tuple[StoreName, ...] = (
    "sessions",
    "ledger",
    "keys",
    "events",
    "batches",
    "dead_letters",
    "limits",
)
"""The settings that are addresses."""
NON_SETTING_VARIABLES = frozenset({FILE_VAR, f"{PREFIX}TRACEBACK"})


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"unknown '{text}': {close_matches(text, names)}")
        return text

    return parse


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 6 else 0
    if not 1 <= number <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    return number


def _usd(text: str) -> Decimal:
    try:
        usd = Decimal(text)
    except InvalidOperation:
        usd = Decimal("nan")
    if not usd.is_finite() or usd <= 0:
        raise ValueError("an amount in USD is a finite number above 0")
    return usd


def _process_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= 100_000:
        raise ValueError("a number of processes is 1 to 100000")
    return int(text)


def _secret(text: str) -> str:
    SECRETS.add(text)
    if (reason := weakness_of(text.encode())) is not None:
        raise ValueError(f"this secret could be guessed: {reason}")
    return text


def _secret_file(text: str) -> str:
    return _secret(read_secret_file(text))


def _address(
    store: StoreName, label: str, accepts: tuple[StoreKind, ...] = SHARED_STORES
) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if find_plugin(store, text) is None:
            StoreUrl.parse(text, label, accepts, has_logs="kafka" in accepts)
        return text

    return parse


def _events(text: str) -> str:
    return text if text == "off" else _address("events", "the event log", tuple(FORMS))(text)


def _setting(parse: Callable[[str], Any], default: Any = None) -> Any:
    return field(default=default, metadata={"parse": parse})


SECRET_SETTINGS = ("session_key", "key_pepper", "event_key")


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """Hold a process's settings.

    Each field is `AGENT_RUNTIME_<FIELD>` in the environment, and `<field>` in the TOML file that
    `AGENT_RUNTIME_CONFIG` names. Options of the command line precede the environment, and that the
    file. `sources` has the source of each. Secrets are never shown.
    """

    home: str | None = _setting(str)
    sessions: str | None = _setting(_address("sessions", "the sessions"))
    session_key: str | None = _setting(_secret)
    session_key_file: str | None = _setting(_secret_file)
    ledger: str | None = _setting(_address("ledger", "the ledger"))
    keys: str | None = _setting(_address("keys", "the API keys"))
    events: str | None = _setting(_events)
    event_key: str | None = _setting(_secret)
    event_key_file: str | None = _setting(_secret_file)
    batches: str | None = _setting(_address("batches", "the journal of batches"))
    dead_letters: str | None = _setting(_address("dead_letters", "the dead letters"))
    key_pepper: str | None = _setting(_secret)
    key_pepper_file: str | None = _setting(_secret_file)
    limits: str | None = _setting(_address("limits", "the limits", ("memory", "redis")))
    processes: int = _setting(_process_count, 1)
    budget: Decimal | None = _setting(_usd)
    log_level: str = _setting(_one_of(*LEVELS), "WARNING")
    log_format: Literal["json", "console"] = _setting(_one_of("json", "console"), "console")
    preset: str = _setting(_one_of("dev", "prod"), "dev")
    templates: Literal["trusted", "confined"] = _setting(_one_of("trusted", "confined"), "trusted")
    auth: str = _setting(_one_of("on", "off"), "on")
    host: str = _setting(str, "127.0.0.1")
    port: int = _setting(_port, 8000)
    sources: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, dict[str, str]]:
        """Return every setting with its value, secrets masked, and its source."""
        setting_rows = {}
        for setting in fields(self)[:-1]:
            value = getattr(self, setting.name)
            is_secret = value is not None and setting.name.partition("_file")[0] in SECRET_SETTINGS
            text = "[redacted]" if is_secret else "" if value is None else SECRETS.text(str(value))
            setting_rows[setting.name] = {
                "value": text,
                "source": self.sources.get(setting.name, "default"),
            }
        return setting_rows

    def __repr__(self) -> str:
        explicit_values = {
            name: row["value"]
            for name, row in self.describe().items()
            if row["source"] != "default"
        }
        return f"Settings({explicit_values})"


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process.

    Raises ConfigurationError with all problems, without values.
    """
    environ = os.environ if environ is None else environ
    parsers = {setting.name: setting.metadata["parse"] for setting in fields(Settings)[:-1]}
    problems: list[str] = []
    raw_settings = _from_file(environ.get(FILE_VAR), problems) | _from_environment(environ)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, (text, source) in raw_settings.items():
        if source == "environment" and _variable(name).startswith(size_limits.PREFIX):
            if (problem := size_limits.problem_of(_variable(name), text)) is not None:
                problems.append(problem)
            continue
        if name not in parsers:
            in_environment = source == "environment"
            names = (
                [_variable(setting_name) for setting_name in parsers] if in_environment else parsers
            )
            display_name = _variable(name) if in_environment and name.islower() else name
            problems.append(
                f"unknown setting {display_name} ({source}): {close_matches(display_name, names)}"
            )
            continue
        try:
            values[name] = parsers[name](text)
            sources[name] = source
        except (ValueError, ConfigurationError) as error:
            problems.append(f"{_variable(name)} ({source}): {error}")
    problems += _unsafe_combinations(values)
    if problems:
        raise ConfigurationError("\n".join(problems))
    return Settings(**values, sources=sources)


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    raw_settings = {}
    for name, value in environ.items():
        if name.startswith(PREFIX) and name not in NON_SETTING_VARIABLES and value != "":
            # With other capitals it is another variable, and not ours.
            raw_settings[name.removeprefix(PREFIX).lower() if name.isupper() else name] = (
                value,
                "environment",
            )
    return raw_settings


MAX_FILE_BYTES = size_limit("settings_bytes")


def _from_file(path: str | None, problems: list[str]) -> dict[str, tuple[str, str]]:
    if not path:
        return {}
    try:
        content = tomllib.loads(read_bounded(path, MAX_FILE_BYTES).decode())
    except (OSError, ValueError) as error:
        problems.append(f"{FILE_VAR}: '{path}' cannot be read: {type(error).__name__}")
        return {}
    if secrets_in_file := [name for name in SECRET_SETTINGS if name in content]:
        problems.append(
            f"{path}: a secret stands in a file of its own: say {secrets_in_file[0]}_file"
        )
    return {name: (str(value), path) for name, value in content.items()}


def _unsafe_combinations(values: Mapping[str, Any]) -> list[str]:
    problems = [
        f"{_variable(name)} and {_variable(name)}_FILE: give one of them"
        for name in SECRET_SETTINGS
        if name in values and f"{name}_file" in values
    ]
    if values.get("preset") == "prod":
        if values.get("auth") == "off":
            problems.append(
                "the preset prod does not run without authentication: AGENT_RUNTIME_AUTH=off is "
                "refused"
            )
        if values.get("host") in ("0.0.0.0", "::", ""):  # noqa: S104 - refused here
            problems.append(
                "the preset prod does not listen on every interface: name one in AGENT_RUNTIME_HOST"
            )
        problems += _volatile_store_problems(values)
    return problems


def _volatile_store_problems(values: Mapping[str, Any]) -> list[str]:
    """Return problems of stores that the preset prod forbids, since a restart would clear them."""
    problems = []
    for name in STORE_SETTINGS:
        text = values.get(name)
        if text is None or text == "off" or find_plugin(name, text) is not None:
            continue
        address = StoreUrl.parse(text, name, tuple(FORMS), has_logs=True)
        if address.is_in_memory:
            problems.append(
                f"{_variable(name)}: the preset prod keeps nothing in memory, where a restart "
                "loses it: "
                "name a file (sqlite:FILE) or a server (redis://HOST)"
            )
        elif address.durable is False and name != "limits":
            problems.append(
                f"{_variable(name)}: the preset prod refuses a server that loses writes "
                "(durable=no)"
            )
    return problems
