"""A pool's status as a table."""

from __future__ import annotations

import time
from typing import Any

from agent_runtime.escapes import escape_to_one_line

COLUMNS = (
    ("ID", 14), ("AGENT", 20), ("STATUS", 11), ("PID", 8), ("MEM MiB", 9), ("LIMIT", 7), ("TASKS",
    7), ("IDLE s", 8),
)  # fmt: skip


def pool_status_table(status: dict[str, Any]) -> str:
    """Return a control socket's status as a readable table."""
    pool = status["pool"]
    queue = pool["queue"]
    waiting = ", ".join(
        f"{name} {queue[name]}" for name in ("urgent", "high", "normal", "low") if queue[name]
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
    lines += [_instance_row(instance) for instance in pool["instances"]]
    for service in status["providers"]:
        limit = "no limit" if service["limit"] is None else f"limit {service['limit']}"
        lines.append(
            f"provider {escape_to_one_line(service['provider'])}: {service['in_flight']} in "
            f"flight, {limit}, "
            f"{service['waiting']} waiting, {service['overloads']} overloads"
        )
    for service in status["mcp"]:
        state = "open" if service["open"] else "closed"
        lines.append(
            f"mcp {escape_to_one_line(service['server'])}: {state}, {service['users']} agents, "
            f"{service['calls']} calls"
        )
    return "\n".join(lines)


def _instance_row(instance: dict[str, Any]) -> str:
    idle_s = (
        max(0.0, time.time() - instance["last_used_at"]) if instance["status"] == "idle" else 0.0
    )
    values = (
        instance["id"],
        escape_to_one_line(instance["agent"])[-19:],
        instance["status"],
        instance["pid"] or "",
        f"{instance['memory_mb']:.1f}",
        instance["memory_limit_mb"],
        instance["tasks_done"],
        f"{idle_s:.0f}",
    )
    row = "".join(f"{value!s:<{width}}" for value, (_, width) in zip(values, COLUMNS, strict=True))
    return f"{row.rstrip()}  {escape_to_one_line(instance['last_error'])[:60]}".rstrip()
