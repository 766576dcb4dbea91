"""Strangers who post what nobody reads, beside buyers: nginx keeps connections that both use."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis
from rig.child import START_TIMEOUT_S, answers, child, free_port
from rig.http_client import Client
from rig.sale import open_sale, permit, sign_in, sold
from rig.until import until

from flashsale.stack.nginx import Balancing, NginxServer
from flashsale.stack.redis import RedisServer
from flashsale.storage.roles import sync_client

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

BUYERS, CLAIMS_EACH = 50, 100
STRANGERS = 24
EARLY = {  # routes that answer before they have read a body
    "POST /nowhere": 404,
    "GET /healthz": 200,
    "PUT /voucher-order/seckill/1": 405,
    "POST /voucher-order/seckill/x": 400,
    "POST /user/login": 415,
    "POST /shop": 401,
    "DELETE /shop-type/list": 405,
}


@pytest.fixture
def shop(own_ledger: RedisServer, tmp_path: Path) -> Iterator[tuple[int, Redis]]:
    """Two replicas behind nginx, whose sale has a unit for each claim; its port, and the ledger."""
    nowhere = "mysql+pymysql://u:p@127.0.0.1:1/flashsale"
    stores = ("--ledger-url", own_ledger.url, "--cache-url", own_ledger.url, "--mysql-url", nowhere)
    with ExitStack() as up, sync_client(own_ledger.url) as ledger:
        users = BUYERS * CLAIMS_EACH
        open_sale(ledger, units=users)
        permit(ledger)
        sign_in(ledger, *range(1, users + 1))
        ports = [up.enter_context(free_port()) for _ in "12"]
        for port in ports:
            command = ("replica", "--port", str(port), "--name", f"r{port}", *stores)
            up.enter_context(child(tmp_path / f"{port}.log", *command))
        until(lambda: all(map(answers, ports)), START_TIMEOUT_S)
        folder = tmp_path / "nginx"
        nginx = up.enter_context(NginxServer(folder, Balancing(replica_ports=tuple(ports))))
        yield nginx.port.number, ledger
        for log in tmp_path.glob("*.log"):
            assert "Traceback" not in log.read_text()


async def test_bodies_that_nobody_reads_cost_no_claim_of_others(shop: tuple[int, Redis]) -> None:
    """5,000 claims over 50 connections, while 24 strangers post 40 to 60 kB each, without rest."""
    port, ledger = shop
    told: Counter[tuple[str, int]] = Counter()
    is_over = asyncio.Event()
    strangers = [asyncio.ensure_future(_post_on(port, n, told, is_over)) for n in range(STRANGERS)]
    claims = await asyncio.gather(*(_claim(port, n) for n in range(BUYERS)))
    is_over.set()
    await asyncio.gather(*strangers)
    found = Counter(status for each in claims for status in each)
    assert found.keys() <= {200, 503}, "a busy machine may shed; no connection was lost"
    assert found[200] > BUYERS * CLAIMS_EACH // 2
    assert len(sold(ledger)) == found[200]
    assert {route for route, _ in told} == set(EARLY), "each was asked"
    assert {route: status for route, status in told if status != EARLY[route]} == {}


async def _claim(port: int, buyer: int) -> list[int]:
    client = await Client.at(port)
    statuses = []
    for user in range(buyer * CLAIMS_EACH + 1, (buyer + 1) * CLAIMS_EACH + 1):
        head = f"POST /voucher-order/seckill/1 HTTP/1.1\r\nHost: x\r\nAuthorization: token-{user}"
        await client.say(f"{head}\r\nContent-Length: 0\r\n\r\n".encode())
        answer = await client.hear(within_s=20)
        statuses.append(answer.status)
        assert answer.status != 200 or json.loads(answer.body)["success"] is True, answer
    client.leave()
    return statuses


async def _post_on(
    port: int, stranger: int, told: Counter[tuple[str, int]], is_over: asyncio.Event
) -> None:
    client = await Client.at(port)
    number = stranger
    while not is_over.is_set():
        route = list(EARLY)[number % len(EARLY)]
        body = b"x" * (40_000 + 997 * number % 20_000)
        length = "Transfer-Encoding: chunked" if number % 3 == 0 else f"Content-Length: {len(body)}"
        framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if number % 3 == 0 else body
        await client.say(f"{route} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode() + framed)
        answer = await client.hear(within_s=20)
        told[route, answer.status] += 1
        if answer.headers.get("connection") == "close":
            client.leave()
            client = await Client.at(port)
        number += 1
    client.leave()
