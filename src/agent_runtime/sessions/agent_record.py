"""Record the agent of a session, and check who may continue it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent_runtime.errors import InputInvalid
from agent_runtime.sessions.session import Session


def agent_record(name: str, ref: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a session record's part about its agent: its name and how to build it."""
    return {"name": name, **(ref or {})}


def check_agent(session: Session, record: Mapping[str, Any]) -> None:
    """Raise InputInvalid when another agent would continue the session.

    An agent requested a decision: another one may have other tools, without approvals. The same
    agent has the same name, inputs and overrides; an edited template is a new version of the same
    agent. A confined template is the same agent only in its folder: its author chose its name.
    """
    recorded = session.agent
    if not recorded:
        return
    by_name = "name" in recorded  # earlier versions wrote the template's address alone
    parts = ["name" if by_name else "template", "inputs", "overrides"]
    if "folder" in recorded or "folder" in record:
        parts.append("folder")
    if not all(
        _canonical_json(recorded.get(part)) == _canonical_json(record.get(part)) for part in parts
    ):
        recorded_name, current_name = (
            agent.get("name") or agent.get("template") or "without a name"
            for agent in (recorded, record)
        )
        raise InputInvalid(
            f"the session waits for its agent '{recorded_name}' with its own inputs and "
            "overrides, and "
            f"this is '{current_name}': continue "
            "with `SessionManager.resume_session`, or give the session a new message",
            "session_id",
        )


def _canonical_json(value: Any) -> str:
    return json.dumps(value or None, sort_keys=True, default=str)
