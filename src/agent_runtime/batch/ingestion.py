"""Turn a producer's items into journaled tasks: validate them, assign ids, write them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.batch.attempt import failed_result, failure_from_error
from agent_runtime.batch.journal.records import Execution, TaskRow
from agent_runtime.batch.journal.writer import retrying
from agent_runtime.batch.lease_times import HEARTBEAT_S, LEASE_S
from agent_runtime.batch.mapping import InputMapping
from agent_runtime.batch.result import UsageTotals
from agent_runtime.batch.settings import BatchSettings
from agent_runtime.batch.sources import Format, SourceRow, read_rows
from agent_runtime.batch.task import AnyTask, BatchTask, as_task
from agent_runtime.errors import ConfigurationError, InputInvalid
from agent_runtime.pool.task import TaskPriority

if TYPE_CHECKING:
    from agent_runtime.batch.caller_rules import CallerRules
    from agent_runtime.batch.journal.journal import Journal
    from agent_runtime.batch.load_balancer import LoadBalancer
    from agent_runtime.factory import AgentFactory

CHUNK_SIZE = 500
"""Tasks that are accepted in one step."""


class TaskIngestor:
    """Accept the tasks of one execution.

    An invalid item is accepted as a failed task, so that its position is not lost; a fault of its
    agent or its budget rejects the whole batch.

    Args:
        execution: the execution; its agent runs the tasks that name none.
        mapping: maps a file's rows to tasks; by their columns' names by default.
        rules: restricts the names that the caller may use.
    """

    def __init__(
        self,
        journal: Journal,
        load_balancer: LoadBalancer,
        settings: BatchSettings,
        execution: Execution,
        mapping: InputMapping | None = None,
        rules: CallerRules | None = None,
    ) -> None:
        self._rules = rules
        self._journal = journal
        self._load_balancer = load_balancer
        self._settings = settings
        self._execution = execution
        self._execution_id = execution.id
        self._agent = execution.agent
        self._mapping = mapping
        self.seq = 0
        self._next_renewal = 0.0
        self._order_lock = asyncio.Lock()  # sequence numbers are assigned in order

    async def accept_all(self, tasks: Iterable[Any], *, skip_journaled: bool = False) -> int:
        """Journal every task; return how many there are.

        `skip_journaled` leaves out those that are in the journal already. Raises
        ConfigurationError, and InputInvalid for an empty input, or when all of the first items are
        invalid: the source is wrong then.
        """
        items = iter(tasks)
        seq_before = self.seq
        while chunk := list(islice(items, CHUNK_SIZE)):
            journaled_seqs = (
                await self._journaled(range(self.seq + 1, self.seq + len(chunk) + 1))
                if skip_journaled
                else set()
            )
            rows = await self.accept(chunk, journaled_seqs)
            await self._keep_lease()
            self._refuse_if_failing(rows, first=self.seq == len(rows))
        if self.seq == seq_before:
            raise InputInvalid("a batch has at least one task")
        return self.seq - seq_before

    def _refuse_if_failing(self, rows: list[TaskRow], *, first: bool) -> None:
        errors = [
            row.result.error
            for row in rows
            if row.result is not None and row.result.error is not None
        ]
        if first and errors and len(errors) == len(rows):
            raise InputInvalid(f"no task could be read: {errors[0].message}")
        if errors and (self._settings.fail_fast or not self._settings.continue_on_error):
            raise InputInvalid(f"the batch is to end at the first failure: {errors[0].message}")

    async def _keep_lease(self) -> None:
        """Renew the lease: accepting a long file takes longer than one lease."""
        if time.monotonic() >= self._next_renewal:
            self._next_renewal = time.monotonic() + HEARTBEAT_S
            execution = self._execution
            await self._journal.heartbeat(execution.id, execution.token, LEASE_S, "{}")

    async def accept(
        self, chunk: Iterable[Any], journaled_seqs: Container[int] = ()
    ) -> list[TaskRow]:
        """Journal some tasks in one step; return their rows.

        A task with a duplicate id is a failed one. `journaled_seqs` are in the journal already, and
        are left out.
        """
        async with self._order_lock:
            seq_before = self.seq
            rows = list[TaskRow]()
            try:
                for item in chunk:
                    self.seq += 1
                    if self.seq not in journaled_seqs:
                        rows.append(await self._build_row(item))
            except BaseException:
                self.seq = seq_before
                raise
            # from here on their numbers are used: after an error the written part is unknown
            clashing_rows = rows
            while clashing_rows := await self._journal_and_find_clashes(clashing_rows):
                for row in clashing_rows:
                    self._resolve_id_clash(row)
        return rows

    async def _journal_and_find_clashes(self, rows: list[TaskRow]) -> list[TaskRow]:
        """Journal the rows; return those with a duplicate id."""
        refused_seqs = set(await retrying(lambda: self._journal.add(self._execution_id, rows)))
        if (
            refused_seqs
        ):  # a taken number is its own: an earlier write that seemed to fail has succeeded
            refused_seqs -= await self._journaled(refused_seqs)
        return [row for row in rows if row.seq in refused_seqs]

    async def _journaled(self, seqs: Iterable[int]) -> set[int]:
        """Return the sequence numbers that are in the journal."""
        journaled_rows = await retrying(
            lambda: self._journal.get_tasks(self._execution_id, sorted(seqs))
        )
        return {row.seq for row in journaled_rows}

    @staticmethod
    def _resolve_id_clash(row: TaskRow) -> None:
        """Fail the second of two tasks with one id, or rename it if the id was generated here."""
        if row.result is None and row.id != f"t{row.seq}":
            error = InputInvalid(f"the id '{row.id}' appears twice in the batch", "id")
            _mark_failed(row, error)
        row.id = f"{row.id}#{row.seq}"
        if row.result is not None:
            row.result.task_id = row.id
        else:
            row.parsed_task = replace(row.to_task(), id=row.id)
            row.task = row.parsed_task.to_json()

    async def _build_row(self, item: Any) -> TaskRow:
        queue = self._settings.queue
        location = ""
        raw_values = item
        try:
            if isinstance(item, SourceRow):
                location = item.location
                raw_values = item.values
                item = self._task_from_source(item)
            elif isinstance(item, Mapping) and self._mapping is not None and self._mapping.fields:
                item = self._mapping.task(item)
            task = as_task(item, self._agent)
            if not task.agent:
                raise ConfigurationError(
                    "a task names no agent, and neither does its batch: give agent="
                )
            if not task.id:
                task = replace(task) if task is item else task  # do not change the caller's object
                task.id = f"t{self.seq}"
            if self._rules is not None:
                self._rules.check_task(task)
            row = TaskRow.create(self.seq, task, queue.aging, queue.order)
            budget = self._settings.max_cost_usd is not None
            await check_task(self._load_balancer, task, self._execution_id, budget=budget)
        except InputInvalid as error:
            reported_error = error if not location else InputInvalid(f"{location}: {error}")
            return _failed_row(self.seq, self._agent, reported_error, raw_values)
        return row

    def _task_from_source(self, row: SourceRow) -> AnyTask:
        if row.values is None:
            raise InputInvalid(row.problem)
        return (self._mapping or InputMapping(agent=self._agent)).task(row.values)


async def check_task(
    load_balancer: LoadBalancer, task: BatchTask, execution_id: str, *, budget: bool
) -> None:
    """Raise any fault of a task's agent, and ConfigurationError for a budget without a ledger."""
    for slot in load_balancer.backend_slots:
        if not await slot.backend.check(task, execution_id) and budget:
            raise ConfigurationError(
                "max_cost_usd needs a ledger: AgentFactory(ledger=...), or cost.budgets in the "
                "template"
            )


def _failed_row(seq: int, agent: str, error: InputInvalid, raw_item: Any) -> TaskRow:
    """Return the row of an invalid item.

    A valid id and valid labels make it traceable to its source.
    """
    raw_fields: Mapping[str, Any] = raw_item if isinstance(raw_item, Mapping) else {}
    try:
        placeholder_task = BatchTask(
            "", id=raw_fields.get("id") or f"t{seq}", metadata=raw_fields.get("metadata") or {}
        )
        placeholder_task.to_json()
    except InputInvalid:
        placeholder_task = BatchTask("", id=f"t{seq}")
    row = TaskRow(
        seq,
        placeholder_task.id,
        agent,
        TaskPriority.NORMAL,
        placeholder_task.to_json(),
        time.time(),
    )
    _mark_failed(row, error)
    assert row.result is not None  # noqa: S101 - it has failed
    row.result.metadata = placeholder_task.metadata
    return row


def _mark_failed(row: TaskRow, error: InputInvalid) -> None:
    """Mark a task that can never run as failed."""
    row.status = "failed"
    row.generation = -1
    row.result = failed_result(row, "failed", UsageTotals(), [failure_from_error(error, 1)])


def describe_source(
    tasks: Any, file_format: Format | None, mapping: Mapping[str, str] | None
) -> dict[str, Any]:
    """Describe a file as a source, so that it can be read again; empty for other sources."""
    if not isinstance(tasks, str | Path):
        if isinstance(tasks, Mapping) or not isinstance(tasks, Iterable | AsyncIterable):
            raise InputInvalid(
                f"tasks are a list, a file's name or an async iterator, not {type(tasks).__name__}",
                "tasks",
            )
        return {"mapping": dict(mapping)} if mapping else {}
    path = str(tasks) if str(tasks) == "-" else str(Path(tasks).resolve())
    return {"path": path, "format": file_format, "mapping": dict(mapping or {})}


def read_source(source: dict[str, Any]) -> Iterator[SourceRow]:
    """Return the rows of the file that an execution was submitted with; raises as `read_rows`."""
    return read_rows(source["path"], source.get("format"))


def input_mapping_for(execution: Execution, factory: AgentFactory) -> InputMapping:
    """Return the mapping from rows to tasks; the agent's inputs decide which values are numbers."""
    needs_types = execution.agent and {"path", "mapping"} & set(
        execution.source
    )  # only a file's rows are text that may mean a number
    properties = (
        factory.get_template(execution.agent).inputs.get("properties", {}) if needs_types else {}
    )
    return InputMapping(execution.source.get("mapping"), execution.agent, properties)
