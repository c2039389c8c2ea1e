"""Run one program, and end it with all its descendants when its owner ends.

Started by path as a script of its own (`python -I -S supervisor.py OWNER COMMAND [ARG ...]`, 13 ms
of CPU), so it imports nothing of the package. Linux only.

Every descendant becomes this process's child when its own parent ends, whatever its session or
environment (prctl(2), PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 1.0
"""Seconds that the program has to end by itself after SIGTERM."""
_POLL_S = 0.02
_NOT_FOUND = 127


class _StopRequested(BaseException):
    """Report that this process was requested to end, or that its owner has ended."""


def main(owner: int, command: list[str]) -> NoReturn:
    """Run `command` on this process's streams and exit as it does (128 + signal)."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != owner:  # it ended before it could be watched
        os._exit(0)
    status = 0
    program = 0
    try:
        program = _start(libc, command)
        for fd in (0, 1):  # readers of the program's output see its end at once
            os.close(fd)
        status = _wait(program)
    except _StopRequested:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if program:
            _terminate(program)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _kill_children()
    os._exit(status)


def _on_sigterm(number: int, frame: object) -> None:
    raise _StopRequested


def _start(libc: ctypes.CDLL, command: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.execvp(command[0], command)  # noqa: S606 - the template's own command
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(_NOT_FOUND)


def _wait(program: int) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _terminate(program: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(program, signal.SIGTERM)
    deadline_s = time.monotonic() + GRACE_S
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline_s:
            if os.waitpid(-1, os.WNOHANG)[0] == program:
                return
            time.sleep(_POLL_S)


def _kill_children() -> None:
    """Kill and reap until none is left: children of a killed one become children of this one."""
    with contextlib.suppress(ChildProcessError):
        while True:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = [int(pid) for pid in file.read().split()]
            for pid in children:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            os.waitpid(-1, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
