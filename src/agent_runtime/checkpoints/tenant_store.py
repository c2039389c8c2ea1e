"""A LangGraph store that gives each tenant namespaces of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
)

from agent_runtime.auth.caller_names import DEFAULT_TENANT, quoted
from agent_runtime.run.state import current_run


class TenantStore(BaseStore):
    """Prefixes each namespace of another store with the tenant of the running call.

    An agent of one tenant reads, searches, lists and writes its own tenant's items only, whatever
    its tools ask for. Outside of a run, and in a call without a principal, the tenant is `default`.
    An expiry that the agent does not state is the inner store's default.
    """

    def __init__(self, store: BaseStore) -> None:
        self.inner = store
        self.supports_ttl = store.supports_ttl
        self.ttl_config = store.ttl_config

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations in order, for a sync caller."""
        label = _namespace_of_tenant()
        return [_own(result) for result in self.inner.batch([_moved(op, label) for op in ops])]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """`batch` for async callers."""
        label = _namespace_of_tenant()
        return [
            _own(result) for result in await self.inner.abatch([_moved(op, label) for op in ops])
        ]


def _namespace_of_tenant() -> str:
    run = current_run.get()
    principal = None if run is None else run.context.principal
    # LangGraph allows no dots in labels.
    return "tenant " + quoted(DEFAULT_TENANT if principal is None else principal.tenant).replace(
        ".", "%2E"
    )


def _moved(op: Op, label: str) -> Op:
    if isinstance(op, GetOp | PutOp):
        return op._replace(namespace=(label, *op.namespace))
    if isinstance(op, SearchOp):
        return op._replace(namespace_prefix=(label, *op.namespace_prefix))
    own = MatchCondition(match_type="prefix", path=(label,))
    conditions = [
        MatchCondition(match_type="prefix", path=cast("Any", (label, *each.path)))
        if each.match_type == "prefix"
        else each
        for each in op.match_conditions or ()
    ]
    depth = None if op.max_depth is None else op.max_depth + 1
    return ListNamespacesOp((own, *conditions), depth, op.limit, op.offset)


def _own(result: Result) -> Result:
    if isinstance(result, Item):
        return Item(
            value=result.value,
            key=result.key,
            namespace=result.namespace[1:],
            created_at=result.created_at,
            updated_at=result.updated_at,
        )
    if isinstance(result, list):
        found: list[Any] = result
        return [_own_item(each) if isinstance(each, SearchItem) else each[1:] for each in found]
    return result


def _own_item(item: SearchItem) -> SearchItem:
    return SearchItem(
        item.namespace[1:], item.key, item.value, item.created_at, item.updated_at, item.score
    )
