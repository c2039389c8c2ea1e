"""Dead letters as one principal sees them.

Their own, or, with the scope `sessions:all`, their tenant's.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent_runtime.errors import ConfigurationError
from agent_runtime.event_bus.dead_letter import DeadLetter, DeadLetters
from agent_runtime.event_bus.event import DEFAULT_TENANT
from agent_runtime.types import Principal, may_use

PAGE = 1000


class OwnedDeadLetters:
    """Shows and removes the principal's letters; any other letter is one that is not there."""

    def __init__(self, letters: DeadLetters, principal: Principal) -> None:
        self._letters = letters
        self._principal = principal

    async def add(self, letter: DeadLetter) -> None:
        """Raise ConfigurationError.

        The runtime puts letters aside, and one more may push out another's.
        """
        raise ConfigurationError(
            f"'{letter.queue}': a principal looks at dead letters, and adds none"
        )

    async def list(self, queue: str | None = None, *, limit: int = 100) -> Sequence[DeadLetter]:
        """Return the oldest letters first, of one queue or of all."""
        fetch_limit = max(limit, PAGE)
        while True:
            all_letters = await self._letters.list(queue, limit=fetch_limit)
            owned_letters = [letter for letter in all_letters if self._may_use(letter)]
            if len(owned_letters) >= limit or len(all_letters) < fetch_limit:
                return owned_letters[:limit]
            fetch_limit *= 4

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return the letter, or None."""
        letter = await self._letters.get(letter_id)
        return letter if letter is not None and self._may_use(letter) else None

    async def remove(self, letter_id: str) -> bool:
        """Throw a letter away; False when it is not there."""
        return await self.get(letter_id) is not None and await self._letters.remove(letter_id)

    async def count(self, queue: str | None = None) -> int:
        """Return how many letters of the principal a queue has, or all queues."""
        return len(await self.list(queue, limit=max(1, await self._letters.count(queue))))

    async def aclose(self) -> None:
        """Close the store."""
        await self._letters.aclose()

    def _may_use(self, letter: DeadLetter) -> bool:
        return (letter.tenant or DEFAULT_TENANT) == self._principal.tenant and may_use(
            self._principal, letter.user
        )
