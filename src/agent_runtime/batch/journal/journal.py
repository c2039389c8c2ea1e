"""Define the journal: batches survive the process, and one process at a time runs an execution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from typing import Literal

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

    A method's effect is durable when it returns (a SQLite file survives the process, and with
    `synchronous=full` a power cut). Methods with a `token` raise ExecutionLost when another process
    has taken over the execution, those with an unknown id ExecutionNotFound, and all raise
    StoreError. Failed writes may be repeated unchanged.
    """

    ephemeral = False
    """Whether it is gone with the process.

    Then nothing need be written that only the next one would read.
    """

    async def aclose(self) -> None:  # noqa: B027 - memory has nothing to close
        """Close the store."""

    # -- executions

    @abstractmethod
    def create(self, execution: Execution) -> Awaitable[bool]:
        """Store a new execution; False when its id exists."""

    @abstractmethod
    def get(self, execution_id: str) -> Awaitable[Execution]:
        """Return the execution."""

    @abstractmethod
    def list(self, limit: int = 100) -> Awaitable[Sequence[Execution]]:
        """Return the newest executions first."""

    @abstractmethod
    def delete(self, execution_id: str) -> Awaitable[None]:
        """Delete an execution, its tasks and its results."""

    @abstractmethod
    def lease(
        self, execution_id: str, owner: str, lease_s: float, *, dead: str = ""
    ) -> Awaitable[int]:
        """Lease the execution for `lease_s` seconds by the store's clock; return the owner's token.

        Raises ExecutionBusy while another owner's lease runs, unless that owner is `dead`.
        """

    @abstractmethod
    def heartbeat(
        self, execution_id: str, token: int, lease_s: float, progress: str
    ) -> Awaitable[RunnerRequest]:
        """Renew the lease for `lease_s` seconds and store the runner's figures (JSON).

        Returns the pending request to the runner.
        """

    @abstractmethod
    def save(self, execution: Execution, *, release: bool = False) -> Awaitable[None]:
        """Write the owner's version of an execution; `release` ends its lease."""

    @abstractmethod
    def request(self, execution_id: str, request: RunnerRequest) -> Awaitable[None]:
        """Ask the runner for something."""

    @abstractmethod
    def ack_request(self, execution_id: str, request: RunnerRequest) -> Awaitable[None]:
        """Acknowledge a request, unless another one has replaced it."""

    # -- tasks

    @abstractmethod
    def add(self, execution_id: str, rows: Sequence[TaskRow]) -> Awaitable[Sequence[int]]:
        """Accept tasks in one step; return the numbers of those with a duplicate id or number.

        Duplicates are not stored.
        """

    @abstractmethod
    def write(
        self, execution_id: str, token: int, changes: Sequence[TaskUpdate]
    ) -> Awaitable[None]:
        """Write all changes in one step."""

    @abstractmethod
    def rows(
        self, execution_id: str, status: TaskStatus, limit: int, *, agent: str | None = None
    ) -> Awaitable[Sequence[TaskRow]]:
        """Return tasks of a status, and of an agent, in the order of their rank."""

    @abstractmethod
    def get_tasks(self, execution_id: str, seqs: Sequence[int]) -> Awaitable[Sequence[TaskRow]]:
        """Return the tasks with these sequence numbers, in their order."""

    @abstractmethod
    def counts(self, execution_id: str) -> Awaitable[dict[TaskStatus, int]]:
        """Return how many tasks there are, by status."""

    @abstractmethod
    def agents(self, execution_id: str) -> Awaitable[Sequence[str]]:
        """Return the names of its tasks' agents, sorted."""

    @abstractmethod
    def reset(
        self, execution_id: str, token: int, statuses: Sequence[TaskStatus]
    ) -> Awaitable[int]:
        """Make ended tasks pending, as if never attempted, and return how many.

        Their history stays.

        Tasks that could not be accepted (a `generation` below 0) stay as they are.
        """

    # -- results

    @abstractmethod
    def results(
        self,
        execution_id: str,
        after: int = 0,
        limit: int = 500,
        *,
        by: Literal["number", "seq"] = "number",
    ) -> Awaitable[Sequence[StoredResult]]:
        """Return results after `after`, in order of completion or of their tasks."""
