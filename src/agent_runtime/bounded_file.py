"""Read files with a bound on their size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def open_regular(path: str | Path) -> int:
    """Open a regular file for reading; return its descriptor.

    Raises OSError: EINVAL for anything else (a FIFO would block, a device has no end), else as
    `os.open`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_bounded(path: str | Path, max_bytes: int) -> bytes:
    """Return the contents of a regular file; at most one byte beyond the bound is read.

    Raises OSError: EFBIG for a larger one, and as `open_regular`.
    """
    descriptor = open_regular(path)
    try:
        data = bytearray()
        while len(data) <= max_bytes and (chunk := os.read(descriptor, max_bytes + 1 - len(data))):
            data += chunk
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes", str(path))
    return bytes(data)
