"""A worker that is ended, delayed or broken between any two of its steps: one row an order, every
unit accounted for, and nothing left in the queue.
"""

import threading
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rig.child import child
from rig.rows import add_sale, orders, units
from rig.sale import claim, open_sale
from rig.until import until
from sqlalchemy import Engine

from flashsale import failpoints, keys
from flashsale.errors import Indeterminate, Unavailable
from flashsale.locks.batch import BatchLocks
from flashsale.orders.stream import OrderStream
from flashsale.orders.worker import Worker
from flashsale.settings import WorkerSettings

UNITS, USERS = 20, range(1, 9)
STEPS = [point for point in failpoints.POINTS if point.startswith(("worker.", "rows."))]
OF_ORDERS = [point for point in STEPS if "aside" not in point]
FAST: dict[str, Any] = {
    "block_ms": 1,
    "linger_ms": 0,
    "retry_base_ms": 1,
    "retry_max_ms": 2,
    "claim_idle_ms": 1,
}


class Queue:
    """Orders on their way, and what became of them."""

    def __init__(self, ledger: Redis, cache: Redis, pool: Engine) -> None:
        self.ledger, self.cache, self.pool = ledger, cache, pool

    def worker(self, name: str, **given: Any) -> Worker:
        settings = WorkerSettings(**{**FAST, **given})
        locks = BatchLocks(
            self.cache, name, lease_ms=settings.lock_lease_ms, renew_ms=settings.lock_renew_ms
        )
        return Worker(OrderStream(self.ledger, name), self.pool, locks, settings)

    @property
    def left(self) -> int:
        found: Any = self.ledger.xpending(keys.STREAM_ORDERS, keys.GROUP)
        (group,) = self.ledger.xinfo_groups(keys.STREAM_ORDERS)
        return int(found["pending"]) + int(group["lag"] or 0)

    def finish(self, *workers: Worker) -> None:
        """Have them work until nothing is left."""

        def turn() -> bool:
            for worker in workers:
                try:
                    worker.run_once()
                except (Unavailable, Indeterminate):  # what is armed may do so
                    continue
            return self.left == 0

        until(turn, 20)

    def is_whole(self, poisoned: bool = False) -> None:
        """Every order a row, once; every unit where it belongs."""
        assert orders(self.pool) == {1000 + user: (user, 1) for user in USERS}
        assert units(self.pool) == UNITS - len(USERS)
        assert int(str(self.ledger.get(keys.seckill_stock(1)))) == UNITS - len(USERS)
        assert self.ledger.scard(keys.seckill_order(1)) == len(USERS)
        assert self.ledger.xlen(keys.STREAM_DEAD) == poisoned


@pytest.fixture
def queue(ledger: Redis, cache: Redis, pool: Engine) -> Queue:
    """Orders of eight users, accepted and not read yet."""
    add_sale(pool, stock=UNITS)
    open_sale(ledger, units=UNITS)
    ledger.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)
    assert {code for code, _ in claim(ledger, *((user, 1000 + user) for user in USERS))} == {0}
    return Queue(ledger, cache, pool)


class Once:
    """Does something the first time only."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.times = error, 0

    def __call__(self) -> None:
        self.times += 1
        if self.times == 1 and self.error is not None:
            raise self.error


@pytest.mark.parametrize("kind", [Unavailable, Indeterminate])
@pytest.mark.parametrize("point", STEPS)
def test_trouble_between_any_two_steps_loses_and_doubles_nothing(
    queue: Queue, point: str, kind: type[Exception]
) -> None:
    poisoned = "aside" in point
    if poisoned:
        queue.ledger.xadd(keys.STREAM_ORDERS, {"no": "order"})
    with failpoints.armed(point, trouble := Once(kind("planted"))):
        queue.finish(queue.worker("c1"))
    assert trouble.times >= 1
    queue.is_whole(poisoned)


@pytest.mark.parametrize("point", [*OF_ORDERS, "worker.setting_aside", "worker.set_aside"])
@pytest.mark.slow
def test_a_worker_that_is_killed_between_any_two_steps_loses_and_doubles_nothing(
    queue: Queue, point: str, tmp_path: Path, ledger_url: str, cache_url: str, mysql_url: str
) -> None:
    """A process of its own, ended by SIGKILL there; another one of the same name goes on."""
    poisoned = "aside" in point
    if poisoned:
        queue.ledger.xadd(keys.STREAM_ORDERS, {"no": "order"})
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "from flashsale import failpoints\n"
        f"failpoints.arm({point!r}, lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    stores = {"ledger": ledger_url, "cache": cache_url, "mysql": mysql_url}
    env = {f"FLASHSALE_{name.upper()}_URL": url for name, url in stores.items()}
    with child(
        tmp_path / "log", "worker", "--name", "c1", PYTHONPATH=str(tmp_path), **env
    ) as killed:
        assert killed.ended(60) == -9, killed.output
    queue.finish(queue.worker("c1"))
    queue.is_whole(poisoned)


@pytest.mark.parametrize("point", ["worker.read", "worker.locked", "rows.committed"])
def test_a_worker_that_is_delayed_past_its_lease_meets_another(queue: Queue, point: str) -> None:
    """Another takes its entries over and writes them; then the first goes on where it was."""
    here, go_on = threading.Event(), threading.Event()
    slow = queue.worker("c1", lock_lease_ms=100, lock_renew_ms=3_600_000)

    def delay() -> None:
        if threading.current_thread().name == "slow":
            here.set()
            go_on.wait(20)

    with failpoints.armed(point, delay):
        thread = threading.Thread(target=queue.finish, args=(slow,), name="slow")
        thread.start()
        assert here.wait(20)
        queue.finish(queue.worker("c2", lock_lease_ms=100))
        go_on.set()
        thread.join(20)
    assert not thread.is_alive()
    queue.is_whole()


def test_a_point_that_there_is_not_cannot_be_armed() -> None:
    with pytest.raises(KeyError), failpoints.armed("worker.nowhere", Once()):
        pass
