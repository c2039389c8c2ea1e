"""The journal of a process that keeps none: the same contract, gone with the process."""

from __future__ import annotations

import dataclasses
import heapq
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.records import Change, Execution, Kept, TaskRow
from agent_runtime.batch.result import TaskResult
from agent_runtime.errors import ExecutionBusy, ExecutionLost, ExecutionNotFound
from agent_runtime.storage.process_identity import boot_s


class _Kept:
    """One execution's part."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.rows: dict[int, TaskRow] = {}
        self.ids: set[str] = set()
        self.pending: dict[int, TaskRow] = {}
        self.results: dict[int, Kept] = {}
        self.number = 0
        self.lease_until_s = 0.0

    @property
    def is_leased(self) -> bool:
        return bool(self.execution.owner) and self.lease_until_s > boot_s()

    def copy(self) -> Execution:
        return dataclasses.replace(self.execution, is_leased=self.is_leased)

    def keep(self, seq: int, result: TaskResult) -> None:
        self.number += 1
        self.results.pop(seq, None)
        self.results[seq] = Kept(self.number, seq, result)


class MemoryJournal(Journal):
    """In this process; nothing survives it. Everything stays until it is deleted."""

    volatile = True

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    async def acall(self, operation: str, *args: Any) -> Any:
        """See `Journal.acall`."""
        return getattr(self, f"_{operation}")(*args)

    def _of(self, execution_id: str) -> _Kept:
        if execution_id not in self._kept:
            raise ExecutionNotFound(execution_id)
        return self._kept[execution_id]

    def _owned(self, execution_id: str, token: int) -> _Kept:
        kept = self._of(execution_id)
        if not kept.execution.owner or kept.execution.token != token:
            raise ExecutionLost(execution_id)
        return kept

    def _create(self, execution: Execution) -> bool:
        new = execution.id not in self._kept
        if new:
            self._kept[execution.id] = _Kept(dataclasses.replace(execution))
        return new

    def _get(self, execution_id: str) -> Execution:
        return self._of(execution_id).copy()

    def _list(self, limit: int) -> Sequence[Execution]:
        newest = sorted(self._kept.values(), key=lambda kept: -kept.execution.created_s)
        return [kept.copy() for kept in newest[:limit]]

    def _delete(self, execution_id: str) -> None:
        self._kept.pop(execution_id, None)

    def _lease(self, execution_id: str, owner: str, lease_s: float, dead: str) -> int:
        kept = self._of(execution_id)
        found = kept.execution
        if kept.is_leased and found.owner != dead:
            raise ExecutionBusy(execution_id, found.owner)
        found.owner = owner
        found.token = found.token + 1
        kept.lease_until_s = boot_s() + lease_s
        return found.token

    def _beat(self, execution_id: str, token: int, lease_s: float, progress: str) -> str:
        kept = self._owned(execution_id, token)
        kept.lease_until_s = boot_s() + lease_s
        kept.execution.progress = json.loads(progress)
        return kept.execution.wanted

    def _save(self, execution: Execution, release: bool) -> None:
        kept = self._owned(execution.id, execution.token)
        kept.execution = dataclasses.replace(execution, wanted=kept.execution.wanted)
        if release:
            kept.execution.owner = ""

    def _want(self, execution_id: str, wanted: Any) -> None:
        self._of(execution_id).execution.wanted = wanted

    def _heard(self, execution_id: str, wanted: str) -> None:
        execution = self._of(execution_id).execution
        execution.wanted = "" if execution.wanted == wanted else execution.wanted

    def _add(self, execution_id: str, rows: Sequence[TaskRow]) -> Sequence[int]:
        kept = self._of(execution_id)
        known = []
        for row in rows:
            if row.id in kept.ids or row.seq in kept.rows:
                known.append(row.seq)
                continue
            kept.ids.add(row.id)
            kept.rows[row.seq] = row
            if row.status == "pending":
                kept.pending[row.seq] = row
            if row.result is not None:
                kept.keep(row.seq, row.result)
        return known

    def _write(self, execution_id: str, token: int, changes: Sequence[Change]) -> None:
        kept = self._owned(execution_id, token)
        for change in changes:
            row = kept.rows[change.seq]
            (
                row.status,
                row.attempts,
                row.tries,
                row.starts,
                row.not_before_s,
                row.history,
                row.spent,
            ) = change[2:9]
            if change.status == "pending":
                kept.pending[change.seq] = row
            else:
                kept.pending.pop(change.seq, None)
            if change.result is not None:
                kept.keep(change.seq, change.result)

    def _rows(
        self, execution_id: str, status: str, limit: int, agent: str | None
    ) -> Sequence[TaskRow]:
        kept = self._of(execution_id)
        among = kept.pending.values() if status == "pending" else kept.rows.values()
        found = [row for row in among if row.status == status and agent in (None, row.agent)]
        return heapq.nsmallest(limit, found, key=lambda row: (row.rank, row.seq))

    def _places(self, execution_id: str, seqs: Sequence[int]) -> Sequence[TaskRow]:
        rows = self._of(execution_id).rows
        return [rows[seq] for seq in sorted(seqs) if seq in rows]

    def _counts(self, execution_id: str) -> dict[str, int]:
        return dict(Counter(row.status for row in self._of(execution_id).rows.values()))

    def _agents(self, execution_id: str) -> Sequence[str]:
        return sorted({row.agent for row in self._of(execution_id).rows.values()})

    def _reset(self, execution_id: str, token: int, statuses: Sequence[str]) -> int:
        kept = self._owned(execution_id, token)
        found = [row for row in kept.rows.values() if row.status in statuses and row.tries >= 0]
        for row in found:
            row.status = "pending"
            row.attempts = 0
            row.tries = row.tries + 1
            row.starts = 0
            row.not_before_s = 0.0
            kept.pending[row.seq] = row
            kept.results.pop(row.seq, None)
        return len(found)

    def _results(self, execution_id: str, by: str, after: int, limit: int) -> Sequence[Kept]:
        kept = self._of(execution_id).results
        if by == "seq":
            return sorted(
                (each for each in kept.values() if each.seq > after), key=lambda each: each.seq
            )[:limit]
        found: list[Kept] = []
        for each in reversed(kept.values()):  # they stand in that order already
            if each.number <= after:
                break
            found.append(each)
        return found[::-1][:limit]
