"""Faults are made in time, healed whatever happens, and told as they were."""

import threading
from pathlib import Path

import pytest

from flashsale.errors import UnreachableError, UsageError
from flashsale.faults import making
from flashsale.faults.fault import Fault, Site
from flashsale.faults.making import Making, ensure_possible, settings_for
from flashsale.scenario.fault import Fault as Planned


class Noted(Fault):
    """Makes nothing, and notes what it was asked for."""

    calls: list[str]
    trouble: Exception | None = None

    def prepare(self, site: Site) -> None:
        self.calls.append("prepare")

    def do(self, site: Site) -> None:
        self.calls.append("do")
        if self.trouble is not None:
            raise self.trouble

    def heal(self, site: Site) -> None:
        self.calls.append("heal")


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> type[Noted]:
    Noted.calls, Noted.trouble = [], None
    monkeypatch.setitem(making.MAKERS, "stop", Noted)
    return Noted


def made(at: str, lasting: str, site: Site, *, at_once: bool = False, wait: bool = True) -> Making:
    found = Making([Planned.made(at=at, what="stop", whom="c1", **{"for": lasting})], site)
    found.begin()
    if wait:
        for thread in threading.enumerate():
            if thread.name == "stop":
                thread.join(5)
    found.finish(at_once=at_once)
    return found


SITE = Site(Path("nowhere"))


def test_a_fault_is_prepared_made_and_healed_in_this_order(noted: type[Noted]) -> None:
    (record,) = made("20ms", "30ms", SITE).finish()
    assert noted.calls == ["prepare", "do", "heal"]
    assert record.was_made
    assert record.done_ms is not None
    assert record.healed_ms is not None
    assert record.done_ms >= 20
    assert record.healed_ms - record.done_ms >= 30


def test_what_fails_halfway_is_healed_and_told(noted: type[Noted]) -> None:
    noted.trouble = UnreachableError("the ledger is away")
    (record,) = made("0ms", "30s", SITE).finish()
    assert noted.calls == ["prepare", "do", "heal"]
    assert not record.was_made
    assert record.trouble == "the ledger is away"


def test_a_storm_that_was_over_before_makes_none(noted: type[Noted]) -> None:
    (record,) = made("30s", "1s", SITE, wait=False).finish()
    assert noted.calls == ["prepare"]
    assert not record.was_made
    assert "over before it" in record.trouble


def test_who_is_interrupted_heals_at_once(noted: type[Noted]) -> None:
    found = Making([Planned.made(at="0ms", what="stop", whom="c1", **{"for": "60s"})], SITE)
    found.begin()
    while "do" not in noted.calls:
        threading.Event().wait(0.002)
    (record,) = found.finish(at_once=True)
    assert noted.calls == ["prepare", "do", "heal"]
    assert record.healed_ms is not None
    assert record.healed_ms < 30_000


def test_a_storm_that_never_began_made_none(noted: type[Noted]) -> None:
    planned = Planned.made(at="0s", what="stop", whom="c1", **{"for": "1s"})
    (record,) = Making([planned], SITE).finish()
    assert not record.was_made


@pytest.mark.parametrize(
    ("whom", "what", "told"),
    [
        ("r4", "kill", "the stack has 3 replicas; set FLASHSALE_STACK_REPLICAS=4"),
        ("c2", "kill", "the stack has 1 worker; set FLASHSALE_STACK_WORKERS=2"),
        ("c2->ledger", "reset", "the stack has 1 worker"),
        ("c1", "pause_past_lease", "needs another worker to take over"),
    ],
)
def test_whom_the_stack_does_not_have_is_one_line(whom: str, what: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ensure_possible([Planned.made(at="1s", what=what, whom=whom)], 3, 1)


def test_whom_the_stack_has_is_possible() -> None:
    for whom in ("r3", "c1", "ledger", "cache", "replica", "worker", "nginx"):
        ensure_possible([Planned.made(at="1s", what="kill", whom=whom)], 3, 1)


def test_a_pause_past_the_lease_has_short_leases_and_a_second_worker() -> None:
    pause = Planned.made(at="1s", what="pause_past_lease", whom="c1")
    told = settings_for([pause])
    assert told["FLASHSALE_STACK_WORKERS"] == "2"
    assert int(told["FLASHSALE_WORKER_LOCK_LEASE_MS"]) < 2_000
    assert settings_for([Planned.made(at="1s", what="kill", whom="c1")]) == {}
