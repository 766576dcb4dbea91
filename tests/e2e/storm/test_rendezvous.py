"""Shards that meet: processes that share nothing but the rendezvous, and one run in the end."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rig.scripted_sale import SOLD_OUT, Act, ScriptedSale, sell
from rig.until import until

from flashsale.campaign.campaign import SILENT, StormRun, Teller
from flashsale.campaign.joining import ShardRequest, storm_as_shard
from flashsale.campaign.merging import merge_shards
from flashsale.campaign.rendezvous import MeetingPlace, run_rendezvous
from flashsale.campaign.storming import StormRequest
from flashsale.cli import tree
from flashsale.errors import ExitCode, UnreachableError, UsageError
from flashsale.model import Verdict
from flashsale.run.attempts_file import read_record
from flashsale.run.histogram import Histogram
from flashsale.run.parts import Latency
from flashsale.run.summary import Summary
from flashsale.scenario.scenario import Scenario, parse_scenario
from flashsale.storm.crew.shard import Shard
from flashsale.verify.attempts import read_attempts

TEXT = """# Does it hold?
schema = 1
name = "tiny"
[sale]
units = 10
[load]
model = "stampede"
users = {users}
connections = 12
{load}
[timeouts]
claim_ms = 1
run_ms = 20000
[thresholds]
"buy.sold.count" = "== 10"
"""
USERS = 300


def scenario(users: int = USERS, load: str = "") -> Scenario:
    return parse_scenario(TEXT.format(users=users, load=load), "tiny")


class Ears(Teller):
    """Hears where the rendezvous listens."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.url: queue.Queue[str] = queue.Queue()

    def say(self, line: str) -> None:
        self.lines.append(line)
        if found := re.search(r"http://\S+?:\d+", line):
            self.url.put(found[0])


@dataclass
class Met:
    """A rendezvous in a thread of this process; `end()` is what became of it."""

    folder: Path
    sale: ScriptedSale
    shards: int
    asked: Scenario = field(default_factory=scenario)
    ears: Ears = field(default_factory=Ears)
    _ended: "queue.Queue[StormRun | BaseException]" = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        tokens = self.folder / "tokens.csv"
        rows = "".join(f"{user},token-{user}\n" for user in range(1, USERS + 1))
        tokens.write_text("user_id,token\n" + rows)
        self.request = StormRequest(
            self.asked, self.sale.base_url, tokens, out=self.folder / "whole", calibrate=False
        )
        threading.Thread(target=self._run, daemon=True).start()
        self.url = self.ears.url.get(timeout=30)

    def _run(self) -> None:
        try:
            place = MeetingPlace(self.shards, "127.0.0.1", 0)
            self._ended.put(run_rendezvous(self.request, place, self.ears))
        except BaseException as error:  # noqa: BLE001 - for the test's own thread
            self._ended.put(error)

    def end(self) -> StormRun:
        ended = self._ended.get(timeout=90)
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def process(self, number: int, *words: str, **variables: str) -> "subprocess.Popen[str]":
        """A shard as a user starts one, in a working folder of its own."""
        folder = self.folder / f"machine{number}"
        folder.mkdir()
        own = {k: v for k, v in os.environ.items() if not k.startswith("FLASHSALE_")}
        return subprocess.Popen(
            [sys.executable, "-m", "flashsale", "storm", "--rendezvous", self.url, *words],
            cwd=folder,
            env={**own, **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def shard(self, number: int, own: Scenario | None = None) -> "queue.Queue[object]":
        """A shard in a thread of this process; the queue has what became of it."""
        became: queue.Queue[object] = queue.Queue()

        def fire() -> None:
            given = ShardRequest(out=self.folder / f"shard{number}-{threading.get_ident()}")
            try:
                shard = Shard(number, self.shards)
                became.put(storm_as_shard(shard, self.url, given, own, SILENT))
            except BaseException as error:  # noqa: BLE001 - for the test's own thread
                became.put(error)

        threading.Thread(target=fire, daemon=True).start()
        return became


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the rendezvous: a shard is dead after a few seconds, not ten."""
    monkeypatch.setenv("FLASHSALE_RENDEZVOUS_SILENCE_S", "4")


@pytest.mark.slow
def test_four_shards_of_a_job_make_one_run_exactly(tmp_path: Path) -> None:
    with ScriptedSale(sell(units=10)).open() as sale:
        met = Met(tmp_path, sale, 4)
        shards = [
            met.process(
                index, "--shard", "auto", JOB_COMPLETION_INDEX=str(index), FLASHSALE_SHARDS="4"
            )
            for index in range(4)
        ]
        run = met.end()
        codes = [(shard.communicate(timeout=60)[1], shard.returncode) for shard in shards]
        assert [code for _, code in codes] == [ExitCode.PASS] * 4, codes
    summary = run.summary
    assert summary.load.outcomes == {"sold": 10, "sold_out": USERS - 10}
    assert summary.generator.verdict == "valid"
    assert [found.verdict for found in summary.thresholds] == [Verdict.PASS] * 2, "on the whole"
    assert summary.merged is not None
    assert len(summary.merged.shards) == 4
    assert summary.merged.barrier_spread_ms < 50
    assert all(shard.clock_error_ms is not None for shard in summary.merged.shards)
    # One histogram over all records, read from what the four machines kept for themselves.
    latencies: list[int] = []
    for index in range(4):
        (own,) = (tmp_path / f"machine{index}").glob("runs/tiny-*")
        attempts = read_record(own / "attempts.jsonl").attempts
        for i, _ in attempts.settled():
            latencies.append((attempts.done_ns[i] - attempts.due_ns[i]) // 1000)
    assert len(latencies) == USERS
    assert summary.latency_ms.response == Latency.of(Histogram(latencies))
    assert read_attempts(run.folder.path).complete


@pytest.mark.slow
@pytest.mark.usefixtures("patience")
def test_a_shard_that_is_killed_is_named_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    with ScriptedSale(lambda _: Act(SOLD_OUT, delay_s=0.5)).open() as sale:
        met = Met(tmp_path, sale, 2)
        killed = met.process(1, "--shard", "1/2")
        other = met.shard(2)
        assert sale.reached(12, 60), "everybody fires"
        killed.kill()
        killed.communicate(timeout=30)
        run = met.end()
        became = other.get(timeout=30)
    assert isinstance(became, StormRun)
    assert became.summary.load.planned > became.summary.load.sent, "it was told to stop"
    summary = run.summary
    assert (summary.verdict, summary.exit_code) == (Verdict.INVALID, ExitCode.INVALID_RUN)
    (told,) = [line for line in summary.generator.complaints if "not heard of for 4 s" in line]
    assert told.startswith("shard 1/2 (")
    assert f":{killed.pid})" in told
    assert any(told in line for line in met.ears.lines)
    part = USERS // 2
    # What it had written before it died lies where it ran, and can be merged by hand.
    (own,) = (tmp_path / "machine1").glob("runs/tiny-*")
    by_hand = merge_shards([run.folder.path / "shards/2", own], tmp_path / "by-hand", SILENT)
    assert by_hand.summary.load.planned == USERS
    assert by_hand.summary.exit_code == ExitCode.INVALID_RUN
    assert summary.load.planned == USERS
    assert summary.load.errors["shard"] == part, "each may have sold, and is judged so"
    assert sum(summary.load.outcomes.values()) == USERS
    assert read_attempts(run.folder.path).planned == USERS


@pytest.mark.slow
def test_a_shard_that_never_comes_is_named_and_nobody_fires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASHSALE_RENDEZVOUS_GATHER_TIMEOUT_S", "3")
    with ScriptedSale(sell(units=10)).open() as sale:
        met = Met(tmp_path, sale, 2)
        became = met.shard(1)
        run = met.end()
        error = became.get(timeout=30)
        assert sale.claims == []
    assert isinstance(error, UnreachableError)
    assert str(error) == "the storm was given up: shard 2/2 never came, within 3 s"
    assert run.summary.exit_code == ExitCode.INVALID_RUN
    assert "shard 2/2 never came, within 3 s" in run.summary.generator.complaints
    assert run.summary.load.outcomes == {"unsent": USERS}


@pytest.mark.slow
def test_a_shard_that_comes_twice_is_refused_and_named(tmp_path: Path) -> None:
    with ScriptedSale(sell(units=10)).open() as sale:
        met = Met(tmp_path, sale, 2)
        first = met.shard(1)
        until(lambda: sale.connections >= 6, 30)
        second = met.process(1, "--shard", "1/2")
        _, told = second.communicate(timeout=60)
        run = met.end()
        assert second.returncode == ExitCode.USAGE
        assert isinstance(first.get(timeout=30), UnreachableError)
        assert sale.claims == []
    assert "the rendezvous refuses: shard 1/2 came twice: from " in told
    assert any("shard 1/2 came twice" in line for line in run.summary.generator.complaints)
    assert run.summary.exit_code == ExitCode.INVALID_RUN


@pytest.mark.slow
def test_a_shard_with_another_plan_is_refused_and_named(tmp_path: Path) -> None:
    with ScriptedSale(sell(units=10)).open() as sale:
        met = Met(tmp_path, sale, 2)
        same, other = met.shard(1, scenario()), met.shard(2, scenario(load="seed = 7"))
        run = met.end()
        refused = other.get(timeout=30)
        assert isinstance(same.get(timeout=30), UnreachableError | UsageError)
        assert sale.claims == []
    assert isinstance(refused, UsageError)
    assert "has another plan: found " in str(refused)
    assert any("shard 2/2 (" in line for line in run.summary.generator.complaints)
    assert run.summary.exit_code == ExitCode.INVALID_RUN


@pytest.mark.slow
def test_a_signal_to_one_ends_all_and_everything_is_written(tmp_path: Path) -> None:
    with ScriptedSale(lambda _: Act(SOLD_OUT, delay_s=0.5)).open() as sale:
        met = Met(tmp_path, sale, 2)
        stopped = met.process(1, "--shard", "1/2")
        other = met.shard(2)
        assert sale.reached(12, 60), "everybody fires"
        stopped.send_signal(signal.SIGINT)
        _, told = stopped.communicate(timeout=60)
        run = met.end()
        became = other.get(timeout=30)
    assert stopped.returncode == ExitCode.INTERRUPTED, told
    assert isinstance(became, StormRun)
    summary = run.summary
    assert summary.load.interrupted_by == ExitCode.INTERRUPTED
    assert summary.exit_code == ExitCode.INTERRUPTED
    assert "planned attempts were sent" in summary.generator.complaints[0]
    assert "shard" not in summary.load.errors, "both brought their records"
    assert sum(summary.load.outcomes.values()) == USERS
    written = Summary.read(run.folder.summary)
    assert written.exit_code == ExitCode.INTERRUPTED


@pytest.mark.slow
def test_a_shard_that_loses_the_rendezvous_ends_and_says_where_its_record_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASHSALE_RENDEZVOUS_SILENCE_S", "2")
    tokens = "".join(f"{user},token-{user}\n" for user in range(1, USERS + 1))
    (tmp_path / "tokens.csv").write_text("user_id,token\n" + tokens)
    (tmp_path / "tiny.toml").write_text(TEXT.format(users=USERS, load=""))
    with ScriptedSale(lambda _: Act(SOLD_OUT, delay_s=0.5)).open() as sale:
        line = [sys.executable, "-m", "flashsale", "rendezvous", "tiny.toml", "--shards", "1"]
        line += ["--port", "0", "--tokens", "tokens.csv", "--base-url", sale.base_url]
        own = {k: v for k, v in os.environ.items() if not k.startswith("FLASHSALE_")}
        there = subprocess.Popen(
            line,
            cwd=tmp_path,
            env=own,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert there.stderr is not None
        said = next(line for line in there.stderr if "waits for 1 shards at" in line)
        url = re.findall(r"http://\S+?:\d+", said)[0]
        became: queue.Queue[BaseException] = queue.Queue()

        def fire() -> None:
            try:
                storm_as_shard(Shard(1, 1), url, ShardRequest(out=tmp_path / "own"), None, SILENT)
            except BaseException as error:  # noqa: BLE001 - for the test's own thread
                became.put(error)

        threading.Thread(target=fire, daemon=True).start()
        assert sale.reached(12, 60)
        there.kill()
        there.communicate(timeout=30)
        error = became.get(timeout=60)
    assert isinstance(error, UnreachableError)
    assert f"no rendezvous answers at {url} (" in str(error)
    assert str(error).endswith(f"its record is in {tmp_path / 'own'}")
    summary = Summary.read(tmp_path / "own/summary.json")
    assert summary.load.planned > summary.load.sent > 0
    assert sum(summary.load.outcomes.values()) == USERS


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "--rendezvous: this goes with --shard K/N, or --shard auto in a Job"),
        (
            ("--shard", "auto"),
            "--shard: auto: JOB_COMPLETION_INDEX is not set; by hand give such as",
        ),
        (("--shard", "1/2", "--tokens", "x"), "--tokens: give this to the rendezvous, where it"),
        (("--shard", "1/2", "--require", "x"), "--require: give this to the rendezvous, where it"),
    ],
)
def test_what_does_not_go_with_a_rendezvous_is_one_line(
    words: tuple[str, ...], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tree.run(["storm", "--rendezvous", "http://127.0.0.1:1", *words]) == ExitCode.USAGE
    assert capfd.readouterr().err.startswith(f"flashsale: {told}")


@pytest.mark.parametrize("url", ["here:9200", "https://here:9200", "http://here/path"])
def test_what_is_no_address_of_a_rendezvous_is_one_line(url: str) -> None:
    with pytest.raises(
        UsageError, match=r"--rendezvous: found .*, expected such as http://host:9200"
    ):
        storm_as_shard(Shard(1, 1), url, ShardRequest(), None, SILENT)


def test_sessions_are_not_offered_to_the_network_without_a_secret(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    request = StormRequest(scenario(), "http://127.0.0.1:1", tokens, out=tmp_path / "whole")
    with pytest.raises(UsageError, match="set FLASHSALE_RENDEZVOUS_SECRET, or the file in"):
        run_rendezvous(request, MeetingPlace(2, "0.0.0.0", 0))
    assert not (tmp_path / "whole").exists()


@pytest.mark.slow
def test_who_does_not_know_the_secret_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASHSALE_RENDEZVOUS_GATHER_TIMEOUT_S", "3")
    monkeypatch.setenv("FLASHSALE_RENDEZVOUS_SECRET", "right")
    with ScriptedSale(sell(units=10)).open() as sale:
        met = Met(tmp_path, sale, 1)
        monkeypatch.setenv("FLASHSALE_RENDEZVOUS_SECRET", "wrong")
        stranger = met.shard(1).get(timeout=30)
        assert isinstance(stranger, UsageError)
        assert "does not know this secret" in str(stranger)
        assert met.end().summary.exit_code == ExitCode.INVALID_RUN
