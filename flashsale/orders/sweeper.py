"""The sweeper: unpaid orders time out, what cancellations owe the ledger is returned, changes of
sales that were cut short are finished, and sales whose books disagree can be paused.

Every worker process runs one; several at once do no harm, since each step happens once.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from redis import Redis
from sqlalchemy import Engine

from flashsale.errors import FlashsaleError, Indeterminate, Unavailable
from flashsale.failpoints import reach
from flashsale.model import ID_MAX
from flashsale.orders.lifecycle import (
    CLOCK_SLACK_MS,
    Return,
    forget_returns,
    owed_returns,
    return_call,
    time_out,
)
from flashsale.seckill.control import SaleControl
from flashsale.seckill.ids import EPOCH_S
from flashsale.settings import LifecycleSettings
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import Confirmation, Ledgers, call, evaluate_each, ledgers

log = structlog.get_logger(__name__)


@dataclass
class Swept:
    """What a sweeper did: orders that timed out, units that went back to the ledger, changes of
    sales that it finished, and sales that it paused."""

    timed_out: int = 0
    returned: int = 0
    finished: int = 0
    paused: int = 0
    failures: int = 0


class Sweeper:
    """Looks after the orders that nobody asks for. `run_once()` does all that is due now."""

    def __init__(
        self,
        pool: Engine,
        ledger: Redis | Ledgers,
        settings: LifecycleSettings,
        *,
        claim_timeout_ms: int,
        now_s: Callable[[], float] = time.monotonic,
        confirmation: Confirmation | None = None,
    ) -> None:
        self.pool = pool
        self._confirmation = confirmation
        self._ledgers = ledgers(ledger)
        self._settings = settings
        self._control = SaleControl(pool, ledger, "sweeper")
        claim_settled_s = (claim_timeout_ms + CLOCK_SLACK_MS) / 1000
        self._unpaid_max = timedelta(seconds=max(settings.unpaid_timeout_s, claim_settled_s))
        self._now_s = now_s
        self._passed = 0  # up to this id nothing was left unpaid when it was looked at
        self._rescan_due_s = now_s() + settings.rescan_interval_s
        self.total = Swept()

    def __repr__(self) -> str:
        return f"<Sweeper unpaid_max={self._unpaid_max} {self.total}>"

    def run(self, stop: threading.Event) -> None:
        """Sweep every interval until `stop`; trouble is for the next round."""
        while not stop.wait(self._settings.sweep_interval_s):
            try:
                self.run_once()
            except (Unavailable, Indeterminate) as trouble:
                self.total.failures += 1
                log.warning("the sweep stopped short", trouble=str(trouble))

    def run_once(self) -> Swept:
        """Time out what is due, return what is owed, finish what was cut short, look at the books.

        Raises Unavailable or Indeterminate; another call goes on from there.
        """
        swept = Swept(timed_out=self._time_out(), returned=self._return())
        self.total.timed_out += swept.timed_out
        self.total.returned += swept.returned
        swept.finished = self._finish_changes()
        self.total.finished += swept.finished
        if self._settings.pause_unbalanced:
            swept.paused = self._pause_unbalanced()
            self.total.paused += swept.paused
        return swept

    def _finish_changes(self) -> int:
        finished = 0
        for voucher in self._control.unfinished():
            try:
                finished += self._control.finish(voucher)
            except FlashsaleError as error:  # for a person to look at; the others go on
                log.error("a change of a sale cannot be finished", voucher=voucher, why=str(error))
        return finished

    def _pause_unbalanced(self) -> int:
        try:
            return len(self._control.pause_unbalanced())
        except FlashsaleError as error:
            log.error("a sale whose books disagree cannot be paused", why=str(error))
            return 0

    def _time_out(self) -> int:
        if self._now_s() >= self._rescan_due_s:  # an order may have become a row behind us
            self._rescan_due_s = self._now_s() + self._settings.rescan_interval_s
            self._passed = 0
        seconds, micros = call(self._ledgers.home.time)  # the clock that orders are dated by
        latest = datetime.fromtimestamp(seconds + micros / 1e6, UTC) - self._unpaid_max
        end = first_id_after(latest)
        timed_out, rows_max = 0, self._settings.sweep_rows_max
        while self._passed + 1 < end:
            with transaction(self.pool) as connection:
                ids = range(self._passed + 1, end)
                returns = time_out(connection, latest, ids, rows_max)
            reach("sweep.timed_out")
            timed_out += len(returns)
            self._passed = returns[-1].order_id if len(returns) == rows_max else end - 1
        return timed_out

    def _return(self) -> int:
        returned = 0
        while True:
            with transaction(self.pool) as connection:
                owed = owed_returns(connection, self._settings.sweep_rows_max)
            if not owed:
                return returned
            done = self._give_back(owed)
            reach("sweep.returned")
            if done:
                with transaction(self.pool) as connection:
                    forget_returns(connection, [one.order_id for one in done])
            returned += len(done)
            if len(done) < len(owed):  # the rest is refused, and would be again
                return returned

    def _give_back(self, owed: list[Return]) -> list[Return]:
        """Those of `owed` that the ledger has confirmed, and its replicas where they are asked: a
        failover must not take back what nobody would return again."""
        done = []
        for one, reply in self._asked(owed):
            if isinstance(reply, (Unavailable, Indeterminate)):
                log.warning("a unit cannot be returned", order=one.order_id, trouble=str(reply))
            elif reply in (0, 1):
                done.append(one)
        return done

    def _asked(self, owed: list[Return]) -> Iterator[tuple[Return, Any]]:
        """What the ledger says to each; a lane that does not answer, to all of its own."""
        layout = self._ledgers.layout
        for client, lane in zip(self._ledgers.clients, layout.lanes, strict=True):
            mine = [one for one in owed if lane.sells(one.voucher_id)]
            if not mine:
                continue
            try:
                calls = [return_call(one, layout) for one in mine]
                confirmation = self._confirmation and self._confirmation.on(lane)
                replies = evaluate_each(client, calls, confirmation)
            except (Unavailable, Indeterminate) as trouble:
                if layout.is_whole:
                    raise
                replies = [trouble] * len(mine)
            yield from zip(mine, replies, strict=True)


def first_id_after(moment: datetime) -> int:
    """The lowest id that an order of the second after `moment` can have (see seckill/ids.py)."""
    seconds = int(moment.timestamp()) + 1 - EPOCH_S
    return min(max(seconds, 0) << 32, ID_MAX)
