"""Which faults a seed makes, what its trial comes to, how few of its faults still fail, and the
table of many."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.errors import ExitCode, UsageError
from flashsale.faults.making import ensure_possible
from flashsale.faults.outside import links_of
from flashsale.faults.seeds import (
    EVERYTHING,
    REPLICAS,
    WORKERS,
    Asked,
    Fate,
    Trial,
    as_tables,
    compose,
    exit_code_of,
    markdown,
    shrink,
    table,
)
from flashsale.files import resource
from flashsale.scenario.fault import KINDS, LedgerForm, PlannedFault, Processes
from flashsale.scenario.scenario import load_scenario, parse_scenario
from flashsale.stack import sentinel
from flashsale.stack.cluster import NODES

LAST_S = 8.0


@given(st.integers(0, 2**63))
def test_a_seed_makes_the_same_faults_every_time(seed: int) -> None:
    assert compose(seed, LAST_S) == compose(seed, LAST_S)


@given(st.integers(0, 10_000), st.floats(3.0, 60.0))
def test_faults_end_while_the_storm_goes_on(seed: int, last_s: float) -> None:
    faults = compose(seed, last_s)
    assert 1 <= len(faults) <= 2
    for fault in faults:
        assert 0 < fault.at_s <= fault.at_s + fault.for_s < 0.75 * last_s
        assert fault.what != "poison", "chaos asks for what the system promises"


@given(st.integers(0, 10_000))
def test_no_two_faults_befall_the_same(seed: int) -> None:
    befallen = [everyone(f) for f in compose(seed, LAST_S, Asked(at_once=4))]
    assert len(befallen) == 4
    assert sum(map(len, befallen)) == len(set().union(*befallen))


def everyone(fault: PlannedFault) -> set[str]:
    """Each process or link that a fault befalls, in a stack for chaos."""
    if fault.place.server is not None:
        return set(links_of([fault], Processes(REPLICAS, WORKERS)))
    of_role = {"replica": {"r1", "r2"}, "worker": {"c1", "c2"}}
    return of_role.get(fault.whom, {fault.whom})


def test_many_seeds_make_every_kind_that_the_system_promises_to_survive() -> None:
    made = {fault.what for seed in range(1_000) for fault in compose(seed, LAST_S)}
    assert made == {what for what, _ in EVERYTHING.catalogue()}
    assert set(KINDS) - made == {"poison", "fail_over", "cut_replica", "isolate"}


ON_CLUSTER = Asked(form=LedgerForm.CLUSTER)


def test_many_seeds_make_every_kind_that_a_cluster_can_have() -> None:
    faults = [fault for seed in range(1_500) for fault in compose(seed, LAST_S, ON_CLUSTER)]
    ensure_possible(faults, Processes(REPLICAS, WORKERS, NODES, LedgerForm.CLUSTER))
    assert set(KINDS) - {fault.what for fault in faults} == {"poison", "isolate"}
    of_ledger = {fault.what for fault in faults if fault.is_of_ledger}
    assert {"fail_over", "cut_replica", "flush", "power_cut"} <= of_ledger
    assert "read_only" not in of_ledger
    assert {"ledger", "ledger-5", "r1->ledger"} <= {fault.whom for fault in faults}


def test_many_seeds_make_every_kind_that_a_pair_can_have() -> None:
    asked = Asked(form=LedgerForm.PAIR)
    faults = [fault for seed in range(1_500) for fault in compose(seed, LAST_S, asked)]
    pair = Processes(REPLICAS, WORKERS, sentinel.NODES, LedgerForm.PAIR)
    ensure_possible(faults, pair)
    assert set(KINDS) - {fault.what for fault in faults} == {"poison"}
    assert {"ledger", "ledger-2", "r1->ledger"} <= {fault.whom for fault in faults}
    assert "read_only" not in {fault.what for fault in faults if fault.is_of_ledger}


@pytest.mark.parametrize(
    ("seed", "faults"),
    [
        (4, ["lose_replies r1->ledger", "power_cut ledger"]),
        (18, ["kill mysql", "read_only ledger"]),
        (30, ["drop_group ledger", "out_of_memory cache"]),
    ],
)
def test_seeds_make_what_docs_say_that_they_made(seed: int, faults: list[str]) -> None:
    found = compose(seed, LAST_S, Asked(at_once=2))
    assert [f"{fault.what} {fault.whom}" for fault in found] == faults


def test_a_kind_that_one_server_cannot_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--fault: 'fail_over' is of .* add --ha or --cluster"):
        Asked.of(["fail_over"], None)
    assert Asked.of(["fail_over"], 1, LedgerForm.CLUSTER).catalogue() == [("fail_over", "ledger")]
    assert Asked.of(["read_only"], 1, LedgerForm.CLUSTER).catalogue() == [
        ("read_only", "cache"),
        ("read_only", "mysql"),
    ]


def test_without_a_compiler_no_fault_that_needs_one_is_drawn() -> None:
    asked = EVERYTHING.without_compiler()
    made = {fault.what for seed in range(1_000) for fault in compose(seed, LAST_S, asked)}
    possible = {it for it, what in KINDS.items() if asked.form in what.forms}
    possible -= {it for it, what in KINDS.items() if what.needs_compiler}
    assert made == possible - {"poison"}


def test_a_fault_that_leaves_dead_letters_is_made_on_request() -> None:
    asked = Asked.of(["poison"], 1)
    assert [fault.what for fault in compose(1, LAST_S, asked)] == ["poison"]
    with pytest.raises(UsageError, match="did you mean 'older_copy'"):
        Asked.of(["oldr_copy"], None)


def test_what_is_printed_is_what_a_scenario_takes() -> None:
    text = load_text()
    for seed in range(200):
        faults = compose(seed, LAST_S)
        assert parse_scenario(f"{text}\n{as_tables(faults)}", "x").fault == faults


def load_text() -> str:
    assert load_scenario("chaos").last_s == LAST_S
    return (resource("scenarios") / "chaos.toml").read_text()


def faults_at(*seconds: int) -> list[PlannedFault]:
    return [PlannedFault.made(at=f"{at}s", what="kill", whom="r1") for at in seconds]


@pytest.mark.parametrize(
    ("culprits", "least"),
    [((), ()), ((2,), (2,)), ((1,), (1,)), ((1, 2), (1, 2)), ((2, 3), (2, 3)), ((1, 3), (1, 2, 3))],
)
def test_the_fewest_that_still_fail_are_left(
    culprits: tuple[int, ...], least: tuple[int, ...]
) -> None:
    faults, tried = faults_at(1, 2, 3), []

    def fails(some: Sequence[PlannedFault]) -> bool:
        tried.append(len(some))
        return set(culprits) <= {fault.at_s for fault in some}

    assert tuple(fault.at_s for fault in shrink(faults, fails)) == least
    assert tried == sorted(tried), "the fewest first"


HELD = Trial(
    seed=1,
    faults=["kill ledger"],
    run="r",
    acknowledged=100,
    recovered_s=0.5,
    sent_after=50,
    drained=True,
)


@pytest.mark.parametrize(
    ("change", "fate", "code"),
    [
        ({}, Fate.HELD, ExitCode.PASS),
        ({"broken": ["no_oversell"]}, Fate.BROKEN, ExitCode.VIOLATION),
        ({"broken": ["no_oversell"], "drained": False}, Fate.BROKEN, ExitCode.VIOLATION),
        ({"broken": ["window"], "expected": ["window"]}, Fate.HELD, ExitCode.PASS),
        ({"drained": False}, Fate.STUCK, ExitCode.VIOLATION),
        ({"recovered_s": None}, Fate.STUCK, ExitCode.VIOLATION),
        ({"recovered_s": 11.0}, Fate.STUCK, ExitCode.VIOLATION),
        ({"recovered_s": None, "sent_after": 0}, Fate.UNJUDGED, ExitCode.NOTHING_JUDGED),
        ({"broken": ["sold_while_behind"]}, Fate.BROKEN, ExitCode.VIOLATION),
        ({"acknowledged": 0}, Fate.UNJUDGED, ExitCode.NOTHING_JUDGED),
        ({"why": "the ledger is away"}, Fate.UNJUDGED, ExitCode.NOTHING_JUDGED),
    ],
)
def test_safety_and_liveness_are_judged_apart(
    change: dict[str, object], fate: Fate, code: ExitCode
) -> None:
    trial = replace(HELD, **change)  # type: ignore[arg-type]
    assert trial.fate is fate
    assert exit_code_of([HELD, trial]) is code


def test_the_table_has_a_row_for_each_fault_and_one_for_all() -> None:
    both = replace(HELD, seed=2, faults=["kill ledger", "stop c1"], recovered_s=1.5)
    lost = replace(HELD, seed=3, faults=["stop c1"], broken=["accepted_persisted"], lost=7)
    _, rows = table([HELD, both, lost])
    assert [row[:5] for row in rows] == [
        ("kill ledger", "2", "2", "200", "0"),
        ("stop c1", "2", "1", "200", "7"),
        ("all", "3", "2", "300", "7"),
    ]
    assert rows[0][7] == "1.0 ≤ 1.5"
    assert [row[8] for row in rows] == ["none", "accepted_persisted ×1", "accepted_persisted ×1"]


def test_a_breach_that_was_to_be_is_told_as_such() -> None:
    right = replace(HELD, broken=["queue_empty"], expected=["queue_empty"])
    assert table([right])[1][0][8] == "queue_empty ×1 (as expected)"


def test_markdown_keeps_what_a_server_said_in_its_cell() -> None:
    text = markdown("chaos", [replace(HELD, faults=["a | b\\|c"])], ["seed 1: <script> ![x](y)"])
    assert "a \\| b\\\\\\|c" in text
    assert "![x]" not in text
    assert "<script>" not in text
