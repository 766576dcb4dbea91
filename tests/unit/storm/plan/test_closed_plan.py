"""Closed plans: users take their steps one after another, each over its own connection."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale.errors import UsageError
from flashsale.run.attempts import FIRST
from flashsale.scenario.load import Step
from flashsale.scenario.scenario import Browse, Load, Sale, Scenario, load_scenario, parse_scenario
from flashsale.scenario.target import Target
from flashsale.storm.attack.requests import requests_of
from flashsale.storm.plan.plan import Plan, whole
from flashsale.storm.plan.planning import plan_of

STEPS = ("browse", "sign", "buy")


def scenario(users: int = 6, connections: int = 2, **load: object) -> Scenario:
    given = {"steps": STEPS, "model": "closed", "users": users, "connections": connections, **load}
    return Scenario(
        schema=1,
        name="s",
        load=Load.model_validate(given),
        sale=Sale(vouchers=2, units=4),
        browse=Browse(shops=5),
    )


def waiting_for(plan: Plan, attempt: int) -> list[int]:
    """The attempts that are due some time after the answer to this one, ascending."""
    return [i for i, before in enumerate(plan.after) if before == attempt]


def walk(plan: Plan) -> list[list[int]]:
    """The attempts of each connection, in the order in which they are sent."""
    walks = []
    for first in plan.first_attempts:
        steps = [first]
        while following := waiting_for(plan, steps[-1]):
            assert len(following) == 1
            steps += following
        walks.append(steps)
    return walks


@settings(deadline=None, max_examples=40)
@given(
    users=st.integers(1, 30),
    connections=st.integers(1, 30),
    spread_ms=st.integers(0, 50),
    think_ms=st.integers(0, 50),
    think=st.sampled_from(["fixed", "exponential"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_user_takes_every_step_in_order_on_one_connection(
    users: int, connections: int, spread_ms: int, think_ms: int, think: str, seed: int
) -> None:
    given = scenario(
        users,
        min(users, connections),
        spread_ms=spread_ms,
        think_ms=think_ms,
        think=think,
        seed=seed,
    )
    plan = plan_of(given, range(1, users + 1))
    assert len(plan) == 3 * users
    assert (plan.open, plan.closed) == (False, True)
    seen = []
    for lane, attempts in enumerate(sorted(walk(plan), key=lambda a: plan.connections[a[0]])):
        assert {plan.connections[i] for i in attempts} == {lane}
        for at in range(0, len(attempts), 3):
            turn = attempts[at : at + 3]
            assert [Step(plan.asks[i]).endpoint for i in turn] == list(STEPS)
            (user,) = {plan.users[i] for i in turn}
            seen.append(user)
            shop, nothing, voucher = (plan.things[i] for i in turn)
            assert shop in range(1, 6)
            assert (nothing, voucher in (1, 2)) == (0, True)
        assert all(plan.after[later] == earlier for earlier, later in pairwise(attempts))
    assert sorted(seen) == list(range(1, users + 1))
    firsts = [plan.at_us[i] for i in plan.first_attempts]
    assert firsts == sorted(firsts)
    assert all(plan.after[i] == FIRST for i in plan.first_attempts)
    assert plan == plan_of(given, range(1, users + 1))


def test_a_fixed_pause_is_the_same_for_all_and_an_exponential_one_is_so_on_average() -> None:
    fixed = plan_of(scenario(300, 30, think_ms=40), range(1, 301))
    waiting = range(len(fixed.first_attempts), len(fixed))
    assert {fixed.at_us[i] for i in waiting} == {40_000}
    drawn = plan_of(scenario(300, 30, think_ms=40, think="exponential"), range(1, 301))
    pauses = sorted(drawn.at_us[i] for i in waiting)
    assert 35_000 < sum(pauses) / len(pauses) < 45_000
    assert 24_000 < pauses[len(pauses) // 2] < 32_000  # 40 ms times ln 2
    assert fixed.digest != drawn.digest


def test_users_without_pauses_and_with_one_step_are_a_chain() -> None:
    """So that what is due next is one look into a column, without heap or alarm."""
    load = Load(model="closed", users=6, connections=2)
    one = Scenario(schema=1, name="s", load=load, sale=Sale(units=1))
    assert plan_of(one, range(1, 7)).is_chained
    assert not plan_of(scenario(), range(1, 7)).is_chained
    pausing = one.model_copy(update={"load": load.model_copy(update={"think_ms": 1})})
    assert not plan_of(pausing, range(1, 7)).is_chained


def test_each_step_is_a_request_with_its_users_token() -> None:
    plan = plan_of(scenario(1, 1), [7])
    shop = plan.things[0]
    sent = requests_of(plan, Target.at("http://127.0.0.1:8080/api"), {7: "secret"})
    host = b" HTTP/1.1\r\nhost: 127.0.0.1:8080\r\nauthorization: secret\r\n"
    assert sent == [
        b"GET /api/shop/%d" % shop + host + b"\r\n",
        b"POST /api/user/sign" + host + b"content-length: 0\r\n\r\n",
        b"POST /api/voucher-order/seckill/1" + host + b"content-length: 0\r\n\r\n",
    ]


def test_what_the_plan_asked_is_counted_by_shop() -> None:
    plan = plan_of(scenario(), range(1, 7))
    shops = [plan.things[i] for i in range(len(plan)) if plan.asks[i] == Step.BROWSE]
    assert len(shops) == 6
    assert plan.asked() == (len(set(shops)), 0)


def test_mixed_browses_signs_in_and_buys() -> None:
    mixed = load_scenario("mixed")
    assert set(mixed.steps) == {step for step in Step if not step.is_shops_own}
    assert (mixed.load.closed, mixed.needs_users) == (True, True)
    demanded = {threshold.name for threshold in mixed.thresholds}
    assert {f"{step.endpoint}.response.p99" for step in mixed.steps} <= demanded
    assert any(name.startswith("database.") for name in demanded)
    assert len(plan_of(mixed, range(1, 1001))) == 4000


TEXT = """# Why?
schema = 1
name = "s"
[sale]
units = 1
[browse]
shops = 2
[load]
model = "closed"
users = 2
steps = ["browse", "buy"]
connections = 1
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"browse", "buy"', '"browse", "steal"', "load.steps: found 'steal', expected some of buy"),
        ('"browse", "buy"', '"buy"', "browse: no step of load.steps needs this table"),
        ('"browse", "buy"', '"browse"', "sale: no step of load.steps needs this table"),
        ("[browse]\nshops = 2\n", "", "browse: missing, expected the table [browse] for its step"),
        (
            '"closed"',
            '"stampede"',
            "load.steps: found 2 steps; several are for model =",
        ),
        ('"browse", "buy"]', '"buy", "browse"]\nthink_ms = -1', "load.think_ms: found -1"),
        ("connections = 1", 'connections = 1\nthink = "long"', "load.think: found 'long'"),
        ("steps =", "stages = []\nsteps =", ""),
        ("connections = 1", 'connections = 1\nstages = ["1s:1"]', "load.stages: these are for"),
        (
            "connections = 1",
            'connections = 1\narrivals = "poisson"',
            "load.arrivals: 'poisson' needs load.spread_ms",
        ),
        (
            "connections = 1",
            'connections = 1\nspread_ms = 5\narrivals = "at_once"',
            "load.spread_ms: who comes at once has nothing to spread",
        ),
        (
            "[load]",
            '[thresholds]\n"sign.response.p99" = "< 1s"\n[load]',
            "'sign.response.p99' has no samples in a scenario that asks for 'buy' and 'browse'",
        ),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, message: str) -> None:
    assert old in TEXT
    text = TEXT.replace(old, new)
    if not message:
        assert parse_scenario(text, "s.toml").steps == (Step.BROWSE, Step.BUY)
        return
    with pytest.raises(UsageError) as refused:
        parse_scenario(text, "s.toml")
    assert message in str(refused.value)


def test_signing_in_alone_needs_no_table() -> None:
    text = TEXT.replace("[sale]\nunits = 1\n[browse]\nshops = 2\n", "")
    alone = parse_scenario(text.replace('"browse", "buy"', '"sign"'), "s.toml")
    assert (alone.steps, alone.needs_users) == ((Step.SIGN,), True)


RETRYING = {
    "steps": ("sign", "buy"),
    "think_ms": 7,
    "clicks": 3,
    "retry": {"on": ("shed", "connect"), "times": 2, "backoff_ms": 100},
    "refresh": {"reads": 2, "between": 1, "pause_ms": 4},
}


def test_a_user_refreshes_clicks_and_tries_again() -> None:
    plan = plan_of(scenario(users=4, connections=6, **RETRYING), range(1, 5))
    assert (plan.clicks, plan.retry_on, plan.connection_count) == (3, ("connect", "shed"), 6)
    assert len(plan) == 4 * (1 + 2 + 3 + 2 * 2)
    for first in plan.first_attempts:
        assert Step(plan.asks[first]) is Step.SIGN
        seat = plan.connections[first]
        (one,) = waiting_for(plan, first)
        (two,) = waiting_for(plan, one)
        clicks = waiting_for(plan, two)
        assert [Step(plan.asks[i]) for i in (one, two, *clicks)] == [Step.BROWSE] * 2 + [
            Step.BUY
        ] * 3
        assert plan.things[one] == plan.things[two]
        assert [plan.connections[i] for i in clicks] == [seat, seat + 1, seat + 2]
        assert {plan.at_us[i] for i in clicks} == {7_000}
        assert {(plan.users[i], plan.things[i]) for i in clicks} == {
            (plan.users[first], plan.things[clicks[0]])
        }
        assert not any(plan.is_conditional(i) for i in (first, one, two, *clicks))
        claim, waits = clicks[0], []
        for _ in range(2):
            (read,) = waiting_for(plan, claim)
            (retry,) = waiting_for(plan, read)
            assert plan.given[read] == plan.given[retry] == claim
            assert (plan.at_us[read], plan.things[read]) == (4_000, plan.things[one])
            waits.append(plan.at_us[retry])
            claim = retry
        assert 50_000 <= waits[0] <= 150_000
        assert 100_000 <= waits[1] <= 300_000
        (successor,) = waiting_for(plan, claim)
        assert plan.users[successor] != plan.users[first]


def arriving(**load: object) -> Scenario:
    given = {"model": "rate", "stages": ("1s:30",), "connections": 4, "steps": STEPS, **load}
    return Scenario(
        schema=1,
        name="s",
        load=Load.model_validate(given),
        sale=Sale(vouchers=2, units=4),
        browse=Browse(shops=5),
    )


def test_users_who_arrive_take_their_steps_over_any_connection() -> None:
    plan = plan_of(arriving(think_ms=6), range(1, 31))
    assert (len(plan), len(plan.first_attempts)) == (90, 30)
    assert (plan.open, plan.closed, plan.is_chained) == (True, True, False)
    assert sorted(plan.users[i] for i in plan.first_attempts) == list(range(1, 31))
    instants = [plan.at_us[i] for i in plan.first_attempts]
    assert instants == sorted(instants)
    assert instants[-1] < 1_000_000
    for steps in walk(plan):
        assert [Step(plan.asks[i]).endpoint for i in steps] == list(STEPS)
        assert len({plan.users[i] for i in steps}) == 1
        assert [plan.at_us[i] for i in steps[1:]] == [6_000, 6_000]


def test_an_open_plan_with_steps_is_parted_user_by_user() -> None:
    retrying = {**RETRYING, "connections": 7}
    plan = plan_of(arriving(**retrying), range(1, 31))
    assert (plan.clicks, len(plan)) == (1, 30 * (1 + 2 + 3 + 2 * 2))
    parts = [plan.part(number, 3) for number in (1, 2, 3)]
    assert [part.connection_count for part in parts] == [3, 2, 2]
    owners = [set(part.users) for part in parts]
    assert sum(map(len, owners)) == len(set().union(*owners)) == 30
    assert whole(parts).digest == plan.digest


def test_clicks_at_the_barrier_are_first_attempts() -> None:
    load = Load(model="closed", users=2, connections=4, clicks=2)
    plan = plan_of(Scenario(schema=1, name="s", load=load, sale=Sale(units=1)), [8, 9])
    assert len(plan.first_attempts) == len(plan) == 4
    assert sorted(plan.connections) == [0, 1, 2, 3]
    assert sorted(plan.users) == [8, 8, 9, 9]


def test_a_users_attempts_stay_in_one_part() -> None:
    plan = plan_of(scenario(users=9, connections=9, **RETRYING), range(1, 10))
    parts = [plan.part(number, 3) for number in (1, 2, 3)]
    owners = [set(part.users) for part in parts]
    assert sum(map(len, owners)) == len(set().union(*owners)) == 9
    for part in parts:
        assert (part.connection_count, set(part.connections)) == (3, {0, 1, 2})
        for i in range(len(part)):
            there = part.numbers[i]
            for name in ("after", "given"):
                mine, theirs = getattr(part, name)[i], getattr(plan, name)[there]
                assert theirs == (part.numbers[mine] if mine >= 0 else mine)
    assert whole(parts).digest == plan.digest
    with pytest.raises(ValueError, match="part 1 of 4, and the plan has 3 connections"):
        plan.part(1, 4)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        ({"clicks": 0}, "greater than or equal to 1"),
        ({"clicks": 4, "connections": 6}, "found 6, expected a multiple of load.clicks (4)"),
        ({"clicks": 2, "connections": 14}, "at most load.users (6) times load.clicks (2)"),
        ({"retry": {"on": ("sold_out",)}}, "load.retry.on: found 'sold_out', expected some of"),
        ({"retry": {"on": ()}}, "at least 1 item"),
        ({"retry": {"on": ("shed",), "times": 21}}, "less than or equal to 20"),
        ({"users": 1_000_000, "refresh": {"reads": 20}}, "make 23,000,000 attempts"),
        ({"model": "stampede", "steps": ("buy",), "clicks": 2}, "load.clicks: this is for model"),
        ({"steps": ("browse", "sign"), "retry": {"on": ("shed",)}}, "for a scenario that buys"),
    ],
)
def test_what_cannot_be_tried_again_is_refused(load: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        scenario(**load)  # type: ignore[arg-type]
    assert message in str(refused.value)
