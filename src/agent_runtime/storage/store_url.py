"""The address of a store, in the one grammar that every opener reads."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from agent_runtime.errors import ConfigurationError, close_matches
from agent_runtime.secrets.redaction import SECRETS

StoreKind: TypeAlias = Literal["memory", "sqlite", "redis", "nats", "kafka"]

FORMS: Mapping[StoreKind, str] = {
    "memory": "memory:",
    "sqlite": "sqlite:FILE",
    "redis": "redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///SOCKET",
    "nats": "nats://HOST:PORT",
    "kafka": "kafka://HOST:PORT",
}
"""How an address of each kind is written, for errors and documents."""

REDIS_ONLY: tuple[StoreKind, ...] = ("redis",)
SHARED_STORES: tuple[StoreKind, ...] = ("memory", "sqlite", "redis")
"""The kinds that most stores have."""

_SCHEMES: Mapping[str, StoreKind] = {
    "memory": "memory",
    "sqlite": "sqlite",
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
    "nats": "nats",
    "kafka": "kafka",
}
BUILTIN_SCHEMES = frozenset(_SCHEMES)
_REDIS_CLIENT_OPTIONS = frozenset({
    "client_name", "db", "protocol", "ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
})  # fmt: skip
"""Options that redis-py reads from an address by itself.

Any other one it would hand to a constructor, or ignore.
"""
_OPTIONS: Mapping[StoreKind, frozenset[str]] = {
    "memory": frozenset(),
    "sqlite": frozenset(),
    "redis": frozenset({"durable", "prefix", "timeout_s"}) | _REDIS_CLIENT_OPTIONS,
    "nats": frozenset(),
    "kafka": frozenset({"partitions", "idempotent"}),
}
_CLIENT_OPTIONS = _REDIS_CLIENT_OPTIONS | _OPTIONS["kafka"]
"""Options that stay in the target: its client reads them."""
_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_PREFIX = re.compile(r"[^\s{}*?\[\]\x00-\x1f]{1,128}")
_HOST = re.compile(r"\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]{1,253}")
_DATABASE = re.compile(r"/?|/\d{1,5}")
MAX_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, repr=False)
class StoreUrl:
    """Hold a parsed address; passwords in it are registered for redaction.

    `target` is the file of a SQLite store, and for a server the address without the options below.
    `durable`: refuse a Redis server without an append-only file (None: as the store requires).
    `prefix` precedes every Redis key, `timeout_s` bounds each of its answers. `log_name` names an
    event log at the address.
    """

    kind: StoreKind
    target: str = ""
    prefix: str | None = None
    durable: bool | None = None
    timeout_s: float | None = None
    log_name: str = "main"

    @classmethod
    def parse(
        cls,
        text: str,
        store_name: str,
        accepts: Collection[StoreKind] = SHARED_STORES,
        *,
        has_logs: bool = False,
    ) -> StoreUrl:
        """Parse the address `text` of `store_name` (a noun for errors: "the ledger").

        Args:
            text: the address.
            store_name: the store it is for.
            accepts: the kinds of store that are supported.
            has_logs: whether `?name=` may select one of several logs there.

        Raises ConfigurationError for an invalid address, a server without a host, an unknown
        option, or an invalid value. No message quotes a password.
        """
        return _Parser(text, store_name, accepts, has_logs=has_logs).parse()

    @property
    def is_in_memory(self) -> bool:
        """Return whether the store is lost when the process ends."""
        return self.kind == "memory" or self.target == ":memory:"

    def __repr__(self) -> str:
        return f"StoreUrl({self.kind!r}, {SECRETS.text(self.target)!r})"


class _Parser:
    def __init__(
        self, text: str, store_name: str, accepts: Collection[StoreKind], *, has_logs: bool
    ) -> None:
        self._text = text
        self._store_name = store_name
        self._accepts = accepts
        self._has_logs = has_logs

    def parse(self) -> StoreUrl:
        if not isinstance(self._text, str) or not self._text:
            raise self._error("it is empty")
        SECRETS.add_address(self._text)
        if self._text != self._text.strip() or not self._text.isprintable():
            raise self._error("it has surrounding blanks, or unprintable characters")
        scheme, colon, rest = self._text.partition(":")
        kind = _SCHEMES.get(scheme)
        if not colon or kind is None or kind not in self._accepts:
            raise self._error(self._advice(scheme, colon, kind))
        if kind == "memory":
            if rest:
                raise self._error("memory: takes no path")
            return StoreUrl("memory")
        return self._file(rest) if kind == "sqlite" else self._server(kind)

    def _advice(self, scheme: str, colon: str, kind: StoreKind | None) -> str:
        if kind is not None and colon:
            return f"{scheme}: has no store for it"
        if kind == "memory":
            return "write memory: with its colon"
        if not colon:
            return f"a file is written sqlite:{self._redacted_address()}"
        return f"'{scheme}' is not known: {close_matches(scheme, _SCHEMES)}"

    def _file(self, path: str) -> StoreUrl:
        if not path:
            raise self._error("sqlite: needs a file")
        if path.startswith("//"):
            raise self._error(
                "a path follows the colon directly: sqlite:state.db or sqlite:/var/lib/state.db"
            )
        if path.startswith("file:"):
            raise self._error("a file is a plain path, no SQLite URI")
        if "?" in path:
            raise self._error("a SQLite address has no options")
        return StoreUrl("sqlite", path)

    def _server(self, kind: StoreKind) -> StoreUrl:
        try:
            parts = urlsplit(self._text)
            options = self._options(kind, parts.query)
        except ValueError:  # its text quotes the part with the password
            raise self._error("its host or options are invalid") from None
        if parts.fragment:
            raise self._error("a '#' in it is written %23")
        if parts.scheme == "unix":
            self._check_socket(parts)
        else:
            self._check_hosts(kind, parts)
        client_options = {name: value for name, value in options.items() if name in _CLIENT_OPTIONS}
        self._check_partitions(options.get("partitions"))
        self._yes_no("idempotent", options.get("idempotent"))
        database_twice = (
            "db" in client_options and parts.scheme != "unix" and parts.path not in ("", "/")
        )
        if database_twice or not client_options.get("db", "0").isdecimal():
            raise self._error("one database is given, as a number")
        return StoreUrl(
            kind,
            self._text.partition("?")[0]
            + (f"?{urlencode(client_options)}" if client_options else ""),
            prefix=self._prefix(options.get("prefix")),
            durable=self._yes_no("durable", options.get("durable")),
            timeout_s=self._timeout_s(options.get("timeout_s")),
            log_name=options.get("name", "main"),
        )

    def _options(self, kind: StoreKind, query: str) -> dict[str, str]:
        valid_options = _OPTIONS[kind] | ({"name"} if self._has_logs else set())
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        options = dict(pairs)
        for name, value in pairs:
            if name not in valid_options:
                raise self._error(
                    f"the option '{name[:40]}' is not known: "
                    f"{close_matches(name[:40], valid_options)}"
                )
            if not value:
                raise self._error(f"the option '{name}' has no value")
        if len(options) != len(pairs):
            raise self._error("an option is given twice")
        return options

    def _check_socket(self, parts: SplitResult) -> None:
        if not self._text.startswith("unix:///") or len(parts.path) < 2:
            raise self._error("a socket is an absolute path: unix:///run/redis.sock")

    def _check_hosts(self, kind: StoreKind, parts: SplitResult) -> None:
        hosts = parts.netloc.rpartition("@")[2].split(",")
        if kind == "redis" and len(hosts) > 1:
            raise self._error("one server is given")
        for address in hosts:
            host, port = _host_and_port(address)
            # redis-py takes a missing host for localhost, so a typing error would open another
            # store in silence.
            if not _HOST.fullmatch(host):
                raise self._error("'//' needs a host")
            if port is not None and not (port.isdecimal() and 1 <= int(port[:6]) <= 65535):
                raise self._error("a port is a number from 1 to 65535")
        if not _DATABASE.fullmatch(parts.path) or (kind != "redis" and parts.path not in ("", "/")):
            raise self._error(
                "behind the host stands the number of a database"
                if kind == "redis"
                else "it has a path"
            )

    def _prefix(self, text: str | None) -> str | None:
        if text is not None and not _PREFIX.fullmatch(text):
            raise self._error(
                "a prefix has 1 to 128 characters, and no blanks, braces, brackets, '*' or '?'"
            )
        return text

    def _yes_no(self, name: str, text: str | None) -> bool | None:
        if text is not None and text not in _YES_NO:
            raise self._error(f"{name} is yes or no")
        return None if text is None else _YES_NO[text]

    def _timeout_s(self, text: str | None) -> float | None:
        if text is None:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= MAX_TIMEOUT_S:
            raise self._error(f"timeout_s is above 0 and up to {MAX_TIMEOUT_S:g} seconds")
        return seconds

    def _check_partitions(self, text: str | None) -> None:
        if text is not None and not (text.isdecimal() and 1 <= int(text[:6]) <= 10_000):
            raise self._error("partitions is a number from 1 to 10000")

    def _redacted_address(self) -> str:
        whole = SECRETS.text(
            str(self._text)[:4096]
        )  # before it is cut: half a password is not recognised
        return "".join(character if character.isprintable() else "?" for character in whole[:60])

    def _error(self, reason: str) -> ConfigurationError:
        forms = ", ".join(FORMS[kind] for kind in FORMS if kind in self._accepts)
        return ConfigurationError(
            f"'{self._redacted_address()}' is not an address of {self._store_name}: {reason}. "
            f"Known: {forms}"
        )


def _host_and_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if rest and not rest.startswith(":"):
            return text, None  # no host, which the error reports
        return host + bracket, rest[1:] if rest else None
    host, colon, port = text.partition(":")
    return host, port if colon else None
