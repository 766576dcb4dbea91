"""Faults are made in time, healed whatever happens, and told as they were."""

import threading
from pathlib import Path

import pytest

from flashsale.errors import UnreachableError, UsageError
from flashsale.faults import making
from flashsale.faults.fault import Fault, RebuildResult, Site
from flashsale.faults.making import Making, ensure_possible, settings_for
from flashsale.faults.outside import links_of
from flashsale.keys import CLUSTER as LAYOUT
from flashsale.keys import Lane
from flashsale.scenario.fault import KINDS, LedgerForm, PlannedFault, Processes
from flashsale.stack import sentinel
from flashsale.stack.cluster import NODES

LANES = LAYOUT.lanes
CLUSTER = Processes(3, 1, NODES, LedgerForm.CLUSTER)
PAIR = Processes(3, 1, sentinel.NODES, LedgerForm.PAIR)


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
    found = Making([PlannedFault.made(at=at, what="stop", whom="c1", **{"for": lasting})], site)
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
    found = Making([PlannedFault.made(at="0ms", what="stop", whom="c1", **{"for": "60s"})], SITE)
    found.begin()
    while "do" not in noted.calls:
        threading.Event().wait(0.002)
    (record,) = found.finish(at_once=True)
    assert noted.calls == ["prepare", "do", "heal"]
    assert record.healed_ms is not None
    assert record.healed_ms < 30_000


def test_a_storm_that_never_began_made_none(noted: type[Noted]) -> None:
    planned = PlannedFault.made(at="0s", what="stop", whom="c1", **{"for": "1s"})
    (record,) = Making([planned], SITE).finish()
    assert not record.was_made


@pytest.mark.parametrize(
    ("whom", "what", "told"),
    [
        ("r4", "kill", "the stack has 3 replicas; set FLASHSALE_STACK_REPLICAS=4"),
        ("c2", "kill", "the stack has 1 worker; set FLASHSALE_STACK_WORKERS=2"),
        ("c2->ledger", "reset", "the stack has 1 worker"),
        ("c1", "pause_past_lease", "needs another worker to take over"),
        ("ledger-1", "kill", "ledger has no such node; add --cluster, or name 'ledger'"),
        ("ledger-2", "kill", "ledger has no such node; add --ha or --cluster, or name 'ledger'"),
        ("r1->ledger-1", "reset", "ledger has no such node; add --cluster"),
        ("ledger", "fail_over", "nodes take over from one another; add --ha or --cluster"),
        ("ledger", "isolate", "nodes take over from one another; add --ha"),
    ],
)
def test_whom_the_stack_does_not_have_is_one_line(whom: str, what: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as error:
        ensure_possible([PlannedFault.made(at="1s", what=what, whom=whom)], Processes(3, 1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("what", "whom", "told"),
    [
        ("kill", "ledger-7", "name one of ledger-1, ledger-2, .*, ledger-6, or name 'ledger'"),
        ("read_only", "ledger", "'out_of_memory' refuses writes, too"),
        ("read_only", "ledger-2", "REPLICAOF, which a cluster's nodes do not take"),
        ("isolate", "ledger", "of a ledger behind Sentinels; use --ha in place of --cluster"),
    ],
)
def test_what_a_cluster_cannot_have_is_one_line(what: str, whom: str, told: str) -> None:
    lasting = {"for": "1s"} if KINDS[what].lasts == "always" else {}
    with pytest.raises(UsageError, match=told) as error:
        ensure_possible([PlannedFault.made(at="1s", what=what, whom=whom, **lasting)], CLUSTER)
    assert "\n" not in str(error.value)


def test_whom_a_cluster_has_is_possible() -> None:
    for whom in ("ledger", "ledger-1", "ledger-6", "cache", "r3"):
        ensure_possible([PlannedFault.made(at="1s", what="kill", whom=whom)], CLUSTER)
    for what in ("fail_over", "flush", "drop_group"):
        ensure_possible([PlannedFault.made(at="1s", what=what, whom="ledger")], CLUSTER)
    only = PlannedFault.made(at="1s", what="read_only", whom="cache", **{"for": "1s"})
    ensure_possible([only], CLUSTER)


def test_whom_a_pair_has_is_possible_and_no_more() -> None:
    for what in ("kill", "fail_over", "cut_replica", "isolate", "flush", "power_cut"):
        lasting = {"for": "1s"} if KINDS[what].lasts == "always" else {}
        fault = PlannedFault.made(at="1s", what=what, whom="ledger", **lasting)
        ensure_possible([fault], PAIR)
    ensure_possible([PlannedFault.made(at="1s", what="kill", whom="ledger-2")], PAIR)
    for what, whom, told in (
        ("kill", "ledger-3", "name one of ledger, ledger-2, or name 'ledger'"),
        ("read_only", "ledger", "REPLICAOF, which Sentinels undo"),
    ):
        lasting = {"for": "1s"} if KINDS[what].lasts == "always" else {}
        with pytest.raises(UsageError, match=told):
            ensure_possible([PlannedFault.made(at="1s", what=what, whom=whom, **lasting)], PAIR)
    reset = PlannedFault.made(at="1s", what="reset", whom="r1->ledger")
    assert links_of([reset], PAIR) == ["r1->ledger", "r1->ledger-2"]


def test_a_link_to_a_cluster_is_one_to_each_node() -> None:
    def links(whom: str) -> list[str]:
        return links_of([PlannedFault.made(at="1s", what="reset", whom=whom)], CLUSTER)

    assert links("r1->ledger") == [f"r1->{node}" for node in NODES]
    assert len(links("replica->ledger")) == 18
    assert links("c1->ledger-2") == ["c1->ledger-2"]
    assert links_of(
        [PlannedFault.made(at="1s", what="reset", whom="c1->ledger")], Processes(1, 1)
    ) == ["c1->ledger"]


class Nodes(Site):
    """A cluster whose first lane goes from one node to another, and nothing behind it."""

    def __init__(self, *, confirms: bool) -> None:
        super().__init__(Path("nowhere"), (6,), confirms=confirms)
        object.__setattr__(self, "now", "ledger-1")
        object.__setattr__(self, "asked", [])

    def masters(self) -> dict[Lane, str]:
        first, *others = LANES
        return {first: self.now, **dict.fromkeys(others, "ledger-2")}  # type: ignore[attr-defined]

    def await_whole(self) -> None:
        self.asked.append("whole")  # type: ignore[attr-defined]

    def rebuilt(self) -> RebuildResult:
        self.asked.append("rebuilt")  # type: ignore[attr-defined]
        return RebuildResult("two orders are gone", (1, 2))


@pytest.mark.parametrize(
    ("moves", "confirms", "asked", "found", "gone"),
    [
        (False, False, ["whole"], "", ()),
        (True, True, ["whole"], "ledger-4 took over from ledger-1", ()),
        (
            *(True, False, ["whole", "whole", "rebuilt"]),
            *("ledger-4 took over from ledger-1; two orders are gone", (1, 2)),
        ),
    ],
)
def test_a_ledger_that_failed_over_unconfirmed_is_rebuilt(
    moves: bool, confirms: bool, asked: list[str], found: str, gone: tuple[int, ...]
) -> None:
    site, fault = (
        Nodes(confirms=confirms),
        Noted(PlannedFault.made(at="0s", what="kill", whom="ledger")),
    )
    fault.look(site)
    if moves:
        object.__setattr__(site, "now", "ledger-4")
    fault.settle(site)
    assert (site.asked, fault.found, fault.gone) == (asked, found, gone)  # type: ignore[attr-defined]


def test_what_befalls_others_asks_no_cluster() -> None:
    site, fault = (
        Nodes(confirms=False),
        Noted(PlannedFault.made(at="0s", what="kill", whom="cache")),
    )
    fault.look(site)
    fault.settle(site)
    assert site.asked == []  # type: ignore[attr-defined]


def test_whom_the_stack_has_is_possible() -> None:
    for whom in ("r3", "c1", "ledger", "cache", "replica", "worker", "nginx"):
        ensure_possible([PlannedFault.made(at="1s", what="kill", whom=whom)], Processes(3, 1))


def test_a_pause_past_the_lease_has_short_leases_and_a_second_worker() -> None:
    pause = PlannedFault.made(at="1s", what="pause_past_lease", whom="c1")
    told = settings_for([pause])
    assert told["FLASHSALE_STACK_WORKERS"] == "2"
    assert int(told["FLASHSALE_WORKER_LOCK_LEASE_MS"]) < 2_000
    assert settings_for([PlannedFault.made(at="1s", what="kill", whom="c1")]) == {}
