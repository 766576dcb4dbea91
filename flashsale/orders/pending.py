"""When an order that could not be written is due again: pure, and bounded both ways."""

from collections.abc import Container
from dataclasses import dataclass, field


@dataclass
class Postponed:
    """Not-before times of entries, so that one stuck order blocks nobody."""

    base_s: float
    max_s: float
    _due: dict[str, tuple[int, float]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._due)

    def postpone(self, entry_id: str, now_s: float) -> None:
        """Put `entry_id` off: base, then twice that, … up to the maximum."""
        tries = self._due.get(entry_id, (0, 0.0))[0]
        wait_s = min(self.max_s, self.base_s * 2 ** min(tries, 30))
        self._due[entry_id] = (tries + 1, now_s + wait_s)

    def forget(self, entry_id: str) -> None:
        """The entry is done."""
        self._due.pop(entry_id, None)

    def forget_others(self, ours: Container[str], due_by_s: float) -> None:
        """Forget what was due by then and is not `ours`: somebody else has finished it."""
        for entry_id, (_, due_s) in list(self._due.items()):
            if due_s <= due_by_s and entry_id not in ours:
                del self._due[entry_id]

    def is_due(self, entry_id: str, now_s: float) -> bool:
        """True where nothing stands against trying it now."""
        return self._due.get(entry_id, (0, now_s))[1] <= now_s

    def next_due_s(self, now_s: float) -> float | None:
        """Seconds until the first entry is due again, None where there is none."""
        if not self._due:
            return None
        return max(0.0, min(due for _, due in self._due.values()) - now_s)
