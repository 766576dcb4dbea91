"""attempts.jsonl: the file contract between the storm and whoever judges it.

    header    the run                     1 line
    plan      one line an attempt         on disk (fsync) before the barrier opens
    barrier   when it opened              1 line, by its own clock; `clock` says by how much the
                                          clock of a rendezvous was ahead of that
    result    one line an outcome         in order of arrival, within moments of it; `free_us` is
                                          when one that had to wait for a connection got it, `said`
                                          the beginning of an answer that nobody could read
    spared    one line an attempt         that was planned for a case which did not come
    resolved  what the status route said  for indeterminate attempts, after the drain
    end       planned, sent, interrupted  1 line

An attempt with a plan and without a result is indeterminate, unless it was spared, so that a storm
that is killed at any instant leaves a truthful record. Times are µs after the barrier; order ids
are text.
"""

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Annotated, Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field

from flashsale.model import Ending, Outcome, ending
from flashsale.run.attempts import (
    NEVER,
    Attempts,
    ClockReading,
    PlanColumns,
    columns_of,
    plan_lines,
)
from flashsale.run.folder import NotWrittenError, lines_in, open_file
from flashsale.scenario.answer import Answer

SCHEMA = 1
"""The version of attempts.jsonl."""

_LINES_AT_ONCE = 10_000
_MOST = 1_000_000_000
_FURTHEST_US = 4 * 10**15  # of 1970 as well as of a barrier
_STATUS_MAX = 999
Units = dict[Annotated[str, Field(pattern="^[0-9]{1,18}$")], int]
RESOLVED = (Outcome.SOLD.value, "none")
"""What a claim without an answer can turn out to be."""
_OPENED_MAX = 250
"""Brackets opened in one line, those in what a server said included."""

_PLAN, _RESULT = b'{"kind":"plan"', b'{"kind":"result"'


class AttemptsFile:
    """Writes the attempts of one storm, straight to the kernel: a crash loses no written line.

    Raises NotWrittenError where the file takes no more before the barrier opens. From then on it is
    kept in `trouble`, since what was sent cannot be called back. A record that has a torn line ends
    there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, 0o644)
        except OSError as error:
            raise NotWrittenError(path, error) from error
        self.trouble: NotWrittenError | None = None
        self._fired = False
        self._written = self._spared = 0
        self.outcomes: Counter[Ending] = Counter()
        self.clock: ClockReading | None = None  # told with the barrier, where it was compared

    def __repr__(self) -> str:
        return f"<AttemptsFile {self._path} results={self._written}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)

    def write_plan(self, header: dict[str, Any], plan: PlanColumns) -> None:
        """Write header and plan, and wait until they are on disk."""
        self._line({"kind": "header", "schema": SCHEMA, **header})
        lines = plan_lines(plan)
        while batch := "".join(islice(lines, _LINES_AT_ONCE)):
            self._write(batch.encode("ascii"))
        self._sync()

    def write_barrier(self, unix_us: int) -> None:
        """Write that the barrier opens."""
        compared = {} if self.clock is None else {"clock": asdict(self.clock)}
        self._line({"kind": "barrier", "unix_us": unix_us, **compared})
        self._fired = True

    def write_results(self, attempts: Attempts) -> None:
        """Write every outcome that has come since the last time."""
        due, sent, done = attempts.due_ns, attempts.sent_ns, attempts.done_ns
        origin, free = attempts.origin_ns, attempts.free_ns
        lines: list[str] = []
        endings: list[Ending] = []
        for i, answer in attempts.settled(self._written):
            outcome, status, order, error, _ = answer
            endings.append(outcome)
            if status is None or error is not None:
                lines.append(self._trouble(attempts, i, answer))
                continue
            number = "null" if order is None else f'"{order}"'
            waited = ""
            if free and free[i] != NEVER:
                waited = f'"free_us":{(free[i] - origin) // 1000},'
            lines.append(  # formatted by hand: a general encoder takes twice as long
                f'{{"kind":"result","i":{i},"due_us":{(due[i] - origin) // 1000},{waited}'
                f'"sent_us":{(sent[i] - origin) // 1000},"done_us":{(done[i] - origin) // 1000},'
                f'"outcome":"{outcome}","status":{status},"order":{number}}}\n'
            )
        if len(attempts.spared) > self._spared:
            self._write_spared(attempts.spared)
        if lines:
            self._written += len(lines)
            self.outcomes.update(endings)
            self._write("".join(lines).encode())

    def _write_spared(self, spared: list[int]) -> None:
        lines = "".join(f'{{"kind":"spared","i":{i}}}\n' for i in spared[self._spared :])
        self._write(lines.encode("ascii"))
        self._spared = len(spared)

    def write_resolved(self, attempt: int, outcome: str, order: str | None) -> None:
        """Write what an indeterminate attempt turned out to be: `sold` or `none`."""
        self._line({"kind": "resolved", "i": attempt, "outcome": outcome, "order": order})

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Write lines that are complete, such as those of other files of attempts."""
        complete = iter(lines)
        while batch := b"".join(islice(complete, _LINES_AT_ONCE)):
            self._write(batch)
        self.ensure_whole()

    def ensure_whole(self) -> None:
        """Raises NotWrittenError where something could not be written."""
        if self.trouble is not None:
            raise self.trouble

    def write_end(self, planned: int, sent: int, interrupted: bool) -> None:
        """Write the last line and wait until everything is on disk."""
        self._line({"kind": "end", "planned": planned, "sent": sent, "interrupted": interrupted})
        self._sync()

    def _trouble(self, attempts: Attempts, i: int, answer: Answer) -> str:
        """The result line of whatever was not simply answered."""
        line = {
            "kind": "result",
            "i": i,
            "due_us": attempts.after_barrier_us(attempts.due_ns[i]),
            "sent_us": attempts.after_barrier_us(attempts.sent_ns[i]),
            "done_us": attempts.after_barrier_us(attempts.done_ns[i]),
            **answer._asdict(),
        }
        if attempts.free_ns and attempts.free_ns[i] != NEVER:
            line["free_us"] = attempts.after_barrier_us(attempts.free_ns[i])
        for name in ("error", "said"):
            if line[name] is None:
                del line[name]
        return orjson.dumps(line).decode() + "\n"

    def _line(self, line: dict[str, Any]) -> None:
        self._write(orjson.dumps(line) + b"\n")

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left and self.trouble is None:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            self.trouble = NotWrittenError(self._path, error)
        if not self._fired:
            self.ensure_whole()

    def _sync(self) -> None:
        try:
            os.fsync(self._file)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            self.trouble = self.trouble or NotWrittenError(self._path, error)
        if not self._fired:
            self.ensure_whole()


@dataclass(frozen=True)
class Record:
    """A file of attempts that was read: its header, its plan, and what became of each attempt.

    The barrier of `attempts` is at 0 ns. `ended` is whether the storm lived to end its record, and
    nobody had interrupted it; `cut` is whether it did not live to. `clock` is the machine's own,
    beside that of a rendezvous.
    """

    header: dict[str, Any]
    plan: PlanColumns
    attempts: Attempts
    ended: bool
    cut: bool = False
    clock: ClockReading | None = None

    @property
    def units(self) -> dict[int, int]:
        """What each voucher had before the storm, as far as the file says."""
        return {int(voucher): left for voucher, left in (self.header.get("units") or {}).items()}

    @property
    def shortfall(self) -> str | None:
        """What the record lacks, in a sentence; None where it is whole."""
        if not self.cut:
            return None
        why = "the record has no end: the storm was killed, or could not write"
        if not self.attempts.open:
            return f"{why}; every result is there, only answers to later questions may be missing"
        return (
            f"{why}; {self.attempts.open:,} of {self.attempts.planned:,} attempts have no result, "
            "and no figure counted from it knows of them"
        )


class _ShardHeader(BaseModel):
    """What a merge relies on, too."""

    model_config = ConfigDict(strict=True, extra="allow")

    number: int = Field(ge=1, le=_MOST)
    of: int = Field(ge=1, le=_MOST)
    planned: int = Field(ge=0, le=_MOST)
    start_at_unix_us: int | None = Field(ge=0, le=_FURTHEST_US)
    rendezvous: str | None = None
    clock_error_us: int | None = Field(ge=0, le=_FURTHEST_US)
    units: Units


class _Header(BaseModel):
    """What anybody relies on in a header; others may say more."""

    model_config = ConfigDict(strict=True, extra="allow")

    planned: int = Field(ge=0, le=_MOST)
    connections: int = Field(default=0, ge=0, le=_MOST)
    clicks: int = Field(default=1, ge=1, le=_MOST)
    cold: bool = False
    retry_on: list[str] = []
    units: Units | None = None
    shard: _ShardHeader | None = None


@contextmanager
def _naming(path: Path, place: list[int]) -> Iterator[None]:
    """Whatever a damaged line makes fail becomes a ValueError that names file and line."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, AttributeError) as error:
        told = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise ValueError(f"{path} line {place[0]}: {told}") from error


def _numbered(lines: Iterator[bytes], place: list[int]) -> Iterator[bytes]:
    for line in lines:
        place[0] += 1
        yield line


def read_record(path: Path) -> Record:
    """The file of attempts at `path`, whole or cut short after its plan.

    Raises OSError, and ValueError with one line for a file that is not one of attempts, or of
    another version, or whose plan is cut short.
    """
    place = [0]
    with open_file(path) as file, _naming(path, place):
        lines = _numbered(lines_in(file), place)
        header = _header(lines)
        plan = _plan(lines, header)
        attempts, ended, cut, clock = Attempts(len(plan)), False, True, None
        for line in lines:
            if not line.endswith(b"\n"):
                break  # torn by a crash
            if line.startswith(_RESULT):
                _enter(attempts, _read(line))
            elif line.startswith(b'{"kind":"spared"'):
                attempts.spare(_attempt(attempts, _read(line)))
            elif line.startswith(b'{"kind":"barrier"'):
                opened = _read(line)
                attempts.barrier_unix_us = _instant(opened["unix_us"])
                clock = _clock(opened.get("clock"))
            elif line.startswith(b'{"kind":"resolved"'):
                resolved = _read(line)
                outcome = resolved["outcome"]
                if outcome not in RESOLVED:
                    raise ValueError(f"found outcome {outcome!r}, expected one of {RESOLVED}")
                order = resolved.get("order")
                attempts.resolve(
                    _attempt(attempts, resolved), outcome, None if order is None else str(order)
                )
            elif line.startswith(b'{"kind":"end"'):
                ended, cut = not _read(line)["interrupted"], False
            elif line.startswith(_PLAN):
                raise ValueError(f"more than {len(plan):,} planned attempts")
    return Record(header, plan, attempts, ended, cut, clock)


def read_plan(path: Path) -> PlanColumns:
    """The plan in a file of attempts, whole before the barrier opened. Raises as read_record."""
    place = [0]
    with open_file(path) as file, _naming(path, place):
        lines = _numbered(lines_in(file), place)
        return _plan(lines, _header(lines))


def lines_of(path: Path, most: int | None = None) -> Iterator[dict[str, Any]]:
    """Every line as it stands, or the first `most`; without a last one that a crash cut short."""
    place = [0]
    with open_file(path) as file, _naming(path, place):
        for number, line in enumerate(_numbered(lines_in(file), place)):
            if number == most or not line.endswith(b"\n"):
                return
            found = _read(line)
            if not isinstance(found, dict) or "kind" not in found:
                raise ValueError("expected an object with its kind")
            yield found


def _read(line: bytes) -> Any:
    """What a line says. Raises ValueError for what nests deeper than a line of ours ever does:
    whoever shows or writes such a thing would fail at a depth of its own."""
    if line.count(b"[") + line.count(b"{") > _OPENED_MAX:
        raise ValueError("a line that nests too deep")
    return orjson.loads(line)


def _header(lines: Iterator[bytes]) -> dict[str, Any]:
    header = _read(next(lines, b"null"))
    if not isinstance(header, dict) or header.get("kind") != "header":
        raise ValueError("expected a header")
    if header.get("schema") != SCHEMA:
        raise ValueError(f"found schema {header.get('schema')!r}, expected {SCHEMA}")
    _Header.model_validate(header)
    return header


def _plan(lines: Iterator[bytes], header: dict[str, Any]) -> PlanColumns:
    planned = takewhile(lambda line: line.startswith(_PLAN), islice(lines, header["planned"]))
    plan = columns_of(map(_read, planned), header)
    if len(plan) != header["planned"]:
        raise ValueError(f"found {len(plan):,} of {header['planned']:,} planned attempts")
    return plan


def _attempt(attempts: Attempts, line: dict[str, Any]) -> int:
    """The number of the attempt that a line is of."""
    i = line["i"]
    if type(i) is not int or not 0 <= i < len(attempts.answers):
        raise ValueError(f"found attempt {i!r}, expected one of {len(attempts.answers):,}")
    return i


def _instant(value: Any) -> int:
    if type(value) is not int or not -_FURTHEST_US <= value <= _FURTHEST_US:
        raise ValueError(f"found {value!r}, expected an instant in µs")
    return value


def _clock(told: Any) -> ClockReading | None:
    if told is None:
        return None
    return ClockReading(_instant(told["offset_us"]), _instant(told["error_us"]))


def _enter(attempts: Attempts, result: dict[str, Any]) -> None:
    i = _attempt(attempts, result)
    if attempts.answers[i] is not None:
        raise ValueError(f"attempt {i} has two results")
    due, sent, done = result["due_us"], result["sent_us"], _instant(result["done_us"])
    status, order, error = result["status"], result["order"], result.get("error")
    said = result.get("said")
    free = result.get("free_us")
    if sent is not None and not _instant(due) <= _instant(sent) <= done:
        raise ValueError(f"attempt {i} was due at {due} µs, sent at {sent}, answered at {done}")
    if free is not None and (sent is None or _instant(free) > sent):
        raise ValueError(f"attempt {i} found a connection at {free} µs, was sent at {sent}")
    if not (status is None or (type(status) is int and 0 <= status <= _STATUS_MAX)):
        raise ValueError(f"found status {status!r}, expected one of HTTP")
    if not all(text is None or isinstance(text, str) for text in (order, error, said)):
        raise ValueError(f"found order {order!r}, error {error!r}, said {said!r}, expected text")
    for column, value in ((attempts.due_ns, due), (attempts.sent_ns, sent)):
        column[i] = NEVER if value is None else _instant(value) * 1000
    if free is not None:
        if not attempts.free_ns:
            attempts.free_ns = array("q", [NEVER]) * len(attempts.answers)
        attempts.free_ns[i] = free * 1000
    attempts.settle(i, done * 1000, Answer(ending(result["outcome"]), status, order, error, said))
