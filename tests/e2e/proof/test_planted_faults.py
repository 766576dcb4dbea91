"""Storm and judge catch every fault that is planted in a sale, and name it; and no other.

One storm goes over a sale with a voucher for each fault, so that each has its own to spoil.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from rig.faults import BUYERS, FAULTS, UNITS, Fault
from rig.faulty_sale import FaultySale
from rig.judged_storm import JudgedStorm, Verdict

from flashsale.verify.verdict import RULES

VOUCHER = {str(fault): voucher for voucher, fault in enumerate(FAULTS, 1)}


@dataclass(frozen=True)
class Trial:
    """What was planted, and what the judge said."""

    sale: FaultySale
    verdict: Verdict


@pytest.fixture(scope="module")
def trial(open_desk: Callable[[str], JudgedStorm]) -> Trial:
    """All faults at once, each on its voucher."""
    desk = open_desk("faults")
    market = desk.market(vouchers=len(FAULTS), units=UNITS)
    market.allow_several_orders()
    for fault in FAULTS:
        if fault.closed:
            market.end_now(VOUCHER[str(fault)])
    sale = FaultySale(market, {VOUCHER[str(fault)]: fault.trick for fault in FAULTS})
    desk.scenario(users=BUYERS * len(FAULTS), vouchers=len(FAULTS), units=UNITS)
    done = desk.storm(sale, "run")
    for fault in FAULTS:
        if fault.hand is not None:
            fault.hand(sale, VOUCHER[str(fault)])
    market.close()
    assert done.returncode == 3, done.stderr  # some of them can be seen in the answers alone
    return Trial(sale, desk.verify("run"))


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_named_by_its_checks_and_by_no_other(trial: Trial, fault: Fault) -> None:
    voucher = VOUCHER[str(fault)]
    assert trial.verdict.tripped_by(voucher) == set(fault.trips)
    names = trial.sale.noted[voucher]
    for check, text in fault.trips.items():
        told = [o["text"] for o in trial.verdict.offences(check) if o["voucher"] == voucher]
        assert any(text.format(**names) in line for line in told), (check, told)


def test_every_check_is_tripped_by_a_planted_fault(trial: Trial) -> None:
    assert {name for fault in FAULTS for name in fault.trips} == set(RULES)
    assert trial.verdict.failed == set(RULES)
    assert trial.verdict.exit_code == 3
