"""Structured logs.

One line for each record, without secrets, to a sink that never stalls the caller.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from typing import Any, Literal, TextIO
from weakref import WeakSet

from agent_runtime.errors import ConfigurationError, close_matches
from agent_runtime.escapes import escape_controls, json_line
from agent_runtime.secrets.redaction import SECRETS, Redactor

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_STANDARD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
}


class JsonFormatter(logging.Formatter):
    """Format a record as one JSON object: time, level, logger, message, extra fields, exception."""

    def __init__(self, redactor: Redactor = SECRETS) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; all its texts are redacted before they are encoded."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields_of(record),
        }
        if record.exc_info or record.exc_text:
            entry["exception"] = record.exc_text or self.formatException(record.exc_info)  # type: ignore[arg-type]
        if record.stack_info:
            entry["stack"] = record.stack_info
        return json_line(self._redactor.value(entry), default=str)


class ConsoleFormatter(logging.Formatter):
    """A record as a line for people: time, level, message, and the fields behind it."""

    def __init__(self, redactor: Redactor = SECRETS) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")
        self._redactor = redactor

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the first line, without a traceback, with line breaks escaped."""
        record.message = (
            record.message.encode("unicode_escape").decode()
            if _has_unprintable(record.message)
            else record.message
        )
        extra_fields = {
            name: value for name, value in _fields_of(record).items() if value not in (None, "")
        }
        fields = " ".join(
            f"{name}={value!r}" if _has_unprintable(str(value)) else f"{name}={value}"
            for name, value in extra_fields.items()
        )
        return super().formatMessage(record) + (f"  {fields}" if fields else "")

    def format(self, record: logging.LogRecord) -> str:
        """Return the redacted line."""
        return escape_controls(
            self._redactor.text(super().format(record))
        )  # a traceback quotes foreign text


class RedactingFormatter(logging.Formatter):
    """Another formatter's text, redacted: for handlers of the application's own. See `redact`."""

    def __init__(self, inner: logging.Formatter | None, redactor: Redactor = SECRETS) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """Return the redacted line, with its traceback."""
        try:
            return self._redactor.text(self._inner.format(record))
        except Exception as error:  # noqa: BLE001 - logging would print the record's arguments as they are
            return _format_failure_text(record, error)


def redact(handler: logging.Handler, redactor: Redactor = SECRETS) -> None:
    """Mask secrets in the output of an application's handler, through its formatter."""
    handler.setFormatter(RedactingFormatter(handler.formatter, redactor))


def _format_failure_text(record: logging.LogRecord, error: Exception) -> str:
    return (
        f"a log record could not be formatted ({type(error).__name__}): "
        f"{record.pathname}:{record.lineno}"
    )


def _has_unprintable(text: str) -> bool:
    return not text.isprintable()


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD_FIELDS}


_SINKS: WeakSet[LogSink] = WeakSet()


class LogSink(logging.Handler):
    """Write lines from a separate thread.

    When the stream blocks, lines are dropped and counted, and no caller waits.

    Args:
        stream: the destination; stderr by default.
        formatter: formats records.
        max_lines: the longest queue.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        formatter: logging.Formatter | None = None,
        *,
        max_lines: int = 10_000,
    ) -> None:
        super().__init__()
        self.stream = stream or sys.stderr
        self.dropped = 0
        self.setFormatter(formatter or JsonFormatter())
        self._lines: queue.Queue[str | threading.Event] = queue.Queue(max_lines)
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        _SINKS.add(self)

    def after_fork(self) -> None:
        """Reset in a forked child: the thread and the queued lines are the parent's."""
        self._lines = queue.Queue(self._lines.maxsize)
        self._thread = None
        self._start = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record and leave it to the thread."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - logging would print the record's arguments as they are
            line = self.format(
                logging.makeLogRecord(
                    {"name": record.name, "msg": _format_failure_text(record, error)}
                )
            )
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1
        if self._thread is None:
            with self._start:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._write, name="agent_runtime log", daemon=True
                    )
                    self._thread.start()

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            try:
                if isinstance(line, threading.Event):
                    self.stream.flush()
                    continue
                # A lone surrogate, as a caller may send one, is no reason to lose the line.
                self.stream.write(line.encode("utf-8", "backslashreplace").decode() + "\n")
                if self._lines.empty():
                    self.stream.flush()
            except (OSError, ValueError):  # a closed pipe, a closed stream
                self.dropped += isinstance(line, str)
            finally:
                if isinstance(line, threading.Event):
                    line.set()

    def drain(self, timeout_s: float = 2.0) -> bool:
        """Wait until all records are written; False when `timeout_s` passed first."""
        if self._thread is None:
            return True
        done = threading.Event()
        try:
            self._lines.put(done, timeout=timeout_s)
        except queue.Full:
            return False
        return done.wait(timeout_s)

    def close(self) -> None:
        """Write queued lines for at most two seconds, and close."""
        self.drain()
        super().close()


def _after_fork() -> None:
    for sink in list(_SINKS):
        sink.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def configure_logging(
    level: str = "INFO",
    format: Literal["json", "console"] = "json",  # noqa: A002 - what users of logging call it
    *,
    stream: TextIO | None = None,
    logger: str = "agent_runtime",
    redactor: Redactor = SECRETS,
) -> LogSink:
    """Write the records of `logger` and its children as lines.

    Returns the sink, to be drained at the end.

    Replaces a sink that was configured before; other handlers stay. Raises ConfigurationError.
    """
    if str(level).upper() not in LEVELS:
        raise ConfigurationError(
            f"unknown log level '{level}': {close_matches(str(level).upper(), LEVELS)}"
        )
    if format not in ("json", "console"):
        raise ConfigurationError(f"unknown log format '{format}': json or console")
    redactor.add_environment()
    formatter = JsonFormatter(redactor) if format == "json" else ConsoleFormatter(redactor)
    sink = LogSink(stream, formatter)
    target = logging.getLogger(logger)
    for old_sink in [handler for handler in target.handlers if isinstance(handler, LogSink)]:
        target.removeHandler(old_sink)
        old_sink.close()
    target.addHandler(sink)
    target.setLevel(str(level).upper())
    return sink
