"""The routes of orders, with and without strangers who ask for the dearest pages there are."""

import asyncio
import csv
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.system import System, system
from benchmarks.table import Section, spread

SHOPS, USERS = 60_000, 6_000
RATE, SECONDS = 100, 8
SEARCHES, DEEP_PAGES = 40, 20
"""Requests a second of strangers: names that nobody asked for before, and the last page near a
place that nobody stood at before. The report that this goes back to had 19 searches a second."""
RATIO_LIMIT = 1.5
_WARMING_S = 3.0
_SELLING, _SOLD = 1, 2
_WORDS = ("tea", "house", "noodle", "river", "lotus", "garden", "street", "e", "an", "shop 5")


@dataclass
class Door:
    """Some connections to the sale."""

    host: str
    port: int
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def ask(self, method: str, path: str, token: str = "") -> tuple[int, bytes]:
        """Status and head of one answer, read to its end."""
        if not self.idle:
            self.idle.append(await asyncio.open_connection(self.host, self.port))
        reader, writer = self.idle.pop()
        writer.write(
            f"{method} {path} HTTP/1.1\r\nhost: sale\r\nauthorization: {token}\r\n"
            "content-length: 0\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-len")),
            b"0",
        )
        await reader.readexactly(int(length))
        self.idle.append((reader, writer))
        return int(head[9:12]), head

    def close(self) -> None:
        """Close them all."""
        for _, writer in self.idle:
            writer.close()


@dataclass
class Phase:
    """What a few seconds came to, latencies from the planned instant."""

    orders_ms: list[float] = field(default_factory=list)
    pages_ms: list[float] = field(default_factory=list)
    failed: int = 0  # answers to order routes that were not 200
    refused: int = 0  # pages that were 503


def measure(runs: int) -> Section:
    """`runs` times a few seconds of orders alone, and of orders beside the strangers, in turn."""
    section = Section(
        f"dear reads: {RATE} order requests/s; beside them {SEARCHES} searches/s of {SHOPS:,} "
        f"names and {DEEP_PAGES} last pages/s near a place"
    )
    with system() as stack:
        goods = ("--vouchers", "2", "--units", str(2 * USERS), "--shops", str(SHOPS))
        stack.flashsale("seed", "--users", str(USERS), *goods)
        stack.flashsale("warm")
        alone, beside = asyncio.run(_phases(stack, runs))
    p99s = [[_p99(phase.orders_ms) for phase in phases] for phases in (alone, beside)]
    for what, phases, found in zip(("alone", "beside"), (alone, beside), p99s, strict=True):
        section.add(f"orders {what}: p99, ms", spread(found, 1))
        failed = sum(phase.failed for phase in phases)
        section.add(f"orders {what}: not 200", str(failed), "0", failed == 0)
    whole = [_p99([ms for phase in phases for ms in phase.orders_ms]) for phases in (alone, beside)]
    ratio = whole[1] / whole[0]
    told = f"{ratio:.2f} × ({whole[1]:.1f} of {whole[0]:.1f} ms)"
    section.add("p99 of all, beside to alone", told, f"≤ {RATIO_LIMIT:g} ×", ratio <= RATIO_LIMIT)
    pages = [ms for phase in beside for ms in phase.pages_ms]
    section.add("strangers' pages: p99, ms", f"{_p99(pages):.1f}")
    refused = sum(phase.refused for phase in beside)
    section.add("strangers' pages: 503", f"{refused} of {len(pages)}")
    return section


async def _phases(stack: System, runs: int) -> tuple[list[Phase], list[Phase]]:
    address = urlsplit(stack.state.base_url)
    doors = [Door(address.hostname or "", address.port or 80) for _ in range(2)]
    with (stack.folder / "tokens.csv").open() as file:
        tokens = [row["token"] for row in csv.DictReader(file)]
    orders = _orders(doors[0], iter(tokens), await _bought(doors[0], tokens))
    strangers = _strangers(doors[1])
    for _ in range(SEARCHES):  # names are read, the geo indexes are made
        await doors[1].ask(*next(strangers))
    await asyncio.sleep(_WARMING_S)
    alone, beside = [], []
    for _ in range(runs):
        alone.append(await _phase(orders, doors[1], strangers, attacked=False))
        beside.append(await _phase(orders, doors[1], strangers, attacked=True))
    for door in doors:
        door.close()
    return alone, beside


async def _bought(door: Door, tokens: list[str]) -> list[tuple[str, str]]:
    """Orders to be paid: token and order id, of everybody who bought one before the clock."""
    bought = []
    for token in tokens:
        status, head = await door.ask("POST", f"/voucher-order/seckill/{_SOLD}", token)
        assert status == 200, head
        _, _, rest = head.partition(b"x-order-id: ")
        bought.append((token, rest.split(b"\r\n")[0].decode()))
    return bought


def _orders(
    door: Door, buyers: Iterator[str], bought: list[tuple[str, str]]
) -> Iterator[Callable[[], Awaitable[tuple[int, bytes]]]]:
    """Claim, ask for one's own, ask for an order, pay it: in turn, each of somebody else."""
    for token, order in itertools.cycle(bought):
        claim = next(buyers, None)
        if claim is not None:
            yield lambda t=claim: door.ask("POST", f"/voucher-order/seckill/{_SELLING}", t)  # type: ignore[misc]
        yield lambda t=token: door.ask("GET", f"/voucher-order/seckill/{_SOLD}", t)  # type: ignore[misc]
        yield lambda t=token, o=order: door.ask("GET", f"/voucher-order/{o}", t)  # type: ignore[misc]
        yield lambda t=token, o=order: door.ask("POST", f"/voucher-order/{o}/pay", t)  # type: ignore[misc]


def _strangers(door: Door) -> Iterator[tuple[str, str]]:
    """Searches and pages, as many of each as the constants say, none of them twice."""
    drawn = random.Random(1)
    kinds = ["name"] * SEARCHES + ["near"] * DEEP_PAGES
    for number in itertools.count():
        if drawn.choice(kinds) == "name":
            name = f"{drawn.choice(_WORDS)}%20{drawn.choice(_WORDS)}%20{number}"
            yield "GET", f"/shop/of/name?name={name}"
        else:
            x, y = drawn.uniform(119, 121), drawn.uniform(29, 31)
            place = f"typeId={drawn.randint(1, 10)}&x={x:.6f}&y={y:.6f}"
            yield "GET", f"/shop/of/type?{place}&current=100"


async def _phase(
    orders: Iterator[Callable[[], Awaitable[tuple[int, bytes]]]],
    door: Door,
    strangers: Iterator[tuple[str, str]],
    *,
    attacked: bool,
) -> Phase:
    phase = Phase()
    loop = asyncio.get_running_loop()
    start_s = loop.time() + 0.1

    async def order(planned_s: float) -> None:
        ask = next(orders)
        await asyncio.sleep(planned_s - loop.time())
        status, _ = await ask()
        phase.orders_ms.append((loop.time() - planned_s) * 1e3)
        phase.failed += status != 200

    async def page(planned_s: float) -> None:
        asked = next(strangers)
        await asyncio.sleep(planned_s - loop.time())
        status, _ = await door.ask(*asked)
        phase.pages_ms.append((loop.time() - planned_s) * 1e3)
        phase.refused += status == 503

    dear = (SEARCHES + DEEP_PAGES) if attacked else 0
    await asyncio.gather(
        *(order(start_s + n / RATE) for n in range(RATE * SECONDS)),
        *(page(start_s + n / dear) for n in range(dear * SECONDS)),
    )
    return phase


def _p99(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
