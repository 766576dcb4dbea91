"""The shop of examples/ on Node: a session cookie, orders without ids, books as a route."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from rig.command_line import run_flashsale
from rig.documents import ROOT

pytestmark = pytest.mark.timeout(240)
EXAMPLES = ROOT / "examples"
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node (apt install nodejs)")
    servers = []

    def start(**environment: str) -> str:
        server = subprocess.Popen(
            [node, EXAMPLES / "node_shop.mjs"],
            env={**os.environ, "PORT": "0", **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        servers.append(server)
        assert server.stdout is not None
        listening = re.fullmatch(r"listening on (\d+)\n", server.stdout.readline())
        assert listening
        return f"http://127.0.0.1:{listening[1]}"

    yield start
    for server in servers:
        server.terminate()
        server.wait(10)
        assert server.stdout is not None
        server.stdout.close()


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", ["", "check_then_await"])
def test_ten_runs_raise_no_false_alarm_and_name_the_fault(
    serve: Serve, tmp_path: Path, fault: str
) -> None:
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        told = judged(folder, serve(**({"FAULT": fault} if fault else {})))
        failed = {check["name"] for check in told["checks"] if check["verdict"] == "fail"}
        assert ("no_oversell" in failed) is bool(fault), failed
        assert told["code"] == (3 if fault else 0)


def judged(folder: Path, base_url: str) -> dict[str, Any]:
    storm = run_flashsale(
        folder,
        *("storm", str(EXAMPLES / "node_sale.toml"), "--quiet", "--no-calibrate", "--out", "run"),
        *("--target", str(EXAMPLES / "node_shop.toml"), "--base-url", base_url),
    )
    assert "no baseline" not in storm.stderr, storm.stderr
    told = run_flashsale(folder, "verify", "run", "--json")
    assert "Traceback" not in told.stderr, told.stderr
    return {"code": told.returncode, **orjson.loads(told.stdout)}


def test_the_right_one_is_not_accused(serve: Serve, tmp_path: Path) -> None:
    told = judged(tmp_path, serve())
    assert (told["code"], told["verdict"]) == (0, "pass"), told["checks"]
    assert told["orders"]["accepted"] == told["orders"]["persisted"] == 20
    unknown = {c["name"]: c["detail"] for c in told["checks"] if c["verdict"] == "unknown"}
    assert unknown.keys() == {"unique_ids", "redis_conservation", "queue_empty", "window"}
    assert unknown["unique_ids"] == "the shop's orders have no ids"


def test_one_that_looks_before_it_waits_oversells(serve: Serve, tmp_path: Path) -> None:
    told = judged(tmp_path, serve(FAULT="check_then_await"))
    assert told["code"] == 3
    failed = {check["name"] for check in told["checks"] if check["verdict"] == "fail"}
    assert "no_oversell" in failed
