"""From a run folder and two URLs to a judgement."""

import time
from collections.abc import Callable
from pathlib import Path

from flashsale.verify import DRAIN_TIMEOUT_S
from flashsale.verify.attempts import read_attempts
from flashsale.verify.baseline import read_baseline
from flashsale.verify.connection import connect
from flashsale.verify.drain import drain
from flashsale.verify.ending import read_ending
from flashsale.verify.hindsight import span_of
from flashsale.verify.snapshot import Snapshot, read_snapshot
from flashsale.verify.verdict import Judgement, after_waiting, judge

_RETURN_LOOK_EVERY_S = 0.5


def examine(
    run_dir: Path,
    ledger_url: str,
    mysql_url: str,
    *,
    drain_timeout_s: float = DRAIN_TIMEOUT_S,
    on_look: Callable[[int], None] = lambda left: None,
) -> Judgement:
    """Judge the run recorded in `run_dir` by what the two stores hold now. Writes nothing.

    `on_look` is told the length of the queue at every look. Raises NothingJudgedError where there
    is no record of attempts, UnreachableError where a store does not answer.
    """
    attempts = read_attempts(run_dir)
    before = read_baseline(run_dir)
    ending = read_ending(run_dir)
    with connect(ledger_url, mysql_url) as stores:
        span = span_of(attempts, before, ending)
        waited_s = drain(stores.ledger, span, drain_timeout_s, on_look)
        snapshot = _settled(
            lambda: read_snapshot(stores, attempts, before, ending), drain_timeout_s
        )
    return after_waiting(judge(snapshot), waited_s)


def _settled(read: Callable[[], Snapshot], timeout_s: float) -> Snapshot:
    """A snapshot in which every cancelled order's unit is back in the ledger, if given time.

    A cancelled order ends in MySQL first and in the ledger a moment later.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        snapshot = read()
        if not snapshot.returns_owed or time.monotonic() >= deadline_s:
            return snapshot
        time.sleep(_RETURN_LOOK_EVERY_S)
