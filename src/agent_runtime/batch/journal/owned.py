"""A journal as one principal sees it.

Their own executions, or, with the scope `sessions:all`, their tenant's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from typing_extensions import override

from agent_runtime.auth.caller_names import quoted
from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.records import (
    Execution,
    RunnerRequest,
    StoredResult,
    TaskRow,
    TaskUpdate,
)
from agent_runtime.batch.result import TaskStatus
from agent_runtime.errors import ExecutionNotFound
from agent_runtime.types import Principal, may_use

MAX_REMEMBERED = 10_000


class OwnedJournal(Journal):
    """Restrict a journal to the principal's executions; any other one is ExecutionNotFound.

    Ids begin with the tenant, so that two tenants may choose the same ones. An execution keeps its
    owner.
    """

    def __init__(self, journal: Journal, principal: Principal) -> None:
        self._journal = journal
        self._principal = principal
        self.ephemeral = journal.ephemeral
        self._permitted_ids: set[str] = set()

    def qualified_id(self, name: str) -> str:
        """Return the id of an execution for which the caller chose this name."""
        return f"{quoted(self._principal.tenant)}.{name}"

    @override
    async def create(self, execution: Execution) -> bool:
        execution.tenant = self._principal.tenant
        execution.user = self._principal.id
        is_new = await self._journal.create(execution)
        if is_new:
            self._remember(execution.id)
        return is_new

    @override
    async def get(self, execution_id: str) -> Execution:
        return await (await self._permitted(execution_id)).get(execution_id)

    @override
    async def list(self, limit: int = 100) -> Sequence[Execution]:
        fetch_limit = limit
        while True:
            executions = await self._journal.list(fetch_limit)
            permitted = [execution for execution in executions if self._may_use(execution)]
            if len(permitted) >= limit or len(executions) < fetch_limit:
                return permitted[:limit]
            fetch_limit *= 4

    @override
    async def delete(self, execution_id: str) -> None:
        await (await self._permitted(execution_id)).delete(execution_id)

    @override
    async def lease(self, execution_id: str, owner: str, lease_s: float, *, dead: str = "") -> int:
        journal = await self._permitted(execution_id)
        return await journal.lease(execution_id, owner, lease_s, dead=dead)

    @override
    async def heartbeat(
        self, execution_id: str, token: int, lease_s: float, progress: str
    ) -> RunnerRequest:
        journal = await self._permitted(execution_id)
        return await journal.heartbeat(execution_id, token, lease_s, progress)

    @override
    async def save(self, execution: Execution, *, release: bool = False) -> None:
        await (await self._permitted(execution.id)).save(execution, release=release)

    @override
    async def request(self, execution_id: str, request: RunnerRequest) -> None:
        await (await self._permitted(execution_id)).request(execution_id, request)

    @override
    async def ack_request(self, execution_id: str, request: RunnerRequest) -> None:
        await (await self._permitted(execution_id)).ack_request(execution_id, request)

    @override
    async def add(self, execution_id: str, rows: Sequence[TaskRow]) -> Sequence[int]:
        return await (await self._permitted(execution_id)).add(execution_id, rows)

    @override
    async def write(self, execution_id: str, token: int, changes: Sequence[TaskUpdate]) -> None:
        await (await self._permitted(execution_id)).write(execution_id, token, changes)

    @override
    async def rows(
        self, execution_id: str, status: TaskStatus, limit: int, *, agent: str | None = None
    ) -> Sequence[TaskRow]:
        journal = await self._permitted(execution_id)
        return await journal.rows(execution_id, status, limit, agent=agent)

    @override
    async def get_tasks(self, execution_id: str, seqs: Sequence[int]) -> Sequence[TaskRow]:
        return await (await self._permitted(execution_id)).get_tasks(execution_id, seqs)

    @override
    async def counts(self, execution_id: str) -> dict[TaskStatus, int]:
        return await (await self._permitted(execution_id)).counts(execution_id)

    @override
    async def agents(self, execution_id: str) -> Sequence[str]:
        return await (await self._permitted(execution_id)).agents(execution_id)

    @override
    async def reset(self, execution_id: str, token: int, statuses: Sequence[TaskStatus]) -> int:
        return await (await self._permitted(execution_id)).reset(execution_id, token, statuses)

    @override
    async def results(
        self,
        execution_id: str,
        after: int = 0,
        limit: int = 500,
        *,
        by: Literal["number", "seq"] = "number",
    ) -> Sequence[StoredResult]:
        journal = await self._permitted(execution_id)
        return await journal.results(execution_id, after, limit, by=by)

    @override
    async def aclose(self) -> None:
        await self._journal.aclose()

    async def _permitted(self, execution_id: str) -> Journal:
        """Return the journal; raises ExecutionNotFound for an execution of another owner."""
        if execution_id not in self._permitted_ids:
            if not self._may_use(await self._journal.get(execution_id)):
                raise ExecutionNotFound(execution_id)
            self._remember(execution_id)
        return self._journal

    def _may_use(self, execution: Execution) -> bool:
        return (execution.tenant or "default") == self._principal.tenant and may_use(
            self._principal, execution.user
        )

    def _remember(self, execution_id: str) -> None:
        if len(self._permitted_ids) >= MAX_REMEMBERED:
            self._permitted_ids.clear()
        self._permitted_ids.add(execution_id)
