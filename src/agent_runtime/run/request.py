"""Bound the cost of a model call before it is sent, and limit its output."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from agent_runtime.budgets.ledger.ledger import MICROS_PER_USD, Amount
from agent_runtime.budgets.table_prices import PICO
from agent_runtime.providers.limiter import address_of

if TYPE_CHECKING:
    from agent_runtime.budgets.table_prices import Conditions, HighestRates
    from agent_runtime.providers.limiter import ProviderAccount
    from agent_runtime.run.state import Run

BYTES_PER_TOKEN = 3
"""Ordinary text has more bytes to a token with every tokenizer in use: English more than four."""
TOKENS_PER_MESSAGE = 16
TOKENS_PER_IMAGE = 2_000
"""More than any provider bills for one image at its usual size; other media are not bounded by it.
"""
OUTPUT_LIMIT_PARAMS = ("max_tokens", "max_output_tokens", "num_predict", "max_new_tokens")
"""Models' names for the limit of their output."""
FIELD_LIMIT_PARAMS = frozenset({"num_predict"})
"""Limits that are read from the model, or from the call's `options`.

As an argument of the call they are an error.
"""

_ANSWER_COUNT_PARAMS = ("n", "candidate_count")
_CONDITION_PARAMS = ("service_tier", "speed")
"""Conditions of the price in a request."""
_CONDITION_SOURCE_PARAMS = frozenset({*_CONDITION_PARAMS, "extra_body"})
ACCOUNT_ATTRIBUTE = "_agent_runtime_account"
"""Under this name a model made here carries the account that its calls count on."""
IDEMPOTENCY_HEADER_ATTRIBUTE = "_agent_runtime_idempotency_header"
"""The attribute with the header for idempotency keys of a model's provider."""

InputBound: TypeAlias = Callable[[list[BaseMessage], Mapping[str, Any]], int]


@dataclass(slots=True)
class ModelRequest:
    """Describe a call of `model` at `provider`, in LangChain's names; `kwargs` go to the provider.

    `output_limit_param` names the output limit, None when the model has none; `max_output` is the
    owner's limit. `account` limits the call's concurrency, None for a model of unknown origin.
    `key` is an idempotency key, for providers that support one. `base_url` is the server's address
    where it is not the client's default, `conditions` are the request's conditions of the price:
    the service tier, the speed. `field_limit` is an output limit that the model itself has to
    carry. `answer_count` is how many answers are requested, each of which may be as long as the
    limit.
    """

    run: Run
    model: str
    provider: str
    messages: list[BaseMessage]
    kwargs: dict[str, Any]
    output_limit_param: str | None = None
    max_output: int | None = None
    account: ProviderAccount | None = None
    key: str | None = None
    base_url: str = ""
    conditions: Conditions = ()
    field_limit: int | None = None
    answer_count: int = 1

    @classmethod
    def of(
        cls, run: Run, model: BaseChatModel, messages: list[BaseMessage], kwargs: dict[str, Any]
    ) -> ModelRequest:
        """Return the request of a model's method call."""
        params = model._get_ls_params(**kwargs)
        name = str(kwargs.get("model") or params.get("ls_model_name") or type(model).__name__)
        account = model.__dict__.get(ACCOUNT_ATTRIBUTE)
        request = cls(
            run,
            name,
            str(params.get("ls_provider") or "unknown"),
            messages,
            kwargs,
            account=account,
        )
        request.base_url = address_of(model) if account is None else account.base_url
        request.conditions = _request_conditions(model, kwargs)
        if (
            header := model.__dict__.get(IDEMPOTENCY_HEADER_ATTRIBUTE)
        ) and run.context.idempotency_key:
            request.key = compute_request_key(request, model, run.context.idempotency_key)
            kwargs["extra_headers"] = {**(kwargs.get("extra_headers") or {}), header: request.key}
        return request

    def find_output_limit(self, model: BaseChatModel) -> None:
        """Look up how the model's output is limited; only for calls with a budget."""
        self.output_limit_param = _output_limit_param(type(model))
        options = self.kwargs.get("options")
        call_limits = [self.kwargs.get(n) for n in (*OUTPUT_LIMIT_PARAMS, "max_completion_tokens")]
        if self.output_limit_param in FIELD_LIMIT_PARAMS and isinstance(options, Mapping):
            call_limits.append(options.get(self.output_limit_param))
        model_limit = (
            getattr(model, self.output_limit_param, None) if self.output_limit_param else None
        )
        valid_limits = [n for n in (*call_limits, model_limit) if isinstance(n, int) and n > 0]
        self.max_output = valid_limits[0] if valid_limits else None
        for name in _ANSWER_COUNT_PARAMS:
            answer_count = self.kwargs.get(name) or getattr(model, name, None)
            if isinstance(answer_count, int) and answer_count > 1:
                self.answer_count = answer_count

    def limit_output(self, tokens: int) -> None:
        """Limit the output to `tokens`, in the parameter that the model's class reads."""
        if self.output_limit_param is None:
            return
        for name in (*OUTPUT_LIMIT_PARAMS, "max_completion_tokens"):
            self.kwargs.pop(name, None)
        options = self.kwargs.get("options")
        if self.output_limit_param not in FIELD_LIMIT_PARAMS:
            self.kwargs[self.output_limit_param] = tokens
        elif isinstance(options, Mapping):
            self.kwargs["options"] = {**options, self.output_limit_param: tokens}
        else:
            self.field_limit = tokens

    def with_output_limit(self, model: BaseChatModel) -> BaseChatModel:
        """Return the model to call.

        Itself, or a copy with the limit where only a field can hold it.
        """
        if self.field_limit is None or self.output_limit_param is None:
            return model
        return model.model_copy(update={self.output_limit_param: self.field_limit})


@lru_cache(maxsize=256)
def _condition_fields(model_class: type[BaseChatModel]) -> tuple[str, ...]:
    return tuple(
        name
        for name in (*_CONDITION_PARAMS, "model_kwargs", "extra_body")
        if name in model_class.model_fields
    )


def _request_conditions(model: BaseChatModel, kwargs: Mapping[str, Any]) -> Conditions:
    fields = _condition_fields(type(model))
    if not fields and kwargs.keys().isdisjoint(_CONDITION_SOURCE_PARAMS):
        return ()
    model_extras = [
        getattr(model, name) for name in ("model_kwargs", "extra_body") if name in fields
    ]
    extras = [
        extra_fields
        for extra_fields in (kwargs.get("extra_body"), *model_extras)
        if isinstance(extra_fields, Mapping)
    ]
    conditions: dict[str, str] = {}
    for name in _CONDITION_PARAMS:
        value = kwargs.get(name) or (getattr(model, name) if name in fields else None)
        if value is None:
            value = next((extra[name] for extra in extras if extra.get(name)), None)
        if isinstance(value, str) and value:
            conditions[name] = value
    return tuple(sorted(conditions.items()))


@lru_cache(maxsize=256)
def _output_limit_param(model_class: type[BaseChatModel]) -> str | None:
    return next((name for name in OUTPUT_LIMIT_PARAMS if name in model_class.model_fields), None)


class CostBound(NamedTuple):
    """Bound a request's cost: for its input with its fee, and for each token of output."""

    input_tokens: int
    input_pico_usd: int
    output_pico_usd: int
    min_output_tokens: int
    max_output_tokens: int
    answer_count: int = 1

    def amount_for(self, output: int) -> Amount:
        """Return the worst case with so much output in each answer."""
        tokens = output * self.answer_count
        pico_usd = self.input_pico_usd + self.output_pico_usd * tokens
        return Amount(-(-pico_usd * MICROS_PER_USD // PICO), self.input_tokens + tokens)

    def reservation_range(self) -> tuple[Amount, Amount]:
        """Return the least amount to be granted, and the requested one."""
        return self.amount_for(self.min_output_tokens), self.amount_for(self.max_output_tokens)

    def affordable_output(self, granted: Amount) -> int:
        """Return how many tokens of output in each answer the granted amount pays for."""
        output = granted.tokens - self.input_tokens
        if self.output_pico_usd:
            remaining_pico_usd = granted.micro_usd * (PICO // MICROS_PER_USD) - self.input_pico_usd
            output = min(output, remaining_pico_usd // self.output_pico_usd)
        return min(self.max_output_tokens, output // self.answer_count)


def compute_cost_bound(
    request: ModelRequest,
    highest_rates: HighestRates | None,
    token_bound: InputBound,
    max_output: int,
    min_output: int,
) -> CostBound:
    """Return the worst case of a request; `max_output` is for requests without a limit."""
    max_output_tokens = max_output if request.max_output is None else request.max_output
    input_tokens = token_bound(request.messages, request.kwargs)
    input_rate, output_rate = (
        (0, 0) if highest_rates is None else highest_rates.rates_for(input_tokens)
    )
    fee = 0 if highest_rates is None else highest_rates.request
    return CostBound(
        input_tokens,
        input_rate * input_tokens + fee,
        output_rate,
        min(min_output, max_output_tokens),
        max_output_tokens,
        request.answer_count,
    )


def max_input_tokens(messages: list[BaseMessage], kwargs: Mapping[str, Any]) -> int:
    """Bound the tokens of the input by a third of its bytes, and a constant per image."""
    size = 0
    images = 0
    for message in messages:
        content = message.content
        if isinstance(content, str):
            size += len(content.encode(errors="replace"))
        else:
            for block in content:
                media = isinstance(block, dict) and block.get("type") in (
                    "image",
                    "image_url",
                    "input_image",
                )
                images += media
                size += _json_size(_without_media(block) if media else block)
        # Clients send more of a message than its content.
        if message.additional_kwargs:
            size += _json_size(message.additional_kwargs)
        fields = message.__dict__
        for name in _SENT_FIELDS:
            if value := fields.get(name):
                size += (
                    len(value.encode(errors="replace"))
                    if isinstance(value, str)
                    else _json_size(value)
                )
    for name in ("tools", "functions", "response_format"):
        if (definitions := kwargs.get(name)) is not None:
            size += _definitions_size(definitions)
    return (
        -(-size // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages) + TOKENS_PER_IMAGE * images
    )


_SENT_FIELDS = ("tool_calls", "invalid_tool_calls", "name", "tool_call_id", "artifact", "role")
"""Fields of messages, beside content and `additional_kwargs`, that clients send to their providers.
"""


def _json_size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace"))


def _without_media(block: Any) -> Any:
    """Return a block of media without its bytes or address."""
    if isinstance(block, dict):
        return {
            name: _without_media(field_value)
            for name, field_value in block.items()
            if name not in _MEDIA_DATA_KEYS
        }
    return block


_MEDIA_DATA_KEYS = frozenset({"data", "base64", "url", "image_url", "bytes", "file_id", "id"})


def _definitions_size(definitions: Any) -> int:
    definition_list = definitions if isinstance(definitions, list) else [definitions]
    schemas = [
        definition if isinstance(definition, dict) else _tool_schema(definition)
        for definition in definition_list
    ]
    return len(json.dumps(schemas, ensure_ascii=False, default=str).encode(errors="replace"))


def _tool_schema(definition: Any) -> Any:
    try:
        return convert_to_openai_tool(definition)
    except (TypeError, ValueError):
        return str(definition)


def _stable_name(value: Any) -> str:
    """Return a text for a value that is no JSON, the same in every process."""
    qualified_name = getattr(value, "__qualname__", None)
    return (
        f"{value.__module__}.{qualified_name}" if qualified_name else f"{type(value).__qualname__}"
    )


def compute_request_key(request: ModelRequest, model: BaseChatModel, call_key: str) -> str:
    """Return a request's idempotency key from its caller, provider, account and whole contents.

    So the key that a caller chose never matches a request of another tenant, user, account, address
    or body. Equal requests of one call are counted.
    """
    messages = [
        (m.type, m.content, getattr(m, "tool_calls", None), getattr(m, "tool_call_id", None))
        for m in request.messages
    ]
    principal = request.run.context.principal
    buyer = ("", "") if principal is None else (principal.tenant, principal.id)
    account = request.account
    seller = (request.provider, request.base_url, "" if account is None else account.name)
    request_body = {
        name: value for name, value in request.kwargs.items() if name != "extra_headers"
    }
    request_body["the model's own"] = dict(model._identifying_params)
    text = json.dumps(
        [buyer, seller, request.model, messages, request_body], sort_keys=True, default=_stable_name
    )
    digest = blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()
    request_counts = request.run.context.progress.request_counts
    request_counts[digest] = request_counts.get(digest, 0) + 1
    return blake2b(
        f"{call_key}:{digest}:{request_counts[digest]}".encode(), digest_size=16
    ).hexdigest()
