import ctypes
import sys

import pytest

from flashsale.storm.attack import instants


def kernel(monkeypatch: pytest.MonkeyPatch, state: int, status: int, error_us: int) -> None:
    class Library:
        def adjtimex(self, asked: object) -> int:
            timex = asked._obj  # type: ignore[attr-defined]
            timex.status, timex.max_error_us = status, error_us
            return state

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())


@pytest.mark.parametrize(
    ("state", "status", "found"),
    [(0, 0, 1234), (0, 0x2001, 1234), (5, 0, None), (0, 0x40, None), (-1, 0, None)],
)
def test_the_kernels_account_of_its_clock(
    monkeypatch: pytest.MonkeyPatch, state: int, status: int, found: int | None
) -> None:
    kernel(monkeypatch, state, status, 1234)
    assert instants.clock_error_us() == found


def test_elsewhere_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert instants.clock_error_us() is None


def test_this_machine_answers() -> None:
    found = instants.clock_error_us()
    assert found is None or found >= 0
