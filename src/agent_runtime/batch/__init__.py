"""Batches: thousands of agent tasks at once, from a journal that survives the process."""

from typing import TYPE_CHECKING

from agent_runtime.lazy import imported_late

if TYPE_CHECKING:
    from agent_runtime.batch.aggregation import aggregate_results, reduce_results
    from agent_runtime.batch.backends import AsyncioBackend, Backend, ProcessBackend
    from agent_runtime.batch.error_handling import ErrorDecision, RetryBudget, handle_execution_error
    from agent_runtime.batch.executor import ParallelAgentExecutor
    from agent_runtime.batch.forecast import Forecast, make_forecast
    from agent_runtime.batch.journal import Journal, open_journal
    from agent_runtime.batch.mapping import InputMapping
    from agent_runtime.batch.metrics import watch_batches
    from agent_runtime.batch.output import ResultFile
    from agent_runtime.batch.queue import TaskQueue
    from agent_runtime.batch.report import BatchReport
    from agent_runtime.batch.result import Failure, TaskResult
    from agent_runtime.batch.settings import BatchSettings
    from agent_runtime.batch.sources import read_rows
    from agent_runtime.batch.task import BatchTask, create_batch_tasks, prioritize_tasks
    from agent_runtime.pool.task import TaskPriority

_HOME = {
    "AsyncioBackend": "backends",
    "Backend": "backends",
    "BatchReport": "report",
    "BatchSettings": "settings",
    "BatchTask": "task",
    "ErrorDecision": "error_handling",
    "Failure": "result",
    "Forecast": "forecast",
    "InputMapping": "mapping",
    "Journal": "journal",
    "ParallelAgentExecutor": "executor",
    "ProcessBackend": "backends",
    "ResultFile": "output",
    "RetryBudget": "error_handling",
    "TaskPriority": "task",
    "TaskQueue": "queue",
    "TaskResult": "result",
    "aggregate_results": "aggregation",
    "create_batch_tasks": "task",
    "make_forecast": "forecast",
    "handle_execution_error": "error_handling",
    "open_journal": "journal",
    "prioritize_tasks": "task",
    "read_rows": "sources",
    "reduce_results": "aggregation",
    "watch_batches": "metrics",
}

__all__ = [
    "AsyncioBackend",
    "Backend",
    "BatchReport",
    "BatchSettings",
    "BatchTask",
    "ErrorDecision",
    "Failure",
    "Forecast",
    "InputMapping",
    "Journal",
    "ParallelAgentExecutor",
    "ProcessBackend",
    "ResultFile",
    "RetryBudget",
    "TaskPriority",
    "TaskQueue",
    "TaskResult",
    "aggregate_results",
    "create_batch_tasks",
    "handle_execution_error",
    "make_forecast",
    "open_journal",
    "prioritize_tasks",
    "read_rows",
    "reduce_results",
    "watch_batches",
]
__getattr__ = imported_late("agent_runtime.batch", _HOME)
