"""The end of a run as a file: nothing is lost, and what is damaged says so in a line."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from flashsale.errors import NothingJudgedError
from flashsale.run.folder import BASELINE_FILE, ENDING_FILE
from flashsale.verify.ending import (
    Ending,
    SaleAtEnd,
    ended_last,
    from_json,
    read_ending,
)
from flashsale.verify.observation import Clocks, Position, read_baseline
from flashsale.verify.stores import MySQLSale, Terms

END = Ending(
    clocks=Clocks(redis_ms=1_000, mysql_ms=1_002, offset_ms=2.0, error_ms=1.0),
    claim_ms=5_000,
    position=Position("7-1", "3-0"),
    trimmed=2,
    backlog=4,
    sales={1: SaleAtEnd(MySQLSale(10, 3, 1, 9), Terms(10, 1, 9)), 2: SaleAtEnd(None, Terms())},
)


def test_as_a_file_nothing_is_lost(tmp_path: Path) -> None:
    assert from_json(END.to_json()) == END
    (tmp_path / ENDING_FILE).write_bytes(END.to_json())
    assert read_ending(tmp_path) == END


def test_a_storm_that_took_none_has_none(tmp_path: Path) -> None:
    assert read_ending(tmp_path) is None


def test_of_several_shards_the_last_end_counts_and_only_if_all_have_one(tmp_path: Path) -> None:
    shards = [tmp_path / name for name in ("b", "a", "c")]
    for shard, redis_ms in zip(shards, (5, 9, 7), strict=True):
        shard.mkdir()
        end = replace(END, clocks=replace(END.clocks, redis_ms=redis_ms))
        (shard / ENDING_FILE).write_bytes(end.to_json())
    assert ended_last(shards) == shards[1]
    (shards[2] / ENDING_FILE).unlink()
    assert ended_last(shards) is None


def damaged() -> list[bytes]:
    whole = orjson.loads(END.to_json())
    pruned = [{k: v for k, v in whole.items() if k != name} for name in whole if name != "taken_at"]
    odd = [{**whole, "schema": 9}, {**whole, "clocks": {"redis_ms": 1}}, {**whole, "stream": None}]
    odd += [{**whole, "vouchers": {"x": None}}, {**whole, "vouchers": []}]
    odd += [{**whole, "claim_ms": "5"}, {**whole, "stream": {**whole["stream"], "last_entry": "x"}}]
    odd += [{**whole, "clocks": {**whole["clocks"], "redis_ms": None}}]
    torn = END.to_json()
    return [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        torn[: len(torn) // 2],
        b'{"schema":%s}' % (b"[" * 900 + b"]" * 900),
        b"[" * 30_000,
        *(orjson.dumps(document) for document in (*pruned, *odd)),
    ]


@pytest.mark.parametrize("content", damaged())
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    for name, read in ((ENDING_FILE, read_ending), (BASELINE_FILE, read_baseline)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NothingJudgedError, match=f"{name} is damaged: not ") as raised:
            read(tmp_path)
        assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for name, read in ((ENDING_FILE, read_ending), (BASELINE_FILE, read_baseline)):
        (tmp_path / name).mkdir()
        with pytest.raises(NothingJudgedError, match=f"{name} cannot be read"):
            read(tmp_path)
