"""Where a relay finds the servers of a stack."""

from dataclasses import replace

import pytest

from flashsale.faults.relay import Upstream, upstream_of
from flashsale.stack.state import ChildState, StackState


def child(name: str, port: int) -> ChildState:
    return ChildState(name, "redis-ledger", 1, port, None, "", 0)


SERVER = StackState(
    schema=1,
    pid=1,
    started_at="",
    ready=True,
    base_url="",
    ledger_url="unix:///s/ledger.sock",
    cache_url="redis://127.0.0.1:2/0",
    mysql_url="mysql://root@localhost/sale?unix_socket=/s/mysql.sock",
    children=(child("r1", 8001),),
)
PAIR = replace(
    SERVER,
    ledger_url="redis+sentinel://127.0.0.1:10,127.0.0.1:11/ledger/0",
    children=(child("ledger", 7001), child("ledger-2", 7002)),
)


@pytest.mark.parametrize(
    ("state", "server", "place"),
    [
        (SERVER, "ledger", "/s/ledger.sock"),
        (SERVER, "cache", ("127.0.0.1", 2)),
        (SERVER, "r1", ("127.0.0.1", 8001)),
        (PAIR, "ledger", ("127.0.0.1", 7001)),
        (PAIR, "ledger-2", ("127.0.0.1", 7002)),
        (PAIR, "ledger-3", None),
        (None, "ledger", None),
    ],
)
def test_each_server_is_found_and_behind_sentinels_each_node_by_its_name(
    state: StackState | None, server: str, place: Upstream | None
) -> None:
    assert upstream_of(server, state) == place
