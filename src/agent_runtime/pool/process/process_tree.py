"""The processes of this machine, as Linux shows them in /proc.

Who started whom, who is in whose session.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PR_SET_CHILD_SUBREAPER = 36
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


class Seen(NamedTuple):
    """A process: parent, session, and start in clock ticks since boot."""

    pid: int
    parent: int
    session: int
    began: int


def processes() -> list[Seen]:
    """Every process that can be seen."""
    seen = (process(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return [each for each in seen if each is not None]


def process(pid: int) -> Seen | None:
    """The process, or None when there is none or it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # a program's name may contain anything
    if fields[0] in ("Z", "X"):
        return None
    return Seen(pid, int(fields[1]), int(fields[3]), int(fields[19]))


def families(pids: Iterable[int], seen: Iterable[Seen] | None = None) -> dict[int, set[int]]:
    """For each of `pids`: itself, what it started, and what is in its session; only living ones."""
    everyone = list(processes() if seen is None else seen)
    families = {
        pid: {each.pid for each in everyone if pid in (each.pid, each.session)} for pid in pids
    }
    children: dict[int, list[int]] = {}
    for each in everyone:
        children.setdefault(each.parent, []).append(each.pid)
    for found in families.values():
        queue = list(found)
        while queue:
            for child in children.get(queue.pop(), ()):
                if child not in found:
                    found.add(child)
                    queue.append(child)
    return families


def marked(mark: str, values: Iterable[str]) -> set[int]:
    """The processes whose environment has one of `values` under `mark`.

    They keep it wherever they go.
    """
    wanted = {f"{mark}={value}".encode() for value in values}
    found = set()
    for each in processes():
        with suppress(OSError):
            if wanted & set(Path(f"/proc/{each.pid}/environ").read_bytes().split(b"\0")):
                found.add(each.pid)
    return found


def rss_mb(pid: int) -> float:
    """Resident memory in MiB; 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_MB
    except (OSError, IndexError):
        return 0.0


def uss_mb(pid: int) -> float:
    """Memory in MiB that no other process shares; 0 when it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    sizes = [
        int(line.split()[1])
        for line in text.splitlines()
        if line.startswith(("Private_Clean", "Private_Dirty"))
    ]
    return sum(sizes) / 1024


def adopt_orphans() -> None:
    """Adopt processes whose parents exit (prctl(2), PR_SET_CHILD_SUBREAPER).

    A program that is started in a session of its own, with an empty environment, is found by
    nothing but its parents.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants() -> None:
    """Kill what this process has started, until nothing is left.

    Orphans come back to it after `adopt_orphans`.
    """
    me = os.getpid()
    while doomed := families([me])[me] - {me}:
        for pid in doomed:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def kill_family(leader: int, mark: str, value: str) -> None:
    """Kill a worker, its group, what it started, and what bears its mark.

    Who has ended already is no error.
    """
    doomed = families([leader])[leader] | marked(mark, [value])
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for pid in doomed - {os.getpid()}:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
