"""A shard's run as it lies in its folder: what it was to fire, when, and what came of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from flashsale.errors import UsageError
from flashsale.storm.crew.shard import Shard
from flashsale.storm.health.effort import Effort
from flashsale.storm.record.plan_lines import read_plan
from flashsale.storm.record.runfolder import RunFolder
from flashsale.storm.record.scenario_file import scenario_of
from flashsale.storm.summary import Summary
from flashsale.storm.workload.plan import Plan, whole
from flashsale.storm.workload.scenario import Scenario

_T = TypeVar("_T")
_INSTANTS = ("due_us", "free_us", "sent_us", "done_us")


@dataclass(frozen=True)
class ShardRun:
    """One shard. `summary` and `effort` are None where it did not live to write them."""

    path: Path
    header: dict[str, Any] = field(repr=False)
    plan: Plan
    shard: Shard
    start_at_us: int
    barrier_unix_us: int | None
    scenario: Scenario = field(repr=False)
    summary: Summary | None = field(repr=False)
    effort: Effort | None = field(repr=False)

    @property
    def folder(self) -> RunFolder:
        """Where it lies."""
        return RunFolder(self.path)

    def lines(self, shift_us: int) -> Iterator[dict[str, Any]]:
        """What came after the barrier, as the whole plan has it: attempts by their numbers there,
        instants `shift_us` later, and each result with the `clock` that it was read from."""
        try:
            for line in _lines(self.folder.attempts):
                if "i" in line and line["kind"] != "plan":
                    yield self._placed(line, shift_us)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise _damaged(self.path, error) from error

    def _placed(self, line: dict[str, Any], shift_us: int) -> dict[str, Any]:
        line["i"] = self.plan.numbers[line["i"]]
        for name in _INSTANTS:
            if line.get(name) is not None:
                line[name] += shift_us
        if line["kind"] == "result":
            line["clock"] = self.shard.number
        return line

    @property
    def ended(self) -> bool:
        """Whether its record is whole, and nobody had cut it short."""
        ends = [line for line in _lines(self.folder.attempts) if line["kind"] == "end"]
        return bool(ends) and not ends[-1]["interrupted"]


def read_shard(path: Path) -> ShardRun:
    """The shard's run in the folder `path`. Raises UsageError with one line."""
    folder = RunFolder(path)
    try:
        plan = read_plan(folder.attempts)
        header, *_ = _lines(folder.attempts, 1)
        if "shard" not in header:
            raise UsageError(f"{path} is a whole run and no shard; there is nothing to merge")
        shard = header["shard"]
        return ShardRun(
            path=path,
            header=header,
            plan=plan,
            shard=Shard(shard["number"], shard["of"]),
            start_at_us=shard["start_at_unix_us"],
            barrier_unix_us=_barrier(folder),
            scenario=scenario_of(folder.scenario.read_bytes()),
            summary=_unless_missing(folder.summary, Summary.model_validate_json),
            effort=_unless_missing(folder.effort, Effort.of_json),
        )
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise UsageError(f"{path}: no {missing}; name the folders that shards left") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UsageError:
    reason = str(error).partition("\n")[0]
    return UsageError(f"{path}: damaged, or of another version ({reason})")


def whole_plan(runs: Sequence[ShardRun]) -> Plan:
    """The plan that these shards make. Raises UsageError with one line, where they are not all
    shards of one storm, each once."""
    _ensure_alike(runs)
    _ensure_each_once(runs, runs[0].shard.of)
    ordered = sorted(runs, key=lambda run: run.shard.number)
    try:
        plan = whole([run.plan for run in ordered])
    except ValueError as error:
        raise UsageError(f"{runs[0].path} and the others: {error}") from error
    if plan.digest != runs[0].header["plan_hash"]:
        raise UsageError(f"{runs[0].path} and the others do not make the plan that they name")
    return plan


def _ensure_alike(runs: Sequence[ShardRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.header["plan_hash"] != first.header["plan_hash"]:
            raise UsageError(
                f"{run.path} fired another plan than {first.path}; "
                "merge shards of the same scenario, seed and tokens"
            )
        if run.shard.of != first.shard.of:
            raise UsageError(
                f"{first.path} is shard {first.shard} and {run.path} is {run.shard}; "
                "merge shards of one division"
            )
        if run.start_at_us != first.start_at_us:
            raise UsageError(f"{run.path} and {first.path} had different --start-at")
        if run.scenario != first.scenario:
            raise UsageError(f"{run.path} and {first.path} had different scenarios or thresholds")


def _ensure_each_once(runs: Sequence[ShardRun], of: int) -> None:
    paths: dict[int, Path] = {}
    for run in runs:
        if run.shard.number in paths:
            both = f"{paths[run.shard.number]} and {run.path}"
            raise UsageError(f"shard {run.shard} is given twice: {both}")
        paths[run.shard.number] = run.path
    missing = [str(number) for number in range(1, of + 1) if number not in paths]
    if missing:
        shown = ", ".join(missing[:10]) + (", …" if len(missing) > 10 else "")
        raise UsageError(f"{len(missing)} of {of} shards are missing: {shown}")


def _lines(path: Path, most: int | None = None) -> Iterator[dict[str, Any]]:
    """Every line, or the first `most`; without a last one that a crash cut short."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            if number == most or not line.endswith(b"\n"):
                return
            yield orjson.loads(line)


def _unless_missing(path: Path, read: Callable[[bytes], _T]) -> _T | None:
    return read(path.read_bytes()) if path.exists() else None


def _barrier(folder: RunFolder) -> int | None:
    for line in _lines(folder.attempts):
        if line["kind"] == "barrier":
            return int(line["unix_us"])
    return None
