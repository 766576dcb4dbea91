"""The schedule: what is due when and over which connection, for each kind of plan."""

from array import array
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.plans import plan_browse, plan_stampede

from flashsale.model import Outcome
from flashsale.run.attempts import ALWAYS, FIRST, NEVER
from flashsale.scenario.answer import Answer, indeterminate, unsent
from flashsale.scenario.load import Load
from flashsale.scenario.scenario import Browse, Sale, Scenario
from flashsale.storm.attack.schedule import Schedule
from flashsale.storm.plan.plan import Plan
from flashsale.storm.plan.planning import plan_of

US, ORIGIN = 1_000, 5_000_000_000
SOLD_OUT, SHED = Answer(Outcome.SOLD_OUT, 200), Answer(Outcome.SHED, 503)


def plan(
    *at_us: int,
    after: Sequence[int] = (),
    given: Sequence[int] = (),
    connections: Sequence[int] = (),
    count: int = 2,
    clicks: int = 1,
    cold: bool = False,
) -> Plan:
    """Claims of user 7, due at these instants or so long after others."""
    return Plan(
        asks=array("b", [0] * len(at_us)),
        users=array("q", [7] * len(at_us)),
        things=array("q", [1] * len(at_us)),
        connections=array("q", connections),
        at_us=array("q", at_us),
        connection_count=count,
        after=array("q", after),
        given=array("q", given),
        retry_on=("shed",),
        clicks=clicks,
        cold=cold,
    )


class Firing:
    """Fires a plan by hand: `out` are attempts under way with their connections."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.schedule, self.now = plan, Schedule(plan), ORIGIN
        self.out: dict[int, int] = {}
        self.sent: list[int] = []
        self.done_ns: dict[int, int] = {}
        self.schedule.start(ORIGIN)

    def fire(self, at_us: int | None = None) -> list[int]:
        """What leaves at this instant after the barrier, else at the next one that is known."""
        instant = self.schedule.next_ns if at_us is None else ORIGIN + at_us * US
        assert instant is not None
        assert instant >= self.now or at_us is None
        self.now = max(self.now, instant)
        before = len(self.sent)
        while (due := self.schedule.pop(self.now)) is not None:
            self._send(*due)
        return self.sent[before:]

    def end(self, attempt: int, at_us: int | None = None, answer: Answer = SOLD_OUT) -> int | None:
        """`attempt` ends so; who takes over its connection."""
        self.now = self.now if at_us is None else ORIGIN + at_us * US
        connection, self.done_ns[attempt] = self.out.pop(attempt), self.now
        following = self.schedule.ended(attempt, connection, self.now, answer)
        if following is not None:
            self._send(following, connection)
        return following

    def due_us(self, attempt: int) -> int:
        return (self.schedule.due_ns[attempt] - ORIGIN) // US

    def free_us(self, attempt: int) -> int | None:
        free = self.schedule.free_ns[attempt]
        return None if free == NEVER else (free - ORIGIN) // US

    @property
    def next_us(self) -> int | None:
        at_ns = self.schedule.next_ns
        return None if at_ns is None else (at_ns - ORIGIN) // US

    def _send(self, attempt: int, connection: int) -> None:
        assert connection not in self.out.values(), "two attempts on one connection"
        assert self.plan.open or connection == self.plan.connections[attempt]
        assert 0 <= self.schedule.due_ns[attempt] <= self.now, "sent before it is due"
        self.out[attempt] = connection
        self.sent.append(attempt)


# Chains.


def test_nothing_is_due_before_the_barrier_opens() -> None:
    schedule = Schedule(plan(0, 0, connections=[0, 1]))
    assert (schedule.pop(ORIGIN), schedule.next_ns) == (None, None)
    schedule.start(ORIGIN)
    assert schedule.next_ns == ORIGIN
    assert schedule.pop(ORIGIN - 1) is None
    assert [schedule.pop(ORIGIN) for _ in range(3)] == [(0, 0), (1, 1), None]


def test_in_a_stampede_the_next_of_a_connection_is_due_with_the_answer_before_it() -> None:
    firing = Firing(plan(0, 0, 0, 0, after=[-1, -1, 0, 1], connections=[0, 1, 0, 1]))
    assert firing.fire(0) == [0, 1]
    assert firing.out == {0: 0, 1: 1}
    assert firing.end(1, 50) == 3
    assert (firing.due_us(3), firing.out) == (50, {0: 0, 3: 1})
    assert firing.end(0, 70) == 2
    assert firing.due_us(2) == 70
    assert (firing.end(2, 90), firing.end(3, 90), firing.next_us) == (None, None, None)
    assert not firing.schedule.has_pauses
    assert not firing.schedule.free_ns, "nobody waits for a connection but its own chain"


def test_a_spread_stampede_begins_at_instants_of_its_own() -> None:
    firing = Firing(plan(10, 30, 0, after=[-1, -1, 0], connections=[0, 1, 0]))
    assert (firing.next_us, firing.fire(9), firing.fire(10)) == (10, [], [0])
    assert firing.end(0, 12) == 2
    assert (firing.next_us, firing.fire(29), firing.fire(31)) == (30, [], [1])
    assert firing.due_us(1) == 30


def test_a_chain_goes_on_whatever_becomes_of_an_attempt() -> None:
    firing = Firing(plan(0, 0, 0, after=[-1, 0, 1], connections=[0, 0, 0], count=1))
    firing.fire(0)
    assert firing.end(0, answer=indeterminate("reset")) == 1
    assert firing.end(1, answer=unsent("connect")) == 2


def test_a_chains_connection_that_broke_counts_as_lateness_and_a_cold_one_does_not() -> None:
    """Of a cold one that is the target's time alone, not what lies before the handshake."""
    warm = Firing(plan(10, connections=[0], count=1))
    warm.fire(10)
    warm.schedule.reopened(0, ORIGIN + 12 * US, ORIGIN + 40 * US)
    assert not warm.schedule.free_ns
    cold = Firing(plan(10, 10, connections=[0, 1], cold=True))
    assert cold.fire(15) == [0, 1]
    cold.schedule.reopened(0, ORIGIN + 16 * US, ORIGIN + 40 * US)
    assert (cold.free_us(0), cold.free_us(1)) == (10 + 24, None)
    assert (cold.end(0, 50), cold.end(1, 51), cold.next_us) == (None, None, None)


# Open arrivals.


def test_who_arrives_takes_a_free_connection_and_who_has_waited_longest_goes_next() -> None:
    firing = Firing(plan(0, 1, 2, 3, 40))
    assert firing.fire(1) == [0, 1]
    assert firing.fire(3) == []
    assert firing.next_us == 40
    assert firing.end(1, 20) == 2
    assert (firing.out[2], firing.due_us(2), firing.free_us(2)) == (1, 2, 20)
    assert firing.end(2, 25) == 3
    assert (firing.end(3, 30), firing.end(0, 31)) == (None, None)
    assert (firing.fire(), firing.out, firing.free_us(4)) == ([4], {4: 1}, None)
    assert not firing.schedule.has_pauses


def test_a_connection_that_is_reopened_for_an_arrival_is_free_from_then_on() -> None:
    firing = Firing(plan(0, count=1))
    firing.fire(0)
    firing.schedule.reopened(0, ORIGIN + 5 * US, ORIGIN + 30 * US)
    assert firing.free_us(0) == 30


# Users who take several steps.


def test_a_step_is_due_a_pause_after_the_answer_before_it() -> None:
    firing = Firing(plan(0, 5, 20, 10, after=[-1, -1, 0, 1], connections=[0, 1, 0, 1]))
    assert firing.schedule.has_pauses
    assert (firing.fire(0), firing.next_us) == ([0], 5)
    assert firing.end(0, 3) is None
    assert (firing.due_us(2), firing.next_us) == (23, 5)
    assert firing.fire() == [1]
    firing.end(1, 9)
    assert (firing.due_us(3), firing.next_us) == (19, 19)
    assert (firing.fire(18), firing.fire(19), firing.out) == ([], [3], {3: 1})
    assert (firing.fire(), firing.out, firing.free_us(2)) == ([2], {3: 1, 2: 0}, None)


def test_of_two_that_are_due_at_once_the_plans_first_goes_first() -> None:
    """An instant of its own and a pause that ends then: in the order of the plan."""
    firing = Firing(plan(0, 8, 8, after=[-1, -1, 0], connections=[0, 1, 0]))
    firing.fire(0)
    firing.end(0, 0)
    assert firing.fire(8) == [1, 2]


def test_a_click_waits_for_its_own_connection_though_another_is_free() -> None:
    """Two users click twice each; the second user waits for the first one's leading click alone."""
    clicking = plan(0, 0, 4, 4, after=[-1, -1, 0, 0], connections=[0, 1, 0, 1], clicks=2)
    firing = Firing(clicking)
    assert firing.fire(0) == [0, 1]
    firing.end(0, 10)
    assert firing.fire(14) == [2]
    assert firing.out == {1: 1, 2: 0}
    assert firing.end(2, 20) is None
    assert firing.fire(25) == []
    assert firing.end(1, 30) == 3
    assert (firing.due_us(3), firing.free_us(3), firing.out) == (14, 30, {3: 1})


def test_who_waits_longest_for_a_busy_connection_takes_it_over_next() -> None:
    """Follower 3 makes it no chain."""
    busy = Firing(plan(0, 1, 2, 5, connections=[0, 0, 0, 0], after=[-1, -1, -1, 0], count=1))
    assert busy.fire(2) == [0]
    assert (busy.end(0, 10), busy.end(1, 11)) == (1, 2)
    assert (busy.free_us(1), busy.free_us(2)) == (10, 11)


def test_users_who_arrive_take_each_step_over_whichever_connection_is_free() -> None:
    firing = Firing(plan(0, 0, 0, 5, 5, 5, after=[-1, -1, -1, 0, 1, 2]))
    assert (firing.fire(0), firing.out) == ([0, 1], {0: 0, 1: 1})
    assert firing.end(0, 10) == 2
    assert firing.fire(15) == []
    assert firing.end(1, 20) == 3
    assert (firing.due_us(3), firing.free_us(3), firing.out) == (15, 20, {2: 0, 3: 1})
    firing.end(3, 22)
    assert (firing.fire(25), firing.out[4]) == ([4], 1)


# Trying again.


def plan_of_one_user() -> Plan:
    """Claim 0; if that fails a read 1, then claim 2; if that fails claim 3; at last a sign-in 4.
    Claim 5 is a second click beside claim 0's follower, 1."""
    return plan(
        *(0, 10, 20, 30, 40, 50),
        connections=[0, 0, 0, 0, 0, 1],
        after=[FIRST, 0, 1, 2, 3, 0],
        given=[ALWAYS, 0, 0, 2, ALWAYS, ALWAYS],
        clicks=2,
    )


@pytest.mark.parametrize(
    ("failing", "ended", "due", "spared"),
    [
        ((), (0,), [4, 5], [1, 2, 3]),
        ((0,), (0,), [1, 5], []),
        ((0,), (0, 1), [2, 5], []),
        ((0,), (0, 1, 2), [4, 5], [3]),
        ((0, 2), (0, 1, 2), [3, 5], []),
        ((0, 2), (0, 1, 2, 3), [4, 5], []),
        ((0, 1, 2, 3), (0, 1, 2, 3, 4), [5], []),
    ],
)
def test_who_waits_for_what_is_spared_waits_for_what_came_before(
    failing: Sequence[int], ended: Sequence[int], due: list[int], spared: list[int]
) -> None:
    """That a retry came to nothing (1 is a read) makes no other claim."""
    schedule = Schedule(plan_of_one_user())
    schedule.start(ORIGIN)
    assert schedule.pop(ORIGIN) == (0, 0)
    for i in ended:
        schedule.ended(i, 0, ORIGIN, SHED if i in failing else SOLD_OUT)
    assert schedule.spared == spared
    pausing = {i for i in range(1, 6) if schedule.due_ns[i] != NEVER} - set(ended)
    assert sorted(pausing) == due


def test_a_claim_is_tried_again_for_the_reasons_of_its_plan_alone() -> None:
    for answer in (SOLD_OUT, indeterminate("reset"), unsent("connect")):
        firing = Firing(plan_of_one_user())
        firing.fire(0)
        firing.end(0, answer=answer)
        assert firing.schedule.spared == [1, 2, 3]


# Whatever the plan.


def test_once_closed_nothing_becomes_due_whatever_ends() -> None:
    chain = plan(0, 0, 0, after=[-1, -1, 0], connections=[0, 1, 0])
    for closing in (chain, plan(0, 0, 0), plan_of_one_user(), plan(0, 9, connections=[0, 1])):
        firing = Firing(closing)
        out = firing.fire(0)
        firing.schedule.close()
        assert firing.schedule.next_ns is None
        assert [firing.end(i, 10, SHED) for i in out] == [None] * len(out)
        assert firing.schedule.pop(ORIGIN + 10**12) is None
        assert firing.schedule.spared == []
        assert not firing.schedule.has_pauses


def test_a_pause_that_has_begun_ends_in_nothing_once_closed() -> None:
    firing = Firing(plan_of_one_user())
    firing.fire(0)
    firing.end(0, 1)
    assert firing.next_us is not None
    firing.schedule.close()
    assert (firing.schedule.next_ns, firing.schedule.pop(ORIGIN + 10**12)) == (None, None)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Of every kind that a scenario can ask for."""
    connections, seed = draw(st.integers(1, 6)), draw(st.integers(0, 99))
    common: dict[str, object] = {"seed": seed}
    kind = draw(st.sampled_from(["stampede", "cold", "rate", "read", "closed", "visits"]))
    if kind in ("rate", "read", "visits"):
        common |= {"model": "rate", "stages": ("100ms:120",), "connections": connections}
    else:
        model = "closed" if kind == "closed" else "stampede"
        users = connections if kind == "cold" else draw(st.integers(connections, 20))
        common |= {"model": model, "users": users, "connections": connections}
        common["spread_ms"] = draw(st.integers(0, 20))
    match kind:
        case "cold":
            common["connect"] = "cold"
        case "read":
            return plan_browse(Load.model_validate(common), Browse(shops=5))
        case "closed" | "visits":
            common |= draw(visits(clicks=1 if kind == "closed" else 2))
            if kind == "closed" and draw(st.booleans()):
                common |= {"clicks": 2, "connections": 2 * connections}
            sale, browse = Sale(vouchers=2, units=4), Browse(shops=5)
            made = Scenario(
                schema=1, name="s", load=Load.model_validate(common), sale=sale, browse=browse
            )
            return plan_of(made, range(1, 21))
    return plan_stampede(Load.model_validate(common), Sale(vouchers=3, units=1), range(1, 21))


def visits(clicks: int) -> st.SearchStrategy[dict[str, object]]:
    """Several steps with and without pauses, refresh and retries."""
    return st.fixed_dictionaries(
        {
            "steps": st.sampled_from([("browse", "buy"), ("browse", "sign", "buy")]),
            "think_ms": st.integers(0, 3),
            "think": st.sampled_from(["fixed", "exponential"]),
            "clicks": st.just(clicks),
            "refresh": st.just({"reads": 1, "between": 1, "pause_ms": 1}),
            "retry": st.fixed_dictionaries(
                {
                    "on": st.just(("shed", "unknown")),
                    "times": st.integers(1, 3),
                    "backoff_ms": st.integers(0, 2),
                }
            ),
        }
    )


@settings(deadline=None, max_examples=60)
@given(plans(), st.randoms(use_true_random=False))
def test_every_attempt_becomes_due_once_or_is_spared_in_whatever_order_others_end(
    plan: Plan, random: Random
) -> None:
    firing, failed = Firing(plan), set[int]()
    for _ in range(2 * len(plan) + 1):  # each attempt leaves and ends once
        if not firing.out and firing.schedule.next_ns is None:
            break
        if firing.out and (firing.schedule.next_ns is None or random.random() < 0.5):
            attempt = random.choice(list(firing.out))
            answer = random.choice([SOLD_OUT, SHED, indeterminate("reset"), unsent("connect")])
            failed |= {attempt} if answer in (SHED, indeterminate("reset")) else set()
            firing.end(attempt, answer=answer)
            firing.now += random.randrange(2_000_000)
        else:
            firing.fire()
    spared = firing.schedule.spared
    assert Counter(firing.sent + spared) == Counter(range(len(plan)))
    for i in spared:
        assert plan.given[i] not in failed, "spared, and its claim had failed"
    for i in firing.sent:
        assert not plan.is_conditional(i) or plan.given[i] in failed
        if i in plan.first_attempts:
            since_ns = ORIGIN
        else:
            before = plan.after[i]
            while before in spared:
                before = plan.after[before]
            since_ns = firing.done_ns[before]
        assert firing.schedule.due_ns[i] == since_ns + plan.at_us[i] * US
    firsts = [i for i in firing.sent if i in plan.first_attempts]
    if not plan.closed:
        assert firsts == sorted(firsts), "first come, first served"
