"""The ledger in plain Python that simulations run on, beside seckill.lua on a real one."""

import random
import time
from typing import Any

import pytest
from redis import Redis
from rig.sale import HOUR_MS, open_sale, permit, sign_in
from rig.scripted_ledger import Ledger, Sale

from flashsale import keys
from flashsale.seckill.batch import make_batch
from flashsale.storage.roles import evaluate

SLIDING_MS = (HOUR_MS, 60_000, 24 * HOUR_MS)
STATES = ("open", "open", "paused", "closed")


@pytest.mark.parametrize("seed", range(12))
def test_both_answer_the_same(ledger: Redis, seed: int) -> None:
    draw = random.Random(seed)
    scripted = Ledger(time.time, draw)
    by_permit = draw.random() < 0.5
    if by_permit:
        permit(ledger)
        scripted.kept.permit = str(ledger.get(keys.PERMIT))
    for voucher_id in (1, 2):
        units = draw.randint(0, 6)
        open_sale(ledger, voucher_id, units=units)
        scripted.kept.sales[str(voucher_id)] = Sale(units)
    users = range(1, 7)
    sign_in(ledger, *users)
    names = [keys.login_token(f"token-{user}") for user in (*users, 99)]
    scripted.kept.sessions = {name: str(user) for name, user in zip(names, users, strict=False)}
    next_id = 1000
    for _ in range(25):
        if draw.random() < 0.2:
            state, voucher_id = draw.choice(STATES), draw.choice((1, 2))
            ledger.hset(keys.seckill_sale(voucher_id), "state", state)
            scripted.kept.sales[str(voucher_id)].state = state
        count = draw.randint(1, 5)
        ids = [str(next_id + n) for n in range(count)]
        next_id += count
        digests = [draw.choice(("", "", "d1", "d2")) for _ in ids]
        deadline_ms = int(time.time() * 1000) + draw.choice((HOUR_MS, HOUR_MS, -1000))
        told = draw.choice(("", "other"))
        under = scripted.kept.permit + told if by_permit else ""
        batch = make_batch(
            draw.choice((1, 2, 3)),
            draw.choices(names, k=count),
            ids,
            deadline_ms,
            SLIDING_MS,
            digests if draw.random() < 0.5 else (),
            under,
        )
        reply: Any = evaluate(ledger, batch.call)
        scripted.scripts.add(batch.call.script.sha)
        assert scripted.answer([str(word) for word in batch.call.command()]) == reply
    for voucher_id, sale in scripted.kept.sales.items():
        assert ledger.get(keys.seckill_stock(int(voucher_id))) == str(sale.left)
        assert ledger.hgetall(keys.seckill_receipt(int(voucher_id))) == sale.receipts
    entries: Any = ledger.xrange(keys.STREAM_ORDERS)
    added = [(e["userId"], e["voucherId"], e["id"]) for _, e in entries]
    assert added == [tuple(order) for order in scripted.kept.stream]
