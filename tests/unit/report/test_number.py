import pytest

from flashsale.report.wording import lapse, ms, plural, share


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0.00"), (0.123, "0.12"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_milliseconds_have_the_precision_that_helps(value: float | None, text: str) -> None:
    assert ms(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (999.4, "999 ms"), (1000, "1.00 s"), (4433.7, "4.43 s")],
)
def test_a_long_time_is_told_in_seconds(value: float | None, text: str) -> None:
    assert lapse(value) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 10, "–"),
        (0, 0, "–"),
        (1, 3, "33.3 %"),
        (1, 100_000, "< 0.1 %"),
        (99_999, 100_000, "> 99.9 %"),
        (10, 10, "100.0 %"),
    ],
)
def test_a_share_is_never_rounded_to_none_or_all(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_one_is_singular() -> None:
    assert (plural(1, "user"), plural(2000, "user")) == ("1 user", "2,000 users")
