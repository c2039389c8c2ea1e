"""Measure the CPU time of the check of a call's input."""

from __future__ import annotations

import statistics
import time
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from agent_runtime.orchestration.call_input import check_input
from benchmarks.common import InstantModel, Row

ROUNDS = 200
CALLS = 200
TEXT = "What is the weather in the capital of the smallest country of the continent? " * 3


def call_input_rows() -> list[Row]:
    """Return the figures of a text and of a conversation of 10 messages."""
    agent = create_agent(InstantModel(), [])
    conversation: list[BaseMessage] = []
    for number in range(5):
        conversation += [HumanMessage(TEXT, id=f"h{number}"), AIMessage(TEXT, id=f"a{number}")]
    return [
        Row("input check of a text", cpu_us(TEXT, agent), 3.0, "us"),
        Row("input check of 10 messages", cpu_us(conversation, agent), 25.0, "us"),
    ]


def cpu_us(value: Any, agent: Any) -> float:
    """Return the median CPU time of a check, in microseconds."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        for _ in range(CALLS):
            check_input(value, agent)
        rounds.append((time.process_time_ns() - began) / CALLS / 1000)
    return statistics.median(rounds)


if __name__ == "__main__":
    for each in call_input_rows():
        print(each.line())
