"""When a child is restarted, and how long that waits: pure decisions."""

from typing import cast

import pytest

from flashsale.stack.service import Member, Phase, Service, restart_delay_s
from flashsale.stack.settings import StackSettings

SETTINGS = StackSettings(
    restart_base_ms=200,
    restart_max_ms=1_000,
    restart_reset_s=30,
    probe_interval_s=30,
    probe_timeout_s=5,
    probe_failures_max=3,
)


def _member() -> Member:
    return Member(cast(Service, None))


@pytest.mark.parametrize(("death", "delay_s"), [(1, 0.2), (2, 0.4), (3, 0.8), (4, 1.0), (99, 1.0)])
def test_wait_doubles_up_to_its_bound(death: int, delay_s: float) -> None:
    assert restart_delay_s(death, SETTINGS) == delay_s


def test_wait_stays_bounded_after_any_number_of_deaths() -> None:
    assert restart_delay_s(10_000, SETTINGS) == 1.0


def test_quick_deaths_add_up() -> None:
    member = _member()
    member.launched(now=100)
    assert member.died(101, SETTINGS) == 0.2
    member.launched(now=102)
    assert member.died(103, SETTINGS) == 0.4
    assert (member.quick_deaths, member.phase, member.due_at) == (2, Phase.DOWN, 103.4)


def test_a_stable_child_starts_over_with_the_first_wait() -> None:
    member = _member()
    for at in (0, 1, 2):
        member.launched(at)
        member.died(at, SETTINGS)
    member.launched(10)
    assert member.died(10 + 30, SETTINGS) == 0.2
    assert member.quick_deaths == 1


def test_just_short_of_stable_counts_as_quick() -> None:
    member = _member()
    member.launched(0)
    member.died(1, SETTINGS)
    member.launched(10)
    assert member.died(39.9, SETTINGS) == 0.4


def test_silences_in_a_row_are_one_too_many_at_the_limit() -> None:
    member = _member()
    member.launched(0)
    member.answered(1, SETTINGS)
    assert [member.stayed_silent(now, SETTINGS) for now in (31, 36, 41)] == [False, False, True]


def test_an_answer_between_silences_starts_the_count_again() -> None:
    member = _member()
    member.stayed_silent(0, SETTINGS)
    member.stayed_silent(5, SETTINGS)
    member.answered(10, SETTINGS)
    assert member.phase is Phase.UP
    assert not member.stayed_silent(40, SETTINGS)
    assert (member.phase, member.silences) == (Phase.SILENT, 1)


def test_a_silent_child_is_asked_again_soon() -> None:
    member = _member()
    member.answered(0, SETTINGS)
    assert member.due_at == 30
    member.stayed_silent(30, SETTINGS)
    assert member.due_at == 35
