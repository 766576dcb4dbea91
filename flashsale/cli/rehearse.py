"""`flashsale rehearse`: the whole of it on a fresh private stack, one verdict, one exit code."""

from pathlib import Path
from typing import Annotated

import typer

from flashsale import telemetry
from flashsale.campaign.campaign import JudgedRun, StormRun
from flashsale.campaign.judging import aborting, exercising, only_thresholds, requiring
from flashsale.campaign.rehearsal import REHEARSALS, RehearsalRequest, rehearse
from flashsale.campaign.storming import StormRequest
from flashsale.cli.machine import show_when_filled
from flashsale.cli.options import Durable
from flashsale.cli.run import show
from flashsale.cli.storm_options import (
    AbortIf,
    Baseline,
    Calibrate,
    Csv,
    FailIf,
    MaxRegress,
    Out,
    Quiet,
    Replay,
    Require,
    ScenarioName,
    Workers,
    chosen,
    doubtful,
    earlier,
    generators,
    required,
)
from flashsale.cli.terminal import TerminalTeller, console, tell, tell_workflow
from flashsale.errors import UsageError
from flashsale.report.console import print_summary
from flashsale.stack.state import StackState


def command(
    scenario: ScenarioName = None,
    replay: Replay = None,
    calibrate: Calibrate = True,
    require: Require = None,
    fail_if: FailIf = None,
    abort_if: AbortIf = None,
    baseline: Baseline = None,
    max_regress: MaxRegress = None,
    out: Out = None,
    csv: Csv = False,
    quiet: Quiet = False,
    workers: Workers = 1,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Leave the stack up, to look at or to break.", rich_help_panel="System"
        ),
    ] = False,
    observe: Annotated[
        bool,
        typer.Option(
            "--observe", help="Prometheus and exporters beside the stack.", rich_help_panel="System"
        ),
    ] = False,
    ha: Annotated[
        bool,
        typer.Option(
            "--ha",
            help="The stack's ledger with a replica and Sentinels, as `serve --ha` has it.",
            rich_help_panel="System",
        ),
    ] = False,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster",
            help="The stack's ledger on a Redis Cluster, as `serve --cluster` has it.",
            rich_help_panel="System",
        ),
    ] = False,
    durability: Durable = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            help="The stack's own folder; it must not exist yet.",
            show_default=f"{REHEARSALS}/SCENARIO-…",
            rich_help_panel="System",
        ),
    ] = None,
) -> None:
    """Serve, seed, warm, storm and verify on a fresh private stack, in one go."""
    planned, plan = chosen(scenario, replay)
    if planned.target.is_own or planned.books is not None:
        raise UsageError(
            "a rehearsal is of the stack that it starts; for somebody's shop there are "
            "`flashsale storm` and `flashsale verify`"
        )
    demanded = required(require, fail_if)
    if planned.sale is None:
        only_thresholds(demanded)
    thresholds, exercised = exercising(demanded)
    loaded = requiring(planned, thresholds)
    who = generators(loaded, workers)
    teller = _RehearsalTeller("rehearse", quiet)
    for doubt in doubtful(loaded.thresholds[len(planned.thresholds) :]):
        teller.say(doubt)
    storm = StormRequest(
        scenario=loaded,
        plan=plan,
        out=out,
        processes=who.processes,
        calibrate=calibrate,
        aborts=aborting(loaded, abort_if or ()),
        baseline=earlier(loaded, baseline, max_regress),
        csv=csv,
    )
    telemetry.silence()  # what a rebuild says is told as its fault's end
    stack = {
        "HA": "1" if ha else "",
        "CLUSTER": "1" if cluster else "",
        "DURABILITY": durability or "",
    }
    request = RehearsalRequest(
        storm=storm,
        state_dir=state_dir,
        keep=keep,
        observe=observe,
        exercised=exercised,
        environment={f"FLASHSALE_STACK_{name}": value for name, value in stack.items() if value},
    )
    raise typer.Exit(rehearse(request, teller))


class _RehearsalTeller(TerminalTeller):
    """The storm's table, then the judge's; what is final goes to the workflow, too."""

    def stormed(self, run: StormRun) -> None:
        interim = run.summary.verify.awaited and run.summary.load.interrupted_by is None
        print_summary(console(), run.summary, run.folder.path, interim=interim)
        if not interim:
            tell_workflow(run.summary)
            tell(f"report {run.folder.report}")

    def judged(self, found: JudgedRun) -> None:
        show(found.judgement, console(), found.verdict, found.exit_code)
        if found.summary is not None:
            tell_workflow(found.summary)
            tell(f"report {found.folder.report}")

    def observed(self, state: StackState) -> None:
        show_when_filled(state)
