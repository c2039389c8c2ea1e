"""Where batches are written down before they run: what is in it survives the process."""

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.opening import open_journal
from agent_runtime.batch.journal.records import Change, Execution, TaskRow

__all__ = ["Change", "Execution", "Journal", "TaskRow", "open_journal"]
