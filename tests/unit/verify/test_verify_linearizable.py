"""The second judge: its three ways against all orders, one by one, and what only it can see."""

from collections.abc import Iterator
from itertools import chain, combinations, permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale.verify.attempts import DUPLICATE, SOLD, SOLD_OUT, UNANSWERED, ClaimColumns
from flashsale.verify.history import LATEST, MANY, Frame, History, Op, OpKind, search
from flashsale.verify.linearizability import Walk, is_plain, shrink

_CODES = {
    OpKind.SALE: SOLD,
    OpKind.REFUSAL: SOLD_OUT,
    OpKind.REPEAT: DUPLICATE,
    OpKind.OPEN: UNANSWERED,
}


# A reference: every order of every subset, told to a sale that knows nothing of the judge's.


def reference(history: History) -> bool:
    """True where some order of the claims is one that a sale could have gone through."""
    must = [op for op in history.ops if op.kind is not OpKind.OPEN]
    may = [op for op in history.ops if op.kind is OpKind.OPEN]
    subsets = chain.from_iterable(combinations(may, n) for n in range(len(may) + 1))
    most = min(history.frame.most, history.frame.least + len(history.ops) + 1)
    units = range(history.frame.least, most + 1)
    return any(
        _goes(order, history.frame, number)
        for chosen in subsets
        for order in permutations([*must, *chosen])
        if not any(b.done < a.sent and a.clock == b.clock for a, b in combinations(order, 2))
        for number in units
    )


def _goes(order: tuple[Op, ...], frame: Frame, units: int) -> bool:
    states = [(units, frame.returns, dict(frame.held), set(frame.freed))]
    for op in order:
        states = [after for state in _meanwhile(states) if (after := _told(op, *state))]
    return bool(states)


State = tuple[int, int, dict[int, int], set[tuple[int, int]]]


def _meanwhile(states: list[State]) -> Iterator[State]:
    """Units come back, and users give up what they hold, in whatever number."""
    for left, returns, held, freed in states:
        mine = [(user, order) for user, order in freed if held.get(user) in (order, 0)]
        for given_up in chain.from_iterable(combinations(mine, n) for n in range(len(mine) + 1)):
            leaving = {user for user, _ in given_up}
            rest = {user: order for user, order in held.items() if user not in leaving}
            for back in range(returns + 1):
                yield left + back, returns - back, rest, freed - set(given_up)


def _told(op: Op, left: int, returns: int, held: dict[int, int], freed: set) -> State | None:  # type: ignore[type-arg]
    has = held.get(op.user)
    if op.kind is OpKind.REFUSAL:
        return (left, returns, held, freed) if left == 0 and has is None else None
    if op.kind is not OpKind.OPEN and has is not None:
        named = {order for order in (has, op.order) if order}
        return (
            (left, returns, {**held, op.user: max(has, op.order)}, freed)
            if len(named) < 2
            else None
        )
    if op.kind is OpKind.REPEAT or has is not None or left == 0:
        return None
    return left - 1, returns, {**held, op.user: op.order}, freed


def claims_of(history: History) -> ClaimColumns:
    claims = ClaimColumns()
    for op in history.ops:
        claims.user.append(op.user)
        claims.sent_us.append(op.sent)
        claims.done_us.append(-1 if op.done == LATEST else op.done)
        claims.outcome.append(_CODES[op.kind])
        claims.order.append(0 if op.kind is OpKind.OPEN else op.order)
        claims.resolved.append(0)
        claims.clock.append(op.clock)
    return claims


def ops(clocks: int) -> st.SearchStrategy[Op]:
    def build(kind: OpKind, user: int, other: bool, sent: int, took: int, clock: int) -> Op:
        order = 0 if kind in (OpKind.OPEN, OpKind.REFUSAL) else 100 + user + 10 * other
        done = LATEST if kind is OpKind.OPEN else sent + took
        return Op(kind, user, order, sent, done, clock)

    kinds = st.sampled_from([OpKind.SALE, OpKind.SALE, OpKind.REFUSAL, OpKind.REPEAT, OpKind.OPEN])
    other = st.sampled_from([False] * 6 + [True])
    return st.builds(
        build, kinds, st.integers(1, 4), other, st.integers(0, 12), st.integers(0, 6),
        st.integers(0, clocks - 1),
    )  # fmt: skip


def histories(
    *, returns: int = 0, freed: bool = False, clocks: int = 1
) -> st.SearchStrategy[History]:
    def build(
        found: list[Op], units: int, spread: int, back: int, held: bool, given: bool
    ) -> History:
        most = MANY if spread == 3 else units + spread
        pairs = frozenset({(1, 101), (2, 102)}) if given and freed else frozenset[tuple[int, int]]()
        frame = Frame(units, most, back, {4: 104} if held else {}, pairs)
        return History(found, frame)

    return st.builds(
        build,
        st.lists(ops(clocks), min_size=1, max_size=5),
        st.integers(0, 3),
        st.sampled_from([0, 0, 0, 1, 3]),
        st.integers(0, returns),
        st.booleans(),
        st.booleans(),
    )


_SETTINGS = settings(max_examples=120, deadline=None, database=None)


@_SETTINGS
@given(histories(clocks=2))
def test_walk_and_search_agree_with_every_order_tried(history: History) -> None:
    truth = reference(history)
    assert (not Walk(history).stuck()) == truth
    assert search(history) is truth


@_SETTINGS
@given(histories(returns=2, clocks=2))
def test_units_that_came_back_make_the_walk_no_less_exact(history: History) -> None:
    truth = reference(history)
    assert (not Walk(history).stuck()) == truth
    assert search(history) is truth


@_SETTINGS
@given(histories(returns=2, freed=True))
def test_where_orders_were_given_up_a_walk_that_ends_is_right(history: History) -> None:
    truth = reference(history)
    assert truth or Walk(history).stuck()
    assert search(history) is truth


@_SETTINGS
@given(histories(returns=1))
def test_what_is_plainly_legal_is_legal(history: History) -> None:
    if is_plain(claims_of(history), history.frame):
        assert reference(history)


@_SETTINGS
@given(histories(returns=1, clocks=2))
def test_what_a_history_is_shrunk_to_is_illegal_and_no_smaller_part_is(history: History) -> None:
    stuck = Walk(history).stuck()
    if not stuck:
        return
    small = shrink(history, stuck)
    assert not reference(small)
    assert Walk(small).stuck()
    assert len(small.ops) <= len(history.ops)


@_SETTINGS
@given(histories(returns=1, freed=True), st.sets(st.integers(1, 4)))
def test_a_part_of_a_legal_history_is_legal(history: History, users: set[int]) -> None:
    part = history.keeping(users)
    if reference(history):
        assert part is not None
        assert reference(part)
