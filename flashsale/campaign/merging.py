"""The shards that several machines fired become one run, for `verify` and `report`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from flashsale.campaign.stores import copy_stack
from flashsale.campaign.teller import StormRun, Teller
from flashsale.report.files import write_reports
from flashsale.run.folder import RunFolder, create_run_folder, read_file, telling, write_file
from flashsale.storm.crew.merge import baseline_of, merge_runs
from flashsale.storm.crew.shard import ShardRun, read_shard, whole_plan
from flashsale.verify.ending import ended_last


def merge_shards(shards: Sequence[Path], out: Path | None, teller: Teller) -> StormRun:
    """One run of these shards' folders, in `out` or in a folder of its own.

    They have to be all of one storm, each once. Raises UsageError with one line.
    """
    runs = [read_shard(path) for path in shards]
    plan = whole_plan(runs)
    folder = create_run_folder(runs[0].scenario.name, out, datetime.now(UTC), teller.say)
    finished = merge_runs(runs, plan, folder)
    for line in finished.unwritten:
        teller.say(line)
    with telling(teller.say):
        _keep_stores(runs, folder, teller)
    write_reports(folder, finished.summary, teller.say, finished.figures)
    run = StormRun(finished.summary, folder)
    teller.stormed(run)
    return run


def _keep_stores(runs: Sequence[ShardRun], folder: RunFolder, teller: Teller) -> None:
    """Keep what the shards knew of the stores, for `verify`.

    The first baseline counts: all were taken before the instant at which anybody fired. The last
    ending counts, and only if every shard took one: else somebody may have fired on after it.
    """
    taken = baseline_of(runs)
    copy_stack((taken or runs[0]).path, folder.path)
    if taken is None:
        teller.say("no shard took a baseline, so verify will judge less")
        return
    write_file(folder.baseline, read_file(taken.folder.baseline))
    last = ended_last([run.path for run in runs])
    if last is not None:
        write_file(folder.ending, read_file(last / folder.ending.name))
