"""`serve`, `status`, `stop`, `doctor` and `services` as a user runs them."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rig.command_line import Started, run_flashsale, start_flashsale

from flashsale.stack.state import StackState, read_state, start_detached, stop_stack

FLASHSALE = (sys.executable, "-m", "flashsale")
SMALL = {
    "FLASHSALE_STACK_PORT": "0",
    "FLASHSALE_STACK_REPLICAS": "1",
    "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "16",
    "FLASHSALE_STACK_MARIADB_BUFFER_POOL_MB": "32",
}


def _environment(**more: str) -> dict[str, str]:
    return os.environ | SMALL | more


def _run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return run_flashsale(Path.cwd(), *arguments, **SMALL, **environment)


def _serve(state_dir: Path) -> Started:
    """One in the foreground, its output piped."""
    one = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    line = ("serve", "--state-dir", str(state_dir))
    return start_flashsale(Path.cwd(), *line, **one, PYTHONUNBUFFERED="1", **SMALL)


def _await(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


def _family(state: StackState) -> list[psutil.Process]:
    """Every process of a stack: supervisor, children, and nginx's workers."""
    return [psutil.Process(state.pid), *psutil.Process(state.pid).children(recursive=True)]


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    def lives(process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [process for process in processes if lives(process)]


def _get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own loopback
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _state(state_dir: Path) -> StackState:
    state = read_state(state_dir)
    assert state is not None
    return state


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of a small stack that `serve --detach` started."""
    state_dir = tmp_path_factory.mktemp("stack") / "state"
    started = _run("serve", "--detach", "--state-dir", str(state_dir))
    assert started.returncode == 0, started.stderr
    yield state_dir
    stop_stack(state_dir)


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """A folder whose stack, if a test leaves one, is stopped."""
    yield tmp_path / "state"
    stop_stack(tmp_path / "state")


def test_status_tells_that_all_is_well(running: Path) -> None:
    done = _run("status", "--json", "--state-dir", str(running))
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["healthy"] is True
    assert told["answers"] == dict.fromkeys(
        ("ledger", "cache", "mariadb", "r1", "c1", "nginx"), True
    )


def test_status_draws_every_process(running: Path) -> None:
    done = _run("status", "--state-dir", str(running))
    assert done.returncode == 0, done.stderr
    for child in _state(running).children:
        assert child.name in done.stdout
        assert str(child.pid) in done.stdout


def test_who_waits_at_a_terminal_is_told_for_what(running: Path) -> None:
    """Elsewhere there is nothing but what came of it."""
    shown, terminal = os.openpty()
    again = ("serve", "--detach", "--state-dir", str(running))
    try:
        with start_flashsale(Path.cwd(), *again, stdout=terminal, stderr=terminal) as serve:
            assert serve.wait(30) == 2
        told = os.read(shown, 65_536).decode()
    finally:
        os.close(shown)
        os.close(terminal)
    assert "starting a stack; " in told
    assert "serve.log" in told
    piped = _run("serve", "--detach", "--state-dir", str(running))
    assert "starting" not in piped.stdout + piped.stderr


def test_replicas_give_way_a_little_and_nobody_else_does(running: Path) -> None:
    """Farther down, a busy stranger leaves a replica no CPU to answer, or even to start."""
    ours = psutil.Process().nice()
    given = {one.kind: psutil.Process(one.pid).nice() - ours for one in _state(running).children}
    assert 0 < given.pop("replica") <= 3
    assert set(given.values()) == {0}


def test_the_sale_answers_through_nginx(running: Path) -> None:
    base = _state(running).base_url
    assert _get(f"{base}/healthz") == 200
    assert _get(f"{base}/readyz") == 404
    assert _get(f"{base}/metrics") == 404


@pytest.mark.parametrize("options", [(), ("--detach",)])
def test_a_second_serve_names_the_first(running: Path, options: tuple[str, ...]) -> None:
    done = _run("serve", *options, "--state-dir", str(running))
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert f"process {_state(running).pid}" in lines[0]
    assert "flashsale stop" in lines[0]


@pytest.mark.parametrize("kind", ["replica", "worker", "nginx", "redis-cache", "mariadb"])
def test_a_killed_child_is_back_within_moments(running: Path, kind: str) -> None:
    def child() -> Any:
        return next(c for c in _state(running).children if c.kind == kind)

    before = child()
    os.kill(before.pid, signal.SIGKILL)
    _await(lambda: child().restarts == before.restarts + 1, f"the restart of {kind}")
    _await(lambda: _run("status", "--state-dir", str(running)).returncode == 0, f"{kind} to answer")
    assert child().port == before.port


@pytest.mark.slow
def test_of_two_serves_at_once_one_gives_way(state_dir: Path) -> None:
    serves = [_serve(state_dir) for _ in range(2)]
    _await(lambda: any(serve.poll() is not None for serve in serves), "one to give way")
    loser, winner = sorted(serves, key=lambda serve: serve.returncode is None)
    winner.terminate()
    told = [serve.communicate(timeout=30)[0] for serve in (loser, winner)]
    assert (loser.returncode, winner.returncode) == (2, 143), told
    assert f"process {winner.pid}" in told[0]


def test_doctor_finds_nothing_that_breaks_a_promise(running: Path) -> None:
    done = _run("doctor", "--json", "--state-dir", str(running))
    findings = json.loads(done.stdout)
    stores = {f["subject"] for f in findings} - {"machine", "program"}
    assert stores == {"ledger", "cache", "mysql"}
    assert [f for f in findings if f["grade"] == "fail"] == []
    assert done.returncode == 0


def test_doctor_draws_its_findings(running: Path) -> None:
    done = _run("doctor", "--state-dir", str(running))
    assert done.returncode == 0
    assert "appendfsync" in done.stdout


def test_doctor_names_the_cure_of_a_forgetful_ledger(running: Path) -> None:
    cache = _state(running).cache_url
    done = _run("doctor", "--json", "--ledger-url", cache, "--state-dir", str(running))
    assert done.returncode == 7
    cures = " ".join(f["cure"] for f in json.loads(done.stdout) if f["grade"] == "fail")
    assert "CONFIG SET appendfsync always; and write `appendfsync always`" in cures


def test_doctor_goes_on_where_one_store_does_not_answer(running: Path) -> None:
    done = _run(
        "doctor", "--json", "--cache-url", "redis://127.0.0.1:1/0", "--state-dir", str(running)
    )
    assert done.returncode == 7
    by_subject = {f["subject"]: f["grade"] for f in json.loads(done.stdout)}
    assert by_subject["cache"] == "fail"
    assert by_subject["mysql"] == "ok"


def test_stop_leaves_nothing_and_a_second_stop_says_so(state_dir: Path) -> None:
    assert _run("serve", "-d", "--state-dir", str(state_dir)).returncode == 0
    family = _family(_state(state_dir))
    assert len(family) == 1 + 6 + 1  # with nginx's worker

    stopped = _run("stop", "--state-dir", str(state_dir))
    assert (stopped.returncode, "stopped the stack" in stopped.stdout) == (0, True)
    assert _alive(family) == []
    assert not (state_dir / "stack.json").exists()

    again = _run("stop", "--state-dir", str(state_dir))
    assert (again.returncode, "no stack runs" in again.stdout) == (0, True)
    status = _run("status", "--state-dir", str(state_dir))
    assert (status.returncode, "no stack runs" in status.stderr) == (7, True)


@pytest.mark.slow
def test_nothing_survives_a_killed_supervisor(state_dir: Path) -> None:
    assert _run("serve", "-d", "--state-dir", str(state_dir)).returncode == 0
    family = _family(_state(state_dir))
    os.kill(family[0].pid, signal.SIGKILL)
    _await(lambda: _alive(family) == [], "all processes to go", timeout_s=5)
    assert read_state(state_dir) is None
    assert _run("serve", "-d", "--state-dir", str(state_dir)).returncode == 0  # and it heals


@pytest.mark.parametrize(
    ("after", "signum", "exit_code"),
    [
        pytest.param("ready at", signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param("ready at", signal.SIGHUP, 143, marks=pytest.mark.slow),
        ("starting MariaDB", signal.SIGINT, 130),
        ("starting replicas", signal.SIGTERM, 143),
    ],
)
def test_a_signal_at_any_time_leaves_nothing(
    state_dir: Path, after: str, signum: int, exit_code: int
) -> None:
    with _serve(state_dir) as serve:
        assert serve.stdout
        assert any(after in line for line in serve.stdout)
        time.sleep(0.05)
        family = psutil.Process(serve.pid).children(recursive=True)
        os.kill(serve.pid, signum)
        rest = serve.stdout.read()
        assert serve.wait(30) == exit_code, rest
    assert "Traceback" not in rest
    assert _alive(family) == []
    assert not (state_dir / "stack.json").exists()


@pytest.mark.slow
def test_a_tied_stack_ends_with_its_owner(state_dir: Path) -> None:
    owner = (
        "import sys, time; from pathlib import Path; "
        "from flashsale.stack.state import start_detached; "
        "start_detached(Path(sys.argv[1]), tied=True); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", owner, str(state_dir)],
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        family = _family(_state(state_dir))
        process.kill()
    _await(lambda: _alive(family) == [], "the stack to follow its owner", timeout_s=20)


@pytest.mark.slow
def test_a_stack_started_from_code_is_stopped_and_reaped(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    state = start_detached(state_dir, ["--workers", "2"], tied=True)
    assert state.ready
    assert [c.name for c in state.children if c.kind == "worker"] == ["c1", "c2"]
    family = _family(state)
    assert stop_stack(state_dir)
    assert _alive(family) == []
    assert not psutil.pid_exists(state.pid)  # not even a zombie
    assert not stop_stack(state_dir)


@pytest.mark.parametrize("options", [(), ("--detach",)])
def test_a_taken_port_is_one_line_with_the_cure(state_dir: Path, options: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        done = _run("serve", *options, "--port", number, "--state-dir", str(state_dir))
    assert done.returncode == 7
    assert done.stderr.strip().splitlines() == [
        f"flashsale: port {number} is taken on 127.0.0.1; "
        "choose another with --port, or any free one with --port 0"
    ]
    assert read_state(state_dir) is None


def test_too_few_descriptors_are_one_line_before_anything_starts(state_dir: Path) -> None:
    pipe, limits = subprocess.PIPE, {resource.RLIMIT_NOFILE: 256}
    for detach in ([], ["--detach"]):
        serve = ("serve", *detach, "--state-dir", str(state_dir))
        process = start_flashsale(
            Path.cwd(), *serve, stdout=pipe, stderr=pipe, limits=limits, **SMALL
        )
        _, told = process.communicate(90)
        assert process.returncode == 2, told
        (line,) = told.splitlines()
        assert line.startswith(
            "flashsale: a stack needs 1,024 open files and the hard limit is 256"
        )
        assert "ulimit -Hn" in line


@pytest.mark.parametrize("options", [(), ("--detach",)])
def test_github_actions_gets_one_annotation(state_dir: Path, options: tuple[str, ...]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = str(taken.getsockname()[1])
        done = _run(
            *("serve", *options, "--port", number, "--state-dir", str(state_dir)),
            GITHUB_ACTIONS="true",
        )
    assert done.returncode == 7
    told = [line for line in done.stderr.splitlines() if "is taken on" in line]
    assert [line.startswith("::error") for line in told] == [False, True]
    assert done.stderr.count("::") == 2


@pytest.mark.parametrize("options", [(), ("--detach",)])
def test_missing_programs_are_one_line_with_the_cure(
    state_dir: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = _run(
        "serve",
        *options,
        "--state-dir",
        str(state_dir),
        PATH="",
        FLASHSALE_SERVICES_DIR=str(tmp_path / "none"),
    )
    assert done.returncode == 7
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("flashsale: redis-server 7.0 or newer is missing; install it with ")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), {"redis-server", "mariadbd", "nginx"}),
        (("--base-url", "http://sale.example"), {"redis-server", "mariadbd"}),
    ],
)
def test_doctor_lists_missing_programs(
    tmp_path: Path, options: tuple[str, ...], wanted: set[str]
) -> None:
    """Those of what somebody else runs are not missed."""
    done = _run(
        *("doctor", "--json", "--state-dir", str(tmp_path), *options),
        PATH="",
        FLASHSALE_SERVICES_DIR=str(tmp_path / "none"),
    )
    assert done.returncode == 7
    missing = {f["name"] for f in json.loads(done.stdout) if f["grade"] == "fail"}
    assert missing == wanted


@pytest.mark.parametrize(
    ("option", "url", "told"),
    [
        ("--ledger-url", "redis://127.0.0.1:1/0", "--ledger-url"),
        ("--cache-url", "redis://127.0.0.1:1/0", "--cache-url"),
        ("--mysql-url", "mysql://u:secret@127.0.0.1:1/flashsale", "--mysql-url"),
    ],
)
def test_an_external_store_that_does_not_answer(
    state_dir: Path, option: str, url: str, told: str
) -> None:
    done = _run("serve", option, url, "--state-dir", str(state_dir))
    assert done.returncode == 7
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert told in lines[0]
    assert "secret" not in lines[0]


def test_an_external_ledger_with_a_caches_policy(state_dir: Path, cache_url: str) -> None:
    done = _run("serve", "--ledger-url", cache_url, "--state-dir", str(state_dir))
    assert done.returncode == 7
    assert done.stderr.strip() == (
        "flashsale: ledger: appendonly is no, which breaks a promise of the sale; "
        "CONFIG SET appendonly yes; and write `appendonly yes` into its redis.conf "
        "(`flashsale doctor` lists 2 more)"
    )


@pytest.mark.parametrize(
    ("option", "value"), [("--port", "70000"), ("--replicas", "0"), ("--probe-interval", "-1")]
)
def test_a_wrong_option_names_the_field(state_dir: Path, option: str, value: str) -> None:
    done = _run("serve", option, value, "--state-dir", str(state_dir))
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert f"'{option}'" in lines[0]


def test_services_install_is_idempotent_and_lists() -> None:
    for command in ("install", "list"):
        done = _run("services", command)
        assert done.returncode == 0, done.stderr
        for name in ("redis-server", "mariadbd", "nginx"):
            assert name in done.stdout
