import pytest

from flashsale.model import Ending, Outcome, Reading
from flashsale.run.parts import ReadFigures

ALL = {
    Reading.HIT: 90,
    Reading.STALE: 4,
    Reading.NULL: 2,
    Reading.LOAD: 3,
    Reading.WAIT: 1,
    Reading.BLOOM: 50,
    Reading.ANSWERED: 7,
    Outcome.SHED: 5,
}


def test_each_answer_is_under_one_number() -> None:
    figures = ReadFigures.of(ALL)
    assert figures is not None
    counts = figures.model_dump(exclude={"hit_ratio"})
    assert counts == {
        "hits": 90,
        "stale": 4,
        "nulls": 2,
        "loads": 3,
        "waits": 1,
        "rejected": 50,
        "unmarked": 7,
    }


@pytest.mark.parametrize(
    ("outcomes", "ratio"),
    [
        (ALL, 0.96),
        ({Reading.HIT: 3, Reading.LOAD: 1}, 0.75),
        ({Reading.HIT: 3, Reading.WAIT: 1}, 0.75),
        ({Reading.STALE: 3, Reading.LOAD: 1}, 0.75),
        ({Reading.NULL: 3, Reading.LOAD: 1}, 0.75),
        ({Reading.LOAD: 1}, 0.0),
        ({Reading.BLOOM: 9}, None),  # nobody got as far as the cache
        ({Reading.ANSWERED: 9}, None),  # a server that does not say
    ],
)
def test_the_hit_ratio_is_of_what_asked_the_cache(
    outcomes: dict[Ending, int], ratio: float | None
) -> None:
    figures = ReadFigures.of(outcomes)
    assert figures is not None
    assert figures.hit_ratio == ratio


def test_a_run_without_answered_reads_has_no_such_figures() -> None:
    assert ReadFigures.of({Outcome.SOLD: 3}) is None
    assert ReadFigures.of({Outcome.SHED: 3}) is None
