import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from flashsale.errors import ExitCode
from flashsale.model import Outcome, Verdict
from flashsale.run.attempts import Attempts
from flashsale.run.histogram import Histogram
from flashsale.run.parts import Latency
from flashsale.run.summary import Check, Summary
from flashsale.scenario.answer import Answer, unsent
from flashsale.scenario.scenario import Scenario, parse_scenario
from flashsale.storm.figures.conclusion import Circumstances, conclude
from flashsale.storm.figures.figures import Figures
from flashsale.storm.figures.generator import Effort, SelfReport


def scenario(thresholds: str = "") -> Scenario:
    return parse_scenario(
        f"""# Why?
        schema = 1
        name = "tiny"
        [sale]
        units = 1
        [load]
        model = "stampede"
        users = 3
        connections = 3
        seed = 9
        [thresholds]
        {thresholds}""",
        "tiny.toml",
    )


def concluded(
    *answers: Answer, thresholds: str = "", interrupted_by: ExitCode | None = None
) -> Summary:
    record = Attempts(len(answers))
    record.origin_ns = 1_000_000
    for i, answer in enumerate(answers):
        record.due_ns[i] = 1_000_000
        if answer.outcome is not Outcome.UNSENT:
            record.sent_ns[i] = 2_000_000
        record.settle(i, 12_000_000, answer)
    return conclude(
        scenario(thresholds),
        Figures(record),
        Effort(SelfReport(30_000, 1_000_000, Histogram([5]), 1024), Histogram([7])),
        Circumstances(
            run="tiny-1",
            base_url="http://x",
            plan_hash="abc",
            started_at="2026-01-01T00:00:00+00:00",
            resolved=0,
            interrupted_by=interrupted_by,
        ),
    )


SOLD, GONE = Answer(Outcome.SOLD, 200, "1"), Answer(Outcome.SOLD_OUT, 200)
SHED, REFUSED = Answer(Outcome.SHED, 503), Answer(Outcome.REFUSED, 401, None, "http_401")


def judgement(verdict: str, checks: int = 1, **latency: Any) -> dict[str, Any]:
    """verify's document."""
    return {
        "schema": 1,
        "verdict": verdict,
        "exit_code": 0,
        "reason": None,
        "orders": {"accepted": 1, "persisted": 1, "drain_s": 0.25},
        "waited_s": 0.5,
        "latency_ms": {"persisted": latency or None},
        "checks": [
            {"name": "no_oversell", "verdict": verdict, "detail": "fine", "findings": [{"a": 1}]}
        ]
        * checks,
    }


def test_the_fields_that_others_build_on_are_there() -> None:
    summary = orjson.loads(concluded(SOLD, GONE, GONE).model_dump_json(by_alias=True))
    assert summary["schema"] == 1
    assert summary["scenario"] == "tiny"
    assert summary["seed"] == 9
    assert (summary["verdict"], summary["exit_code"]) == ("pass", 0)
    load = summary["load"]
    assert (load["users"], load["planned"], load["sent"]) == (3, 3, 3)
    assert (load["duration_s"], load["rate_per_s"]) == (0.011, 272.7)
    assert (load["outcomes"], load["errors"]) == ({"sold": 1, "sold_out": 2}, {})
    statistics = {"count", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"}
    assert set(summary["latency_ms"]["response"]) == statistics
    assert summary["latency_ms"]["response"]["max"] == 11.0
    assert summary["latency_ms"]["service"]["max"] == 10.0
    assert summary["latency_ms"]["persisted"] is None
    generator = summary["generator"]
    assert (generator["verdict"], generator["cpu_us_per_request"]) == ("valid", 10.0)
    assert generator["start_lag_ms"]["max"] == 1.0
    orders = {"accepted": 1, "persisted": None, "rejected": 2, "drain_s": None}
    assert summary["orders"] == orders
    verify = summary["verify"]
    assert (verify["verdict"], verify["checks"], verify["awaited"]) == ("unknown", [], False)
    assert verify["reason"].startswith("not verified yet")
    errors = {"metric": "error.share", "condition": "<= 10%", "verdict": "pass"}
    assert summary["thresholds"] == [{**errors, "value": 0.0, "detail": "0.00%"}]


LENIENT = '"error.share" = "<= 34%"'
PASSING, FAILING = '"buy.sold.count" = "== 1"', '"buy.sold.count" = "== 2"'


@pytest.mark.parametrize(
    ("summary", "code", "verdict"),
    [
        (concluded(SOLD, GONE, GONE), ExitCode.PASS, Verdict.PASS),
        (concluded(SOLD, GONE, GONE, thresholds=PASSING), ExitCode.PASS, Verdict.PASS),
        (concluded(*[SOLD] * 9, SHED), ExitCode.PASS, Verdict.PASS),
        (concluded(*[SOLD] * 8, SHED), ExitCode.THRESHOLD, Verdict.FAIL),
        (concluded(SOLD, GONE, SHED, thresholds=LENIENT), ExitCode.PASS, Verdict.PASS),
        (concluded(SOLD, GONE, GONE, thresholds=FAILING), ExitCode.THRESHOLD, Verdict.FAIL),
        (concluded(SOLD, unsent("deadline")), ExitCode.INVALID_RUN, Verdict.INVALID),
        (concluded(SOLD, unsent("socket")), ExitCode.INVALID_RUN, Verdict.INVALID),
        (concluded(SOLD, unsent("connect"), unsent("silent")), ExitCode.THRESHOLD, Verdict.FAIL),
        (
            concluded(SOLD, unsent("deadline"), thresholds=FAILING),
            ExitCode.INVALID_RUN,
            Verdict.INVALID,
        ),
        (concluded(REFUSED, REFUSED), ExitCode.NOTHING_JUDGED, Verdict.UNKNOWN),
        (concluded(SHED, unsent("deadline")), ExitCode.NOTHING_JUDGED, Verdict.UNKNOWN),
        (
            concluded(SOLD, unsent("interrupted"), interrupted_by=ExitCode.INTERRUPTED),
            ExitCode.INTERRUPTED,
            Verdict.INVALID,
        ),
        (concluded(SOLD, interrupted_by=ExitCode.TERMINATED), ExitCode.TERMINATED, Verdict.INVALID),
        (concluded(SOLD, GONE).with_verify(judgement("pass")), ExitCode.PASS, Verdict.PASS),
        (concluded(SOLD, GONE).with_verify(judgement("fail")), ExitCode.VIOLATION, Verdict.FAIL),
        (
            concluded(SOLD, unsent("deadline")).with_verify(judgement("fail")),
            ExitCode.VIOLATION,
            Verdict.FAIL,
        ),
        (
            concluded(SOLD, unsent("deadline")).with_verify(judgement("pass")),
            ExitCode.INVALID_RUN,
            Verdict.INVALID,
        ),
        (
            concluded(SOLD, GONE).with_verify(judgement("unknown")),
            ExitCode.NOTHING_JUDGED,
            Verdict.UNKNOWN,
        ),
        (
            concluded(SOLD, thresholds=FAILING).with_verify(judgement("pass")),
            ExitCode.THRESHOLD,
            Verdict.FAIL,
        ),
    ],
)
def test_verdict_and_exit_code_follow_from_the_figures(
    summary: Summary, code: ExitCode, verdict: Verdict
) -> None:
    assert (summary.exit_code, summary.verdict) == (code, verdict)


def test_what_verify_found_is_filled_in() -> None:
    latency = {
        "count": 1, "mean": 3.5, "p50": 3, "p90": None, "p95": None, "p99": None,
        "p99.9": None, "max": 4, "clock_offset_ms": 0.5, "clock_error_ms": 0.1,
    }  # fmt: skip
    summary = concluded(SOLD, GONE).with_verify(judgement("pass", **latency))
    assert summary.orders.persisted == 1
    assert summary.orders.drain_s == 0.25
    assert summary.latency_ms.persisted is not None
    assert summary.latency_ms.persisted.p50 == 3
    assert summary.latency_ms.persisted.clock_offset_ms == 0.5
    assert [check.name for check in summary.verify.checks] == ["no_oversell"]


def test_a_summary_can_be_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    summary = concluded(SOLD, GONE, thresholds=FAILING).with_verify(judgement("fail"))
    summary.write(path)
    assert Summary.read(path) == summary
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 2}', "[1]"])
def test_what_is_no_summary_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ValueError):
        Summary.read(tmp_path / "summary.json")


def _set(document: Any, way: str, value: Any) -> None:
    *way_to, last = way.split("/")
    for step in way_to:
        document = document[int(step) if step.isdigit() else step]
    document[int(last) if last.isdigit() else last] = value


@pytest.mark.parametrize("value", [-1, 10**30, 10**400])
@pytest.mark.parametrize(
    "way",
    ["load/planned", "load/outcomes/sold", "latency_ms/censored", "latency_ms/response/count",
     "endpoints/buy/outcomes/sold", "orders/accepted", "verify/checks/0/exercised",
     "load/errors"],
)  # fmt: skip
def test_counts_that_no_run_has_are_refused(tmp_path: Path, way: str, value: int) -> None:
    path = tmp_path / "summary.json"
    concluded(SOLD, GONE).with_verify(judgement("pass")).write(path)
    document = orjson.loads(path.read_bytes())
    is_table = way.endswith(("exercised", "errors"))
    _set(document, way, {"some": value} if is_table else value)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError):
        Summary.read(path)
    _set(document, way, {"some": 1} if is_table else 1)
    path.write_text(json.dumps(document))
    Summary.read(path)


def test_an_ending_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    concluded(SOLD, GONE).write(path)
    path.write_bytes(path.read_bytes().replace(b'"sold_out"', b'"soldout"'))
    with pytest.raises(ValueError):
        Summary.read(path)


@pytest.mark.parametrize(
    "way", ["verify/checks/0/findings", "verify/checks/0/history", "answers/0/findings"]
)
def test_whatever_is_read_can_be_written_again(tmp_path: Path, way: str) -> None:
    """JSON has numbers of any size; ours have 64 bits."""
    path = tmp_path / "summary.json"
    answers = {"answers": [told_of(Verdict.PASS)]}
    told = concluded(SOLD, GONE).with_verify(judgement("pass")).model_copy(update=answers)
    told.write(path)
    document = orjson.loads(path.read_bytes())
    _set(document, way, [{"user": 10**30}])
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError):
        Summary.read(path)
    _set(document, way, [{"user": 10**18}])
    path.write_text(json.dumps(document))
    Summary.read(path).write(path)


def test_a_latency_says_nothing_where_it_has_no_samples() -> None:
    assert set(Latency.of(Histogram()).model_dump().values()) == {0, None}
    few = Latency.of(Histogram([1000, 2000]))
    assert (few.p50, few.max, few.mean) == (None, 2.0, 1.5)


def test_a_run_that_is_yet_to_be_verified_is_no_pass() -> None:
    """What a rehearsal leaves that is interrupted, or killed, between storm and verify."""
    passed = concluded(SOLD, GONE)
    awaiting = passed.verify.model_copy(update={"awaited": True})
    summary = passed.model_copy(update={"verify": awaiting}).judged()
    assert (summary.exit_code, summary.verdict) == (ExitCode.NOTHING_JUDGED, Verdict.UNKNOWN)
    verified = summary.with_verify(judgement("pass"))
    assert (verified.exit_code, verified.verdict) == (ExitCode.PASS, Verdict.PASS)
    assert not verified.verify.awaited


def told_of(verdict: Verdict) -> Check:
    return Check(name="no_oversell", verdict=verdict, detail="by the answers alone")


def test_what_the_answers_alone_prove_is_a_violation_until_verify_knows_better() -> None:
    summary = concluded(SOLD, GONE).model_copy(update={"answers": [told_of(Verdict.FAIL)]}).judged()
    assert (summary.exit_code, summary.verdict) == (ExitCode.VIOLATION, Verdict.FAIL)
    judged = summary.with_verify(judgement("pass"))
    assert (judged.exit_code, judged.standing_answers) == (ExitCode.PASS, [])
    undecided = judgement("unknown")
    undecided["checks"] = [{"name": "no_oversell", "verdict": "unknown", "detail": ""}]
    assert summary.with_verify(undecided).exit_code == ExitCode.VIOLATION
    doubt = concluded(SOLD, GONE).model_copy(update={"answers": [told_of(Verdict.UNKNOWN)]})
    assert doubt.judged().exit_code == ExitCode.PASS


def test_a_summary_of_before_the_answers_were_judged_is_read(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    concluded(SOLD, GONE).write(path)
    document = orjson.loads(path.read_bytes())
    del document["answers"]
    path.write_bytes(orjson.dumps(document))
    assert Summary.read(path).answers == []


def test_a_check_that_a_shop_has_no_data_for_is_no_trouble_of_a_run_that_passed() -> None:
    told = judgement("pass")
    told["checks"].append({"name": "window", "verdict": "unknown", "detail": "no hours"})
    told["rests_on"] = ["orders of the shop's database"]
    summary = concluded(SOLD, GONE).with_verify(told)
    assert (summary.doubtful_rules, summary.exit_code) == ([], ExitCode.PASS)
    assert summary.verify.rests_on == ["orders of the shop's database"]
    doubted = concluded(SOLD, GONE).with_verify({**told, "verdict": "unknown"})
    assert [check.name for check in doubted.doubtful_rules] == ["window"]
