"""Shards' records of attempts become one: one plan, and all results in one order of events.

Instants are aligned by what each shard's clock showed when its barrier opened. Nobody compared
those clocks, so each result keeps the name of the `clock` that it was read from.
"""

from collections.abc import Iterator, Sequence
from heapq import merge as merge_sorted
from operator import itemgetter
from typing import Any

import orjson

from flashsale.model import Outcome
from flashsale.storm.crew.shard_run import ShardRun
from flashsale.storm.record.attempts import AttemptsFile
from flashsale.storm.record.runfolder import RunFolder
from flashsale.storm.workload.plan import Plan


def write_merged(runs: Sequence[ShardRun], plan: Plan, folder: RunFolder) -> None:
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
