"""The addresses of a target: tried in turn, one for the whole storm, named in errors."""

import asyncio
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvloop
from rig.scripted_sale import SOLD_OUT, Act, Claim, ScriptedSale, http

from flashsale.errors import UnreachableError
from flashsale.run.folder import create_run_folder
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.target import Routes, Target
from flashsale.storm.attack.questions import preflight
from flashsale.storm.storm import Assignment, storm

FIVE = """schema = 1
name = "tiny"
[sale]
units = 1
[load]
model = "stampede"
users = 5
connections = 5
[timeouts]
claim_ms = 1
barrier_ms = {barrier_ms}
"""


def test_one_address_of_several_is_chosen_for_the_preflight_and_all_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the name's first address nobody listens; questions afterwards go to the second, too."""

    def act(claim: Claim) -> Act:
        if claim.method == "GET":
            return Act(http(200, b'{"success":true,"data":{"state":"none"}}'))
        return Act(then="close") if claim.number == 0 else Act(SOLD_OUT)

    with ScriptedSale(act).open() as sale:
        port = Target.at(sale.base_url).port
        found = [(0, 0, 0, "", (address, port)) for address in ("127.0.0.77", "127.0.0.1")]
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: found)
            named = Target.at(f"http://shop.test:{port}")
        chosen = preflight(named, Routes(), "token-1")
        folder = create_run_folder("tiny", tmp_path / "named", datetime.now(UTC))
        scenario = parse_scenario(FIVE.format(barrier_ms=5_000), "tiny")
        assignment = Assignment(scenario, chosen.target, folder)
        tokens = {user: f"token-{user}" for user in range(1, 6)}
        load = storm(assignment, tokens, lambda _: None).summary.load
    assert (load.sent, load.resolved) == (5, 1)
    assert len(sale.claims) == 5


def test_connections_that_do_not_stand_name_the_address(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    target = Target("http://shop.test", "shop.test", "", ("127.0.0.1",), port)
    scenario = parse_scenario(FIVE.format(barrier_ms=100), "tiny")
    folder = create_run_folder("tiny", tmp_path / "named", datetime.now(UTC))
    with pytest.raises(UnreachableError, match=r"http://shop\.test \(127\.0\.0\.1\) stood after"):
        storm(Assignment(scenario, target, folder), dict.fromkeys(range(6), "t"), lambda _: None)


def link_local() -> str | None:
    """A link-local address of this machine with its scope, None where it has none."""
    table = Path("/proc/net/if_inet6")
    for line in table.read_text().splitlines() if table.exists() else ():
        packed, index, _, scope, _, _ = line.split()
        if scope == "20":
            address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(packed))
            return f"{address}%{int(index, 16)}"
    return None


@pytest.mark.skipif(link_local() is None, reason="no link-local address")
def test_a_link_local_address_is_reached_by_its_scope() -> None:
    """As both of the storm's clients reach it: the connections' loop, and the preflight's."""
    where = link_local()
    assert where is not None
    found = socket.getaddrinfo(where, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(found[0], found[1]) as listening:
        listening.bind(found[4])
        listening.listen()
        target = Target.at(f"http://[{where}]:{listening.getsockname()[1]}")
        assert target.address == where

        async def reach() -> None:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(
                asyncio.Protocol, target.address, target.port
            )
            transport.abort()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(reach())
        assert not preflight(target, Routes(health="", session="")).is_known
