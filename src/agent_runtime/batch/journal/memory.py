"""Keep the journal in memory: the same contract, lost when the process ends."""

from __future__ import annotations

import dataclasses
import heapq
import json
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from typing_extensions import override

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.records import (
    Execution,
    RunnerRequest,
    StoredResult,
    TaskRow,
    TaskUpdate,
)
from agent_runtime.batch.result import TaskResult, TaskStatus
from agent_runtime.errors import ExecutionBusy, ExecutionLost, ExecutionNotFound
from agent_runtime.storage.operations import InlineStore, operation
from agent_runtime.storage.process_identity import boot_s


class _StoredExecution:
    """One execution's part."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.rows: dict[int, TaskRow] = {}
        self.ids: set[str] = set()
        self.pending: dict[int, TaskRow] = {}
        self.results: dict[int, StoredResult] = {}
        self.last_number = 0
        self.lease_until_s = 0.0

    @property
    def is_leased(self) -> bool:
        return bool(self.execution.owner) and self.lease_until_s > boot_s()

    def copy(self) -> Execution:
        return dataclasses.replace(self.execution, is_leased=self.is_leased)

    def store_result(self, seq: int, result: TaskResult) -> None:
        self.last_number += 1
        self.results.pop(seq, None)
        self.results[seq] = StoredResult(self.last_number, seq, result)


class MemoryJournal(InlineStore, Journal):
    """In this process; nothing survives it. Everything stays until it is deleted."""

    ephemeral = True

    def __init__(self) -> None:
        super().__init__()
        self._executions: dict[str, _StoredExecution] = {}

    def _stored(self, execution_id: str) -> _StoredExecution:
        if execution_id not in self._executions:
            raise ExecutionNotFound(execution_id)
        return self._executions[execution_id]

    def _stored_for_owner(self, execution_id: str, token: int) -> _StoredExecution:
        stored = self._stored(execution_id)
        if not stored.execution.owner or stored.execution.token != token:
            raise ExecutionLost(execution_id)
        return stored

    @override
    @operation
    def create(self, execution: Execution) -> bool:
        new = execution.id not in self._executions
        if new:
            self._executions[execution.id] = _StoredExecution(dataclasses.replace(execution))
        return new

    @override
    @operation
    def get(self, execution_id: str) -> Execution:
        return self._stored(execution_id).copy()

    @override
    @operation
    def list(self, limit: int = 100) -> Sequence[Execution]:
        newest = sorted(self._executions.values(), key=lambda stored: -stored.execution.created_at)
        return [stored.copy() for stored in newest[:limit]]

    @override
    @operation
    def delete(self, execution_id: str) -> None:
        self._executions.pop(execution_id, None)

    @override
    @operation
    def lease(self, execution_id: str, owner: str, lease_s: float, *, dead: str = "") -> int:
        stored = self._stored(execution_id)
        execution = stored.execution
        if stored.is_leased and execution.owner != dead:
            raise ExecutionBusy(execution_id, execution.owner)
        execution.owner = owner
        execution.token = execution.token + 1
        stored.lease_until_s = boot_s() + lease_s
        return execution.token

    @override
    @operation
    def heartbeat(
        self, execution_id: str, token: int, lease_s: float, progress: str
    ) -> RunnerRequest:
        stored = self._stored_for_owner(execution_id, token)
        stored.lease_until_s = boot_s() + lease_s
        stored.execution.progress = json.loads(progress)
        return stored.execution.requested

    @override
    @operation
    def save(self, execution: Execution, *, release: bool = False) -> None:
        stored = self._stored_for_owner(execution.id, execution.token)
        stored.execution = dataclasses.replace(execution, requested=stored.execution.requested)
        if release:
            stored.execution.owner = ""

    @override
    @operation
    def request(self, execution_id: str, request: RunnerRequest) -> None:
        self._stored(execution_id).execution.requested = request

    @override
    @operation
    def ack_request(self, execution_id: str, request: RunnerRequest) -> None:
        execution = self._stored(execution_id).execution
        execution.requested = "" if execution.requested == request else execution.requested

    @override
    @operation
    def add(self, execution_id: str, rows: Sequence[TaskRow]) -> Sequence[int]:
        stored = self._stored(execution_id)
        duplicate_seqs = []
        for row in rows:
            if row.id in stored.ids or row.seq in stored.rows:
                duplicate_seqs.append(row.seq)
                continue
            stored.ids.add(row.id)
            stored.rows[row.seq] = row
            if row.status == "pending":
                stored.pending[row.seq] = row
            if row.result is not None:
                stored.store_result(row.seq, row.result)
        return duplicate_seqs

    @override
    @operation
    def write(self, execution_id: str, token: int, changes: Sequence[TaskUpdate]) -> None:
        stored = self._stored_for_owner(execution_id, token)
        for change in changes:
            row = stored.rows[change.seq]
            (
                row.status,
                row.failed_attempts,
                row.generation,
                row.dispatch_count,
                row.not_before,
                row.history,
                row.usage,
            ) = change[2:9]
            if change.status == "pending":
                stored.pending[change.seq] = row
            else:
                stored.pending.pop(change.seq, None)
            if change.result is not None:
                stored.store_result(change.seq, change.result)

    @override
    @operation
    def rows(
        self, execution_id: str, status: TaskStatus, limit: int, *, agent: str | None = None
    ) -> Sequence[TaskRow]:
        stored = self._stored(execution_id)
        candidates = stored.pending.values() if status == "pending" else stored.rows.values()
        matching_rows = [
            row for row in candidates if row.status == status and agent in (None, row.agent)
        ]
        return heapq.nsmallest(limit, matching_rows, key=lambda row: (row.rank, row.seq))

    @override
    @operation
    def get_tasks(self, execution_id: str, seqs: Sequence[int]) -> Sequence[TaskRow]:
        rows = self._stored(execution_id).rows
        return [rows[seq] for seq in sorted(seqs) if seq in rows]

    @override
    @operation
    def counts(self, execution_id: str) -> dict[TaskStatus, int]:
        return dict(Counter(row.status for row in self._stored(execution_id).rows.values()))

    @override
    @operation
    def agents(self, execution_id: str) -> Sequence[str]:
        return sorted({row.agent for row in self._stored(execution_id).rows.values()})

    @override
    @operation
    def reset(self, execution_id: str, token: int, statuses: Sequence[TaskStatus]) -> int:
        stored = self._stored_for_owner(execution_id, token)
        ended_rows = [
            row for row in stored.rows.values() if row.status in statuses and row.generation >= 0
        ]
        for row in ended_rows:
            row.status = "pending"
            row.failed_attempts = 0
            row.generation = row.generation + 1
            row.dispatch_count = 0
            row.not_before = 0.0
            stored.pending[row.seq] = row
            stored.results.pop(row.seq, None)
        return len(ended_rows)

    @override
    @operation
    def results(
        self,
        execution_id: str,
        after: int = 0,
        limit: int = 500,
        *,
        by: Literal["number", "seq"] = "number",
    ) -> Sequence[StoredResult]:
        stored_results = self._stored(execution_id).results
        if by == "seq":
            return sorted(
                (
                    stored_result
                    for stored_result in stored_results.values()
                    if stored_result.seq > after
                ),
                key=lambda stored_result: stored_result.seq,
            )[:limit]
        newest_first: list[StoredResult] = []
        for stored_result in reversed(stored_results.values()):  # already in that order
            if stored_result.number <= after:
                break
            newest_first.append(stored_result)
        return newest_first[::-1][:limit]
