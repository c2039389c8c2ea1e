"""A journal as one principal sees it.

Their own executions, or, with the scope `sessions:all`, their tenant's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_runtime.auth.caller_names import quoted
from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.records import Execution
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

    async def acall(self, operation: str, *args: Any) -> Any:
        """Run the operation of this name.

        Raises ExecutionNotFound for an execution of another owner.
        """
        if operation == "create":
            (execution,) = args
            execution.tenant = self._principal.tenant
            execution.user = self._principal.id
            is_new = await self._journal.acall("create", execution)
            if is_new:
                self._remember(execution.id)
            return is_new
        target = args[0]
        await self._check(target.id if isinstance(target, Execution) else target)
        return await self._journal.acall(operation, *args)

    async def list(self, limit: int = 100) -> Sequence[Execution]:
        """Return the newest of them first."""
        fetch_limit = limit
        while True:
            executions = await self._journal.list(fetch_limit)
            permitted = [execution for execution in executions if self._may_use(execution)]
            if len(permitted) >= limit or len(executions) < fetch_limit:
                return permitted[:limit]
            fetch_limit *= 4

    async def aclose(self) -> None:
        """Close the journal."""
        await self._journal.aclose()

    async def _check(self, execution_id: str) -> None:
        if execution_id in self._permitted_ids:
            return
        if not self._may_use(await self._journal.get(execution_id)):
            raise ExecutionNotFound(execution_id)
        self._remember(execution_id)

    def _may_use(self, execution: Execution) -> bool:
        return (execution.tenant or "default") == self._principal.tenant and may_use(
            self._principal, execution.user
        )

    def _remember(self, execution_id: str) -> None:
        if len(self._permitted_ids) >= MAX_REMEMBERED:
            self._permitted_ids.clear()
        self._permitted_ids.add(execution_id)
