"""Two tenants, every method, and a word of each that the other must never see."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentRuntimeError,
    Principal,
    SessionGone,
    SessionManager,
    SessionMiddleware,
    SessionNotFound,
    gated,
)
from agent_runtime.testing import ScriptedChatModel, say

WHO = {"acme": Principal("ada", "acme"), "evil": Principal("eve", "evil")}
CANARY = {"acme": "canary-of-acme", "evil": "canary-of-evil"}
tenants = st.sampled_from(sorted(WHO))
numbers = st.integers(0, 3)


class Tenants(RuleBasedStateMachine):
    """Sessions of the same names in both tenants.

    Whatever one asks, the other's canary is in no answer.
    """

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.manager = SessionManager.from_url("memory:")
        model = ScriptedChatModel(script=lambda m: say(f"{len(m)} messages"))
        graph = create_agent(gated(model), checkpointer=self.manager.checkpointer)
        self.agent = AgentExecutor(graph, gated=True, pipeline=[SessionMiddleware(self.manager)])
        self.alive: dict[str, set[str]] = {"acme": set(), "evil": set()}
        self.gone: dict[str, set[str]] = {"acme": set(), "evil": set()}
        self.checkpoints: list[tuple[str, str]] = []
        self.cursors: list[str] = []

    def ask(self, tenant: str, call: Any) -> Any:
        """The answer or the error of a call, searched for the other tenant's canary."""
        try:
            answer: Any = self.loop.run_until_complete(call)
        except AgentRuntimeError as error:
            answer = error
        other = next(t for t in CANARY if t != tenant)
        assert CANARY[other] not in repr(answer)
        assert f"tenant='{other}'" not in repr(answer)
        return answer

    def expect(self, tenant: str, name: str, answer: Any) -> None:
        """Known, gone and unknown names answer as the tenant's own history says, whatever the other
        has."""
        if name in self.gone[tenant]:
            assert isinstance(answer, SessionGone)
        elif name not in self.alive[tenant]:
            assert isinstance(answer, SessionNotFound)
        else:
            assert not isinstance(answer, SessionNotFound | SessionGone)

    @rule(tenant=tenants, number=numbers)
    def talk(self, tenant: str, number: int) -> None:
        name = f"s{number}"
        agent = self.agent.with_caller(principal=WHO[tenant])
        answer = self.ask(tenant, agent.execute(AgentContext(CANARY[tenant], session_id=name)))
        if name not in self.gone[tenant]:
            self.alive[tenant].add(name)
            assert CANARY[tenant] in repr(answer.messages)

    @rule(tenant=tenants, number=numbers)
    def look(self, tenant: str, number: int) -> None:
        name = f"s{number}"
        who = WHO[tenant]
        for call in (
            self.manager.get_session(name, principal=who),
            self.manager.checkpoints.get(name, principal=who),
            self.manager.checkpoints.history(name, principal=who),
            self.manager.update_session(name, title=CANARY[tenant], principal=who),
        ):
            self.expect(tenant, name, self.ask(tenant, call))

    @rule(tenant=tenants, number=numbers)
    def write(self, tenant: str, number: int) -> None:
        values = {"messages": [HumanMessage(CANARY[tenant], id="x")]}
        call = self.manager.checkpoints.save(f"s{number}", values, principal=WHO[tenant])
        answer = self.ask(tenant, call)
        self.expect(tenant, f"s{number}", answer)
        if isinstance(answer, str):
            self.checkpoints.append((tenant, answer))

    @rule(tenant=tenants, number=numbers, data=st.data())
    def use_what_the_other_knows(self, tenant: str, number: int, data: Any) -> None:
        name = f"s{number}"
        who = WHO[tenant]
        if self.checkpoints:
            owner, checkpoint_id = data.draw(st.sampled_from(self.checkpoints))
            found = self.ask(
                tenant, self.manager.checkpoints.get(name, checkpoint_id, principal=who)
            )
            if owner != tenant and name in self.alive[tenant]:
                assert found is None
            self.ask(tenant, self.manager.checkpoints.fork(name, checkpoint_id, principal=who))
        if self.cursors:
            cursor = data.draw(st.sampled_from(self.cursors))
            self.ask(tenant, self.manager.list_sessions(cursor=cursor, limit=1, principal=who))

    @rule(tenant=tenants, number=numbers)
    def resume(self, tenant: str, number: int) -> None:
        call = self.manager.resume_session(
            f"s{number}", "approve", agent=self.agent, principal=WHO[tenant]
        )
        self.ask(tenant, call)

    @rule(tenant=tenants, number=numbers)
    def delete(self, tenant: str, number: int) -> None:
        name = f"s{number}"
        answer = self.ask(tenant, self.manager.delete_session(name, principal=WHO[tenant]))
        self.expect(tenant, name, answer)
        if name in self.alive[tenant]:
            self.alive[tenant].discard(name)
            self.gone[tenant].add(name)

    @rule(tenant=tenants)
    def list_them(self, tenant: str) -> None:
        page = self.ask(tenant, self.manager.list_sessions(limit=2, principal=WHO[tenant]))
        assert {s.tenant for s in page.sessions} <= {tenant}
        if page.cursor:
            self.cursors.append(page.cursor)

    @invariant()
    def nothing_of_the_other_is_listed(self) -> None:
        if not hasattr(self, "manager"):
            return
        for tenant, who in WHO.items():
            page = self.ask(tenant, self.manager.list_sessions(limit=100, principal=who))
            named = {s.id for s in page.sessions if s.id.startswith("s") and len(s.id) == 2}
            assert named == self.alive[tenant]

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.close()


TestTenants = Tenants.TestCase
TestTenants.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
