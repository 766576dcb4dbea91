"""Storms by several processes: one plan, one instant, one record, and nothing left behind."""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from rig.command_line import Started, start_flashsale
from rig.scripted_sale import SHED, SOLD_OUT, Act, Claim, ScriptedSale, http, sell

from flashsale.errors import ExitCode, UnreachableError
from flashsale.model import Verdict
from flashsale.run.attempts_file import read_record
from flashsale.run.folder import RunFolder, create_run_folder
from flashsale.run.histogram import Histogram, merged
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.target import Target
from flashsale.storm.attack.attack import Mission, Progress
from flashsale.storm.figures.conclusion import Finished
from flashsale.storm.storm import Assignment, storm

CLAIMS = '[sale]\nunits = 1000\n[load]\nmodel = "stampede"\n'
READS = '[browse]\nshops = 9\n[load]\nmodel = "rate"\n'
Storm = Callable[..., "Run"]


class Run:
    """A finished storm and what it left behind."""

    def __init__(self, finished: Finished, folder: RunFolder) -> None:
        self.summary, self.figures, self.folder = finished.summary, finished.figures, folder
        self.lines = [orjson.loads(line) for line in folder.attempts.read_bytes().splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == kind]


@pytest.fixture
def storm_on(tmp_path: Path) -> Storm:
    """Storm a scripted sale with a crew, and check what holds after any storm."""
    runs = count()

    def storm_it(
        sale: ScriptedSale,
        text: str,
        workers: int = 2,
        show: Callable[[Progress], None] = lambda _: None,
        **timeouts: int,
    ) -> Run:
        limits = "".join(f"{k} = {v}\n" for k, v in {"claim_ms": 1, **timeouts}.items())
        scenario = parse_scenario(
            f'schema = 1\nname = "tiny"\n{text}\n[timeouts]\n{limits}', "tiny"
        )
        folder = create_run_folder("tiny", tmp_path / f"run{next(runs)}", datetime.now(UTC))
        assignment = Assignment(scenario, Target.at(sale.base_url), folder, processes=workers)
        tokens = {user: f"token-{user}" for user in range(1, scenario.load.users + 1)}
        try:
            run = Run(storm(assignment, tokens, show), folder)
        finally:
            assert workers_of(os.getpid()) == []
        check_record(run)
        return run

    return storm_it


def check_record(run: Run) -> None:
    """One plan, one result an attempt, in one order of events."""
    planned = run.of("plan")
    assert [plan["i"] for plan in planned] == list(range(len(planned)))
    results = run.of("result")
    ended = [line["i"] for line in run.lines if line["kind"] in ("result", "spared")]
    assert sorted(ended) == list(range(len(planned)))
    done = [result["done_us"] for result in results]
    assert done == sorted(done)
    assert run.lines[-1]["kind"] == "end"
    assert run.lines[-1]["sent"] == sum(result["sent_us"] is not None for result in results)
    assert read_record(run.folder.attempts).attempts.by_label() == run.figures.attempts.by_label()


def workers_of(pid: int) -> list[psutil.Process]:
    """The crew of the process `pid`."""
    return [
        child
        for child in psutil.Process(pid).children()
        if "flashsale.storm.crew.child" in " ".join(child.cmdline())
    ]


@pytest.fixture
def sale() -> Iterator[ScriptedSale]:
    """A healthy sale of ten units."""
    with ScriptedSale(sell(units=10)).open() as sale:
        yield sale


def test_two_workers_are_one_storm(storm_on: Storm, sale: ScriptedSale) -> None:
    text = f"{CLAIMS}users = 600\nconnections = 7\nseed = 5"
    told: list[Progress] = []
    run, alone = storm_on(sale, text, show=told.append), storm_on(sale, text, workers=1)
    assert run.summary.plan_hash == alone.summary.plan_hash
    assert run.of("plan") == alone.of("plan")
    assert run.summary.load.outcomes == {"sold": 10, "sold_out": 590}
    assert run.summary.verdict is Verdict.PASS
    assert told[-1].settled == 600
    assert sum(told[-1].outcomes.values()) == 600
    # Every chain was whole and in order: an attempt was due when the one before had its answer.
    assert Counter(claim.on_connection for claim in sale.claims[:600])[0] == 7
    lane = {plan["i"]: plan["conn"] for plan in run.of("plan")}
    chains: dict[int, list[dict[str, Any]]] = {}
    for result in sorted(run.of("result"), key=lambda result: result["i"]):
        chains.setdefault(lane[result["i"]], []).append(result)
    assert len(chains) == 7
    for chain in chains.values():
        assert all(then["due_us"] == before["done_us"] for before, then in pairwise(chain))


def test_two_workers_merged_percentiles_are_those_of_both_records(
    storm_on: Storm, sale: ScriptedSale
) -> None:
    run = storm_on(sale, f"{CLAIMS}users = 2000\nconnections = 20")
    worker = {plan["i"]: plan["conn"] % 2 for plan in run.of("plan")}
    records: tuple[list[int], list[int]] = ([], [])
    for result in run.of("result"):
        records[worker[result["i"]]].append(result["done_us"] - result["due_us"])
    assert [len(record) for record in records] == [1000, 1000]
    both = merged(Histogram(record) for record in records)
    one = Histogram(records[0] + records[1])
    assert both.hgrm() == one.hgrm() == run.folder.hgrm.read_text()
    p50, p99 = one.percentiles_us(50, 99)
    assert p50 is not None
    assert p99 is not None
    response = run.summary.latency_ms.response
    assert (response.p50, response.p99) == (p50 / 1000, p99 / 1000)
    generator = run.summary.generator
    assert [share.name for share in generator.workers] == ["worker 1", "worker 2"]
    assert [(share.planned, share.sent, share.connections) for share in generator.workers] == [
        (1000, 1000, 10)
    ] * 2
    for name in ("start_lag_ms", "loop_lag_ms", "connect_ms"):
        counts = [getattr(share, name).count for share in generator.workers]
        assert getattr(generator, name).count == sum(counts) > 0


@pytest.mark.slow
def test_open_arrivals_are_shared_out_one_by_one(storm_on: Storm) -> None:
    def script(claim: Claim) -> Act:
        return Act(http(200, b"{}", {"x-cache": "hit"}), delay_s=0.02)

    with ScriptedSale(script).open() as shelf:
        run = storm_on(shelf, f'{READS}stages = ["400ms:300"]\nconnections = 3')
    assert run.summary.load.outcomes == {"hit": 120}
    assert [share.planned for share in run.summary.generator.workers] == [60, 60]
    assert [share.connections for share in run.summary.generator.workers] == [2, 1]
    planned = {plan["i"]: plan["at_us"] for plan in run.of("plan")}
    assert all(result["due_us"] == planned[result["i"]] for result in run.of("result"))
    assert any("free_us" in result for result in run.of("result"))


@pytest.mark.slow
def test_users_who_click_and_try_again_stay_with_one_worker(storm_on: Storm) -> None:
    def script(claim: Claim) -> Act:
        return Act(SHED if claim.number % 3 == 0 else SOLD_OUT)

    text = '[sale]\nunits = 1000\n[load]\nmodel = "closed"\nusers = 60\nconnections = 12\n'
    text += 'clicks = 2\nthink_ms = 5\nretry = { on = ["shed"], times = 2, backoff_ms = 5 }'
    with ScriptedSale(script).open() as sale:
        run = storm_on(sale, text)
    spared = {line["i"] for line in run.of("spared")}
    given = {plan["i"]: plan["given"] for plan in run.of("plan") if "given" in plan}
    outcomes = {result["i"]: result["outcome"] for result in run.of("result")}
    assert spared
    assert spared == {i for i in given if outcomes.get(given[i]) != "shed"}
    assert len(spared) + len(outcomes) == len(run.of("plan"))
    assert run.summary.load.planned == run.summary.load.sent == len(sale.claims)
    assert sum(share.planned for share in run.summary.generator.workers) == len(sale.claims)
    assert run.summary.generator.complaints == []


# What goes wrong.


def test_a_worker_that_cannot_connect_is_an_error_and_nothing_is_sent(
    storm_on: Storm, sale: ScriptedSale, tmp_path: Path
) -> None:
    sale.refuse()
    with pytest.raises(UnreachableError, match=r"worker \d of 2: 0 of 5 connections to .* stood"):
        storm_on(sale, f"{CLAIMS}users = 10\nconnections = 10", barrier_ms=300)
    lines = [orjson.loads(n) for n in (tmp_path / "run0/attempts.jsonl").read_bytes().splitlines()]
    results = [line for line in lines if line["kind"] == "result"]
    assert [(r["outcome"], r["error"]) for r in results] == [("unsent", "barrier")] * 10
    assert lines[-1]["sent"] == 0
    assert not any(line["kind"] == "barrier" for line in lines)


def test_a_worker_that_dies_leaves_its_part_indeterminate(storm_on: Storm) -> None:
    def script(claim: Claim) -> Act:
        if claim.method != "POST":
            return Act(http(200, b'{"success":true,"data":{"state":"none"}}'))
        if claim.number == 30:
            workers_of(os.getpid())[0].kill()
        return Act(SOLD_OUT, delay_s=0.01)

    with ScriptedSale(script).open() as sale:
        run = storm_on(sale, f"{CLAIMS}users = 300\nconnections = 4")
    outcomes = run.summary.load.outcomes
    assert outcomes["sold_out"] >= 10
    lost = [r for r in run.of("result") if r["outcome"] == "indeterminate"]
    assert {(r["error"], r["sent_us"]) for r in lost} == {("worker", None)}
    lane = {plan["i"]: plan["conn"] for plan in run.of("plan")}
    (part,) = {lane[r["i"]] % 2 for r in lost}
    # All of its part is accounted for: what it told, and what nobody knows.
    assert {r["outcome"] for r in run.of("result") if lane[r["i"]] % 2 == part} <= {
        "sold_out",
        "indeterminate",
    }
    assert outcomes["unsent"] > 50  # the other worker went no further
    assert len(run.of("resolved")) == run.summary.load.resolved == len(lost)
    assert run.summary.exit_code == ExitCode.INVALID_RUN
    assert run.summary.verdict is Verdict.INVALID
    assert any(
        f"was killed by signal 9; nobody tells of {len(lost):,} attempts" in complaint
        for complaint in run.summary.generator.complaints
    )
    assert len(run.summary.generator.workers) == 1


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended(storm_on: Storm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashsale.storm.crew.crew.OVERTIME_S", 0.2)

    def script(claim: Claim) -> Act:
        if claim.number == 5:
            workers_of(os.getpid())[1].suspend()
        return Act(SOLD_OUT, delay_s=0.01)

    with ScriptedSale(script).open() as sale:
        run = storm_on(
            sale, f"{CLAIMS}users = 500\nconnections = 2", run_ms=700, resolve_ms=1, drain_ms=100
        )
    assert run.summary.exit_code == ExitCode.INVALID_RUN
    (complaint,) = (c for c in run.summary.generator.complaints if "worker" in c)
    assert complaint.startswith("worker 2 of 2 did not end in time; nobody tells of ")


@pytest.mark.slow
def test_a_worker_that_dies_before_the_barrier_is_an_error(storm_on: Storm, tmp_path: Path) -> None:
    with ScriptedSale(sell(units=1)).open() as sale:
        sale.refuse()  # so that workers wait for their connections
        killer = threading.Timer(1.5, lambda: workers_of(os.getpid())[0].kill())
        killer.start()
        with pytest.raises(UnreachableError, match="was killed by signal 9 before the barrier"):
            storm_on(sale, f"{CLAIMS}users = 4\nconnections = 4", barrier_ms=20_000)
        killer.join()
    assert b'"sent":0' in (tmp_path / "run0/attempts.jsonl").read_bytes()


@pytest.mark.slow
def test_a_defect_in_a_worker_is_raised_here(
    storm_on: Storm, sale: ScriptedSale, monkeypatch: pytest.MonkeyPatch
) -> None:
    def foreign(mission: Mission, number: int, of: int) -> Mission:
        return replace(mission, plan=mission.plan.part(number, of), tokens={})

    monkeypatch.setattr("flashsale.storm.crew.crew._part_of", foreign)
    with pytest.raises(RuntimeError, match=r"worker \d of 2:(.|\n)*KeyError"):
        storm_on(sale, f"{CLAIMS}users = 4\nconnections = 4")


@pytest.mark.slow
def test_a_signal_before_the_barrier_sends_nothing(storm_on: Storm) -> None:
    with ScriptedSale(sell(units=1)).open() as sale:
        sale.refuse()
        threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        run = storm_on(sale, f"{CLAIMS}users = 4\nconnections = 4", barrier_ms=20_000)
    assert run.summary.load.outcomes == {"unsent": 4}
    assert run.summary.load.errors == {"interrupted": 4}
    assert run.of("barrier") == []
    assert run.summary.exit_code == ExitCode.INTERRUPTED


# As a user runs it.


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a scenario and tokens for it."""
    text = f'schema = 1\nname = "tiny"\n{CLAIMS}users = 2000\nconnections = 4\n'
    (tmp_path / "tiny.toml").write_text(text)
    rows = "".join(f"{user},token-{user}\n" for user in range(1, 2001))
    (tmp_path / "tokens.csv").write_text("user_id,token\n" + rows)
    return tmp_path


def begin(desk: Path, sale: ScriptedSale, *arguments: str) -> Started:
    line = ("storm", "tiny.toml", "--no-calibrate", "--out", "run")
    where = ("--tokens", "tokens.csv", "--base-url", sale.base_url)
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    wide = {"COLUMNS": "120", "NO_COLOR": "1"}
    return start_flashsale(desk, *line, *where, *arguments, **piped, **wide)


def gone(processes: list[psutil.Process], within_s: float = 10.0) -> bool:
    """Whether all of them end."""
    return not psutil.wait_procs(processes, timeout=within_s)[1]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
    ids=["ctrl-c", "sigterm"],
)
def test_a_signal_ends_all_workers_and_the_record_is_whole(
    desk: Path, number: signal.Signals, code: int
) -> None:
    with ScriptedSale(lambda _: Act(SOLD_OUT, delay_s=0.03)).open() as sale:
        process = begin(desk, sale, "--workers", "2")
        assert sale.reached(20)
        workers = workers_of(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert len(workers) == 2
    assert gone(workers)
    assert "INVALID" in out
    lines = [orjson.loads(n) for n in (desk / "run/attempts.jsonl").read_bytes().splitlines()]
    results = Counter(line["outcome"] for line in lines if line["kind"] == "result")
    assert results == {"sold_out": len(sale.claims), "unsent": 2000 - len(sale.claims)}
    assert lines[-1] == {
        "kind": "end",
        "planned": 2000,
        "sent": len(sale.claims),
        "interrupted": True,
    }


def test_workers_end_with_the_process_that_started_them(desk: Path) -> None:
    with ScriptedSale(lambda _: Act(SOLD_OUT, delay_s=0.03)).open() as sale:
        process = begin(desk, sale, "--workers", "2")
        assert sale.reached(30)
        workers = workers_of(process.pid)
        process.kill()
        process.communicate(timeout=30)
        assert len(workers) == 2
        assert gone(workers)
        claims = len(sale.claims)
        time.sleep(0.2)
        assert len(sale.claims) == claims
    record = (desk / "run/attempts.jsonl").read_bytes()
    assert record.count(b'"kind":"plan"') == 2000
    assert 0 < record.count(b'"kind":"result"') <= claims
