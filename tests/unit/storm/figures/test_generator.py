from typing import Any

import pytest

from flashsale.run.histogram import Histogram
from flashsale.run.parts import Health
from flashsale.storm.figures.generator import (
    Conduct,
    RawSample,
    Sample,
    SelfReport,
    busiest,
    doubts,
    faults,
    health_of,
    samples_of,
)

TENTH_NS = 100_000_000


def looks(count: int) -> list[RawSample]:
    """Every tenth of a second: a fifth of it on the core, a tenth waiting, and so late."""
    return [
        RawSample(n * TENTH_NS, n * TENTH_NS // 5, n * TENTH_NS // 10, lag_us=n * 1000, in_flight=n)
        for n in range(count)
    ]


def test_a_sample_is_what_became_of_the_time_between_two_looks() -> None:
    assert samples_of(looks(3)) == [
        Sample(100.0, 0.2, 0.1, 1.0, 1),
        Sample(200.0, 0.2, 0.1, 2.0, 2),
    ]
    assert samples_of(looks(3))[0].wanted_share == 0.2 + 0.1


def test_one_look_or_none_is_no_sample() -> None:
    assert samples_of([]) == samples_of(looks(1)) == []


def test_a_look_that_came_late_is_spread_over_its_time() -> None:
    late = [RawSample(0, 0, 0, 0, 0), RawSample(10 * TENTH_NS, TENTH_NS, 0, 900_000, 1)]
    assert samples_of(late) == [Sample(1000.0, 0.1, 0.0, 900.0, 1)]


def test_a_long_run_has_wider_samples_that_hide_no_peak() -> None:
    wide = samples_of(looks(26), most=10)
    assert [sample.at_ms for sample in wide] == [300.0 * n for n in range(1, 9)] + [2500.0]
    assert [sample.loop_lag_ms for sample in wide] == [3.0 * n for n in range(1, 9)] + [25.0]
    assert {sample.cpu_share for sample in wide} == {0.2}
    assert len(samples_of(looks(36_001))) == 600


def test_of_several_processes_the_busiest_counts_and_their_claims_add_up() -> None:
    calm = [Sample(100.0, 0.1, 0.0, 9.0, 5), Sample(200.0, 0.1, 0.0, 1.0, 5)]
    hot = [Sample(101.0, 0.4, 0.5, 2.0, 7)]
    assert busiest([calm, [], hot]) == [Sample(101.0, 0.4, 0.5, 9.0, 12), calm[1]]
    assert busiest([]) == []


def conduct(**changes: Any) -> Conduct:
    """An open run of 2,000 attempts: 100 ms response, 1 ms start lag."""
    sent = changes.get("sent", 2000)
    given = {
        "planned": 2000,
        "sent": sent,
        "open_run": True,
        "closed_run": False,
        "start_lag": Histogram([changes.pop("lag_ms", 1) * 1000] * sent),
        "response": Histogram([100_000] * sent),
    }
    return Conduct(**{**given, **changes})


def watch(*samples: Sample, loop_lags_ms: list[int] | None = None) -> SelfReport:
    lags = Histogram(lag * 1000 for lag in loop_lags_ms or [])
    return SelfReport(1, 1, lags, 1024, samples)


def seconds(*samples: tuple[float, float], width_ms: float = 100) -> tuple[Sample, ...]:
    """Samples of (core used, core waited for), one after another."""
    return tuple(
        Sample((n + 1) * width_ms, cpu, waited, 0.0, 1) for n, (cpu, waited) in enumerate(samples)
    )


# Faults: the run proves nothing.


def test_a_run_as_planned_has_none() -> None:
    assert faults(conduct()) == []
    assert faults(conduct(lag_ms=20)) == []


def test_what_was_planned_and_not_sent_is_one() -> None:
    assert faults(conduct(sent=1999)) == ["1,999 of 2,000 planned attempts were sent"]
    assert faults(conduct(sent=1999, open_run=False)) != []


def test_an_open_run_that_lags_measured_itself() -> None:
    (fault,) = faults(conduct(lag_ms=21))
    assert "start lag p99 21.0 ms" in fault
    assert "20% of the response p99 100.0 ms" in fault


def test_a_start_within_a_millisecond_is_on_time_however_fast_the_target() -> None:
    quick = {"start_lag": Histogram([900] * 2000), "response": Histogram([1_000] * 2000)}
    assert faults(conduct(**quick)) == doubts(conduct(**quick)) == []
    late = {"start_lag": Histogram([1_100] * 2000), "response": Histogram([1_200] * 2000)}
    (fault,) = faults(conduct(**late))
    assert "start lag p99 1.1 ms" in fault


def test_the_lag_of_a_burst_or_a_closed_run_is_reported_and_not_judged() -> None:
    assert faults(conduct(lag_ms=5000, open_run=False)) == []


def test_with_few_samples_the_worst_one_is_judged() -> None:
    few = {"start_lag": Histogram([0, 0, 50_000]), "response": Histogram([100_000] * 3)}
    (fault,) = faults(conduct(planned=3, sent=3, **few))
    assert "start lag max 50.0 ms" in fault


@pytest.mark.parametrize(("refused", "is_fault"), [(0, True), (200, True), (201, False)])
def test_a_target_that_failed_is_no_fault_of_a_late_generator(refused: int, is_fault: bool) -> None:
    """Of the few that it answered, one late start is the worst."""
    sent = 2000 - refused
    run = conduct(sent=sent, lag_ms=21, refused=refused)
    assert len(faults(run)) == is_fault
    told = "start lag p99 21.0 ms is more than 20% of the response p99 100.0 ms"
    assert (told in faults(run), told in doubts(run)) == (is_fault, not is_fault)
    assert health_of(faults(run), doubts(run)) is (Health.INVALID if is_fault else Health.SUSPECT)
    assert faults(conduct(sent=sent - 1, lag_ms=0, refused=refused)) != []


def test_nothing_sent_in_an_open_run_is_one_fault() -> None:
    assert faults(conduct(sent=0)) == ["0 of 2,000 planned attempts were sent"]


@pytest.mark.parametrize(("rounds", "name"), [(2000, "p99"), (500, "p95"), (100, "p90"), (99, "")])
def test_an_open_run_that_reads_late_measured_itself_even_where_it_sent_in_time(
    rounds: int, name: str
) -> None:
    found = faults(conduct(watches={"it": watch(loop_lags_ms=[21] * rounds)}))
    lines = [f"it read answers late: loop lag {name} 21.0 ms is more than 20% of the response p99"]
    assert [line.startswith(lines[0]) for line in found] == ([True] if name else [])


def test_a_loop_lag_of_few_milliseconds_is_that_of_its_timers() -> None:
    late = {"watches": {"it": watch(loop_lags_ms=[9] * 2000)}, "response": Histogram([900] * 2000)}
    assert faults(conduct(**late, lag_ms=0)) == doubts(conduct(**late, lag_ms=0)) == []
    late["watches"] = {"it": watch(loop_lags_ms=[11] * 2000)}
    assert len(faults(conduct(**late, lag_ms=0))) == 1
    assert faults(conduct(open_run=False, closed_run=True, **late, lag_ms=0)) == []


# Doubts: the figures stand, and a part of them may be the generator's own.

HOT, CALM, STARVED = (0.95, 0.0), (0.5, 0.2), (0.3, 0.65)


def test_a_generator_with_room_has_none() -> None:
    calm = watch(*seconds(*[CALM] * 20), loop_lags_ms=[1] * 2000)
    assert doubts(conduct(watches={"it": calm}, headroom=2.0)) == []
    assert doubts(conduct(watches={"it": watch()})) == []


@pytest.mark.parametrize(("lag_ms", "suspect"), [(10, False), (11, True), (19, True), (21, False)])
def test_half_the_lag_that_spoils_a_run_makes_it_suspect(lag_ms: int, suspect: bool) -> None:
    sending = doubts(conduct(lag_ms=lag_ms))
    reading = doubts(conduct(watches={"it": watch(loop_lags_ms=[lag_ms] * 2000)}))
    assert (bool(sending), bool(reading)) == (suspect, suspect)
    if suspect:
        assert "is more than 10% of the response p99 100.0 ms" in sending[0]


@pytest.mark.parametrize(("hot", "suspect"), [(5, False), (6, True)])
def test_an_open_run_on_a_saturated_core_is_suspect(hot: int, suspect: bool) -> None:
    saturated = watch(*seconds(*[HOT] * hot, *[CALM] * (20 - hot)))
    found = doubts(conduct(watches={"one": watch(), "two": saturated}))
    expected = "two wanted 90% of its core or more for 30% of the run"
    assert found == ([expected] if suspect else [])


def test_a_core_that_others_have_is_as_bad_as_one_that_is_used_up() -> None:
    assert doubts(conduct(watches={"it": watch(*seconds(*[STARVED] * 20))})) != []


def test_one_sample_of_a_long_wait_weighs_as_much_as_it_lasted() -> None:
    starved = watch(*seconds(CALM), Sample(3000.0, 0.01, 0.99, 2900.0, 1))
    assert doubts(conduct(watches={"it": starved})) != []


def test_a_closed_run_is_suspect_only_where_the_generator_itself_sets_the_pace() -> None:
    closed: dict[str, Any] = {"open_run": False, "closed_run": True}
    used, waited = watch(*seconds(*[HOT] * 20)), watch(*seconds(*[STARVED] * 20))
    (doubt,) = doubts(conduct(watches={"it": used}, **closed))
    assert doubt == "it used 90% of its core or more for 100% of the run"
    assert doubts(conduct(watches={"it": waited}, **closed)) == []


def test_a_burst_saturates_its_core_by_nature() -> None:
    burst = {"open_run": False, "closed_run": False}
    assert doubts(conduct(watches={"it": watch(*seconds(*[HOT] * 20))}, **burst)) == []


def test_less_than_a_second_says_nothing() -> None:
    assert doubts(conduct(watches={"it": watch(*seconds(*[HOT] * 9))})) == []


@pytest.mark.parametrize(("headroom", "suspect"), [(None, False), (2.0, False), (1.99, True)])
def test_a_generator_near_its_limit_is_suspect(headroom: float | None, suspect: bool) -> None:
    found = doubts(conduct(headroom=headroom))
    assert bool(found) is suspect
    if suspect:
        assert "50% of what this generator can send: a headroom of 1.99×, less than 2×" in found[0]


def test_the_verdict_is_the_worst_that_was_found() -> None:
    assert health_of([], []) is Health.VALID
    assert health_of([], ["d"]) is Health.SUSPECT
    assert health_of(["f"], ["d"]) is Health.INVALID
