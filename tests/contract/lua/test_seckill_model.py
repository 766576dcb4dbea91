"""seckill.lua against a model of a sale in plain Python, under whatever hypothesis thinks up."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from redis import Redis
from rig.sale import HOUR_MS, claim, claim_by_session, now_ms, open_sale, session, sign_in

from flashsale import keys
from flashsale.lua.scripts import NO_SESSION
from flashsale.model import ID_MAX

USERS = st.sampled_from([1, 2, 3, 4, 5, 2**53, 2**53 + 1, ID_MAX])
Batch = tuple[tuple[int, int], ...]


class Model:
    """What a sale is: the table of the design's section 5, and nothing else."""

    def __init__(self, units: int) -> None:
        self.initial = self.left = units
        self.state, self.begun, self.ended = "open", True, False
        self.receipts: dict[int, int] = {}
        self.entries: list[tuple[int, int]] = []
        self.signed_in: set[int] = set()

    def claim(self, batch: Batch, in_time: bool) -> list[tuple[int, str]]:
        return [self._one(user, order_id, in_time) for user, order_id in batch]

    def claim_by_session(self, batch: Batch, in_time: bool) -> list[tuple[int, str]]:
        return [
            self._one(user, order_id, in_time) if user in self.signed_in else (NO_SESSION, "")
            for user, order_id in batch
        ]

    def _one(self, user: int, order_id: int, in_time: bool) -> tuple[int, str]:
        if user in self.receipts:
            return 2, str(self.receipts[user])
        if not in_time:
            return 7, ""
        if self.state == "paused":
            return 6, ""
        if not self.begun:
            return 3, ""
        if self.ended or self.state == "closed":
            return 4, ""
        if self.left == 0:
            return 1, ""
        self.left -= 1
        self.receipts[user] = order_id
        self.entries.append((user, order_id))
        return 0, str(order_id)


class SaleMachine(RuleBasedStateMachine):
    """A ledger and a model side by side."""

    ledger: Redis

    @initialize(units=st.integers(0, 6))
    def load(self, units: int) -> None:
        self.ledger.flushall()
        open_sale(self.ledger, units=units)
        self.model = Model(units)
        self.next_id = 2**53
        self.left_behind: list[Batch] = []

    @rule(
        users=st.lists(USERS, min_size=1, max_size=6),
        in_time=st.booleans(),
        by_session=st.booleans(),
    )
    def claims(self, users: list[int], in_time: bool, by_session: bool) -> None:
        batch = tuple((user, self.next_id + n) for n, user in enumerate(users))
        self.next_id += len(users)
        self.left_behind.append(batch)
        self._both(batch, in_time, by_session)

    @rule(data=st.data(), in_time=st.booleans(), by_session=st.booleans())
    def replays(self, data: st.DataObject, in_time: bool, by_session: bool) -> None:
        if self.left_behind:
            self._both(data.draw(st.sampled_from(self.left_behind)), in_time, by_session)

    def _both(self, batch: Batch, in_time: bool, by_session: bool) -> None:
        deadline_ms = now_ms() + (HOUR_MS if in_time else -2)
        if by_session:
            pairs = [(session(user), order_id) for user, order_id in batch]
            answers = claim_by_session(self.ledger, *pairs, deadline_ms=deadline_ms)
            assert answers == self.model.claim_by_session(batch, in_time)
        else:
            answers = claim(self.ledger, *batch, deadline_ms=deadline_ms)
            assert answers == self.model.claim(batch, in_time)

    @rule(user=USERS, signs_in=st.booleans())
    def signs_in_or_out(self, user: int, signs_in: bool) -> None:
        if signs_in:
            sign_in(self.ledger, user)
            self.model.signed_in.add(user)
        else:
            self.ledger.delete(session(user))
            self.model.signed_in.discard(user)

    @rule(state=st.sampled_from(["open", "paused", "closed"]))
    def changes_state(self, state: str) -> None:
        self.ledger.hset(keys.seckill_sale(1), "state", state)
        self.model.state = state

    @rule(begun=st.booleans(), ended=st.booleans())
    def moves_the_window(self, begun: bool, ended: bool) -> None:
        window = {
            "begin": now_ms() + (-HOUR_MS if begun else HOUR_MS),
            "end": now_ms() + (-1 if ended else 2 * HOUR_MS),
        }
        self.ledger.hset(keys.seckill_sale(1), mapping=window)
        self.model.begun, self.model.ended = begun, ended

    @rule(units=st.integers(1, 3))
    def restocks(self, units: int) -> None:
        self.ledger.incrby(keys.seckill_stock(1), units)
        self.ledger.hincrby(keys.seckill_sale(1), "initial", units)
        self.model.left += units
        self.model.initial += units

    @rule(user=USERS)
    def cancels(self, user: int) -> None:
        if self.model.receipts.pop(user, None) is None:
            return
        self.ledger.srem(keys.seckill_order(1), user)
        self.ledger.hdel(keys.seckill_receipt(1), str(user))
        self.ledger.incr(keys.seckill_stock(1))
        self.model.left += 1

    @invariant()
    def ledger_and_model_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        model, ledger = self.model, self.ledger
        assert ledger.get(keys.seckill_stock(1)) == str(model.left)
        receipts = {str(user): str(order) for user, order in model.receipts.items()}
        assert ledger.hgetall(keys.seckill_receipt(1)) == receipts
        assert ledger.smembers(keys.seckill_order(1)) == set(receipts)
        entries = [entry for _, entry in ledger.xrange(keys.STREAM_ORDERS)]
        assert [(int(e["userId"]), int(e["id"])) for e in entries] == model.entries
        assert model.left + len(receipts) == model.initial, "conservation"


def test_script_and_model_agree(ledger: Redis) -> None:
    class Machine(SaleMachine):
        pass

    Machine.ledger = ledger
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=60, stateful_step_count=25),
    )
