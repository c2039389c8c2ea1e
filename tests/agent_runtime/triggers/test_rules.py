"""Triggers: what starts an agent, what holds it back, and that no circle runs for ever."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import AgentFactory, Event, MemoryLedger, StoreUnavailable, TemplateError
from agent_runtime.event_bus.brokers import SqliteBroker
from agent_runtime.event_bus.dead_letters import MemoryDeadLetters
from agent_runtime.testing import ScriptedChatModel, say
from agent_runtime.triggers import Schedules, TriggerHandler, parse_triggers
from agent_runtime.triggers.expressions import event_facts, is_condition_met
from agent_runtime.triggers.schedule import due_moments

HEAD = "apiVersion: agent-runtime/v1\nkind: Triggers\ntriggers:\n"
AGENT = (
    "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {{name: {0}}}\nspec: "
    "{{model: {1}}}\n"
)
SECRET = "a-dummy-secret-of-a-webhook"


class Agents:
    """A factory with agents `a` and `b` that answer at once, and everything that its bus says."""

    def __init__(self, **seats: Any) -> None:
        self.factory = AgentFactory(**seats)
        self.asked: list[str] = []
        for name in ("a", "b"):
            self.factory.register_model(name, self._model(name))
            self.factory.register_template(self._template(name))
        self.seen: list[Event] = []
        self.factory.event_bus.subscribe(handler=self._see)

    def _model(self, name: str) -> Any:
        def answer(messages: list[Any]) -> Any:
            self.asked.append(f"{name}: {messages[-1].text}")
            return say(f"answer of {name}")

        return ScriptedChatModel(script=answer)

    @staticmethod
    def _template(name: str) -> Any:
        from agent_runtime import parse_template

        return parse_template(AGENT.format(name, name))

    async def _see(self, event: Event) -> None:
        self.seen.append(event)

    def told(self, kind: str) -> list[Any]:
        return [event.data for event in self.seen if event.type == kind]

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
async def agents(request: pytest.FixtureRequest) -> AsyncIterator[Agents]:
    made = Agents(**getattr(request, "param", {}))
    async with made.factory:
        yield made
    await made.factory.event_bus.aclose()


def rules(text: str) -> Any:
    return parse_triggers(HEAD + text)


async def test_one_agents_end_starts_another_with_what_the_rule_takes_from_the_event(
    agents: Agents,
) -> None:
    found = rules(
        "- name: next\n  on: run.end\n  agent: a\n  when: data.status == 'completed'\n  start: b\n"
        "  input: 'after {{ agent }}: {{ data.usage.model_calls }} call'\n"
    )
    async with TriggerHandler(agents.factory, found):
        await agents.factory.create_from_template("a").execute("hello")
        await agents.until(lambda: len(agents.asked) == 2)
        await agents.until(lambda: len(agents.told("run.end")) == 2)
    assert agents.asked == ["a: hello", "b: after a: 1 call"]
    first, second = (e for e in agents.seen if e.type == "run.end")
    assert (first.depth, second.depth, second.cause) == (0, 1, first.id)
    assert second.user_id == "trigger:next"


async def test_a_circle_stops_at_its_depth_with_an_event_that_says_so(agents: Agents) -> None:
    found = rules(
        "- {name: a-b, on: run.end, agent: a, start: b, input: go, max_depth: 4}\n"
        "- {name: b-a, on: run.end, agent: b, start: a, input: go, max_depth: 4}\n"
    )
    async with TriggerHandler(agents.factory, found):
        await agents.factory.create_from_template("a").execute("hello")
        await agents.until(lambda: agents.told("trigger.stopped"))
        await asyncio.sleep(0.1)
    assert agents.asked == ["a: hello", "b: go", "a: go", "b: go", "a: go"]
    (stopped,) = agents.told("trigger.stopped")
    assert stopped == {
        "rule": "a-b", "event_id": stopped["event_id"], "depth": 4, "reason": "depth",
        "max_depth": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("event_type", "data", "condition"),
    [
        ("run.end", {}, "time_s == occurred_at && time_s > `0`"),
        ("batch.execution", {"status": "completed"}, "data.state == 'completed'"),
        ("batch.execution", {"reason": "budget"}, "data.why == 'budget'"),
        ("mcp.server", {"status": "failed"}, "data.state == 'failed' && data.status == 'failed'"),
        ("provider.limit", {"reason": "overload"}, "data.why == 'overload'"),
        ("pool.context", {"reason": "expired"}, "data.why == 'expired'"),
        ("session.deleted", {"reason": "expired"}, "data.why == 'expired'"),
    ],
)
def test_rules_read_fields_under_their_older_names(
    event_type: str, data: dict[str, Any], condition: str
) -> None:
    assert is_condition_met(condition, event_facts(Event(event_type, data)))


async def test_what_does_not_match_starts_nothing(agents: Agents) -> None:
    found = rules(
        "- {name: other-agent, on: run.end, agent: b, start: b}\n"
        "- {name: other-tenant, on: run.end, tenant: acme, start: b}\n"
        "- {name: untrue, on: run.end, when: \"data.status == 'failed'\", start: b}\n"
        "- {name: not-a-condition, on: run.end, when: data.usage, start: b}\n"
        "- {name: off, on: run.end, start: b, enabled: false}\n"
    )
    async with TriggerHandler(agents.factory, found):
        await agents.factory.create_from_template("a").execute("hello")
        await asyncio.sleep(0.2)
    assert agents.asked == ["a: hello"]


async def test_a_condition_that_does_not_fit_the_event_is_told_and_holds_up_nothing(
    agents: Agents,
) -> None:
    found = rules(
        "- {name: wrong, on: custom.x, when: \"contains(data.n, 'x')\", start: b}\n"
        "- {name: right, on: custom.x, start: b, input: '{{ data.n }}'}\n"
    )
    async with TriggerHandler(agents.factory, found):
        agents.factory.event_bus.publish(Event("custom.x", {"n": 7}))
        await agents.until(lambda: agents.asked == ["b: 7"])
        await agents.until(lambda: agents.told("trigger.failed"))
    assert agents.told("trigger.failed")[0]["error"] == "condition"


async def test_a_rules_rate_holds_for_the_rule_and_for_nobody_else(agents: Agents) -> None:
    found = rules("- {name: slow, on: custom.x, start: b, input: x, rate: 2/hour}\n")
    async with TriggerHandler(agents.factory, found):
        for n in range(5):
            agents.factory.event_bus.publish(Event("custom.x", n, session_id="s"))
        await agents.until(lambda: len(agents.told("trigger.stopped")) == 3)
    assert len(agents.asked) == 2
    assert {each["reason"] for each in agents.told("trigger.stopped")} == {"rate"}
    for _ in range(3):
        await agents.factory.create_from_template("b").execute("by hand")


@pytest.mark.parametrize("agents", [{"ledger": MemoryLedger()}], indirect=True)
async def test_a_rules_budget_stops_it(agents: Agents) -> None:
    found = rules("- {name: dear, on: custom.x, start: b, input: x, budget: {tokens: 1}}\n")
    async with TriggerHandler(agents.factory, found):
        agents.factory.event_bus.publish(Event("custom.x"))
        await agents.until(lambda: agents.told("trigger.stopped"))
    assert agents.told("trigger.stopped")[0]["reason"] == "budget"
    assert agents.asked == []


async def test_a_run_that_fails_is_told_and_put_aside_not_run_again(agents: Agents) -> None:
    def fail(messages: list[Any]) -> str:
        agents.asked.append("fails")
        raise ValueError("broken")

    agents.factory.register_model("b", ScriptedChatModel(script=fail))
    letters = MemoryDeadLetters()
    found = rules("- {name: bad, on: custom.x, start: b, input: x}\n")
    async with TriggerHandler(agents.factory, found, dead_letters=letters):
        agents.factory.event_bus.publish(Event("custom.x", {"n": 1}))
        await agents.until(lambda: agents.told("dead_letter.added"))
    assert agents.asked.count("fails") == 1
    (letter,) = await letters.list("triggers")
    assert letter.payload["data"] == {"n": 1}
    assert agents.told("trigger.failed")[0]["rule"] == "bad"


async def test_another_process_may_start_what_this_ones_events_ask_for(tmp_path: Path) -> None:
    path = str(tmp_path / "events.db")
    here = Agents()
    there = Agents()
    broker = SqliteBroker(path)
    other = SqliteBroker(path)
    from agent_runtime.event_bus.relay import Relay

    found = rules("- {name: next, on: run.end, agent: a, start: b, input: 'of {{ run_id }}'}\n")
    started = TriggerHandler(there.factory, found, broker=other, relay=False)
    async with here.factory, there.factory, Relay(here.factory.event_bus, broker), started:
        result = await here.factory.create_from_template("a").execute("hello")
        await there.until(lambda: there.asked)
        await there.until(lambda: there.told("run.end"))
    assert there.asked == [f"b: of {result.run_id}"]
    assert [e.depth for e in there.seen if e.type == "run.end"] == [1]
    for each in (broker, other):
        await each.aclose()


# -- the file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {name: x, on: run.end}\n", "key 'start' is required"),
        ("- {name: x, start: b}\n", "exactly one of on, schedule and webhook"),
        ("- {name: x, on: run.end, schedule: '* * * * *', start: b}\n", "exactly one of"),
        ("- {name: x, on: run.ended, start: b}\n", "no event has a type like 'run.ended'"),
        ("- {name: x, on: trigger.fired, start: b}\n", "start no rule"),
        ("- {name: x, on: run.end, when: 'data.[', start: b}\n", "not JMESPath"),
        ("- {name: x, on: run.end, input: '{{ a b }}', start: b}\n", "not JMESPath"),
        ("- {name: x, schedule: '61 * * * *', start: b}\n", "not a cron expression"),
        ("- {name: x, schedule: '0 0 30 2 *', start: b}\n", "not a cron expression"),
        ("- {name: x, schedule: '0 0 * * *', timezone: Mars/Base, start: b}\n", "not a time zone"),
        ("- {name: x, on: run.end, rate: often, start: b}\n", "is not a rate"),
        ("- {name: x, on: run.end, rate: 0/minute, start: b}\n", "allows 1 to 100000 calls"),
        ("- {name: x, on: run.end, rate: 9999999/hour, start: b}\n", "allows 1 to 100000 calls"),
        ("- {name: x, on: run.end, budget: {per: day}, start: b}\n", "usd, tokens or both"),
        ("- {name: x, on: run.end, start: b, max_depth: 0}\n", "greater than or equal to 1"),
        ("- {name: x, on: run.end, start: b, colour: red}\n", "unknown key 'colour'"),
        (
            "- {name: x, on: run.end, start: b}\n- {name: x, on: run.end, start: a}\n",
            "two of the name 'x'",
        ),
        (
            (
                "- {name: a, on: run.end, start: b, session: s}\n- {name: a-b, on: run.end, start: "
                "b, session: s}\n"
            ),
            "rename one",
        ),
        ("- {name: x, webhook: {path: a/b, secret: {from_env: S}}, start: b}\n", "pattern"),
    ],
)
def test_a_file_that_cannot_work_says_where_and_why(text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=r"<triggers>:\d+:\d+") as raised:
        rules(text)
    assert message in str(raised.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(TemplateError) as raised:
        rules("- {name: x, on: run.end}\n- {name: y, on: nothing, start: b}\n")
    assert [problem.line for problem in raised.value.problems] == [4, 5]


# -- schedules


async def test_a_schedule_starts_its_agent_and_no_other_rules(agents: Agents) -> None:
    (rule, other) = rules(
        "- {name: nightly, schedule: '0 3 * * *', timezone: Europe/Berlin,\n"
        "   start: b, input: 'due {{ data.schedule }}'}\n"
        "- {name: yearly, schedule: '0 0 1 1 *', start: a}\n"
    )
    async with TriggerHandler(agents.factory, [rule, other]):
        Schedules(agents.factory.event_bus, [rule]).publish(
            rule, datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
        )
        await agents.until(lambda: agents.asked == ["b: due nightly"])
    (due,) = (event for event in agents.seen if event.type == "schedule.due")
    assert due.id == "schedule:nightly:1772330400"


def test_moments_are_of_the_rules_time_zone_also_when_its_clocks_change() -> None:
    (rule,) = rules("- {name: n, schedule: '30 2 * * *', timezone: Europe/Berlin, start: b}\n")
    moments = due_moments(rule, datetime(2026, 3, 27, 12, tzinfo=UTC))
    assert [next(moments).astimezone(UTC).isoformat()[:16] for _ in range(3)] == [
        "2026-03-28T01:30",
        "2026-03-29T01:00",  # there is no 2:30 on that day: the moment at which the clock jumps
        "2026-03-30T00:30",
    ]


async def test_moments_that_passed_at_once_are_one(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rule,) = rules("- {name: n, schedule: '* * * * *', start: b}\n")
    at = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)
    slept = 0

    async def sleep(seconds: float) -> None:
        nonlocal at, slept
        slept += 1
        if slept == 1:
            at += timedelta(minutes=5)  # the machine slept
        await real(0.01)

    real = asyncio.sleep
    monkeypatch.setattr("agent_runtime.triggers.schedule.asyncio.sleep", sleep)
    schedules = Schedules(agents.factory.event_bus, [rule], clock=lambda: at)
    async with schedules:
        while not agents.told("schedule.due"):
            await real(0)
    monkeypatch.undo()
    assert agents.told("schedule.due")[0]["due"].startswith("2026-01-01T12:05")


# -- webhooks


async def ask(
    app: Any, path: str, body: bytes, headers: dict[str, str], method: str = "POST"
) -> tuple[int, Any]:
    sent: list[Any] = []
    parts = [body[i : i + 65536] for i in range(0, len(body), 65536)] or [b""]

    async def receive() -> Any:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await app({"type": "http", "method": method, "path": path, "headers": raw}, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


def github(body: bytes, key: str = SECRET, **more: str) -> dict[str, str]:
    return {
        "X-Hub-Signature-256": "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest(),
        **more,
    }


def standard(
    body: bytes, delivery: str = "msg_1", moment: float | None = None, key: bytes = SECRET.encode()
) -> dict[str, str]:
    stamp = str(int(time.time() if moment is None else moment))
    digest = hmac.new(key, f"{delivery}.{stamp}.".encode() + body, hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(digest).decode()
    return {
        "webhook-id": delivery,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,AAAA {signature}",
    }


HOOKS = (
    "- {name: push, webhook: {path: gh, secret: {from_env: HOOK}, signature: github},\n"
    "   start: b, input: '{{ data.payload.ref }}'}\n"
    "- {name: paid, webhook: {path: pay, secret: {from_env: HOOK}, tenant: acme},\n"
    "   start: b, input: '{{ data.payload.n }}'}\n"
)


async def test_a_signed_request_starts_an_agent_once(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    async with TriggerHandler(agents.factory, rules(HOOKS)) as handler:
        body = b'{"ref": "main"}'
        event_id = f"webhook:gh:{hashlib.sha256(body).hexdigest()}"
        # The sender did not see our answer; or somebody sends it again under names that are not
        # signed.
        for delivery in ("d1", "d1", "d2", ""):
            named = {"X-GitHub-Delivery": delivery} if delivery else {}
            status, answer = await ask(handler.webhooks, "/gh", body, github(body, **named))
            assert (status, answer) == (202, {"id": event_id})
        status, _ = await ask(handler.webhooks, "/pay", b'{"n": 5}', standard(b'{"n": 5}'))
        assert status == 202
        await agents.until(lambda: len(agents.asked) == 2)
        await asyncio.sleep(0.1)
    assert sorted(agents.asked) == ["b: 5", "b: main"]
    assert {e.tenant for e in agents.seen if e.type == "run.end"} == {"default", "acme"}


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/gh", b"{}", {}, 401),
        ("/gh", b"{}", github(b"{ }"), 401),
        ("/gh", b"{}", github(b"{}", key="another"), 401),
        ("/gh", b"{}", standard(b"{}"), 401),
        ("/gh", b"not json", github(b"not json"), 400),
        ("/gh", b'{"a": 1, "a": 2}', github(b'{"a": 1, "a": 2}'), 400),
        ("/gh", b"[" * 100_000, github(b"[" * 100_000), 400),
        ("/gh", b"x" * 1_100_000, github(b"x"), 413),
        ("/other", b"{}", github(b"{}"), 404),
        ("/gh/../pay", b"{}", github(b"{}"), 404),
        ("/pay", b"{}", standard(b"{}", moment=0), 401),
        ("/pay", b"{}", standard(b"{}", moment=time.time() + 1000), 401),
        ("/pay", b"{}", {**standard(b"{}"), "webhook-id": "msg_2"}, 401),
        ("/pay", b"{}", {**standard(b"{}"), "webhook-timestamp": "NaN"}, 401),
        ("/pay", b"{}", {**standard(b"{}"), "webhook-signature": "v1,é " * 3000}, 401),
    ],
)
async def test_a_request_that_is_not_good_publishes_nothing(
    path: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    agents: Agents,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    app = TriggerHandler(agents.factory, rules(HOOKS)).webhooks
    assert (await ask(app, path, body, headers))[0] == status
    assert agents.factory.event_bus.published == 0


async def test_other_methods_are_answered_and_the_standards_own_secrets_are_read(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = b"thirty-two bytes of dummy secret"
    monkeypatch.setenv("HOOK", "whsec_" + base64.b64encode(raw).decode())
    app = TriggerHandler(agents.factory, rules(HOOKS)).webhooks
    assert (await ask(app, "/pay", b"", {}, method="GET"))[0] == 405
    assert (await ask(app, "/pay", b"{}", standard(b"{}", key=raw)))[0] == 202


# -- mishaps


async def test_a_circle_stops_also_when_its_events_name_other_causes(agents: Agents) -> None:
    bus = agents.factory.event_bus

    def publish(messages: list[Any]) -> Any:
        agents.asked.append("b")
        bus.publish(Event("custom.x", cause="order-17"))
        return say("done")

    agents.factory.register_model("b", ScriptedChatModel(script=publish))
    async with TriggerHandler(
        agents.factory, rules("- {name: x, on: custom.x, start: b, input: go, max_depth: 3}\n")
    ):
        bus.publish(Event("custom.x"))
        await agents.until(lambda: agents.told("trigger.stopped"))
    assert len(agents.asked) == 3


async def test_a_number_that_no_arithmetic_takes_harms_no_other_rule(agents: Agents) -> None:
    found = rules(
        "- {name: wrong, on: custom.x, when: 'avg(data.n) > `1`', start: b}\n"
        "- {name: right, on: custom.x, start: b, input: fine}\n"
    )
    async with TriggerHandler(agents.factory, found):
        agents.factory.event_bus.publish(Event("custom.x", {"n": [10**400]}))
        await agents.until(lambda: agents.asked == ["b: fine"])


async def test_a_slow_rule_keeps_no_other_from_its_work(agents: Agents) -> None:
    slow = ScriptedChatModel(script=[say("slow")], delay_s=30)
    agents.factory.register_model("a", slow)
    found = rules(
        "- {name: slow, on: custom.slow, start: a, input: x, concurrency: 1}\n"
        "- {name: quick, on: custom.quick, start: b, input: x}\n"
    )
    handler = TriggerHandler(agents.factory, found)
    await handler.__aenter__()
    for n in range(20):
        agents.factory.event_bus.publish(Event("custom.slow", n, run_id=f"r{n}"))
    agents.factory.event_bus.publish(Event("custom.quick", run_id="q"))
    await agents.until(lambda: agents.asked == ["b: x"])
    assert handler.consumer is not None
    await handler.consumer.stop(0)
    await handler.__aexit__()


async def test_a_body_that_is_too_deep_is_not_taken_on(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    app = TriggerHandler(agents.factory, rules(HOOKS)).webhooks
    body = b"[" * 65 + b"]" * 65
    assert (await ask(app, "/gh", body, github(body)))[0] == 400
    body = b"[" * 64 + b"]" * 64
    assert (await ask(app, "/gh", body, github(body)))[0] == 202


async def test_a_request_is_answered_when_it_is_in_the_log(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    app = TriggerHandler(agents.factory, rules(HOOKS)).webhooks

    async def flush() -> None:
        raise StoreUnavailable("not now")

    app.flush = flush
    assert (await ask(app, "/gh", b"{}", github(b"{}")))[0] == 503
