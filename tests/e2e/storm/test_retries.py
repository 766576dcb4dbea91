"""Users who refresh, click several times and try again, on a sale that gives them reason to."""

from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from rig.scripted_sale import FIRST_ORDER, SHED, Act, Claim, ScriptedSale, http, sold
from rig.users_in_steps import HIT, lines_of, selling, visit

from flashsale.run.attempts_file import read_record
from flashsale.storm.figures.conclusion import Finished
from flashsale.verify.attempts import read_attempts

DUPLICATE = http(
    200,
    b'{"success":false,"errorMsg":"Duplicate orders cannot be placed"}',
    {"x-outcome": "duplicate", "x-order-id": str(FIRST_ORDER)},
)
SELLING = """users = 4
connections = 2
steps = ["buy"]
[load.refresh]
reads = 1
between = 1
[load.retry]
on = ["shed"]
times = 3
backoff_ms = 10
"""


def misses(finished: Finished) -> list[str]:
    """What the storm says of attempts that it did not send; how late it was is another matter."""
    complaints = finished.summary.generator.complaints
    return [complaint for complaint in complaints if "planned attempts" in complaint]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_shed_claim_is_made_again_and_the_retries_left_are_spared(
    tmp_path: Path, workers: int
) -> None:
    """Every user is shed twice, so that one of three retries is never needed."""
    claims: Counter[str] = Counter()

    def act(claim: Claim) -> Act:
        if claim.method == "GET":
            return Act(HIT)
        claims[claim.token] += 1
        return Act(SHED if claims[claim.token] < 3 else sold(FIRST_ORDER + claim.number))

    with ScriptedSale(act).open() as sale:
        finished, folder = visit(sale, tmp_path, SELLING, workers=workers)
    load = finished.summary.load
    assert len(finished.plan) == 4 * (1 + 1 + 3 * 2)
    assert load.outcomes == {"hit": 4 * 3, "shed": 4 * 2, "sold": 4}
    assert (load.planned, load.sent, load.spared) == (24, 24, 8)
    assert not misses(finished)
    assert finished.summary.endpoints["buy"].planned == 12
    plan = {line["i"]: line for line in lines_of(folder, "plan")}
    results = {line["i"]: line for line in lines_of(folder, "result")}
    spared = {line["i"] for line in lines_of(folder, "spared")}
    assert all("given" in plan[i] for i in spared)
    for i, result in results.items():
        if "given" in plan[i]:
            assert results[plan[i]["given"]]["outcome"] == "shed"
            assert result["due_us"] == results[plan[i]["after"]]["done_us"] + plan[i]["think_us"]
    again = read_record(folder.attempts).attempts
    assert (sorted(again.spared), again.open) == (sorted(spared), 0)
    judged = read_attempts(folder.path)
    assert (judged.planned, list(judged.claims[1].open())) == (12, [])


def test_a_user_who_is_served_at_once_spares_everything_else(tmp_path: Path) -> None:
    with ScriptedSale(selling(units=4)).open() as sale:
        finished, _ = visit(sale, tmp_path, SELLING)
    load = finished.summary.load
    assert load.outcomes == {"hit": 4, "sold": 4}
    assert (load.planned, load.spared) == (8, 24)
    assert not misses(finished)


def test_one_who_clicks_three_times_gets_one_and_hears_of_it_twice(tmp_path: Path) -> None:
    numbers, held = count(), dict[str, bytes]()

    def act(claim: Claim) -> Act:
        if claim.token in held:
            return Act(DUPLICATE.replace(str(FIRST_ORDER).encode(), held[claim.token]), 0.01)
        order = FIRST_ORDER + next(numbers)
        held[claim.token] = str(order).encode()
        return Act(sold(order), 0.01)

    load = 'users = 5\nconnections = 6\nclicks = 3\nsteps = ["buy"]\nthink_ms = 5'
    with ScriptedSale(act).open() as sale:
        finished, folder = visit(sale, tmp_path, load)
    assert finished.summary.load.outcomes == {"sold": 5, "duplicate": 10}
    results = {line["i"]: line for line in lines_of(folder, "result")}
    instants: dict[int, set[int]] = {}
    for line in lines_of(folder, "plan"):
        instants.setdefault(line["user"], set()).add(results[line["i"]]["due_us"])
    assert all(len(due) == 1 for due in instants.values())


def test_a_click_waits_where_its_connection_still_serves_the_user_before(tmp_path: Path) -> None:
    """The second claim to arrive takes long. Where that is not the leading click, which the next
    user waits for anyhow, the next user's click over its connection has to wait for it."""

    def act(claim: Claim) -> Act:
        slow = claim.number == 1
        return Act(sold(FIRST_ORDER + claim.number), 0.2 if slow else 0.0)

    load = 'users = 2\nconnections = 2\nclicks = 2\nsteps = ["buy"]'
    with ScriptedSale(act).open() as sale:
        finished, folder = visit(sale, tmp_path, load)
    assert finished.summary.load.outcomes == {"sold": 4}
    results = lines_of(folder, "result")
    slow = max(results, key=lambda result: result["done_us"] - result["sent_us"])
    waited = [result for result in results if "free_us" in result]
    if lines_of(folder, "plan")[slow["i"]]["conn"] == 0:
        assert waited == []
        return
    assert len(waited) == 1
    assert waited[0]["due_us"] < slow["done_us"] <= waited[0]["free_us"] <= waited[0]["sent_us"]
    assert finished.figures.start_lag.max_us < 150_000


def test_nobody_tries_again_once_the_run_is_over(tmp_path: Path) -> None:
    """What waited for an answer that never came is not missing: it was never to be made."""

    def act(claim: Claim) -> Act:
        return Act(HIT) if claim.method == "GET" else Act(b"")

    with ScriptedSale(act).open() as sale:
        finished, _ = visit(
            sale, tmp_path, SELLING, "[timeouts]\nrun_ms = 300\nclaim_ms = 1\nresolve_ms = 1\n"
        )
    load = finished.summary.load
    assert load.outcomes == {"hit": 2, "indeterminate": 2, "unsent": 4}
    assert (load.planned, load.sent, load.spared) == (8, 4, 24)
    assert misses(finished) == ["4 of 8 planned attempts were sent"]
