"""From a template's `spec.model` to a chat model."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import ConfigurationError, MissingExtra, UnknownComponent
from agent_runtime.run.gated_model import gated
from agent_runtime.secret_files import read_secret_file
from agent_runtime.secrets.redaction import SECRETS

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from agent_runtime.template.parts_spec import ModelSpec, SecretRef

ModelFactory = Callable[..., "BaseChatModel"]

AUTO_MODELS = (
    ("OPENAI_API_KEY", "langchain_openai", "openai:gpt-5-mini"),
    ("ANTHROPIC_API_KEY", "langchain_anthropic", "anthropic:claude-haiku-4-5"),
    ("GOOGLE_API_KEY", "langchain_google_genai", "google_genai:gemini-2.5-flash"),
    ("MISTRAL_API_KEY", "langchain_mistralai", "mistralai:mistral-small-latest"),
)
"""Candidates of `auto`, in order: environment variable, package, model; `offline:` without any."""

EXTRAS = frozenset({"openai", "anthropic"})
OPENAI_CLIENTS = frozenset({"openai", "azure_openai", "deepseek", "xai"})
"""Providers whose class is derived from langchain-openai's."""


def auto_model(environ: Mapping[str, str] | None = None) -> tuple[str, list[str]]:
    """Return the model id for `auto`, and a note for each key without its package."""
    environ = os.environ if environ is None else environ
    notes: list[str] = []
    for variable, package, model in AUTO_MODELS:
        if not environ.get(variable):
            continue
        if importlib.util.find_spec(package) is not None:
            return model, notes
        notes.append(
            f"{variable} is set, but {package.replace('_', '-')} is not installed: "
            f"{_install_command(model)}"
        )
    return "offline:", notes


def _install_command(model_id: str) -> str:
    provider = model_id.partition(":")[0]
    name = (
        f"langchain-agent-runtime[{provider}]"
        if provider in EXTRAS
        else f"langchain-{provider.replace('_', '-')}"
    )
    return f"pip install '{name}'"


def secret_value(ref: SecretRef) -> str:
    """Return the secret; raises ConfigurationError with the variable or file, never a value."""
    if ref.from_env is not None:
        value = os.environ.get(ref.from_env)
        if not value:
            raise ConfigurationError(
                f"environment variable {ref.from_env} is not set; the template takes a secret "
                "from it"
            )
        SECRETS.add(value)
        return value
    return read_secret_file(ref.from_file or "")


def secret_digest(ref: SecretRef | None) -> str:
    """Return a digest of a secret, for the cache key of agents that use it."""
    return "" if ref is None else hashlib.sha256(secret_value(ref).encode()).hexdigest()[:16]


def build_model(spec: ModelSpec, registered: Mapping[str, ModelFactory]) -> BaseChatModel:
    """Build the gated chat model of a template.

    SDK-side retries are off (`max_retries=0`): every billed attempt passes the gate. Raises
    UnknownComponent for an id that is neither registered nor `provider:name`, MissingExtra when the
    provider's package is missing, ConfigurationError when its constructor refuses the settings.
    """
    model_id = auto_model()[0] if spec.id == "auto" else spec.id
    params = {k: v for k, v in spec.params if v is not None and k != "extra"} | spec.params.extra
    if model_id in registered:
        return gated(registered[model_id](**params))
    provider, colon, name = model_id.partition(":")
    if provider == "offline" and colon:
        from agent_runtime.models.offline import OfflineChatModel

        return gated(OfflineChatModel())
    if not colon:
        raise UnknownComponent(
            "model", model_id, [*registered, "offline:", "auto", "provider:name"]
        )
    if spec.base_url is not None:
        params["base_url"] = spec.base_url
    if spec.api_key is not None:
        params["api_key"] = secret_value(spec.api_key)
    return gated(_provider_model(provider, name, params))


def _provider_model(provider: str, name: str, params: dict[str, Any]) -> BaseChatModel:
    from langchain.chat_models import init_chat_model

    if provider in OPENAI_CLIENTS:
        # Left alone they ask for no usage in a stream as soon as another base_url is set.
        params = {"stream_usage": True, **params}
    if provider == "openai":
        # Its headers report the account's remaining limits; the gate reads and removes them.
        params = {"include_response_headers": True, **params}
    try:
        model: BaseChatModel = init_chat_model(
            name, model_provider=provider, max_retries=0, **params
        )
    except ImportError as error:
        raise MissingExtra(
            f"model provider '{provider}'", _install_command(provider + ":")[13:-1]
        ) from error
    except Exception as error:  # noqa: BLE001 - whatever the provider raises
        # A provider's own message may quote the settings it refused: name the kind, not the text.
        kind = type(error).__name__
        raise ConfigurationError(
            f"model '{provider}:{name}' cannot be built ({kind}): check its key and params"
        ) from None
    _check_address(model, provider)
    _stop_client_retries(model)
    return model


def _check_address(model: BaseChatModel, provider: str) -> None:
    """Refuse a `base_url` that a class does not know.

    LangChain would send it to the provider, as a parameter.
    """
    if "base_url" in (getattr(model, "model_kwargs", None) or {}):
        raise ConfigurationError(
            f"the models of '{provider}' take no base_url: leave it out, or register a model "
            "that is made in Python"
        )


def _stop_client_retries(model: BaseChatModel) -> None:
    """Turn off the retries of a client that takes `max_retries=0` for its own default.

    langchain-openrouter 0.2 then leaves it to its SDK, which repeats a 5xx or a lost connection for
    an hour.
    """
    configuration = getattr(getattr(model, "client", None), "sdk_configuration", None)
    if configuration is not None:
        configuration.retry_config = None
