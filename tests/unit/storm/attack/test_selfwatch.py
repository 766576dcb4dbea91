import os
import resource
import subprocess
import sys
from pathlib import Path
from time import monotonic_ns, process_time_ns

import pytest

from flashsale.errors import UsageError
from flashsale.storm.attack import selfwatch
from flashsale.storm.attack.selfwatch import SelfWatch, ensure_descriptors, waited_ns

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
    monkeypatch.setattr(selfwatch, "_SCHEDSTAT", Path("/nowhere"))
    assert waited_ns() == 0


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The process's limits, as a list whose last entry is in force."""
    record = [(256, 4096)]

    class Limits:
        RLIMIT_NOFILE = resource.RLIMIT_NOFILE
        RLIM_INFINITY = resource.RLIM_INFINITY

        @staticmethod
        def getrlimit(_: int) -> tuple[int, int]:
            return record[-1]

        @staticmethod
        def setrlimit(_: int, limit: tuple[int, int]) -> None:
            record.append(limit)

    monkeypatch.setattr(selfwatch, "resource", Limits)
    return record


def test_the_descriptor_limit_is_raised_to_what_is_needed(limits: list[tuple[int, int]]) -> None:
    ensure_descriptors(2000)
    assert limits == [(256, 4096), (2064, 4096)]


def test_a_limit_that_suffices_is_left_alone(limits: list[tuple[int, int]]) -> None:
    ensure_descriptors(100)
    limits.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ensure_descriptors(60_000)
    assert len(limits) == 2


def test_a_limit_that_cannot_be_raised_is_one_line_with_the_cure(
    limits: list[tuple[int, int]],
) -> None:
    with pytest.raises(
        UsageError, match=r"5,064 open files and the limit is 4,096.*ulimit -n 5064"
    ):
        ensure_descriptors(5000)
    assert len(limits) == 1
