"""Transfer exceptions between processes.

Many do not survive pickle: those whose `__init__` requires more than `args` (an
`openai.RateLimitError`) fail on loading. So an exception is sent as its class, its arguments and
its fields, and rebuilt without its `__init__`; untransferable fields are omitted or become text.
"""

from __future__ import annotations

import importlib
import pickle
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_CAUSES = 5
MAX_TRACE_CHARS = 8_000
_REF = "_agent_runtime_ref"


@dataclass(frozen=True, slots=True)
class SerializedException:
    """Hold a serialized exception. `ref` identifies the receiver's own object on its way back."""

    module: str
    name: str
    text: str
    args: bytes
    fields: dict[str, bytes]
    trace: str = ""
    ref: int | None = None
    cause: SerializedException | None = None
    notes: tuple[str, ...] = field(default=())


class RemoteException(Exception):
    """Represent an exception of a class that is unknown in this process."""


def serialize_exception(
    error: BaseException, ref: int | None = None, *, depth: int = MAX_CAUSES
) -> SerializedException:
    """Serialize an exception; `ref` identifies the sender's object."""
    exception_class = type(error)
    trace = "".join(
        traceback.format_exception(exception_class, error, error.__traceback__, chain=False)
    )[-MAX_TRACE_CHARS:]
    cause = error.__cause__
    return SerializedException(
        exception_class.__module__,
        exception_class.__qualname__,
        _text(error),
        _try_dumps(error.args)
        or _try_dumps(tuple(str(argument) for argument in error.args))
        or b"",
        {key: data for key, value in _attributes(error).items() if (data := _try_dumps(value))},
        trace,
        ref if ref is not None else getattr(error, _REF, None),
        serialize_exception(cause, depth=depth - 1) if cause is not None and depth > 0 else None,
        tuple(str(note) for note in getattr(error, "__notes__", ())),
    )


def deserialize_exception(
    failure: SerializedException, raised_errors: Mapping[int, BaseException]
) -> BaseException:
    """Return the exception: the receiver's own object of `raised_errors`, or a rebuilt one."""
    if failure.ref is not None and failure.ref in raised_errors:
        return raised_errors[failure.ref]
    error = _rebuild(failure)
    if failure.ref is not None:
        error.__dict__[_REF] = failure.ref
    for note in failure.notes:
        error.add_note(note)
    if failure.trace:
        error.add_note(f"in the other process:\n{failure.trace}")
    if failure.cause is not None:
        error.__cause__ = deserialize_exception(failure.cause, raised_errors)
    return error


def _rebuild(failure: SerializedException) -> BaseException:
    try:
        exception_class: Any = importlib.import_module(failure.module)
        for part in failure.name.split("."):
            exception_class = getattr(exception_class, part)
        if not (isinstance(exception_class, type) and issubclass(exception_class, BaseException)):
            raise TypeError(failure.name)
        error = exception_class.__new__(exception_class)
        error.args = _try_loads(failure.args, ())
        error.__dict__.update({key: _try_loads(data, None) for key, data in failure.fields.items()})
        str(error)  # one without its untransferable fields would fail on display
    except Exception:  # noqa: BLE001 - a class that is not there, or that is made in another way
        return RemoteException(f"{failure.module}.{failure.name}: {failure.text}")
    return error


def _attributes(error: BaseException) -> dict[str, Any]:
    attributes = dict(error.__dict__)
    for base_class in type(error).__mro__:
        for name in getattr(base_class, "__slots__", ()):
            if name != "__dict__" and hasattr(error, name):
                attributes.setdefault(name, getattr(error, name))
    return {key: value for key, value in attributes.items() if key not in ("__notes__", _REF)}


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a class's own method
        return type(error).__name__


def _try_dumps(value: Any) -> bytes | None:
    """Return the value's pickle, if it can be loaded."""
    try:
        data = pickle.dumps(value, 5)
        pickle.loads(data)  # noqa: S301 - just made
    except Exception:  # noqa: BLE001 - a class's own methods
        return None
    return data


def _try_loads(data: bytes, default: Any) -> Any:
    try:
        return pickle.loads(data) if data else default  # noqa: S301 - see `unpacked`
    except Exception:  # noqa: BLE001 - a class that is known there only
        return default
