"""Calibration: what this generator can send here and now, from a short run of the same engine.

A few thousand reads go to a null responder on loopback, through the engine, the wire, the ledger
and the record that a storm has. What they cost, in core time used and waited for, says how many a
second one core can send and read: beside the plan's peak that is the headroom. It takes a quarter
of a second or so, and FIRE_MS and START_TIMEOUT_S at most.
"""

import asyncio
import os
import select
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic_ns

import uvloop

from flashsale.errors import FlashsaleError
from flashsale.storm import null_responder
from flashsale.storm.attack.attack import Mission, Records
from flashsale.storm.attack.engine import Engine
from flashsale.storm.attack.target import Target
from flashsale.storm.health.selfwatch import SelfReport, SelfWatch, waited_ns
from flashsale.storm.record.attempts import AttemptsFile
from flashsale.storm.record.ledger import Ledger
from flashsale.storm.workload.plan import Plan
from flashsale.storm.workload.planning import plan_of
from flashsale.storm.workload.scenario import parse_scenario

REQUESTS, FIRE_MS = 3_000, 400
START_TIMEOUT_S = 2.0
PEAK_US = 100_000
"""A peak is the most that is due within so long: shorter ones are the loop's to smooth."""

_SCENARIO = f"""
schema = 1
name = "calibration"
browse = {{ shops = 1 }}
load = {{ model = "rate", arrivals = "even", stages = ["1ms:{REQUESTS * 1000}"], connections = 50 }}
timeouts = {{ connect_ms = {FIRE_MS}, barrier_ms = {FIRE_MS}, run_ms = {FIRE_MS} }}
"""


@dataclass(frozen=True)
class Calibration:
    """What a request cost this generator, in µs of one core, and how long it took to find out."""

    requests: int
    us_per_request: float
    took_ms: float

    def capacity_per_s(self, workers: int = 1) -> float:
        """What so many processes could send a second, each on a core of its own while there are
        enough."""
        return min(workers, len(os.sched_getaffinity(0))) * 1e6 / self.us_per_request


@dataclass(frozen=True)
class Room:
    """What a plan asks of a generator that was calibrated. `peak_per_s` is None for a plan that has
    no rate: then `at_once` attempts leave together at its beginning."""

    calibration: Calibration
    workers: int
    peak_per_s: float | None
    at_once: int

    @property
    def capacity_per_s(self) -> float:
        """What all workers could send a second."""
        return self.calibration.capacity_per_s(self.workers)

    @property
    def headroom(self) -> float | None:
        """Capacity for peak."""
        return self.capacity_per_s / self.peak_per_s if self.peak_per_s else None

    @property
    def burst_ms(self) -> float | None:
        """How long "at once" takes this generator: it cannot be measured any finer."""
        return self.at_once / self.capacity_per_s * 1000 if self.at_once else None


def room_of(calibration: Calibration, workers: int, plan: Plan, open_run: bool) -> Room:
    """The room that `plan` leaves."""
    firsts = plan.first_attempts
    if open_run:
        return Room(calibration, workers, peak_per_s(plan.at_us[: len(firsts)]), 0)
    at_once = bisect_left(plan.at_us, PEAK_US, hi=len(firsts))
    return Room(calibration, workers, None, min(at_once, plan.connection_count))


def calibrate() -> Calibration | None:
    """Measure it; None where the responder does not start or nothing is answered in time."""
    begun = monotonic_ns()
    try:
        with _responder() as port, TemporaryDirectory(prefix="flashsale-calibration-") as folder:
            answered, report, waited = _fire(port, Path(folder))
    except (FlashsaleError, OSError):
        return None
    if not answered:
        return None
    us = (report.cpu_ns + waited) / 1000 / answered
    return Calibration(answered, round(us, 2), round((monotonic_ns() - begun) / 1e6, 1))


def peak_per_s(at_us: Sequence[int]) -> float:
    """The highest rate that a plan asks for: `at_us` are the ascending instants of its arrivals."""
    if not at_us:
        return 0.0
    edges = range(at_us[0], at_us[-1] + PEAK_US + 1, PEAK_US)
    ranks = [bisect_left(at_us, edge) for edge in edges]
    return max(b - a for a, b in pairwise(ranks)) * 1e6 / PEAK_US


def _fire(port: int, folder: Path) -> tuple[int, SelfReport, int]:
    """How many were answered, what firing cost, and how many ns it waited for its core."""
    scenario = parse_scenario(_SCENARIO, "calibration")
    plan = plan_of(scenario, [])
    ledger, watch = Ledger(len(plan)), SelfWatch()
    mission = Mission(scenario, Target.at(f"http://127.0.0.1:{port}"), plan, {})
    with (
        AttemptsFile(folder / "attempts.jsonl") as attempts,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        engine = Engine(mission, Records(ledger, attempts, watch), lambda _: None)
        before = waited_ns()
        runner.run(engine.run())
        waited = waited_ns() - before
    answered = sum(answer.status is not None for _, answer in ledger.settled())
    return answered, watch.report(), waited


@contextmanager
def _responder() -> Iterator[int]:
    """The port of a null responder, which is gone afterwards. Raises OSError."""
    command = [sys.executable, "-I", null_responder.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
            line = process.stdout.readline() if ready else b""
            if not line:
                raise OSError("the null responder did not start")
            yield int(line)
        finally:
            process.kill()
