"""Track the executions that this process runs."""

from __future__ import annotations

import asyncio

from agent_runtime.batch.caller_rules import CallerRules
from agent_runtime.batch.environment import BatchEnvironment
from agent_runtime.batch.ingestion import TaskIngestor, input_mapping_for
from agent_runtime.batch.journal.records import Execution
from agent_runtime.batch.lease_times import LEASE_S
from agent_runtime.batch.runner import ExecutionRunner
from agent_runtime.batch.settings import BatchSettings
from agent_runtime.errors import ConfigurationError, InputInvalid
from agent_runtime.storage.process_identity import is_process_dead

MAX_ENDED_RUNNERS = 100


class ExecutionRegistry:
    """Lease and start executions, and find the runners of those that run here."""

    def __init__(self, environment: BatchEnvironment, caller_rules: CallerRules) -> None:
        self.environment = environment
        self.caller_rules = caller_rules
        self.is_open = False
        self.producer_tasks: dict[str, asyncio.Task[None]] = {}
        self.ingestors: dict[str, TaskIngestor] = {}
        self._runners: dict[str, ExecutionRunner] = {}

    def check_open(self) -> None:
        """Raise ConfigurationError unless the executor is open."""
        if not self.is_open:
            raise ConfigurationError(
                "the executor is not open: `async with ParallelAgentExecutor(...) as executor:`"
            )

    async def close(self) -> None:
        """Stop all producers, and all runners within their grace."""
        for task in self.producer_tasks.values():
            task.cancel()
        await asyncio.gather(*self.producer_tasks.values(), return_exceptions=True)
        self.is_open = False
        await asyncio.gather(
            *(runner.close() for runner in self._runners.values()), return_exceptions=True
        )

    def get(self, execution_id: str) -> ExecutionRunner | None:
        """Return the runner of an execution, also of one that has ended, or None."""
        return self._runners.get(execution_id)

    def active(self, execution_id: str) -> ExecutionRunner | None:
        """Return the runner of an execution that has not ended, or None."""
        runner = self._runners.get(execution_id)
        return None if runner is None or runner.ended else runner

    def require(self, execution_id: str) -> ExecutionRunner:
        """Return the runner of an execution; raises InputInvalid when it does not run here."""
        if (runner := self.active(execution_id)) is None:
            raise InputInvalid(f"the execution '{execution_id}' is not run here")
        return runner

    def all_active(self) -> list[ExecutionRunner]:
        """Return the runners of all executions that have not ended."""
        return [runner for runner in self._runners.values() if not runner.ended]

    async def lease(self, execution: Execution) -> None:
        """Lease an execution for this process; raises ExecutionBusy while another one has it."""
        # This process has given it up without being able to record that, so anyone may take it.
        is_abandoned_here = (
            execution.owner == self.environment.owner and self.active(execution.id) is None
        )
        dead_owner = (
            execution.owner if is_abandoned_here or is_process_dead(execution.owner) else ""
        )
        owner = self.environment.owner
        execution.token = await self.environment.journal.lease(
            execution.id, owner, LEASE_S, dead=dead_owner
        )
        execution.owner = owner

    def start(
        self, execution: Execution, settings: BatchSettings, *, crashed: bool = False
    ) -> ExecutionRunner:
        """Start to run an execution whose lease this process has."""
        ended_ids = [ended_id for ended_id, runner in self._runners.items() if runner.ended]
        for ended_id in ended_ids[
            : max(0, len(ended_ids) - MAX_ENDED_RUNNERS)
        ]:  # the journal knows them
            self.forget(ended_id)
        runner = self._runners[execution.id] = ExecutionRunner(
            self.environment, execution, settings, crashed=crashed
        )
        runner.start()
        return runner

    def forget(self, execution_id: str) -> None:
        """Drop an ended execution: the journal knows it."""
        for slot in self.environment.load_balancer.backend_slots:
            slot.backend.forget(execution_id)
        for registry in (self._runners, self.ingestors, self.producer_tasks):
            registry.pop(execution_id, None)

    def create_ingestor(self, execution: Execution, settings: BatchSettings) -> TaskIngestor:
        """Return the ingestor of an execution, which accepts its tasks."""
        mapping = input_mapping_for(execution, self.environment.factory)
        ingestor = TaskIngestor(
            self.environment.journal,
            self.environment.load_balancer,
            settings,
            execution,
            mapping,
            self.caller_rules,
        )
        self.ingestors[execution.id] = ingestor
        return ingestor
