"""A question to a store that a scrape asks and does not wait for longer than it can."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Patient(Generic[T]):
    """Asks in a thread of its own, one at a time; `answer()` is None where it takes too long.

    What the question raises as one of `troubles` is no answer either.
    """

    def __init__(
        self,
        question: Callable[[], T],
        troubles: tuple[type[Exception], ...],
        *,
        timeout_s: float = 1.0,
    ) -> None:
        self._question = question
        self._troubles = troubles
        self._timeout_s = timeout_s
        self._asking: threading.Thread | None = None
        self._heard: T | None = None

    def __repr__(self) -> str:
        return f"<Patient {'asking' if self._asking else 'idle'}>"

    def answer(self) -> T | None:
        """What was asked just now, or what an earlier, slower question has just brought."""
        if self._asking is None or not self._asking.is_alive():
            self._heard = None
            self._asking = threading.Thread(target=self._ask, name="figures", daemon=True)
            self._asking.start()
        self._asking.join(self._timeout_s)
        return None if self._asking.is_alive() else self._heard

    def _ask(self) -> None:
        try:
            self._heard = self._question()
        except self._troubles:
            self._heard = None
