"""Shards become one run: record, latencies and summary, as if one process had fired it all."""

from collections.abc import Sequence
from datetime import UTC, datetime

from flashsale.errors import ExitCode
from flashsale.storm.conclusion import Circumstances, conclude
from flashsale.storm.crew.merged_attempts import barrier_unix_us, write_merged
from flashsale.storm.crew.shard_run import ShardRun
from flashsale.storm.figures.claims import read_asked
from flashsale.storm.figures.figures import Figures
from flashsale.storm.figures.salefigures import sale_figures
from flashsale.storm.health.effort import Effort, Share, together
from flashsale.storm.health.machine import Machine
from flashsale.storm.record.attempts import read_ledger
from flashsale.storm.record.ledger import Ledger
from flashsale.storm.record.runfolder import RunFolder
from flashsale.storm.record.scenario_file import scenario_document
from flashsale.storm.run import Finished
from flashsale.storm.summary import MergedFigures, MergedShard
from flashsale.storm.workload.plan import Plan


def merge_runs(runs: Sequence[ShardRun], plan: Plan, folder: RunFolder) -> Finished:
    """Write scenario, record, latencies and summary of the run that `runs` make, to `folder`.

    They are all shards of `plan` (`whole_plan`). Raises UsageError where a record is damaged.
    """
    runs = sorted(runs, key=lambda run: run.shard.number)
    folder.scenario.write_bytes(scenario_document(runs[0].scenario))
    write_merged(runs, plan, folder)
    ledger = read_ledger(folder.attempts)
    figures = Figures(ledger, plan.asks)
    circumstances = _circumstances(runs, ledger, folder)
    summary = conclude(runs[0].scenario, figures, _effort(runs), circumstances)
    summary.write(folder.summary)
    folder.hgrm.write_text(figures.latency("response").hgrm(), encoding="utf-8")
    folder.hlog.write_text(figures.hlog(), encoding="utf-8")
    return Finished(summary, figures, plan)


def baseline_of(runs: Sequence[ShardRun]) -> ShardRun | None:
    """The shard whose baseline counts, the first that has one: all took theirs before the instant
    at which anybody fired."""
    ordered = sorted(runs, key=lambda run: run.shard.number)
    return next((run for run in ordered if run.folder.baseline.exists()), None)


def _effort(runs: Sequence[ShardRun]) -> Effort:
    """What it took, shard by shard. A shard that made its own run invalid does so to the whole."""
    shares, losses = [], []
    for run in runs:
        if run.effort is None or run.summary is None:
            losses.append(f"shard {run.shard} did not live to tell how it did")
            continue
        ledger = read_ledger(run.folder.attempts)
        shares.append(
            Share(
                name=f"shard {run.shard.number}",
                connections=run.plan.connection_count,
                planned=ledger.planned,
                sent=ledger.sent,
                watch=run.effort.watch,
                start_lag=ledger.start_lag(),
                connect=run.effort.connect,
            )
        )
        losses += [f"shard {run.shard}: {told}" for told in run.summary.generator.complaints]
    return together(None, shares, losses)


def _circumstances(runs: Sequence[ShardRun], ledger: Ledger, folder: RunFolder) -> Circumstances:
    opened_us = barrier_unix_us(runs) or runs[0].start_at_us
    started = datetime.fromtimestamp(opened_us / 1e6, UTC)
    return Circumstances(
        run=folder.name,
        base_url=runs[0].header["base_url"],
        plan_hash=runs[0].header["plan_hash"],
        started_at=started.isoformat(timespec="milliseconds"),
        resolved=len(ledger.resolved),
        late=ledger.late,
        interrupted_by=_interrupted_by(runs),
        merged=_merged(runs),
        machine=_machine(runs),
        sale=sale_figures(ledger, read_asked(folder.attempts)),
    )


def _interrupted_by(runs: Sequence[ShardRun]) -> ExitCode | None:
    codes = (run.summary.load.interrupted_by for run in runs if run.summary is not None)
    return next((ExitCode(code) for code in codes if code is not None), None)


def _clocks(runs: Sequence[ShardRun]) -> str:
    """How good the order of events between shards is, by what each kernel says of its clock."""
    errors = {run.shard.number: run.header["shard"]["clock_error_us"] for run in runs}
    loose = [str(number) for number, error_us in errors.items() if error_us is None]
    if loose:
        return (
            f"nothing keeps the clock of shard {', '.join(loose)} in time: between shards, the "
            "order of events is not to be relied on"
        )
    first, second = sorted(errors.values())[-2:] if len(errors) > 1 else (0, 0)
    return (
        f"shards' clocks may differ by up to {(first + second) / 1000:.1f} ms: between shards, the "
        "order of events is no better than that"
    )


def _machine(runs: Sequence[ShardRun]) -> Machine | None:
    """The machine, where all shards ran on such."""
    machines = {run.summary.machine for run in runs if run.summary is not None}
    return machines.pop() if len(machines) == 1 else None


def _merged(runs: Sequence[ShardRun]) -> MergedFigures:
    opened = [run.barrier_unix_us for run in runs if run.barrier_unix_us is not None]
    urls = {run.header["base_url"] for run in runs}
    caveats = [_clocks(runs)]
    if len(urls) > 1:
        caveats.append(f"shards went to different addresses: {', '.join(sorted(urls))}")
    return MergedFigures(
        shards=[
            MergedShard(
                number=run.shard.number,
                run=run.header["run"],
                base_url=run.header["base_url"],
                barrier_unix_us=run.barrier_unix_us,
            )
            for run in runs
        ],
        barrier_spread_ms=round((max(opened) - min(opened)) / 1000, 3) if opened else 0.0,
        caveats=caveats,
    )
