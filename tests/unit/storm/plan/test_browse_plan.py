import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.plans import plan_browse

from flashsale.errors import UsageError
from flashsale.scenario.load import Step
from flashsale.scenario.scenario import Browse, Load, load_scenario, parse_scenario
from flashsale.storm.plan.plan import LAST, UNKNOWN_FROM

READS = """# Does it read?
schema = 1
name = "reads"
[browse]
shops = 10
[load]
model = "rate"
stages = ["1s:200", "500ms:50"]
connections = 4
"""


def rate(seed: int = 1, arrivals: str = "poisson") -> Load:
    return Load.model_validate(
        {
            "model": "rate",
            "stages": ("1s:200", "500ms:50"),
            "connections": 4,
            "arrivals": arrivals,
            "seed": seed,
        }
    )


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**63 - 1), arrivals=st.sampled_from(["poisson", "uniform", "even"]))
def test_each_stage_has_the_arrivals_of_its_rate_in_order(seed: int, arrivals: str) -> None:
    plan = plan_browse(rate(seed, arrivals), Browse(shops=10))
    assert list(plan.at_us) == sorted(plan.at_us)
    assert sum(at < 1_000_000 for at in plan.at_us) == 200
    assert sum(1_000_000 <= at < 1_500_000 for at in plan.at_us) == 25 == len(plan) - 200
    assert plan.first_attempts == range(225)
    assert set(plan.following) == {LAST}
    assert set(plan.things) <= set(range(1, 11))
    assert (plan.open, plan.closed) == (True, False)


def test_even_arrivals_keep_their_distance() -> None:
    plan = plan_browse(rate(arrivals="even"), Browse(shops=1))
    assert list(plan.at_us[:3]) == [0, 5_000, 10_000]
    assert set(plan.things) == {1}


def test_the_seed_decides_and_the_hash_names_the_plan() -> None:
    browse = Browse(shops=10)
    plan = plan_browse(rate(7), browse)
    assert plan == plan_browse(rate(7), browse)
    assert plan.digest == plan_browse(rate(7), browse).digest
    others = (plan_browse(rate(8), browse), plan_browse(rate(7), Browse(shops=11)))
    assert plan.digest not in {other.digest for other in others}


def test_a_share_of_the_ids_is_unknown() -> None:
    browse = Browse(shops=3, first_shop=5, unknown_share=0.9)
    shops = plan_browse(rate(), browse).things
    unknown = [shop for shop in shops if shop >= UNKNOWN_FROM]
    assert 185 <= len(unknown) <= 215
    assert len(set(unknown)) == len(unknown)
    known = set(shops) - set(unknown)
    assert known <= {5, 6, 7}
    assert plan_browse(rate(), browse).asked() == (len(known), len(unknown))


def test_a_stampede_of_readers_is_closed_over_fewer_connections() -> None:
    load = Load(model="stampede", users=5, connections=2)
    plan = plan_browse(load, Browse(shops=1))
    assert list(plan.connections) == [0, 1, 0, 1, 0]
    assert list(plan.following) == [2, 3, 4, LAST, LAST]
    assert (plan.closed, plan.first_attempts) == (True, range(2))


@pytest.mark.parametrize("name", ["avalanche", "breakdown", "browse", "hot-stale", "penetration"])
def test_the_scenarios_of_reads_demand_something_of_the_database(name: str) -> None:
    scenario = load_scenario(name)
    assert (scenario.name, scenario.sale) == (name, None)
    assert scenario.question.endswith("?")
    assert any(threshold.name.startswith("database.") for threshold in scenario.thresholds)


def test_a_scenario_of_reads_needs_no_sale() -> None:
    scenario = parse_scenario(READS, "reads.toml")
    assert (scenario.sale, scenario.steps, scenario.load.open) == (None, (Step.BROWSE,), True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"1s:200"', '"200/s"', "load.stages: found '200/s', expected such as '10s:2000'"),
        ('["1s:200", "500ms:50"]', "[]", "load.stages: found 0 arrivals, expected 1 to"),
        ('"1s:200"', '"9999s:9999"', "load.stages: found 99,980,026 arrivals, expected 1 to"),
        ("[load]", "[load]\nusers = 3", "load.users, load.spread_ms: these are not for model"),
        ('"rate"', '"stampede"', "load.stages: these are for model = 'rate'"),
        ("[browse]\nshops = 10\n", "", "sale: missing, expected the table [sale], or [browse]"),
        (
            "[browse]",
            "[sale]\nunits = 1\n[browse]",
            "load.steps: missing, expected what a user does",
        ),
        ("[load]", '[load]\nsteps = ["buy"]', "sale: missing, expected the table [sale] for its"),
        (
            "[browse]",
            "[sale]\nunits = 1\n[browse]",
            'expected what a user does with [sale] and [browse], such as ["browse", "buy"]',
        ),
        (
            "[browse]\nshops = 10",
            "[sale]\nunits = 1\n[prepare]",
            "prepare: this is for a scenario with a [browse]",
        ),
        ("[load]", '[prepare]\nentries = "old"\n[load]', "prepare.entries: found 'old'"),
        ("shops = 10", "shopz = 10", "browse.shopz: no such key, did you mean 'shops'?"),
        ("shops = 10", "shops = 10\nunknown_share = 2", "browse.unknown_share: found 2"),
        (
            "[load]",
            '[thresholds]\n"buy.response.p99" = "< 1s"\n[load]',
            "thresholds: 'buy.response.p99' has no samples in a scenario",
        ),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_scenario(READS.replace(old, new), "reads.toml")
    assert message in str(refused.value)
