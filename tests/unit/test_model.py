"""The shared words: ids as they are written, and outcomes by what follows from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.model import ID_MAX, LIVE_STATUSES, Outcome, PayStatus, parse_id


@pytest.mark.parametrize("number", [1, 2**53, 2**53 + 1, ID_MAX - 1, ID_MAX])
def test_ids_are_read_exactly(number: int) -> None:
    assert parse_id(str(number)) == number


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "0",
            "00",
            "-1",
            "+1",
            "1.0",
            "1e3",
            "0x1",
            "1_000",
            " 1",
            "1 ",
            "1\n",
            "١",
            "²",
            "a",
        ),
        *(str(ID_MAX + 1), "9" * 19, "1" * 20, "9" * 5000),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_id(text: str) -> None:
    assert parse_id(text) is None


@given(st.text("0123456789+-._ eEx١²\n", max_size=22))
def test_any_text_is_an_id_or_none(text: str) -> None:
    number = parse_id(text)
    if number is None:
        assert not (
            text.isascii() and text.isdigit() and len(text) <= 19 and 1 <= int(text) <= ID_MAX
        )
    else:
        assert 1 <= number <= ID_MAX
        assert int(text) == number


def test_every_outcome_is_expected_or_certain_or_indeterminate() -> None:
    assert {o for o in Outcome if o.is_indeterminate} == {Outcome.UNKNOWN, Outcome.INDETERMINATE}
    assert {o for o in Outcome if o.is_expected} == {
        Outcome.SOLD,
        Outcome.SOLD_OUT,
        Outcome.DUPLICATE,
        Outcome.NOT_OPEN,
        Outcome.ENDED,
        Outcome.PAUSED,
        Outcome.RATE_LIMITED,
    }


def test_live_orders_hold_their_place() -> None:
    """What the generated column `live` says in SQL."""
    assert set(LIVE_STATUSES) == {1, 2, 3, 5}
    assert {PayStatus.CANCELLED, PayStatus.REFUNDED}.isdisjoint(LIVE_STATUSES)
