"""Events on the wire: CloudEvents 1.0 in its JSON form, without secrets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from agent_runtime.errors import InputInvalid
from agent_runtime.event_bus.event import Event
from agent_runtime.event_bus.event_seal import EventSeal
from agent_runtime.event_bus.event_types import CUSTOM_PREFIX, dataschema_of
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.size_limits import size_limit
from agent_runtime.strict_json import DuplicateName, loads_unique

MAX_EVENT_BYTES = size_limit("event_bytes")
"""A larger one is refused: brokers take a few megabytes at most, and it is no event but a file."""

LAST_TIME_S = 253_402_300_800  # the year 10000

_OLDER_DATA_NAMES = {
    "batch.execution": {"why": "reason", "state": "status"},
    "mcp.server": {"state": "status"},
    "pool.context": {"why": "reason"},
    "provider.limit": {"why": "reason"},
    "session.deleted": {"why": "reason"},
}
"""By event type, the older names in its data and the present ones."""
EXTENSIONS = {
    "runid": "run_id",
    "sessionid": "session_id",
    "userid": "user_id",
    "tenant": "tenant",
    "agent": "agent",
    "causationid": "cause",
}
"""Attributes beside the standard's, by their names on the wire."""


def to_cloud_event(event: Event) -> dict[str, Any]:
    """Return `event` as a CloudEvent: plain JSON data, with secrets masked."""
    masked: dict[str, Any] = SECRETS.redact_json(_to_unmasked_cloud_event(event))
    return masked


def _collect_texts(value: Any, texts: list[str]) -> list[str]:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict):
        for key, nested_value in value.items():
            texts.append(key)
            _collect_texts(nested_value, texts)
    elif isinstance(value, list):
        for nested_value in value:
            _collect_texts(nested_value, texts)
    return texts


def _dump_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _to_unmasked_cloud_event(event: Event) -> dict[str, Any]:
    cloud_event: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source or "agent-runtime",
        "type": event.type,
        "time": datetime.fromtimestamp(event.occurred_at, UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
    }
    if not event.type.startswith(CUSTOM_PREFIX):
        cloud_event["dataschema"] = dataschema_of(event.type)
    if stream := event.stream:
        cloud_event["subject"] = cloud_event["partitionkey"] = stream
    if event.seq:
        cloud_event["sequence"] = str(event.seq)
    if event.depth:
        cloud_event["causationdepth"] = event.depth
    for name, field in EXTENSIONS.items():
        if value := getattr(event, field):
            cloud_event[name] = value
    cloud_event["data"] = to_jsonable(event.data)
    return cloud_event


def encode_event(event: Event, seal: EventSeal | None = None) -> bytes:
    """Return the CloudEvent as JSON bytes, sealed if there is a seal.

    Raises InputInvalid for one above `MAX_EVENT_BYTES`.
    """
    try:
        cloud_event = _to_unmasked_cloud_event(event)
        # One text for one search, unencoded: JSON's escapes would hide secrets.
        if SECRETS.may_contain_secret("\n".join(_collect_texts(cloud_event, []))):
            cloud_event = SECRETS.redact_json(cloud_event)
        if seal is not None:
            # Over the data that a reader gets: a lone surrogate, which has no UTF-8, becomes a
            # question mark.
            cloud_event = json.loads(_dump_json(cloud_event).encode("utf-8", "replace"))
            seal.sign(cloud_event)
        text = _dump_json(cloud_event)
    except (TypeError, ValueError, OverflowError, RecursionError, OSError, AttributeError) as error:
        raise InputInvalid(
            f"an event that cannot be written as JSON: {type(error).__name__}", "data"
        ) from error
    # A lone surrogate, which a provider's broken stream may hold, has no UTF-8.
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_EVENT_BYTES:
        raise InputInvalid(
            f"an event of {len(data)} bytes; at most {MAX_EVENT_BYTES} can be sent", "data"
        )
    return data


def from_cloud_event(raw_event: Any, seal: EventSeal | None = None) -> Event:
    """Return the event of a CloudEvent (bytes, text or a mapping).

    Raises InputInvalid with the problem.
    """
    content = _parse_json(raw_event)
    if seal is not None:
        seal.check(content)
    for name in ("id", "source", "type"):
        if (
            not isinstance(content.get(name), str)
            or not content[name]
            or not _is_encodable(content[name])
        ):
            raise InputInvalid("a CloudEvent has this attribute, a non-empty text", name)
    if content.get("specversion") != "1.0":
        raise InputInvalid(
            f"only CloudEvents 1.0 are read, not {str(content.get('specversion'))[:20]!r}",
            "specversion",
        )
    fields: dict[str, Any] = {}
    for name, field in EXTENSIONS.items():
        value = content.get(name)
        if value is not None and not (isinstance(value, str) and _is_encodable(value)):
            raise InputInvalid("is a text", name)
        if value is not None:
            fields[field] = value
    return Event(
        content["type"],
        _with_present_names(content["type"], content.get("data")),
        occurred_at=_parse_time(content.get("time")),
        source=content["source"],
        seq=_parse_count(content, "sequence"),
        depth=_parse_count(content, "causationdepth"),
        own_id=content["id"],
        **fields,
    )


def _with_present_names(event_type: str, data: Any) -> Any:
    """Return the data of an event under its present names; older logs hold older ones."""
    present_names = _OLDER_DATA_NAMES.get(event_type)
    if present_names is None or not isinstance(data, Mapping) or not present_names.keys() & data:
        return data
    return {present_names.get(name, name): value for name, value in data.items()}


def with_older_names(event_type: str, data: Any) -> Any:
    """Return the data of an event under its present and its older names.

    For expressions of users, which were written for either.
    """
    present_names = _OLDER_DATA_NAMES.get(event_type)
    if present_names is None or not isinstance(data, Mapping):
        return data
    older = {old: data[name] for old, name in present_names.items() if name in data}
    return {**older, **data}


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half a character: nothing that stores it would take it
        return False
    return True


def read_event(content: Any, position: str, seal: EventSeal | None = None) -> Event:
    """Return the event at a position of a log.

    An invalid one, or one without a seal where the log has a key, becomes a `bus.unreadable`, so
    that readers can continue.
    """
    try:
        return from_cloud_event(content, seal)
    except InputInvalid as error:
        data = {"position": position, "reason": str(error)}
        return Event("bus.unreadable", data, source="log", own_id=f"unreadable:{position}")


def _parse_json(raw_event: Any) -> Mapping[str, Any]:
    if isinstance(raw_event, bytes | bytearray | str):
        try:
            raw_event = loads_unique(raw_event)
        except DuplicateName as error:
            raise InputInvalid(f"not a CloudEvent: {error}") from None
        except (ValueError, RecursionError):
            raise InputInvalid("not a CloudEvent: no JSON") from None
    if not isinstance(raw_event, Mapping):
        raise InputInvalid("not a CloudEvent: no JSON object")
    return raw_event


def _parse_time(text: Any) -> float:
    if text is None:
        return datetime.now(UTC).timestamp()
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and 0 <= moment.timestamp() < LAST_TIME_S:
            return moment.timestamp()
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputInvalid("is an RFC 3339 time with its zone, from 1970 on", "time")


def _parse_count(content: Mapping[str, Any], name: str) -> int:
    value = content.get(name, 0)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | str)
        or not str(value).isdecimal()
        or len(str(value)) > 18
    ):
        raise InputInvalid("is a whole number, not negative", name)
    return int(value)


def to_jsonable(value: Any) -> Any:
    """Return `value` as JSON data: messages and models by their fields, unknown types as text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, type):
        return value.__qualname__
    if hasattr(value, "to_event_data"):
        return to_jsonable(value.to_event_data())
    if isinstance(value, Mapping):
        return {str(k): to_jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_jsonable(element) for element in value]
    if hasattr(value, "model_dump"):
        return to_jsonable(value.model_dump())
    if dataclasses.is_dataclass(value):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return str(value)
