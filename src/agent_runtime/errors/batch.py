"""How a batch can be refused, or lost to another process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_runtime.errors.base import AgentRuntimeError


class BatchError(AgentRuntimeError):
    """Something about a batch, and not about one of its tasks."""

    code = "batch_error"


class QueueFull(BatchError):
    """The queue holds as many tasks as it may, and the producer would not wait.

    Nothing was accepted.
    """

    code = "queue_full"

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(
            f"the queue holds {size} tasks already: wait until there is room, or give a larger "
            "queue.size"
        )


class ExecutionNotFound(BatchError):
    """The journal knows no execution of this id."""

    code = "execution_not_found"

    def __init__(self, execution_id: str) -> None:
        self.execution_id = execution_id
        super().__init__(
            f"no batch execution '{execution_id}' in this journal; `agent-runtime batch status` "
            "lists them"
        )


class ExecutionBusy(BatchError):
    """Report that another process runs the execution; `owner` names it."""

    code = "execution_busy"

    def __init__(self, execution_id: str, owner: str) -> None:
        self.execution_id = execution_id
        self.owner = owner
        super().__init__(f"the execution '{execution_id}' is being run by {owner}")


class ApprovalRequired(BatchError):
    """Report that a forecast above the budget has not been approved. `forecast` has its figures."""

    code = "approval_required"

    def __init__(self, execution_id: str, forecast: Mapping[str, Any], limit_usd: float) -> None:
        self.execution_id = execution_id
        self.forecast = forecast
        self.limit_usd = limit_usd
        cost_usd = forecast.get("cost_usd")
        cost_text = "cannot be told" if cost_usd is None else f"will be about {cost_usd:.6f} USD"
        super().__init__(
            f"the cost of '{execution_id}' {cost_text}, and its budget is {limit_usd:g} USD: "
            "approve "
            "it, or raise that"
        )


class ExecutionLost(BatchError):
    """Report that another process took over an execution after this one's lease ended.

    Unwritten updates are discarded.
    """

    code = "execution_lost"

    def __init__(self, execution_id: str) -> None:
        self.execution_id = execution_id
        super().__init__(f"the execution '{execution_id}' was taken over by another process")
