"""attempts.csv: one row an attempt, for spreadsheets, pandas and databases."""

import csv
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from flashsale.errors import UsageError
from flashsale.run.attempts import Attempts
from flashsale.run.attempts_file import Record, read_record
from flashsale.run.folder import write_file
from flashsale.run.plan_columns import FIRST, PlanColumns
from flashsale.scenario.load import Step

COLUMNS = (
    "attempt",  # its number in the plan
    "endpoint",  # buy, browse or sign
    "user",
    "voucher",
    "shop",
    "connection",  # empty where any would do
    "due_us",  # µs after the barrier, as are the next three
    "sent_us",
    "done_us",
    "response_us",  # done - due
    "service_us",  # done - sent
    "outcome",
    "status",  # HTTP
    "order",
    "error",
    "resolved",  # what an indeterminate claim turned out to be: sold or none
    "after",  # the attempt that this one waited for
)
"""What stands in a row. What there is none of is empty."""

Cell = int | str | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_sheet(attempts: Path, sheet: Path) -> None:
    """Write the attempts in `attempts` to `sheet`, in the order of the plan.

    Raises UsageError where it cannot be written, or `attempts` is not a file of attempts.
    """
    try:
        record = read_record(attempts)
    except OSError as error:
        raise UsageError(f"{attempts}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{attempts}: damaged, so no {sheet.name} ({error})") from error
    write_file(sheet, _lines(record))


class _Line:
    """What a writer of the csv module writes to: it keeps the last line."""

    def write(self, line: str) -> None:
        self.last = line.encode("utf-8", "replace")


def _lines(record: Record) -> Iterator[bytes]:
    line = _Line()
    writer = csv.writer(line, lineterminator="\n")
    for row in chain([COLUMNS], rows(record)):
        writer.writerow([_plain(cell) for cell in row])
        yield line.last


def _plain(cell: Cell) -> Cell:
    """A cell that no spreadsheet takes for a formula: text that begins like one is quoted."""
    formula = isinstance(cell, str) and cell.startswith(_FORMULA)
    return f"'{cell}" if formula else cell


def rows(record: Record) -> Iterator[Sequence[Cell]]:
    """The rows, as COLUMNS has them. Pure."""
    plan, attempts = record.plan, record.attempts
    for i in range(len(plan)):
        step = Step(plan.asks[i])
        after = plan.after[i] if plan.after else FIRST
        yield (
            i,
            step.endpoint,
            plan.users[i] or None if plan.users else None,
            plan.things[i] if step is Step.BUY else None,
            plan.things[i] if step is Step.BROWSE else None,
            plan.connections[i] if plan.connections else None,
            *_result(plan, attempts, i),
            attempts.resolved.get(i),
            None if after == FIRST else after,
        )


def _result(plan: PlanColumns, attempts: Attempts, i: int) -> Sequence[Cell]:
    answer = attempts.answers[i]
    due, sent, done = (
        attempts.after_barrier_us(column[i])
        for column in (attempts.due_ns, attempts.sent_ns, attempts.done_ns)
    )
    if due is None and not (plan.after and plan.after[i] != FIRST):
        due = plan.at_us[i]
    if answer is None:  # on record as planned, and nothing more: a storm that was killed
        return due, sent, done, None, None, "indeterminate", None, None, "no record"
    response = None if due is None or done is None or sent is None else done - due
    service = None if sent is None or done is None else done - sent
    return (due, sent, done, response, service, answer.outcome.value, answer.status,
            answer.order, answer.error)  # fmt: skip
