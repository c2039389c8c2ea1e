"""Every error that agent_runtime raises, each with a stable `code`.

AgentRuntimeError
├── ConfigurationError         configuration_invalid   a wrong setting; raised before any call
│   ├── TemplateError          template_invalid        all problems, with file:line:column
│   ├── UnknownComponent       unknown_component       a name that nothing is registered under
│   ├── MissingExtra           missing_extra           an optional package is not installed
│   └── NotPortable            not_portable            a component cannot go to a process
├── InputInvalid               input_invalid           a call's input cannot be given to the agent
│   ├── SessionIdInvalid       session_id_invalid      no id that a session may have
│   ├── ReservedKey            reserved_key            a key that callers may not set
│   ├── KeyInUrl               key_in_url              a credential in a URL
│   └── CredentialTooLarge     credential_too_large    a credential longer than any can be
├── KeyNotFound                key_not_found           no API key has this id
├── SessionError               session_error           a session cannot be used
│   ├── SessionNotFound        session_not_found       none, or another tenant's: the same answer
│   ├── SessionGone            session_gone            it was deleted, or has expired
│   ├── CheckpointCorrupt      checkpoint_corrupt      stored bytes do not verify; they are kept
│   ├── CheckpointVersion      checkpoint_version      stored by another version of the format
│   └── StateNotSerializable   state_not_serializable  a value of the state may not be stored
├── StoreError                 store_error             the store behind sessions failed
│   ├── StoreUnavailable       store_unavailable       it cannot be reached
│   │   └── StoreVersion       store_version           another version of agent_runtime wrote it
│   ├── StoreTimeout           store_timeout           it did not answer in time
│   └── StoreFull              store_full              it takes no more
├── NotRecorded                not_recorded            the log lacks data for a replay
├── InstanceNotFound           instance_not_found      a pool has no instance of this id
├── BatchError                 batch_error             about a batch, not about one of its tasks
│   ├── ApprovalRequired       approval_required       a forecast above the budget, not approved
│   ├── QueueFull              queue_full              a producer that will not wait, and no room
│   ├── ExecutionNotFound      execution_not_found     the journal knows no such execution
│   ├── ExecutionBusy          execution_busy          another process runs it
│   └── ExecutionLost          execution_lost          another process has taken it over
├── StreamMisuse               stream_misuse           a stream used outside `async with`
└── CallError                  (code of each)          with run_id, usage and cost_usd
    ├── AgentFailed            agent_failed            agent, tool or model raised: __cause__
    │   ├── ProviderError      provider_error          a model provider answered with an error
    │   ├── McpServerFailed    mcp_server_failed       an MCP server failed, or its session
    │   ├── TransferFailed     transfer_failed         a value cannot go to the other process
    │   └── InstanceFailed     instance_failed         the process that ran the agent is gone
    │       ├── WorkerDied     worker_died             it ended by itself or by a signal
    │       ├── WorkerStalled  worker_stalled          it gave no sign of life
    │       ├── WorkerOutOfMemoryworker_oom              it used more memory than it may
    │       └── OutputOverflow protocol_overflow       it wrote more than it may
    ├── CallTimeout            timeout                 run, idle or model_call took too long
    ├── LimitExceeded          limit_exceeded          a limit of the run was reached
    │   └── ToolLoop           tool_loop               the same tool call again and again
    ├── CallCancelled          cancelled               the runtime cancelled the call
    ├── CallDrained            drained                 stopped by a shutdown; resume it
    ├── SessionBusy            session_busy            another turn runs, or too many wait
    ├── StaleWriter            stale_writer            this turn lost its session to another writer
    ├── BudgetExceeded         budget_exceeded         too little left for another model call
    ├── BudgetUnavailable      budget_unavailable      the ledger cannot be asked; nothing was sent
    ├── PriceUnknown           price_unknown           a USD budget, and no known price
    ├── InstanceStartFailed    instance_start_failed   no process for the agent could be started
    ├── PoolOverloaded         overloaded              all instances are busy and the queue is full
    ├── TaskPoisoned           task_poisoned           a task that has killed its process too often
    ├── Unauthenticated        unauthenticated         no caller was authenticated
    ├── Forbidden              forbidden               the caller may not do this
    └── RateLimited            rate_limited            too many calls, or too many at once
"""

from agent_runtime.errors.auth import (
    CredentialTooLarge,
    Forbidden,
    KeyInUrl,
    KeyNotFound,
    Unauthenticated,
)
from agent_runtime.errors.base import (
    AgentRuntimeError,
    ConfigurationError,
    InputInvalid,
    MissingExtra,
    NotRecorded,
    Problem,
    ReservedKey,
    SessionIdInvalid,
    StreamMisuse,
    TemplateError,
    UnknownComponent,
    close_matches,
)
from agent_runtime.errors.batch import (
    ApprovalRequired,
    BatchError,
    ExecutionBusy,
    ExecutionLost,
    ExecutionNotFound,
    QueueFull,
)
from agent_runtime.errors.calls import (
    AgentFailed,
    BudgetExceeded,
    BudgetUnavailable,
    CallCancelled,
    CallDrained,
    CallError,
    CallTimeout,
    LimitExceeded,
    McpServerFailed,
    PriceUnknown,
    ProviderError,
    RateLimited,
    SessionBusy,
    StaleWriter,
    ToolLoop,
)
from agent_runtime.errors.pools import (
    InstanceFailed,
    InstanceNotFound,
    InstanceStartFailed,
    NotPortable,
    OutputOverflow,
    PoolOverloaded,
    TaskPoisoned,
    TransferFailed,
    WorkerDied,
    WorkerOutOfMemory,
    WorkerStalled,
)
from agent_runtime.errors.sessions import (
    CheckpointCorrupt,
    CheckpointVersion,
    SessionError,
    SessionGone,
    SessionNotFound,
    StateNotSerializable,
    StoreError,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    StoreVersion,
)

__all__ = [
    "AgentFailed",
    "AgentRuntimeError",
    "ApprovalRequired",
    "BatchError",
    "BudgetExceeded",
    "BudgetUnavailable",
    "CallCancelled",
    "CallDrained",
    "CallError",
    "CallTimeout",
    "CheckpointCorrupt",
    "CheckpointVersion",
    "ConfigurationError",
    "CredentialTooLarge",
    "ExecutionBusy",
    "ExecutionLost",
    "ExecutionNotFound",
    "Forbidden",
    "InputInvalid",
    "InstanceFailed",
    "InstanceNotFound",
    "InstanceStartFailed",
    "KeyInUrl",
    "KeyNotFound",
    "LimitExceeded",
    "McpServerFailed",
    "MissingExtra",
    "NotPortable",
    "NotRecorded",
    "OutputOverflow",
    "PoolOverloaded",
    "PriceUnknown",
    "Problem",
    "ProviderError",
    "QueueFull",
    "RateLimited",
    "ReservedKey",
    "SessionBusy",
    "SessionError",
    "SessionGone",
    "SessionIdInvalid",
    "SessionNotFound",
    "StaleWriter",
    "StateNotSerializable",
    "StoreError",
    "StoreFull",
    "StoreTimeout",
    "StoreUnavailable",
    "StoreVersion",
    "StreamMisuse",
    "TaskPoisoned",
    "TemplateError",
    "ToolLoop",
    "TransferFailed",
    "Unauthenticated",
    "UnknownComponent",
    "WorkerDied",
    "WorkerOutOfMemory",
    "WorkerStalled",
    "close_matches",
]
