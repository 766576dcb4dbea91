"""[[fault]]: what can be asked for, and the one line for what cannot."""

import pytest

from flashsale.errors import UsageError
from flashsale.faults.making import MAKERS
from flashsale.faults.outside import OnLink
from flashsale.scenario.fault import KINDS, PlannedFault, Processes
from flashsale.scenario.scenario import Scenario, parse_scenario, scenario_document, scenario_of

SCENARIO = """
schema = 1
name = "broken"
[sale]
units = 10
[load]
model = "rate"
stages = ["4s:10"]
connections = 4
"""


def with_fault(*lines: str) -> Scenario:
    return parse_scenario("\n".join([SCENARIO, "[[fault]]", *lines]), "broken.toml")


def test_a_fault_says_what_befalls_whom_and_when() -> None:
    (fault,) = with_fault(
        'at = "1.5s"', 'for = "250ms"', 'what = "latency"', 'whom = "r1 → ledger"', "latency_ms = 5"
    ).fault
    assert (fault.at_s, fault.for_s, str(fault.place)) == (1.5, 0.25, "r1->ledger")
    assert str(fault) == "latency of r1->ledger at 1.5s for 250ms"


def test_every_kind_has_a_maker_and_links_have_the_relay() -> None:
    assert set(MAKERS) == set(KINDS)
    assert {what for what, maker in MAKERS.items() if maker is OnLink} == {
        what for what, kind in KINDS.items() if kind.is_of_links
    }


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (['at="1s"', 'what="kil"', 'whom="ledger"'], "found 'kil', did you mean 'kill'?"),
        (['at="1s"', 'what="kill"', 'whom="ledgr"'], "fault.whom: found 'ledgr', expected for"),
        (['at="1s"', 'what="kill"', 'whom="r1->ledger"'], "a link; 'kill' befalls one of"),
        (['at="1s"', 'for="1s"', 'what="stall"', 'whom="r1"'], "expected a link for 'stall'"),
        (['at="1s"', 'for="1s"', 'what="stall"', 'whom="r1->c1"'], "expected one of nginx->rep"),
        (['at="5s"', 'what="kill"', 'whom="ledger"'], "fault.at: found '5s', expected at most 4s"),
        (['at="soon"', 'what="kill"', 'whom="ledger"'], "fault.at: found 'soon', expected such"),
        (['at="1s"', 'what="stop"', 'whom="ledger"'], "fault.for: missing, expected how long"),
        (['at="1s"', 'for="1s"', 'what="kill"', 'whom="r1"'], "happens in an instant"),
        (['at="1s"', 'for="0s"', 'what="stop"', 'whom="r1"'], "expected more than 0s"),
        (['at="1s"', 'what="kill"', 'whom="r1"', "kb_per_s=1"], "fault.kb_per_s: this is not for"),
        (['at="1s"', 'what="flush"', 'whom="ledger-2"'], "all of the ledger: name 'ledger'"),
        (['at="1s"', 'what="kill"', 'whom="ledger-0"'], "found 'ledger-0', expected for 'kill'"),
        (['at="1s"', 'what="fail_over"', 'whom="cache"'], "expected for 'fail_over' one of ledger"),
        (['what="kill"', 'whom="r1"'], "fault.0.at: missing, expected when"),
        (['at="1s"', 'what="kill"', 'whom="r1"', "wha=1"], "fault.0.wha: no such key, did you"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_starts(lines: list[str], told: str) -> None:
    with pytest.raises(UsageError) as error:
        with_fault(*lines)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_recorded_scenario_keeps_its_faults() -> None:
    scenario = with_fault('at = "1s"', 'for = "1s"', 'what = "stop"', 'whom = "c1"')
    assert scenario_of(scenario_document(scenario)).fault == scenario.fault


def test_a_role_stands_for_its_processes_and_a_name_for_itself() -> None:
    single, cluster = Processes(2, 1), Processes(2, 1, ("ledger-1", "ledger-2"))
    assert (single.of("replica"), single.of("worker")) == (("r1", "r2"), ("c1",))
    assert (single.of("ledger"), cluster.of("ledger")) == (("ledger",), ("ledger-1", "ledger-2"))
    assert cluster.of("ledger-2") == ("ledger-2",)
    assert cluster.of("nginx") == ("nginx",)


def test_only_faults_of_the_ledger_may_break_rules() -> None:
    flush = {"at": "1s", "what": "flush"}
    assert not PlannedFault.made(**flush, whom="cache").expects
    assert "accepted_persisted" in PlannedFault.made(**flush, whom="ledger").expects
