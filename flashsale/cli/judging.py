"""Options that say what a run has to live up to, the same for `storm` and `rehearse`."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsale.errors import UsageError

if TYPE_CHECKING:
    from flashsale.storm.figures.thresholds import Threshold
    from flashsale.storm.summary import Summary
    from flashsale.storm.workload.scenario import Scenario

FAIL_IF = "--fail-if"
ABORT_IF = "--abort-if"
MAX_REGRESS = "15%"
_PERCENT = re.compile(r"\s*([0-9]{1,6}(?:\.[0-9]+)?)\s*%\s*")

FailIf = Annotated[
    list[str] | None,
    typer.Option(
        FAIL_IF,
        "--threshold",
        metavar="THRESHOLD",
        help="A threshold that has to HOLD, such as 'buy.p99<50ms': the run fails (exit 4) if its "
        "p99 is not below 50 ms. Repeatable; the scenario's own stay.",
    ),
]
AbortIf = Annotated[
    list[str] | None,
    typer.Option(
        ABORT_IF,
        metavar="CONDITION",
        help="End the storm early, and fail (exit 4), as soon as this becomes TRUE of the attempts "
        "that have ended so far, such as 'buy.indeterminate.share>20%'. Repeatable.",
    ),
]
Baseline = Annotated[
    Path | None,
    typer.Option(
        "--baseline",
        metavar="RUN",
        help="An earlier run's folder: what became worse by more than --max-regress exits with 5.",
    ),
]
MaxRegress = Annotated[
    str | None,
    typer.Option(
        "--max-regress",
        metavar="SHARE",
        help="How much worse than the baseline a latency, the rate or the share of errors may be.",
        show_default=MAX_REGRESS,
    ),
]
Csv = Annotated[bool, typer.Option("--csv", help="Write attempts.csv, one row an attempt, too.")]


@dataclass(frozen=True)
class Rival:
    """An earlier run to be held against, and how much worse than it a run may be (of 1)."""

    summary: "Summary"
    folder: Path
    max_regress: float

    def held_against(self, summary: "Summary", folder: Path) -> "Summary":
        """The run in `folder`, with what became of this one's figures in it."""
        from flashsale.report.compare import compare

        lies = os.path.relpath(self.folder.resolve(), folder.resolve())
        return summary.with_baseline(compare(self.summary, summary, self.max_regress, lies))


def rival(scenario: "Scenario", run: Path | None, max_regress: str | None) -> Rival | None:
    """The baseline that was asked for, if any. Raises UsageError with one line."""
    allowed = parse_regress(max_regress or MAX_REGRESS)
    if run is None:
        if max_regress is not None:
            raise UsageError("--max-regress: this goes with --baseline RUN")
        return None
    from flashsale.cli.report import read_run
    from flashsale.report.compare import ensure_comparable

    folder, summary = read_run(run, "--baseline ")
    try:
        ensure_comparable(summary, scenario.name, scenario.endpoints)
    except ValueError as error:
        raise UsageError(f"--baseline {run}: {error}") from error
    return Rival(summary, folder.path.resolve(), allowed)


def parse_regress(text: str) -> float:
    """The share of 1 in '15%'. Raises UsageError."""
    match = _PERCENT.fullmatch(text)
    if match is None:
        raise UsageError(f"--max-regress: found {text!r}, expected such as '{MAX_REGRESS}'")
    return float(match[1]) / 100


def demanding(scenario: "Scenario", fail_if: Sequence[str] | None) -> "Scenario":
    """The scenario with these thresholds, too. Raises UsageError with one line."""
    if not fail_if:
        return scenario
    demanded = tuple(_threshold(scenario, text) for text in fail_if)
    for text, threshold in zip(fail_if, demanded, strict=True):
        _doubt(text, threshold)
    return scenario.model_copy(update={"thresholds": scenario.thresholds + demanded})


def aborting(scenario: "Scenario", abort_if: Sequence[str] | None) -> "tuple[Threshold, ...]":
    """The conditions that are to end the storm. Raises UsageError with one line."""
    if not abort_if:
        return ()
    from flashsale.storm.attack.stopping import parse_abort

    try:
        conditions = tuple(parse_abort(text, ABORT_IF) for text in abort_if)
    except ValueError as error:
        raise UsageError(str(error)) from error
    for condition in conditions:
        if trouble := scenario.no_samples(condition):
            raise UsageError(f"{ABORT_IF}: {trouble}")
    return conditions


def _threshold(scenario: "Scenario", text: str) -> "Threshold":
    from flashsale.storm.figures.thresholds import parse_expression

    try:
        threshold = parse_expression(text, FAIL_IF)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if trouble := scenario.no_samples(threshold):
        raise UsageError(f"{FAIL_IF}: {trouble}")
    return threshold


def _doubt(text: str, threshold: "Threshold") -> None:
    """Say what was asked for, where it looks as if the option's name had been taken literally."""
    if threshold.metric.kind == "latency" and threshold.comparison in (">", ">="):
        typer.echo(
            f"storm: {FAIL_IF} {text!r} demands a slow answer: "
            f"the run fails unless {threshold.name} is {threshold.condition}",
            err=True,
        )
