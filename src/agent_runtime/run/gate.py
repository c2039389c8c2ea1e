"""Admit and settle each model call of a run, in one place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from agent_runtime.budgets.ledger.ledger import ZERO_AMOUNT
from agent_runtime.budgets.prices import PRICES, PriceTable
from agent_runtime.errors import CallError, LimitExceeded, PriceUnknown
from agent_runtime.run.limits import NO_LIMITS, RunLimits
from agent_runtime.run.model_call import ModelCall
from agent_runtime.run.request import CostBound, ModelRequest, compute_cost_bound, max_input_tokens
from agent_runtime.run.state import USAGE_LOCK, GateSettings

if TYPE_CHECKING:
    from agent_runtime.budgets.grants import Grant
    from agent_runtime.providers.limiter import Permit, ProviderAccount
    from agent_runtime.run.state import Run


class ModelGate:
    """Admit model calls and settle their usage. One per executor; it keeps no state of a call.

    Args:
        limits: of one run.
        model_call_timeout_s: of one model call.
        prices: the prices of models.
    """

    def __init__(
        self,
        limits: RunLimits | None = None,
        *,
        model_call_timeout_s: float | None = None,
        prices: PriceTable = PRICES,
    ) -> None:
        self.limits = limits or NO_LIMITS
        self.prices = prices
        self.model_call_timeout_s = model_call_timeout_s

    def open(self, request: ModelRequest) -> ModelCall:
        """Admit one model call, or raise `Refused` before anything is sent.

        Blocks for a permit of the provider's account, and for the ledger when the call has a
        budget.
        """
        permit = None if request.account is None else _acquire_permit_sync(request.account)
        try:
            if (cost_bound := self._cost_bound(request)) is None:
                return self._admit(request, None, permit)
            try:
                grant = request.run.call_budget.reserve(  # type: ignore[union-attr]  # it has limits
                    *cost_bound.reservation_range(), request.key
                )
            except CallError as error:
                raise request.run.run_owning(error).refuse(error) from error.__cause__
            return self._admit_within_grant(request, cost_bound, grant, permit)
        except BaseException:
            if permit is not None:
                permit.release()
            raise

    async def aopen(self, request: ModelRequest) -> ModelCall:
        """Admit a model call for async callers."""
        permit = None if request.account is None else await request.account.aacquire()
        try:
            if (cost_bound := self._cost_bound(request)) is None:
                return self._admit(request, None, permit)
            try:
                grant = await request.run.call_budget.areserve(  # type: ignore[union-attr]
                    *cost_bound.reservation_range(), request.key
                )
            except CallError as error:
                raise request.run.run_owning(error).refuse(error) from error.__cause__
            return self._admit_within_grant(request, cost_bound, grant, permit)
        except BaseException:
            if permit is not None:
                permit.release()
            raise

    def _cost_bound(self, request: ModelRequest) -> CostBound | None:
        """Return the highest cost of the call, or None without a limit."""
        run = request.run
        if (call_budget := run.call_budget) is None or not call_budget.is_limited:
            return None
        self._check_ancestry(run)  # before money is reserved for a call that is refused anyway
        spending = call_budget.spending
        highest_rates = self.prices.highest(
            request.provider,
            request.model,
            request.conditions,
            spending.hold_ttl_s,
            base_url=request.base_url,
        )
        if highest_rates is None and call_budget.limits_usd and spending.unknown_price == "refuse":
            raise run.refuse(PriceUnknown(request.provider, request.model))
        token_bound = spending.input_bound or max_input_tokens
        return compute_cost_bound(
            request,
            highest_rates,
            token_bound,
            spending.max_output_tokens,
            spending.min_output_tokens,
        )

    def _admit_within_grant(
        self, request: ModelRequest, cost_bound: CostBound, grant: Grant, permit: Permit | None
    ) -> ModelCall:
        request.limit_output(cost_bound.affordable_output(grant.granted))
        try:
            return self._admit(request, grant, permit)
        except BaseException:
            assert request.run.call_budget is not None  # noqa: S101 - it has just drawn
            request.run.call_budget.settle(grant, ZERO_AMOUNT, None)
            raise

    @staticmethod
    def _check_ancestry(run: Run) -> None:
        with USAGE_LOCK:
            run.check_refusal()
            for ancestor in run.ancestry:
                _check_limits(ancestor)

    def _admit(
        self, request: ModelRequest, grant: Grant | None, permit: Permit | None
    ) -> ModelCall:
        run = request.run
        ancestry = run.ancestry
        with USAGE_LOCK:
            run.check_refusal()
            for ancestor in ancestry:
                _check_limits(ancestor)
            for ancestor in ancestry:
                ancestor.context.usage.model_calls += 1
            number = run.context.usage.model_calls
        return ModelCall(request, number, self.prices, grant, permit)


def _check_limits(run: Run) -> None:
    limits = run.gate.limits
    used = run.context.usage
    if limits.model_calls is not None and used.model_calls >= limits.model_calls:
        raise run.refuse(LimitExceeded("model_calls", limits.model_calls))
    if limits.tokens is not None and used.total_tokens >= limits.tokens:
        raise run.refuse(LimitExceeded("tokens", limits.tokens, f"{used.total_tokens} used"))


def _acquire_permit_sync(account: ProviderAccount) -> Permit:
    """Return a permit for a sync call.

    On a loop's own thread it cannot wait, which could deadlock.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return account.acquire()
    return account.acquire_nowait()


class Gate(GateSettings, Protocol):
    """Admits the model calls of runs: in the application, or in a worker for it."""

    def open(self, request: ModelRequest) -> ModelCall:
        """Admit one model call, or raise `Refused` before anything is sent."""

    async def aopen(self, request: ModelRequest) -> ModelCall:
        """Admit a model call for async callers."""


def gate_of(run: Run) -> Gate:
    """Return the gate of a run's model calls; a run itself knows its settings only."""
    return cast("Gate", run.gate)
