"""Storming from the command line: preflight, baseline, storm, end mark and reports, in one go."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flashsale.cli.judging import Rival
from flashsale.cli.options import Stores, record_stack
from flashsale.cli.processes import ALONE, Crowd
from flashsale.errors import NothingJudgedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flashsale.cli.database_count import LoadCount
    from flashsale.storm.calibration import Calibration
    from flashsale.storm.figures.thresholds import Threshold
    from flashsale.storm.record.runfolder import RunFolder
    from flashsale.storm.summary import Summary
    from flashsale.storm.workload.plan import Plan
    from flashsale.storm.workload.scenario import Scenario


@dataclass(frozen=True)
class StormRequest:
    """What a storm is asked for.

    Without `stores` no baseline is taken; with `state_dir`, `verify` finds its stack by itself.
    A `plan` is fired as it is. With `verify_awaited` nothing counts as judged before the sale was
    verified, too.
    """

    scenario: "Scenario"
    base_url: str
    tokens: Path
    stores: Stores | None = None
    state_dir: Path | None = None
    out: Path | None = None
    crowd: Crowd = ALONE
    quiet: bool = False
    calibrate: bool = True
    aborts: "tuple[Threshold, ...]" = ()
    rival: Rival | None = None
    verify_awaited: bool = False
    csv: bool = False
    plan: "Plan | None" = None


@dataclass(frozen=True)
class StormRun:
    """A storm that is over, and where its files are."""

    summary: "Summary"
    folder: "RunFolder"


def run_storm(request: StormRequest) -> StormRun:
    """Preflight, baseline, storm and reports, with live progress on standard error.

    A run that went wrong is returned, with its exit code in the summary; what kept it from being
    run is raised (UsageError, UnreachableError), and so is typer.Exit where a signal came between
    the storm and the end of its reports.
    """
    from datetime import UTC, datetime

    from rich.console import Console

    from flashsale.report.files import write_reports
    from flashsale.report.live import LiveProgress
    from flashsale.report.sheet import write_sheet
    from flashsale.storm.attack.interrupts import interrupts
    from flashsale.storm.attack.target import Target
    from flashsale.storm.conclusion import with_loads
    from flashsale.storm.crew.crew import connections_each
    from flashsale.storm.figures.loads import Loads
    from flashsale.storm.health.ports import ensure_ports
    from flashsale.storm.health.selfwatch import ensure_descriptors
    from flashsale.storm.record.runfolder import create_run_folder
    from flashsale.storm.run import Assignment, storm

    scenario = request.scenario
    tokens = _tokens(request)
    ensure_descriptors(connections_each(scenario.load.connections, request.crowd.workers))
    ensure_ports(_connections(request))
    target = Target.at(request.base_url)
    if tokens:
        voucher = scenario.sale.first_voucher if scenario.sale else None
        target.preflight(voucher, next(iter(tokens.values())))
    else:
        target.preflight_reads()
    folder = create_run_folder(scenario.name, request.out, datetime.now(UTC))
    units = None
    if scenario.sale is not None:
        units = _take_baseline(request, folder, list(scenario.sale.voucher_ids))
    if request.state_dir is not None:
        record_stack(folder.path, request.state_dir)
    loads = _start_count(request)
    assignment = Assignment(
        scenario=scenario,
        target=target,
        folder=folder,
        units=units,
        workers=request.crowd.workers,
        aborts=request.aborts,
        verify_awaited=request.verify_awaited,
        plan=request.plan,
        shard=request.crowd.shard,
        start_at_us=request.crowd.start_at_us,
        calibration=_calibration(request),
    )
    _tell_start(request.crowd)
    with interrupts() as taken:
        with LiveProgress(Console(stderr=True), request.quiet, _stock(request, units)) as show:
            finished = storm(assignment, tokens, show)
        _take_ending(request, folder)
        summary = finished.summary
        if loads is not None:
            counted = loads.settled()
            if counted.loads is None:
                typer.echo(f"storm: loads are not counted: {counted.why}", err=True)
            found = Loads(counted.loads, *finished.plan.asked(), counted.why)
            summary = with_loads(scenario, finished.figures, summary, found)
        if request.rival is not None:
            summary = request.rival.held_against(summary, folder.path)
        if summary is not finished.summary:
            summary.write(folder.summary)
        write_reports(folder, summary, finished.figures)
        if request.csv:
            write_sheet(folder.attempts, folder.sheet)
    if taken.exit_code is not None and summary.load.interrupted_by is None:
        typer.echo(f"storm: interrupted; the run is in {folder.path}", err=True)
        raise typer.Exit(taken.exit_code)  # the storm was over, what was to follow is not
    return StormRun(summary, folder)


def _tokens(request: StormRequest) -> dict[int, str]:
    """The sessions of whoever comes; none where nobody has to be anybody."""
    from flashsale.storm.workload.tokens import read_tokens, read_tokens_of

    if not request.scenario.needs_users:
        return {}
    if request.plan is not None:
        return read_tokens_of(request.tokens, set(request.plan.users))
    return read_tokens(request.tokens, request.scenario.load.user_count)


def _connections(request: StormRequest) -> int:
    """How many this machine raises, its workers' together."""
    from flashsale.storm.crew.crew import connections_each

    every, shard = request.scenario.load.connections, request.crowd.shard
    return every if shard is None else connections_each(every, shard.of)


def _calibration(request: StormRequest) -> "Calibration | None":
    """What the generator can do, but for a storm that has an instant to keep, as shards have."""
    if not request.calibrate or request.crowd.start_at_us is not None:
        return None
    from flashsale.storm.calibration import calibrate

    return calibrate()


def _tell_start(crowd: Crowd) -> None:
    if crowd.start_at_us is not None:
        from datetime import UTC, datetime

        instant = datetime.fromtimestamp(crowd.start_at_us / 1e6, UTC)
        left_s = (instant - datetime.now(UTC)).total_seconds()
        typer.echo(f"storm: begins at {instant:%Y-%m-%dT%H:%M:%SZ}, in {left_s:,.0f} s", err=True)


def _stock(request: StormRequest, units: "Mapping[int, int] | None") -> int | None:
    """The units to be sold by this storm alone; None where others sell beside it."""
    if request.scenario.sale is None or request.crowd.shard is not None:
        return None
    return request.scenario.sale.units if units is None else sum(units.values())


def print_run(run: StormRun, *, interim: bool = False) -> None:
    """The table of a run, on standard output; an interim one is without its verdict."""
    from rich.console import Console

    from flashsale.report.console import print_summary

    print_summary(Console(), run.summary, run.folder.path, interim=interim)


def _start_count(request: StormRequest) -> "LoadCount | None":
    """Count what reads cost the database from now on, where it can be asked."""
    if request.scenario.browse is None or request.stores is None or request.crowd.shard:
        return None
    from flashsale.cli.database_count import LoadCount

    return LoadCount(request.stores.mysql_url)


def _take_baseline(
    request: StormRequest, folder: "RunFolder", vouchers: list[int]
) -> dict[int, int] | None:
    """Write baseline.json; the units that are for sale by it.

    A storm goes on without it, and verify says what it cannot judge.
    """
    try:
        if request.stores is None:
            raise UnreachableError("the stores are not known")
        from flashsale.verify import baseline

        taken = baseline.take(request.stores.ledger_url, request.stores.mysql_url, vouchers)
        folder.baseline.write_bytes(taken.to_json())
    except (UnreachableError, NothingJudgedError) as error:
        typer.echo(f"storm: no baseline, so verify will judge less: {error}", err=True)
        return None
    return {v: sale.redis_stock for v, sale in taken.sales.items() if sale.redis_stock is not None}


def _take_ending(request: StormRequest, folder: "RunFolder") -> None:
    """Write ending.json, so that later storms on the same sale do not disturb the judgement."""
    sale, stores = request.scenario.sale, request.stores
    if sale is None or stores is None or not folder.baseline.exists():
        return
    from flashsale.verify import ending

    claim_ms = request.scenario.timeouts.claim_ms
    try:
        taken = ending.take(stores.ledger_url, stores.mysql_url, sale.voucher_ids, claim_ms)
        folder.ending.write_bytes(taken.to_json())
    except (UnreachableError, NothingJudgedError) as error:
        typer.echo(f"storm: its end is not marked, so verify before the next: {error}", err=True)
