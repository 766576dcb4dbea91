"""Turns: connections that belong to nobody, and attempts that are due and wait for one. Pure."""

from collections import deque


class Turns:
    """Whoever is due takes a free lane; where none is, whoever has waited longest goes next."""

    def __init__(self, lanes: int) -> None:
        self._idle = deque(range(lanes))
        self._waiting: deque[int] = deque()

    def __repr__(self) -> str:
        return f"<Turns idle={len(self._idle)} waiting={len(self._waiting)}>"

    def take(self, attempt: int) -> int | None:
        """A free lane; None where `attempt` has to wait for its turn."""
        if self._idle:
            return self._idle.popleft()
        self._waiting.append(attempt)
        return None

    def give_back(self, lane: int) -> int | None:
        """The attempt whose turn it is on `lane`; None where nobody waits, and the lane is free."""
        if self._waiting:
            return self._waiting.popleft()
        self._idle.append(lane)
        return None

    def forget(self) -> None:
        """Nobody waits any more."""
        self._waiting.clear()
