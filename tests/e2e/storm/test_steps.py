"""Users who take several steps, on a shop that answers as it is told."""

from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from rig.scripted_sale import Act, Claim, ScriptedSale
from rig.users_in_steps import lines_of, selling, visit

from flashsale.run.folder import create_run_folder
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.target import Target
from flashsale.storm.storm import Assignment, storm


def test_steps_are_counted_and_judged_by_endpoint(tmp_path: Path) -> None:
    thresholds = """[thresholds]
"browse.hit.share" = "== 100%"
"sign.signed.count" = "== 20"
"buy.sold.share" = "== 25%"
"browse.response.p50" = "< 5s"
"sign.service.p50" = "< 5s"
"buy.response.p50" = "< 5s"
"""
    load = 'users = 20\nconnections = 6\nsteps = ["browse", "browse", "sign", "buy"]'
    with ScriptedSale(selling(units=5)).open() as sale:
        finished, folder = visit(sale, tmp_path, load, thresholds)
    summary = finished.summary
    assert (summary.load.asked, summary.load.users, summary.load.planned) == ("steps", 20, 80)
    assert summary.load.outcomes == {"hit": 40, "signed": 20, "sold": 5, "sold_out": 15}
    assert {name: found.planned for name, found in summary.endpoints.items()} == {
        "buy": 20,
        "browse": 40,
        "sign": 20,
    }
    assert summary.endpoints["buy"].outcomes == {"sold": 5, "sold_out": 15}
    assert summary.endpoints["sign"].response.count == 20
    assert (summary.orders.accepted, summary.orders.rejected) == (5, 15)
    assert {judged.verdict for judged in summary.thresholds} == {"pass"}
    tags = {line.split(",")[0] for line in folder.hlog.read_text().splitlines() if "Tag" in line}
    assert {"Tag=browse.hit.response", "Tag=sign.signed.service", "Tag=buy.sold.response"} <= tags
    assert Counter(line.get("ask", "buy") for line in lines_of(folder, "plan")) == {
        "browse": 40,
        "sign": 20,
        "buy": 20,
    }
    asked = Counter(visit.path for visit in (*sale.claims, *sale.others))
    assert asked["/user/sign"] == 20
    assert {claim.token for claim in sale.claims} == {f"token-{n}" for n in range(1, 21)}


def test_a_step_is_due_a_pause_after_the_answer_before_it(tmp_path: Path) -> None:
    load = 'users = 4\nconnections = 2\nsteps = ["browse", "buy"]\nthink_ms = 30'
    with ScriptedSale(selling(units=5, delay_s=0.02)).open() as sale:
        finished, folder = visit(sale, tmp_path, load)
    results = {result["i"]: result for result in lines_of(folder, "result")}
    plan = lines_of(folder, "plan")
    for line in plan:
        result = results[line["i"]]
        assert result["sent_us"] >= result["due_us"]
        if "after" in line:
            assert line["think_us"] == 30_000
            assert result["due_us"] == results[line["after"]]["done_us"] + 30_000
    assert finished.summary.load.duration_s >= 4 * 0.02 + 3 * 0.03
    for lane in (0, 1):
        mine = [results[line["i"]] for line in plan if line["conn"] == lane]
        mine.sort(key=lambda result: result["sent_us"])
        assert len(mine) == 4
        assert all(later["sent_us"] >= earlier["done_us"] for earlier, later in pairwise(mine))


def test_a_connection_that_breaks_costs_one_step_and_the_user_goes_on(tmp_path: Path) -> None:
    answers = selling(units=5)

    def act(claim: Claim) -> Act:
        return Act(then="reset") if claim.path == "/user/sign" else answers(claim)

    load = 'users = 4\nconnections = 2\nsteps = ["browse", "sign", "buy"]'
    with ScriptedSale(act).open() as sale:
        finished, _ = visit(sale, tmp_path, load)
    assert finished.summary.load.outcomes == {"hit": 4, "sold": 4, "indeterminate": 4}
    assert finished.summary.load.errors == {"reset": 4}
    assert finished.summary.load.resolved == 0  # a sign-in leaves nothing to ask after


def test_buyers_with_instants_of_their_own_take_any_connection(tmp_path: Path) -> None:
    scenario = 'schema = 1\nname = "rate"\n[sale]\nunits = 5\n[load]\nmodel = "rate"\n'
    load = 'stages = ["200ms:50", "100ms:100"]\nconnections = 4\n'
    folder = create_run_folder("rate", tmp_path / "run", datetime.now(UTC))
    with ScriptedSale(selling(units=5)).open() as sale:
        target = Target.at(sale.base_url)
        tokens = {user: f"token-{user}" for user in range(1, 21)}
        found = storm(
            Assignment(parse_scenario(scenario + load, "rate"), target, folder),
            tokens,
            lambda _: None,
        )
    assert found.summary.load.outcomes == {"sold": 5, "sold_out": 15}
    assert found.summary.load.users == 20
    assert sorted(line["user"] for line in lines_of(folder, "plan")) == list(range(1, 21))
    assert not any("conn" in line for line in lines_of(folder, "plan"))


def test_users_who_arrive_and_stay_a_while_share_the_connections(tmp_path: Path) -> None:
    """Ten come at each of two instants, over three connections; each step waits its turn."""
    load = """stages = ["100ms:100", "100ms:100"]
arrivals = "at_once"
connections = 3
steps = ["browse", "sign", "buy"]
think_ms = 15
"""
    with ScriptedSale(selling(units=5, delay_s=0.002)).open() as sale:
        finished, folder = visit(sale, tmp_path, load, model="rate")
        assert sale.connections == 3
    assert finished.summary.load.outcomes == {"hit": 20, "signed": 20, "sold": 5, "sold_out": 15}
    assert (finished.summary.load.users, finished.summary.load.closed) == (20, False)
    results = {line["i"]: line for line in lines_of(folder, "result")}
    plan = lines_of(folder, "plan")
    assert {line["at_us"] for line in plan if "at_us" in line} == {0, 100_000}
    for line in plan:
        if "after" in line:
            assert results[line["i"]]["due_us"] == results[line["after"]]["done_us"] + 15_000
    assert any("free_us" in result for result in results.values())
    flying = sorted((r["sent_us"], 1) for r in results.values())
    flying += sorted((r["done_us"], -1) for r in results.values())
    now = most = 0
    for _, step in sorted(flying):
        now += step
        most = max(most, now)
    assert most <= 3


def test_a_connection_that_breaks_while_users_arrive_is_opened_again(tmp_path: Path) -> None:
    answers = selling(units=50)

    def act(claim: Claim) -> Act:
        return Act(then="reset") if claim.path == "/user/sign" else answers(claim)

    load = 'stages = ["200ms:50"]\nconnections = 2\nsteps = ["browse", "sign", "buy"]'
    with ScriptedSale(act).open() as sale:
        finished, _ = visit(sale, tmp_path, load, model="rate")
    assert finished.summary.load.outcomes == {"hit": 10, "sold": 10, "indeterminate": 10}
