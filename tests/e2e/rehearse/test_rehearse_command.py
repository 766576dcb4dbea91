"""`rehearse` as a user runs it: kept, broken on purpose, interrupted, and under kills."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from rig.command_line import run_flashsale

from flashsale.stack.state import StackState, read_state, stop_stack
from flashsale.storage.mysql import engine, transaction
from tests.rig.until import until

FLASHSALE = (sys.executable, "-m", "flashsale")
CHECKS = 13

CROWD = """# Does a sale survive the loss of a replica and of the worker?
schema = 1
name = "crowd"
[sale]
vouchers = 4
units = 12000
[load]
model = "stampede"
users = 16000
connections = 400
"""


def _start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*FLASHSALE, "rehearse", *arguments],
        cwd=folder,
        env=os.environ | {"FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "32"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process: "subprocess.Popen[str]", expected: int) -> str:
    out, err = process.communicate(timeout=110)
    assert process.returncode == expected, f"{out}\n{err}"
    return out


def _summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "runs/latest/summary.json").read_text())
    return found


def _family(state_dir: Path) -> list[psutil.Process]:
    state = read_state(state_dir)
    assert state is not None
    supervisor = psutil.Process(state.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def _is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _results(folder: Path) -> int:
    """Answers on record so far."""
    try:
        return (folder / "runs/latest/attempts.jsonl").read_bytes().count(b'"kind":"result"')
    except OSError:
        return 0


@pytest.mark.slow
def test_two_stampedes_at_once_keep_the_promise(tmp_path: Path) -> None:
    """Two at the same time, each with its own stack: 100 sold, 1,900 turned away, all proved."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    processes = [_start(folder, "stampede") for folder in folders]
    for process in processes:
        out = _finish(process, 0)
        assert out.count("verdict") == 1
        assert "UNKNOWN" not in out
        assert out.splitlines()[-1].startswith("report ")
        assert out.endswith("report.html\n")
    for folder in folders:
        summary = _summary(folder)
        assert summary["verdict"] == "pass"
        assert summary["load"]["users"] == 2_000
        assert summary["load"]["outcomes"] == {"sold": 100, "sold_out": 1_900}
        orders = summary["orders"]
        assert (orders["accepted"], orders["persisted"], orders["rejected"]) == (100, 100, 1_900)
        verdicts = [check["verdict"] for check in summary["verify"]["checks"]]
        assert verdicts == ["pass"] * CHECKS
        assert list((folder / ".flashsale/rehearsals").iterdir()) == []
        assert "no_oversell" in (folder / "runs/latest/junit.xml").read_text()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[Path, StackState]]:
    """A rehearsed stampede whose stack stays up."""
    _finish(_start(tmp_path, "stampede", "--keep", "--state-dir", "kept"), 0)
    state = read_state(tmp_path / "kept")
    assert state is not None
    yield tmp_path, state
    stop_stack(tmp_path / "kept")


def _verify(folder: Path) -> tuple[int, str]:
    done = run_flashsale(folder, "verify", "runs/latest")
    return done.returncode, done.stdout


@pytest.mark.slow
def test_verify_names_what_was_planted(kept: tuple[Path, StackState]) -> None:
    """A row deleted, a unit added to either store, a member removed: exit 3, by name."""
    folder, state = kept
    pool = engine(state.mysql_url)
    ledger: Redis = Redis.from_url(state.ledger_url, decode_responses=True)
    with transaction(pool) as connection:
        row = connection.exec_driver_sql("SELECT * FROM tb_voucher_order LIMIT 1").one()
    columns = "id, user_id, voucher_id, create_time"
    again = (row.id, row.user_id, row.voucher_id, row.create_time)

    def sql(statement: str, *values: object) -> None:
        with transaction(pool) as connection:
            connection.exec_driver_sql(statement, values)

    sql("DELETE FROM tb_voucher_order WHERE id = %s", row.id)
    code, said = _verify(folder)
    assert (code, str(row.id) in said) == (3, True), said
    assert "accepted_persisted" in said
    sql(f"INSERT INTO tb_voucher_order ({columns}) VALUES (%s, %s, %s, %s)", *again)

    sql("UPDATE tb_seckill_voucher SET stock = stock + 1")
    code, said = _verify(folder)
    assert code == 3
    assert "initial 100 − stock 1 = 99, but 100 live orders" in said
    sql("UPDATE tb_seckill_voucher SET stock = stock - 1")

    ledger.incr("seckill:stock:1")
    code, said = _verify(folder)
    assert code == 3
    assert "stock 1 + order set 100 = 101" in said
    ledger.decr("seckill:stock:1")

    ledger.srem("seckill:order:1", row.user_id)
    code, said = _verify(folder)
    assert (code, f"user {row.user_id}," in said) == (3, True), said
    ledger.sadd("seckill:order:1", row.user_id)

    assert _verify(folder)[0] == 0  # all of it put right again
    assert _summary(folder)["verdict"] == "pass"


BREAK = """\
.venv/bin/python -c '
import json, sqlalchemy
stack = json.load(open("kept/stack.json"))
with sqlalchemy.create_engine(stack["mysql_url"]).begin() as mysql:
    mysql.exec_driver_sql("DELETE FROM tb_voucher_order LIMIT 1")
'"""
"""As the documents have it: no SQL client is needed."""


def test_a_promise_is_broken_without_a_client(kept: tuple[Path, StackState]) -> None:
    folder, _ = kept
    recipe = BREAK.replace(".venv/bin/python", sys.executable)
    subprocess.run(["sh", "-c", recipe], cwd=folder, check=True, timeout=30)
    code, said = _verify(folder)
    assert (code, "accepted_persisted" in said) == (3, True), said


@pytest.mark.slow
def test_kills_in_the_middle_of_a_storm_lose_nothing(tmp_path: Path) -> None:
    """SIGKILL of a replica and of the worker: both come back, and every check holds."""
    (tmp_path / "crowd.toml").write_text(CROWD)
    state_dir = tmp_path / "stack"
    process = _start(tmp_path, "crowd.toml", "--keep", "--state-dir", str(state_dir))
    try:
        until(lambda: _results(tmp_path) > 500 or process.poll() is not None, within_s=60)
        state = read_state(state_dir)
        assert state is not None
        victims = [child for child in state.children if child.name in {"r2", "c1"}]
        for victim in victims:
            os.kill(victim.pid, signal.SIGKILL)
        answered = _results(tmp_path)
        assert answered < 16_000, "the storm was over before the kill"
        _finish(process, 0)
        summary = _summary(tmp_path)
        assert [c["verdict"] for c in summary["verify"]["checks"]] == ["pass"] * CHECKS
        assert summary["orders"]["persisted"] >= summary["orders"]["accepted"] > 0
        after = read_state(state_dir)
        assert after is not None
        restarts = {child.name: child.restarts for child in after.children}
        assert (restarts["r2"], restarts["c1"]) == (1, 1)
    finally:
        process.kill()
        process.communicate()
        stop_stack(state_dir)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_a_partial_report_and_no_process(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Ctrl-C in the middle of the storm: what was recorded is written, everything is stopped."""
    (tmp_path / "crowd.toml").write_text(CROWD)
    state_dir = tmp_path / "stack"
    process = _start(tmp_path, "crowd.toml", "--state-dir", str(state_dir))
    try:
        until(lambda: _results(tmp_path) > 500 or process.poll() is not None, within_s=60)
        family = _family(state_dir)
        process.send_signal(number)
        out = _finish(process, code)
        until(lambda: all(map(_is_gone, family)), within_s=15)
        assert not state_dir.exists()
        summary = _summary(tmp_path)
        assert (summary["exit_code"], summary["verdict"]) == (code, "invalid")
        assert summary["verify"]["reason"].startswith("not verified: the rehearsal ended before")
        page = (tmp_path / "runs/latest/report.html").read_text()
        for told in (out, page):  # the stack that it would read is gone
            assert "flashsale verify" not in told
    finally:
        process.kill()
        process.communicate()
        stop_stack(state_dir)


def test_an_unknown_scenario_starts_nothing(tmp_path: Path) -> None:
    """One line that names the built-in ones, exit 2, no stack."""
    done = run_flashsale(tmp_path, "rehearse", "stampde")
    assert (done.returncode, done.stdout) == (2, "")
    assert "stampede" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / ".flashsale").exists()


def test_an_existing_state_folder_is_not_used(tmp_path: Path) -> None:
    """A rehearsal never runs on data that is not its own."""
    done = run_flashsale(tmp_path, "rehearse", "stampede", "--state-dir", str(tmp_path))
    assert done.returncode == 2
    assert "does not exist yet" in done.stderr


def test_a_run_folder_that_cannot_be_made_starts_nothing(tmp_path: Path) -> None:
    """Known before a stack is up, not after it was seeded and stormed."""
    (tmp_path / "file").write_text("")
    done = run_flashsale(tmp_path, "rehearse", "stampede", "--out", "file/run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "flashsale: cannot make a run folder in file/run: Not a directory\n"
    assert not (tmp_path / ".flashsale").exists()


@pytest.mark.slow
def test_an_odd_folder_and_a_loaded_environment_do_not_matter(tmp_path: Path) -> None:
    """Modules that lie about, a path full of signs, stores of somebody else: all left alone."""
    folder = tmp_path / "g*[a] b'\"x\\y"
    folder.mkdir()
    for name in ("queue.py", "random.py", "http.py"):
        (folder / name).write_text("raise SystemExit('this is not your module')")
    (folder / "few.toml").write_text(CROWD.replace("12000", "10").replace("16000", "400"))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flashsale", "rehearse", "few.toml"],
        cwd=folder,
        env=os.environ | {"FLASHSALE_LEDGER_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "on private stores, whatever FLASHSALE_LEDGER_URL says" in done.stderr
    assert _summary(folder)["orders"]["persisted"] == 10


@pytest.mark.slow
def test_repeated_interrupts_do_not_stop_the_clean_up(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C again and again still finds nothing left behind."""
    (tmp_path / "crowd.toml").write_text(CROWD)
    state_dir = tmp_path / "stack"
    process = _start(tmp_path, "crowd.toml", "--state-dir", str(state_dir))
    try:
        until(lambda: read_state(state_dir) is not None or process.poll() is not None, 60)
        family = _family(state_dir)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
        _, err = process.communicate()
        assert process.returncode == 130
        assert err.count("rehearse: interrupted; stopping the stack\n") == 1
        until(lambda: all(map(_is_gone, family)), within_s=15)
        assert not state_dir.exists()
    finally:
        process.kill()
        process.communicate()
        stop_stack(state_dir)
