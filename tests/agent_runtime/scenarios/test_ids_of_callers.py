"""Ids, names, numbers and texts that a caller or a model chose, where they met something else
once."""

from __future__ import annotations

import time

import pytest

from agent_runtime import AgentContext, Budget, ConfigurationError
from agent_runtime.auth.identities import fault_of_name
from agent_runtime.orchestration.call_tracker import CallTracker
from agent_runtime.tools.csv_data import parse_number


def test_a_drain_reaches_each_of_two_calls_of_one_run_id() -> None:
    running = CallTracker()
    first, second = (
        AgentContext("x", run_id="00000000-0000-4000-8000-000000000001") for _ in range(2)
    )
    own = running.register_run(first)
    other = running.register_run(second)
    running.unregister_run(second)
    running.request_drain_all("shutdown")
    assert own.drain_requested
    assert not other.drain_requested


@pytest.mark.parametrize(
    "invisible",
    ["\u034f", "\ufe0f", "\u3164", "\uffa0", "\u115f", "\u2800", "\u180b", "\u17b4", "\U000e0100"],
)
def test_a_name_has_no_character_that_is_not_seen(invisible: str) -> None:
    for name in (f"ada{invisible}", f"a{invisible}da"):
        assert fault_of_name(name) is not None
    assert fault_of_name("ada") is None


def test_a_long_number_of_a_model_is_no_number_at_once() -> None:
    began = time.process_time()
    assert parse_number("1" * 100_000 + "x") is None
    assert time.process_time() - began < 0.25
    assert (parse_number("1,234.5%"), parse_number(".5"), parse_number("7")) == (
        parse_number("1234.5"),
        parse_number("0.5"),
        parse_number("7.0"),
    )


def test_a_budget_fits_a_store_s_numbers() -> None:
    with pytest.raises(ConfigurationError, match="at most"):
        Budget("tenant", tokens=10**19)
