"""Under which provider and which names the price table may know a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_PROVIDERS = {
    "azure_openai": "azure",
    "azure_ai": "azure",
    "google_anthropic_vertex": "google",
    "bedrock": "aws",
}
"""LangChain's names of providers that the table would take for another one."""
_PATH_PREFIX = re.compile(r"^(?:models|publishers/[^/]+/models|projects/.+/models|endpoints)/")
_REGION_PREFIX = re.compile(r"^(?:us|eu|apac|jp|au|ca|global|us-gov)\.")
_OPEN_WEIGHTS = re.compile(r"^gpt-oss")
"""Models of a provider's table that anyone may host; on another host the table's price is wrong."""


def provider_of(snapshot: Any, provider: str, base_url: str) -> tuple[str | None, bool]:
    """Return the id of the provider that bills, and whether the address is unknown.

    A known provider's address decides: an OpenAI client may call any of them. A server at an
    unknown address is not identified by the name of its model.
    """
    if base_url:
        address = _lower_host(base_url)
        for table_provider in snapshot.providers:
            match = re.match(table_provider.api_pattern, address)
            if match and (
                match.end() == len(address)
                or address[match.end()] in ":/?"
                or address[match.end() - 1] == "/"
            ):
                return str(table_provider.id), False
    if provider != "unknown":
        return _PROVIDERS.get(provider, provider), bool(base_url)
    return ("a server of its own" if base_url else None), bool(base_url)


def _lower_host(address: str) -> str:
    scheme, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}{separator}{host.lower()}{slash}{path}"


def names_of(model: str, *, is_own_address: bool) -> Iterator[str]:
    """Yield the names to look up, the model's own first.

    Prefixes such as paths, regions and parts of an ARN are stripped for further names. At an
    unknown address only the name itself counts: the model behind a path there may be a copy.
    """
    if is_own_address:
        if not _OPEN_WEIGHTS.match(model):
            yield model
        return
    yield model
    name_without_path = _PATH_PREFIX.sub("", model)
    if name_without_path != model:
        yield name_without_path
    last_segment = model.rpartition("/")[2]
    if last_segment not in (model, name_without_path):
        yield last_segment
    name_without_region = _REGION_PREFIX.sub("", last_segment)
    if name_without_region != last_segment:
        yield name_without_region
