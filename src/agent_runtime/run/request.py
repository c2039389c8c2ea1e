"""A model call that is about to be made: what it may cost at most, and how its output is capped."""

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

from agent_runtime.budgets.ledger.ledger import MICRO, Amount
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
CAPS = ("max_tokens", "max_output_tokens", "num_predict", "max_new_tokens")
"""What models call the limit of their output."""
FIELD_CAPS = frozenset({"num_predict"})
"""Limits that are read from the model, or from the call's `options`.

As an argument of the call they are an error.
"""

_ANSWERS = ("n", "candidate_count")
_CONDITIONS = ("service_tier", "speed")
"""What a request may say of its price."""
_STATED_IN = frozenset({*_CONDITIONS, "extra_body"})
ACCOUNT = "_agent_runtime_account"
"""Under this name a model made here carries the account that its calls count on."""
IDEMPOTENCY_HEADER = "_agent_runtime_idempotency_header"
"""Under this name, the header by which its provider tells a call that it has answered before."""

InputBound: TypeAlias = Callable[[list[BaseMessage], Mapping[str, Any]], int]


@dataclass(slots=True)
class ModelRequest:
    """A call of `model` at `provider`, LangChain's names; `kwargs` are what goes to the provider.

    `cap` is the name under which the output is limited, None when the model has no such setting;
    `max_output` what the model's owner asked for. `account` is whose places the call takes, None
    for a model of unknown origin. `key` names it for its provider, if that tells by names what it
    has answered before. `base_url` is the server's address where it is not the client's own,
    `conditions` what the request says of its price: the service tier, the speed. `field_limit` is a
    limit of the output that the model itself has to carry. `answers` is how many answers are asked
    for, each of which may be as long as the limit.
    """

    run: Run
    model: str
    provider: str
    messages: list[BaseMessage]
    kwargs: dict[str, Any]
    cap: str | None = None
    max_output: int | None = None
    account: ProviderAccount | None = None
    key: str | None = None
    base_url: str = ""
    conditions: Conditions = ()
    field_limit: int | None = None
    answers: int = 1

    @classmethod
    def of(
        cls, run: Run, model: BaseChatModel, messages: list[BaseMessage], kwargs: dict[str, Any]
    ) -> ModelRequest:
        """The request that a model's own method was called with."""
        params = model._get_ls_params(**kwargs)
        name = str(kwargs.get("model") or params.get("ls_model_name") or type(model).__name__)
        account = model.__dict__.get(ACCOUNT)
        request = cls(
            run,
            name,
            str(params.get("ls_provider") or "unknown"),
            messages,
            kwargs,
            account=account,
        )
        request.base_url = address_of(model) if account is None else account.base_url
        request.conditions = _conditions(model, kwargs)
        if (header := model.__dict__.get(IDEMPOTENCY_HEADER)) and run.context.idempotency_key:
            request.key = key_of(request, model, run.context.idempotency_key)
            kwargs["extra_headers"] = {**(kwargs.get("extra_headers") or {}), header: request.key}
        return request

    def find_cap(self, model: BaseChatModel) -> None:
        """Look up how the model's output is limited; only for calls with a budget."""
        self.cap = _cap_of(type(model))
        options = self.kwargs.get("options")
        asked = [self.kwargs.get(n) for n in (*CAPS, "max_completion_tokens")]
        if self.cap in FIELD_CAPS and isinstance(options, Mapping):
            asked.append(options.get(self.cap))
        own = getattr(model, self.cap, None) if self.cap else None
        given = [n for n in (*asked, own) if isinstance(n, int) and n > 0]
        self.max_output = given[0] if given else None
        for name in _ANSWERS:
            wanted = self.kwargs.get(name) or getattr(model, name, None)
            if isinstance(wanted, int) and wanted > 1:
                self.answers = wanted

    def limit_output(self, tokens: int) -> None:
        """Limit the output to `tokens`, in the place where the model's class reads it."""
        if self.cap is None:
            return
        for name in (*CAPS, "max_completion_tokens"):
            self.kwargs.pop(name, None)
        options = self.kwargs.get("options")
        if self.cap not in FIELD_CAPS:
            self.kwargs[self.cap] = tokens
        elif isinstance(options, Mapping):
            self.kwargs["options"] = {**options, self.cap: tokens}
        else:
            self.field_limit = tokens

    def limited(self, model: BaseChatModel) -> BaseChatModel:
        """Return the model to call.

        Itself, or a copy with the limit where only a field can hold it.
        """
        if self.field_limit is None or self.cap is None:
            return model
        return model.model_copy(update={self.cap: self.field_limit})


@lru_cache(maxsize=256)
def _condition_fields(kind: type[BaseChatModel]) -> tuple[str, ...]:
    return tuple(
        name for name in (*_CONDITIONS, "model_kwargs", "extra_body") if name in kind.model_fields
    )


def _conditions(model: BaseChatModel, kwargs: Mapping[str, Any]) -> Conditions:
    fields = _condition_fields(type(model))
    if not fields and kwargs.keys().isdisjoint(_STATED_IN):
        return ()
    own = [getattr(model, name) for name in ("model_kwargs", "extra_body") if name in fields]
    extras = [each for each in (kwargs.get("extra_body"), *own) if isinstance(each, Mapping)]
    stated: dict[str, str] = {}
    for name in _CONDITIONS:
        value = kwargs.get(name) or (getattr(model, name) if name in fields else None)
        if value is None:
            value = next((extra[name] for extra in extras if extra.get(name)), None)
        if isinstance(value, str) and value:
            stated[name] = value
    return tuple(sorted(stated.items()))


@lru_cache(maxsize=256)
def _cap_of(kind: type[BaseChatModel]) -> str | None:
    return next((name for name in CAPS if name in kind.model_fields), None)


class Quote(NamedTuple):
    """What a request costs at most: for its input with its fee, for each token of output.

    How much output is wanted.
    """

    input_tokens: int
    input_pico_usd: int
    output_pico_usd: int
    least_output: int
    most_output: int
    answers: int = 1

    def amount(self, output: int) -> Amount:
        """The worst case with so much output in each answer."""
        tokens = output * self.answers
        pico_usd = self.input_pico_usd + self.output_pico_usd * tokens
        return Amount(-(-pico_usd * MICRO // PICO), self.input_tokens + tokens)

    def range(self) -> tuple[Amount, Amount]:
        """What has to be granted at least, and what is wanted."""
        return self.amount(self.least_output), self.amount(self.most_output)

    def affordable_output(self, granted: Amount) -> int:
        """Return how many tokens of output in each answer the granted amount pays for."""
        output = granted.tokens - self.input_tokens
        if self.output_pico_usd:
            left = granted.micro_usd * (PICO // MICRO) - self.input_pico_usd
            output = min(output, left // self.output_pico_usd)
        return min(self.most_output, output // self.answers)


def quote(
    request: ModelRequest,
    highest: HighestRates | None,
    bound: InputBound,
    max_output: int,
    min_output: int,
) -> Quote:
    """The worst case of a request; `max_output` is for requests that do not say theirs."""
    most = max_output if request.max_output is None else request.max_output
    tokens = bound(request.messages, request.kwargs)
    input_rate, output_rate = (0, 0) if highest is None else highest.at(tokens)
    fee = 0 if highest is None else highest.request
    return Quote(
        tokens, input_rate * tokens + fee, output_rate, min(min_output, most), most, request.answers
    )


def input_bound(messages: list[BaseMessage], kwargs: Mapping[str, Any]) -> int:
    """At most how many tokens the input has.

    A third of its bytes, and a fixed number for each message and image.
    """
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
                size += _bytes_of(_without_media(block) if media else block)
        # Clients send more of a message than its content.
        if message.additional_kwargs:
            size += _bytes_of(message.additional_kwargs)
        fields = message.__dict__
        for name in _SENT:
            if value := fields.get(name):
                size += (
                    len(value.encode(errors="replace"))
                    if isinstance(value, str)
                    else _bytes_of(value)
                )
    for name in ("tools", "functions", "response_format"):
        if (given := kwargs.get(name)) is not None:
            size += _size_of(given)
    return (
        -(-size // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages) + TOKENS_PER_IMAGE * images
    )


_SENT = ("tool_calls", "invalid_tool_calls", "name", "tool_call_id", "artifact", "role")
"""Fields of messages, beside content and `additional_kwargs`, that clients send to their providers.
"""


def _bytes_of(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace"))


def _without_media(block: Any) -> Any:
    """Return a block of media without what holds its bytes or its address."""
    if isinstance(block, dict):
        return {
            name: _without_media(each) for name, each in block.items() if name not in _MEDIA_BYTES
        }
    return block


_MEDIA_BYTES = frozenset({"data", "base64", "url", "image_url", "bytes", "file_id", "id"})


def _size_of(given: Any) -> int:
    found = given if isinstance(given, list) else [given]
    plain = [each if isinstance(each, dict) else _as_tool(each) for each in found]
    return len(json.dumps(plain, ensure_ascii=False, default=str).encode(errors="replace"))


def _as_tool(given: Any) -> Any:
    try:
        return convert_to_openai_tool(given)
    except (TypeError, ValueError):
        return str(given)


def _stable(value: Any) -> str:
    """Return a text for a value that is no JSON, the same in every process."""
    named = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{named}" if named else f"{type(value).__qualname__}"


def key_of(request: ModelRequest, model: BaseChatModel, call_key: str) -> str:
    """Name a request for its provider and for the ledger.

    By who asks, who sells, and all that is asked.

    So the key that a caller chose buys nothing that another tenant, user, account, address or body
    has paid for. Requests of one call that say the same are counted.
    """
    messages = [
        (m.type, m.content, getattr(m, "tool_calls", None), getattr(m, "tool_call_id", None))
        for m in request.messages
    ]
    principal = request.run.context.principal
    buyer = ("", "") if principal is None else (principal.tenant, principal.id)
    account = request.account
    seller = (request.provider, request.base_url, "" if account is None else account.name)
    asked = {name: value for name, value in request.kwargs.items() if name != "extra_headers"}
    asked["the model's own"] = dict(model._identifying_params)
    text = json.dumps(
        [buyer, seller, request.model, messages, asked], sort_keys=True, default=_stable
    )
    digest = blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()
    times = request.run.context.progress.said
    times[digest] = times.get(digest, 0) + 1
    return blake2b(f"{call_key}:{digest}:{times[digest]}".encode(), digest_size=16).hexdigest()
