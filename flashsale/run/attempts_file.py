"""attempts.jsonl: the file contract between the storm and whoever judges it.

    header    the run                     1 line
    plan      one line an attempt         on disk (fsync) before the barrier opens
    barrier   when it opened              1 line
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
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Self

import orjson

from flashsale.model import Ending, ending
from flashsale.run.attempts import NEVER, Attempts
from flashsale.run.plan_columns import PlanColumns, columns_of, plan_lines
from flashsale.scenario.answer import Answer

SCHEMA = 1
"""The version of attempts.jsonl."""

_LINES_AT_ONCE = 10_000
_OPENED_MAX = 250
"""Brackets opened in one line, those in what a server said included."""

_PLAN, _RESULT = b'{"kind":"plan"', b'{"kind":"result"'


class AttemptsFile:
    """Writes the attempts of one storm, straight to the kernel: a crash loses no written line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._written = self._spared = 0
        self.outcomes: Counter[Ending] = Counter()

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
        self._line({"kind": "barrier", "unix_us": unix_us})

    def write_results(self, attempts: Attempts) -> None:
        """Write every outcome that has come since the last time."""
        origin, outcomes = attempts.origin_ns, self.outcomes
        due, sent, done = attempts.due_ns, attempts.sent_ns, attempts.done_ns
        free = attempts.free_ns
        lines: list[str] = []
        for i, answer in attempts.settled(self._written):
            outcome, status, order, error, _ = answer
            outcomes[outcome] += 1
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
        while left:
            left = left[os.write(self._file, left) :]

    def _sync(self) -> None:
        os.fsync(self._file)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@dataclass(frozen=True)
class Record:
    """A file of attempts that was read: its header, its plan, and what became of each attempt.

    The barrier of `attempts` is at 0 ns. `ended` is whether the storm lived to end its record, and
    nobody had interrupted it.
    """

    header: dict[str, Any]
    plan: PlanColumns
    attempts: Attempts
    ended: bool

    @property
    def units(self) -> dict[int, int]:
        """What each voucher had before the storm, as far as the file says."""
        return {int(voucher): left for voucher, left in (self.header.get("units") or {}).items()}


def read_record(path: Path) -> Record:
    """The file of attempts at `path`, whole or cut short after its plan.

    Raises OSError, and ValueError for a file that is not one of attempts, or of another version, or
    whose plan is cut short.
    """
    with path.open("rb") as lines:
        header = _header(path, lines)
        plan = _plan(path, lines, header)
        attempts, ended = Attempts(len(plan)), False
        for line in lines:
            if not line.endswith(b"\n"):
                break  # torn by a crash
            if line.startswith(_RESULT):
                _enter(attempts, _read(line))
            elif line.startswith(b'{"kind":"spared"'):
                attempts.spare(_read(line)["i"])
            elif line.startswith(b'{"kind":"barrier"'):
                attempts.barrier_unix_us = _read(line)["unix_us"]
            elif line.startswith(b'{"kind":"resolved"'):
                resolved = _read(line)
                attempts.resolved[resolved["i"]] = resolved["outcome"]
            elif line.startswith(b'{"kind":"end"'):
                ended = not _read(line)["interrupted"]
            elif line.startswith(_PLAN):
                raise ValueError(f"{path} has more than {len(plan):,} planned attempts")
    return Record(header, plan, attempts, ended)


def read_plan(path: Path) -> PlanColumns:
    """The plan in a file of attempts, whole before the barrier opened. Raises as read_record."""
    with path.open("rb") as lines:
        return _plan(path, lines, _header(path, lines))


def lines_of(path: Path, most: int | None = None) -> Iterator[dict[str, Any]]:
    """Every line as it stands, or the first `most`; without a last one that a crash cut short."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            if number == most or not line.endswith(b"\n"):
                return
            yield _read(line)


def _read(line: bytes) -> Any:
    """What a line says. Raises ValueError for what nests deeper than a line of ours ever does:
    whoever shows or writes such a thing would fail at a depth of its own."""
    if line.count(b"[") + line.count(b"{") > _OPENED_MAX:
        raise ValueError("a line that nests too deep")
    return orjson.loads(line)


def _header(path: Path, lines: Iterator[bytes]) -> dict[str, Any]:
    header = _read(next(lines, b"null"))
    if not isinstance(header, dict) or header.get("kind") != "header":
        raise ValueError(f"{path} does not begin with a header")
    if header.get("schema") != SCHEMA:
        raise ValueError(f"{path}: found schema {header.get('schema')!r}, expected {SCHEMA}")
    return header


def _plan(path: Path, lines: Iterator[bytes], header: dict[str, Any]) -> PlanColumns:
    planned = takewhile(lambda line: line.startswith(_PLAN), islice(lines, header["planned"]))
    plan = columns_of(map(_read, planned), header)
    if len(plan) != header["planned"]:
        raise ValueError(f"{path} has {len(plan):,} of {header['planned']:,} planned attempts")
    return plan


def _enter(attempts: Attempts, result: dict[str, Any]) -> None:
    i = result["i"]
    for column, key in ((attempts.due_ns, "due_us"), (attempts.sent_ns, "sent_us")):
        column[i] = NEVER if result[key] is None else result[key] * 1000
    if "free_us" in result:
        if not attempts.free_ns:
            attempts.free_ns = array("q", [NEVER]) * len(attempts.answers)
        attempts.free_ns[i] = result["free_us"] * 1000
    answer = Answer(
        ending(result["outcome"]),
        result["status"],
        result["order"],
        result.get("error"),
        result.get("said"),
    )
    attempts.settle(i, result["done_us"] * 1000, answer)
