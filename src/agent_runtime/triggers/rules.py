"""Trigger rules in YAML: which event, schedule or webhook starts which agent."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agent_runtime.bounded_file import read_bounded
from agent_runtime.errors import ConfigurationError, MissingExtra, Problem, TemplateError
from agent_runtime.event_bus.event_types import CUSTOM_PREFIX, EVENT_TYPES
from agent_runtime.event_bus.group import Filter
from agent_runtime.limits.rate_limits import RateLimit
from agent_runtime.models.resolve import secret_value
from agent_runtime.secrets.strength import weakness_of
from agent_runtime.template.document import locate, to_python
from agent_runtime.template.parts_spec import SecretRef
from agent_runtime.template.runtime_spec import Count
from agent_runtime.template.yaml_reader import MAX_BYTES, read_yaml
from agent_runtime.triggers.expressions import compile_expression, find_expressions

_RATE = r"^\d+\s*(/|\s+per\s+)\s*([1-9]\d*\s*)?(second|minute|hour|day)s?$"
STANDARD_PREFIX = b"whsec_"
MIN_WEBHOOK_SECRET_BYTES = 24
"""The least that https://www.standardwebhooks.com allows."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class TriggerBudget(_Strict):
    """Limit a rule's spending in one period (UTC), for each tenant."""

    usd: Annotated[float | None, Field(gt=0, le=1_000_000_000)] = None
    tokens: Count | None = None
    per: Literal["hour", "day", "month", "total"] = "day"

    @model_validator(mode="after")
    def _check_has_limit(self) -> TriggerBudget:
        if self.usd is None and self.tokens is None:
            raise ValueError("give usd, tokens or both")
        return self


class WebhookSpec(_Strict):
    """Requests that start a rule: `POST /{path}`, signed by GitHub's or standardwebhooks."""

    path: Name
    secret: SecretRef
    signature: Literal["github", "standard"] = "standard"
    tenant: Name | None = None

    def key(self) -> bytes:
        """Return the key that signatures are checked with.

        A secret in the standard's own form (`whsec_` and base64) is decoded. Raises
        ConfigurationError, naming the variable or file, for one that is no base64, or that could be
        guessed.
        """
        secret = secret_value(self.secret).encode()
        source = self.secret.from_env or self.secret.from_file
        if self.signature == "standard" and secret.startswith(STANDARD_PREFIX):
            try:
                secret = base64.b64decode(secret.removeprefix(STANDARD_PREFIX), validate=True)
            except ValueError:
                raise ConfigurationError(
                    f"the webhook secret in {source} is not base64 after whsec_"
                ) from None
        if (reason := weakness_of(secret, MIN_WEBHOOK_SECRET_BYTES)) is not None:
            raise ConfigurationError(f"the webhook secret in {source} could be guessed: {reason}")
        return secret


class TriggerRule(_Strict):
    """Define one rule: one of `on`, `schedule` and `webhook`, and what to `start`."""

    name: Name
    on: str | list[str] | None = None
    schedule: str | None = None
    timezone: str = "UTC"
    webhook: WebhookSpec | None = None
    agent: str | None = None
    source: str | None = None
    tenant: str | None = None
    when: str | None = None
    start: Annotated[str, Field(min_length=1)]
    input: str = "{{ data }}"
    inputs: dict[str, Any] = {}
    session: str | None = None
    scopes: list[str] = []
    rate: str | None = None
    budget: TriggerBudget | None = None
    max_depth: Annotated[int, Field(ge=1, le=100)] = 3
    concurrency: Count = 8
    enabled: bool = True

    @property
    def types(self) -> tuple[str, ...]:
        """Return the patterns of types that may start it."""
        if self.on is None:
            return ("schedule.due",) if self.schedule else ("webhook.received",)
        return (self.on,) if isinstance(self.on, str) else tuple(self.on)

    @field_validator("when", "input", "session")
    @classmethod
    def _check_expressions(cls, text: str | None, info: Any) -> str | None:
        for expression in (
            () if text is None else [text] if info.field_name == "when" else find_expressions(text)
        ):
            try:
                compile_expression(expression)
            except MissingExtra:
                raise
            except ConfigurationError as error:
                raise ValueError(str(error)) from None
        return text

    @field_validator("rate")
    @classmethod
    def _check_rate(cls, rate: str | None) -> str | None:
        try:
            if rate is not None:
                RateLimit(rate)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return rate

    @field_validator("on")
    @classmethod
    def _check_patterns(cls, on: str | list[str] | None) -> str | list[str] | None:
        for pattern in [] if on is None else [on] if isinstance(on, str) else on:
            if not pattern.startswith(CUSTOM_PREFIX) and not any(
                Filter((pattern,)).matches_type(name) for name in EVENT_TYPES
            ):
                raise ValueError(
                    f"no event has a type like '{pattern}'; an application's own begins with "
                    f"'{CUSTOM_PREFIX}'"
                )
            if pattern.startswith("trigger."):
                raise ValueError("events of triggers start no rule")
        return on

    @model_validator(mode="after")
    def _check_single_trigger(self) -> TriggerRule:
        if [self.on, self.schedule, self.webhook].count(None) != 2:
            raise ValueError("give exactly one of on, schedule and webhook")
        if self.schedule is not None:
            _check_schedule(self.schedule, self.timezone)
        return self


def _check_schedule(schedule: str, timezone: str) -> None:
    try:
        from cronsim import CronSim, CronSimError
    except ImportError as error:
        raise MissingExtra("a schedule", "langchain-agent-runtime[triggers]") from error
    from datetime import UTC, datetime

    try:
        next(CronSim(schedule, datetime.now(UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(
            f"'{schedule}' is not a cron expression with a future time: {error}"
        ) from None
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"'{timezone}' is not a time zone: Europe/Berlin, UTC") from None


class _TriggerFile(_Strict):
    apiVersion: Literal["agent-runtime/v1"]  # noqa: N815 - the file's own word
    kind: Literal["Triggers"]
    triggers: Annotated[list[TriggerRule], Field(min_length=1)]


def load_triggers(path: str | Path) -> list[TriggerRule]:
    """Return the rules of a file.

    Raises TemplateError with every problem and its line, OSError, MissingExtra.
    """
    return parse_triggers(read_bounded(path, MAX_BYTES), str(path))


def parse_triggers(data: bytes | str, file: str = "<triggers>") -> list[TriggerRule]:
    """Return the rules of a text."""
    node = read_yaml(data.encode() if isinstance(data, str) else data, file)
    try:
        rules = _TriggerFile.model_validate(to_python(node)).triggers
    except ValidationError as error:
        raise TemplateError(
            [_problem(node, details) for details in error.errors(include_input=False)]
        ) from None
    names = [rule.name for rule in rules]
    hook_paths = [rule.webhook.path for rule in rules if rule.webhook is not None]
    for kind, declared_names in (("rule", names), ("webhook", hook_paths)):
        if duplicates := {name for name in declared_names if declared_names.count(name) > 1}:
            raise TemplateError(
                [
                    Problem(
                        f"two of the name '{sorted(duplicates)[0]}': a {kind}'s is its own",
                        "triggers",
                        file,
                    )
                ]
            )
    if (clash := session_clash(rules)) is not None:
        raise TemplateError([Problem(clash, "triggers", file)])
    return rules


def session_clash(rules: Sequence[TriggerRule]) -> str | None:
    """Return a clash of rules whose sessions could share an id.

    `a` with `b-x`, and `a-b` with `x`, for example.
    """
    names = sorted(rule.name for rule in rules if rule.session is not None)
    for name in names:
        if (
            longer_name := next(
                (other_name for other_name in names if other_name.startswith(f"{name}-")), None
            )
        ) is not None:
            return (
                f"sessions of the rules '{name}' and '{longer_name}' could have one id: rename one"
            )
    return None


def _problem(node: Any, details: Any) -> Problem:
    steps = tuple(s for s in details["loc"] if s not in ("str", "list[str]"))
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if details["type"] == "extra_forbidden":
        message = f"unknown key '{steps[-1]}'"
    elif details["type"] == "missing":
        message = f"key '{steps[-1]}' is required"
    return locate(node, steps).problem(message[:1].lower() + message[1:], ".".join(map(str, steps)))
