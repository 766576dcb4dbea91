"""Claims on a simulated clock and a scripted Redis, in another order for each seed.

Replies, losses, resets, restarts, deadlines. What is planted is found, so nothing found says a lot.
"""

import asyncio
import datetime
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from rig.simulated_claims import Broken, Simulation, run

from flashsale.errors import Indeterminate
from flashsale.seckill import claims
from flashsale.seckill.batch import SHED, Batch, Claimed, read_answers
from flashsale.seckill.claims import Claims, Settlement
from flashsale.storage import channel
from flashsale.storage.gate import Gate

FIRST = 1
SEEDS = 100
FOUND_WITHIN = 100


def test_every_claim_has_one_answer_in_time_and_it_is_true() -> None:
    assert run(range(FIRST, FIRST + SEEDS)) > 5 * SEEDS


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_every_claim_of_many_seeds_has_one_answer_in_time_and_it_is_true() -> None:
    """Others each day; the one that fails says how to see it again."""
    first = int(f"{datetime.datetime.now(datetime.UTC):%Y%m%d}00000")
    run(range(first, first + 30_000))


def test_a_seed_is_the_same_twice() -> None:
    one, two = Simulation(7), Simulation(7)
    assert one.run() == two.run()
    assert one.schedule == two.schedule
    assert len(one.schedule) > 20


# What is planted ----------------------------------------------------------------------------------


def a_lost_batch_is_shed(planted: pytest.MonkeyPatch) -> None:
    planted.setattr(Settlement, "start", lambda _, batch: [SHED] * len(batch.order_ids))


def a_refusal_of_a_replay_is_final(planted: pytest.MonkeyPatch) -> None:
    planted.setattr(claims, "settled", lambda reply, _: read_answers(reply))


def a_lost_batch_is_sent_anew(planted: pytest.MonkeyPatch) -> None:
    sold = Claims._sold

    async def again(*given: Any) -> tuple[list[Batch], list[Any]]:
        batches, replies = await sold(*given)
        is_lost = any(isinstance(reply, Indeterminate) for reply in replies)
        return await sold(*given) if is_lost else (batches, replies)

    planted.setattr(Claims, "_sold", again)


def a_replay_comes_past_its_deadline_at_once(planted: pytest.MonkeyPatch) -> None:
    replay = Settlement._replay

    async def hastily(self: Settlement, batch: Batch) -> Sequence[Claimed | None]:
        voucher_id, _, *others = batch.call.args
        return await replay(
            self, replace(batch, call=replace(batch.call, args=[voucher_id, 0, *others]))
        )

    planted.setattr(Settlement, "_replay", hastily)


def a_connection_whose_time_is_up_is_used_again(planted: pytest.MonkeyPatch) -> None:
    def look_at_clock(wire: Any) -> None:
        wire._timer = None
        wire.why = "late"
        wire._answer()

    planted.setattr(channel._Wire, "_look_at_clock", look_at_clock)


def a_connection_is_not_asked_whose_it_is(planted: pytest.MonkeyPatch) -> None:
    planted.setattr(claims, "CLAIM_OPENING", None)


def trouble_is_told_to_the_first_alone(planted: pytest.MonkeyPatch) -> None:
    async def call(self: Any, batch: Sequence[tuple[Any, asyncio.Future[Any]]]) -> None:
        try:
            replies = await self._send([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - as it stands in the gate
            batch[0][1].set_exception(error)
            return
        for (_, future), reply in zip(batch, replies, strict=True):
            if isinstance(reply, asyncio.Future):
                reply.add_done_callback(
                    lambda late, future=future: future.done() or future.set_result(late.result())
                )
            elif not future.done():
                future.set_result(reply)

    planted.setattr(Gate, "_call", call)


def a_settlement_waits_for_ever(planted: pytest.MonkeyPatch) -> None:
    planted.setattr(Settlement, "_left_s", lambda *_: 3.0)


def an_open_claim_has_failed(planted: pytest.MonkeyPatch) -> None:
    planted.setattr(
        claims, "Claimed", lambda outcome, order_id="": SHED if order_id else Claimed(outcome)
    )


def replies_change_places(planted: pytest.MonkeyPatch) -> None:
    read = claims.read_answers
    planted.setattr(claims, "read_answers", lambda reply: read(reply)[::-1])


PLANTED = {
    a_lost_batch_is_shed: FIRST,
    a_refusal_of_a_replay_is_final: FIRST,
    a_lost_batch_is_sent_anew: FIRST,
    a_replay_comes_past_its_deadline_at_once: 270,
    a_connection_whose_time_is_up_is_used_again: FIRST,
    a_connection_is_not_asked_whose_it_is: 215,
    trouble_is_told_to_the_first_alone: FIRST,
    a_settlement_waits_for_ever: FIRST,
    an_open_claim_has_failed: 110,
    replies_change_places: FIRST,
}
"""What is planted, and from which seed on it is looked for."""


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_what_is_planted_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Broken) as broken:
        run(range(PLANTED[plant], PLANTED[plant] + FOUND_WITHIN))
    assert f"rig.simulated_claims {broken.value.seed}" in str(broken.value)
