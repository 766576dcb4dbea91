import resource

import pytest

from flashsale.errors import UsageError
from flashsale.storm import selfwatch
from flashsale.storm.histogram import Histogram
from flashsale.storm.selfwatch import SelfWatch, complaints, ensure_descriptors


def judged(
    *, planned: int = 2000, sent: int = 2000, open_run: bool = True, lag_ms: int = 1
) -> list[str]:
    return complaints(
        planned=planned,
        sent=sent,
        open_run=open_run,
        start_lag=Histogram([lag_ms * 1000] * sent),
        response=Histogram([100_000] * sent),
    )


def test_a_run_as_planned_is_valid() -> None:
    assert judged() == []
    assert judged(lag_ms=20) == []


def test_what_was_planned_and_not_sent_makes_a_run_invalid() -> None:
    assert judged(sent=1999) == ["1,999 of 2,000 planned attempts were sent"]
    assert judged(sent=1999, open_run=False) != []


def test_an_open_run_that_lags_measured_itself() -> None:
    (complaint,) = judged(lag_ms=21)
    assert "start lag p99 21.0 ms" in complaint
    assert "20% of the response p99 100.0 ms" in complaint


def test_the_lag_of_a_burst_or_a_closed_run_is_reported_and_not_judged() -> None:
    assert judged(lag_ms=5000, open_run=False) == []


def test_with_few_samples_the_worst_one_is_judged() -> None:
    lags, responses = Histogram([0, 0, 50_000]), Histogram([100_000] * 3)
    assert complaints(planned=3, sent=3, open_run=True, start_lag=lags, response=responses)


def test_nothing_sent_in_an_open_run_is_one_complaint() -> None:
    assert judged(sent=0) == ["0 of 2,000 planned attempts were sent"]


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
        watch.late_by(lag_us * 1000)
    lag = watch.report().loop_lag
    assert (lag.count, lag.max_us) == (3, 300)


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
