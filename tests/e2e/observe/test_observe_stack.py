"""`serve --observe`: Prometheus and exporters beside a stack, kept up with it, gone with it."""

import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from rig.command_line import run_flashsale
from rig.observers import fetched, promtool
from rig.until import until

from flashsale.stack.state import ChildState, StackState, read_state, stop_stack

SMALL = {
    "FLASHSALE_STACK_PORT": "0",
    "FLASHSALE_STACK_REPLICAS": "1",
    "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "16",
    "FLASHSALE_STACK_MARIADB_BUFFER_POOL_MB": "32",
    "FLASHSALE_STACK_OBSERVE_INTERVAL_S": "0.5",
}


def _flashsale(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return run_flashsale(Path.cwd(), *arguments, **SMALL, **environment)


def _state(state_dir: Path) -> StackState:
    state = read_state(state_dir)
    assert state is not None
    return state


def _child(state_dir: Path, name: str) -> ChildState:
    return next(child for child in _state(state_dir).children if child.name == name)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own loopback
        return bytes(response.read())


def _ask(state_dir: Path, path: str) -> Any:
    return orjson.loads(_get(f"{_child(state_dir, 'prometheus').url}/api/v1/{path}"))["data"]


def _up(state_dir: Path) -> dict[str, float]:
    found = _ask(state_dir, "query?query=up")["result"]
    return {each["metric"]["instance"]: float(each["value"][1]) for each in found}


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of a small stack that is observed."""
    fetched()
    state_dir = tmp_path_factory.mktemp("observed") / "state"
    started = _flashsale("serve", "--observe", "--detach", "--state-dir", str(state_dir))
    assert started.returncode == 0, started.stderr
    yield state_dir
    stop_stack(state_dir)


@pytest.mark.slow
def test_everybody_is_scraped(observed: Path) -> None:
    names = {"r1", "c1", "ledger", "cache", "mysql", "nginx", "prometheus"}
    until(lambda: _up(observed) == dict.fromkeys(names, 1.0), 30)
    for metric in ("redis_up", "mysql_up", "nginx_up"):
        found = _ask(observed, f"query?query={metric}")["result"]
        assert {each["value"][1] for each in found} == {"1"}, metric
    done = _flashsale("status", "--json", "--state-dir", str(observed))
    assert done.returncode == 0, done.stdout
    assert {"prometheus", "ledger-exporter", "nginx-exporter"} <= set(
        orjson.loads(done.stdout)["answers"]
    )


@pytest.mark.slow
def test_rules_and_alerts_are_evaluated(observed: Path) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in _ask(observed, "rules")["groups"] for rule in group["rules"]]

    until(lambda: len(rules()) > 20 and all(rule["health"] == "ok" for rule in rules()), 30)
    assert {rule["state"] for rule in rules() if rule["type"] == "alerting"} == {"inactive"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r1", "c1"])
def test_names_and_units_are_by_the_conventions(observed: Path, name: str) -> None:
    told = _get(f"{_child(observed, name).url}/metrics")
    assert told.count(b"# TYPE flashsale_") > 15
    done = promtool("check", "metrics", told=told)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.mark.slow
def test_promtool_would_say_so() -> None:
    fetched()
    bad = b"# HELP flashsale_wait_milliseconds x\n# TYPE flashsale_wait_milliseconds counter\n"
    done = promtool("check", "metrics", told=bad + b"flashsale_wait_milliseconds 1\n")
    assert done.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prometheus", "mysql-exporter"])
def test_a_killed_observer_is_back(observed: Path, name: str) -> None:
    before = _child(observed, name)
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: _child(observed, name).restarts == before.restarts + 1, 20)
    until(lambda: _flashsale("status", "--state-dir", str(observed)).returncode == 0, 20)
    assert _child(observed, name).port == before.port
    until(lambda: _up(observed).get("mysql") == 1.0, 20)


@pytest.mark.slow
def test_no_password_is_seen_by_others(observed: Path) -> None:
    password = _state(observed).mysql_url.partition("://")[2].partition("@")[0].partition(":")[2]
    assert len(password) > 20
    for child in _state(observed).children:
        assert password not in " ".join(psutil.Process(child.pid).cmdline())
    assert [path.stat().st_mode & 0o077 for path in observed.rglob("exporter.cnf")] == [0]


@pytest.mark.slow
def test_stop_takes_them_along(tmp_path: Path) -> None:
    fetched()
    state_dir = tmp_path / "state"
    started = _flashsale("serve", "--observe", "-d", "--state-dir", str(state_dir))
    assert started.returncode == 0, started.stderr
    children = [psutil.Process(child.pid) for child in _state(state_dir).children]
    assert len(children) == 6 + 5
    assert _flashsale("stop", "--state-dir", str(state_dir)).returncode == 0
    assert not any(process.is_running() for process in children)


@pytest.mark.parametrize("options", [(), ("--detach",)])
def test_a_missing_program_is_one_line_before_anything_starts(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The programs of the sale are there, those that observe it are not."""
    from flashsale.stack import binaries

    services = tmp_path / "services"
    services.mkdir()
    for program in binaries.PROGRAMS:
        tree = binaries.find(program).tree
        place = services / binaries.services_tree().name
        if tree is not None and not place.exists():
            place.symlink_to(tree)
    state_dir = tmp_path / "state"
    done = _flashsale(
        *("serve", "--observe", *options, "--state-dir", str(state_dir)),
        FLASHSALE_SERVICES_DIR=str(services),
        PATH="",
    )
    assert done.returncode == 7
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("flashsale: prometheus 2.31 or newer is missing; install it with ")
    assert not list(state_dir.glob("ledger*"))
