"""What each choice of durability costs a claim: batches of claims on a ledger of each, in turn."""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from redis import Redis

from benchmarks.table import Section, median, spread
from flashsale import keys
from flashsale.doctor.policies import LOSS
from flashsale.lua.scripts import script
from flashsale.model import Durability
from flashsale.stack.redis import RedisRole, RedisServer

BATCHES, CLAIMS = 400, 50
_DEADLINE_MS = 4_102_444_800_000
_VOUCHER = 1
_KEYS = (
    keys.seckill_stock(_VOUCHER),
    keys.seckill_order(_VOUCHER),
    keys.seckill_receipt(_VOUCHER),
    keys.seckill_sale(_VOUCHER),
    keys.STREAM_ORDERS,
)


def measure(runs: int) -> Section:
    """`runs` times on each ledger: batches one after another, of one claim and of fifty."""
    section = Section("durability: seckill.lua on a ledger of each choice, one call after another")
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as folder, ExitStack() as up:
        ledgers = {
            choice: up.enter_context(_ledger(Path(folder, choice), choice)) for choice in Durability
        }
        for claims in (1, CLAIMS):
            took = {choice: list[float]() for choice in Durability}
            for _ in range(runs):
                for choice, ledger in ledgers.items():
                    took[choice].append(_batch_ms(ledger.url, claims))
            for choice, values in took.items():
                ratio = median(values) / median(took[Durability.ALWAYS])
                section.add(
                    f"{choice}: a batch of {claims}, ms", spread(values, 3), f"{ratio:.2f} × always"
                )
    section.notes += [f"{choice}, {loss}" for choice, loss in LOSS.items()]
    return section


def _ledger(folder: Path, choice: Durability) -> RedisServer:
    return RedisServer(RedisRole.LEDGER, folder, durability=choice)


def _batch_ms(url: str, claims: int) -> float:
    """The mean of a batch, all of it sold."""
    with Redis.from_url(url) as ledger:
        ledger.flushall()
        ledger.set(_KEYS[0], BATCHES * claims)
        terms = {"begin": 0, "end": _DEADLINE_MS, "state": "open", "initial": BATCHES * claims}
        ledger.hset(_KEYS[3], mapping=terms)
        sell = ledger.register_script(script("seckill").text)
        started = time.perf_counter()
        for batch in range(BATCHES):
            first = 1 + batch * claims
            pairs = [n for user in range(first, first + claims) for n in (user, 10**9 + user)]
            replies = sell(keys=_KEYS, args=[_VOUCHER, _DEADLINE_MS, *pairs])
            if set(replies[::2]) != {0}:
                raise SystemExit(f"not all were sold: {replies[:6]}")
        return (time.perf_counter() - started) * 1000 / BATCHES
