"""Define the journal: batches survive the process, and one process at a time runs an execution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, cast

from agent_runtime.batch.journal.records import (
    Execution,
    RunnerRequest,
    StoredResult,
    TaskRow,
    TaskUpdate,
)
from agent_runtime.batch.result import TaskStatus


class Journal(ABC):
    """Store executions, their tasks and results.

    Each store implements each operation as a method with a leading `_`. A method's effect is
    durable when it returns (a SQLite file survives the process, and with `synchronous=full` a power
    cut). Methods with a `token` raise ExecutionLost when another process has taken over the
    execution, those with an unknown id ExecutionNotFound, and all raise StoreError. Failed writes
    may be repeated unchanged.
    """

    ephemeral = False
    """Whether it is gone with the process.

    Then nothing need be written that only the next one would read.
    """

    @abstractmethod
    async def acall(self, operation: str, *args: Any) -> Any:
        """Run the operation of this name."""

    async def aclose(self) -> None:  # noqa: B027 - memory has nothing to close
        """Close the store."""

    # -- executions

    async def create(self, execution: Execution) -> bool:
        """Keep a new execution; False when its id is known already."""
        return bool(await self.acall("create", execution))

    async def get(self, execution_id: str) -> Execution:
        """Return the execution."""
        return cast("Execution", await self.acall("get", execution_id))

    async def list(self, limit: int = 100) -> Sequence[Execution]:
        """Return the newest executions first."""
        return cast("Sequence[Execution]", await self.acall("list", limit))

    async def delete(self, execution_id: str) -> None:
        """Delete an execution, its tasks and its results."""
        await self.acall("delete", execution_id)

    async def lease(self, execution_id: str, owner: str, lease_s: float, *, dead: str = "") -> int:
        """Take the execution for `lease_s` seconds, by the store's own clock.

        Returns the token of its owner.

        Raises ExecutionBusy while another owner's lease runs, unless that is the one that is known
        to be `dead`.
        """
        return int(await self.acall("lease", execution_id, owner, lease_s, dead))

    async def heartbeat(
        self, execution_id: str, token: int, lease_s: float, progress: str
    ) -> RunnerRequest:
        """Renew the lease for `lease_s` seconds and store the runner's figures (JSON).

        Returns the pending request to the runner.
        """
        return cast(
            "RunnerRequest", await self.acall("beat", execution_id, token, lease_s, progress)
        )

    async def save(self, execution: Execution, *, release: bool = False) -> None:
        """Write the owner's version of an execution; `release` ends its lease."""
        await self.acall("save", execution, release)

    async def request(self, execution_id: str, request: RunnerRequest) -> None:
        """Ask the runner for something."""
        await self.acall("want", execution_id, request)

    async def ack_request(self, execution_id: str, request: RunnerRequest) -> None:
        """Acknowledge a request, unless another one has replaced it."""
        await self.acall("heard", execution_id, request)

    # -- tasks

    async def add(self, execution_id: str, rows: Sequence[TaskRow]) -> Sequence[int]:
        """Accept tasks in one step; return the numbers of those with a duplicate id or number.

        Duplicates are not stored.
        """
        return cast("Sequence[int]", await self.acall("add", execution_id, rows))

    async def write(self, execution_id: str, token: int, changes: Sequence[TaskUpdate]) -> None:
        """Write all changes in one step."""
        await self.acall("write", execution_id, token, changes)

    async def rows(
        self, execution_id: str, status: TaskStatus, limit: int, *, agent: str | None = None
    ) -> Sequence[TaskRow]:
        """Return tasks of a status, and of an agent, in the order of their rank."""
        return cast(
            "Sequence[TaskRow]", await self.acall("rows", execution_id, status, limit, agent)
        )

    async def get_tasks(self, execution_id: str, seqs: Sequence[int]) -> Sequence[TaskRow]:
        """Return the tasks with these sequence numbers, in their order."""
        return cast("Sequence[TaskRow]", await self.acall("places", execution_id, seqs))

    async def counts(self, execution_id: str) -> dict[TaskStatus, int]:
        """Return how many tasks there are, by status."""
        return cast("dict[TaskStatus, int]", await self.acall("counts", execution_id))

    async def agents(self, execution_id: str) -> Sequence[str]:
        """Return the names of its tasks' agents, sorted."""
        return cast("Sequence[str]", await self.acall("agents", execution_id))

    async def reset(self, execution_id: str, token: int, statuses: Sequence[TaskStatus]) -> int:
        """Make ended tasks pending, as if never attempted, and return how many.

        Their history stays.

        Tasks that could not be accepted (a `generation` below 0) stay as they are.
        """
        return int(await self.acall("reset", execution_id, token, statuses))

    # -- results

    async def results(
        self,
        execution_id: str,
        after: int = 0,
        limit: int = 500,
        *,
        by: Literal["number", "seq"] = "number",
    ) -> Sequence[StoredResult]:
        """Return results after `after`, in order of completion or of their tasks."""
        return cast(
            "Sequence[StoredResult]", await self.acall("results", execution_id, by, after, limit)
        )
