"""Calibration: what this generator can send here and now, from a short run of the same engine.

A few thousand reads go to a null responder on loopback, through the engine, the wire, the attempts
and the record that a storm has. What they cost, in core time used and waited for, says how many a
second one core can send and read: beside the plan's peak that is the headroom. It takes a quarter
of a second or so, and FIRE_MS and START_TIMEOUT_S at most.
"""

import asyncio
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic_ns

import uvloop

from flashsale.errors import FlashsaleError
from flashsale.run.attempts import Attempts
from flashsale.run.attempts_file import AttemptsFile
from flashsale.run.folder import ATTEMPTS_FILE
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.target import Target
from flashsale.storm.attack import null_responder
from flashsale.storm.attack.attack import Mission, Records, SelfWatch, waited_ns
from flashsale.storm.attack.engine import Engine
from flashsale.storm.figures.generator import Calibration, SelfReport
from flashsale.storm.plan.planning import plan_of

REQUESTS, FIRE_MS = 3_000, 400
START_TIMEOUT_S = 2.0
_SCENARIO = f"""
schema = 1
name = "calibration"
browse = {{ shops = 1 }}
load = {{ model = "rate", arrivals = "even", stages = ["1ms:{REQUESTS * 1000}"], connections = 50 }}
timeouts = {{ connect_ms = {FIRE_MS}, barrier_ms = {FIRE_MS}, run_ms = {FIRE_MS} }}
"""


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


def _fire(port: int, folder: Path) -> tuple[int, SelfReport, int]:
    """How many were answered, what firing cost, and how many ns it waited for its core."""
    scenario = parse_scenario(_SCENARIO, "calibration")
    plan = plan_of(scenario, [])
    attempts, watch = Attempts(len(plan)), SelfWatch()
    mission = Mission(scenario, Target.at(f"http://127.0.0.1:{port}"), plan, {})
    with (
        AttemptsFile(folder / ATTEMPTS_FILE) as file,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        engine = Engine(mission, Records(attempts, file, watch), lambda _: None)
        before = waited_ns()
        runner.run(engine.run())
        waited = waited_ns() - before
    answered = sum(answer.status is not None for _, answer in attempts.settled())
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
