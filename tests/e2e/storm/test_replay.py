"""`storm --replay RUN`: the very same requests once more."""

import subprocess
from collections import Counter
from pathlib import Path

import orjson
import pytest
from rig.command_line import run_flashsale
from rig.scripted_sale import ScriptedSale
from rig.users_in_steps import fair_town

from flashsale.run.summary import Summary

SCENARIO = """# Does it hold?
schema = 1
name = "tiny"
[sale]
vouchers = 2
units = 4
[browse]
shops = 5
[load]
model = "closed"
users = 8
connections = 4
clicks = 2
steps = ["browse", "sign", "buy"]
think_ms = 5
think = "exponential"
spread_ms = 20
[load.retry]
on = ["shed"]
[timeouts]
claim_ms = 1
[thresholds]
"buy.sold.count" = "== 4"
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a scenario and tokens for it, in which the users stand in no order."""
    (tmp_path / "tiny.toml").write_text(SCENARIO)
    write_tokens(tmp_path, [7, 3, 11, 5, 2, 13, 9, 4])
    return tmp_path


def write_tokens(desk: Path, users: list[int], prefix: str = "token") -> None:
    rows = "".join(f"{user},{prefix}-{user}\n" for user in users)
    (desk / "tokens.csv").write_text("user_id,token\n" + rows)


def asked(sale: ScriptedSale) -> Counter[tuple[str, str, str]]:
    reads = (visit for visit in sale.others if visit.path.startswith("/shop/"))
    return Counter((visit.method, visit.path, visit.token) for visit in (*sale.claims, *reads))


def plan_lines(run: Path) -> list[bytes]:
    lines = (run / "attempts.jsonl").read_bytes().splitlines()
    return [line for line in lines if b'"kind":"plan"' in line]


def fire(desk: Path, sale: ScriptedSale, *what: str) -> "subprocess.CompletedProcess[str]":
    on = ("--base-url", sale.base_url, "--tokens", "tokens.csv")
    return run_flashsale(desk, "storm", *what, *on)


def test_a_replay_asks_the_very_same_of_the_target(desk: Path) -> None:
    with ScriptedSale(fair_town(2, 2)).open() as sale:
        first = fire(desk, sale, "tiny.toml", "--out", "one")
        before = asked(sale)
    assert first.returncode == 0, first.stderr
    write_tokens(desk, list(range(1, 20)))  # other users, and in another order
    with ScriptedSale(fair_town(2, 2)).open() as sale:
        again = fire(desk, sale, "--replay", "one", "--out", "two")
        assert again.returncode == 0, again.stderr
        assert asked(sale) == before
    one, two = (Summary.read(desk / run / "summary.json") for run in ("one", "two"))
    assert one.plan_hash == two.plan_hash
    assert one.plan_hash in first.stdout
    assert one.plan_hash in again.stdout
    assert f"replaying one: plan {one.plan_hash}" in again.stderr
    assert (two.scenario, two.question) == ("tiny", "Does it hold?")
    assert plan_lines(desk / "one") == plan_lines(desk / "two")
    assert [judged.metric for judged in two.thresholds] == [j.metric for j in one.thresholds]


def test_what_cannot_be_replayed_is_one_line(desk: Path) -> None:
    with ScriptedSale(fair_town(2, 2)).open() as sale:
        assert fire(desk, sale, "tiny.toml", "--out", "one").returncode == 0

        def refused(message: str, *what: str) -> None:
            done = fire(desk, sale, *what)
            assert (done.returncode, done.stdout) == (2, "")
            assert message in done.stderr
            assert done.stderr.splitlines()[-1].startswith("flashsale: ")
            assert len(done.stderr.splitlines()) <= 2  # that it replays, and why not

        refused("leave 'tiny.toml' out", "tiny.toml", "--replay", "one")
        refused("give a scenario, such as `stampede`, or --replay RUN")
        refused("none: no attempts.jsonl; name the folder", "--replay", "none")
        write_tokens(desk, [7, 3, 11])
        refused(
            "tokens.csv has no token of 5 of the plan's 8 users, such as user 2; "
            "give the --tokens of the data set that the plan is of",
            "--replay",
            "one",
        )
        (desk / "one/attempts.jsonl").write_bytes(moved(desk / "one/attempts.jsonl"))
        refused("one: damaged, or of another version", "--replay", "one")
        (desk / "one/scenario.json").unlink()
        refused("one: no scenario.json", "--replay", "one")
    assert not (desk / "runs").exists()


def moved(attempts: Path) -> bytes:
    """The record with one attempt on another connection."""
    lines = attempts.read_bytes().splitlines(keepends=True)
    plan = orjson.loads(lines[2])
    lines[2] = orjson.dumps(plan | {"conn": (plan["conn"] + 2) % 4}) + b"\n"
    return b"".join(lines)
