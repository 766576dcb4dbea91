import resource
from pathlib import Path

import pytest

from flashsale.errors import UsageError
from flashsale.storm.attack import connections
from flashsale.storm.attack.connections import ensure_descriptors, ensure_ports


@pytest.fixture
def a_thousand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "range").write_text("40000\t40999\n")
    monkeypatch.setattr(connections, "_RANGE", tmp_path / "range")


@pytest.mark.usefixtures("a_thousand")
def test_too_few_ports_are_one_line_with_the_cure() -> None:
    ensure_ports(936)
    with pytest.raises(UsageError, match=r"937 connections need 1,001 local ports.*1,000.*sysctl"):
        ensure_ports(937)


def test_where_the_system_does_not_tell_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_RANGE", Path("/nowhere"))
    ensure_ports(60_000)


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

    monkeypatch.setattr(connections, "resource", Limits)
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
