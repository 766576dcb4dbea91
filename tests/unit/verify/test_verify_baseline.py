"""The baseline: what it keeps, as a file too, and when it cannot be taken."""

from dataclasses import replace
from pathlib import Path

import pytest
from rig.sale_world import World

from flashsale.errors import NothingJudgedError
from flashsale.run.folder import BASELINE_FILE
from flashsale.verify.observation import Position, baseline_of, from_json, read_baseline
from flashsale.verify.queue import Backlog, Queue


@pytest.fixture
def world() -> World:
    """One live order, one cancelled, one queued, one user out of step."""
    world = World(units=10)
    world.sell(1, 101)
    world.sell(2, 102)
    world.end(102)
    world.sell_in_ledger(3, 2**63 - 1)
    world.members.add(4)
    return world


def test_orders_are_known_by_id(world: World) -> None:
    sale = baseline_of(world.observation()).sales[1]
    assert (sale.live, sale.ended, sale.queued) == ({101}, {102}, {2**63 - 1})
    assert sale.unsettled == {3, 4}
    assert all(map(sale.knows, (101, 102, 2**63 - 1)))
    assert not sale.knows(103)


def test_what_was_off_is_kept(world: World) -> None:
    sale = baseline_of(world.observation()).sales[1]
    assert (sale.mysql_drift, sale.redis_drift) == (0, -1)


def test_a_receipt_of_another_order_than_the_row_is_unsettled(world: World) -> None:
    world.receipts[1] = 999
    assert 1 in baseline_of(world.observation()).sales[1].unsettled


def test_as_a_file_nothing_is_lost(world: World, tmp_path: Path) -> None:
    queue = Queue(exists=True, last_entry="7-1", trimmed=2, dead_last="3-0")
    before = baseline_of(world.observation(queue))
    assert from_json(before.to_json()) == before
    assert before.position == Position("7-1", "3-0")
    (tmp_path / BASELINE_FILE).write_bytes(before.to_json())
    assert read_baseline(tmp_path) == before


def test_order_ids_are_text_in_the_file(world: World) -> None:
    assert b'"9223372036854775807"' in baseline_of(world.observation()).to_json()


def test_a_sale_that_no_store_has_is_kept_as_such(world: World) -> None:
    world.mysql = None
    world.ledger = {}
    before = baseline_of(world.observation())
    assert before.sales[1].mysql is None
    assert from_json(before.to_json()) == before


def test_there_may_be_none(tmp_path: Path) -> None:
    assert read_baseline(tmp_path) is None


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"schema":2}', b'{"schema":1}'])
def test_a_file_that_is_none_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / BASELINE_FILE).write_bytes(text)
    with pytest.raises(NothingJudgedError, match="not a baseline of schema 1"):
        read_baseline(tmp_path)


def test_a_sale_on_the_move_has_no_before(world: World) -> None:
    with pytest.raises(NothingJudgedError, match="moves already"):
        baseline_of(world.observation(still=False))


def test_queued_orders_are_known_by_their_receipts_or_not_at_all(world: World) -> None:
    queued = Queue(exists=True, backlog=Backlog(undelivered=1))
    assert baseline_of(world.observation(queued)).sales[1].queued
    observation = world.observation(queued)
    bare = replace(observation.ledger[1], has_terms=False, receipts={})
    with pytest.raises(NothingJudgedError, match="still queued"):
        baseline_of(replace(observation, ledger={1: bare}))
