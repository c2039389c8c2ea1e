"""Apply a person's decisions to the questions of an interrupted run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph.types import Command, Interrupt

from agent_runtime.errors import InputInvalid

_INTERRUPT_ID = re.compile("[0-9a-f]{32}")
"""The form of LangGraph's ids of interrupts."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Answer the interrupts of a session, as a call's input.

    `decision` is `"approve"`, `"reject"`, or LangChain's form (`{"type": "approve"}`, `{"type":
    "reject", "message": ...}`, `{"type": "edit", "edited_action": {"name": ..., "args": {...}}}`),
    or a list with one for each pending action. One decision applies to all of them; an edit to one
    action only. For an interrupt of another kind it is the return value of `interrupt()`.

    When several interrupts are pending, it is a map from the `id` of each to its decision; the rest
    stays pending. One value for several questions raises InputInvalid, and so does an id that is
    not pending.
    """

    decision: Any


def resume_command(decision: Any, interrupts: Sequence[Interrupt]) -> Command[Any]:
    """Return LangGraph's command for a decision.

    Raises InputInvalid when nothing is pending or it does not fit.
    """
    if not interrupts:
        raise InputInvalid("this session has no pending decision", "decision")
    if (decisions_by_id := _decisions_by_id(decision, interrupts)) is not None:
        return Command(
            resume={
                interrupt.id: _answer_interrupt(decisions_by_id[interrupt.id], interrupt)
                for interrupt in interrupts
                if interrupt.id in decisions_by_id
            }
        )
    questions = [interrupt for interrupt in interrupts if _action_requests(interrupt) is None]
    if len(interrupts) > 1 and questions:
        ids = ", ".join(f"'{interrupt.id}'" for interrupt in interrupts)
        raise InputInvalid(
            f"{len(interrupts)} questions are pending: give a map from their ids to the answers "
            f"({ids})",
            "decision",
        )
    if questions:
        return Command(resume={questions[0].id: decision})
    return Command(resume=_answer_action_requests(decision, interrupts))


def _decisions_by_id(decision: Any, interrupts: Sequence[Interrupt]) -> dict[str, Any] | None:
    """Return a decision that is a map by the ids of interrupts, or None for one of another form."""
    if not isinstance(decision, Mapping) or not decision:
        return None
    pending_ids = {interrupt.id for interrupt in interrupts}
    if not pending_ids & decision.keys() and not all(
        isinstance(key, str) and _INTERRUPT_ID.fullmatch(key) for key in decision
    ):
        return None
    if unknown := [key for key in decision if key not in pending_ids]:
        raise InputInvalid(f"no pending question has the id '{unknown[0]}'", "decision")
    return dict(decision)


def _answer_interrupt(decision: Any, interrupt: Interrupt) -> Any:
    return (
        decision
        if _action_requests(interrupt) is None
        else _answer_action_requests(decision, [interrupt])[interrupt.id]
    )


def _answer_action_requests(decision: Any, interrupts: Sequence[Interrupt]) -> dict[str, Any]:
    """Return the answers of interrupts that ask about actions.

    One decision for all, or a list with one for each.
    """
    remaining_decisions = list(decision) if isinstance(decision, list) else None
    answers: dict[str, Any] = {}
    for interrupt in interrupts:
        requests = _action_requests(interrupt) or []
        if remaining_decisions is None:
            if len(requests) > 1 and normalize_decision(decision)["type"] == "edit":
                raise InputInvalid(
                    f"{len(requests)} actions are pending: give a list with a decision for each",
                    "decision",
                )
            interrupt_decisions = [decision] * len(requests)
        else:
            interrupt_decisions = remaining_decisions[: len(requests)]
            remaining_decisions = remaining_decisions[len(requests) :]
            if len(interrupt_decisions) < len(requests):
                raise InputInvalid("there are fewer decisions than pending actions", "decision")
        answers[interrupt.id] = {
            "decisions": [
                _check_decision(request_decision, request)
                for request_decision, request in zip(interrupt_decisions, requests, strict=True)
            ]
        }
    if remaining_decisions:
        raise InputInvalid("there are more decisions than pending actions", "decision")
    return answers


def _check_decision(decision: Any, request: Any) -> dict[str, Any]:
    """Return a decision in LangChain's form.

    An edit may only change the arguments of the pending call.
    """
    typed = normalize_decision(decision)
    edited = typed.get("edited_action")
    name = request.get("name") if isinstance(request, Mapping) else None
    if typed["type"] == "edit" and isinstance(edited, Mapping) and edited.get("name", name) != name:
        raise InputInvalid(
            f"an edit is one of the call of '{name}', and cannot call another tool", "decision"
        )
    return typed


def decision_types(resume: Any) -> set[Any]:
    """Return the kinds of decisions in a command's answer, by interrupt where it has ids."""
    answers = [resume, *(resume.values() if isinstance(resume, Mapping) else ())]
    decisions = [
        decision
        for answer in answers
        if isinstance(answer, Mapping)
        for decision in answer.get("decisions") or ()
    ]
    return {decision.get("type") for decision in decisions if isinstance(decision, Mapping)}


def check_edits(resume: Mapping[str, Any], interrupts: Sequence[Interrupt]) -> None:
    """Raise InputInvalid for an edit that the question it answers does not allow."""
    for interrupt in interrupts:
        answer = resume.get(interrupt.id, resume)
        decisions = answer.get("decisions") if isinstance(answer, Mapping) else None
        for decision, request in zip(
            decisions or (), _action_requests(interrupt) or (), strict=False
        ):
            _check_decision(decision, request)


def _action_requests(interrupt: Interrupt) -> list[Any] | None:
    requests = (
        interrupt.value.get("action_requests") if isinstance(interrupt.value, Mapping) else None
    )
    return requests if isinstance(requests, list) else None


def normalize_decision(decision: Any) -> dict[str, Any]:
    """Return a decision in LangChain's form; raises InputInvalid for anything else."""
    if isinstance(decision, str):
        decision = {"type": decision}
    if not isinstance(decision, Mapping) or decision.get("type") not in (
        "approve",
        "edit",
        "reject",
        "respond",
    ):
        raise InputInvalid("a decision is approve, reject, or a map with a type", "decision")
    return dict(decision)
