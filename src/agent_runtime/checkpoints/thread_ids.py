"""Validate the names of sessions and threads, and convert between them."""

from __future__ import annotations

import base64
import json
import re
import uuid
from typing import Any

from langchain_core.runnables import RunnableConfig

from agent_runtime.checkpoints.backends.backend import SEPARATOR
from agent_runtime.checkpoints.backends.session_table import SessionRow
from agent_runtime.errors import InputInvalid, SessionIdInvalid

MAX_THREAD_ID = 512
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_NIL_UUID = uuid.UUID(int=0)


def checked_name(value: Any, parameter_name: str = "session_id") -> str:
    """Return `value` if it is a valid name of a session or tenant; raises SessionIdInvalid.

    ASCII only, so that no two names look alike.
    """
    if (
        not isinstance(value, str)
        or not _NAME.fullmatch(value)
        or value in (str(_NIL_UUID), _NIL_UUID.hex)
    ):
        description = (
            repr(value)
            if len(repr(value)) <= 80
            else f"{type(value).__name__} of {len(repr(value))} characters"
        )
        raise SessionIdInvalid(
            f"not a usable name: {description}; 1 to 128 letters, digits, '_' and '-'",
            parameter_name,
        )
    return value


def thread_of(tenant: str, session_id: str) -> str:
    """Return the LangGraph thread of a session, with its tenant, so that tenants never collide."""
    return f"{checked_name(tenant, 'tenant')}:{checked_name(session_id)}"


def parse_config(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Return thread, namespace and checkpoint id of a config; raises InputInvalid."""
    configurable = config.get("configurable", {})
    if "thread_id" not in configurable:
        raise InputInvalid("a checkpointer needs a thread_id", "configurable.thread_id")
    thread = configurable["thread_id"]
    namespace = str(configurable.get("checkpoint_ns") or "")
    thread = (
        str(thread)
        if isinstance(thread, (int, uuid.UUID)) and not isinstance(thread, bool)
        else thread
    )
    if (
        not isinstance(thread, str)
        or not 0 < len(thread) <= MAX_THREAD_ID
        or not thread.isprintable()
    ):
        raise InputInvalid(
            f"a thread id is 1 to {MAX_THREAD_ID} printable characters", "configurable.thread_id"
        )
    checkpoint_id = configurable.get("checkpoint_id")
    if SEPARATOR in namespace:
        raise InputInvalid("a namespace has no control characters", "configurable.checkpoint_ns")
    return thread, namespace, None if checkpoint_id is None else str(checkpoint_id)


def config_of(thread: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    """Return the config that names a checkpoint."""
    return {
        "configurable": {
            "thread_id": thread,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
        }
    }


def encode_cursor(row: SessionRow) -> str:
    """Return the cursor of the page after this row."""
    return base64.urlsafe_b64encode(
        json.dumps([row.created_at, row.key.partition(":")[2]]).encode()
    ).decode()


def decode_cursor(cursor: str | None, tenant: str) -> tuple[float, str] | None:
    """Return the position of a cursor, always in the caller's own tenant; raises InputInvalid."""
    if cursor is None:
        return None
    try:
        created_at, session_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return float(created_at), thread_of(tenant, session_id)
    except (ValueError, TypeError, RecursionError, InputInvalid):
        raise InputInvalid("not a cursor of this listing", "cursor") from None
