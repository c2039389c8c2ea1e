"""Give each tenant separate namespaces of a LangGraph store."""

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
    """Prefix each namespace of another store with the tenant of the running call.

    An agent of one tenant reads, searches, lists and writes its own tenant's items only,
    independent of its tools. Outside of a run, and in a call without a principal, the tenant is
    `default`. Without an explicit expiry the inner store's default applies.
    """

    def __init__(self, store: BaseStore) -> None:
        self.inner = store
        self.supports_ttl = store.supports_ttl
        self.ttl_config = store.ttl_config

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations in order, for a sync caller."""
        tenant_label = _namespace_of_tenant()
        return [
            _strip_tenant(result)
            for result in self.inner.batch([_add_tenant(op, tenant_label) for op in ops])
        ]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Run `batch` for async callers."""
        tenant_label = _namespace_of_tenant()
        return [
            _strip_tenant(result)
            for result in await self.inner.abatch([_add_tenant(op, tenant_label) for op in ops])
        ]


def _namespace_of_tenant() -> str:
    run = current_run.get()
    principal = None if run is None else run.context.principal
    # LangGraph allows no dots in labels.
    return "tenant " + quoted(DEFAULT_TENANT if principal is None else principal.tenant).replace(
        ".", "%2E"
    )


def _add_tenant(op: Op, tenant_label: str) -> Op:
    if isinstance(op, GetOp | PutOp):
        return op._replace(namespace=(tenant_label, *op.namespace))
    if isinstance(op, SearchOp):
        return op._replace(namespace_prefix=(tenant_label, *op.namespace_prefix))
    tenant_condition = MatchCondition(match_type="prefix", path=(tenant_label,))
    conditions = [
        MatchCondition(match_type="prefix", path=cast("Any", (tenant_label, *condition.path)))
        if condition.match_type == "prefix"
        else condition
        for condition in op.match_conditions or ()
    ]
    depth = None if op.max_depth is None else op.max_depth + 1
    return ListNamespacesOp((tenant_condition, *conditions), depth, op.limit, op.offset)


def _strip_tenant(result: Result) -> Result:
    if isinstance(result, Item):
        return Item(
            value=result.value,
            key=result.key,
            namespace=result.namespace[1:],
            created_at=result.created_at,
            updated_at=result.updated_at,
        )
    if isinstance(result, list):
        entries: list[Any] = result
        return [
            _strip_tenant_from_item(entry) if isinstance(entry, SearchItem) else entry[1:]
            for entry in entries
        ]
    return result


def _strip_tenant_from_item(item: SearchItem) -> SearchItem:
    return SearchItem(
        item.namespace[1:], item.key, item.value, item.created_at, item.updated_at, item.score
    )
