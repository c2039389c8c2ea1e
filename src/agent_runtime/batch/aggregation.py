"""Many results to one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from agent_runtime.batch.result import TaskResult
from agent_runtime.errors import InputInvalid
from agent_runtime.errors.user_code import contained
from agent_runtime.strict_json import loads_unique

if TYPE_CHECKING:
    from agent_runtime.orchestration.executor import AgentExecutor

Strategy: TypeAlias = Literal["preserve", "merge", "custom"]


def value_of(result: TaskResult) -> Any:
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
    """One value of what the tasks that succeeded said, in the order of their places.

    `preserve`: a map of task id and value. `merge`: maps are joined key by key (maps within them
    likewise, lists one behind the other, other values as the list of those that differ); a list of
    values where they are no maps. `custom`: whatever `combine` makes of the list of values.
    `reduce_results` has an agent do it.

    Raises InputInvalid for a strategy that is none, or `custom` without `combine`.
    """
    found = sorted((each for each in results if each.succeeded), key=lambda each: each.position)
    if strategy == "preserve":
        return {each.task_id: value_of(each) for each in found}
    values = [value_of(each) for each in found]
    if strategy == "merge":
        return merged(values)
    if strategy == "custom" and combine is not None:
        try:
            return combine(values)
        except BaseException as error:
            if (failure := contained(error)) is error:
                raise
            raise failure from error
    raise InputInvalid("a strategy is preserve, merge, or custom with combine=", "strategy")


def merged(values: Sequence[Any]) -> Any:
    """Values of one shape as one."""
    if values and all(isinstance(each, Mapping) for each in values):
        keys = dict.fromkeys(key for each in values for key in each)
        return {key: merged([each[key] for each in values if key in each]) for key in keys}
    if values and all(isinstance(each, list) for each in values):
        return [item for each in values for item in each]
    # Each with each would take 30 s for 10,000 answers.
    by_identity: dict[Any, Any] = {}
    for each in values:
        by_identity.setdefault(_identity(each), each)
    different = list(by_identity.values())
    return different[0] if len(different) == 1 else different


def _identity(value: Any) -> tuple[type, Any]:
    """Return what is the same for values that are equal and of one type."""
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
    """Have an agent make one result of all.

    `at_once` of them at a time, then of what came of these, as a tree.

    The agent is given the instruction and a JSON list of values. Its last answer is returned, with
    the usage of all its calls. Raises what its calls raise, InputInvalid when there is nothing to
    be reduced. Cancelling stops it.
    """
    from agent_runtime.batch.result import Spent

    found = sorted((each for each in results if each.succeeded), key=lambda each: each.position)
    values = [value_of(each) for each in found]
    spent = Spent()
    if not values or at_once < 2:
        raise InputInvalid("a reduction takes at least one result, and at least two at once")
    answer = None
    while answer is None or len(values) > 1:
        made = []
        for start in range(0, len(values), at_once):
            part = values[start : start + at_once]
            answer = await agent.execute(f"{instruction}\n{json.dumps(part, ensure_ascii=False)}")
            spent.add(answer.usage)
            structured = answer.structured_response
            plain = (
                structured.model_dump(mode="json")
                if hasattr(structured, "model_dump")
                else structured
            )
            made.append(
                TaskResult("reduced", 1, "completed", agent.name or "", answer.output, plain)
            )
        values = [value_of(each) for each in made]
    whole = made[0]
    whole.usage = spent.usage
    whole.cost_usd = spent.cost_usd
    whole.estimated = spent.estimated
    return whole
