import os
import subprocess
import sys
from pathlib import Path
from time import monotonic_ns, process_time_ns

import pytest

from flashsale.storm.attack import attack
from flashsale.storm.attack.attack import SelfWatch, waited_ns

ROUND_NS = 20_000_000


def test_cpu_is_counted_only_while_it_is_asked_for() -> None:
    watch = SelfWatch()
    sum(range(100_000))
    assert watch.report().cpu_ns == 0
    assert watch.report().cpu_share == 0.0
    with watch.counting():
        sum(range(100_000))
    once = watch.report()
    assert once.cpu_ns > 0
    with watch.counting():
        sum(range(100_000))
    assert watch.report().cpu_ns > once.cpu_ns
    assert watch.report().wall_ns > once.wall_ns


def test_loop_lag_is_a_histogram_and_a_timer_that_came_early_has_none() -> None:
    watch = SelfWatch()
    for lag_us in (-500, 100, 300):
        watch.late_by(lag_us * 1000, ROUND_NS)
    lag = watch.report().loop_lag
    assert (lag.count, lag.max_us) == (3, 300)


def test_a_loop_that_stood_still_was_late_for_all_the_rounds_that_it_missed() -> None:
    watch = SelfWatch()
    watch.late_by(70_000_000, ROUND_NS)
    lag = watch.report().loop_lag
    assert lag.count == 4  # 70, 50, 30 and 10 ms
    assert lag.mean_us == pytest.approx(40_000, rel=0.001)
    watch.late_by(20_000_000, ROUND_NS)
    assert watch.report().loop_lag.count == 5  # the next was on time


def test_looks_become_samples_of_core_and_loop() -> None:
    watch = SelfWatch()
    watch.look(0, in_flight=0)
    watch.late_by(2_000_000, ROUND_NS)
    watch.late_by(1_000_000, ROUND_NS)
    begun = process_time_ns()
    while process_time_ns() - begun < 20_000_000:
        pass
    watch.look(100_000_000, in_flight=7)
    watch.look(200_000_000, in_flight=3)
    busy, idle = watch.report().samples
    assert (busy.at_ms, busy.in_flight, busy.loop_lag_ms) == (100.0, 7, 2.0)
    assert busy.cpu_share >= 0.2
    assert (idle.loop_lag_ms, idle.in_flight) == (0.0, 3)
    assert idle.cpu_share < busy.cpu_share


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own count")
def test_a_thread_that_shares_its_core_has_waited_for_it() -> None:
    """Two processes on one core: each waits while the other runs."""
    before, cores = waited_ns(), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as rival:
            begun = monotonic_ns()
            while waited_ns() == before and monotonic_ns() - begun < 5e9:
                pass
            rival.kill()
    finally:
        os.sched_setaffinity(0, cores)
    assert waited_ns() > before


def test_where_the_kernel_does_not_count_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attack, "_SCHEDSTAT", Path("/nowhere"))
    assert waited_ns() == 0
