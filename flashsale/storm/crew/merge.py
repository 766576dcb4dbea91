"""Shards' records of attempts become one: one plan, and all results in one order of events.

Instants are aligned by what each shard's clock showed when its barrier opened: as it was, or, of
shards that met at a rendezvous, as it was compared with that one's clock. Either way a little is
left, so each result keeps the name of the `clock` that it was read from.

Shards become one run: record, latencies and summary, as if one process had fired it all.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from heapq import merge as merge_sorted
from operator import itemgetter
from typing import Any

import orjson

from flashsale.errors import ExitCode
from flashsale.model import Outcome
from flashsale.run.attempts_file import AttemptsFile, Record, read_record
from flashsale.run.folder import RunFolder, write_file
from flashsale.run.parts import Machine
from flashsale.run.summary import MergedFigures, MergedShard
from flashsale.scenario.scenario import scenario_document
from flashsale.storm.crew.shard import ShardRun
from flashsale.storm.figures.conclusion import Circumstances, Finished, conclude, write_results
from flashsale.storm.figures.figures import Figures
from flashsale.storm.figures.generator import Effort, ProcessEffort, together
from flashsale.storm.figures.sale import AskedVouchers, claims_by_voucher
from flashsale.storm.plan.plan import Plan


def _write_merged(runs: Sequence[ShardRun], plan: Plan, folder: RunFolder) -> None:
    """Write attempts.jsonl of the run that all shards in `runs` make, given by their numbers.

    An attempt of which a shard did not live to tell gets a result, too: indeterminate, by the
    error `shard`.
    """
    origin_us = barrier_unix_us(runs)
    results = _Results(runs, origin_us or 0, len(plan))
    with AttemptsFile(folder.attempts) as attempts:
        attempts.write_plan(_header(runs, plan, folder), plan)
        if origin_us is not None:
            attempts.write_barrier(origin_us)
        attempts.write_lines(map(_line, results.told()))
        attempts.write_lines(map(_line, results.supposed()))
        attempts.write_lines(_line(line) for run in runs for line in run.lines(0) if _is_late(line))
        attempts.write_end(len(plan), results.sent, not all(run.ended for run in runs))
        attempts.ensure_whole()


def barrier_unix_us(runs: Sequence[ShardRun]) -> int | None:
    """When the first barrier opened, by its own clock; None where none did."""
    opened = [run.barrier_unix_us for run in runs if run.barrier_unix_us is not None]
    return min(opened, default=None)


class _Results:
    """The results of all shards, counted while they are read."""

    def __init__(self, runs: Sequence[ShardRun], origin_us: int, planned: int) -> None:
        self._runs, self._origin_us = runs, origin_us
        self._known = bytearray(planned)
        self._last_us = self.sent = 0

    def told(self) -> Iterator[dict[str, Any]]:
        """What the shards tell, by the instants at which it came."""
        for line in merge_sorted(*map(self._of, self._runs), key=itemgetter("done_us")):
            self._known[line["i"]] = True
            self._last_us = line["done_us"]
            self.sent += line["sent_us"] is not None
            yield line

    def supposed(self) -> Iterator[dict[str, Any]]:
        """What has to be supposed of the attempts of which nobody told."""
        for i, known in enumerate(self._known):
            if not known:
                yield {
                    "kind": "result",
                    "i": i,
                    "due_us": None,
                    "sent_us": None,
                    "done_us": self._last_us,
                    "outcome": Outcome.INDETERMINATE,
                    "status": None,
                    "order": None,
                    "error": "shard",
                }

    def _of(self, run: ShardRun) -> Iterator[dict[str, Any]]:
        opened_us = self._origin_us if run.barrier_unix_us is None else run.barrier_unix_us
        for line in run.lines(opened_us - self._origin_us):
            if line["kind"] == "result":
                yield line
            elif line["kind"] == "spared":
                self._known[line["i"]] = True


def _is_late(line: dict[str, Any]) -> bool:
    """What was found out about attempts when the storm was over."""
    return bool(line["kind"] != "result")


def _line(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line) + b"\n"


def _header(runs: Sequence[ShardRun], plan: Plan, folder: RunFolder) -> dict[str, Any]:
    """The first shard's, but for what each shard has of its own. Units are as the stores had
    them where a shard could ask."""
    asked = next((run for run in runs if run.folder.baseline.exists()), runs[0])
    header = {key: runs[0].header[key] for key in runs[0].header if key not in ("kind", "schema")}
    del header["shard"]
    return header | {
        "run": folder.name,
        "asked": [step.endpoint for step in plan.steps],
        "units": asked.header["shard"]["units"],
        "connections": plan.connection_count,
        "planned": len(plan),
        "shards": [run.header["run"] for run in runs],
    }


def merge_runs(
    runs: Sequence[ShardRun],
    plan: Plan,
    folder: RunFolder,
    losses: Sequence[str] = (),
    interrupted_by: ExitCode | None = None,
) -> Finished:
    """Write scenario, record, latencies and summary of the run that `runs` make, to `folder`.

    They are all shards of `plan` (`whole_plan`). `losses` make the whole invalid, a line each;
    `interrupted_by` is the signal that ended all, where it was no shard's. Raises UsageError where
    a record is damaged.
    """
    runs = sorted(runs, key=lambda run: run.shard.number)
    write_file(folder.scenario, scenario_document(runs[0].scenario))
    _write_merged(runs, plan, folder)
    record = read_record(folder.attempts)
    figures = Figures(record.attempts, plan.asks)
    circumstances = _circumstances(runs, record, folder, interrupted_by)
    effort = _effort(runs, losses)
    summary = conclude(runs[0].scenario, figures, effort, circumstances)
    unwritten = write_results(folder, summary, figures)
    return Finished(summary, figures, plan, tuple(unwritten))


def baseline_of(runs: Sequence[ShardRun]) -> ShardRun | None:
    """The shard whose baseline counts, the first that has one: all took theirs before the instant
    at which anybody fired."""
    ordered = sorted(runs, key=lambda run: run.shard.number)
    return next((run for run in ordered if run.folder.baseline.exists()), None)


def _effort(runs: Sequence[ShardRun], known: Sequence[str]) -> Effort:
    """What it took, shard by shard. A shard that made its own run invalid does so to the whole."""
    efforts, losses = [], list(known)
    for run in runs:
        if run.effort is None or run.summary is None:
            losses.append(f"shard {run.shard} did not live to tell how it did")
            continue
        attempts = read_record(run.folder.attempts).attempts
        efforts.append(
            ProcessEffort(
                name=f"shard {run.shard.number}",
                connections=run.plan.connection_count,
                planned=attempts.planned,
                sent=attempts.sent,
                watch=run.effort.watch,
                start_lag=attempts.start_lag(),
                connect=run.effort.connect,
            )
        )
        losses += [f"shard {run.shard}: {told}" for told in run.summary.generator.complaints]
    return together(None, efforts, losses)


def _circumstances(
    runs: Sequence[ShardRun], record: Record, folder: RunFolder, interrupted_by: ExitCode | None
) -> Circumstances:
    opened_us = barrier_unix_us(runs) or runs[0].start_at_us
    started = datetime.fromtimestamp(opened_us / 1e6, UTC) if opened_us else datetime.now(UTC)
    return Circumstances(
        run=folder.name,
        base_url=runs[0].header["base_url"],
        plan_hash=runs[0].header["plan_hash"],
        started_at=started.isoformat(timespec="milliseconds"),
        resolved=len(record.attempts.resolved),
        late=record.attempts.late,
        interrupted_by=interrupted_by or _interrupted_by(runs),
        merged=_merged(runs),
        machine=_machine(runs),
        claims=claims_by_voucher(record.attempts, AskedVouchers.of(record)),
    )


def _interrupted_by(runs: Sequence[ShardRun]) -> ExitCode | None:
    codes = (run.summary.load.interrupted_by for run in runs if run.summary is not None)
    return next((ExitCode(code) for code in codes if code is not None), None)


def _clocks(runs: Sequence[ShardRun]) -> str:
    """How good the order of events between shards is: as far as their clocks were compared, else by
    what each kernel says of its own."""
    compared = [run.clock.error_us for run in runs if run.clock is not None]
    if len(compared) == sum(run.barrier_unix_us is not None for run in runs) > 0:
        worst_us = sum(sorted(compared)[-2:])
        return (
            "shards' clocks were compared just before the barrier: between shards, the order of "
            f"events is good to {worst_us / 1000:.1f} ms"
        )
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
                clock_offset_ms=None if run.clock is None else run.clock.offset_us / 1000,
                clock_error_ms=None if run.clock is None else run.clock.error_us / 1000,
            )
            for run in runs
        ],
        barrier_spread_ms=round((max(opened) - min(opened)) / 1000, 3) if opened else 0.0,
        caveats=caveats,
    )
