"""Cache of this process's latest checkpoints: the next step reads nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from agent_runtime.checkpoints.chunk_refs import Refs
from agent_runtime.checkpoints.stored_list import StoredList

MAX_CHECKPOINTS = 256


@dataclass(slots=True)
class CachedCheckpoint:
    """Cache a checkpoint: its references, its stored lists, and the bytes of other values."""

    checkpoint_id: str
    versions: dict[str, Any]
    refs: Refs = field(default_factory=dict)
    lists: dict[str, StoredList] = field(default_factory=dict)
    payloads: dict[str, bytes] = field(default_factory=dict)
    digests: dict[tuple[str, int], bytes] = field(default_factory=dict)
    """Of its chunks, by channel and number, where they are sealed by a key."""


class CheckpointCache:
    """Holds the checkpoint last put for each thread and namespace, `MAX_CHECKPOINTS` at most."""

    __slots__ = ("_checkpoints", "_lock", "_namespaces")

    def __init__(self) -> None:
        self._checkpoints: OrderedDict[tuple[str, str], CachedCheckpoint] = OrderedDict()
        self._namespaces: dict[str, set[str]] = {}
        self._lock = threading.Lock()

    def get(self, thread: str, namespace: str) -> CachedCheckpoint | None:
        """Return the checkpoint, or None."""
        return self._checkpoints.get((thread, namespace))

    def put(self, thread: str, namespace: str, checkpoint: CachedCheckpoint) -> None:
        """Add or replace a checkpoint; beyond the maximum the one put longest ago is evicted."""
        key = (thread, namespace)
        with self._lock:
            self._checkpoints[key] = checkpoint
            self._checkpoints.move_to_end(key)
            self._namespaces.setdefault(thread, set()).add(namespace)
            if len(self._checkpoints) > MAX_CHECKPOINTS:
                oldest, _ = self._checkpoints.popitem(last=False)
                self._discard_namespace(*oldest)

    def forget(self, thread: str) -> None:
        """Remove a thread's checkpoints, in time linear in its namespaces."""
        with self._lock:
            for namespace in self._namespaces.pop(thread, ()):
                del self._checkpoints[thread, namespace]

    def _discard_namespace(self, thread: str, namespace: str) -> None:
        namespaces = self._namespaces[thread]
        namespaces.discard(namespace)
        if not namespaces:
            del self._namespaces[thread]
