"""Any history of a correct sale passes every check; any one fault in it is caught by its check.

The reference sale decides claims as seckill.lua does, one at a time; answers may be lost, delayed
and overtaken, claims may not arrive, orders are cancelled, stock is added, earlier runs were there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from rig.sale_world import BEGIN_MS, END_MS, STREAM, Claim, Row, World, broken, doubts, together

from flashsale.model import Outcome
from flashsale.verify.linearizability import linearizable
from flashsale.verify.queue import Backlog, Queue, QueueEntry
from flashsale.verify.verdict import CHECKS

USERS = 6
STRANGER = 777
_SETTINGS = settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@dataclass
class Reference:
    """One sale, deciding one claim after the other."""

    world: World
    next_order: int
    now_us: int = 1_000
    queue: Queue = STREAM
    unanswered: list[Claim] = field(default_factory=list)

    def claim(self, user: int, fate: str, early: int, late: int) -> None:
        """A claim whose script runs now, sent `early` before and answered `late` after."""
        self.now_us += 10
        outcome, order = Outcome.INDETERMINATE, 0
        if fate == "shed":
            outcome = Outcome.SHED
        elif fate != "torn":
            outcome, order = self._decide(user)
        if fate in ("lost", "resolved"):
            outcome, order = Outcome.INDETERMINATE, 0
        claim = Claim(user, outcome, order, self.now_us - early, self.now_us + late)
        self.world.claims.append(claim)
        if fate == "resolved":
            self.unanswered.append(claim)

    def _decide(self, user: int) -> tuple[Outcome, int]:
        world = self.world
        if user in world.receipts:
            return Outcome.DUPLICATE, world.receipts[user]
        if world.ledger["stock"] <= 0:
            return Outcome.SOLD_OUT, 0
        order = self.new_order()
        world.sell(user, order, created_ms=BEGIN_MS + self.now_us)
        return Outcome.SOLD, order

    def new_order(self) -> int:
        self.next_order += 1
        return self.next_order

    def cancel(self, user: int) -> None:
        if user in self.world.receipts:
            self.world.end(self.world.receipts[user])

    def resolve(self) -> None:
        """The status route, after the drain."""
        for claim in self.unanswered:
            claim.resolved = self.world.receipts.get(claim.user, 0)


users = st.integers(1, USERS)
delays = st.integers(0, 40)
claims = st.tuples(
    st.just("claim"),
    users,
    st.sampled_from(["told"] * 6 + ["lost", "resolved", "torn", "shed"]),
    delays,
    delays,
)
events = st.one_of(
    claims,
    claims,
    claims,
    st.tuples(st.just("cancel"), users),
    st.tuples(st.just("restock"), st.integers(1, 2)),
)


def _play(voucher: int, units: int, prior: list[int], history: list[tuple]) -> Reference:  # type: ignore[type-arg]
    reference = Reference(World(units=units, voucher=voucher), next_order=voucher * 1000)
    for user in prior:
        reference.claim(user, "told", 0, 0)
    if prior:
        reference.cancel(prior[0])
    reference.world.claims.clear()
    reference.world.start()
    for kind, *rest in history:
        if kind == "claim":
            reference.claim(*rest)
        elif kind == "cancel":
            reference.cancel(*rest)
        else:
            reference.world.restock(*rest)
    reference.resolve()
    return reference


sales = st.builds(
    _play,
    voucher=st.just(1),
    units=st.integers(0, 5),
    prior=st.lists(users, max_size=3),
    history=st.lists(events, max_size=25),
)
other_sales = st.builds(
    _play,
    voucher=st.just(2),
    units=st.integers(0, 3),
    prior=st.just([]),
    history=st.lists(events, max_size=8),
)


@_SETTINGS
@given(sales, other_sales)
def test_a_correct_sale_breaks_no_rule_and_leaves_no_doubt(one: Reference, two: Reference) -> None:
    snapshot = together([one.world, two.world])
    assert broken(snapshot) == set()
    assert [doubts(snapshot, check.name) for check in CHECKS] == [""] * len(CHECKS)
    assert linearizable(snapshot).findings == ()


RESTOCKED = [("claim", 2, "told", 0, 3), ("restock", 1), ("claim", 2, "told", 0, 32)]
"""Told "sold out", then sold."""


@_SETTINGS
@given(sales)
@example(_play(voucher=1, units=0, prior=[], history=RESTOCKED))
def test_without_a_baseline_there_may_be_doubt_but_never_blame(sale: Reference) -> None:
    sale.world.before = None
    assert broken(sale.world.snapshot()) == set()
    assert linearizable(sale.world.snapshot()).findings == ()


# Faults. Each spoils one thing, says whether it could, and is named after the check that must see.


def _kept(world: World) -> Row | None:
    """A row whose user was told of it as sold."""
    told = {claim.order for claim in world.claims if claim.outcome is Outcome.SOLD}
    return next((row for row in world.rows if row.order in told), None)


def _live(world: World) -> Row | None:
    """A live row of this run whose user was told of it."""
    told = {claim.order for claim in world.claims if claim.outcome is Outcome.SOLD}
    held = set(world.receipts.values())
    return next((row for row in world.rows if row.order in told & held), None)


def _returned(world: World) -> int:
    return world.snapshot().sales[0].returned


def accepted_persisted__row_deleted(sale: Reference) -> bool:
    row = _kept(sale.world)
    if row:
        sale.world.rows.remove(row)
    return row is not None


def accepted_persisted__row_deleted_without_a_trace(sale: Reference) -> bool:
    row = _live(sale.world)
    if row:
        sale.world.end(row.order)
        sale.world.rows.remove(row)
    return row is not None


def accepted_persisted__row_under_another_id(sale: Reference) -> bool:
    row = _kept(sale.world)
    if row:
        row.order = sale.new_order()
    return row is not None


def accepted_persisted__row_of_another_user(sale: Reference) -> bool:
    row = _kept(sale.world)
    if row:
        row.user = STRANGER
    return row is not None


def no_phantom__row_of_a_stranger(sale: Reference) -> bool:
    sale.world.sell(STRANGER, sale.new_order())
    return True


def no_phantom__receipt_of_a_stranger(sale: Reference) -> bool:
    sale.world.sell_in_ledger(STRANGER, sale.new_order())
    return True


def no_phantom__row_under_another_id(sale: Reference) -> bool:
    row = _live(sale.world)
    asked = {claim.user for claim in sale.world.claims if claim.outcome.is_indeterminate}
    if row is None or row.user in asked:
        return False
    row.order = sale.new_order()
    return True


def mysql_conservation__a_unit_more(sale: Reference) -> bool:
    sale.world.move_mysql_stock(1)
    return True


def mysql_conservation__a_unit_less(sale: Reference) -> bool:
    sale.world.move_mysql_stock(-1)
    return True


def mysql_conservation__a_cancelled_order_kept_its_unit(sale: Reference) -> bool:
    row = _live(sale.world)
    if row:
        row.status = 4
    return row is not None


def redis_conservation__a_unit_more(sale: Reference) -> bool:
    sale.world.ledger["stock"] += 1
    return True


def redis_conservation__a_member_removed(sale: Reference) -> bool:
    return bool(sale.world.members) and sale.world.members.pop() > 0


def redis_conservation__a_member_swapped(sale: Reference) -> bool:
    removed = redis_conservation__a_member_removed(sale)
    sale.world.members.add(STRANGER)
    return removed


def redis_conservation__a_receipt_removed(sale: Reference) -> bool:
    return bool(sale.world.receipts) and sale.world.receipts.popitem()[0] > 0


def redis_conservation__a_receipt_changed(sale: Reference) -> bool:
    row = _live(sale.world)
    if row:
        sale.world.receipts[row.user] = sale.new_order()
    return row is not None


def redis_conservation__units_added_to_redis_alone(sale: Reference) -> bool:
    sale.world.ledger["stock"] += 1
    sale.world.ledger["initial"] += 1
    return True


def one_per_user__a_second_live_row(sale: Reference) -> bool:
    row = _live(sale.world)
    if row:
        sale.world.persist(row.user, sale.new_order())
    return row is not None


def one_per_user__a_second_promise(sale: Reference) -> bool:
    row = _live(sale.world)
    if row:
        sale.world.say(row.user, Outcome.SOLD, sale.new_order())
    return row is not None


def unique_ids__an_id_given_twice(sale: Reference) -> bool:
    row = _kept(sale.world)
    if row:
        sale.world.say(STRANGER, Outcome.SOLD, row.order)
    return row is not None


def no_oversell__more_sold_than_there_is(sale: Reference) -> bool:
    surplus = sale.world.ledger["stock"] + 1
    for user in range(1000, 1000 + surplus):
        sale.world.buy(user, sale.new_order())
    return True


def queue_empty__an_entry_pending(sale: Reference) -> bool:
    sale.queue = replace(STREAM, backlog=Backlog(pending=1), stuck=(QueueEntry("6-0"),))
    return True


def queue_empty__an_entry_trimmed(sale: Reference) -> bool:
    sale.queue = replace(STREAM, trimmed=1)
    return accepted_persisted__row_deleted(sale)


def queue_empty__an_entry_deleted(sale: Reference) -> bool:
    row = _live(sale.world)
    if row:
        sale.world.rows.remove(row)
        del sale.world.sightings[row.order]
    return row is not None


def queue_empty__the_stream_flushed(sale: Reference) -> bool:
    sale.queue = replace(STREAM, last_entry="1-0")
    return accepted_persisted__row_deleted(sale)


def queue_empty__the_group_destroyed(sale: Reference) -> bool:
    sale.queue = replace(STREAM, has_group=False)
    return _kept(sale.world) is not None


def queue_empty__a_dead_letter(sale: Reference) -> bool:
    sale.queue = replace(STREAM, dead=(QueueEntry("6-0", note="short stock"),), dead_total=1)
    return True


def duplicate_truthful__of_no_order(sale: Reference) -> bool:
    sale.world.say(STRANGER, Outcome.DUPLICATE, sale.new_order())
    return True


def duplicate_truthful__of_anothers_order(sale: Reference) -> bool:
    row = _kept(sale.world)
    if row:
        sale.world.say(STRANGER, Outcome.DUPLICATE, row.order)
    return row is not None


def sold_out_truthful__told_before_the_sales(sale: Reference) -> bool:
    sold = [claim for claim in sale.world.claims if claim.outcome is Outcome.SOLD]
    if len(sold) <= _returned(sale.world):
        return False
    first = min(claim.sent_us for claim in sold)
    sale.world.say(STRANGER, Outcome.SOLD_OUT, sent_us=first - 20, done_us=first - 10)
    return True


def no_undersell__turned_away_from_units_left(sale: Reference) -> bool:
    if sale.world.ledger["stock"] <= _returned(sale.world):
        return False
    sale.world.say(STRANGER, Outcome.SOLD_OUT)
    return True


def no_undersell__a_unit_leaked(sale: Reference) -> bool:
    row = _live(sale.world)
    if row is None or _returned(sale.world):
        return False
    world = sale.world
    world.rows.remove(row)
    world.members.discard(row.user)
    world.receipts.pop(row.user)
    world.claims = [claim for claim in world.claims if claim.user != row.user]
    world.say(STRANGER, Outcome.SOLD_OUT)
    return True


def window__sold_too_early(sale: Reference) -> bool:
    row = _kept(sale.world)
    if row:
        sale.world.sightings[row.order] = (BEGIN_MS - 1, BEGIN_MS - 1)
    return row is not None


def window__sold_too_late(sale: Reference) -> bool:
    row = _kept(sale.world)
    if row:
        sale.world.sightings[row.order] = (END_MS, END_MS)
    return row is not None


Fault = Callable[[Reference], bool]


def _faults() -> Iterator[Fault]:
    names = {check.name for check in CHECKS}
    for name, function in globals().items():
        if name.partition("__")[0] in names and callable(function):
            yield function


FAULTS = sorted(_faults(), key=lambda fault: fault.__name__)


def test_every_check_has_a_fault_to_catch() -> None:
    assert {f.__name__.partition("__")[0] for f in FAULTS} == {check.name for check in CHECKS}


@settings(parent=_SETTINGS, max_examples=600)
@given(sales, st.sampled_from(FAULTS))
def test_one_fault_is_caught_by_the_check_that_names_it(sale: Reference, fault: Fault) -> None:
    assume(fault(sale))
    assert fault.__name__.partition("__")[0] in broken(sale.world.snapshot(sale.queue))
