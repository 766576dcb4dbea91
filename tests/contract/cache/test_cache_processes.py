"""Several processes over one cache: a key that expires is loaded once, by one of them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import insert

from flashsale.storage.mysql import engine, transaction
from flashsale.storage.tables import shop

TESTS = Path(__file__).resolve().parents[2]


@contextmanager
def process(cache_url: str, mysql_url: str, readers: int) -> Iterator["subprocess.Popen[str]"]:
    child = subprocess.Popen(
        [sys.executable, "-m", "rig.cached_process", cache_url, mysql_url, str(readers)],
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


def go(child: "subprocess.Popen[str]") -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def told(child: "subprocess.Popen[str]") -> dict[str, object]:
    assert child.stdout is not None
    answer: dict[str, object] = json.loads(child.stdout.readline())
    return answer


@pytest.mark.slow
def test_2000_readers_in_three_processes_cause_one_load(cache_url: str, mysql_url: str) -> None:
    pool = engine(mysql_url)
    with transaction(pool) as connection:
        connection.execute(insert(shop).values(id=1, name="Tea", type_id=1, x=120.1, y=30.3))
    pool.dispose()
    with (
        process(cache_url, mysql_url, 667) as one,
        process(cache_url, mysql_url, 667) as two,
        process(cache_url, mysql_url, 666) as three,
    ):
        children = (one, two, three)
        for child in children:
            go(child)
        answers = [told(child) for child in children]
    assert sorted(answer["loads"] for answer in answers) == [0, 0, 1]  # type: ignore[type-var]
    assert {str(answer["bodies"]) for answer in answers} == {str([str(b'{"id":1,"name":"Tea"}')])}
    outcomes = [answer["outcomes"] for answer in answers]
    assert sum(each.get("load", 0) for each in outcomes) == 1  # type: ignore[attr-defined]
    assert sum(sum(each.values()) for each in outcomes) == 2000  # type: ignore[attr-defined]
