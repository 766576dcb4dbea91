"""Options of `storm` and `rehearse`: what is fired, by how many, and what has to come of it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flashsale.campaign.campaign import TOKENS
from flashsale.campaign.judging import (
    ABORT_IF,
    EXERCISED,
    MAX_REGRESS,
    REQUIRE,
    EarlierRun,
    ensure_virtual_users,
    parse_regress,
)
from flashsale.cli.terminal import tell
from flashsale.errors import UsageError
from flashsale.run.attempts import PlanColumns
from flashsale.scenario.scenario import Scenario, load_scenario
from flashsale.scenario.thresholds import Threshold
from flashsale.storm.crew.shard import (
    Shard,
    parse_instant_us,
    parse_shard,
    read_recording,
    shard_of_job,
)

PROCESSES_MAX = 64

_workload = partial(typer.Option, rich_help_panel="Workload")
_machines = partial(typer.Option, rich_help_panel="Machines")
_judgement = partial(typer.Option, rich_help_panel="Judgement")
_output = partial(typer.Option, rich_help_panel="Output")

# What is fired ---------------------------------------------------------------------------------

ScenarioName = Annotated[
    str | None,
    typer.Argument(help="A built-in scenario, or the path of a .toml.", show_default=False),
]
Replay = Annotated[
    Path | None,
    _workload(
        "--replay", metavar="RUN", help="Fire the very plan of this run, in place of a scenario."
    ),
]
Tokens = Annotated[
    Path | None,
    _workload(help="The users' tokens.", show_default=f"{TOKENS} in the state folder"),
]
Calibrate = Annotated[
    bool,
    _workload(
        "--calibrate/--no-calibrate",
        help="First find out, in half a second, what this generator can send.",
    ),
]


def chosen(
    scenario: str | None, replay: Path | None, target: str | None = None
) -> tuple[Scenario, PlanColumns | None]:
    """The scenario, and with `--replay` the plan. Raises UsageError with one line."""
    if replay is None:
        if scenario is None:
            raise UsageError("give a scenario, such as `stampede`, or --replay RUN")
        return load_scenario(scenario, target), None
    if target is not None:
        raise UsageError(f"--replay: the run has its own target, so leave {target!r} out")
    if scenario is not None:
        raise UsageError(f"--replay: the run has its own scenario, so leave {scenario!r} out")
    recording = read_recording(replay)
    tell(f"replaying {replay}: plan {recording.plan.digest}", err=True)
    return recording.scenario, recording.plan


# By how many -----------------------------------------------------------------------------------

Workers = Annotated[
    int,
    _machines(
        help="Processes that fire the plan, each its part of the connections.",
        min=1,
        max=PROCESSES_MAX,
    ),
]
StartAt = Annotated[
    str | None,
    _machines(
        "--start-at",
        metavar="INSTANT",
        help="When the barrier opens, such as 2026-11-23T10:00:00Z.",
    ),
]
ShardOption = Annotated[
    str | None,
    _machines(
        "--shard",
        metavar="K/N|auto",
        help="Fire part K of N; others fire the others. `auto` takes both from an Indexed Job. "
        "Needs --rendezvous or --start-at.",
    ),
]
RendezvousUrl = Annotated[
    str | None,
    _machines(
        "--rendezvous",
        metavar="URL",
        envvar="FLASHSALE_RENDEZVOUS_URL",
        help="Where a rendezvous answers: it has scenario, plan, tokens and the instant, and takes "
        "the record.",
    ),
]


@dataclass(frozen=True)
class Generators:
    """Who fires a plan, and from when on.

    `shard` is this machine's part, and `start_at_us` the instant in µs since 1970, UTC.
    """

    processes: int = 1
    shard: Shard | None = None
    start_at_us: int | None = None


def generators(
    scenario: Scenario, processes: int, shard: str | None = None, start_at: str | None = None
) -> Generators:
    """What was asked for. Raises UsageError, also where somebody would have no connection."""
    if shard is not None and start_at is None:
        raise UsageError(
            "--shard: this goes with --rendezvous or --start-at, so that all shards begin at once"
        )
    try:
        instant = None if start_at is None else parse_instant_us(start_at, datetime.now(UTC))
    except ValueError as error:
        raise UsageError(f"--start-at: {error}") from error
    found = Generators(processes, None if shard is None else shard_named(shard), instant)
    ensure_virtual_users(found.processes, found.shard, scenario.load.virtual_users)
    return found


def shard_named(text: str) -> Shard:
    """The shard `2/8`, or `auto`: that of this Pod in its Indexed Job. Raises UsageError."""
    try:
        return shard_of_job(os.environ) if text == "auto" else parse_shard(text)
    except ValueError as error:
        raise UsageError(f"--shard: {error}") from error


def ensure_left_to_the_rendezvous(**given: object) -> None:
    """Raises UsageError for an option that is the rendezvous' to be given, by its name."""
    for name, value in given.items():
        if value:
            raise UsageError(
                f"--{name.replace('_', '-')}: give this to the rendezvous, where it counts for all"
            )


# What it has to live up to -----------------------------------------------------------------------

Require = Annotated[
    list[str] | None,
    _judgement(
        REQUIRE,
        metavar="THRESHOLD",
        help="What has to hold, such as 'buy.p99<50ms', else exit 4. Repeatable. A rehearsal takes "
        f"'{EXERCISED}CHECK', too: a rule that has to have been put to the test, else exit 8.",
    ),
]
FailIf = Annotated[
    list[str] | None,
    typer.Option("--fail-if", "--threshold", hidden=True, help="What --require was called before."),
]

AbortIf = Annotated[
    list[str] | None,
    _judgement(
        ABORT_IF,
        metavar="CONDITION",
        help="End the storm, and fail, once this becomes true: 'buy.indeterminate.share>20%'.",
    ),
]
Baseline = Annotated[
    Path | None,
    _judgement(
        "--baseline",
        metavar="RUN",
        help="An earlier run: what became worse by more than --max-regress exits with 5.",
    ),
]
MaxRegress = Annotated[
    str | None,
    _judgement(
        "--max-regress",
        metavar="SHARE",
        help="How much worse a latency, the rate or the share of errors may be.",
        show_default=MAX_REGRESS,
    ),
]


def required(require: Sequence[str] | None, fail_if: Sequence[str] | None) -> list[str]:
    """All thresholds that were given, by the option's new name and by its old ones."""
    if fail_if:
        tell(
            "flashsale: --fail-if and --threshold are called --require now; it means the same: "
            f"the run fails unless {fail_if[0]!r} holds",
            err=True,
        )
    return [*(require or []), *(fail_if or [])]


def doubtful(thresholds: Sequence[Threshold]) -> list[str]:
    """What looks as if a threshold had been taken for a condition of failure."""
    return [
        f"{REQUIRE} '{it.name}{it.condition}' demands a slow answer: the run fails unless "
        f"{it.name} is {it.condition}"
        for it in thresholds
        if it.metric.kind == "latency" and it.comparison in (">", ">=")
    ]


def earlier(scenario: Scenario, run: Path | None, max_regress: str | None) -> EarlierRun | None:
    """The run to be held against, if one was asked for. Raises UsageError with one line."""
    allowed = parse_regress(max_regress or MAX_REGRESS)
    if run is None:
        if max_regress is not None:
            raise UsageError("--max-regress: this goes with --baseline RUN")
        return None
    return EarlierRun.read(scenario, run, allowed)


# What it leaves and shows ------------------------------------------------------------------------

Out = Annotated[
    Path | None,
    _output("--out", help="The run folder.", show_default="runs/SCENARIO-TIME"),
]
Csv = Annotated[
    bool,
    _output("--csv", help="Write attempts.csv, one row an attempt."),
]
Quiet = Annotated[bool, _output("--quiet", "-q", help="No live progress.")]
