"""SequenceGaps: which numbers are missing in the streams of a log that is read in order."""

from __future__ import annotations

from agent_runtime.event_bus.event import Event

MAX_STREAMS = 10_000
MAX_JUMP = 1_000_000
"""Numbers that one event may be ahead; a second event as far ahead is believed."""
MAX_MISSING = 100
"""Missing numbers of one stream that are remembered, to know them when they come late."""


class _StreamState:
    __slots__ = ("has_jumped", "last", "missing", "reading")

    def __init__(self, epoch: int, last: int) -> None:
        self.reading = epoch
        self.last = last
        self.missing: set[int] = set()
        self.has_jumped = False


class SequenceGaps:
    """Compare each event's `seq` with its predecessor in the stream.

    Streams are compared within one `reading` only: in between, another consumer may have read them.
    The 10,000 most recent streams are tracked.
    """

    def __init__(self) -> None:
        self.missing = 0
        """Events that never came, so far; one that comes late is taken off again."""
        self._streams: dict[tuple[str, str], _StreamState] = {}

    def reset(self) -> None:
        """Forget all positions: the next events do not follow the last ones directly."""
        self._streams.clear()

    def find_gap(self, event: Event, epoch: int) -> range:
        """Return the numbers that are missing directly before `event`, usually none."""
        if not event.seq:
            return range(0)
        stream_key = (event.source, event.stream)
        stream = self._streams.pop(stream_key, None)
        if stream is None or stream.reading != epoch:
            stream = _StreamState(epoch, event.seq)
        self._streams[stream_key] = (
            stream  # the last one: the first is the one that was not used for longest
        )
        if len(self._streams) > MAX_STREAMS:
            del self._streams[next(iter(self._streams))]
        return self._advance(stream, event.seq)

    def _advance(self, stream: _StreamState, seq: int) -> range:
        if seq <= stream.last:
            if seq in stream.missing:
                stream.missing.discard(seq)
                self.missing -= 1
            return range(0)
        gap = range(stream.last + 1, seq)
        if (
            len(gap) > MAX_JUMP and not stream.has_jumped
        ):  # one forged number must not hide every later gap
            stream.has_jumped = True
            return gap
        stream.has_jumped = False
        stream.last = seq
        self.missing += len(gap)
        stream.missing.update(gap[: MAX_MISSING - len(stream.missing)])
        return gap
