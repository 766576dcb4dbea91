"""A shard: one machine's part of a plan that several machines fire at the same instant; and runs
read back from their folders: a shard's, to be merged, and any other's plan, to be fired again.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from flashsale.errors import UsageError
from flashsale.run.attempts import ClockReading, PlanColumns
from flashsale.run.attempts_file import lines_of, read_plan, read_record
from flashsale.run.folder import RunFolder, read_file
from flashsale.run.summary import Summary
from flashsale.scenario.scenario import Scenario, scenario_of
from flashsale.storm.attack.instants import clock_error_us
from flashsale.storm.figures.generator import Effort
from flashsale.storm.plan.plan import Plan, whole

SHARDS_MAX = 1_000
_SHARD = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")
_FAR_AHEAD_S = 86_400


@dataclass(frozen=True)
class Shard:
    """Shard `number` (1 to `of`)."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_shard(text: str) -> Shard:
    """The shard written as `2/8`. Raises ValueError with one line."""
    match = _SHARD.fullmatch(text)
    if match is not None:
        shard = Shard(int(match[1]), int(match[2]))
        if 1 <= shard.number <= shard.of <= SHARDS_MAX:
            return shard
    raise ValueError(f"found {text!r}, expected such as 2/8: the second of eight, at most 1,000")


INDEX, SHARDS = "JOB_COMPLETION_INDEX", "FLASHSALE_SHARDS"
"""What an Indexed Job of Kubernetes tells each of its Pods, and what its manifest has to."""


def shard_of_job(environment: Mapping[str, str]) -> Shard:
    """The shard that an Indexed Job makes of a process. Raises ValueError with one line."""
    for name in (INDEX, SHARDS):
        if not environment.get(name):
            raise ValueError(f"auto: {name} is not set; by hand give such as --shard 2/8")
    index, of = environment[INDEX], environment[SHARDS]
    if index.isascii() and index.isdigit() and len(index) <= len(str(SHARDS_MAX)):
        with suppress(ValueError):
            return parse_shard(f"{int(index) + 1}/{of}")
    found = f"{INDEX}={index[:20]} and {SHARDS}={of[:20]}"
    raise ValueError(f"auto: found {found}, expected 0 to {SHARDS} - 1, at most {SHARDS_MAX:,}")


def parse_instant_us(text: str, now: datetime) -> int:
    """The instant written as `2026-11-23T10:00:00Z`, in µs since 1970, UTC.

    Raises ValueError with one line where it is none, says no offset from UTC, has passed, or is
    more than a day ahead: machines that storm together have one idea of the time of day.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ValueError(f"found {text!r}, expected an instant such as {_example(now)}")
    ahead_s = (instant - now).total_seconds()
    if ahead_s <= 0:
        raise ValueError(f"{text} has passed; it is {now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    if ahead_s > _FAR_AHEAD_S:
        raise ValueError(f"{text} is more than a day ahead; expected such as {_example(now)}")
    return round(instant.timestamp() * 1e6)


def _example(now: datetime) -> str:
    return f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def record_header(
    scenario: Scenario, plan: PlanColumns, *, run: str, plan_hash: str, base_url: str
) -> dict[str, object]:
    """The head of a storm's record, but for its units, which are a whole run's or a shard's."""
    sale = scenario.sale
    return {
        "run": run,
        "scenario": scenario.name,
        "seed": scenario.load.seed,
        "plan_hash": plan_hash,
        "base_url": base_url,
        "asked": [step.endpoint for step in plan.steps],
        "vouchers": list(sale.voucher_ids) if sale else [],
        "units": {},
        **_shop_header(scenario),
        "connections": plan.connection_count,
        "clicks": plan.clicks,
        "cold": plan.cold,
        "retry_on": plan.retry_on,
        "planned": len(plan),
        "barrier_unix_us": None,
    }


def _shop_header(scenario: Scenario) -> dict[str, object]:
    """What is said only of sales that are not as ours: a judge has to know."""
    sale, said = scenario.sale, dict[str, object]()
    if sale is not None and sale.limit != 1:
        said["limit"] = sale.limit
    if sale is not None and sale.quantity != 1:
        said["quantity"] = sale.quantity
    if scenario.target.is_own:
        said["text_ids"] = True
    return said


def shard_header(
    shard: Shard,
    planned: int,
    units: Mapping[int, int],
    start_at_us: int | None,
    rendezvous: str | None,
) -> dict[str, object]:
    """What the head of a shard's record says of the whole, in which `planned` attempts are."""
    return {
        "number": shard.number,
        "of": shard.of,
        "planned": planned,
        "start_at_unix_us": start_at_us,
        "clock_error_us": clock_error_us(),
        "units": units_by_text(units),
        **({} if rendezvous is None else {"rendezvous": rendezvous}),
    }


def units_by_text(units: Mapping[int, int]) -> dict[str, int]:
    """The same with keys that JSON has."""
    return {str(voucher): left for voucher, left in units.items()}


_T = TypeVar("_T")
_NAMED = ("run", "scenario", "base_url", "plan_hash")
_INSTANTS = ("due_us", "free_us", "sent_us", "done_us")


@dataclass(frozen=True)
class ShardRun:
    """One shard. `summary` and `effort` are None where it did not live to write them.

    Where its `clock` was compared with that of a rendezvous, instants are by the latter.
    """

    path: Path
    header: dict[str, Any] = field(repr=False)
    plan: Plan
    shard: Shard
    start_at_us: int | None
    barrier_unix_us: int | None
    clock: ClockReading | None
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
            for line in lines_of(self.folder.attempts):
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
        ends = [line for line in lines_of(self.folder.attempts) if line["kind"] == "end"]
        return bool(ends) and not ends[-1]["interrupted"]


def read_shard(path: Path) -> ShardRun:
    """The shard's run in the folder `path`. Raises UsageError with one line."""
    folder = RunFolder(path)
    with _read_from(path, "name the folders that shards left"):
        record = read_record(folder.attempts)
        plan, header = Plan.of(record.plan), record.header
        if any(not isinstance(header[name], str) for name in _NAMED):
            raise ValueError(f"expected text as {', '.join(_NAMED)}")
        if header.get("shard") is None:
            raise UsageError(f"{path} is a whole run and no shard; there is nothing to merge")
        shard, opened_us = header["shard"], record.attempts.barrier_unix_us
        ahead_us = 0 if record.clock is None else record.clock.offset_us
        return ShardRun(
            path=path,
            header=header,
            plan=plan,
            shard=Shard(shard["number"], shard["of"]),
            start_at_us=shard["start_at_unix_us"],
            barrier_unix_us=opened_us + ahead_us if opened_us else None,
            clock=record.clock,
            scenario=scenario_of(read_file(folder.scenario)),
            summary=_unless_missing(folder.summary, Summary.model_validate_json),
            effort=_unless_missing(folder.effort, Effort.of_json),
        )


@contextmanager
def _read_from(path: Path, cure: str) -> Iterator[None]:
    """Make a run folder that cannot be read one line. Raises UsageError."""
    try:
        yield
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise UsageError(f"{path}: no {missing}; {cure}") from error
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
        if run.header["shard"].get("rendezvous") != first.header["shard"].get("rendezvous"):
            raise UsageError(f"{run.path} and {first.path} were not of one rendezvous")
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


def _unless_missing(path: Path, read: Callable[[bytes], _T]) -> _T | None:
    return read(read_file(path)) if path.exists() else None


@dataclass(frozen=True)
class Recording:
    """A plan that was fired, to be fired again as it is."""

    path: Path
    scenario: Scenario
    plan: PlanColumns


def read_recording(run: Path) -> Recording:
    """The recording in the folder of a run, whatever became of the run after its barrier.

    Raises UsageError with one line.
    """
    folder = RunFolder(run)
    with _read_from(run, "name the folder of a storm's run"):
        plan, scenario = read_plan(folder.attempts), scenario_of(read_file(folder.scenario))
        header = next(lines_of(folder.attempts, 1))
        if header.get("shard") is not None:
            raise UsageError(f"{run} is a shard; merge all of them and replay what they make")
        if plan.digest != header.get("plan_hash"):
            raise UsageError(f"{run}: damaged, or of another version: it holds another plan")
        if not plan or plan.connection_count != scenario.load.connections:
            raise UsageError(f"{run}: damaged: its plan is not one of its scenario")
    return Recording(run, scenario, plan)
