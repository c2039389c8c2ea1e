"""Process names that others can check, and the clock shared by one machine."""

from __future__ import annotations

import os
import socket
import time
from functools import lru_cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")
_LEASE = "#"
_LONGEST_LEASE_S = 86_400.0


def boot_s() -> float:
    """Return the seconds since the machine started, sleep included.

    No setting of the wall clock moves it.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return the id of this boot of the machine; empty where the system has none."""
    try:
        return _BOOT_ID.read_text("ascii").strip().partition("-")[0]
    except OSError:
        return ""


@lru_cache(maxsize=4)
def _identity_of(pid: int) -> str:
    try:
        namespace = os.readlink(_PID_NAMESPACE).strip("pid:[]")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{boot_id()}/{namespace}:{pid}:{_started_at(pid)}"


def process_identity() -> str:
    """Identify this process by its host, boot, pid namespace, pid.

    Start time (pids are reused).
    """
    return _identity_of(os.getpid())  # by pid, because a child that was forked is another process


def lease_owner(unique: str) -> str:
    """Name one holder of a lease in this process."""
    return f"{process_identity()}{_LEASE}{unique}"


def is_process_dead(identity: str) -> bool:
    """Tell whether a process, or the owner of a lease, is known to have ended.

    False for one on another host, of another boot, or in another pid namespace: of those nothing
    can be seen here.
    """
    machine, pid, started = _parse_identity(identity)
    if machine != _parse_identity(process_identity())[0] or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return _started_at(int(pid)) != started


def is_lease_held(owner: str, until_boot_s: float) -> bool:
    """Return whether a lease in a file of this machine is still held.

    It is not when its time (`boot_s`) is over, when it is of an earlier boot, or when its owner's
    process has ended. SQLite's write-ahead log does not support several machines, so another boot
    is an earlier one.
    """
    if not owner:
        return False
    if until_boot_s > boot_s() + _LONGEST_LEASE_S:
        return (
            until_boot_s > time.time()
        )  # a process of an earlier version still writes wall-clock times
    if until_boot_s <= boot_s():
        return False
    boot = _parse_identity(owner)[0].split("/")[1:2]
    return boot in ([], [boot_id()]) and not is_process_dead(owner)


def _parse_identity(identity: str) -> tuple[str, str, str]:
    rest, _, started = identity.partition(_LEASE)[0].rpartition(":")
    machine, _, pid = rest.rpartition(":")
    return machine, pid, started


def _started_at(pid: int) -> str:
    """Return a process's start time, in the kernel's ticks; empty without /proc or the process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]
