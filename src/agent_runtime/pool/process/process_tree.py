"""Inspect the processes of this machine in Linux's /proc: parents and sessions."""

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


class ProcessInfo(NamedTuple):
    """A process: parent, session, and start in clock ticks since boot."""

    pid: int
    parent: int
    session: int
    start_ticks: int


def list_processes() -> list[ProcessInfo]:
    """Return every visible process."""
    candidates = (process_info(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return [candidate for candidate in candidates if candidate is not None]


def process_info(pid: int) -> ProcessInfo | None:
    """Return the process, or None when it does not exist or has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # a program's name may contain anything
    if fields[0] in ("Z", "X"):
        return None
    return ProcessInfo(pid, int(fields[1]), int(fields[3]), int(fields[19]))


def process_trees(
    pids: Iterable[int], snapshot: Iterable[ProcessInfo] | None = None
) -> dict[int, set[int]]:
    """Return the live descendants and session members of each of `pids`, including itself."""
    process_infos = list(list_processes() if snapshot is None else snapshot)
    trees = {
        pid: {info.pid for info in process_infos if pid in (info.pid, info.session)} for pid in pids
    }
    children: dict[int, list[int]] = {}
    for info in process_infos:
        children.setdefault(info.parent, []).append(info.pid)
    for tree_pids in trees.values():
        queue = list(tree_pids)
        while queue:
            for child in children.get(queue.pop(), ()):
                if child not in tree_pids:
                    tree_pids.add(child)
                    queue.append(child)
    return trees


def pids_with_environment(variable: str, values: Iterable[str]) -> set[int]:
    """Return the processes with one of `values` under `variable` in their environment.

    They keep it across sessions and parents.
    """
    environment_entries = {f"{variable}={value}".encode() for value in values}
    matching_pids = set()
    for info in list_processes():
        with suppress(OSError):
            if environment_entries & set(
                Path(f"/proc/{info.pid}/environ").read_bytes().split(b"\0")
            ):
                matching_pids.add(info.pid)
    return matching_pids


def rss_mb(pid: int) -> float:
    """Return resident memory in MiB; 0 without such a process."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_MB
    except (OSError, IndexError):
        return 0.0


def uss_mb(pid: int) -> float:
    """Return unshared memory in MiB; 0 when it cannot be read."""
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

    A program started in its own session with an empty environment can only be traced by its
    parents.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants() -> None:
    """Kill this process's descendants until none is left.

    Orphans return to it after `adopt_orphans`.
    """
    parent_pid = os.getpid()
    while targets := process_trees([parent_pid])[parent_pid] - {parent_pid}:
        for pid in targets:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def kill_process_tree(leader: int, variable: str, value: str) -> None:
    """Kill a worker, its group, its descendants, and processes with its mark in their environment.

    Processes that have ended are no error.
    """
    targets = process_trees([leader])[leader] | pids_with_environment(variable, [value])
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for pid in targets - {os.getpid()}:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
