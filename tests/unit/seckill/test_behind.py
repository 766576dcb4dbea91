"""What makes a ledger behind, and what a connection must find before it carries claims."""

from typing import Any

import pytest

from flashsale.errors import Indeterminate
from flashsale.seckill.permit import (
    Behind,
    LedgerMarks,
    Marks,
    behind,
    check_opening,
    moment,
    names,
)

DAY = "2026:11:29"
MYSQL = Marks("e1", (1_700_000_000_000, 3), {DAY: 500}, term=2)


def ledger(**other: Any) -> LedgerMarks:
    marks: dict[str, Any] = {
        "run_id": "ab12",
        "epoch": "e1",
        "last": (1_700_000_000_000, 3),
        "counters": {DAY: 500},
    }
    return LedgerMarks(**{**marks, **other})


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"last": (1_700_000_000_000, 4)},
        {"last": (1_700_000_000_001, 0)},
        {"counters": {DAY: 501}},
        {"counters": {DAY: 500, "2026:11:30": 1}},
        {"term": 2},
        {"term": 3},
    ],
    ids=str,
)
def test_a_ledger_that_knows_as_much_or_more_is_not_behind(other: dict[str, Any]) -> None:
    assert behind(MYSQL, ledger(**other)) == []


@pytest.mark.parametrize(
    ("other", "what", "told"),
    [
        ({"epoch": "e2"}, "epoch", "the ledger has epoch e2; MySQL knows e1"),
        ({"epoch": ""}, "epoch", "it was emptied, or is new"),
        ({"last": (1_700_000_000_000, 2)}, "stream", "end at 2023-11-14T22:13:20.000Z"),
        ({"last": (1_699_999_999_999, 9)}, "stream", "up to 2023-11-14T22:13:20.000Z"),
        ({"last": (0, 0)}, "stream", "end at 0-0"),
        ({"counters": {DAY: 499}}, "counter", f"counted 499 order ids on {DAY}, MySQL 500"),
        ({"counters": {}}, "counter", "counted 0 order ids"),
        ({"term": 1}, "term", "name a ledger of term 1; one of term 2 has sold since"),
    ],
)
def test_a_ledger_that_knows_less_is_behind(other: dict[str, Any], what: str, told: str) -> None:
    (reason,) = behind(MYSQL, ledger(**other))
    assert reason.what == what
    assert told in reason.told


def test_everything_that_is_behind_is_named() -> None:
    found = behind(MYSQL, ledger(epoch="", last=(0, 0), counters={}))
    assert [reason.what for reason in found] == ["epoch", "stream", "counter"]


def test_a_database_that_knows_nothing_misses_nothing() -> None:
    assert behind(Marks(), ledger(epoch="e9")) == []
    assert behind(Marks(), ledger(epoch="", last=(0, 0), counters={})) == []


@pytest.mark.parametrize(
    ("permit", "run_id", "holds"),
    [("ab:1", "ab", True), ("ab:1", "a", False), ("ab:1", "", False), ("", "ab", False)],
)
def test_a_permit_names_its_server(permit: str, run_id: str, holds: bool) -> None:
    assert names(permit, run_id) is holds


INFO = "# Server\r\nredis_version:7.0.15\r\nrun_id:ab12\r\ntcp_port:1\r\n"


def test_a_connection_to_the_permits_own_server_is_let_through() -> None:
    check_opening([INFO, "ab12:1"])


@pytest.mark.parametrize(
    "replies",
    [
        [INFO, None],
        [INFO, "ab1:1"],
        [INFO, "cd34:1"],
        ["", "ab12:1"],
        [Indeterminate("lost"), Indeterminate("lost")],
    ],
    ids=str,
)
def test_any_other_is_not(replies: list[Any]) -> None:
    with pytest.raises(Behind, match="started anew"):
        check_opening(replies)


def test_what_is_no_time_of_this_age_is_told_as_an_id() -> None:
    assert moment((2**63 - 1, 7)) == f"{2**63 - 1}-7"
