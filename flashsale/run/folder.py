"""The folder of one run: its files by name, the one way to write and to read one, and `latest`."""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from flashsale.errors import FlashsaleError, UsageError

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

DOCUMENT_BYTES_MAX = 256 * 1024 * 1024
LINE_BYTES_MAX = 16 * 1024 * 1024
_BLOCK_BYTES = 512 * 1024
"""What is read of a file, and of a line of one: run folders of others are read, too."""

_TAKEN = "--out {} already holds a run; give another folder"
_REPLACED = "--out {} holds {}, which the run would replace; give another folder"
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755
"""Less what the umask takes; more than this nobody gets, whatever it says."""

CURES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit of a file's size (`ulimit -f`)",
    errno.EACCES: "make its folder writable",
    errno.EPERM: "make its folder writable",
    errno.EROFS: "work on a copy of its folder",
    errno.EISDIR: "move the folder of that name away",
}
"""Why a file cannot be written, and what helps."""


class NotWrittenError(UsageError):
    """A file of a run that could not be written: which, why, and the cure."""

    def __init__(self, path: Path | str, error: OSError) -> None:
        cure = CURES.get(error.errno or 0)
        super().__init__(
            f"cannot write {path}: {error.strerror or error}{f'; {cure}' if cure else ''}"
        )


def write_file(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Put a file with `content` in the place of whatever is at `path`, whole or not at all.

    It is written beside it and renamed, so a reader finds the old file or the new one, and what
    `path` links to stays as it is. Raises NotWrittenError; the old file is there then, untouched.
    """
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines([content] if isinstance(content, bytes) else content)
                file.flush()
                os.fsync(descriptor)
            draft.replace(path)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise
    except OSError as error:
        raise NotWrittenError(path, error) from error


@contextmanager
def telling(tell: Callable[[str], None]) -> Iterator[None]:
    """What goes wrong with a file inside the block is told in a line and changes nothing else.

    For whatever is done once a verdict stands.
    """
    try:
        yield
    except FlashsaleError as error:
        tell(str(error))


def open_file(path: Path) -> BinaryIO:
    """The file at `path`, to be read. Raises OSError, also for what is no file: a pipe that nobody
    writes to would be waited for, and a device has no end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a file", str(path))
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, bytes_max: int = DOCUMENT_BYTES_MAX) -> bytes:
    """All of the file at `path`. Raises OSError, also where it is larger than `bytes_max`."""
    with open_file(path) as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise OSError(errno.EFBIG, f"File too large, more than {bytes_max:,} bytes", str(path))
    return content


def lines_in(file: BinaryIO) -> Iterator[bytes]:
    """The lines of an open file, each with its end. Raises ValueError for one without an end in
    sight."""
    while line := file.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            raise ValueError(f"a line is longer than {LINE_BYTES_MAX:,} bytes")
        yield line


def blocks_in(file: BinaryIO) -> Iterator[bytes]:
    """The same, many lines at a time; only the last line may have no end."""
    while block := file.read(_BLOCK_BYTES):
        if not block.endswith(b"\n"):
            block += next(lines_in(file), b"")
        yield block


@dataclass(frozen=True)
class RunFolder:
    """Where a run leaves its files."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name, whatever bytes its folder's name has."""
        return as_text(self.path.name)

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
    def faults(self) -> Path:
        """What was broken on purpose under the storm, and when."""
        return self.path / "faults.json"

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


def as_text(path: Path | str) -> str:
    """A path as text that any file can hold: a byte that is no UTF-8 has no character."""
    return os.fsencode(path).decode("utf-8", "replace")


def folder_of_runs(out: Path | None, name: str) -> Path:
    """A folder for several runs: `out`, or a new one of this name in RUNS. Raises UsageError."""
    folder = out or RUNS / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"--out {folder} is not empty; give another folder")
    ensure_run_folder(folder)
    return folder


def cure_without(run: Path) -> str:
    """What to do where `run` is no run's folder: make the first run, or name one."""
    if run == LATEST_RUN and not os.path.lexists(run):
        return "no run was left here yet; `flashsale rehearse stampede` makes one"
    return "name a run's folder"


def ensure_run_folder(out: Path | None) -> None:
    """See that a run can be left in `out`, or in RUNS, before anything is done for it.

    Leaves nothing behind but the folder itself. Raises UsageError as create_run_folder does.
    """
    where = RUNS if out is None else out
    try:
        _make(where)
        with TemporaryFile(dir=where):
            pass
    except OSError as error:
        raise UsageError(f"cannot make a run folder in {where}: {error.strerror}") from error
    if out is not None:
        ensure_no_run(out)


def create_run_folder(
    scenario: str, out: Path | None, now: datetime, tell: Callable[[str], None] = lambda line: None
) -> RunFolder:
    """A new folder: `out`, or `runs/<scenario>-<UTC time>`, to which `runs/latest` then points.

    Two runs in the same second get names of their own. Raises UsageError where `out` already
    holds a run, or the folder cannot be made. Where only the link cannot, that is told.
    """
    try:
        if out is not None:
            _make(out)
            folder = RunFolder(out.resolve())
            ensure_no_run(out)
            return folder
        folder = RunFolder(_make_unique(RUNS, f"{scenario}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"))
    except OSError as error:
        raise UsageError(f"cannot make a run folder in {out or RUNS}: {error.strerror}") from error
    with telling(lambda line: tell(f"{line}; this run is {folder.path}")):
        _point_latest_to(folder)
    return folder


def ensure_no_run(out: Path) -> None:
    """Raises UsageError where `out` already holds a run, or a file of others that one replaces."""
    folder = RunFolder(out)
    if os.path.lexists(folder.attempts):
        raise UsageError(_TAKEN.format(out))
    for file in (folder.summary, folder.junit, folder.report, folder.sheet):
        if os.path.lexists(file):
            raise UsageError(_REPLACED.format(out, file.name))


def _make(folder: Path) -> None:
    """The folder and those above it, in none of which others may write."""
    for above in reversed(folder.parents):
        if not above.exists():
            above.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)


def _make_unique(parent: Path, name: str) -> Path:
    _make(parent)
    for number in count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(mode=_FOLDER_MODE)
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")


def _point_latest_to(folder: RunFolder) -> None:
    """Replace the link in one step: a reader finds the old run or the new one."""
    latest = folder.path.parent / LATEST
    draft = folder.path.parent / f".{LATEST}-{secrets.token_hex(4)}"
    try:
        draft.symlink_to(folder.path.name)
        draft.replace(latest)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise NotWrittenError(latest, error) from error
