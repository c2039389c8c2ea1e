"""Which process runs an execution, and whether it still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

LEASE_S = 15.0
"""How long an owner of another machine may be silent before its executions are anybody's."""
BEAT_S = 1.0


def owner_name() -> str:
    """This process: its machine, its pid, and when it began (a pid is given again)."""
    return f"{socket.gethostname()}:{os.getpid()}:{_began(os.getpid())}"


def is_dead(owner: str) -> bool:
    """Whether an owner is known to be dead: a process of this machine that is no more."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    began = owner.rpartition(":")[2]
    if host != socket.gethostname() or not rest.isdecimal():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _began(int(rest)) != began


def _began(pid: int) -> str:
    """When a process began, in the system's own count; "" where there is no /proc, or it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]
