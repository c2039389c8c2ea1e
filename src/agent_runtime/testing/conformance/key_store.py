"""Check that a store of API keys conforms, in any test suite.

    @pytest.mark.parametrize("check", KEY_STORE_CHECKS)
    async def test_my_key_store(check):
        await run_key_store_check(check, lambda: MyKeyStore(fresh_name))

`open_store` opens an empty store, once. A check raises AssertionError.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from agent_runtime.auth.api_keys import ApiKey, ApiKeys, KeyStore
from agent_runtime.errors import Unauthenticated
from agent_runtime.testing.conformance.checks import assert_raises, run_store_check

KeyStoreCheck = Callable[[KeyStore], Awaitable[None]]
_PEPPER = b"a-pepper-for-conformance-checks-only"


def api_key(key_id: str = "k1", user: str = "ada") -> ApiKey:
    """Return the record of a key."""
    return ApiKey(key_id, f"digest of {key_id}", user, "acme", ("run:*",), "é", 1.5, 0.5, 2e9)


async def a_key_is_stored_whole(store: KeyStore) -> None:
    """Check that each field comes back, and that another key of the id replaces it."""
    assert await store.get_key("k1") is None
    await store.put_key(api_key())
    await store.put_key(api_key("k2", "bob"))
    assert await store.get_key("k1") == api_key()
    assert sorted(key.id for key in await store.list_keys()) == ["k1", "k2"]
    await store.put_key(api_key(user="eve"))
    assert await store.get_key("k1") == api_key(user="eve")
    assert len(await store.list_keys()) == 2


async def a_key_is_replaced_unless_it_has_changed(store: KeyStore) -> None:
    """Check the comparison, which keeps a rotation from undoing a revocation."""
    old = api_key()
    assert not await store.replace_key(old, replace(old, user="x"))
    assert await store.get_key("k1") is None
    await store.put_key(old)
    revoked = replace(old, revoked_at=5.0)
    assert await store.replace_key(old, revoked)
    assert not await store.replace_key(old, replace(old, replaced_by="k2"))
    assert await store.get_key("k1") == revoked


async def one_of_many_replacements_wins(store: KeyStore) -> None:
    """Check that of replacements at once exactly one is stored."""
    old = api_key()
    await store.put_key(old)
    names = [f"u{n}" for n in range(20)]
    won = await asyncio.gather(*(store.replace_key(old, replace(old, user=u)) for u in names))
    assert sum(won) == 1
    stored = await store.get_key("k1")
    assert stored is not None
    assert stored.user == names[won.index(True)]


async def a_revoked_token_stays_revoked_until_it_expires(store: KeyStore) -> None:
    """Check revocations, which may be repeated, and that others are not affected."""
    expires_at = time.time() + 600
    assert not await store.is_token_revoked("t1")
    for _ in range(2):
        await store.revoke_token("t1", expires_at)
    await store.revoke_token("t2", time.time() + 1)
    assert await store.is_token_revoked("t1")
    assert await store.is_token_revoked("t2")
    assert not await store.is_token_revoked("t3")


async def api_keys_work_on_it(store: KeyStore) -> None:
    """Check issuing, authentication, rotation and revocation by `ApiKeys`."""
    keys = ApiKeys(store, _PEPPER)
    key, record = await asyncio.to_thread(keys.create, "ada", tenant="acme")
    assert (await keys.authenticate(key)).id == "ada"
    new_key, new_record = await asyncio.to_thread(keys.rotate, record.id)
    assert (await ApiKeys(store, _PEPPER).authenticate(new_key)).tenant == "acme"
    await asyncio.to_thread(keys.revoke, new_record.id)
    await assert_raises(Unauthenticated, ApiKeys(store, _PEPPER).authenticate(new_key))


KEY_STORE_CHECKS: tuple[KeyStoreCheck, ...] = (
    a_key_is_stored_whole,
    a_key_is_replaced_unless_it_has_changed,
    one_of_many_replacements_wins,
    a_revoked_token_stays_revoked_until_it_expires,
    api_keys_work_on_it,
)
"""All checks."""


async def run_key_store_check(check: KeyStoreCheck, open_store: Callable[[], KeyStore]) -> None:
    """Run one check on a new store."""
    await run_store_check(check, open_store)
