"""`flashsale seed` and `flashsale warm` as a user runs them."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rig.command_line import run_flashsale, start_flashsale

NOWHERE = "127.0.0.1:1"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(ledger_url: str, cache_url: str, mysql_url: str, tmp_path: Path) -> Run:
    """Runs a command against the test's stores, in a folder of its own, with no terminal."""
    stores = {
        "FLASHSALE_LEDGER_URL": ledger_url,
        "FLASHSALE_CACHE_URL": cache_url,
        "FLASHSALE_MYSQL_URL": mysql_url,
    }

    def run(
        *arguments: str, without: str = "", stdin: int = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        told = {name: value for name, value in stores.items() if name != without}
        if stdin == subprocess.DEVNULL:
            return run_flashsale(tmp_path, *arguments, **told)
        pipe = subprocess.PIPE
        process = start_flashsale(
            tmp_path, *arguments, stdin=stdin, stdout=pipe, stderr=pipe, **told
        )
        out, err = process.communicate(60)
        return subprocess.CompletedProcess(arguments, process.wait(), out, err)

    return run


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line that a refused command ends with."""
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (code, "")
    assert last.startswith("flashsale: ")
    assert "Traceback" not in done.stderr
    return last


def test_seeding_twice_then_more(run: Run, tmp_path: Path) -> None:
    tokens = tmp_path / ".flashsale" / "tokens.csv"
    first = run("seed", "--users", "50")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("seed: 187 rows and sessions added in ")
    assert first.stdout.endswith(f", tokens in {tokens.relative_to(tmp_path)}\n")
    assert "seed: users 50 of 50" in first.stderr.splitlines()
    assert (tokens.stat().st_mode & 0o777, tokens.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    before = tokens.read_text()

    second = run("seed", "--users", "50")
    assert second.returncode == 0
    assert second.stdout.startswith("seed: nothing changed in ")
    assert tokens.read_text() == before

    third = run("seed", "--users", "60")
    assert third.returncode == 0
    assert third.stdout.startswith("seed: 30 rows and sessions added in ")
    assert tokens.read_text().startswith(before)
    assert len(tokens.read_text().splitlines()) == 61


def test_warming_twice(run: Run) -> None:
    assert run("seed", "--users", "1", "--vouchers", "3").returncode == 0
    assert run("warm").stdout == "warm: 3 sales loaded, 0 already loaded\n"
    assert run("warm").stdout == "warm: 0 sales loaded, 3 already loaded\n"


def test_warming_before_seeding(run: Run) -> None:
    assert "run `flashsale seed` first" in refused(run("warm"), 2)


def test_other_units_name_the_reset(run: Run) -> None:
    run("seed", "--users", "1")
    line = refused(run("seed", "--users", "1", "--units", "50"), 2)
    assert line == (
        "flashsale: --units: voucher 1 exists with 100 units, not 50; "
        "give the same, or start anew with --reset"
    )


def test_a_reset_wants_a_yes(run: Run) -> None:
    run("seed", "--users", "2")
    assert "--reset: deletes data, expected --yes" in refused(run("seed", "--reset"), 2)
    assert run("seed", "--users", "2").stdout.startswith("seed: nothing changed")
    done = run("seed", "--users", "3", "--units", "7", "--reset", "--yes")
    assert done.returncode == 0
    assert "ledger keys and all rows of" in done.stderr
    assert "(users 3, shops 14, vouchers 1, units 7)" in done.stdout


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 2), (b"\n", 2), (b"y\n", 0)])
def test_a_terminal_is_asked_before_a_reset(run: Run, answer: bytes, code: int) -> None:
    run("seed", "--users", "2")
    keyboard, terminal = os.openpty()
    try:
        os.write(keyboard, answer)
        done = run("seed", "--users", "3", "--units", "7", "--reset", stdin=terminal)
    finally:
        os.close(keyboard)
        os.close(terminal)
    assert "Delete the data set in mysql://" in done.stderr
    assert "redis://" in done.stderr
    assert done.returncode == code
    if code:
        assert done.stderr.endswith("--reset: not confirmed, nothing was deleted\n")
        assert run("seed", "--users", "2").stdout.startswith("seed: nothing changed")


def test_ctrl_c_says_how_to_go_on(
    ledger_url: str, cache_url: str, mysql_url: str, tmp_path: Path
) -> None:
    urls = ("--ledger-url", ledger_url, "--cache-url", cache_url, "--mysql-url", mysql_url)
    line, pipe = ("seed", "--users", "2000000", *urls), subprocess.PIPE
    process = start_flashsale(tmp_path, *line, stdout=pipe, stderr=pipe)
    assert process.stderr is not None
    assert process.stderr.readline() == "seed: shop types 10 of 10\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert output == ""
    assert errors.splitlines()[-1] == "seed: interrupted; the same command goes on from here"
    assert list((tmp_path / ".flashsale").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--users", "0"], "--users: expected 1 to 10,000,000, got 0"),
        (["--users", "many"], "'--users'"),
        (["--units", "-1"], "--units: expected 0 to 2,147,483,647, got -1"),
        (["--vouchers", "0"], "--vouchers: expected 1 to 100,000, got 0"),
        (["--begin", "soon"], "--begin: expected a time such as 2030-01-31T10:00:00Z, got 'soon'"),
        (["--begin", "2030-01-02", "--end", "2030-01-01"], "--end: expected a time after --begin"),
        (["--tokens", "/proc/nowhere/tokens.csv"], "cannot be written: "),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_wrong_flags(run: Run, arguments: list[str], expected: str) -> None:
    assert expected in refused(run("seed", *arguments), 2)


@pytest.mark.parametrize("command", ["seed", "warm"])
def test_stores_that_do_not_answer(run: Run, command: str) -> None:
    for flag, url in {
        "--ledger-url": f"redis://{NOWHERE}/0",
        "--cache-url": f"redis://{NOWHERE}/0",
        "--mysql-url": f"mysql://u:p@{NOWHERE}/flashsale",
    }.items():
        line = refused(run(command, flag, url), 7)
        assert NOWHERE.partition(":")[0] in line
        assert line.endswith(f"start a stack with `flashsale serve --detach`, or check {flag}")


def test_no_stack_and_no_url(run: Run) -> None:
    line = refused(run("seed", without="FLASHSALE_MYSQL_URL"), 7)
    assert "no stack runs in .flashsale; start one with `flashsale serve --detach`" in line


def test_tokens_go_where_asked(run: Run, tmp_path: Path) -> None:
    assert run("seed", "--users", "2", "--tokens", "elsewhere/t.csv").returncode == 0
    place = tmp_path / "elsewhere" / "t.csv"
    assert place.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / ".flashsale").exists()


def test_a_foreign_tokens_file_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "notes.csv"
    place.write_text("my notes\n")
    assert "line 1: expected 'user_id,token'" in refused(
        run("seed", "--users", "2", "--tokens", "notes.csv"), 2
    )
    assert place.read_text() == "my notes\n"
