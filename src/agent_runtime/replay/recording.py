"""Read a run's recording from the event log: its input, its calls in order, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.messages import messages_from_dict
from langgraph.types import Command

from agent_runtime.errors import NotRecorded
from agent_runtime.event_bus import Event
from agent_runtime.event_bus.brokers import EventLog, EventQuery
from agent_runtime.event_bus.event import DEFAULT_TENANT
from agent_runtime.size_limits import size_limit
from agent_runtime.types import Principal, may_use

MESSAGE_TYPES = frozenset(
    {"human", "ai", "system", "tool", "function", "chat", "AIMessageChunk", "HumanMessageChunk"}
)
MAX_EVENTS = size_limit("recorded_events")
_STEP_EVENT_TYPES = ("llm.*", "tool.start", "tool.end", "tool.error", "run.*")


@dataclass(slots=True)
class Step:
    """Describe a model or tool call of a recorded run, `number` from 1 in the order of starts.

    `call_id` identifies the call, `parent` the tool call whose code made it, if any. `request` has
    a model's messages or a tool's arguments, `answer` the result, as JSON data; `error` is the
    class of its failure.
    """

    number: int
    kind: Literal["llm", "tool"]
    name: str
    run_id: str
    request: Any
    answer: Any = None
    error: str | None = None
    message: str = ""
    call_id: str | None = None
    parent: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Recording:
    """A run with everything inside it. `input`, `output` are JSON data.

    `status` is that of its end, or `failed`.
    """

    run_id: str
    agent: Mapping[str, Any]
    digest: str | None
    input: Any
    session_id: str | None = None
    tenant: str | None = None
    status: str = ""
    output: Any = None
    error: str | None = None
    steps: list[Step] = field(default_factory=list)


async def read_recording(
    log: EventLog, run_id: str, *, tenant: str | None = None, principal: Principal | None = None
) -> Recording:
    """Return the recording of a run.

    Args:
        log: the event log.
        run_id: the run.
        tenant: its tenant; required when runs of two tenants have this id, because callers choose
            it.
        principal: the reader: only runs of their tenant, and of their own unless they have the
            scope `sessions:all`.

    Raises NotRecorded when the log lacks part of it or its contents, or it is not the principal's.
    """
    run_events = [
        stored.event
        for stored in await log.query(
            EventQuery(_STEP_EVENT_TYPES, run_id=run_id), limit=MAX_EVENTS
        )
    ]
    owned_events = _filter_owned(run_events, run_id, tenant_of(principal, tenant), principal)
    start = next((event for event in owned_events if event.type == "run.start"), None)
    if start is None:
        raise NotRecorded(f"the log has no start of the run '{run_id}'")
    if "input" not in start.data:
        raise NotRecorded(
            f"the run '{run_id}' was recorded without its contents: record with "
            "AgentCallbackHandler(content=True), "
            "or `agent-runtime run --record`"
        )
    end_events = [event for event in owned_events if event.type in ("run.end", "run.error")]
    if not end_events:
        raise NotRecorded(
            f"the run '{run_id}' has no end in the log: it is still running, or was killed"
        )
    recording = Recording(
        run_id, start.data.get("agent") or {}, start.data.get("digest"), start.data["input"]
    )
    recording.session_id = start.session_id
    recording.tenant = next(
        (event.tenant for event in owned_events if event.tenant is not None), None
    )
    end = end_events[-1]
    recording.status = end.data.get("status", "failed")
    recording.output = end.data.get("output")
    recording.error = end.data.get("error") if end.type == "run.error" else None
    events = sorted(
        [*owned_events, *await _inner_run_events(log, start, end, recording.tenant)],
        key=lambda event: (event.occurred_at, event.seq),
    )
    recording.steps = _build_steps(events)
    if recording.session_id is not None:
        recording.input = _conversation_input(recording)
    return recording


def tenant_of(principal: Principal | None, tenant: str | None) -> str | None:
    """Return the tenant of a request: a principal's own, regardless of the argument."""
    return tenant if principal is None else principal.tenant


def _filter_owned(
    events: list[Event], run_id: str, tenant: str | None, principal: Principal | None
) -> list[Event]:
    """Return the events that are of one tenant's run.

    The start of a call with credentials names no tenant, because its caller is not known yet: for
    the application it belongs to the one tenant that the other events name; no principal sees it.
    """
    tenants = {event.tenant for event in events if event.tenant is not None}
    if tenant is None and len(tenants) > 1:
        tenant_names = ", ".join(sorted(tenants))
        raise NotRecorded(
            f"runs of the tenants {tenant_names} have the id '{run_id}': say which tenant"
        )
    if principal is not None:
        return [
            run_event
            for run_event in events
            if run_event.tenant == tenant and may_use(principal, run_event.user_id or "")
        ]
    is_single_tenant = tenants <= {tenant} or tenant is None
    default_tenant = tenant if is_single_tenant else DEFAULT_TENANT
    return [
        run_event
        for run_event in events
        if tenant is None or (run_event.tenant or default_tenant) == tenant
    ]


async def _inner_run_events(
    log: EventLog, start: Event, end: Event, tenant: str | None
) -> list[Event]:
    """Return the events of nested runs: agents used as tools."""
    window = EventQuery(("run.start",), since=start.occurred_at, until=end.occurred_at)
    parents = {start.run_id}
    inner_events = list[Event]()
    for stored in await log.query(window, limit=MAX_EVENTS):
        event = stored.event
        is_same_caller = (
            event.tenant == tenant and event.user_id == end.user_id
        )  # an inner agent acts for the same caller
        if (
            is_same_caller
            and event.data.get("parent_id") in parents
            and event.run_id not in parents
        ):
            parents.add(event.run_id)
            inner_run = await log.query(
                EventQuery(_STEP_EVENT_TYPES, run_id=event.run_id), limit=MAX_EVENTS
            )
            inner_events += [
                e.event
                for e in inner_run
                if (e.event.tenant, e.event.user_id) == (tenant, end.user_id)
            ]
    return inner_events


def _build_steps(events: list[Event]) -> list[Step]:
    steps: list[Step] = []
    open_calls: dict[tuple[Any, ...], Step] = {}
    for event in events:
        family, _, phase = event.type.partition(".")
        if family not in ("llm", "tool") or phase not in ("start", "end", "error"):
            continue
        key = (family, event.run_id, event.data.get("call_id"))
        if phase == "start":
            request = event.data.get("messages" if family == "llm" else "args")
            step = Step(
                len(steps) + 1,
                family,  # type: ignore[arg-type]
                event.data.get("name", ""),
                event.run_id or "",
                request,
            )
            step.call_id = event.data.get("call_id")
            step.parent = event.data.get("parent_id")
            steps.append(step)
            open_calls[key] = step
        elif (started_step := open_calls.pop(key, None)) is not None:
            started_step.answer = event.data.get("message" if family == "llm" else "output")
            started_step.error = event.data.get("error")
            started_step.message = event.data.get("message", "")
    if open_calls:
        open_step = next(iter(open_calls.values()))
        raise NotRecorded(
            f"step {open_step.number} ({open_step.kind} {open_step.name}) has no end in the log: "
            "it asked a person, or "
            "events were lost"
        )
    return steps


def _conversation_input(recording: Recording) -> Any:
    """Return the input of a session's run: its first model call contains the earlier conversation.

    A middleware may call a model before, about something else.
    """
    model_requests = [
        step.request
        for step in recording.steps
        if step.kind == "llm" and step.run_id == recording.run_id
    ]
    for request in model_requests:
        messages = [message for message in request or () if message.get("type") != "system"]
        if not isinstance(recording.input, str) or (
            messages and messages[-1].get("content") == recording.input
        ):
            return messages
    return recording.input


def revive(value: Any) -> Any:
    """Rebuild messages and commands in recorded JSON data."""
    if isinstance(value, list):
        return [revive(element) for element in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"text", "type"} and str(value["type"]).endswith("PromptValue"):
        return value["text"]
    if value.get("type") in MESSAGE_TYPES and "content" in value:
        return messages_from_dict([{"type": value["type"], "data": dict(value)}])[0]
    if set(value) == {"graph", "update", "resume", "goto"}:
        return Command(graph=value["graph"], update=revive(value["update"]), goto=value["goto"])
    return {key: revive(nested_value) for key, nested_value in value.items()}
