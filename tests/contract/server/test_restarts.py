"""Replicas that are told to end, and started again, while buyers claim over kept connections.

Whoever is answered was told the truth; whoever is not, or is to come again, has bought nothing.
"""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from redis import Redis
from rig.child import START_TIMEOUT_S, Child, answers, child, free_port
from rig.http_client import Client
from rig.sale import open_sale, permit, sign_in, sold
from rig.until import eventually, until

from flashsale.stack.nginx import Balancing, NginxServer
from flashsale.stack.redis import RedisServer
from flashsale.storage.roles import sync_client

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]

NOWHERE = "mysql+pymysql://u:p@127.0.0.1:1/flashsale"
BUYERS, USERS, RESTARTS = 20, 60_000, 3
REST_S = 0.03
"""Between a buyer's claims, so that users last for a minute and a half of restarts."""
ANSWER_S = 20.0
LOOKS_AGAIN_S = 2.5
"""nginx leaves a replica that refused three connections alone for two seconds (`fail_timeout`)."""


class Told(NamedTuple):
    """What one user heard: a status; where the connection ended, 0 or less, by what it cut."""

    user: int
    status: int
    order: int


class Front:
    """Places for two replicas and for nginx before both, and their ledger."""

    def __init__(self, folder: Path, ledger_url: str, ledger: Redis, ports: list[int]) -> None:
        self.ledger, self.ports = ledger, ports
        self.folder = folder
        self._stores = (
            "--ledger-url",
            ledger_url,
            "--cache-url",
            ledger_url,
            "--mysql-url",
            NOWHERE,
        )
        self.ended: list[Child] = []

    @contextmanager
    def replica(self, port: int) -> Iterator[Child]:
        """One, once it answers."""
        log = self.folder / f"{port}-{len(self.ended)}.log"
        command = ("replica", "--port", str(port), "--name", f"r{port}", *self._stores)
        with child(log, *command) as running:
            until(lambda: answers(port) or running.process.poll() is not None, START_TIMEOUT_S)
            yield running
            self.ended.append(running)

    async def restart(self, up: ExitStack, running: Child, port: int) -> Child:
        """End it as a supervisor would, and start another in its place."""
        running.tell(signal.SIGTERM)
        assert await asyncio.to_thread(running.ended, 30.0) == 0
        return await asyncio.to_thread(up.enter_context, self.replica(port))


@pytest.fixture
def front(own_ledger: RedisServer, tmp_path: Path) -> Iterator[Front]:
    with ExitStack() as up, sync_client(own_ledger.url) as ledger:
        open_sale(ledger, units=USERS)
        permit(ledger)
        sign_in(ledger, *range(1, USERS + 1))
        ports = [up.enter_context(free_port()) for _ in "12"]
        yield Front(tmp_path, own_ledger.url, ledger, ports)
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text()


async def test_through_nginx_every_claim_is_answered(front: Front) -> None:
    """One replica of two at a time: buyers notice nothing but, at most, that it is busy."""
    with ExitStack() as up:
        replicas = [up.enter_context(front.replica(port)) for port in front.ports]
        balancing = Balancing(replica_ports=tuple(front.ports))
        nginx = up.enter_context(NginxServer(front.folder / "nginx", balancing))
        over, told = asyncio.Event(), list[Told]()
        buyers = [
            asyncio.ensure_future(_buy(nginx.port.number, n, over, told)) for n in range(BUYERS)
        ]
        for number in range(RESTARTS):
            await _heard(told, 300)
            at = number % 2
            replicas[at] = await front.restart(up, replicas[at], front.ports[at])
            await asyncio.sleep(LOOKS_AGAIN_S)
        await _heard(told, 300)
        over.set()
        await asyncio.gather(*buyers)
    statuses = Counter(one.status for one in told)
    assert statuses.keys() <= {200, 503}, "no connection was lost, nothing was half done"
    assert statuses[200] > 4 * 300 / 2
    _assert_true(told, front.ledger)


async def test_directly_nothing_is_done_unheard(front: Front) -> None:
    """The only replica: while it is gone nobody is heard, and nobody has bought unheard."""
    (port, _) = front.ports
    with ExitStack() as up:
        replica = up.enter_context(front.replica(port))
        over, told = asyncio.Event(), list[Told]()
        buyers = [asyncio.ensure_future(_buy(port, n, over, told)) for n in range(BUYERS)]
        for _ in range(RESTARTS):
            await _heard(told, 300)
            replica = await front.restart(up, replica, port)
        await _heard(told, 300)
        over.set()
        await asyncio.gather(*buyers)
    assert Counter(one.status for one in told).keys() <= {0, 200, 503}
    _assert_true(told, front.ledger)


def _assert_true(told: list[Told], ledger: Redis) -> None:
    receipts = {int(user): int(order) for user, order in sold(ledger).items()}
    assert {one.user: one.order for one in told if one.status == 200} == receipts
    assert len({one.user for one in told}) == len(told), "each user asked once"


async def _heard(told: list[Told], more: int) -> None:
    """Until so many more were answered."""
    least = sum(one.status == 200 for one in told) + more
    await eventually(lambda: sum(one.status == 200 for one in told) >= least, 60)


async def _buy(port: int, buyer: int, over: asyncio.Event, told: list[Told]) -> None:
    """Claim for one user after the other over one connection, and a new one where that ended."""
    client: Client | None = None
    user = buyer + 1
    while not over.is_set() and user <= USERS:
        try:
            client = client or await Client.at(port)
        except OSError:  # nobody there: nothing was asked
            await asyncio.sleep(0.02)
            continue
        status, order, stays = await _claim(client, user)
        told.append(Told(user, status, order))
        user += BUYERS
        await asyncio.sleep(REST_S)
        if not stays:
            client.leave()
            client = None
    if client is not None:
        client.leave()


async def _claim(client: Client, user: int) -> tuple[int, int, bool]:
    head = f"POST /voucher-order/seckill/1 HTTP/1.1\r\nHost: x\r\nAuthorization: token-{user}"
    try:
        await client.say(f"{head}\r\nContent-Length: 0\r\n\r\n".encode())
        answer = await client.hear(within_s=ANSWER_S)
    except asyncio.IncompleteReadError as end:
        return -len(end.partial), 0, False
    except OSError:
        return 0, 0, False
    body = json.loads(answer.body)
    stays = answer.headers.get("connection") != "close"
    return answer.status, body.get("data", 0), stays
