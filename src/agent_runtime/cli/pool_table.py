"""A pool's status as a table."""

from __future__ import annotations

import time
from typing import Any

from agent_runtime.escapes import on_one_line

COLUMNS = (
    ("ID", 14), ("AGENT", 20), ("STATUS", 11), ("PID", 8), ("MEM MiB", 9), ("LIMIT", 7), ("TASKS",
    7), ("IDLE s", 8),
)  # fmt: skip


def table(status: dict[str, Any]) -> str:
    """The status that a control socket answers, for people."""
    pool = status["pool"]
    queue = pool["queue"]
    waiting = ", ".join(
        f"{name} {queue[name]}" for name in ("critical", "high", "normal", "low") if queue[name]
    )
    total = "" if pool["total_memory_mb"] is None else f" of {pool['total_memory_mb']}"
    head = (
        f"pool {status['pid']}: {len(pool['instances'])}/{pool['size']} instances"
        f"{', draining' if pool['draining'] else ''}; queue {queue['depth']}/{queue['limit']}"
        f"{f' ({waiting})' if waiting else ''}; memory {pool['memory_mb']:.0f} MiB, "
        f"limits {pool['memory_limit_mb']}{total}; starts {pool['starts']}, failed "
        f"{pool['start_failures']}, "
        f"killed by tasks {pool['kills']}"
    )
    lines = [head, "".join(f"{name:<{width}}" for name, width in COLUMNS).rstrip()]
    lines += [_row(each) for each in pool["instances"]]
    for each in status["providers"]:
        limit = "no limit" if each["limit"] is None else f"limit {each['limit']}"
        lines.append(
            f"provider {on_one_line(each['provider'])}: {each['in_flight']} in flight, {limit}, "
            f"{each['waiting']} waiting, {each['overloads']} overloads"
        )
    for each in status["mcp"]:
        state = "open" if each["open"] else "closed"
        lines.append(
            f"mcp {on_one_line(each['server'])}: {state}, {each['users']} agents, "
            f"{each['calls']} calls"
        )
    return "\n".join(lines)


def _row(instance: dict[str, Any]) -> str:
    idle_s = (
        max(0.0, time.time() - instance["last_used_s"]) if instance["status"] == "idle" else 0.0
    )
    values = (
        instance["id"],
        on_one_line(instance["agent"])[-19:],
        instance["status"],
        instance["pid"] or "",
        f"{instance['memory_mb']:.1f}",
        instance["memory_limit_mb"],
        instance["tasks_done"],
        f"{idle_s:.0f}",
    )
    row = "".join(f"{value!s:<{width}}" for value, (_, width) in zip(values, COLUMNS, strict=True))
    return f"{row.rstrip()}  {on_one_line(instance['last_error'])[:60]}".rstrip()
