"""Waiting for the queue: the judge looks when every accepted order has had its chance."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis

from flashsale.verify.queue import Span, read_backlog

_LOOK_EVERY_S = 0.1


@dataclass(slots=True)
class Patience:
    """Ends a wait: nothing left, or nothing done for `timeout_s`.

    Progress is a backlog smaller than it ever was, so that a queue which is filled as fast as it
    is emptied does not keep the judge for ever. Pure: the caller brings the time.
    """

    timeout_s: float
    least: int | None = None
    since_s: float = 0.0

    def is_over(self, left: int, now_s: float) -> bool:
        """True where it is time to stop waiting."""
        if self.least is None or left < self.least:
            self.least, self.since_s = left, now_s
        return left == 0 or now_s - self.since_s >= self.timeout_s


def drain(
    ledger: Redis,
    span: Span,
    timeout_s: float,
    on_look: Callable[[int], None] = lambda left: None,
) -> float:
    """Wait until every entry of `span` has left the queue; the seconds that it took.

    Gives up when nothing moves for `timeout_s`: the queue's own check then tells what is stuck.
    """
    patience = Patience(timeout_s)
    start_s = time.monotonic()
    while True:
        left = read_backlog(ledger, span).total
        on_look(left)
        now_s = time.monotonic()
        if patience.is_over(left, now_s):
            return now_s - start_s
        time.sleep(_LOOK_EVERY_S)
