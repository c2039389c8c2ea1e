"""Contain errors of the application's and its libraries' code to their own call.

`except Exception` is not enough: `sys.exit()` in a tool raises SystemExit, which asyncio propagates
out of the event loop, ending every other call in the process.
"""

from __future__ import annotations

import asyncio
import dis
import functools
import signal
import threading
from types import CodeType, TracebackType
from typing import Any

_RAISE = dis.opmap["RAISE_VARARGS"]
MAX_TEXT = 2_000


class ExitFromUserCode(Exception):
    """Code that the runtime called raised SystemExit, KeyboardInterrupt or the like.

    It is the `__cause__`.
    """


def as_user_exception(error: BaseException) -> Exception:
    """Return user code's exception as an Exception, or raise one that is not its own.

    A cancellation, the end of a generator, and an exception of a signal's handler (Ctrl-C, a
    `sys.exit` on SIGTERM) are raised.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, asyncio.CancelledError | GeneratorExit) or is_from_signal(error):
        raise error
    exit_error = ExitFromUserCode(f"{type(error).__name__}: {error_text(error)}")
    exit_error.__cause__ = error
    return exit_error


def is_from_signal(error: BaseException) -> bool:
    """Return whether a signal raised this, anywhere in the main thread.

    Its traceback then contains a signal handler; or, for the interpreter's own handler of SIGINT,
    it begins at an instruction that raises nothing by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        return False  # signals are handled in the main thread
    if isinstance(error, BaseExceptionGroup):  # a task group's
        return any(is_from_signal(nested_error) for nested_error in error.exceptions)
    handlers = _handler_codes()
    trace = error.__traceback__
    last = None
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        last = trace
        trace = trace.tb_next
    return isinstance(error, KeyboardInterrupt) and last is not None and not _is_at_raise(last)


def error_text(error: BaseException) -> str:
    """Return an exception's text, even if its `__str__` fails, bounded and valid in UTF-8."""
    try:
        text = str(error)
    except BaseException as str_error:
        if is_from_signal(str_error):
            raise
        return "(its text cannot be read)"
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}..."
    return text.encode("utf-8", "backslashreplace").decode()


def _is_at_raise(trace: TracebackType) -> bool:
    code = trace.tb_frame.f_code.co_code
    return 0 <= trace.tb_lasti < len(code) and code[trace.tb_lasti] == _RAISE


def _handler_codes() -> set[CodeType]:
    codes: set[CodeType] = set()
    for number in (signal.SIGINT, signal.SIGTERM, *_OPTIONAL_SIGNALS):
        handler: Any = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        code = getattr(getattr(handler, "__func__", handler), "__code__", None)
        if isinstance(code, CodeType):
            codes.add(code)
    return codes


_OPTIONAL_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM")
    if hasattr(signal, name)
]
