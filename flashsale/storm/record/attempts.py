"""attempts.jsonl: the file contract between the storm and whoever judges it.

    header    the run                     1 line
    plan      one line an attempt         on disk (fsync) before the barrier opens
    barrier   when it opened              1 line
    result    one line an outcome         in order of arrival, within moments of it; `free_us` is
                                          when one that had to wait for a connection got it
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
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Self

import orjson

from flashsale.model import Ending, ending
from flashsale.storm.attack.answer import Answer
from flashsale.storm.record.ledger import NEVER, Ledger
from flashsale.storm.record.plan_lines import SCHEMA, plan_lines
from flashsale.storm.workload.plan import Plan

_LINES_AT_ONCE = 10_000


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

    def write_plan(self, header: dict[str, Any], plan: Plan) -> None:
        """Write header and plan, and wait until they are on disk."""
        self._line({"kind": "header", "schema": SCHEMA, **header})
        lines = plan_lines(plan)
        while batch := "".join(islice(lines, _LINES_AT_ONCE)):
            self._write(batch.encode("ascii"))
        self._sync()

    def write_barrier(self, unix_us: int) -> None:
        """Write that the barrier opens."""
        self._line({"kind": "barrier", "unix_us": unix_us})

    def write_results(self, ledger: Ledger) -> None:
        """Write every outcome that has come since the last time."""
        origin, outcomes = ledger.origin_ns, self.outcomes
        due, sent, done = ledger.due_ns, ledger.sent_ns, ledger.done_ns
        free = ledger.free_ns
        lines: list[str] = []
        for i, answer in ledger.settled(self._written):
            outcome, status, order, error = answer
            outcomes[outcome] += 1
            if status is None or error is not None:
                lines.append(self._trouble(ledger, i, answer))
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
        if len(ledger.spared) > self._spared:
            self._write_spared(ledger.spared)
        if lines:
            self._written += len(lines)
            self._write("".join(lines).encode("ascii"))

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

    def _trouble(self, ledger: Ledger, i: int, answer: Answer) -> str:
        """The result line of whatever was not simply answered."""
        line = {
            "kind": "result",
            "i": i,
            "due_us": ledger.after_barrier_us(ledger.due_ns[i]),
            "sent_us": ledger.after_barrier_us(ledger.sent_ns[i]),
            "done_us": ledger.after_barrier_us(ledger.done_ns[i]),
            **answer._asdict(),
        }
        if ledger.free_ns and ledger.free_ns[i] != NEVER:
            line["free_us"] = ledger.after_barrier_us(ledger.free_ns[i])
        if answer.error is None:
            del line["error"]
        return orjson.dumps(line).decode("ascii") + "\n"

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


def read_ledger(path: Path) -> Ledger:
    """The ledger behind a file of attempts, whole or cut short; its barrier is at 0 ns.

    Raises OSError, and ValueError for a file that is not one of attempts.
    """
    with path.open("rb") as lines:
        header = orjson.loads(next(lines, b"null"))
        if not isinstance(header, dict) or header.get("kind") != "header":
            raise ValueError(f"{path} does not begin with a header")
        ledger = Ledger(header["planned"])
        for line in lines:
            if line.startswith(b'{"kind":"result"') and line.endswith(b"\n"):
                _enter(ledger, orjson.loads(line))
            elif line.startswith(b'{"kind":"spared"') and line.endswith(b"\n"):
                ledger.spare(orjson.loads(line)["i"])
            elif line.startswith(b'{"kind":"barrier"'):
                ledger.barrier_unix_us = orjson.loads(line)["unix_us"]
            elif line.startswith(b'{"kind":"resolved"') and line.endswith(b"\n"):
                resolved = orjson.loads(line)
                ledger.resolved[resolved["i"]] = resolved["outcome"]
    return ledger


def _enter(ledger: Ledger, result: dict[str, Any]) -> None:
    i = result["i"]
    for column, key in ((ledger.due_ns, "due_us"), (ledger.sent_ns, "sent_us")):
        column[i] = NEVER if result[key] is None else result[key] * 1000
    if "free_us" in result:
        if not ledger.free_ns:
            ledger.free_ns = array("q", [NEVER]) * len(ledger.answers)
        ledger.free_ns[i] = result["free_us"] * 1000
    answer = Answer(
        ending(result["outcome"]), result["status"], result["order"], result.get("error")
    )
    ledger.settle(i, result["done_us"] * 1000, answer)
