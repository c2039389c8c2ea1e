"""Many results to one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from agent_runtime.batch.result import TaskResult
from agent_runtime.errors import InputInvalid
from agent_runtime.errors.user_code import as_user_exception
from agent_runtime.strict_json import loads_unique

if TYPE_CHECKING:
    from agent_runtime.orchestration.executor import AgentExecutor

Strategy: TypeAlias = Literal["preserve", "merge", "custom"]


def result_value(result: TaskResult) -> Any:
    """Return a task's structured response, or its text, parsed where it is JSON."""
    if result.structured_response is not None:
        return result.structured_response
    if result.output[:1] in ("{", "["):
        try:
            return loads_unique(result.output)
        except ValueError:
            pass
    return result.output


def aggregate_results(
    results: Iterable[TaskResult],
    strategy: Strategy = "preserve",
    *,
    combine: Callable[[list[Any]], Any] | None = None,
) -> Any:
    """Combine the values of successful tasks, in the order of their positions.

    `preserve`: a map of task ids and values. `merge`: maps are merged key by key (nested maps
    likewise, lists concatenated, other values as the list of the distinct ones); a list of values
    where they are not maps. `custom`: the result of `combine` for the list of values.
    `reduce_results` lets an agent combine them. Raises InputInvalid for an unknown strategy, or
    `custom` without `combine`.
    """
    successful = sorted(
        (result for result in results if result.succeeded), key=lambda result: result.position
    )
    if strategy == "preserve":
        return {result.task_id: result_value(result) for result in successful}
    values = [result_value(result) for result in successful]
    if strategy == "merge":
        return merge_values(values)
    if strategy == "custom" and combine is not None:
        try:
            return combine(values)
        except BaseException as error:
            if (failure := as_user_exception(error)) is error:
                raise
            raise failure from error
    raise InputInvalid("a strategy is preserve, merge, or custom with combine=", "strategy")


def merge_values(values: Sequence[Any]) -> Any:
    """Merge values of one shape."""
    if values and all(isinstance(value, Mapping) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: merge_values([value[key] for value in values if key in value]) for key in keys}
    if values and all(isinstance(value, list) for value in values):
        return [item for value in values for item in value]
    # Each with each would take 30 s for 10,000 answers.
    by_identity: dict[Any, Any] = {}
    for value in values:
        by_identity.setdefault(_equality_key(value), value)
    distinct_values = list(by_identity.values())
    return distinct_values[0] if len(distinct_values) == 1 else distinct_values


def _equality_key(value: Any) -> tuple[type, Any]:
    """Return a key that is equal for values of one type that are equal."""
    if isinstance(value, Mapping | list):
        return type(value), json.dumps(value, sort_keys=True, default=str)
    return type(value), value


async def reduce_results(
    results: Iterable[TaskResult],
    agent: AgentExecutor,
    *,
    instruction: str = "Combine these results into one.",
    at_once: int = 20,
) -> TaskResult:
    """Let an agent combine all results into one.

    It combines `at_once` results at a time, then the combined ones, as a tree. The agent receives
    the instruction and a JSON list of values. The last answer is returned, with the usage of all
    calls. Raises the errors of its calls, and InputInvalid for an empty input. Cancelling stops it.
    """
    from agent_runtime.batch.result import UsageTotals

    successful = sorted(
        (result for result in results if result.succeeded), key=lambda result: result.position
    )
    values = [result_value(result) for result in successful]
    spent = UsageTotals()
    if not values or at_once < 2:
        raise InputInvalid("a reduction takes at least one result, and at least two at once")
    answer = None
    while answer is None or len(values) > 1:
        reduced = []
        for start in range(0, len(values), at_once):
            chunk = values[start : start + at_once]
            answer = await agent.execute(f"{instruction}\n{json.dumps(chunk, ensure_ascii=False)}")
            spent.add(answer.usage)
            structured = answer.structured_response
            structured_json = (
                structured.model_dump(mode="json")
                if hasattr(structured, "model_dump")
                else structured
            )
            reduced.append(
                TaskResult(
                    "reduced", 1, "completed", agent.name or "", answer.output, structured_json
                )
            )
        values = [result_value(result) for result in reduced]
    final_result = reduced[0]
    final_result.usage = spent.usage
    final_result.cost_usd = spent.cost_usd
    final_result.estimated = spent.estimated
    return final_result
