"""Failpoints: each is in the code once, and an unarmed one does nothing."""

import re
from pathlib import Path

import pytest

from flashsale import failpoints

PACKAGE = Path(failpoints.__file__).parent


def test_every_point_is_passed_in_one_place() -> None:
    passed: list[str] = []
    for path in PACKAGE.rglob("*.py"):
        passed += re.findall(r'\breach\("([a-z._]+)"\)', path.read_text(encoding="utf-8"))
    assert sorted(passed) == sorted(failpoints.POINTS)


def test_nothing_in_the_product_arms_one() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name != "failpoints.py":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"failpoints\.arm|import .*\barm(ed)?\b", text), path


def test_what_is_armed_is_done_there_and_only_while_it_is() -> None:
    done: list[str] = []
    failpoints.reach("worker.read")
    with failpoints.armed("worker.read", lambda: done.append("read")):
        failpoints.reach("worker.read")
        failpoints.reach("worker.locked")
    failpoints.reach("worker.read")
    assert done == ["read"]


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(KeyError):
        failpoints.arm("worker.raed", lambda: None)
