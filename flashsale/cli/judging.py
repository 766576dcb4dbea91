"""Options that say what a run has to live up to, the same for `storm` and `rehearse`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flashsale.errors import UsageError

if TYPE_CHECKING:
    from flashsale.storm.scenario import Scenario
    from flashsale.storm.thresholds import Threshold

FAIL_IF = "--fail-if"

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


def demanding(scenario: "Scenario", fail_if: Sequence[str] | None) -> "Scenario":
    """The scenario with these thresholds, too. Raises UsageError with one line."""
    if not fail_if:
        return scenario
    demanded = tuple(_threshold(scenario, text) for text in fail_if)
    for text, threshold in zip(fail_if, demanded, strict=True):
        _doubt(text, threshold)
    return scenario.model_copy(update={"thresholds": scenario.thresholds + demanded})


def _threshold(scenario: "Scenario", text: str) -> "Threshold":
    from flashsale.storm.thresholds import parse_expression

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
