from pathlib import Path

import pytest

from flashsale.errors import UsageError
from flashsale.storm.attack import selfwatch
from flashsale.storm.attack.selfwatch import ensure_ports


@pytest.fixture
def a_thousand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "range").write_text("40000\t40999\n")
    monkeypatch.setattr(selfwatch, "_RANGE", tmp_path / "range")


@pytest.mark.usefixtures("a_thousand")
def test_too_few_ports_are_one_line_with_the_cure() -> None:
    ensure_ports(936)
    with pytest.raises(UsageError, match=r"937 connections need 1,001 local ports.*1,000.*sysctl"):
        ensure_ports(937)


def test_where_the_system_does_not_tell_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfwatch, "_RANGE", Path("/nowhere"))
    ensure_ports(60_000)
