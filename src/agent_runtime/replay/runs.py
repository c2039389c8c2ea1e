"""Replaying a recorded run: the same agent, without its models and tools.

Or on from one of its steps, with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import AgentRuntimeError, ConfigurationError, NotRecorded
from agent_runtime.event_bus.brokers import EventLog
from agent_runtime.event_bus.cloud_event import plain
from agent_runtime.factory import AgentFactory
from agent_runtime.replay.cassette import Difference, ReplayDiverged, Tape, first_difference
from agent_runtime.replay.player import ReplayRegistry
from agent_runtime.replay.recording import Recording, read_recording, revived
from agent_runtime.run.state import live_guard
from agent_runtime.sessions import SessionManager
from agent_runtime.template.overrides import overridden
from agent_runtime.template.spec import is_path
from agent_runtime.types import AgentContext, AgentResult, Principal

if TYPE_CHECKING:
    from agent_runtime.template import AgentTemplate

# What is about callers, money and waiting has been decided when the run was recorded.
_BARE = {
    "pipeline": ["logging"],
    "auth": {"require": []},
    "rate_limits": [],
    "concurrency": {"limits": []},
    "cost": {"budgets": []},
}
_SESSION = "replay"


@dataclass(slots=True)
class Replay:
    """How a replay went.

    `difference` is the first place where it is not what was recorded, or None; in a fork only up to
    its step. `result` is the replayed run's, or None when it failed (`error`). `template_changed`:
    the template is not the recorded one any more.
    """

    recording: Recording
    result: AgentResult | None
    difference: Difference | None
    error: str | None = None
    template_changed: bool = False
    live_calls: int = 0

    @property
    def same(self) -> bool:
        """Whether the replay is what was recorded."""
        return self.difference is None

    def to_dict(self) -> dict[str, Any]:
        """What a program wants to know, JSON-ready."""
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
    """Run a recorded run again, from the log alone: no model is called and no tool is run.

    Args:
        log: the event log that has it, with contents.
        run_id: which.
        tenant: whose run, as in `read_recording`.
        principal: who asks, as in `read_recording`; a principal replays, and makes no fork.
        factory: knows the templates, tools and models that the agent needs; a plain one by default.
        from_step: fork: what the run did before this step is played, from it on models and tools
        are the live ones.
        model: the live model of a fork, instead of the template's.

    Raises NotRecorded, ConfigurationError when the agent cannot be made again or is no template's,
    TemplateError.
    """
    recording = await read_recording(log, run_id, tenant=tenant, principal=principal)
    if from_step is not None and not 1 <= from_step <= len(recording.steps) + 1:
        raise ConfigurationError(
            f"the run has the steps 1 to {len(recording.steps)}; there is none to fork at "
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
    template = _template(factory, recording, is_callers=principal is not None)
    tape = Tape(recording.steps, from_step)
    playing = AgentFactory(
        registry=ReplayRegistry(factory.registry, tape, model),
        session_manager=_sessions(template),
        templates=factory.confinement or "trusted",
    )
    playing.take_templates(factory)
    async with playing:
        made = Replay(recording, None, None, template_changed=template.digest != recording.digest)
        token = live_guard.set(tape.guard)
        try:
            made.result = await _run(playing, template, recording)
        except AgentRuntimeError as error:
            made.error = error.code
            made.difference = _diverged(error)
        finally:
            live_guard.reset(token)
    made.difference = tape.difference or made.difference
    if made.difference is None and from_step is None:
        made.difference = _difference_at_the_end(recording, made, tape)
    made.live_calls = tape.live_calls
    return made


def _template(factory: AgentFactory, recording: Recording, *, is_callers: bool) -> AgentTemplate:
    name = recording.agent.get("template")
    if not name:
        raise NotRecorded(
            f"the run '{recording.run_id}' is of no template's agent: it cannot be made again"
        )
    if is_callers and is_path(name):
        raise ConfigurationError(
            "a run of a template that is not registered is the application's to replay"
        )
    template = factory.get_template(name)
    if is_callers and _has_servers(factory, template):
        raise ConfigurationError(
            "a run of an agent with MCP servers is the application's to replay: it starts them"
        )
    _refuse_workflows(factory, template)
    overrides = recording.agent.get("overrides", {})
    return overridden(template, overrides) if overrides else template


def _has_servers(factory: AgentFactory, template: AgentTemplate) -> bool:
    inner = [
        template.agents.get(tool.agent) or factory.get_template(tool.agent)
        for tool in _agents(template)
    ]
    tools = [
        *template.spec.tools,
        *(tool for each in template.spec.subagents for tool in each.tools or ()),
    ]
    return any(tool.mcp is not None for tool in tools) or any(
        _has_servers(factory, each) for each in inner
    )


def _agents(template: AgentTemplate) -> list[Any]:
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


def _sessions(template: AgentTemplate) -> SessionManager | None:
    """A session of its own where the agent may ask a person; it ends with the replay."""
    asks = template.spec.interrupt_on or any(
        each.use == "human_in_the_loop" for each in template.spec.middleware
    )
    return SessionManager() if asks else None


async def _run(factory: AgentFactory, template: AgentTemplate, recording: Recording) -> AgentResult:
    pipeline = ["session", "logging"] if factory.session_manager is not None else ["logging"]
    overrides: dict[str, Any] = {"runtime": {**_BARE, "pipeline": pipeline}}
    if template.spec.model is not None and template.spec.model.api_key is not None:
        overrides["model"] = {"api_key": None}  # nobody is asked
    agent = factory.create_agent(template, recording.agent.get("inputs") or None, **overrides)
    session = _SESSION if factory.session_manager is not None else None
    caller = Principal("replay", scopes=frozenset({"*"}))
    return await agent.execute(
        AgentContext(revived(recording.input), session_id=session, principal=caller)
    )


def _diverged(error: BaseException | None) -> Difference | None:
    while error is not None:
        if isinstance(error, ReplayDiverged):
            return error.difference
        error = error.__cause__
    return None


def _difference_at_the_end(recording: Recording, made: Replay, tape: Tape) -> Difference | None:
    if (missing := tape.unplayed()) is not None:
        return Difference(missing.number, "the replay ended before this call", missing.name, None)
    failed = made.result is None
    if failed != (recording.status == "failed"):
        return Difference(None, "status", recording.status, f"failed: {made.error}")
    if made.result is None:
        return None  # both failed; what the recorded one failed with was played
    if made.result.status != recording.status:
        return Difference(None, "status", recording.status, made.result.status)
    if plain(made.result.output) != recording.output:
        what, recorded, replayed = first_difference(recording.output, plain(made.result.output))
        return Difference(None, f"output{'.' if what else ''}{what}", recorded, replayed)
    return None
