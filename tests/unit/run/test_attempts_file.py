import errno
import os
import re
from array import array
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import orjson
import pytest
from rig.plans import plan_stampede

from flashsale.model import Outcome
from flashsale.run import attempts_file as module
from flashsale.run.attempts import NEVER, Attempts
from flashsale.run.attempts_file import AttemptsFile, lines_of, read_record
from flashsale.run.folder import NotWrittenError
from flashsale.scenario.answer import Answer, indeterminate, unsent
from flashsale.scenario.scenario import Load, Sale
from flashsale.storm.plan.plan import Plan

ORIGIN_NS = 5_000_000_000_000
HEADER = {"run": "r", "scenario": "s", "vouchers": [1], "planned": 4, "barrier_unix_us": None}


@pytest.fixture
def plan() -> Plan:
    load = Load(model="stampede", users=4, connections=2)
    return plan_stampede(load, Sale(units=1), range(1, 5))


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def filled() -> Attempts:
    record = Attempts(4)
    record.origin_ns = ORIGIN_NS
    for i, sent_us in ((0, 10), (1, 20), (2, 300)):
        record.due_ns[i] = ORIGIN_NS + 1000 * (sent_us - 1)
        record.sent_ns[i] = ORIGIN_NS + 1000 * sent_us
    record.due_ns[3] = ORIGIN_NS + 400_000
    record.settle(1, ORIGIN_NS + 250_999, Answer(Outcome.SOLD_OUT, 200))
    record.settle(0, ORIGIN_NS + 300_000, Answer(Outcome.SOLD, 200, "515385561440059393"))
    record.settle(2, ORIGIN_NS + 900_000, indeterminate("reset"))
    record.settle(3, ORIGIN_NS + 950_000, unsent("connect"))
    return record


def test_the_file_holds_the_run_as_its_contract_says(tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "attempts.jsonl"
    with AttemptsFile(path) as attempts:
        attempts.write_plan(dict(HEADER), plan)
        attempts.write_barrier(123)
        attempts.write_results(filled())
        attempts.write_resolved(2, "none", None)
        attempts.write_end(4, 3, interrupted=False)
    header, *plans = lines(path)[:5]
    assert header == {"kind": "header", "schema": 1, **HEADER}
    whens = [{"at_us": 0}, {"at_us": 0}, {"after": 0, "think_us": 0}, {"after": 1, "think_us": 0}]
    assert plans == [
        {"kind": "plan", "i": i, "user": plan.users[i], "voucher": 1, "conn": i % 2, **whens[i]}
        for i in range(4)
    ]
    sold = {"outcome": "sold", "status": 200, "order": "515385561440059393"}
    gone = {"outcome": "sold_out", "status": 200, "order": None}
    lost = {"outcome": "indeterminate", "status": None, "order": None, "error": "reset"}
    never = {"outcome": "unsent", "status": None, "order": None, "error": "connect"}
    assert lines(path)[5:] == [
        {"kind": "barrier", "unix_us": 123},
        {"kind": "result", "i": 1, "due_us": 19, "sent_us": 20, "done_us": 250, **gone},
        {"kind": "result", "i": 0, "due_us": 9, "sent_us": 10, "done_us": 300, **sold},
        {"kind": "result", "i": 2, "due_us": 299, "sent_us": 300, "done_us": 900, **lost},
        {"kind": "result", "i": 3, "due_us": 400, "sent_us": None, "done_us": 950, **never},
        {"kind": "resolved", "i": 2, "outcome": "none", "order": None},
        {"kind": "end", "planned": 4, "sent": 3, "interrupted": False},
    ]


def test_the_plan_is_on_disk_before_anything_else_happens(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "attempts.jsonl", []
    monkeypatch.setattr(module.os, "fsync", lambda _: synced.append(len(lines(path))))
    with AttemptsFile(path) as attempts:
        attempts.write_plan(dict(HEADER), plan)
        assert synced == [5, 5]  # the file, then the folder that names it


def test_results_are_written_once_and_as_they_come(tmp_path: Path) -> None:
    path, record = tmp_path / "attempts.jsonl", filled()
    record.arrivals, later = record.arrivals[:2], record.arrivals[2:]
    with AttemptsFile(path) as attempts:
        attempts.write_results(record)
        attempts.write_results(record)
        assert [line["i"] for line in lines(path)] == [1, 0]
        assert attempts.outcomes == {Outcome.SOLD: 1, Outcome.SOLD_OUT: 1}
        record.arrivals += later
        attempts.write_results(record)
        assert [line["i"] for line in lines(path)] == [1, 0, 2, 3]


def test_a_file_of_attempts_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "attempts.jsonl").touch()
    with pytest.raises(NotWrittenError, match=r"attempts\.jsonl: File exists"):
        AttemptsFile(tmp_path / "attempts.jsonl")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"i": -1}, "line 7: found attempt -1, expected one of 4"),
        ({"i": 4}, "found attempt 4"),
        ({"i": True}, "found attempt True"),
        ({"i": 1}, "attempt 1 has two results"),
        ({"done_us": 10**18}, "expected an instant in µs"),
        ({"done_us": "12"}, "expected an instant in µs"),
        ({"sent_us": 50, "done_us": 40}, "was due at 10 µs, sent at 50, answered at 40"),
        ({"status": 10**9}, "expected one of HTTP"),
        ({"order": ["=1+1"]}, "expected text"),
        ({"outcome": "won"}, "won"),
        ({"kind": "resolved", "outcome": "maybe"}, "expected one of"),
    ],
)
def test_a_line_that_no_storm_writes_is_named(
    tmp_path: Path, plan: Plan, line: dict[str, object], told: str
) -> None:
    path = tmp_path / "attempts.jsonl"
    usual = {"kind": "result", "i": 0, "due_us": 10, "sent_us": 20, "done_us": 30}
    usual |= {"outcome": "sold", "status": 200, "order": "7"}
    with AttemptsFile(path) as attempts:
        attempts.write_plan(dict(HEADER), plan)
        attempts.write_lines(orjson.dumps(usual | more) + b"\n" for more in ({"i": 1}, line))
    with pytest.raises(ValueError, match=re.escape(told)):
        read_record(path)


@pytest.mark.parametrize(
    "more", [{"planned": -1}, {"planned": 1e9}, {"units": [1]}, {"clicks": 0}, {"shard": {}}]
)
def test_a_header_is_held_to_what_is_relied_on(
    tmp_path: Path, plan: Plan, more: dict[str, object]
) -> None:
    path = tmp_path / "attempts.jsonl"
    with AttemptsFile(path) as attempts:
        attempts.write_plan(HEADER | more, plan)
    with pytest.raises(ValueError, match="line 1: "):
        read_record(path)


def test_a_record_that_was_cut_says_so(tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "attempts.jsonl"
    written(path, plan, filled())
    shortfall = read_record(path).shortfall
    assert shortfall is not None
    assert shortfall.startswith("the record has no end")
    with path.open("ab") as file:
        file.write(b'{"kind":"end","planned":4,"sent":3,"interrupted":false}\n')
    assert read_record(path).shortfall is None


def test_a_record_that_cannot_be_written_on_ends_there(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing follows a torn line, even where there is room again; and what has been sent goes on,
    since there is a verdict to come of it."""
    for is_fired in (False, True):
        path = tmp_path / f"attempts-{is_fired}.jsonl"
        with AttemptsFile(path) as attempts:
            attempts.write_plan(dict(HEADER), plan)
            if is_fired:
                attempts.write_barrier(123)
            size = path.stat().st_size
            for write in (_full, os.write):
                with monkeypatch.context() as disk:
                    disk.setattr("os.write", write)
                    with nullcontext() if is_fired else pytest.raises(NotWrittenError):
                        attempts.write_end(4, 0, interrupted=False)
            with pytest.raises(NotWrittenError, match="No space left on device; free some space"):
                attempts.ensure_whole()
        assert path.stat().st_size == size


def _full(descriptor: int, data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def written(path: Path, plan: Plan, record: Attempts) -> bytes:
    with AttemptsFile(path) as attempts:
        attempts.write_plan(dict(HEADER), plan)
        attempts.write_barrier(123)
        attempts.write_results(record)
    return path.read_bytes()


def test_the_ledger_can_be_read_back(tmp_path: Path, plan: Plan) -> None:
    path, record = tmp_path / "attempts.jsonl", filled()
    written(path, plan, record)
    again = read_record(path).attempts
    assert (again.answers, again.arrivals) == (record.answers, record.arrivals)
    assert again.barrier_unix_us == 123
    for mine, other in ((record.due_ns, again.due_ns), (record.sent_ns, again.sent_ns)):
        assert [record.after_barrier_us(t) for t in mine] == [
            again.after_barrier_us(t) for t in other
        ]
    assert again.by_label() == record.by_label()


def test_when_a_waiting_attempt_got_its_connection_is_on_record(tmp_path: Path, plan: Plan) -> None:
    path, record = tmp_path / "attempts.jsonl", filled()
    record.free_ns = array("q", [NEVER, ORIGIN_NS + 15_500, ORIGIN_NS + 299_900_999, NEVER])
    record.sent_ns[2] = ORIGIN_NS + 300_000_000
    record.done_ns[2] = ORIGIN_NS + 400_000_000
    written(path, plan, record)
    free = {line["i"]: line.get("free_us") for line in lines(path) if line["kind"] == "result"}
    assert free == {0: None, 1: 15, 2: 299_900, 3: None}
    again = read_record(path).attempts
    assert list(again.free_ns) == [NEVER, 15_000, 299_900_000, NEVER]
    assert again.start_lag().spectrum() == record.start_lag().spectrum()
    assert record.start_lag().max_us == 100  # since the connection, not since the plan


def test_an_instant_before_the_barrier_is_one_like_any_other(tmp_path: Path, plan: Plan) -> None:
    """Of a record that somebody else wrote, beside attempts that had to wait for a connection."""
    record = filled()
    record.free_ns = array("q", [NEVER, NEVER, ORIGIN_NS + 299_500, NEVER])
    path = tmp_path / "attempts.jsonl"
    with AttemptsFile(path) as file:
        file.write_plan(HEADER, plan)
        file.write_barrier(1_763_884_800_000_000)
        file.write_results(record)
    early = path.read_bytes().replace(b'"due_us":9,"sent_us":10,', b'"due_us":-90,"sent_us":-80,')
    path.write_bytes(early)
    assert sorted(lag for _, lag in read_record(path).attempts.start_lags_us()) == [1, 1, 10]


def test_a_record_without_that_instant_is_read_as_before(tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "attempts.jsonl"
    assert b"free_us" not in written(path, plan, filled())
    assert not read_record(path).attempts.free_ns


def test_what_a_crash_tore_is_left_out(tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "attempts.jsonl"
    data = written(path, plan, filled())
    path.write_bytes(data[:-5])
    again = read_record(path).attempts
    assert again.arrivals == [1, 0, 2]
    assert again.open == 1


@pytest.mark.parametrize("field", [b"i", b"outcome", b"order", b"due_us", b"error"])
@pytest.mark.parametrize("depth", [300, 900, 30_000])
def test_a_line_that_nests_too_deep_is_refused(
    tmp_path: Path, plan: Plan, field: bytes, depth: int
) -> None:
    path = tmp_path / "attempts.jsonl"
    deep = b'{"kind":"result","%s":%s}\n' % (field, b"[" * depth + b"]" * depth)
    path.write_bytes(written(path, plan, filled()) + deep)
    with pytest.raises(ValueError, match="nests too deep"):
        read_record(path)
    with pytest.raises(ValueError, match="nests too deep"):
        list(lines_of(path))


@pytest.mark.parametrize("content", [b"", b"{}\n", b"nothing\n", b'{"kind":"plan"}\n'])
def test_what_is_no_file_of_attempts_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "attempts.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        read_record(path)
