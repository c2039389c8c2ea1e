"""The cache of a process's latest checkpoints."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.checkpoints.cache import MAX_CHECKPOINTS, CachedCheckpoint, CheckpointCache

THREADS = st.sampled_from(["a", "b", "c"])
NAMESPACES = st.sampled_from(["", "x", "y"])
STEPS = st.one_of(
    st.tuples(st.just("put"), THREADS, NAMESPACES),
    st.tuples(st.just("forget"), THREADS, st.just("")),
)


@given(st.lists(STEPS, max_size=60))
def test_a_thread_that_is_forgotten_is_forgotten_in_all_its_namespaces(
    steps: list[tuple[str, str, str]],
) -> None:
    cache = CheckpointCache()
    expected: dict[tuple[str, str], CachedCheckpoint] = {}
    for number, (action, thread, namespace) in enumerate(steps):
        if action == "put":
            checkpoint = CachedCheckpoint(str(number), {})
            cache.put(thread, namespace, checkpoint)
            expected[thread, namespace] = checkpoint
        else:
            cache.forget(thread)
            expected = {key: checkpoint for key, checkpoint in expected.items() if key[0] != thread}
    for thread in "abc":
        for namespace in ("", "x", "y"):
            assert cache.get(thread, namespace) == expected.get((thread, namespace))


def test_the_oldest_goes_when_there_are_too_many_and_its_thread_with_its_last() -> None:
    cache = CheckpointCache()
    cache.put("first", "", CachedCheckpoint(str(0), {}))
    cache.put("first", "inner", CachedCheckpoint(str(1), {}))
    for number in range(MAX_CHECKPOINTS - 1):
        cache.put(f"thread {number}", "", CachedCheckpoint(str(number), {}))
    assert cache.get("first", "") is None
    assert cache.get("first", "inner") == CachedCheckpoint("1", {})
    cache.put("one more", "", CachedCheckpoint(str(2), {}))
    assert cache.get("first", "inner") is None
    cache.forget("first")
    assert len(cache._checkpoints) == len(cache._namespaces) == MAX_CHECKPOINTS
