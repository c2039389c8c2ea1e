"""Fake answers of providers for their accounts."""

from __future__ import annotations

from typing import Any

from agent_runtime.providers.limiter import ProviderAccount, ProviderLimiter


class Answered(Exception):
    """A provider's error as SDKs have them."""

    def __init__(
        self, status: int, body: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        self.status_code = status
        self.body = body
        self.response = type("Response", (), {"status_code": status, "headers": headers or {}})()
        super().__init__(str(status))


def account(maximum: int | None = None, codes: Any = ()) -> ProviderAccount:
    made = ProviderLimiter().account("p")
    made.allow(maximum, codes)
    return made
