from flashsale.storm.figures.effort import Look, Sample, busiest, samples_of

TENTH_NS = 100_000_000


def looks(count: int) -> list[Look]:
    """Every tenth of a second: a fifth of it on the core, a tenth waiting, and so late."""
    return [
        Look(n * TENTH_NS, n * TENTH_NS // 5, n * TENTH_NS // 10, lag_us=n * 1000, in_flight=n)
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
    late = [Look(0, 0, 0, 0, 0), Look(10 * TENTH_NS, TENTH_NS, 0, 900_000, 1)]
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
