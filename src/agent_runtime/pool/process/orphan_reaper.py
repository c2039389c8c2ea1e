"""The guard: a process that outlives a killed application just long enough to end its workers."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection

from agent_runtime.pool.process.process_tree import kill_process_tree, process_info
from agent_runtime.pool.process.worker import INSTANCE_VARIABLE


def reaper_main(pipe: Connection) -> None:
    """Receive the pids of workers; when the pipe ends, kill the remaining ones, and end."""
    os.setsid()  # not in the application's group, whose signals must not reach it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    workers: dict[int, str] = {}
    with suppress(EOFError, OSError):
        while (message := pipe.recv()) is not None:
            added, pid, instance_id = message
            if added:
                workers[pid] = instance_id
            else:
                workers.pop(pid, None)
    for pid, instance_id in workers.items():
        if process_info(pid) is not None or instance_id:
            kill_process_tree(pid, INSTANCE_VARIABLE, instance_id)
