"""`flashsale report merge`: the shards that several machines fired become one run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flashsale.run.folder import RunFolder
    from flashsale.storm.crew.shard import ShardRun


def command(
    shards: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="The folders that all shards left.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The merged run's folder.", show_default="runs/SCENARIO-TIME"),
    ] = None,
) -> None:
    """Make one run of the shards that several machines fired, for `verify` and `report`.

    The shards have to be all of one storm, each once. Exits as one storm of it all would.
    """
    from datetime import UTC, datetime

    from flashsale.cli.storming import StormRun, print_run
    from flashsale.report.files import write_reports
    from flashsale.run.folder import create_run_folder
    from flashsale.storm.crew.merge import merge_runs
    from flashsale.storm.crew.shard import read_shard, whole_plan

    runs = [read_shard(path) for path in shards]
    plan = whole_plan(runs)
    folder = create_run_folder(runs[0].scenario.name, out, datetime.now(UTC))
    finished = merge_runs(runs, plan, folder)
    _keep_stores(runs, folder)
    write_reports(folder, finished.summary, finished.figures)
    print_run(StormRun(finished.summary, folder))
    raise typer.Exit(finished.summary.exit_code)


def _keep_stores(runs: "Sequence[ShardRun]", folder: "RunFolder") -> None:
    """Keep what the shards knew of the stores, for `verify`.

    The first baseline counts: all were taken before the instant at which anybody fired. The last
    ending counts, and only if every shard took one: else somebody may have fired on after it.
    """
    from flashsale.cli.options import copy_stack
    from flashsale.storm.crew.merge import baseline_of
    from flashsale.verify.ending import ended_last

    taken = baseline_of(runs)
    copy_stack((taken or runs[0]).path, folder.path)
    if taken is None:
        typer.echo("report: no shard took a baseline, so verify will judge less", err=True)
        return
    folder.baseline.write_bytes(taken.folder.baseline.read_bytes())
    last = ended_last([run.path for run in runs])
    if last is not None:
        folder.ending.write_bytes((last / folder.ending.name).read_bytes())
