"""Store batches before they run, so that they survive the process."""

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.opening import open_journal
from agent_runtime.batch.journal.records import Execution, TaskRow, TaskUpdate

__all__ = ["Execution", "Journal", "TaskRow", "TaskUpdate", "open_journal"]
