"""The folder of one run: its files by name, and `latest` beside it."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile

from flashsale.errors import UsageError

RUNS = Path("runs")
LATEST = "latest"
LATEST_RUN = RUNS / LATEST

ATTEMPTS_FILE = "attempts.jsonl"
BASELINE_FILE = "baseline.json"
ENDING_FILE = "ending.json"
SUMMARY_FILE = "summary.json"
VERIFY_FILE = "verify.json"
STACK_FILE = "stack"
"""Names that others than the storm read or write, too."""

_TAKEN = "--out {} already holds a run; give another folder"


@dataclass(frozen=True)
class RunFolder:
    """Where a run leaves its files."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def attempts(self) -> Path:
        """Plan and outcome of each attempt."""
        return self.path / ATTEMPTS_FILE

    @property
    def baseline(self) -> Path:
        """The stores before the barrier, where they could be reached."""
        return self.path / BASELINE_FILE

    @property
    def ending(self) -> Path:
        """The stores after the last answer, where they could be reached."""
        return self.path / ENDING_FILE

    @property
    def summary(self) -> Path:
        """The figures and the verdict."""
        return self.path / SUMMARY_FILE

    @property
    def scenario(self) -> Path:
        """What the storm was asked for."""
        return self.path / "scenario.json"

    @property
    def effort(self) -> Path:
        """What a shard took, in full."""
        return self.path / "effort.json"

    @property
    def hgrm(self) -> Path:
        """Percentile distribution of the response latency."""
        return self.path / "latency.hgrm"

    @property
    def hlog(self) -> Path:
        """Latencies by second, clock and outcome."""
        return self.path / "latency.hlog"

    @property
    def junit(self) -> Path:
        """The verdict as a CI server reads it."""
        return self.path / "junit.xml"

    @property
    def sheet(self) -> Path:
        """The attempts as a table, where one was asked for."""
        return self.path / "attempts.csv"

    @property
    def report(self) -> Path:
        """The verdict as a browser shows it."""
        return self.path / "report.html"


def ensure_run_folder(out: Path | None) -> None:
    """See that a run can be left in `out`, or in RUNS, before anything is done for it.

    Leaves nothing behind but the folder itself. Raises UsageError as create_run_folder does.
    """
    where = RUNS if out is None else out
    try:
        where.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=where):
            pass
    except OSError as error:
        raise UsageError(f"cannot make a run folder in {where}: {error.strerror}") from error
    if out is not None and RunFolder(out).attempts.exists():
        raise UsageError(_TAKEN.format(out))


def create_run_folder(scenario: str, out: Path | None, now: datetime) -> RunFolder:
    """A new folder: `out`, or `runs/<scenario>-<UTC time>`, to which `runs/latest` then points.

    Two runs in the same second get names of their own. Raises UsageError where `out` already
    holds a run, or the folder cannot be made.
    """
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            folder = RunFolder(out.resolve())
            if folder.attempts.exists():
                raise UsageError(_TAKEN.format(out))
            return folder
        folder = RunFolder(_make_unique(RUNS, f"{scenario}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"))
        _point_latest_to(folder)
    except OSError as error:
        raise UsageError(f"cannot make a run folder in {out or RUNS}: {error.strerror}") from error
    return folder


def _make_unique(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")


def _point_latest_to(folder: RunFolder) -> None:
    """Replace the link in one step: a reader finds the old run or the new one."""
    draft = folder.path.parent / f".{LATEST}-{secrets.token_hex(4)}"
    draft.symlink_to(folder.name)
    draft.replace(folder.path.parent / LATEST)
