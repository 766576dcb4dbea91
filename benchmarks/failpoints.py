"""What failpoints cost a claim: the claim path as it is, and as it would be without them, in turn.

Both run in this process on a ledger of its own: gate, batch, channel and replies are the replica's,
and this process' CPU alone is counted. Without them means that the module was compiled again with
every statement that reaches a point left out.
"""

import ast
import asyncio
import gc
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from timeit import repeat
from types import ModuleType
from typing import Any

import uvloop
from redis import Redis

from benchmarks.table import Section, spread
from flashsale import keys
from flashsale.failpoints import reach
from flashsale.model import Outcome
from flashsale.seckill import claims as as_it_is
from flashsale.settings import ClaimSettings, SessionSettings
from flashsale.stack.redis import RedisRole, RedisServer

LIMIT = 1.01
_TIMES = 100_000
_TURNS = 40  # a run: a pair each, which of the two goes first changes
_VOUCHER, _USERS, _TOGETHER = 1, 2_000, 20
"""Claims of a turn, and how many leave together in a storm, as `benchmarks whole` finds them."""


def measure(runs: int) -> Section:
    """CPU of a claim with failpoints and without, and their quotient."""
    section = Section(f"Failpoints: a claim with and without, {runs} runs of {_TURNS} pairs")
    without = without_failpoints(as_it_is)
    with (
        TemporaryDirectory() as folder,
        RedisServer(RedisRole.LEDGER, Path(folder)) as server,
        Redis.from_url(server.url) as ledger,
    ):
        ledger.config_set("appendfsync", "no")  # nobody's CPU but waited for
        pairs = uvloop.run(_pairs(server.url, ledger, without, runs * _TURNS))
    section.add("CPU of a claim, failpoints off, µs", spread([it.off_us for it in pairs], 2))
    section.add("… failpoints compiled out, µs", spread([it.out_us for it in pairs], 2))
    quotients = [it.off_us / it.out_us for it in pairs]
    section.add("quotient of a pair", spread(quotients, 4))
    least = _least(pairs)
    section.add("… of the least of each", f"{least:.4f} ×", f"≤ {LIMIT} ×", least <= LIMIT)
    reached_us = _reached_us()
    section.add("the two points of a batch by themselves, µs", f"{reached_us:.3f}")
    section.notes += [
        f"{_USERS:,} claims a turn, {_TOGETHER} at a time, each user's first: all sold",
        "CPU of this process alone: gate, batch, channel and replies, without HTTP",
    ]
    return section


@dataclass(frozen=True)
class Pair:
    """CPU of a claim in two turns next to each other, µs."""

    off_us: float
    out_us: float


def without_failpoints(module: ModuleType) -> ModuleType:
    """The same module, compiled without the statements that reach a point. Raises ValueError where
    there were none."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    stripping = _Stripping()
    tree = ast.fix_missing_locations(stripping.visit(tree))
    if not stripping.left_out:
        raise ValueError(f"{module.__name__} reaches no failpoint")
    spec = importlib.util.spec_from_loader(f"{module.__name__}_without", loader=None)
    assert spec is not None
    other = importlib.util.module_from_spec(spec)
    exec(compile(tree, module.__file__, "exec"), other.__dict__)  # noqa: S102 - our own source
    return other


class _Stripping(ast.NodeTransformer):
    """Leaves out `reach(…)` where it is a statement of its own."""

    left_out = 0

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        call = node.value
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "reach":
            self.left_out += 1
            return None
        return node


async def _pairs(url: str, ledger: "Redis", without: ModuleType, count: int) -> list[Pair]:
    ways = [_claims(as_it_is, url), _claims(without, url)]
    try:
        for way in ways:  # connected, ids leased, the script known
            await _turn_us(way, ledger)
        found = []
        for turn in range(count):
            order = (0, 1) if turn % 2 else (1, 0)
            took_us = {which: await _turn_us(ways[which], ledger) for which in order}
            found.append(Pair(took_us[0], took_us[1]))
        return found
    finally:
        for way in ways:
            await way.aclose()


def _claims(module: ModuleType, url: str) -> Any:
    """The claim service that this module makes."""
    return module.Claims(url, ClaimSettings(), SessionSettings())


async def _turn_us(claims: Any, ledger: "Redis") -> float:
    """CPU of a claim of this turn, µs."""
    _open(ledger)
    gc.collect()
    gc.disable()
    try:
        began_s = process_time()
        for first in range(0, _USERS, _TOGETHER):
            users = range(first, first + _TOGETHER)
            told = await asyncio.gather(*(claims.claim(_VOUCHER, _session(user)) for user in users))
        took_s = process_time() - began_s
    finally:
        gc.enable()
    assert all(answer.outcome is Outcome.SOLD for answer in told), f"not all were sold: {told}"
    return took_s / _USERS * 1e6


def _open(ledger: "Redis") -> None:
    """A sale with a unit for each user, and a session for each, on an empty ledger."""
    ledger.flushall()
    terms: Any = {"begin": 0, "end": 2**42, "state": "open", "initial": _USERS}
    with ledger.pipeline(transaction=False) as together:
        together.set(keys.seckill_stock(_VOUCHER), _USERS)
        together.hset(keys.seckill_sale(_VOUCHER), mapping=terms)
        together.sadd(keys.LOADED_SALES, _VOUCHER)
        for user in range(_USERS):
            together.hset(_session(user), mapping={"id": user + 1})
            together.expire(_session(user), 3600)
        together.execute()


def _session(user: int) -> str:
    return keys.login_token(f"token-{user}")


def _least(pairs: list[Pair]) -> float:
    return min(it.off_us for it in pairs) / min(it.out_us for it in pairs)


def _reached_us() -> float:
    """Of the two points that a batch passes, together, µs."""

    def both() -> None:
        reach("claim.sending")
        reach("claim.answered")

    return min(repeat(both, number=_TIMES)) / _TIMES * 1e6
