"""The judge's own reader of attempts.jsonl: what was asked of each sale and what was told.

A judge does not share the eyes of the accused, so nothing of this is the storm's. A claim is a
row of columns: a million are a few dozen megabytes of integers; an object each would be a gigabyte.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, repeat
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from flashsale.errors import NothingJudgedError
from flashsale.model import ID_MAX, Outcome, id_of, parse_id, text_id
from flashsale.run.folder import ATTEMPTS_FILE, blocks_in, open_file

Column: TypeAlias = "array[int]"

NEVER = -1
"""An instant that is not known: never sent, never answered, or not written down."""
NO_ORDER = 0
"""No order id came with the answer."""
GARBLED = -1
"""An order is said to exist, under no id that can be read; `ClaimColumns.garbled` has the text."""

OUTCOMES = tuple(Outcome)
SOLD = OUTCOMES.index(Outcome.SOLD)
SOLD_OUT = OUTCOMES.index(Outcome.SOLD_OUT)
DUPLICATE = OUTCOMES.index(Outcome.DUPLICATE)
UNANSWERED = OUTCOMES.index(Outcome.INDETERMINATE)
INDETERMINATE = frozenset(n for n, outcome in enumerate(OUTCOMES) if outcome.is_indeterminate)


def column() -> Column:
    """A new column: signed 64-bit integers."""
    return array("q")


def _codes() -> Column:
    """A new column of outcomes: a byte each, so that they are counted and looked for in C."""
    return array("b")


def _table(codes: Iterable[int]) -> bytes:
    """What makes 1 of these outcomes, and 0 of all others."""
    chosen = frozenset(codes)
    return bytes(code in chosen for code in range(256))


_TOLD = tuple(_table([code]) for code in range(len(OUTCOMES)))
_OPEN = _table(INDETERMINATE)


@dataclass(slots=True)
class ClaimColumns:
    """The claims on one voucher, a column a fact: position k is the same claim in each.

    Two instants can be compared where they were read from the same `clock`.

    `order` is NO_ORDER or GARBLED where no id was read; `resolved` is the order id that the
    status route named later for a claim without an answer. Instants are µs after the barrier.
    """

    user: Column = field(default_factory=column)
    sent_us: Column = field(default_factory=column)
    done_us: Column = field(default_factory=column)
    outcome: Column = field(default_factory=_codes)
    order: Column = field(default_factory=column)
    resolved: Column = field(default_factory=column)
    clock: Column = field(default_factory=column)
    garbled: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    def columns(self) -> tuple[Column, ...]:
        """All columns, in the order of the fields."""
        return (
            self.user,
            self.sent_us,
            self.done_us,
            self.outcome,
            self.order,
            self.resolved,
            self.clock,
        )

    def promised(self) -> Iterator[tuple[int, int]]:
        """Position and order id (or NO_ORDER) of each claim whose user was told of an order."""
        for k, (code, order, resolved) in enumerate(
            zip(self.outcome, self.order, self.resolved, strict=True)
        ):
            if code == SOLD:
                yield k, order if order > NO_ORDER else NO_ORDER
            elif resolved and code in INDETERMINATE:
                yield k, resolved if resolved > NO_ORDER else NO_ORDER

    def count(self, outcome: int) -> int:
        """How many claims were answered so."""
        return self.outcome.tobytes().count(outcome)

    def told(self, outcome: int) -> Iterator[int]:
        """Positions of the claims that were answered so."""
        return self._places(_TOLD[outcome])

    def open(self) -> Iterator[int]:
        """Positions of the claims that may or may not have sold."""
        return self._places(_OPEN)

    def _places(self, table: bytes) -> Iterator[int]:
        chosen = self.outcome.tobytes().translate(table)
        return compress(range(len(self)), chosen) if 1 in chosen else iter(())

    @property
    def is_any_resolved(self) -> bool:
        """True where the status route told of any claim without an answer."""
        return bool(self.resolved.tobytes().strip(b"\0"))

    def sold(self) -> tuple[Sequence[int], Sequence[int]]:
        """Users and order ids of all claims that were told so; what was garbled is below 1."""
        chosen = self.outcome.tobytes().translate(_TOLD[SOLD])
        if 0 not in chosen:
            return self.user, self.order
        return array("q", compress(self.user, chosen)), array("q", compress(self.order, chosen))

    def select(self, chosen: Sequence[int]) -> "ClaimColumns":
        """A copy of the claims at these positions."""
        columns = (
            array(column.typecode, map(column.__getitem__, chosen)) for column in self.columns()
        )
        user, sent_us, done_us, outcome, order, resolved, clock = columns
        garbled = {k: self.garbled[i] for k, i in enumerate(chosen) if i in self.garbled}
        return ClaimColumns(user, sent_us, done_us, outcome, order, resolved, clock, garbled)


SCHEMA = 1
_CLAIM, _CANCEL, _DONE = "buy", "cancel", "done"
_OPENED_MAX, _REASON_MAX = 250, 200
"""Brackets opened in one line of a record, and characters of a reason why it is none."""
NO_CLAIM = 0
"""In place of a voucher: the attempt asked for something else, and is not judged."""

_CODES = {str(outcome): code for code, outcome in enumerate(OUTCOMES)}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run's record. `complete` is False where the storm was cut short, or interrupted.

    `cut` is True where the storm did not live to end the record: it was killed, or could not
    write. `unrecorded` claims then have no result, though they may have been sent and answered.

    Each claim asked for `quantity` units, and a user may hold `limit` orders of a voucher. `names`
    are the ids of orders whose numbers here only stand for them. By voucher, `cancelled` are users
    and orders (or NO_ORDER) of claims that were undone in the run, as the target said, `undoing`
    the users who asked for that, whatever they were told. Its barrier opened at `began_ms` of the
    storm's clock.
    """

    run: str
    scenario: str
    claims: dict[int, ClaimColumns]
    complete: bool = True
    cut: bool = False
    unrecorded: int = 0
    quantity: int = 1
    limit: int = 1
    names: Mapping[int, str] = field(default_factory=dict)
    cancelled: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    undoing: Mapping[int, frozenset[int]] = field(default_factory=dict)
    began_ms: int | None = None

    @property
    def vouchers(self) -> tuple[int, ...]:
        """The vouchers of the plan, ascending: what is judged."""
        return tuple(sorted(self.claims))

    @property
    def planned(self) -> int:
        """How many claims were planned."""
        return sum(len(claims) for claims in self.claims.values())

    @property
    def shortfall(self) -> str | None:
        """What the record lacks and what that means, in a sentence; None where it is whole."""
        if not self.cut:
            return None
        why = "the record has no end: the storm was killed, or could not write"
        if not self.unrecorded:
            return f"{why}; every result is there, only answers to later questions may be missing"
        return (
            f"{why}; {self.unrecorded:,} of {self.planned:,} claims have no result, so each may "
            "have sold, and what they were told cannot be held against the sale"
        )


def read_attempts(run_dir: Path) -> RunRecord:
    """Read `run_dir`/attempts.jsonl.

    A last line without its end is what a crash leaves and is passed over. Raises
    NothingJudgedError where there is no file, no header, or any other line is malformed; the
    message names the line.
    """
    path = run_dir / ATTEMPTS_FILE
    try:
        with open_file(path) as file:
            return parse_attempts(blocks_in(file), str(path))
    except ValueError as error:  # a line without an end
        raise NothingJudgedError(f"{path}: {error}") from error
    except OSError as error:
        raise NothingJudgedError(
            f"{path}: no attempts to judge ({error.strerror}); name the folder of a storm's run"
        ) from error


def parse_attempts(blocks: Iterable[bytes], name: str = ATTEMPTS_FILE) -> RunRecord:
    """The record in `blocks` of lines, each with its newline. Raises as read_attempts does.

    Most lines of a record are alike, and are taken a block at a time, by columns: a line at a time
    costs as much again as reading it.
    """
    record = _Record()
    number = 0
    for block in blocks:
        documents = _read_all(block)
        if documents is not None and record.take_all(documents):
            number += len(documents)
            continue
        lines = block.splitlines(keepends=True) if documents is None else repeat(b"\n")
        for line, document in zip(lines, documents or repeat(None), strict=False):
            number += 1
            try:
                record.take(_read(line) if document is None else document)
            except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
                if not line.endswith(b"\n"):
                    break  # torn by a crash in the middle of a write
                raise NothingJudgedError(f"{name} line {number}: {_reason(error)}") from error
    try:
        return record.finish()
    except ValueError as error:
        raise NothingJudgedError(f"{name} line {number}: {error}") from error


def _read_all(block: bytes) -> list[Any] | None:
    """The documents of a block's lines, read in one go; None where one has to be looked at by
    itself."""
    lines = block.count(b"\n")
    if block.count(b"{") + block.count(b"[") > lines + _OPENED_MAX // 2:
        return None
    if block.count(b"}\n{") != lines - 1 or not block.startswith(b"{") or block[-2:] != b"}\n":
        return None
    try:
        documents: list[Any] = orjson.loads(b"[%b]" % block.replace(b"}\n{", b"},{"))
    except orjson.JSONDecodeError:
        return None
    return documents if len(documents) == lines else None


def _read(line: bytes) -> Any:
    if line.count(b"[") + line.count(b"{") > _OPENED_MAX:
        raise ValueError("nested too deep")
    return orjson.loads(line)


def _reason(error: Exception) -> str:
    if isinstance(error, orjson.JSONDecodeError):
        return f"not JSON ({error})"
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r}"
    return str(error)[:_REASON_MAX]


class _Record:
    """Takes the lines one by one; claims are numbered by their place in the plan."""

    def __init__(self) -> None:
        self._header: dict[str, Any] = {}
        self._all = ClaimColumns()
        self._voucher = column()
        self._answered = bytearray()
        self._names: dict[int, str] = {}
        self._undoes: dict[int, int] = {}
        self._undone: list[int] = []
        self._began_ms: int | None = None
        self._barrier = self._ended = self._complete = False
        self._kinds = {
            "plan": self._plan,
            "result": self._result,
            "spared": self._spare,
            "resolved": self._resolved,
            "barrier": self._open_barrier,
            "end": self._end,
        }

    def take(self, line: Any) -> None:
        if not isinstance(line, dict):
            raise ValueError("expected an object, as a storm writes them")
        kind = line["kind"]
        if not self._header:
            self._begin(line)
            return
        taker = self._kinds.get(kind)
        if taker is None:
            raise ValueError(f"kind {kind!r} is not known here")
        taker(line)

    def take_all(self, lines: list[Any]) -> bool:
        """Take lines that are alike and as most are, in one go; False, with nothing taken, where
        each has to be looked at by itself."""
        try:
            kinds = {line["kind"] for line in lines}
            if not self._header or len(kinds) != 1:
                return False
            kind = kinds.pop()
            return (
                self._plans(lines)
                if kind == "plan"
                else (kind == "result" and self._results(lines))
            )
        except (TypeError, KeyError):
            return False

    def _plans(self, lines: list[dict[str, Any]]) -> bool:
        known = len(self._voucher)
        numbers = [line["i"] for line in lines]
        if self._barrier or numbers != list(range(known, known + len(lines))):
            return False
        users, vouchers = [line["user"] for line in lines], [line["voucher"] for line in lines]
        if any("ask" in line for line in lines) or not (_are_ids(users) and _are_ids(vouchers)):
            return False
        self._voucher.extend(vouchers)
        self._all.user.extend(users)
        return True

    def _results(self, lines: list[dict[str, Any]]) -> bool:
        places = [line["i"] for line in lines]
        if set(map(type, places)) != {int} or len(set(places)) < len(places):
            return False
        if len(self._answered) < len(self._voucher):
            self._fill()
        if min(places) < 0 or max(places) >= len(self._answered):
            return False
        if any(map(self._answered.__getitem__, places)) or any("clock" in line for line in lines):
            return False
        codes = [_CODES[line["outcome"]] for line in lines]
        sent_us, done_us = [line["sent_us"] for line in lines], [line["done_us"] for line in lines]
        texts = [line.get("order") for line in lines]
        orders = None if "text_ids" in self._header else _order_ids(texts)
        if orders is None or {*map(type, codes), *map(type, sent_us), *map(type, done_us)} != {int}:
            return False
        if not all(map(self._voucher.__getitem__, places)):  # NO_CLAIM among them
            return False
        claims = self._all
        for i, code, sent, done, order in zip(places, codes, sent_us, done_us, orders, strict=True):
            claims.outcome[i], claims.sent_us[i], claims.done_us[i] = code, sent, done
            claims.order[i] = order
            self._answered[i] = 1
        return True

    def finish(self) -> RunRecord:
        if not self._header:
            raise ValueError("expected a header")
        planned = len(self._voucher)
        self._fill()
        if not planned:
            raise ValueError("no attempt was planned, so there is nothing to judge; storm again")
        if self._barrier and planned != self._header["planned"]:
            raise ValueError(f"the header plans {self._header['planned']} attempts, not {planned}")
        claims = {voucher: ClaimColumns() for voucher in self._header["vouchers"]}
        claims.update(_by_voucher(self._all, self._voucher))
        return RunRecord(
            run=str(self._header["run"]),
            scenario=str(self._header["scenario"]),
            claims=claims,
            complete=self._complete,
            cut=not self._ended,
            unrecorded=self._unrecorded() if self._barrier else 0,
            quantity=_times(self._header.get("quantity", 1)),
            limit=_times(self._header.get("limit", 1)),
            names=self._names,
            cancelled=self._cancelled(),
            undoing=self._undoing(),
            began_ms=self._began_ms,
        )

    def _cancelled(self) -> dict[int, list[tuple[int, int]]]:
        found: dict[int, list[tuple[int, int]]] = {}
        for k in self._undone:
            pair = (self._all.user[k], self._all.order[k])
            found.setdefault(self._voucher[k], []).append(pair)
        return found

    def _undoing(self) -> dict[int, frozenset[int]]:
        found: dict[int, set[int]] = {}
        for k in self._undoes.values():
            found.setdefault(self._voucher[k], set()).add(self._all.user[k])
        return {voucher: frozenset(users) for voucher, users in found.items()}

    def _unrecorded(self) -> int:
        """Claims without a result: `_answered` is a byte for each attempt."""
        pairs = zip(self._answered, self._voucher, strict=True)
        return sum(1 for answered, voucher in pairs if not answered and voucher != NO_CLAIM)

    def _begin(self, line: dict[str, Any]) -> None:
        if line["kind"] != "header" or line["schema"] != SCHEMA:
            raise ValueError(f"expected a header of schema {SCHEMA}")
        if "shard" in line:
            raise ValueError(
                f"this is shard {line['shard']['number']} of {line['shard']['of']}; "
                "judge what `flashsale report merge RUN…` makes of all of them"
            )
        for name in ("run", "scenario", "planned", "vouchers"):
            line[name]
        if not line["vouchers"] and "asked" in line:
            raise ValueError("this run sold nothing; its thresholds are the whole verdict")
        if not isinstance(line["vouchers"], list) or not all(
            _is_id(voucher) for voucher in line["vouchers"]
        ):
            raise ValueError("vouchers: expected positive integers")
        self._header = line

    def _plan(self, line: dict[str, Any]) -> None:
        if self._barrier:
            raise ValueError("a plan after the barrier")
        if line["i"] != len(self._voucher):
            raise ValueError(f"i: expected {len(self._voucher)}, got {line['i']!r}")
        user, voucher = 0, NO_CLAIM
        if line.get("ask", _CLAIM) == _CLAIM:
            user, voucher = line["user"], line["voucher"]
            if not (_is_id(user) and _is_id(voucher)):
                raise ValueError("user and voucher: expected positive integers")
        elif line["ask"] == _CANCEL and "given" in line:
            self._undoes[line["i"]] = _earlier(line["given"], line["i"])
        self._voucher.append(voucher)
        self._all.user.append(user)

    def _fill(self) -> None:
        """Nothing is known yet of the attempts planned: all columns get their length at once."""
        claims, more = self._all, len(self._voucher) - len(self._answered)
        self._answered.extend(bytes(more))
        for filled, value in (
            (claims.sent_us, NEVER),
            (claims.done_us, NEVER),
            (claims.outcome, UNANSWERED),
            (claims.order, NO_ORDER),
            (claims.resolved, NO_ORDER),
            (claims.clock, 0),
        ):
            filled.extend(array(filled.typecode, [value]) * more)

    def _open_barrier(self, line: dict[str, Any]) -> None:
        unix_us = line["unix_us"]
        self._began_ms = unix_us // 1_000 if type(unix_us) is int else None
        self._barrier = True

    def _result(self, line: dict[str, Any]) -> None:
        i = self._planned(line["i"])
        if self._answered[i]:
            raise ValueError(f"attempt {i} has a result already")
        self._answered[i] = 1
        if self._voucher[i] == NO_CLAIM:
            if i in self._undoes and line["outcome"] == _DONE:
                self._undone.append(self._undoes[i])
            return
        order, code, clock = line.get("order"), _CODES.get(line["outcome"]), line.get("clock")
        sent_us, done_us = line["sent_us"], line["done_us"]
        if code is None:
            raise ValueError(f"outcome {line['outcome']!r} is not known")
        claims = self._all
        claims.outcome[i] = code
        claims.sent_us[i] = sent_us if type(sent_us) is int else _no_instant("sent_us", sent_us)
        claims.done_us[i] = done_us if type(done_us) is int else _no_instant("done_us", done_us)
        if clock is not None:
            claims.clock[i] = clock
        if order is not None:
            claims.order[i] = found = self._order_id(order)
            if found == GARBLED:
                claims.garbled[i] = order

    def _spare(self, line: dict[str, Any]) -> None:
        """It was planned for a case that did not come, and never sent: nothing to judge."""
        i = self._planned(line["i"])
        if self._answered[i]:
            raise ValueError(f"attempt {i} was spared and has a result")
        self._answered[i] = 1
        self._voucher[i] = NO_CLAIM
        self._undoes.pop(i, None)

    def _resolved(self, line: dict[str, Any]) -> None:
        i = self._planned(line["i"])
        outcome, order = line["outcome"], line["order"]
        if outcome not in ("sold", "none"):
            raise ValueError(f"outcome: expected sold or none, got {outcome!r}")
        if outcome == "sold":
            self._all.resolved[i] = GARBLED if order is None else self._order_id(order)

    def _order_id(self, text: Any) -> int:
        """The number of an order id; in a shop of any ids, one that stands for it."""
        if self._header.get("text_ids") is not True:
            return _order_id(text)
        if not isinstance(text, str) or text_id(text) is None:
            raise ValueError(f"order: expected text, got {text!r}")
        number = id_of(text)
        if str(number) != text:
            self._names[number] = text
        return number

    def _end(self, line: dict[str, Any]) -> None:
        self._ended, self._complete = True, not line["interrupted"]

    def _planned(self, i: int) -> int:
        if len(self._answered) < len(self._voucher):
            self._fill()
        if type(i) is not int or not 0 <= i < len(self._answered):
            raise ValueError(f"i: attempt {i!r} is not in the plan")
        return i


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 < value <= ID_MAX


def _are_ids(values: list[Any]) -> bool:
    return set(map(type, values)) == {int} and min(values) > 0 and max(values) <= ID_MAX


def ids_in(texts: bytes, count: int) -> list[int] | None:
    """The `count` ids in texts with a comma between any two, as parse_id reads each; None where one
    has to be looked at by itself."""
    if not texts.translate(None, b",").isdigit():
        return None
    try:
        ids: list[int] = orjson.loads(b"[%b]" % texts)
    except orjson.JSONDecodeError:  # a zero in front of one, or none between two commas
        return None
    return ids if len(ids) == count and min(ids) > 0 and max(ids) <= ID_MAX else None


def _order_ids(texts: list[Any]) -> list[int] | None:
    """The ids in texts, NO_ORDER for None; None where one has to be looked at by itself."""
    told = texts if None not in texts else [text for text in texts if text is not None]
    if not told:
        return [NO_ORDER] * len(texts)
    ids = ids_in(",".join(told).encode(), len(told))
    if ids is None or told is texts:
        return ids
    rest = iter(ids)
    return [NO_ORDER if text is None else next(rest) for text in texts]


def _earlier(value: Any, i: int) -> int:
    if type(value) is not int or not 0 <= value < i:
        raise ValueError(f"given: expected an attempt before {i}, got {value!r}")
    return value


def _no_instant(name: str, value: Any) -> int:
    if value is not None:
        raise ValueError(f"{name}: expected microseconds, got {value!r}")
    return NEVER


def _order_id(text: Any) -> int:
    if not isinstance(text, str):
        raise ValueError(f"order: expected text, got {text!r}")
    return parse_id(text) or GARBLED


def _times(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"quantity, limit: expected a whole number from 1 on, got {value!r}")
    return value


def _by_voucher(every: ClaimColumns, vouchers: Sequence[int]) -> dict[int, ClaimColumns]:
    distinct = set(vouchers)
    if len(distinct) == 1 and NO_CLAIM not in distinct:
        return {distinct.pop(): every}
    places: dict[int, list[int]] = {voucher: [] for voucher in distinct}
    for i, voucher in enumerate(vouchers):
        places[voucher].append(i)
    places.pop(NO_CLAIM, None)
    return {voucher: every.select(chosen) for voucher, chosen in places.items()}
