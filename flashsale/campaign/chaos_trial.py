"""One trial of chaos: a rehearsal with a seed's faults, asked whether it sells again, judged."""

import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import httpx

from flashsale.campaign.campaign import TOKENS, JudgedRun, StormRun, Teller
from flashsale.campaign.rehearsal import REHEARSALS, RehearsalRequest, rehearse
from flashsale.campaign.storming import StoppedError, StormRequest
from flashsale.errors import ExitCode, FlashsaleError, UsageError
from flashsale.faults.controls import Control
from flashsale.faults.seeds import REPLICAS, SOLD_BEHIND, WORKERS, Trial
from flashsale.keys import CLUSTER, SINGLE, Lane
from flashsale.model import Durability, Outcome, Verdict
from flashsale.run.attempts_file import Record, read_record
from flashsale.run.folder import RunFolder
from flashsale.run.parts import FaultRecord, read_faults
from flashsale.scenario.fault import LedgerForm, PlannedFault
from flashsale.scenario.scenario import Scenario
from flashsale.seeding.sessions import read_seeded_tokens
from flashsale.stack.state import StackState
from flashsale.verify.finding import CheckResult, Finding

_LOST, _DOUBLED, _QUEUE = "accepted_persisted", ("one_per_user", "unique_ids"), "queue_empty"
_STILL_QUEUED = "still queued"
_STACK = {
    "FLASHSALE_STACK_REPLICAS": str(REPLICAS),
    "FLASHSALE_STACK_WORKERS": str(WORKERS),
    "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "32",
    "FLASHSALE_STACK_MARIADB_BUFFER_POOL_MB": "64",
    "FLASHSALE_WORKER_CLAIM_IDLE_MS": "5000",
}
_REPLICATED = {
    "FLASHSALE_STACK_DURABILITY": Durability.REPLICATED.value,
    "FLASHSALE_STACK_LEDGER_MEMORY_MB": "64",
}
"""Acknowledged once a replica has it: what a failover may lose without that is no broken rule, and
no seed could tell one from the other."""
_OF_FORM: Mapping[LedgerForm, Mapping[str, str]] = {
    LedgerForm.SERVER: {},
    LedgerForm.PAIR: {"FLASHSALE_STACK_HA": "1", **_REPLICATED},
    LedgerForm.CLUSTER: {"FLASHSALE_STACK_CLUSTER": "1", **_REPLICATED},
}
_LATECOMERS = 100
"""Users beyond the storm's, who come where it was over before all was healed."""
_ALIVE = (Outcome.SOLD, Outcome.SOLD_OUT)
"""Answers of a sale that does its work; whether they are true is the judge's to say."""
_EACH_S = 0.1
_ANSWER_S = 5.0


@dataclass(frozen=True)
class TrialRequest:
    """The storm of `scenario` under these faults, in a run folder of its own, with a ledger of this
    form; with a defect `planted`, where a trial has to find one."""

    scenario: Scenario
    seed: int
    faults: Sequence[PlannedFault]
    out: Path
    recover_s: float = 10.0
    planted: Control | None = None
    form: LedgerForm = LedgerForm.SERVER


def tried(request: TrialRequest) -> Trial:
    """Rehearse and judge. Raises UsageError, and StoppedError where somebody interrupted it."""
    load = request.scenario.load.model_copy(update={"seed": request.seed})
    faults = tuple(request.faults)
    scenario = request.scenario.model_copy(update={"fault": faults, "load": load})
    names = [f"{fault.what} {fault.place}" for fault in faults]
    blank = Trial(request.seed, names, str(request.out), within_s=request.recover_s)
    state_dir = REHEARSALS / f"{scenario.name}-{secrets.token_hex(4)}"
    teller = _TrialTeller(request, state_dir / TOKENS)
    control = request.planted
    with _customized(control) as environment:

        def planted(state: StackState) -> None:
            teller.state = state
            if control is not None:
                control.planted(state)

        rehearsal = RehearsalRequest(
            StormRequest(scenario, out=request.out, calibrate=False),
            state_dir=state_dir,
            spare_users=_LATECOMERS,
            environment={**_STACK, **_OF_FORM[request.form], **environment},
            planted=planted,
        )
        try:
            code = rehearse(rehearsal, teller)
        except (UsageError, StoppedError):
            raise
        except FlashsaleError as error:
            return replace(blank, why=str(error).partition("\n")[0])
    if code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        raise StoppedError(f"interrupted; this trial is in {request.out}", code)
    if teller.found is None:
        return replace(blank, why="the storm was cut short")
    return _trial_of(blank, teller, faults, RunFolder(request.out))


@contextmanager
def _customized(control: Control | None) -> Iterator[dict[str, str]]:
    if control is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="flashsale-control-") as folder:
        yield dict(control.environment(Path(folder)))


# Whether it sells again --------------------------------------------------------------------------


@dataclass(frozen=True)
class Recovery:
    """How many claims were sent once all was healed; and by lane how long after that, or after the
    first of them, one had its order or was told that there is none left. None where none was."""

    sent: int
    lanes: Mapping[Lane, float | None]

    @property
    def sold_s(self) -> float | None:
        """Until all lanes sold again."""
        sold = [seconds for seconds in self.lanes.values() if seconds is not None]
        return max(sold) if sold and len(sold) == len(self.lanes) else None


class _TrialTeller(Teller):
    """Keeps what the judge found; asks for a unit where the storm did not get one after the
    healing, so that every trial says whether the sale sells again, in each of its lanes. That is
    when all is judged: an order that comes soon after a storm counts as one of its claims without
    an answer."""

    def __init__(self, request: TrialRequest, tokens: Path) -> None:
        assert request.scenario.sale is not None
        self._within_s, self._tokens = request.recover_s, tokens
        self._users = request.scenario.load.user_count
        layout = CLUSTER if request.form is LedgerForm.CLUSTER else SINGLE
        self._vouchers = {layout.of(it): it for it in request.scenario.sale.voucher_ids}
        self.state: StackState | None = None
        self.found: JudgedRun | None = None
        self.recovery = Recovery(0, {})

    def stormed(self, run: StormRun) -> None:
        records, record = read_faults(run.folder), read_record(run.folder.attempts)
        healed_ms = max((it.healed_ms or 0.0 for it in records), default=0.0)
        self.recovery = recovery_of(record, healed_ms, list(self._vouchers))

    def judged(self, found: JudgedRun) -> None:
        self.found = found
        sent, lanes = self.recovery.sent, dict(self.recovery.lanes)
        latecomers = islice(read_seeded_tokens(self._tokens), self._users, None)
        with httpx.Client(timeout=_ANSWER_S) as client:
            for lane in (lane for lane, seconds in lanes.items() if seconds is None):
                asked, lanes[lane] = self._ask_for_a_unit(client, self._vouchers[lane], latecomers)
                sent += asked
        self.recovery = Recovery(sent, lanes)

    def _ask_for_a_unit(
        self, client: httpx.Client, voucher: int, latecomers: Iterator[tuple[int, str]]
    ) -> tuple[int, float | None]:
        """One latecomer after another claims, until one has an order or the time is up: how many
        they were, and how long it took."""
        assert self.state is not None
        url = f"{self.state.base_url}/voucher-order/seckill/{voucher}"
        sent, began_s = 0, time.monotonic()
        for _, token in latecomers:
            if time.monotonic() > began_s + self._within_s:
                break
            sent += 1
            if _outcome(client, url, token) in _ALIVE:
                return sent, round(time.monotonic() - began_s, 3)
            time.sleep(_EACH_S)
        return sent, None


def _outcome(client: httpx.Client, url: str, token: str) -> str:
    try:
        answer = client.post(url, headers={"authorization": token})
    except httpx.HTTPError:
        return ""
    return str(answer.headers.get("x-outcome", ""))


def recovery_of(record: Record, healed_ms: float, lanes: Sequence[Lane]) -> Recovery:
    """What became of the claims that a storm sent once all was healed. Pure."""
    attempts, healed_us, sent = record.attempts, healed_ms * 1000, 0
    first: dict[Lane, float | None] = dict.fromkeys(lanes)
    for attempt, answer in attempts.settled():
        sent_us = attempts.after_barrier_us(attempts.sent_ns[attempt])
        if sent_us is None or sent_us < healed_us:
            continue
        sent += 1
        if answer.outcome in _ALIVE:
            done_us = attempts.after_barrier_us(attempts.done_ns[attempt]) or 0
            seconds = round((done_us - healed_us) / 1e6, 3)
            voucher = record.plan.things[attempt]
            lane = next(lane for lane in lanes if lane.sells(voucher))
            before = first[lane]
            first[lane] = seconds if before is None else min(before, seconds)
    return Recovery(sent, first)


# What it comes to --------------------------------------------------------------------------------


def _trial_of(
    blank: Trial, teller: _TrialTeller, faults: Sequence[PlannedFault], folder: RunFolder
) -> Trial:
    assert teller.found is not None
    judgement = teller.found.judgement
    failed = {it.name: it for it in judgement.checks if it.verdict is Verdict.FAIL}
    records, record = read_faults(folder), read_record(folder.attempts)
    missing = [f"{it.what} {it.whom}: {it.trouble}" for it in records if not it.was_made]
    right = failed.keys() & _excused(failed, faults, accepted_before(record, records))
    behind = sold_behind(record, records)
    why = "; ".join(missing)
    if not why and not failed and judgement.verdict is Verdict.UNKNOWN:
        why = judgement.reason or "not judged"
    lost = _total(failed, _LOST)
    return replace(
        blank,
        broken=sorted([*(name for name in failed if _is_unsafe(failed[name])), *behind]),
        expected=sorted(right),
        acknowledged=judgement.accepted or 0,
        lost=0 if _LOST in right else lost,
        gone=lost if _LOST in right else 0,
        doubled=sum(_total(failed, name) for name in _DOUBLED if name not in right),
        recovered_s=teller.recovery.sold_s,
        sent_after=teller.recovery.sent,
        drained=not any(it.rule == _STILL_QUEUED for it in _breaches(failed.get(_QUEUE))),
        why=why,
    )


def _breaches(check: CheckResult | None) -> list[Finding]:
    findings = check.findings if check is not None else ()
    return [finding for finding in findings if finding.verdict is Verdict.FAIL]


def _is_unsafe(check: CheckResult) -> bool:
    """Whether more is wrong than that something is not done yet."""
    return check.name != _QUEUE or any(it.rule != _STILL_QUEUED for it in _breaches(check))


def _total(failed: dict[str, CheckResult], name: str) -> int:
    """How many offenders a check has found."""
    return sum(finding.total for finding in _breaches(failed.get(name)))


def _excused(
    failed: dict[str, CheckResult], faults: Sequence[PlannedFault], before: dict[int, int]
) -> frozenset[str]:
    """Rules whose breach is what these faults do, and no more. Pure.

    What a ledger forgets excuses no loss but of orders that were claimed before it forgot them, and
    nothing where no such order is lost. `before` are those, with their users.
    """
    excused = frozenset[str]().union(*(fault.expects for fault in faults))
    if _LOST not in excused:
        return excused
    offences = [it for finding in _breaches(failed.get(_LOST)) for it in finding.offences]
    named = all(it.order is not None and int(it.order) in before for it in offences)
    if offences and named and _total(failed, _LOST) <= len(before):
        users = set(before.values())
        return frozenset(
            name
            for name in excused
            if name not in _DOUBLED
            or all(
                offence.user in users
                for finding in _breaches(failed.get(name))
                for offence in finding.offences
            )
        )
    return excused & {_QUEUE} if any(f.what == "poison" for f in faults) else frozenset()


def accepted_before(record: Record, records: Sequence[FaultRecord]) -> dict[int, int]:
    """Orders whose claims were sent before the ledger forgot anything, with their users. Pure."""
    forgot_ms = max((it.behind_ms[0] for it in records if it.behind_ms), default=0.0)
    attempts, found = record.attempts, dict[int, int]()
    for attempt, answer in attempts.settled():
        sent_us = attempts.after_barrier_us(attempts.sent_ns[attempt])
        if answer.order is not None and sent_us is not None and sent_us < forgot_ms * 1000:
            found[int(answer.order)] = record.plan.users[attempt]
    return found


def sold_behind(record: Record, records: Sequence[FaultRecord]) -> list[str]:
    """SOLD_BEHIND where a claim was sent and sold while the ledger was behind, by somebody who had
    not asked before: who had may be told of an order that they have. Pure."""
    attempts, plan = record.attempts, record.plan
    for first_ms, last_ms in (it.behind_ms for it in records if it.behind_ms):
        asked: set[tuple[int, int]] = set()
        for attempt, answer in sorted(attempts.settled(), key=lambda it: attempts.sent_ns[it[0]]):
            sent_us = attempts.after_barrier_us(attempts.sent_ns[attempt])
            done_us = attempts.after_barrier_us(attempts.done_ns[attempt])
            if sent_us is None or done_us is None:
                continue
            who = plan.users[attempt], plan.things[attempt]
            within = sent_us >= first_ms * 1000 and done_us < last_ms * 1000
            if within and answer.outcome is Outcome.SOLD and who not in asked:
                return [SOLD_BEHIND]
            if sent_us < first_ms * 1000:
                asked.add(who)
    return []
