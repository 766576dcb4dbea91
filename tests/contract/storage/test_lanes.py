"""A ledger on a Redis Cluster, by lanes: each is led to its master, follows when that moves, and
does nothing while its slot is on the way."""

import pytest
from redis import Redis
from rig.clustered import Clustered
from rig.until import until

from flashsale.errors import Unavailable, UsageError
from flashsale.keys import CLUSTER, Lane
from flashsale.lua.scripts import Call, script
from flashsale.primaries import Topology
from flashsale.storage.channel import Channel, Plain
from flashsale.storage.lanes import LaneChannels
from flashsale.storage.roles import Ledgers, async_client, call, evaluate, sync_client
from flashsale.store_urls import LaneClient, lane_of

TRIM = script("stream_trim")


def load(lane: Lane, voucher: int) -> Call:
    names = (
        *(lane.seckill_stock(voucher), lane.seckill_sale(voucher), lane.seckill_order(voucher)),
        *(lane.seckill_receipt(voucher), lane.loaded_sales),
    )
    return Call(script("sale_load"), names, (voucher, 5, 1, 2, 0, "open"))


def stock(client: Redis, voucher: int) -> object:
    return call(client.get, lane_of(client).seckill_stock(voucher))


def test_each_lanes_client_is_at_its_master(cluster: Clustered) -> None:
    ledgers = Ledgers.at(cluster.url)
    run_ids = set()
    for client, lane in zip(ledgers.clients, CLUSTER.lanes, strict=True):
        assert isinstance(client, LaneClient)
        assert lane_of(client) is lane
        pipeline = client.pipeline(transaction=True)
        pipeline.info("server")
        pipeline.set(lane.epoch, lane.number)
        run_ids.add(pipeline.execute()[0]["run_id"])
    assert len(run_ids) == 3, "six lanes, three masters"
    held = [client.get(lane_of(client).epoch) for client in ledgers.clients]
    assert held == ["0", "1", "2", "3", "4", "5"]
    ledgers.close()


def test_a_node_that_is_reached_elsewhere_is_asked_there_alone(cluster: Clustered) -> None:
    own = [f"{place.host}:{place.port}" for place in cluster.places]
    masters = Topology(cluster.url, {own[1]: "127.0.0.1:4711"})
    for lane in CLUSTER.lanes:
        node = cluster.node_of(lane)
        host, port = masters.place(lane)
        assert f"{host}:{port}" == ("127.0.0.1:4711" if node == 1 else own[node])


def test_a_client_of_one_server_refuses_a_cluster(cluster: Clustered) -> None:
    for client in (sync_client, async_client):
        with pytest.raises(UsageError, match="it is a cluster's, which this does not know yet"):
            client(cluster.url)


def test_a_lane_that_has_moved_is_found_again(cluster: Clustered) -> None:
    """What is told MOVED was not done, so it is unavailable; the next call is at the new master."""
    ledgers = Ledgers.at(cluster.url)
    lane = CLUSTER.of(1)
    client = ledgers.of(1)
    assert evaluate(client, load(lane, 1)) == 1
    cluster.move(lane, (cluster.node_of(lane) + 1) % 3)
    with pytest.raises(Unavailable, match=r"MOVED|[0-9]+ 127\.0\.0\.1"):
        call(client.get, lane.seckill_stock(1))
    assert stock(client, 1) == "5"
    assert evaluate(client, load(lane, 1)) == 0
    ledgers.close()


@pytest.mark.anyio
async def test_a_batch_follows_its_lane_by_itself(cluster: Clustered) -> None:
    lane = CLUSTER.of(2)
    channel = Channel(cluster.url, connections_max=2, timeout_s=5, lane=lane)
    assert await channel.run([load(lane, 2)]) == [1]
    assert await channel.run([load(lane, 2), Plain(("GET", lane.seckill_stock(2)))]) == [0, "5"]
    cluster.move(lane, (cluster.node_of(lane) + 1) % 3)
    assert await channel.run([load(lane, 8), load(lane, 2)]) == [1, 0], "the script went along"
    assert await channel.ask("GET", lane.seckill_stock(8)) == "5"
    await channel.aclose()


@pytest.mark.anyio
async def test_nothing_is_done_while_a_slot_is_on_its_way(cluster: Clustered) -> None:
    """At its old master keys may have gone (ASK), or some of them (TRYAGAIN): refused, and so is
    certain not to be done. What is still there whole is done."""
    lane = CLUSTER.of(3)
    channel = Channel(cluster.url, connections_max=1, timeout_s=5, lane=lane)
    await channel.run([load(lane, 3)])
    to = (cluster.node_of(lane) + 1) % 3
    source = cluster.begin_move(lane, to)
    assert await channel.ask("GET", lane.seckill_stock(3)) == "5"
    (reply,) = await channel.run([load(lane, 3)])
    assert isinstance(reply, Unavailable), "a key that is not there may be at the other end"
    assert cluster.move_keys(lane, source, to) == 3
    with pytest.raises(Unavailable):
        await channel.ask("GET", lane.seckill_stock(3))
    (reply,) = await channel.run([load(lane, 9)])
    assert isinstance(reply, Unavailable)
    cluster.end_move(lane, to)
    assert await channel.run([load(lane, 9), load(lane, 3)]) == [1, 0]
    await channel.aclose()


@pytest.mark.anyio
async def test_calls_find_their_lanes_by_their_keys(cluster: Clustered) -> None:
    ledger = LaneChannels(cluster.url, connections_max=1, timeout_s=5)
    lanes = CLUSTER.lanes
    for voucher in range(1, 7):
        assert await ledger.evaluate(load(CLUSTER.of(voucher), voucher)) == 1
    told = await ledger.ask_all([("SMEMBERS", lane.loaded_sales) for lane in lanes])
    assert [set(some) for some in told] == [{str(lane.number or 6)} for lane in lanes]
    replies = await ledger.ask_all(
        [("MULTI",), ("INCR", lanes[1].lock_fence), ("GET", lanes[1].epoch), ("EXEC",)]
    )
    assert replies[-1] == [1, None]
    with pytest.raises(Unavailable, match="no lane"):
        await ledger.ask("GET", "of-no-lane")
    await ledger.aclose()


def test_a_slot_without_a_master_is_unavailable(cluster: Clustered) -> None:
    lane = CLUSTER.of(4)
    client = Ledgers.at(cluster.url).of(4)
    call(client.set, lane.epoch, "1")
    node = cluster.node_of(lane)
    with cluster.without_slot(lane), pytest.raises(Unavailable):
        call(client.get, lane.epoch)
    until(lambda: cluster.node_of(lane) == node)
    until(lambda: _answers(client, lane))
    client.close()


def _answers(client: Redis, lane: Lane) -> bool:
    try:
        return call(client.get, lane.closed) is None
    except Unavailable:
        return False
