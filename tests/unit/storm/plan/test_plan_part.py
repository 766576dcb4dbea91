"""Parts of a plan: together they are the whole, and each is a plan by itself."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.plans import plan_browse, plan_stampede

from flashsale.run.attempts_file import AttemptsFile, read_plan
from flashsale.scenario.scenario import Browse, Load, Sale, load_scenario
from flashsale.storm.plan.plan import LAST, Plan, whole
from flashsale.storm.plan.planning import plan_of


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Closed and open ones, of claims, of reads, and of both by users who think."""
    connections, seed = draw(st.integers(1, 12)), draw(st.integers(0, 99))
    if draw(st.booleans()):
        load = Load(model="rate", stages=("100ms:300",), connections=connections, seed=seed)
        return plan_browse(load, Browse(shops=5, unknown_share=0.5))
    users = draw(st.integers(connections, 60))
    if draw(st.booleans()):
        return thoughtful(users, connections, seed, draw(st.integers(1, 3)))
    load = Load(
        model="stampede",
        users=users,
        connections=connections,
        spread_ms=draw(st.integers(0, 50)),
        seed=seed,
    )
    if draw(st.booleans()):
        return plan_browse(load, Browse(shops=5))
    return plan_stampede(load, Sale(vouchers=3, units=1), range(1, users + 1))


def thoughtful(users: int, connections: int, seed: int, clicks: int) -> Plan:
    """A closed plan of several steps with pauses, several clicks and another try."""
    scenario = load_scenario("mixed")
    load = {**scenario.load.model_dump(exclude_unset=True)}
    load |= {"users": users, "connections": connections * clicks, "seed": seed}
    load |= {"clicks": clicks, "retry": {"on": ("shed",), "times": 2, "backoff_ms": 100}}
    changed = scenario.model_copy(update={"load": Load.model_validate(load)})
    return plan_of(changed, range(1, users + 1))


def virtual_users(plan: Plan) -> int:
    """How many can come at a time, each with all connections of their own."""
    return plan.connection_count // plan.clicks


def parts(plan: Plan, of: int) -> list[Plan]:
    return [plan.part(number, of) for number in range(1, of + 1)]


@given(plans(), st.data())
def test_each_attempt_and_connection_is_in_one_part(plan: Plan, data: st.DataObject) -> None:
    shares = parts(plan, data.draw(st.integers(1, virtual_users(plan))))
    assert sorted(i for part in shares for i in part.numbers) == list(range(len(plan)))
    assert sum(part.connection_count for part in shares) == plan.connection_count
    assert all(part.connection_count for part in shares)


@given(plans(), st.data())
def test_an_attempt_is_what_it_was_in_the_whole(plan: Plan, data: st.DataObject) -> None:
    of = data.draw(st.integers(1, virtual_users(plan)))
    for number, part in enumerate(parts(plan, of)):
        for name in ("asks", "users", "things", "at_us"):
            whole, share = getattr(plan, name), getattr(part, name)
            assert list(share) == ([whole[i] for i in part.numbers] if len(whole) else [])
        if not plan.open:
            places = [divmod(lane, plan.clicks) for lane in part.connections]
            lanes = [(user * of + number) * plan.clicks + click for user, click in places]
            assert lanes == [plan.connections[i] for i in part.numbers]


@given(plans(), st.data())
def test_chains_stay_whole(plan: Plan, data: st.DataObject) -> None:
    def links(of: Plan) -> list[int]:
        """The follower of each attempt, by its name in the whole plan."""
        names = of.numbers or range(len(of))
        return [LAST if then == LAST else names[then] for then in of.following]

    whole = links(plan)
    for part in parts(plan, data.draw(st.integers(1, virtual_users(plan)))):
        assert links(part) == [whole[i] for i in part.numbers]


@given(plans(), st.data())
def test_a_part_is_a_plan_to_an_engine(plan: Plan, data: st.DataObject) -> None:
    """First attempts come first, one a connection, in the order in which they are due."""
    for part in parts(plan, data.draw(st.integers(1, virtual_users(plan)))):
        firsts = part.first_attempts
        assert all(part.at_us[a] <= part.at_us[b] for a, b in pairwise(firsts))
        if part.is_chained and not part.open:
            assert [part.connections[i] for i in firsts] == list(range(part.connection_count))
            followed = {then for then in part.following if then != LAST}
            assert followed == set(range(len(part))) - set(firsts)


@given(plans(), st.data())
def test_all_parts_make_the_whole_again(plan: Plan, data: st.DataObject) -> None:
    shares = parts(plan, data.draw(st.integers(1, virtual_users(plan))))
    again = whole(shares)
    assert again.digest == plan.digest
    assert len(again) == len(plan)
    if len(shares[-1]):
        with pytest.raises(ValueError, match="not each attempt"):
            whole([*shares, shares[-1]])


@given(plans(), st.data())
def test_a_part_can_be_parted(plan: Plan, data: st.DataObject) -> None:
    part = plan.part(1, data.draw(st.integers(1, virtual_users(plan))))
    smaller = parts(part, virtual_users(part))
    assert sorted(i for each in smaller for i in each.numbers) == list(range(len(part)))
    assert whole(smaller).digest == part.digest


@given(plans(), st.data())
def test_a_part_is_read_from_its_file_as_it_was_written(plan: Plan, data: st.DataObject) -> None:
    of = data.draw(st.integers(1, virtual_users(plan)))
    with TemporaryDirectory() as folder:
        shares = []
        for number, part in enumerate(parts(plan, of)):
            path = Path(folder) / f"{number}.jsonl"
            with AttemptsFile(path) as attempts:
                header = {
                    "planned": len(part),
                    "connections": part.connection_count,
                    "clicks": part.clicks,
                    "retry_on": part.retry_on,
                }
                attempts.write_plan(header, part)
            shares.append(Plan.of(read_plan(path)))
    assert whole(shares).digest == plan.digest


@given(plans())
def test_the_one_part_of_one_is_the_plan(plan: Plan) -> None:
    assert plan.part(1, 1).digest == plan.digest


@pytest.mark.parametrize(("number", "of"), [(0, 2), (3, 2), (1, 4)])
def test_there_is_no_part_without_a_connection(number: int, of: int) -> None:
    load = Load(model="stampede", users=9, connections=3)
    plan = plan_stampede(load, Sale(units=1), range(1, 10))
    with pytest.raises(ValueError, match=f"part {number} of {of}, and the plan has 3 connections"):
        plan.part(number, of)
