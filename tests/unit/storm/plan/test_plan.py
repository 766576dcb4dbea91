from array import array
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.plans import plan_stampede

from flashsale.run.attempts import ALWAYS
from flashsale.scenario.scenario import Load, Sale
from flashsale.storm.plan.plan import LAST, Plan


@st.composite
def orders(draw: st.DrawFn) -> tuple[Load, Sale, list[int]]:
    users = draw(st.integers(1, 60))
    load = Load(
        model="stampede",
        users=users,
        connections=draw(st.integers(1, users)),
        spread_ms=draw(st.integers(0, 1000)),
        seed=draw(st.integers(0, 2**63 - 1)),
    )
    sale = Sale(vouchers=draw(st.integers(1, 20)), first_voucher=draw(st.integers(1, 99)), units=1)
    ids = draw(st.lists(st.integers(1, 2**63 - 1), min_size=users, max_size=64, unique=True))
    return load, sale, ids


def chain(plan: Plan, first: int) -> list[int]:
    attempts = [first]
    while plan.following[attempts[-1]] != LAST:
        attempts.append(plan.following[attempts[-1]])
    return attempts


@settings(deadline=None, max_examples=60)
@given(orders())
def test_each_of_the_first_users_buys_exactly_once(order: tuple[Load, Sale, list[int]]) -> None:
    load, sale, ids = order
    plan = plan_stampede(load, sale, ids)
    assert sorted(plan.users) == sorted(ids[: load.users])
    assert list(plan.things) == [sale.voucher_ids[i % sale.vouchers] for i in range(len(plan))]
    assert list(plan.connections) == [i % load.connections for i in range(len(plan))]
    assert plan.closed == load.closed


@settings(deadline=None, max_examples=60)
@given(orders())
def test_chains_part_the_attempts_by_connection_in_order(
    order: tuple[Load, Sale, list[int]],
) -> None:
    plan = plan_stampede(*order)
    chains = [chain(plan, first) for first in plan.first_attempts]
    assert sorted(i for attempts in chains for i in attempts) == list(range(len(plan)))
    for lane, attempts in enumerate(chains):
        assert attempts == sorted(attempts)
        assert {plan.connections[i] for i in attempts} == {lane}


@settings(deadline=None, max_examples=60)
@given(orders())
def test_first_attempts_are_due_in_order_and_within_the_spread(
    order: tuple[Load, Sale, list[int]],
) -> None:
    plan = plan_stampede(*order)
    firsts = [plan.at_us[i] for i in plan.first_attempts]
    assert firsts == sorted(firsts)
    assert all(0 <= at < max(1, order[0].spread_ms * 1000) for at in firsts)


@settings(deadline=None, max_examples=60)
@given(orders())
def test_the_same_seed_gives_the_same_plan(order: tuple[Load, Sale, list[int]]) -> None:
    assert plan_stampede(*order) == plan_stampede(*order)
    assert plan_stampede(*order).digest == plan_stampede(*order).digest


def test_another_seed_gives_another_order() -> None:
    plans = [
        plan_stampede(
            Load(model="stampede", users=100, connections=100, seed=seed),
            Sale(units=1),
            range(1, 101),
        )
        for seed in (1, 2)
    ]
    assert plans[0].digest != plans[1].digest
    assert sorted(plans[0].users) == sorted(plans[1].users)


COLUMNS = ["asks", "users", "things", "connections", "at_us", "after", "given"]
CHANGED = {"connection_count": 3, "retry_on": ("shed",), "cold": True, "clicks": 2}
PLAN = plan_stampede(Load(model="stampede", users=4, connections=2), Sale(units=1), range(1, 5))


@pytest.mark.parametrize("column", COLUMNS)
def test_the_hash_covers_every_column(column: str) -> None:
    plan = replace(PLAN, given=array("q", [ALWAYS] * 4))
    changed = array(getattr(plan, column).typecode, getattr(plan, column))
    changed[3] += 7
    assert replace(plan, **{column: changed}).digest != plan.digest


def test_the_hash_covers_whatever_a_plan_has() -> None:
    assert {field.name for field in fields(PLAN)} == {*COLUMNS, *CHANGED, "numbers"}
    changed = [replace(PLAN, **{name: value}) for name, value in CHANGED.items()]
    empty = [replace(PLAN, users=array("q")), replace(PLAN, things=array("q"))]
    assert len({plan.digest for plan in (PLAN, *changed, *empty)}) == 7


def test_the_hash_is_the_same_on_every_machine_and_in_every_release() -> None:
    load = Load(model="stampede", users=4, connections=2, spread_ms=10, seed=1)
    plan = plan_stampede(load, Sale(vouchers=2, units=4), range(1, 5))
    assert plan.digest == "afed4fa3499120e9ce726cb972e58914"


def test_too_few_users_are_refused() -> None:
    with pytest.raises(ValueError, match="3 users, and the plan needs 4"):
        plan_stampede(Load(model="stampede", users=4, connections=2), Sale(units=1), range(1, 4))
