"""Results: their JSON, what many of them add up to, the report, the file, metrics and settings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.batches import bench_of

from agent_runtime import RuntimeMetrics
from agent_runtime.batch import (
    BatchSettings,
    Failure,
    ResultFile,
    RetryBudget,
    TaskResult,
    aggregate_results,
    handle_execution_error,
    watch_batches,
)
from agent_runtime.batch.aggregation import merge_values
from agent_runtime.batch.batch_file import BatchFile
from agent_runtime.batch.error_handling import error_kind
from agent_runtime.batch.report import quantile
from agent_runtime.errors import (
    AgentFailed,
    CallTimeout,
    ConfigurationError,
    InputInvalid,
    PoolOverloaded,
    ProviderError,
    RateLimited,
    TaskPoisoned,
    WorkerDied,
)


def result(name: str, position: int, value: Any = None, **given: Any) -> TaskResult:
    output = value if isinstance(value, str) else ""
    structured = None if isinstance(value, str) else value
    return TaskResult(
        name,
        position,
        given.pop("status", "completed"),
        output=output,
        structured_response=structured,
        **given,
    )


def test_a_failure_is_read_under_its_older_names() -> None:
    failure = Failure(1, "timeout", "run_timeout", "late", failed_at=5.0)
    result = TaskResult("t", 1, "failed", error=failure, history=[failure], ended_at=6.0)
    older = result.to_json().replace('"failed_at"', '"at_s"').replace('"ended_at"', '"ended_s"')
    assert TaskResult.from_json(older) == result


def test_strategies() -> None:
    results = [
        result("b", 2, {"tags": ["y"], "count": 2, "who": {"name": "bo", "age": 3}}),
        result("a", 1, {"tags": ["x"], "count": 1, "who": {"name": "al"}}),
        result("c", 3, {"tags": ["z"], "count": 2}, status="failed"),
        result("d", 4, '{"tags": [], "more": true}'),
        result("e", 5, "plain text"),
    ]
    assert list(aggregate_results(results)) == ["a", "b", "d", "e"]
    assert aggregate_results(results)["e"] == "plain text"
    assert aggregate_results(results[:4], "merge") == {
        "tags": ["x", "y"], "count": [1, 2], "who": {"name": ["al", "bo"], "age": 3}, "more": True,
    }  # fmt: skip
    assert aggregate_results(results, "custom", combine=len) == 4
    for wrong in ("reduce", "custom"):
        with pytest.raises(InputInvalid, match="preserve, merge"):
            aggregate_results(results, wrong)  # type: ignore[arg-type]


def test_answers_that_differ_are_listed_once_each_in_their_order_however_many() -> None:
    many = [str(n % 20_000) for n in range(40_000)]
    assert merge_values(many) == many[:20_000]
    assert merge_values([1, True, 1.0, "1", None, [1], [1], {"a": 1}, {"a": 1}]) == [
        1,
        True,
        1.0,
        "1",
        None,
        [1],
        {"a": 1},
    ]
    assert merge_values(["x", "x"]) == "x"


@given(st.lists(st.lists(st.integers(), max_size=3), max_size=5))
def test_merging_loses_no_item_of_a_list(lists: list[list[int]]) -> None:
    assert (
        merge_values([{"items": each} for each in lists]).get("items", [])
        == [n for each in lists for n in each]
        if lists
        else True
    )


async def test_an_agent_reduces_results_as_a_tree() -> None:
    async with bench_of({"max_concurrent": 8}) as bench:
        bench.agent("number", lambda text: text)
        bench.agent(
            "sum", lambda text: str(sum(int(each) for each in json.loads(text.partition("\n")[2])))
        )
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(50)], agent="number")
        await bench.executor.wait(name)
        bench.asked.clear()
        whole = await bench.executor.aggregate(
            name,
            "reduce",
            agent=bench.factory.create_from_template("sum"),
            at_once=7,
            instruction="Add.",
        )
        assert (whole.output, len(bench.asked)) == (str(sum(range(50))), 8 + 2 + 1)
        assert bench.asked[0].startswith("Add.\n")
        assert (await bench.executor.aggregate(name))["t1"] == "0"
        with pytest.raises(InputInvalid, match="at least one result"):
            await bench.executor.aggregate(
                await _failed(bench), "reduce", agent=bench.factory.create_from_template("sum")
            )


async def _failed(bench: Any) -> str:
    def work(text: str) -> str:
        raise ValueError(text)

    bench.agent("bad", work)
    name: str = await bench.executor.submit_batch_tasks(["x"], agent="bad")
    await bench.executor.wait(name)
    return name


async def test_the_report_adds_up() -> None:
    async with bench_of(
        {"max_concurrent": 5, "retry": {"attempts": 2, "initial_delay": "1ms"}}
    ) as bench:

        async def work(text: str) -> str:
            await asyncio.sleep(0.02)
            if text == "7":
                raise ConnectionError("cut")
            return text

        bench.agent("naps", work)
        name = await bench.executor.submit_batch_tasks(
            [str(n) for n in range(20)], agent="naps", name="naps"
        )
        await bench.executor.wait(name)
        report = await bench.executor.get_report(name)
        assert (report.total, report.by_status, report.errors) == (
            20,
            {"completed": 19, "failed": 1},
            {"connection": 1},
        )
        assert (report.attempts, report.retries, report.status) == (21, 1, "completed")
        assert report.serial_s == pytest.approx(
            sum(r.duration_s for r in await bench.executor.get_execution_results(name)), abs=0.01
        )
        assert report.speed_up == pytest.approx(report.serial_s / report.wall_s, rel=0.01)
        assert report.efficiency == pytest.approx(report.speed_up / 5, rel=0.01)
        assert 0.02 <= report.p50_s <= report.p95_s <= report.p99_s
        assert (report.agents, report.workers) == ({"naps": 20}, {"asyncio": 20})
        assert report.peak_memory_mb > 10
        text = report.to_text()
        assert "20: 19 completed, 1 failed" in text
        assert "1 connection" in text
        assert json.loads(json.dumps(report.to_dict()))["name"] == "naps"
        assert (await bench.executor.get_performance_metrics(name))["total"] == 20
        metrics = RuntimeMetrics()
        watch_batches(metrics, bench.executor)
        shown = (
            metrics.exposition().decode() if hasattr(metrics, "exposition") else _scraped(metrics)
        )
        assert 'batch_tasks_total{status="completed"} 19.0' in shown
        assert "batch_retries_total 1.0" in shown


def _scraped(metrics: RuntimeMetrics) -> str:
    from prometheus_client import generate_latest

    return generate_latest(metrics.registry).decode()


def test_quantiles() -> None:
    assert quantile([], 0.5) == 0.0
    assert [quantile([1.0, 2.0, 3.0, 4.0], share) for share in (0, 0.5, 0.99)] == [1.0, 2.0, 4.0]


texts = st.text(max_size=10)


@given(
    texts,
    texts,
    st.one_of(st.none(), st.dictionaries(texts, st.integers())),
    st.lists(st.builds(Failure, st.integers(1, 5), texts, texts, texts), max_size=3),
)
def test_a_result_is_kept_as_it_is(
    name: str, output: str, value: Any, history: list[Failure]
) -> None:
    made = TaskResult(
        name,
        3,
        "failed",
        "a",
        output,
        value,
        history[-1] if history else None,
        history,
        metadata={"a": [1]},
    )
    assert TaskResult.from_json(made.to_json()) == made
    assert json.loads(made.to_json()) == made.to_dict()


def test_a_file_of_results_is_readable_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    path.write_text("what was there before\n")
    with ResultFile(path) as file:
        file.write(result("a", 1, "é\n"))
        assert [json.loads(line)["output"] for line in path.read_text().splitlines()] == ["é\n"]
        file.write(result("b", 2, "x"))
    assert len(path.read_text().splitlines()) == 2


def settings(**given: Any) -> BatchSettings:
    return BatchSettings.parse(given)


@pytest.mark.parametrize(
    ("error", "attempt", "given", "action", "kind"),
    [
        (ConnectionError("x"), 1, {}, "retry", "connection"),
        (ConnectionError("x"), 3, {}, "fail", "connection"),
        (ValueError("x"), 1, {}, "fail", "internal"),
        (AgentFailed("x"), 1, {}, "fail", "agent_failed"),
        (AgentFailed("x"), 1, {"fallback_strategy": "skip"}, "skip", "agent_failed"),
        (CallTimeout("run", 3), 1, {}, "retry", "timeout"),
        (CallTimeout("run", 3), 1, {"retry": {"on": ["worker"]}}, "fail", "timeout"),
        (WorkerDied(-9), 1, {}, "retry", "worker"),
        (TaskPoisoned("t", 3, "l"), 1, {}, "poison", "worker"),
        (RateLimited("3/s", 0.2), 9, {}, "postpone", "rate_limit"),
        (PoolOverloaded("full"), 9, {}, "postpone", "overloaded"),
        (ProviderError("x", status=429, retry_after_s=7), 1, {}, "retry", "rate_limit"),
        (ProviderError("x", status=429, retry_after_s=7000), 1, {}, "fail", "rate_limit"),
        (ProviderError("x", status=400), 1, {}, "fail", "provider_error"),
    ],
)
def test_what_is_done_about_an_error(
    error: Exception, attempt: int, given: dict[str, Any], action: str, kind: str
) -> None:
    if isinstance(error, ProviderError):
        error.__cause__ = type("Answer", (Exception,), {"status_code": error.status})()
    decision = handle_execution_error(error, attempt, settings(**given))
    assert (decision.action, decision.kind) == (action, kind)
    assert error_kind(error) == kind
    if isinstance(error, ProviderError) and action == "retry":
        assert decision.wait_s == 7


@given(st.integers(1, 8))
def test_waits_grow_and_have_a_bound(attempt: int) -> None:
    made = settings(retry={"attempts": 10, "initial_delay": "100ms", "max_delay": "1s"})
    waits = [handle_execution_error(ConnectionError(), attempt, made).wait_s for _ in range(20)]
    assert all(0 <= wait <= min(0.1 * 2 ** (attempt - 1), 1.0) for wait in waits)


def test_a_retry_budget_is_a_share_and_ten() -> None:
    budget = RetryBudget(0.1, tasks=100)
    assert sum(budget.take() for _ in range(100)) == 20
    assert handle_execution_error(ConnectionError(), 1, settings(), budget).action == "fail"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_concurent": 3}, "batch.max_concurent: unknown key: did you mean 'max_concurrent'"),
        ({"max_concurrent": 0, "grace": 3}, "batch.grace"),
        ({"queue": {"order": "random"}}, "batch.queue.order"),
        ({"retry": {"on": ["everything"]}}, "batch.retry.on.0"),
        ({"max_cost_usd": -1}, "batch.max_cost_usd"),
        ({"limits": {"a": 0}}, "batch.limits.a"),
        ({"fail_fast": True, "fallback_strategy": "retry"}, "fail_fast ends a batch"),
        ({"pool": {"size": 0}}, "batch.pool.size"),
    ],
)
def test_wrong_settings_are_told_by_their_place(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        BatchSettings.parse(given)


def test_settings_are_what_was_said_of_them(tmp_path: Path) -> None:
    made = settings(
        max_concurrent=4,
        retry={"attempts": 2, "max_delay": "5s"},
        queue={"aging": "10s"},
        pool={"size": 2},
    )
    assert BatchSettings.parse(json.loads(json.dumps(made.explicit_settings()))) == made
    assert made.with_changes(max_cost_usd=2.0).retry.max_delay == 5.0
    assert (made.retry.classes >= {"worker", "timeout"}, made.task_timeout) == (True, 300.0)
    file = tmp_path / "b.yaml"
    file.write_text("batch: {max_concurrent: 3, slow_after: 5s}\n")
    assert BatchSettings.load(file) == settings(max_concurrent=3, slow_after="5s")


def test_a_batch_file_says_it_all(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(
        "batch:\n  agent: agents/x.yaml\n  tasks: rows.csv\n  mapping: {input: 'do {text}'}\n"
        "  output: out.jsonl\n  max_concurrent: 3\n"
    )
    found = BatchFile.read(file)
    assert found is not None
    assert (found.agent, found.tasks) == (
        str(tmp_path / "agents/x.yaml"),
        str(tmp_path / "rows.csv"),
    )
    assert (found.settings(), found.mapping) == (settings(max_concurrent=3), {"input": "do {text}"})
    file.write_text("- a task\n")
    assert BatchFile.read(file) is None
    for text, said in (
        ("batch: {tasks: []}", "at least one task"),
        ("batch: {agnt: x}", "did you mean 'agent'"),
        ("batch: 3", "batch"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=said):
            BatchFile.read(file)
