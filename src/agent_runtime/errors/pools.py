"""How a pool, or an instance in it, can fail a call."""

from __future__ import annotations

from agent_runtime.errors.base import AgentRuntimeError, ConfigurationError
from agent_runtime.errors.calls import AgentFailed, CallError


class InstanceFailed(AgentFailed):
    """Report that the process of the agent ended.

    `instance_id` names it, `tail` has the last of its output.
    """

    code = "instance_failed"

    def __init__(self, message: str, *, instance_id: str = "", tail: str = "") -> None:
        self.instance_id = instance_id
        self.tail = tail
        super().__init__(message)


class WorkerDied(InstanceFailed):
    """Report that a process ended by itself, or by another's signal.

    `exit_code` is negative for a signal, None when unknown.
    """

    code = "worker_died"

    def __init__(self, exit_code: int | None, *, instance_id: str = "", tail: str = "") -> None:
        self.exit_code = exit_code
        exit_text = (
            "with exit code 0, without an answer"
            if exit_code == 0
            else f"with exit code {exit_code}"
        )
        if exit_code is not None and exit_code < 0:
            exit_text = f"by signal {-exit_code}"
        super().__init__(
            f"the agent's process ended {exit_text}", instance_id=instance_id, tail=tail
        )


class WorkerStalled(InstanceFailed):
    """It gave no sign of life for `timeout_s` seconds and was killed.

    Stopped, or busy in its event loop.
    """

    code = "worker_stalled"

    def __init__(self, timeout_s: float, *, instance_id: str = "", tail: str = "") -> None:
        self.timeout_s = timeout_s
        message = f"the agent's process gave no sign of life for {timeout_s:g} s and was killed"
        super().__init__(message, instance_id=instance_id, tail=tail)


class WorkerOutOfMemory(InstanceFailed):
    """The process tree used `used_mb` MiB, above its limit `limit_mb`, and was killed."""

    code = "worker_oom"

    def __init__(
        self, used_mb: int, limit_mb: int, *, instance_id: str = "", tail: str = ""
    ) -> None:
        self.used_mb = used_mb
        self.limit_mb = limit_mb
        message = (
            f"the agent's process used {used_mb} MiB, above its limit of {limit_mb} MiB, "
            "and was killed"
        )
        super().__init__(message, instance_id=instance_id, tail=tail)


class OutputOverflow(InstanceFailed):
    """It wrote more than `limit_mb` MiB of output, or one message of it, and was killed."""

    code = "protocol_overflow"

    def __init__(self, limit_mb: int, *, instance_id: str = "", tail: str = "") -> None:
        self.limit_mb = limit_mb
        message = f"the agent's process wrote more than {limit_mb} MiB and was killed"
        super().__init__(message, instance_id=instance_id, tail=tail)


class TransferFailed(AgentFailed):
    """A value cannot be brought from one process to the other.

    It does not pickle, or does not load.
    """

    code = "transfer_failed"


class InstanceStartFailed(CallError):
    """Report that instances of this agent do not start.

    `__cause__` is the last failure, `retry_after_s` the seconds until the next attempt.
    """

    code = "instance_start_failed"

    def __init__(self, agent: str, reason: str, retry_after_s: float = 0.0) -> None:
        self.agent = agent
        self.retry_after_s = retry_after_s
        super().__init__(f"no instance of '{agent}' could be started: {reason}")


class PoolOverloaded(CallError):
    """Every instance is busy and the queue is full, or the pool is closing.

    Nothing was done for the call.
    """

    code = "overloaded"
    layer = "pool"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class TaskPoisoned(CallError):
    """The task has killed `kills` instances and is refused.

    It is among the dead letters as `letter_id`.
    """

    code = "task_poisoned"

    def __init__(self, task_id: str, kills: int, letter_id: str) -> None:
        self.task_id = task_id
        self.kills = kills
        self.letter_id = letter_id
        super().__init__(
            f"the task '{task_id}' has ended {kills} processes and is not run again (letter "
            f"{letter_id})"
        )


class InstanceNotFound(AgentRuntimeError):
    """The pool has no instance of this id, or it has ended."""

    code = "instance_not_found"


class NotPortable(ConfigurationError):
    """Report that a component cannot be sent to a process; the message names the remedy."""

    code = "not_portable"
