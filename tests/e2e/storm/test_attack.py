"""Storms on a sale that does as it is told: every outcome and every time must come out right."""

import asyncio
import errno
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count, pairwise
from pathlib import Path
from time import monotonic_ns
from typing import Any

import orjson
import pytest
from rig.scripted_sale import (
    FIRST_ORDER,
    SHED,
    SOLD_OUT,
    Act,
    Claim,
    ScriptedSale,
    http,
    sell,
    sold,
)

from flashsale.errors import ExitCode, UnreachableError, UsageError
from flashsale.model import Outcome, Verdict
from flashsale.run.attempts_file import read_record
from flashsale.run.folder import RunFolder, create_run_folder
from flashsale.scenario.answer import CONNECT
from flashsale.scenario.scenario import Timeouts, parse_scenario
from flashsale.scenario.target import Target
from flashsale.storm.attack.attack import Progress
from flashsale.storm.attack.connections import SOCKET, Connections
from flashsale.storm.attack.wire import ClientConnection
from flashsale.storm.figures.conclusion import Finished
from flashsale.storm.storm import Assignment, storm

LAST = http(200, b"", {"x-outcome": "sold_out", "connection": "close"})
Script = Callable[[Claim], Act]
Storm = Callable[..., "Run"]


class Run:
    """A finished storm and what it left behind."""

    def __init__(self, finished: Finished, folder: RunFolder) -> None:
        self.summary, self.figures, self.folder = finished.summary, finished.figures, folder
        self.lines = [orjson.loads(line) for line in folder.attempts.read_bytes().splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == kind]

    def outcomes(self) -> dict[str, int]:
        return dict(Counter(result["outcome"] for result in self.of("result")))


@pytest.fixture
def storm_on(tmp_path: Path) -> Storm:
    """Storm a scripted sale, and check what holds after any storm."""
    runs = count()

    def storm_it(
        sale: ScriptedSale | str,
        *,
        users: int,
        connections: int | None = None,
        spread_ms: int = 0,
        show: Callable[[Progress], None] = lambda _: None,
        **timeouts: int,
    ) -> Run:
        text = "\n".join(
            [
                'schema = 1\nname = "tiny"\n[sale]\nunits = 1000\n[load]\nmodel = "stampede"',
                f"users = {users}\nconnections = {connections or users}\nspread_ms = {spread_ms}",
                "[timeouts]",
                *(f"{name} = {value}" for name, value in {"claim_ms": 1, **timeouts}.items()),
            ]
        )
        base_url = sale if isinstance(sale, str) else sale.base_url
        folder = create_run_folder("tiny", tmp_path / f"run{next(runs)}", datetime.now(UTC))
        assignment = Assignment(parse_scenario(text, "tiny"), Target.at(base_url), folder)
        tokens = {user: f"token-{user}" for user in range(1, users + 1)}
        run = Run(storm(assignment, tokens, show), folder)
        check_record(run, users)
        return run

    return storm_it


def check_record(run: Run, users: int) -> None:
    """The record is whole: one plan and one result an attempt, in the order of the contract."""
    kinds = [line["kind"] for line in run.lines]
    assert kinds[: users + 1] == ["header"] + ["plan"] * users
    assert kinds[-1] == "end"
    results = run.of("result")
    assert sorted(result["i"] for result in results) == list(range(users))
    barriers = run.of("barrier")
    assert len(barriers) == 1 or all(r["sent_us"] is None for r in results)
    for result in results:
        if result["sent_us"] is not None:
            assert result["due_us"] <= result["sent_us"] <= result["done_us"]
    assert run.of("end")[0]["planned"] == users
    assert run.of("end")[0]["sent"] == sum(r["sent_us"] is not None for r in results)
    assert sum(run.summary.load.outcomes.values()) == users
    assert read_record(run.folder.attempts).attempts.by_label() == run.figures.attempts.by_label()


def after(first: Act, *then: Act) -> Script:
    """Claims are answered by these acts in order of arrival; the last serves all others."""
    acts = (first, *then)
    return lambda claim: acts[min(claim.number, len(acts) - 1)]


@contextmanager
def open_sale(script: Script) -> Iterator[ScriptedSale]:
    with ScriptedSale(script).open() as sale:
        yield sale


def test_a_healthy_stampede(storm_on: Storm) -> None:
    with open_sale(sell(units=10)) as sale:
        run = storm_on(sale, users=50)
    assert run.outcomes() == {"sold": 10, "sold_out": 40}
    assert run.summary.verdict is Verdict.PASS
    assert run.summary.orders.accepted == 10
    assert run.summary.orders.rejected == 40
    assert sale.connections == 50
    assert {claim.token for claim in sale.claims} == {f"token-{user}" for user in range(1, 51)}
    assert {claim.path for claim in sale.claims} == {"/voucher-order/seckill/1"}
    orders = {int(result["order"]) for result in run.of("result") if result["order"]}
    assert orders == {FIRST_ORDER + n for n in range(10)}
    assert run.folder.hgrm.read_text().startswith("       Value     Percentile")
    assert "Tag=buy.sold.response,0.000" in run.folder.hlog.read_text()


def test_buyers_of_a_connection_come_one_after_another(storm_on: Storm) -> None:
    with open_sale(sell(units=1000)) as sale:
        run = storm_on(sale, users=60, connections=4)
    assert run.outcomes() == {"sold": 60}
    assert run.summary.load.closed
    assert sale.connections == 4
    assert Counter(claim.on_connection for claim in sale.claims) == dict.fromkeys(range(15), 4)
    lane = {plan["i"]: plan["conn"] for plan in run.of("plan")}
    by_lane: dict[int, list[dict[str, Any]]] = {}
    for result in sorted(run.of("result"), key=lambda result: result["i"]):
        by_lane.setdefault(lane[result["i"]], []).append(result)
    for results in by_lane.values():
        for before, following in pairwise(results):
            assert following["due_us"] == before["done_us"]


def test_nobody_is_sent_before_everybody_is_connected(storm_on: Storm) -> None:
    """A queue of five that nobody serves: the kernel shakes five hands and drops the rest."""
    with socket.create_server(("127.0.0.1", 0), backlog=4) as queue:
        base_url = f"http://127.0.0.1:{queue.getsockname()[1]}"
        with pytest.raises(UnreachableError, match=r"5 of 10 connections to .* stood after 500 ms"):
            storm_on(base_url, users=10, barrier_ms=500)
        queue.settimeout(5)
        for _ in range(5):
            visitor, _ = queue.accept()
            with visitor:
                assert received(visitor) == b""


def received(visitor: socket.socket) -> bytes:
    visitor.settimeout(5)
    try:
        return visitor.recv(1000)
    except ConnectionResetError:
        return b""


def test_the_plan_is_on_disk_before_the_first_claim(storm_on: Storm, tmp_path: Path) -> None:
    seen = []

    def script(claim: Claim) -> Act:
        seen.append((tmp_path / "run0" / "attempts.jsonl").read_bytes().count(b'"kind":"plan"'))
        return Act(SOLD_OUT)

    with open_sale(script) as sale:
        storm_on(sale, users=30, connections=3)
    assert set(seen) == {30}


# Times.


def test_a_known_delay_is_found_in_response_and_service(storm_on: Storm) -> None:
    delays = [0.1, 0.2, 0.3]
    with open_sale(lambda claim: Act(SOLD_OUT, delay_s=delays[claim.number % 3])) as sale:
        run = storm_on(sale, users=30)
    for clock in ("response", "service"):
        latency = run.figures.latency(clock)
        (median,) = latency.percentiles_us(50)
        assert median is not None
        assert 200_000 <= median < 500_000
        assert latency.max_us >= 300_000
        assert latency.mean_us >= 200_000


def test_in_a_closed_run_a_stall_delays_one_answer_and_moves_those_behind_it(
    storm_on: Storm,
) -> None:
    with open_sale(after(Act(SOLD_OUT, delay_s=0.5), Act(SOLD_OUT))) as sale:
        run = storm_on(sale, users=20, connections=1)
    first, *others = sorted(run.of("result"), key=lambda result: result["i"])
    assert first["done_us"] >= 500_000
    assert all(result["due_us"] >= 500_000 for result in others)
    (median,) = run.figures.latency("response").percentiles_us(50)
    assert median is not None
    assert median < 400_000


def test_first_attempts_are_sent_at_their_instants(storm_on: Storm) -> None:
    with open_sale(sell(units=0)) as sale:
        run = storm_on(sale, users=40, spread_ms=400)
    planned = {plan["i"]: plan["at_us"] for plan in run.of("plan")}
    assert max(planned.values()) > 200_000
    for result in run.of("result"):
        assert result["due_us"] == planned[result["i"]]
        assert result["sent_us"] >= result["due_us"]
    assert run.summary.load.duration_s >= max(planned.values()) / 1e6


# Trouble.


@pytest.mark.parametrize(
    ("act", "outcome", "error"),
    [
        (Act(then="reset"), "indeterminate", "reset"),
        (Act(then="close"), "indeterminate", "reset"),
        (Act(sold(1)[:40], then="close"), "indeterminate", "truncated"),
        (Act(b"nonsense\r\n\r\n"), "indeterminate", "malformed"),
        (Act(http(502, b"<html>")), "indeterminate", "http_502"),
        (Act(http(504)), "indeterminate", "http_504"),
        (Act(http(503)), "indeterminate", "http_503"),
        (Act(http(401)), "refused", "http_401"),
        (Act(SHED), "shed", None),
        (Act(http(503, b"", {"x-outcome": "unknown"})), "unknown", "unknown"),
    ],
)
def test_one_bad_answer_is_recorded_as_what_it_is_and_the_chain_goes_on(
    storm_on: Storm, act: Act, outcome: str, error: str | None
) -> None:
    with open_sale(after(Act(sold(5)), act, Act(SOLD_OUT))) as sale:
        run = storm_on(sale, users=5, connections=1)
    results = sorted(run.of("result"), key=lambda result: result["i"])
    assert [r["outcome"] for r in results] == ["sold", outcome, *["sold_out"] * 3]
    assert results[1].get("error") == error
    assert len(sale.claims) == 5  # each was sent once, and none again
    assert run.summary.load.sent == 5
    assert run.summary.generator.verdict == "valid"


def test_an_answer_that_does_not_come_is_given_up_on_and_counted(storm_on: Storm) -> None:
    with open_sale(after(Act(), Act(SOLD_OUT))) as sale:
        run = storm_on(sale, users=3, connections=1, request_ms=300)
    first, *others = sorted(run.of("result"), key=lambda result: result["i"])
    assert (first["outcome"], first["error"]) == ("indeterminate", "timeout")
    assert first["done_us"] - first["sent_us"] >= 300_000
    assert [r["outcome"] for r in others] == ["sold_out", "sold_out"]
    assert run.summary.latency_ms.censored == 1
    assert run.summary.latency_ms.response.count == 3  # it is in the latency, not dropped
    assert run.summary.latency_ms.response.max >= 300


def test_a_late_answer_changes_nothing(storm_on: Storm) -> None:
    with open_sale(after(Act(sold(5), delay_s=0.6), Act(SOLD_OUT, delay_s=0.2))) as sale:
        run = storm_on(sale, users=4, connections=1, request_ms=300)
    assert run.outcomes() == {"indeterminate": 1, "sold_out": 3}
    assert run.summary.orders.accepted == 0


def test_what_is_out_when_the_drain_ends_is_censored(storm_on: Storm) -> None:
    with open_sale(after(Act(), Act(SOLD_OUT))) as sale:
        run = storm_on(sale, users=5, drain_ms=200)
    assert run.outcomes() == {"indeterminate": 1, "sold_out": 4}
    assert run.summary.load.errors == {"deadline": 1}
    assert run.summary.latency_ms.censored == 1


def test_a_run_has_an_end_whatever_the_server_does(storm_on: Storm) -> None:
    with open_sale(lambda _: Act()) as sale:
        run = storm_on(sale, users=6, connections=2, run_ms=300, request_ms=200, resolve_ms=100)
    assert run.summary.load.outcomes["unsent"] >= 1
    assert run.summary.load.errors["deadline"] >= 1
    assert run.summary.load.duration_s < 5
    assert run.summary.exit_code == ExitCode.NOTHING_JUDGED


def test_a_server_that_closes_after_each_answer_is_connected_to_again(storm_on: Storm) -> None:
    with open_sale(lambda _: Act(LAST, then="close")) as sale:
        run = storm_on(sale, users=20, connections=2)
    assert run.outcomes() == {"sold_out": 20}
    assert sale.connections == 20


def test_a_target_that_refuses_connections_in_mid_storm_fails_the_run_and_not_the_generator(
    storm_on: Storm,
) -> None:
    def script(claim: Claim) -> Act:
        if claim.number == 1:
            sale.refuse_soon()
            return Act(LAST, then="close")
        return Act(sold(5))

    with open_sale(script) as sale:
        run = storm_on(sale, users=5, connections=1, connect_ms=150)
    assert run.outcomes() == {"sold": 1, "sold_out": 1, "unsent": 3}
    assert run.summary.load.errors == {"connect": 3}
    assert run.summary.generator.complaints == []
    assert run.summary.exit_code == ExitCode.THRESHOLD


def test_a_target_that_falls_silent_in_mid_storm_fails_the_run_and_not_the_generator(
    storm_on: Storm,
) -> None:
    with open_sale(after(Act(SOLD_OUT), Act(sold(5)), Act())) as sale:
        run = storm_on(sale, users=9, connections=1, run_ms=1_500, resolve_ms=100)
    assert run.outcomes() == {"sold_out": 1, "sold": 1, "indeterminate": 1, "unsent": 6}
    assert run.summary.load.errors == {"deadline": 1, "silent": 6}
    assert run.summary.generator.complaints == []
    assert run.summary.exit_code == ExitCode.THRESHOLD


def test_a_slow_storm_that_is_answered_to_its_end_is_invalid(storm_on: Storm) -> None:
    with open_sale(lambda _: Act(SOLD_OUT, delay_s=0.1)) as sale:
        run = storm_on(sale, users=20, connections=1, run_ms=500)
    assert set(run.summary.load.errors) == {"deadline"}
    assert run.summary.exit_code == ExitCode.INVALID_RUN


@pytest.mark.parametrize(
    ("lacking", "error"), [(errno.EADDRNOTAVAIL, SOCKET), (errno.ECONNREFUSED, CONNECT)]
)
def test_a_machine_without_sockets_is_told_from_a_target_that_takes_none(
    monkeypatch: pytest.MonkeyPatch, lacking: int, error: str
) -> None:
    async def reopen() -> str | None:
        async def refuse(*_: Any, **__: Any) -> Any:
            raise OSError(lacking, "why")

        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refuse)
        timeouts = Timeouts(connect_ms=100)
        connections = Connections(
            Target.at("http://127.0.0.1:9"), 1, timeouts, lambda n: ClientConnection(n, print)
        )
        return await connections.reopen(0, monotonic_ns())

    assert asyncio.run(reopen()) == error


def test_a_barrier_that_cannot_open_is_an_error_and_nothing_is_sent(
    storm_on: Storm, tmp_path: Path
) -> None:
    with open_sale(sell(units=1)) as sale:
        sale.refuse()
        with pytest.raises(UnreachableError, match=r"0 of 10 connections to .* stood after 300 ms"):
            storm_on(sale, users=10, barrier_ms=300)
    record = (tmp_path / "run0/attempts.jsonl").read_bytes()
    lines = [orjson.loads(line) for line in record.splitlines()]
    assert {(r["outcome"], r["error"]) for r in lines if r["kind"] == "result"} == {
        ("unsent", "barrier")
    }
    assert lines[-1] == {"kind": "end", "planned": 10, "sent": 0, "interrupted": False}


# Resolving.


def status_of(**data: object) -> Act:
    return Act(http(200, orjson.dumps({"success": True, "data": data})))


def test_indeterminate_attempts_are_asked_after_and_the_first_outcome_stays(
    storm_on: Storm,
) -> None:
    replies = {"token-1": status_of(state="row", orderId="77", status=1)}

    def script(claim: Claim) -> Act:
        if claim.method == "POST":
            return Act(then="reset")
        return replies.get(claim.token, status_of(state="none"))

    with open_sale(script) as sale:
        run = storm_on(sale, users=3)
    users = {plan["i"]: plan["user"] for plan in run.of("plan")}
    resolved = {users[line["i"]]: (line["outcome"], line["order"]) for line in run.of("resolved")}
    assert resolved == {1: ("sold", "77"), 2: ("none", None), 3: ("none", None)}
    assert run.outcomes() == {"indeterminate": 3}
    assert run.summary.load.indeterminate == run.summary.load.resolved == 3
    assert run.summary.load.late == 1  # it sold after all; the other two never did


def test_asking_waits_for_the_deadline_and_heeds_retry_after(storm_on: Storm) -> None:
    asked = []

    def script(claim: Claim) -> Act:
        if claim.method == "POST":
            return Act(then="reset")
        asked.append(claim)
        if len(asked) == 1:
            return Act(http(503, b"", {"retry-after": "0"}))
        return status_of(state="receipt", orderId="9")

    with open_sale(script) as sale:
        run = storm_on(sale, users=1, claim_ms=400)
    assert len(asked) == 2
    assert [line["order"] for line in run.of("resolved")] == ["9"]


@pytest.mark.parametrize("reply", [Act(http(404)), Act(http(401)), Act(http(200, b"[]"))])
def test_what_cannot_be_resolved_stays_indeterminate(storm_on: Storm, reply: Act) -> None:
    with open_sale(lambda c: Act(then="reset") if c.method == "POST" else reply) as sale:
        run = storm_on(sale, users=2)
    assert run.of("resolved") == []
    assert run.summary.load.resolved == 0
    assert len(sale.others) == 2  # once each: asking again cannot help


def test_asking_is_bounded_in_time(storm_on: Storm) -> None:
    with open_sale(lambda claim: Act(then="reset") if claim.method == "POST" else Act()) as sale:
        run = storm_on(sale, users=2, resolve_ms=300)
    assert run.of("resolved") == []


# Interruption.


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)],
    ids=["ctrl-c", "sigterm", "closed terminal"],
)
def test_a_signal_ends_the_sending_and_the_record_is_whole(
    storm_on: Storm, number: signal.Signals, code: int
) -> None:
    def script(claim: Claim) -> Act:
        if claim.number == 30:
            os.kill(os.getpid(), number)
        return Act(SOLD_OUT) if claim.number < 30 else Act(SOLD_OUT, delay_s=0.2)

    with open_sale(script) as sale:
        run = storm_on(sale, users=2000, connections=2)
    assert run.of("end")[0]["interrupted"] is True
    assert run.summary.exit_code == code
    assert run.summary.verdict is Verdict.INVALID
    assert run.outcomes()["unsent"] == 2000 - len(sale.claims)
    # What was out when the signal came was waited for, a moment.
    assert run.outcomes()["sold_out"] == len(sale.claims)
    assert signal.getsignal(number) not in (None, signal.SIG_IGN)


def test_told_twice_the_storm_waits_no_longer(
    storm_on: Storm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flashsale.storm.attack.instants.INTERRUPT_GRACE_S", 3600.0)

    def show(_: Progress) -> None:
        if len(sale.claims) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with open_sale(lambda _: Act()) as sale:
        run = storm_on(sale, users=4, connections=2, show=show)
    assert run.outcomes() == {"indeterminate": 2, "unsent": 2}
    assert run.summary.load.errors == {"interrupted": 4}


def test_a_signal_before_the_barrier_sends_nothing(storm_on: Storm) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as queue:

        def interrupt_the_connecting() -> None:
            visitor, _ = queue.accept()
            with visitor:
                os.kill(os.getpid(), signal.SIGINT)
                assert received(visitor) == b""

        other = threading.Thread(target=interrupt_the_connecting)
        other.start()
        run = storm_on(f"http://127.0.0.1:{queue.getsockname()[1]}", users=50, barrier_ms=20_000)
        other.join()
    assert run.outcomes() == {"unsent": 50}
    assert run.of("barrier") == []
    assert run.summary.exit_code == 130


def test_a_signal_while_asking_ends_the_asking(storm_on: Storm) -> None:
    def script(claim: Claim) -> Act:
        if claim.method == "POST":
            return Act(then="reset")
        os.kill(os.getpid(), signal.SIGINT)
        return Act()

    with open_sale(script) as sale:
        run = storm_on(sale, users=3)
    assert run.of("end")[0]["interrupted"] is True
    assert run.summary.exit_code == 130
    assert run.summary.load.sent == 3


def test_signals_are_given_back(storm_on: Storm) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with open_sale(sell(units=1)) as sale:
        storm_on(sale, users=2)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_storm_that_nobody_may_hang_up_goes_on(storm_on: Storm) -> None:
    """As under nohup."""

    def script(claim: Claim) -> Act:
        os.kill(os.getpid(), signal.SIGHUP)
        return Act(SOLD_OUT)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with open_sale(script) as sale:
            run = storm_on(sale, users=20, connections=2)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert run.outcomes() == {"sold_out": 20}
    assert run.of("end")[0]["interrupted"] is False


# The rest.


def test_the_same_plan_is_fired_again_for_the_same_seed(storm_on: Storm) -> None:
    with open_sale(sell(units=3)) as sale:
        first, second = storm_on(sale, users=20), storm_on(sale, users=20)
    assert first.summary.plan_hash == second.summary.plan_hash
    assert first.of("plan") == second.of("plan")


def test_progress_is_told_while_it_storms(storm_on: Storm) -> None:
    told: list[Progress] = []
    with open_sale(lambda _: Act(SOLD_OUT, delay_s=0.15)) as sale:
        storm_on(sale, users=6, connections=2, show=told.append)
    assert len(told) >= 3
    assert all(0 <= progress.in_flight <= 2 for progress in told)
    assert [progress.settled for progress in told] == sorted(p.settled for p in told)
    assert {progress.planned for progress in told} == {6}


def test_a_defect_ends_the_storm_instead_of_hanging_it(storm_on: Storm) -> None:
    def show(_: Progress) -> None:
        raise ZeroDivisionError("a defect")

    with open_sale(lambda _: Act()) as sale, pytest.raises(ZeroDivisionError, match="a defect"):
        storm_on(sale, users=2, show=show)


def test_too_few_descriptors_are_said_before_anything_happens(
    storm_on: Storm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (16, 16))
    with open_sale(sell(units=1)) as sale, pytest.raises(UsageError, match="open files"):
        storm_on(sale, users=10)
    assert sale.connections == 0


def test_a_foreign_server_is_understood_by_its_messages(storm_on: Storm) -> None:
    bodies = [b'{"success":true,"data":42}', '{"success":false,"errorMsg":"库存不足！"}'.encode()]
    with open_sale(lambda claim: Act(http(200, bodies[claim.number > 0]))) as sale:
        run = storm_on(sale, users=4)
    assert run.summary.load.outcomes == {Outcome.SOLD: 1, Outcome.SOLD_OUT: 3}
    assert [r["order"] for r in run.of("result") if r["order"]] == ["42"]
