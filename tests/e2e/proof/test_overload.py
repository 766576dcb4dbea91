"""Ten times what a stack carries, on the whole of it: who is served is served as soon as ever, the
rest is told so at once, nothing grows, and when it is over it is over. Judged by ratios of one run.
"""

import contextlib
import csv
import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from flashsale.files import resource
from flashsale.stack.state import StackState, read_state

SHORT = """
[load]
model = "rate"
stages = ["3s:35", "6s:35", "3s:600", "6s:600", "4s:35", "6s:35"]
connections = 1000
seed = 1

[thresholds]
"error.share" = "<= 97%"
"stage2.buy.error.share" = "<= 1%"
"stage4.buy.sold.p95" = "<= 3x stage2.buy.sold.p95"
"stage4.buy.sold.count" = ">= 0.8x stage2.buy.sold.count"
"stage4.buy.shed.share" = ">= 80%"
"stage4.buy.shed.p95" = "<= 3x stage2.buy.sold.p95"
"stage6.buy.error.share" = "<= 1%"
"stage6.buy.sold.p95" = "<= 2x stage2.buy.sold.p95"
"""

_MB = 1024 * 1024
_LOOK_S = 0.2


class Onlooker:
    """Watches a stack while it is stormed: what its processes need, and how it refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._over = folder, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.resident: defaultdict[str, list[int]] = defaultdict(list)
        self.refusals: list[tuple[str | None, bytes]] = []

    def __enter__(self) -> "Onlooker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def grown(self, name: str) -> float:
        """From the first look at a process on to the most that it needed, in MB."""
        looks = self.resident[name]
        return (max(looks) - looks[0]) / _MB

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_S):
            for folder in self._stormed():
                if (state := read_state(folder)) is not None:
                    self._look(state, folder / "tokens.csv")

    def _stormed(self) -> Iterator[Path]:
        """The folder of the stack, from when the storm's plan is written on."""
        if (self._folder / "run/attempts.jsonl").exists():
            yield from (self._folder / ".flashsale/rehearsals").glob("*")

    def _look(self, state: StackState, tokens: Path) -> None:
        for child in state.children:
            with contextlib.suppress(psutil.Error):
                self.resident[child.name].append(psutil.Process(child.pid).memory_info().rss)
        with contextlib.suppress(OSError, HTTPException, StopIteration):
            with tokens.open(newline="") as rows:
                token = next(csv.DictReader(rows))["token"]
            self._ask(state.base_url, token)

    def _ask(self, base_url: str, token: str) -> None:
        """Claim what is not on sale: it goes the way of every claim, and sells nothing."""
        connection = HTTPConnection(urlsplit(base_url).netloc, timeout=10)
        with contextlib.closing(connection):
            connection.request(
                "POST", "/voucher-order/seckill/999", headers={"authorization": token}
            )
            answer = connection.getresponse()
            if answer.status == 503:
                self.refusals.append((answer.headers["retry-after"], answer.read()))


def rehearsed(folder: Path, scenario: str, timeout_s: float) -> tuple[dict[str, Any], Onlooker]:
    """The run's summary, and what was seen meanwhile."""
    (folder / "ten.toml").write_text(scenario)
    small = {"FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "32", "NO_COLOR": "1"}
    words = ("rehearse", "ten.toml", "--quiet", "--no-calibrate", "--out", "run")
    with Onlooker(folder) as onlooker:
        done = subprocess.run(
            [sys.executable, "-m", "flashsale", *words],
            cwd=folder,
            env={**os.environ, **small},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    assert (folder / "run/verify.json").exists(), done.stdout + done.stderr
    summary: dict[str, Any] = json.loads((folder / "run/summary.json").read_text())
    return summary, onlooker


def ensure_it_held(summary: dict[str, Any], onlooker: Onlooker) -> None:
    failed = [it for it in summary["thresholds"] if it["verdict"] != "pass"]
    assert not failed
    assert summary["verify"]["verdict"] == "pass"
    assert onlooker.refusals, "nobody who looked on was refused"
    assert all(after and int(after) >= 1 for after, _ in onlooker.refusals)
    replicas = [name for name in onlooker.resident if name.startswith("r") and name[1:].isdigit()]
    assert len(replicas) == 3
    assert all(onlooker.grown(name) < 64 for name in replicas)
    orders_mb = summary["orders"]["accepted"] * 4096 / _MB  # receipt, member, entry, row
    assert onlooker.grown("ledger") < 32 + orders_mb


def shortened(text: str) -> str:
    """The scenario with another load: its sale, what slows it down, and its thresholds' shape."""
    head, _, rest = text.partition("[load]\n")
    _, _, fault = rest.partition("[[fault]]\n")
    fault, _, _ = fault.partition("[thresholds]\n")
    return "".join([head, "[[fault]]\n", fault.replace('"128s"', '"28s"'), SHORT])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_times_as_many_for_nine_seconds(tmp_path: Path) -> None:
    text = (resource("scenarios") / "overload.toml").read_text()
    ensure_it_held(*rehearsed(tmp_path, shortened(text), 280))


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_ten_times_as_many_for_a_minute(tmp_path: Path) -> None:
    text = (resource("scenarios") / "overload.toml").read_text()
    ensure_it_held(*rehearsed(tmp_path, text, 580))
