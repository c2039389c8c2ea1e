"""Replaying a recorded run: the same agent, without its models and tools.

Or on from one of its steps, with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import AgentRuntimeError, ConfigurationError, NotRecorded
from agent_runtime.event_bus.brokers import EventLog
from agent_runtime.event_bus.cloud_event import to_jsonable
from agent_runtime.factory import AgentFactory
from agent_runtime.replay.cassette import Cassette, Difference, ReplayDiverged, first_difference
from agent_runtime.replay.player import ReplayRegistry
from agent_runtime.replay.recording import Recording, read_recording, revive
from agent_runtime.run.state import block_live_models
from agent_runtime.sessions import SessionManager
from agent_runtime.template.overrides import apply_overrides
from agent_runtime.template.spec import is_path
from agent_runtime.types import AgentContext, AgentResult, Principal

if TYPE_CHECKING:
    from agent_runtime.template import AgentTemplate

# Callers, money and waiting were decided when the run was recorded.
_REPLAY_RUNTIME = {
    "pipeline": ["logging"],
    "auth": {"require": []},
    "rate_limits": [],
    "concurrency": {"limits": []},
    "cost": {"budgets": []},
}
_SESSION_ID = "replay"


@dataclass(slots=True)
class Replay:
    """Describe a replay.

    `difference` is the first difference from the recording, or None; in a fork only up to its step.
    `result` is the replayed run's, or None when it failed (`error`). `template_changed`: the
    template differs from the recorded one.
    """

    recording: Recording
    result: AgentResult | None
    difference: Difference | None
    error: str | None = None
    template_changed: bool = False
    live_calls: int = 0

    @property
    def same(self) -> bool:
        """Return whether the replay equals the recording."""
        return self.difference is None

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome, JSON-ready."""
        return {
            "run_id": self.recording.run_id,
            "same": self.same,
            "steps": len(self.recording.steps),
            "difference": None if self.difference is None else self.difference.to_dict(),
            "output": None if self.result is None else self.result.output,
            "error": self.error,
            "template_changed": self.template_changed,
            "live_calls": self.live_calls,
        }


async def replay_run(
    log: EventLog,
    run_id: str,
    *,
    tenant: str | None = None,
    principal: Principal | None = None,
    factory: AgentFactory | None = None,
    from_step: int | None = None,
    model: str | None = None,
) -> Replay:
    """Replay a recorded run from the log: no model is called and no tool runs.

    Args:
        log: the event log with the run and its contents.
        run_id: the run.
        tenant: its tenant, as in `read_recording`.
        principal: the reader, as in `read_recording`; a principal replays, and cannot fork.
        factory: provides the agent's templates, tools and models; a plain one by default.
        from_step: fork: steps before this one are replayed, from it on models and tools are live.
        model: the live model of a fork, instead of the template's.

    Raises NotRecorded, ConfigurationError when the agent cannot be built again or has no template,
    TemplateError.
    """
    recording = await read_recording(log, run_id, tenant=tenant, principal=principal)
    if from_step is not None and not 1 <= from_step <= len(recording.steps) + 1:
        raise ConfigurationError(
            f"the run has the steps 1 to {len(recording.steps)}; no such step to fork at: "
            f"{from_step}"
        )
    if principal is not None and from_step is not None:
        raise ConfigurationError(
            "a fork calls live models outside of every budget: it is the application's to make"
        )
    if model is not None and from_step is None:
        raise ConfigurationError(
            "a replay calls no model: say from which step on it should be a fork"
        )
    factory = factory or AgentFactory()
    template = _load_template(factory, recording, for_principal=principal is not None)
    cassette = Cassette(recording.steps, from_step)
    replay_factory = AgentFactory(
        registry=ReplayRegistry(factory.registry, cassette, model),
        session_manager=_session_manager(template),
        templates=factory.confinement or "trusted",
    )
    replay_factory.templates.add_all(factory.templates)
    async with replay_factory:
        replay = Replay(recording, None, None, template_changed=template.digest != recording.digest)
        token = block_live_models.set(cassette.refuse_live_model)
        try:
            replay.result = await _run_agent(replay_factory, template, recording)
        except AgentRuntimeError as error:
            replay.error = error.code
            replay.difference = _difference_of(error)
        finally:
            block_live_models.reset(token)
    replay.difference = cassette.difference or replay.difference
    if replay.difference is None and from_step is None:
        replay.difference = _final_difference(recording, replay, cassette)
    replay.live_calls = cassette.live_calls
    return replay


def _load_template(
    factory: AgentFactory, recording: Recording, *, for_principal: bool
) -> AgentTemplate:
    name = recording.agent.get("template")
    if not name:
        raise NotRecorded(
            f"the run '{recording.run_id}' is of no template's agent: it cannot be made again"
        )
    if for_principal and is_path(name):
        raise ConfigurationError(
            "a run of a template that is not registered is the application's to replay"
        )
    template = factory.get_template(name)
    if for_principal and _uses_mcp_servers(factory, template):
        raise ConfigurationError(
            "a run of an agent with MCP servers is the application's to replay: it starts them"
        )
    _refuse_workflows(factory, template)
    overrides = recording.agent.get("overrides", {})
    return apply_overrides(template, overrides) if overrides else template


def _uses_mcp_servers(factory: AgentFactory, template: AgentTemplate) -> bool:
    inner_templates = [
        template.agents.get(tool.agent) or factory.get_template(tool.agent)
        for tool in _agent_tools(template)
    ]
    tools = [
        *template.spec.tools,
        *(tool for subagent in template.spec.subagents for tool in subagent.tools or ()),
    ]
    return any(tool.mcp is not None for tool in tools) or any(
        _uses_mcp_servers(factory, inner_template) for inner_template in inner_templates
    )


def _agent_tools(template: AgentTemplate) -> list[Any]:
    return [tool for tool in template.spec.tools if tool.agent is not None]


def _refuse_workflows(factory: AgentFactory, template: AgentTemplate) -> None:
    if template.spec.workflow is not None:
        name = template.metadata.name
        raise ConfigurationError(
            f"'{name}' is a workflow with models of its own, which no recording can replace"
        )
    for tool in template.spec.tools:
        if tool.agent is not None:
            _refuse_workflows(
                factory, template.agents.get(tool.agent) or factory.get_template(tool.agent)
            )


def _session_manager(template: AgentTemplate) -> SessionManager | None:
    """Return a manager of a temporary session if the agent may ask a person."""
    may_interrupt = template.spec.interrupt_on or any(
        middleware_spec.use == "human_in_the_loop" for middleware_spec in template.spec.middleware
    )
    return SessionManager() if may_interrupt else None


async def _run_agent(
    factory: AgentFactory, template: AgentTemplate, recording: Recording
) -> AgentResult:
    pipeline = ["session", "logging"] if factory.session_manager is not None else ["logging"]
    overrides: dict[str, Any] = {"runtime": {**_REPLAY_RUNTIME, "pipeline": pipeline}}
    if template.spec.model is not None and template.spec.model.api_key is not None:
        overrides["model"] = {"api_key": None}  # no provider is called
    agent = factory.create_agent(template, recording.agent.get("inputs") or None, **overrides)
    session_id = _SESSION_ID if factory.session_manager is not None else None
    caller = Principal("replay", scopes=frozenset({"*"}))
    return await agent.execute(
        AgentContext(revive(recording.input), session_id=session_id, principal=caller)
    )


def _difference_of(error: BaseException | None) -> Difference | None:
    while error is not None:
        if isinstance(error, ReplayDiverged):
            return error.difference
        error = error.__cause__
    return None


def _final_difference(
    recording: Recording, replay: Replay, cassette: Cassette
) -> Difference | None:
    if (unplayed_step := cassette.next_unplayed()) is not None:
        return Difference(
            unplayed_step.number, "the replay ended before this call", unplayed_step.name, None
        )
    failed = replay.result is None
    if failed != (recording.status == "failed"):
        return Difference(None, "status", recording.status, f"failed: {replay.error}")
    if replay.result is None:
        return None  # both failed; the recorded failure was replayed
    if replay.result.status != recording.status:
        return Difference(None, "status", recording.status, replay.result.status)
    if to_jsonable(replay.result.output) != recording.output:
        path, recorded, replayed = first_difference(
            recording.output, to_jsonable(replay.result.output)
        )
        return Difference(None, f"output{'.' if path else ''}{path}", recorded, replayed)
    return None
