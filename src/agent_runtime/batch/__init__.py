"""Run thousands of agent tasks from a journal that survives the process."""

from typing import TYPE_CHECKING

from agent_runtime._lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.batch.aggregation import aggregate_results, reduce_results
    from agent_runtime.batch.backends import AsyncioBackend, Backend, ProcessBackend
    from agent_runtime.batch.error_handling import (
        ErrorDecision,
        RetryBudget,
        handle_execution_error,
    )
    from agent_runtime.batch.executor import ParallelAgentExecutor
    from agent_runtime.batch.forecast import Forecast, make_forecast
    from agent_runtime.batch.journal import Journal, open_journal
    from agent_runtime.batch.mapping import InputMapping
    from agent_runtime.batch.metrics import watch_batches
    from agent_runtime.batch.queue import TaskQueue
    from agent_runtime.batch.report import BatchReport
    from agent_runtime.batch.result import Failure, TaskResult
    from agent_runtime.batch.result_writer import ResultFile
    from agent_runtime.batch.settings import BatchSettings
    from agent_runtime.batch.sources import read_rows
    from agent_runtime.batch.task import BatchTask, create_batch_tasks, prioritize_tasks
    from agent_runtime.pool.task import TaskPriority

_HOME = {
    "AsyncioBackend": "agent_runtime.batch.backends",
    "Backend": "agent_runtime.batch.backends",
    "BatchReport": "agent_runtime.batch.report",
    "BatchSettings": "agent_runtime.batch.settings",
    "BatchTask": "agent_runtime.batch.task",
    "ErrorDecision": "agent_runtime.batch.error_handling",
    "Failure": "agent_runtime.batch.result",
    "Forecast": "agent_runtime.batch.forecast",
    "InputMapping": "agent_runtime.batch.mapping",
    "Journal": "agent_runtime.batch.journal",
    "ParallelAgentExecutor": "agent_runtime.batch.executor",
    "ProcessBackend": "agent_runtime.batch.backends",
    "ResultFile": "agent_runtime.batch.result_writer",
    "RetryBudget": "agent_runtime.batch.error_handling",
    "TaskPriority": "agent_runtime.batch.task",
    "TaskQueue": "agent_runtime.batch.queue",
    "TaskResult": "agent_runtime.batch.result",
    "aggregate_results": "agent_runtime.batch.aggregation",
    "create_batch_tasks": "agent_runtime.batch.task",
    "make_forecast": "agent_runtime.batch.forecast",
    "handle_execution_error": "agent_runtime.batch.error_handling",
    "open_journal": "agent_runtime.batch.journal",
    "prioritize_tasks": "agent_runtime.batch.task",
    "read_rows": "agent_runtime.batch.sources",
    "reduce_results": "agent_runtime.batch.aggregation",
    "watch_batches": "agent_runtime.batch.metrics",
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
__getattr__ = lazy_exports("agent_runtime.batch", _HOME)
