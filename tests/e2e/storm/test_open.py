"""Open arrivals on a scripted shop: everybody is timed from the instant at which they came."""

import time
from collections import Counter
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import orjson
from rig.scripted_sale import Act, Claim, ScriptedSale, http

from flashsale.model import Outcome, Reading, Verdict
from flashsale.run.attempts_file import read_record
from flashsale.run.folder import create_run_folder
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.target import Target
from flashsale.scenario.thresholds import CLOCKS
from flashsale.storm.figures.conclusion import Finished
from flashsale.storm.figures.figures import Figures
from flashsale.storm.plan.plan import UNKNOWN_FROM
from flashsale.storm.storm import Assignment, storm

HIT = http(200, b'{"success":true,"data":{"id":1}}', {"x-cache": "hit"})
BLOOM = http(404, b'{"success":false}', {"x-cache": "bloom"})


def browse(shop: ScriptedSale, folder: Path, stages: str, **tables: Any) -> Finished:
    """A storm of reads: `rate` over `connections`, two shops and `unknown_share`."""
    text = f"""schema = 1
name = "reads"
[browse]
shops = 2
unknown_share = {tables.get("unknown_share", 0.0)}
[load]
model = "rate"
stages = {stages}
connections = {tables.get("connections", 8)}
[timeouts]
request_ms = {tables.get("request_ms", 5_000)}
run_ms = {tables.get("run_ms", 60_000)}
[thresholds]
{tables.get("thresholds", "")}
"""
    run = create_run_folder("reads", folder / "run", datetime.now(UTC))
    assignment = Assignment(parse_scenario(text, "reads"), Target.at(shop.base_url), run)
    finished = storm(assignment, {}, lambda _: time.sleep(tables.get("busy_s", 0)))
    lines = [orjson.loads(line) for line in run.attempts.read_bytes().splitlines()]
    plans = [line for line in lines if line["kind"] == "plan"]
    results = [line for line in lines if line["kind"] == "result"]
    assert len(plans) == finished.summary.load.planned
    assert sorted(result["i"] for result in results) == [plan["i"] for plan in plans]
    assert all(result["due_us"] == plans[result["i"]]["at_us"] for result in results)
    check_recomputed(finished.figures, run.attempts)
    return finished


def check_recomputed(figures: Figures, attempts: Path) -> None:
    """Every figure comes out the same from the file alone."""
    record = read_record(attempts)
    again = Figures(record.attempts, record.plan.asks)
    for name in ("planned", "sent", "outcomes", "errors", "duration_s", "rate_per_s"):
        assert getattr(again, name) == getattr(figures, name), name
    assert (again.censored, again.lost) == (figures.censored, figures.lost)
    assert again.start_lag.hgrm() == figures.start_lag.hgrm()
    assert again.timeline() == figures.timeline()
    assert again.hlog() == figures.hlog()
    for clock in CLOCKS:
        for outcome in (None, *Reading, *Outcome):
            latency = figures.latency(clock, outcome)
            assert again.latency(clock, outcome).hgrm() == latency.hgrm(), (clock, outcome)


def test_reads_are_counted_by_what_x_cache_says(tmp_path: Path) -> None:
    def act(claim: Claim) -> Act:
        unknown = int(claim.path.rpartition("/")[2]) >= UNKNOWN_FROM
        return Act(BLOOM if unknown else HIT, delay_s=0.05)  # so long that no start is late

    thresholds = '"browse.bloom.share" = "< 60%"\n"browse.hit.count" = "> 100"'
    with ScriptedSale(act).open() as shop:
        finished = browse(
            shop,
            tmp_path,
            '["500ms:600"]',
            unknown_share=0.5,
            connections=200,
            thresholds=thresholds,
        )
    asked = Counter(claim.path for claim in shop.others)
    summary = finished.summary
    assert (summary.load.asked, summary.load.planned) == ("reads", 300)
    assert summary.load.outcomes["hit"] == asked["/shop/1"] + asked["/shop/2"]
    assert summary.load.outcomes["hit"] + summary.load.outcomes["bloom"] == 300
    assert {judged.verdict for judged in summary.thresholds} == {Verdict.PASS}
    assert (summary.verdict, summary.exit_code) == (Verdict.PASS, 0)
    assert "Tag=browse.hit.response,0.000" in (tmp_path / "run/latency.hlog").read_text()


def test_a_stall_shows_in_the_response_and_not_in_the_service(tmp_path: Path) -> None:
    """One read in the middle stalls its server for a second; those who came meanwhile waited."""
    number = count()

    def act(_: Claim) -> Act:
        if next(number) == 300:
            time.sleep(0.5)
        return Act(HIT)

    with ScriptedSale(act).open() as shop:
        finished = browse(shop, tmp_path, '["1s:1000"]', connections=4)
    figures, generator = finished.summary.latency_ms, finished.summary.generator
    assert figures.response.p90 is not None
    assert figures.service.p90 is not None
    assert figures.response.p90 > 300
    assert figures.service.p90 < 100
    assert figures.response.max is not None
    assert 480 < figures.response.max < 2_000
    assert (generator.verdict, generator.complaints) == ("valid", [])


def test_a_reader_who_gets_no_answer_costs_its_connection_and_nothing_else(
    tmp_path: Path,
) -> None:
    number = count()

    def act(_: Claim) -> Act:
        match next(number):
            case 5:
                return Act(then="reset")
            case 7:
                return Act(b"")  # silence
            case _:
                return Act(HIT)

    with ScriptedSale(act).open() as shop:
        finished = browse(shop, tmp_path, '["500ms:100"]', connections=2, request_ms=200)
    load = finished.summary.load
    assert (load.sent, load.outcomes) == (50, {"hit": 48, "indeterminate": 2})
    assert load.errors == {"reset": 1, "timeout": 1}
    assert load.resolved == 0


def test_a_target_that_falls_silent_leaves_no_read_without_an_ending(tmp_path: Path) -> None:
    """At the run's deadline: what is out is indeterminate, what waits was never sent."""
    with ScriptedSale(lambda _: Act(b"")).open() as shop:
        finished = browse(shop, tmp_path, '["2s:50"]', connections=3, run_ms=500)
    summary = finished.summary
    assert (summary.load.planned, summary.load.sent) == (100, 3)
    assert summary.load.outcomes == {"unsent": 97, "indeterminate": 3}
    assert (summary.verdict, summary.generator.verdict) == ("unknown", "invalid")


def test_a_storm_that_comes_late_by_its_own_fault_calls_itself_invalid(tmp_path: Path) -> None:
    """Half of the time the generator is busy with itself, and the target answers at once."""
    with ScriptedSale(lambda _: Act(HIT)).open() as shop:
        finished = browse(shop, tmp_path, '["1s:500"]', busy_s=0.1)
    summary = finished.summary
    assert (summary.load.sent, summary.generator.verdict) == (500, "invalid")
    assert summary.generator.complaints[0].startswith("start lag max ")
    assert (summary.verdict, summary.exit_code) == ("invalid", 6)
