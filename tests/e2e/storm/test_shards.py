"""Shards as a user fires and merges them: one instant, one plan, one run in the end."""

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from rig.command_line import run_flashsale
from rig.scripted_sale import SOLD_OUT, Act, ScriptedSale, sell

from flashsale.errors import ExitCode, UnreachableError, UsageError
from flashsale.run.folder import create_run_folder
from flashsale.run.summary import Summary
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.target import Target
from flashsale.storm.crew.shard import Shard
from flashsale.storm.storm import Assignment, storm
from flashsale.verify.attempts import read_attempts

TEXT = """# Does it hold?
schema = 1
name = "tiny"
[sale]
units = 10
[load]
model = "stampede"
users = 300
connections = 11
[timeouts]
claim_ms = 1
[thresholds]
"buy.sold.count" = "== 10"
"""


def fire(
    sale: ScriptedSale, folder: Path, *, shard: Shard | None, start_at_us: int, workers: int = 1
) -> Summary:
    """A storm in this process, from whichever thread."""
    assignment = Assignment(
        scenario=parse_scenario(TEXT, "tiny"),
        target=Target.at(sale.base_url),
        folder=create_run_folder("tiny", folder, datetime.now(UTC)),
        processes=workers,
        shard=shard,
        start_at_us=start_at_us,
    )
    tokens = {user: f"token-{user}" for user in range(1, 301)}
    return storm(assignment, tokens, lambda _: None).summary


def soon_us(seconds: float) -> int:
    return time.time_ns() // 1000 + round(seconds * 1e6)


def test_two_shards_begin_at_one_instant_and_become_one_run(tmp_path: Path) -> None:
    with ScriptedSale(sell(units=10)).open() as sale:
        start_us = soon_us(3.0)
        shards = [
            threading.Thread(
                target=fire,
                args=(sale, tmp_path / f"s{number}"),
                kwargs={"shard": Shard(number, 2), "start_at_us": start_us, "workers": number},
            )
            for number in (1, 2)  # the second one with two workers
        ]
        for shard in shards:
            shard.start()
        time.sleep(1.0)
        assert sale.claims == []
        for shard in shards:
            shard.join()
        assert sale.connections == 11
    done = run_flashsale(tmp_path, "report", "merge", "s2", "s1", "--out", "whole")
    assert done.returncode == ExitCode.PASS, done.stderr
    assert "2 shards, barriers" in done.stdout
    summary = Summary.read(tmp_path / "whole" / "summary.json")
    assert summary.load.outcomes == {"sold": 10, "sold_out": 290}
    assert summary.merged is not None
    barriers = [shard.barrier_unix_us for shard in summary.merged.shards]
    assert all(abs((barrier or 0) - start_us) < 100_000 for barrier in barriers)
    attempts = read_attempts(tmp_path / "whole")
    assert attempts.complete
    assert attempts.planned == 300
    assert {path.name for path in (tmp_path / "whole").iterdir()} >= {
        "latency.hgrm",
        "latency.hlog",
        "junit.xml",
        "report.html",
    }


def test_an_instant_that_passes_while_all_is_prepared_is_refused(tmp_path: Path) -> None:
    with ScriptedSale(sell(units=10)).open() as sale:
        with pytest.raises(UsageError, match="--start-at has passed while"):
            fire(sale, tmp_path / "s1", shard=Shard(1, 2), start_at_us=soon_us(-0.001))
        assert sale.connections == 0


def test_who_is_not_connected_in_time_sends_nothing(tmp_path: Path) -> None:
    with ScriptedSale(sell(units=10)).open() as sale:
        with pytest.raises(UnreachableError, match="ms after the last moment for --start-at"):
            fire(sale, tmp_path / "s1", shard=Shard(1, 2), start_at_us=soon_us(0.1))
        assert sale.claims == []
    lines = (tmp_path / "s1/attempts.jsonl").read_bytes().splitlines()
    assert orjson.loads(lines[-1])["sent"] == 0


@pytest.mark.slow
def test_connections_that_a_server_drops_are_up_again_when_it_begins(tmp_path: Path) -> None:
    with ScriptedSale(lambda _: Act(SOLD_OUT)).open() as sale:

        def drop() -> None:
            time.sleep(0.7)
            sale._loop.call_soon_threadsafe(lambda: [v.close() for v in list(sale.visitors)])

        threading.Thread(target=drop).start()
        summary = fire(sale, tmp_path / "s1", shard=None, start_at_us=soon_us(2.5))
        assert sale.connections == 22
    assert summary.load.outcomes == {"sold_out": 300}
    assert summary.latency_ms.response.max is not None


@pytest.mark.slow
def test_a_signal_ends_the_waiting(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TEXT)
    (tmp_path / "tokens.csv").write_text(
        "user_id,token\n" + "".join(f"{user},t{user}\n" for user in range(1, 301))
    )
    with ScriptedSale(sell(units=10)).open() as sale:
        later = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
        command = [sys.executable, "-m", "flashsale", "storm", "tiny.toml", "--out", "run"]
        command += ["--tokens", "tokens.csv", "--base-url", sale.base_url, "--start-at", later]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 30
        while sale.connections < 11 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert "storm: begins at " in err
    assert process.returncode == ExitCode.TERMINATED
    assert sale.claims == []
    assert Summary.read(tmp_path / "run/summary.json").load.outcomes == {"unsent": 300}
