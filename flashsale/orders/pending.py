"""Which of a worker's own pending entries are due, and when those are that could not be written.

Pure: the worker reads the pages and tells the time.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from flashsale.orders.stream import StreamEntry

_START = "0"


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


class Pending:
    """A worker's own pending entries, seen page by page, round after round while any is put off.

    A round begins at the first of them, and ends with a page that is empty.
    """

    def __init__(self, *, base_s: float, max_s: float) -> None:
        self._postponed = Postponed(base_s, max_s)
        self._cursor: str | None = _START  # None: all were seen
        self._seen: set[str] = set()  # in this round
        self._seen_since_s = 0.0

    def __repr__(self) -> str:
        return f"<Pending cursor={self._cursor!r} postponed={len(self._postponed)}>"

    @property
    def postponed(self) -> int:
        """Entries that will be tried again later."""
        return len(self._postponed)

    def start_over(self) -> None:
        """Begin a new round: entries may be ours that we do not know of."""
        self._cursor = _START

    def read_after(self, now_s: float) -> str | None:
        """The entry id after which the next page begins; None where none is to be read now."""
        if self._cursor is None:
            due_s = self._postponed.next_due_s(now_s)
            if due_s is None or due_s > 0:
                return None
            self._cursor = _START
        if self._cursor == _START:
            self._seen.clear()
            self._seen_since_s = now_s
        return self._cursor

    def due(
        self, page: Sequence[StreamEntry], ahead: Container[str], now_s: float
    ) -> list[StreamEntry]:
        """Those of the page just read that are due and not among those read `ahead`."""
        self._seen.update(entry.entry_id for entry in page)
        self._cursor = page[-1].entry_id if page else None
        if self._cursor is None:  # what was due and is not pending, another worker took and wrote
            self._postponed.forget_others(self._seen, self._seen_since_s)
        return [
            entry
            for entry in page
            if entry.entry_id not in ahead and self._postponed.is_due(entry.entry_id, now_s)
        ]

    def postpone(self, entry_ids: Iterable[str], now_s: float) -> None:
        """Put entries off that could not be written."""
        for entry_id in entry_ids:
            self._postponed.postpone(entry_id, now_s)

    def forget(self, entry_ids: Iterable[str]) -> None:
        """These are done."""
        for entry_id in entry_ids:
            self._postponed.forget(entry_id)

    def wait_ms(self, now_s: float, longest_ms: int) -> int:
        """How long to wait for fresh entries: not at all while older ones are to be looked at."""
        if self._cursor is not None:
            return 1
        due_s = self._postponed.next_due_s(now_s)
        return longest_ms if due_s is None else max(1, min(longest_ms, int(due_s * 1000)))
