"""Chaos: rehearsals with faults from seeds, each on a fresh stack, healed, drained and verified."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import orjson

from flashsale.campaign.rehearsal import RehearsalRequest, rehearse
from flashsale.campaign.storming import StoppedError, StormRequest
from flashsale.campaign.teller import SILENT, JudgedRun, Teller
from flashsale.errors import ExitCode, FlashsaleError, UsageError, worst
from flashsale.faults.controls import Control
from flashsale.faults.schedule import (
    EVERYTHING,
    REPLICAS,
    WORKERS,
    Asked,
    as_tables,
    compose,
    shrink,
)
from flashsale.faults.trials import Fate, Trial, exit_code_of, markdown
from flashsale.model import Outcome, Verdict
from flashsale.run.attempts_file import read_record
from flashsale.run.folder import RunFolder, write_file
from flashsale.run.parts import FaultRecord, read_faults
from flashsale.scenario.fault import Fault as Planned
from flashsale.scenario.scenario import Scenario
from flashsale.stack.state import StackState
from flashsale.verify.finding import Judgement

_LOST, _DOUBLED, _QUEUE = "accepted_persisted", ("one_per_user", "unique_ids"), "queue_empty"
_STACK = {
    "FLASHSALE_STACK_REPLICAS": str(REPLICAS),
    "FLASHSALE_STACK_WORKERS": str(WORKERS),
    "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "32",
    "FLASHSALE_STACK_MARIADB_BUFFER_POOL_MB": "64",
    "FLASHSALE_WORKER_CLAIM_IDLE_MS": "5000",
}


@dataclass(frozen=True)
class ChaosRequest:
    """What chaos is asked for.

    Seeds run from `first` on: `seeds` of them, or until `minutes` have passed, whichever comes
    first. `only_fault` makes one of a seed's faults alone, counted from 1. Within `recover_s` of
    the healing the sale has to sell again.
    """

    scenario: Scenario
    name: str
    out: Path
    seeds: int | None = 10
    first: int = 1
    minutes: float | None = None
    asked: Asked = EVERYTHING
    only_fault: int | None = None
    recover_s: float = 10.0
    shrinks: bool = True


@dataclass(frozen=True)
class Chaos:
    """What chaos found; `lines` tell how each failing seed is repeated."""

    trials: Sequence[Trial]
    lines: Sequence[str] = ()

    @property
    def exit_code(self) -> ExitCode:
        """What the process that ran it is to exit with."""
        return exit_code_of(self.trials) if self.trials else ExitCode.NOTHING_JUDGED


def ensure_lasting(scenario: Scenario) -> float:
    """Until when the storm begins something new, in seconds. Raises UsageError where that hangs on
    answers, or is too soon for a fault to begin and to be healed."""
    if scenario.sale is None:
        raise UsageError("chaos judges a sale: give a scenario with a [sale]")
    if scenario.fault:
        raise UsageError("chaos makes faults of its own: leave [[fault]] out, or use rehearse")
    last_ms = scenario.load.last_arrival_ms
    if last_ms is None or last_ms < 3_000:
        raise UsageError(
            "chaos needs a storm that goes on when its faults are healed: give load.model = 'rate' "
            "with load.stages of at least 3 s, as the built-in scenario `chaos` does"
        )
    return last_ms / 1000


def run_chaos(request: ChaosRequest, teller: Teller = SILENT) -> Chaos:
    """Try every seed. Raises UsageError before anything is started."""
    last_s = ensure_lasting(request.scenario)
    trials: list[Trial] = []
    lines: list[str] = []
    until_s = None if request.minutes is None else time.monotonic() + 60 * request.minutes
    for seed in _seeds(request):
        if until_s is not None and time.monotonic() >= until_s:
            break
        faults = compose(seed, last_s, request.asked)
        if request.only_fault is not None:
            faults = faults[request.only_fault - 1 : request.only_fault]
        trial = _tried(request, seed, faults, request.out / f"seed-{seed}")
        trials.append(trial)
        teller.say(told(trial))
        if trial.fate in (Fate.BROKEN, Fate.STUCK):
            lines += _repeating(request, trial, faults, teller)
        _write(request, Chaos(trials, lines))
    return Chaos(trials, lines)


def _seeds(request: ChaosRequest) -> Iterator[int]:
    if request.seeds is None:
        return count(request.first)
    return iter(range(request.first, request.first + request.seeds))


def told(trial: Trial) -> str:
    """A trial in a line."""
    recovered = "" if trial.recovered_s is None else f", sold again {trial.recovered_s:.1f} s after"
    if trial.acknowledged and not trial.sent_after:
        recovered = ", healed after the last claim, so whether it sells again was not asked"
    broken = f": {', '.join(trial.broken)}" if trial.broken else ""
    why = f": {trial.why}" if trial.why else ""
    faults = " and ".join(trial.faults) or "no fault"
    return (
        f"seed {trial.seed}: {trial.fate}{broken}{why} ({faults}; "
        f"{trial.acknowledged:,} acknowledged{recovered})"
    )


def _repeating(
    request: ChaosRequest, trial: Trial, faults: Sequence[Planned], teller: Teller
) -> list[str]:
    """How a failing seed is repeated, with the fewest of its faults that still fail."""
    command = f"flashsale chaos {request.name} --seeds 1 --from {trial.seed}"
    for what in request.asked.only:
        command += f" --fault {what}"
    if request.asked.at_once is not None:
        command += f" --at-once {request.asked.at_once}"
    least: Sequence[Planned] = faults
    if request.shrinks and len(faults) > 1:
        tries = count(1)

        def fails(some: Sequence[Planned]) -> bool:
            out = request.out / f"seed-{trial.seed}-fewer-{next(tries)}"
            found = _tried(request, trial.seed, some, out)
            teller.say(f"with fewer: {told(found)}")
            return found.fate is trial.fate

        least = shrink(faults, fails)
    if len(least) == 1 and request.only_fault is None and len(faults) > 1:
        command += f" --only {list(faults).index(least[0]) + 1}"
    elif request.only_fault is not None:
        command += f" --only {request.only_fault}"
    lines = [told(trial), f"repeat it with: {command}"]
    if not least and faults:
        lines.append("it fails without any fault, too")
    return [*lines, *as_tables(least).splitlines()]


# One trial ---------------------------------------------------------------------------------------


@dataclass
class _Witness(Teller):
    """Keeps what the judge found, and where."""

    found: JudgedRun | None = None
    said: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.said.append(line)

    def judged(self, found: JudgedRun) -> None:
        self.found = found


def _tried(
    request: ChaosRequest,
    seed: int,
    faults: Sequence[Planned],
    out: Path,
    control: Control | None = None,
) -> Trial:
    load = request.scenario.load.model_copy(update={"seed": seed})
    scenario = request.scenario.model_copy(update={"fault": tuple(faults), "load": load})
    names = [f"{fault.what} {fault.place}" for fault in faults]
    blank = Trial(seed, names, str(out), within_s=request.recover_s)
    witness = _Witness()
    with _customized(control) as environment:
        rehearsal = RehearsalRequest(
            StormRequest(scenario, out=out, calibrate=False),
            environment={**_STACK, **environment},
            planted=control.planted if control else _nothing,
        )
        try:
            code = rehearse(rehearsal, witness)
        except (UsageError, StoppedError):
            raise
        except FlashsaleError as error:
            return replace(blank, why=str(error).partition("\n")[0])
    if code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        raise StoppedError(f"interrupted; what was found is in {request.out}", code)
    if witness.found is None:
        return replace(blank, why="the storm was cut short")
    return _trial_of(blank, witness.found.judgement, faults, RunFolder(out))


def _nothing(state: StackState) -> None:
    """The stack is as it is."""


@contextmanager
def _customized(control: Control | None) -> Iterator[dict[str, str]]:
    if control is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="flashsale-control-") as folder:
        yield dict(control.environment(Path(folder)))


def _trial_of(
    blank: Trial, judgement: Judgement, faults: Sequence[Planned], folder: RunFolder
) -> Trial:
    failed = {it.name: it for it in judgement.checks if it.verdict is Verdict.FAIL}
    records = read_faults(folder)
    missing = [f"{it.what} {it.whom}: {it.trouble}" for it in records if not it.was_made]
    expected = frozenset[str]().union(*(fault.expects for fault in faults))
    sent, recovered_s = _recovery(folder, records)
    why = "; ".join(missing)
    if not why and not failed and judgement.verdict is Verdict.UNKNOWN:
        why = judgement.reason or "not judged"
    return replace(
        blank,
        broken=sorted(failed.keys() - {_QUEUE} | (failed.keys() & expected & {_QUEUE})),
        expected=sorted(failed.keys() & expected),
        acknowledged=judgement.accepted or 0,
        lost=_total(judgement, _LOST),
        doubled=sum(_total(judgement, name) for name in _DOUBLED),
        recovered_s=recovered_s,
        sent_after=sent,
        drained=_QUEUE not in failed or _QUEUE in expected,
        why=why,
    )


def _total(judgement: Judgement, name: str) -> int:
    """How many offenders a check has found."""
    findings = (it for check in judgement.checks if check.name == name for it in check.findings)
    return sum(finding.total for finding in findings if finding.verdict is Verdict.FAIL)


def _recovery(folder: RunFolder, records: Sequence[FaultRecord]) -> tuple[int, float | None]:
    """How many claims were sent once all was healed, and how long after that the first of them
    had its order."""
    healed_ms = max((record.healed_ms or 0.0 for record in records), default=0.0)
    attempts = read_record(folder.attempts).attempts
    healed_us, sent, first_us = healed_ms * 1000, 0, None
    for attempt, answer in attempts.settled():
        sent_us = attempts.after_barrier_us(attempts.sent_ns[attempt])
        if sent_us is None or sent_us < healed_us:
            continue
        sent += 1
        if answer.outcome is Outcome.SOLD:
            done_us = attempts.after_barrier_us(attempts.done_ns[attempt]) or 0
            first_us = done_us if first_us is None else min(first_us, done_us)
    return sent, None if first_us is None else round((first_us - healed_us) / 1e6, 3)


def _write(request: ChaosRequest, chaos: Chaos) -> None:
    """Leave chaos.json and chaos.md, after each seed: whoever stops it has what there is."""
    document = {"schema": 1, "scenario": request.name, "lines": list(chaos.lines)}
    trials = {"trials": [trial.to_json() for trial in chaos.trials]}
    text = orjson.dumps({**document, **trials}, option=orjson.OPT_INDENT_2)
    write_file(request.out / "chaos.json", text + b"\n")
    table = markdown(f"flashsale chaos {request.name}", chaos.trials, chaos.lines)
    write_file(request.out / "chaos.md", table.encode())


# Controls ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Controlled:
    """Whether a planted defect was found, as it must be."""

    name: str
    control: Control
    trial: Trial

    @property
    def is_found(self) -> bool:
        """Whether one of the rules that have to be breached was."""
        return bool(set(self.trial.broken) & set(self.control.must))

    def __str__(self) -> str:
        breached = ", ".join(self.trial.broken) or self.trial.why or "nothing"
        if self.is_found:
            return f"control {self.name}: found, as it must be: {breached}"
        return (
            f"control {self.name}: NOT found ({self.control.meaning}); breached: {breached}, "
            f"expected one of {', '.join(self.control.must)}"
        )


def run_controls(
    request: ChaosRequest, controls: dict[str, Control], say: Callable[[str], None]
) -> ExitCode:
    """Plant each defect on a stack of its own; exit 8 where one is not found: such a chaos proves
    nothing. Raises UsageError before anything is started."""
    ensure_lasting(request.scenario)
    codes = [ExitCode.PASS]
    for name, control in controls.items():
        out = request.out / f"control-{name}"
        found = Controlled(
            name, control, _tried(request, request.first, control.faults, out, control)
        )
        say(str(found))
        codes.append(ExitCode.PASS if found.is_found else ExitCode.NOTHING_JUDGED)
    return worst(*codes)
