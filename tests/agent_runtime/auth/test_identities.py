"""Names that look alike are not two users, and the runtime's own names are given to nobody."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.tokens import made, token

from agent_runtime import (
    AgentContext,
    AgentFactory,
    InputInvalid,
    Principal,
    SessionManager,
    Unauthenticated,
)
from agent_runtime.auth import open_keys
from agent_runtime.auth.identities import fault_of_name, is_reserved
from agent_runtime.errors import ConfigurationError

PEPPER = b"a-dummy-pepper-of-32-bytes-......"
GOOD = [
    "佐々木",
    "ルーシー",
    "ユーザー1",
    "иван@example.com",
    "محمد@acme.com",
    "Ελένη@uni.gr",
    "Ana Mª López",
    "µ-team",
    "ada",
    "ada@x.org",
    "Ünal",
    "Ада",
    "田中さん",
    "김철수",
    "O'Neil-2",
    "a b",
    "αβγ 12",
]
LOOK_ALIKES = [
    "\u0430dmin",  # a Cyrillic a
    "ada ", " ada", "ada\u00a0", "ada\u200b", "a\u202eda", "ada\n", "ada\x00",
    "e\u0301mile",  # not in normal form C
    "p\u03b1ul",  # a Greek alpha
    "", "   ", "x" * 257,
]  # fmt: skip
RESERVED = ["trigger:nightly", "trigger:", "operator", "runtime:x"]


@pytest.mark.parametrize("name", GOOD)
def test_names_of_people_are_names(name: str) -> None:
    assert fault_of_name(name) is None
    assert (fault_of_name(name, ascii_only=True) is None) == name.isascii()


@pytest.mark.parametrize("name", [*LOOK_ALIKES, *RESERVED])
@pytest.mark.parametrize("claim", ["sub", "tenant"])
async def test_no_token_gives_out_a_name_that_looks_like_another(name: str, claim: str) -> None:
    if claim == "tenant" and name in RESERVED:
        return
    with pytest.raises(Unauthenticated):
        claims: dict[str, Any] = {claim: name}
        await made().authenticate(token(None, **claims))


async def test_a_setting_takes_ascii_only() -> None:
    assert (await made().authenticate(token(sub="Ада"))).id == "Ада"
    with pytest.raises(Unauthenticated):
        await made(ascii_names=True).authenticate(token(sub="Ада"))


@pytest.mark.parametrize("name", [*LOOK_ALIKES, *RESERVED])
async def test_no_key_is_made_for_such_a_name(name: str) -> None:
    keys = open_keys("memory:", PEPPER)
    with pytest.raises(ConfigurationError):
        keys.create(name)
    if not is_reserved(name):
        with pytest.raises(ConfigurationError):
            keys.create("ada", tenant=name)


@pytest.mark.parametrize("name", [*LOOK_ALIKES, *RESERVED])
async def test_no_authenticator_of_one_s_own_gives_one_out(name: str) -> None:
    class Own:
        async def authenticate(self, credentials: Any) -> Principal:
            return Principal(name, "a", frozenset({"*"}))

    async with AgentFactory(authenticators=[Own()]) as factory:
        agent = factory.create_from_template("writer")
        with pytest.raises(Unauthenticated):
            await agent.execute(AgentContext("x", credentials="any"))


async def test_nobody_takes_the_session_of_a_rule() -> None:
    manager = SessionManager()
    with pytest.raises(InputInvalid, match="trigger rules"):
        await manager.create_session(session_id="trigger-issues-42", principal=Principal("ada"))
    await manager.create_session(
        session_id="trigger-issues-42", principal=Principal("trigger:issues")
    )
