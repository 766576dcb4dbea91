"""Chaos: rehearsals with faults from seeds, each on a fresh stack, healed, drained and verified."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import orjson

from flashsale.campaign.campaign import SILENT, Teller
from flashsale.campaign.chaos_trial import TrialRequest, tried
from flashsale.errors import ExitCode, UsageError, worst
from flashsale.faults.controls import Control
from flashsale.faults.seeds import (
    EVERYTHING,
    Asked,
    Fate,
    Trial,
    as_tables,
    compose,
    exit_code_of,
    markdown,
    shrink,
)
from flashsale.faults.shim import compiler
from flashsale.run.folder import write_file
from flashsale.scenario.fault import PlannedFault
from flashsale.scenario.scenario import Scenario


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
    planted: Control | None = None  # a defect in every trial


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
    if compiler() is None and not request.asked.only:
        request = replace(request, asked=request.asked.without_compiler())
        teller.say("no C compiler, so these are left out: " + ", ".join(request.asked.left_out))
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


def _tried(request: ChaosRequest, seed: int, faults: Sequence[PlannedFault], out: Path) -> Trial:
    return tried(
        TrialRequest(
            request.scenario,
            seed,
            faults,
            out,
            request.recover_s,
            request.planted,
            form=request.asked.form,
        )
    )


def _seeds(request: ChaosRequest) -> Iterator[int]:
    if request.seeds is None:
        return count(request.first)
    return iter(range(request.first, request.first + request.seeds))


def told(trial: Trial) -> str:
    """A trial in a line."""
    recovered = "" if trial.recovered_s is None else f", sold again {trial.recovered_s:.1f} s after"
    gone = f", {trial.gone:,} forgotten by the ledger, each named" if trial.gone else ""
    broken = f": {', '.join(trial.broken)}" if trial.broken else ""
    why = f": {trial.why}" if trial.why else ""
    faults = " and ".join(trial.faults) or "no fault"
    return (
        f"seed {trial.seed}: {trial.fate}{broken}{why} ({faults}; "
        f"{trial.acknowledged:,} acknowledged{gone}{recovered})"
    )


def _repeating(
    request: ChaosRequest, trial: Trial, faults: Sequence[PlannedFault], teller: Teller
) -> list[str]:
    """How a failing seed is repeated, with the fewest of its faults that still fail."""
    command = f"flashsale chaos {request.name} --seeds 1 --from {trial.seed}"
    command += f" {request.asked.form}" if request.asked.form else ""
    for what in request.asked.only:
        command += f" --fault {what}"
    if request.asked.at_once is not None:
        command += f" --at-once {request.asked.at_once}"
    least: Sequence[PlannedFault] = faults
    if request.shrinks and len(faults) > 1:
        tries = count(1)

        def fails(some: Sequence[PlannedFault]) -> bool:
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
    request: ChaosRequest, controls: Mapping[str, Control], say: Callable[[str], None]
) -> ExitCode:
    """Plant each defect on a stack of its own; exit 8 where one is not found: such a chaos proves
    nothing. Raises UsageError before anything is started."""
    ensure_lasting(request.scenario)
    if form := request.asked.form:
        raise UsageError(f"--control: each is of a ledger on one server; leave {form} out")
    codes = [ExitCode.PASS]
    for name, control in controls.items():
        out = request.out / f"control-{name}"
        trial = _tried(replace(request, planted=control), request.first, control.faults, out)
        found = Controlled(name, control, trial)
        say(str(found))
        codes.append(ExitCode.PASS if found.is_found else ExitCode.NOTHING_JUDGED)
    return worst(*codes)
