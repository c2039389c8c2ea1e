"""From what a producer gives to tasks that can be accepted: each checked, named, and as the journal has it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.batch.attempt import failed_result, failure_of
from agent_runtime.batch.journal.records import Execution, TaskRow
from agent_runtime.batch.mapping import InputMapping
from agent_runtime.batch.result import Spent
from agent_runtime.batch.settings import BatchSettings
from agent_runtime.batch.sources import Format, Row, read_rows
from agent_runtime.batch.task import AnyTask, as_task
from agent_runtime.errors import ConfigurationError, InputInvalid
from agent_runtime.pool.task import TaskPriority

if TYPE_CHECKING:
    from agent_runtime.batch.journal.journal import Journal
    from agent_runtime.batch.scheduling import Scheduler
    from agent_runtime.factory import AgentFactory

AT_ONCE = 500
"""Tasks that are accepted in one step."""


class Intake:
    """Accepts the tasks of one execution.

    An item that cannot be a task is accepted as one that has failed, so that its place is not lost; what is wrong with
    its agent, or with its money, refuses the whole.

    Args:
        agent: for tasks that name none.
        mapping: makes tasks of a file's rows; by their columns' names by default.
    """

    def __init__(
        self,
        journal: Journal,
        scheduler: Scheduler,
        settings: BatchSettings,
        execution_id: str,
        *,
        agent: str = "",
        mapping: InputMapping | None = None,
        seq: int = 0,
    ) -> None:
        self._journal, self._scheduler, self._settings = journal, scheduler, settings
        self._execution_id, self._agent, self._mapping = execution_id, agent, mapping
        self.seq = seq

    async def accept_all(self, tasks: Iterable[Any]) -> int:
        """Journal every task; returns how many there are.

        Raises ConfigurationError, and InputInvalid for no task at all, or when all of the first ones are wrong: then
        so is what they are made from.
        """
        items, before = iter(tasks), self.seq
        while chunk := list(islice(items, AT_ONCE)):
            rows = await self.accept(chunk)
            results = [row.result for row in rows]
            if self.seq - before == len(rows) and all(results) and results[0] is not None:
                assert results[0].error is not None  # noqa: S101 - it failed
                raise InputInvalid(f"no task could be read: {results[0].error.message}")
        if self.seq == before:
            raise InputInvalid("a batch has at least one task")
        return self.seq - before

    async def accept(self, chunk: Iterable[Any]) -> list[TaskRow]:
        """Journal some tasks in one step; returns their rows. One whose id is known already is a failed one."""
        rows = [await self._row(item) for item in chunk]
        known = set(await self._journal.add(self._execution_id, rows))
        if known:
            rows = [self._refused(row) if row.seq in known else row for row in rows]
            await self._journal.add(self._execution_id, [row for row in rows if row.seq in known])
        return rows

    @staticmethod
    def _refused(row: TaskRow) -> TaskRow:
        made = _failed(row.seq, row.agent, InputInvalid(f"the id '{row.id}' stands twice in the batch", "id"))
        made.id = f"{row.id}#{row.seq}"
        return made

    async def _row(self, item: Any) -> TaskRow:
        self.seq += 1
        queue, place = self._settings.queue, ""
        try:
            if isinstance(item, Row):
                place = item.place
                item = self._of_row(item)
            task = as_task(item, self._agent)
            if not task.agent:
                raise ConfigurationError("a task names no agent, and neither does its batch: give agent=")
            row = TaskRow.of(self.seq, task, queue.aging, queue.order)
            for seat in self._scheduler.seats:
                if not await seat.backend.check(task, self._execution_id) and self._settings.max_cost_usd is not None:
                    raise ConfigurationError(
                        "max_cost_usd needs a ledger: AgentFactory(ledger=...), or cost.budgets in the template"
                    )
        except InputInvalid as error:
            shown = error if not place else InputInvalid(f"{place}: {error}")
            return _failed(self.seq, self._agent, shown)
        return row

    def _of_row(self, row: Row) -> AnyTask:
        if row.values is None:
            raise InputInvalid(row.problem)
        return (self._mapping or InputMapping(agent=self._agent)).task(row.values)


def _failed(seq: int, agent: str, error: InputInvalid) -> TaskRow:
    row = TaskRow(seq, f"t{seq}", agent, TaskPriority.NORMAL, '{"input": ""}', time.time(), status="failed")
    row.result = failed_result(row, "failed", Spent(), [failure_of(error, 1)])
    return row


def source_of(tasks: Any, file_format: Format | None, mapping: Mapping[str, str] | None) -> dict[str, Any]:
    """What is kept of where the tasks come from: enough to read a file again; nothing of what is no file."""
    if not isinstance(tasks, str | Path):
        return {}
    path = str(tasks) if str(tasks) == "-" else str(Path(tasks).resolve())
    return {"path": path, "format": file_format, "mapping": dict(mapping or {})}


def read_source(source: dict[str, Any]) -> Iterator[Row]:
    """The rows of the file that an execution was submitted with; raises as `read_rows`."""
    return read_rows(source["path"], source.get("format"))


def mapping_of(execution: Execution, factory: AgentFactory) -> InputMapping:
    """How its rows become tasks; the agent's inputs say which of them are numbers."""
    named = execution.agent and "path" in execution.source  # only a file's rows are text that may mean a number
    properties = factory.get_template(execution.agent).inputs.get("properties", {}) if named else {}
    return InputMapping(execution.source.get("mapping"), execution.agent, properties)
