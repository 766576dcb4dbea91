"""A replica is killed under a storm: nothing is sold twice, and who was hit is known by name."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest
from rig.observers import fetched
from rig.until import until

from flashsale.observe.panels import prometheus_url, queries, substituted
from flashsale.stack.state import StackState, read_state, stop_stack

pytestmark = pytest.mark.slow

USERS, UNITS = 3_600, 3_000
INTERVAL_S = 1.0
SETTINGS = {
    "FLASHSALE_STACK_PORT": "0",
    "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "16",
    "FLASHSALE_STACK_MARIADB_BUFFER_POOL_MB": "32",
    "FLASHSALE_STACK_NGINX_ACCESS_LOG": "1",
    "FLASHSALE_STACK_OBSERVE_INTERVAL_S": str(INTERVAL_S),
}
SCENARIO = f"""# Is anything sold twice when a replica dies?
schema = 1
name = "killed"
[sale]
units = {UNITS}
[load]
model = "rate"
stages = ["9s:400"]
connections = 300
"""
ANSWERED = {"sold", "sold_out"}


def _flashsale(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "flashsale", *arguments],
        env=os.environ | SETTINGS,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@dataclass
class Aftermath:
    """What is left of the storm in which r2 was killed."""

    state_dir: Path
    state: StackState
    run: Path
    killed_unix_s: float
    dead_unix_s: float  # its sockets are closed: a busy machine takes a while
    back_unix_s: float
    storm_code: int

    @property
    def records(self) -> list[dict[str, Any]]:
        return _lines(self.run / "attempts.jsonl")

    def range(self, expr: str) -> list[dict[str, Any]]:
        """What Prometheus saw from ten seconds before the kill until it was back."""
        start_s, end_s = self.killed_unix_s - 10, self.back_unix_s
        asked = {"query": expr, "start": start_s, "end": end_s, "step": INTERVAL_S}
        url = f"{prometheus_url(self.state)}/api/v1/query_range"
        found: list[dict[str, Any]] = httpx.get(url, params=asked).json()["data"]["result"]
        return found

    def panel(self, dashboard: str, title: str) -> list[dict[str, Any]]:
        """A panel's own query over that time."""
        (query,) = [q for q in queries() if (q.dashboard, q.panel) == (dashboard, title)]
        return self.range(substituted(query.expr, 4 * INTERVAL_S))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def _values(series: Sequence[dict[str, Any]], instance: str) -> list[float]:
    (found,) = [each for each in series if each["metric"].get("instance") == instance]
    return [float(value) for _, value in found["values"] if value != "NaN"]


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    fetched()
    folder = tmp_path_factory.mktemp("killed")
    state_dir, run = folder / "state", folder / "run"
    where = ("--state-dir", str(state_dir))
    try:
        _flashsale("serve", "--observe", "--detach", *where)
        _flashsale("seed", "--users", str(USERS), "--units", str(UNITS), *where)
        _flashsale("warm", *where)
        yield _killed_in_a_storm(folder, state_dir, run)
    finally:
        stop_stack(state_dir)


def _killed_in_a_storm(folder: Path, state_dir: Path, run: Path) -> Aftermath:
    (folder / "killed.toml").write_text(SCENARIO)
    command = ("storm", str(folder / "killed.toml"), "--out", str(run), "--quiet")
    with subprocess.Popen(
        [sys.executable, "-m", "flashsale", *command, "--state-dir", str(state_dir)],
        env=os.environ | SETTINGS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as storm:
        until(lambda: _sold(state_dir) > UNITS // 4, 40)
        before = _state(state_dir)
        (victim,) = [child for child in before.children if child.name == "r2"]
        os.kill(victim.pid, signal.SIGSTOP)  # so that something is in flight on it
        time.sleep(0.1)
        killed_unix_s = time.time()
        os.kill(victim.pid, signal.SIGKILL)
        until(lambda: _is_dead(victim.pid))
        dead_unix_s = time.time()
        code = storm.wait(60)
    until(lambda: _is_seen_again(state_dir), 30)
    times = (killed_unix_s, dead_unix_s, time.time())
    return Aftermath(state_dir, _state(state_dir), run, *times, code)


def _state(state_dir: Path) -> StackState:
    state = read_state(state_dir)
    assert state is not None
    return state


def _is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _is_seen_again(state_dir: Path) -> bool:
    """Whether the one that took its place has been scraped, twice."""
    state = _state(state_dir)
    if sum(child.restarts for child in state.children if child.name == "r2") != 1:
        return False
    asked = {"query": f'min_over_time(up{{instance="r2"}}[{2 * INTERVAL_S:g}s])'}
    found = httpx.get(f"{prometheus_url(state)}/api/v1/query", params=asked).json()
    return bool([each for each in found["data"]["result"] if each["value"][1] == "1"])


def _sold(state_dir: Path) -> int:
    import redis

    with redis.Redis.from_url(_state(state_dir).ledger_url) as ledger:
        return int(ledger.scard("seckill:order:1"))  # type: ignore[arg-type]


def test_no_request_is_executed_twice(aftermath: Aftermath) -> None:
    """Every user comes once: a second execution would be a `duplicate`, or break a check."""
    told = _flashsale("verify", str(aftermath.run), "--state-dir", str(aftermath.state_dir))
    assert "verdict pass" in told.stdout
    results = [record for record in aftermath.records if record["kind"] == "result"]
    assert len(results) == USERS
    assert not [result for result in results if result["outcome"] == "duplicate"]


def test_errors_are_those_in_flight_and_named(aftermath: Aftermath) -> None:
    records = aftermath.records
    (barrier,) = [record for record in records if record["kind"] == "barrier"]
    killed_us = aftermath.killed_unix_s * 1e6 - barrier["unix_us"]
    dead_us = aftermath.dead_unix_s * 1e6 - barrier["unix_us"]
    hit = [r for r in records if r["kind"] == "result" and r["outcome"] not in ANSWERED]
    plans = {record["i"]: record for record in records if record["kind"] == "plan"}
    assert 1 <= len(hit) <= 300, "no more than there are connections"
    assert {result["outcome"] for result in hit} == {"indeterminate"}
    assert {result["status"] for result in hit} == {502}
    for result in hit:
        assert plans[result["i"]]["user"] > 0, "named: who, and by which attempt"
        # nginx still tries a connection kept alive until it has read that this one is closed
        assert result["sent_us"] < dead_us + 500_000, "sent while it was there to take it"
        assert result["done_us"] > killed_us, "and not answered by then"
    assert aftermath.storm_code == 0, "one replica of three is no breakdown"


def test_nginx_sent_none_of_them_to_another_replica(aftermath: Aftermath) -> None:
    log = aftermath.state_dir / "nginx" / "access.log"
    failed = [line for line in _lines(log) if line["status"] == 502]
    hit = [r for r in aftermath.records if r["kind"] == "result" and r["status"] == 502]
    assert len(failed) == len(hit) > 0
    assert {line["upstream"] for line in failed} == {
        f"unix:{aftermath.state_dir.absolute() / 'replicas/r2.sock'}"
    }


def test_the_dashboards_show_it(aftermath: Aftermath) -> None:
    answers = aftermath.panel("http", "Replicas that answer")
    assert min(_values(answers, "r2")) == 0
    assert _values(answers, "r2")[-1] == 1, "it is back"
    by_replica = aftermath.panel("http", "Requests by replica")
    assert min(_values(by_replica, "r2")) < 0.5 * max(_values(by_replica, "r2"))
    assert max(_values(aftermath.panel("process", "Starts"), "r2")) == 1
    assert max(_values(aftermath.panel("process", "Starts"), "r1")) == 0
    (unanswered,) = aftermath.panel("http", "Got, and answered by no replica")
    assert max(float(value) for _, value in unanswered["values"]) > 0


def test_the_alert_was_about_to_ring(aftermath: Aftermath) -> None:
    """It rings after ten seconds; `serve` has a replica back before, on a machine with time."""
    alerts = aftermath.range('ALERTS{alertname="ReplicaDown"}')
    told = {(alert["metric"]["instance"], alert["metric"]["alertstate"]) for alert in alerts}
    assert ("r2", "pending") in told
