"""`flashsale storm` as a user runs it."""

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from rig.command_line import Started, run_flashsale, start_flashsale
from rig.scripted_sale import FIRST_ORDER, SOLD_OUT, Act, Claim, ScriptedSale, http, sell, sold

from flashsale.run.summary import Summary

SCENARIO = """# Does it hold?
schema = 1
name = "tiny"
[sale]
units = 10
[load]
model = "stampede"
users = 60
connections = 20
[timeouts]
claim_ms = 1
"""
PLENTY = SCENARIO.replace("units = 10", "units = 10_000")


def order_of(claim: Claim) -> bytes:
    """An order under an id of its own."""
    return sold(FIRST_ORDER + claim.number)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a scenario and tokens for it."""
    (tmp_path / "tiny.toml").write_text(SCENARIO)
    rows = "".join(f"{user},token-{user}\n" for user in range(1, 2001))
    (tmp_path / "tokens.csv").write_text("user_id,token\n" + rows)
    return tmp_path


@pytest.fixture
def sale() -> Iterator[ScriptedSale]:
    """A healthy sale of ten units."""
    with ScriptedSale(sell(units=10)).open() as sale:
        yield sale


def begin(desk: Path, *arguments: str) -> Started:
    wide = {"COLUMNS": "120", "NO_COLOR": "1"}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return start_flashsale(desk, "storm", *arguments, **piped, **wide)


def storm(desk: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_flashsale(desk, "storm", *arguments)


def on(sale: ScriptedSale, scenario: str = "tiny.toml") -> list[str]:
    where = ["--base-url", sale.base_url, "--tokens", "tokens.csv"]
    return [scenario, "--no-calibrate", *where]


def test_a_storm_leaves_a_table_and_a_run_folder(desk: Path, sale: ScriptedSale) -> None:
    done = storm(desk, *on(sale))
    assert "could send " not in done.stdout
    assert done.returncode == 0, done.stderr
    assert "tiny  Does it hold?" in done.stdout
    assert "PASS" in done.stdout
    latest = desk / "runs" / "latest"
    assert f"runs/{latest.resolve().name}" in done.stdout
    assert {path.name for path in latest.iterdir()} >= {
        "summary.json",
        "attempts.jsonl",
        "latency.hgrm",
        "latency.hlog",
        "junit.xml",
        "report.html",
    }
    summary = Summary.read(latest / "summary.json")
    assert summary.load.outcomes == {"sold": 10, "sold_out": 50}
    assert summary.run == latest.resolve().name
    assert summary.sale is not None
    assert (summary.sale.units, summary.sale.sold, summary.sale.refused) == (10, 10, 50)
    assert "10 of 10 units sold, sold out after" in done.stdout
    assert "storm: no baseline" in done.stderr
    assert "of 60  in flight" in done.stderr


def test_a_built_in_scenario_goes_by_name_and_out_names_the_folder(
    desk: Path, sale: ScriptedSale
) -> None:
    given = [word for word in on(sale, "stampede") if word != "--no-calibrate"]
    done = storm(desk, *given, "--quiet", "--out", "here")
    assert done.returncode == 0, done.stderr
    assert Summary.read(desk / "here" / "summary.json").load.sent == 2000
    assert "of 2,000  in flight" not in done.stderr
    assert "could send " in done.stdout
    assert "; what leaves at once takes it " in done.stdout
    found = Summary.read(desk / "here" / "summary.json").generator.calibration
    assert found is not None
    assert (found.headroom, found.burst_ms is None) == (None, False)
    again = storm(desk, *on(sale, "stampede"), "--out", "here")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == "flashsale: --out here already holds a run; give another folder\n"


@pytest.mark.slow
def test_two_storms_at_once_keep_apart(desk: Path, plenty: ScriptedSale) -> None:
    both = [begin(desk, *on(plenty)) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert ["verdict    PASS" in text for text in said] == [True, True]
    runs = [path for path in (desk / "runs").iterdir() if not path.is_symlink()]
    assert len(runs) == 2
    assert [Summary.read(run / "summary.json").load.sent for run in runs] == [60, 60]


def test_its_help_is_read_at_80_columns(desk: Path) -> None:
    """Options stand in groups, and no description is a column of single words."""
    done = run_flashsale(desk, "storm", "--help", COLUMNS="80")
    groups = [line.strip("╭─╮ ") for line in done.stdout.splitlines() if line.startswith("╭")]
    assert groups[2:] == ["Workload", "System", "Judgement", "Output", "Machines"]
    lines = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert len(" ".join(lines).split()) / len(lines) > 6


# What a user can get wrong: one line, an exit code, no run folder.


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nosuch"], 2, "no scenario 'nosuch'; built in: "),
        (["./none.toml"], 2, "scenario none.toml: No such file or directory"),
        (["broken.toml"], 2, "broken.toml line 8: load.userz: no such key, did you mean 'users'?"),
        (["tiny.toml", "--base-url", "nonsense"], 2, "--base-url: found 'nonsense', expected"),
        (["tiny.toml", "--base-url", "ftp://127.0.0.1:1"], 2, "https://host:port"),
        (["tiny.toml", "--base-url", "http://127.0.0.1:1"], 7, "nothing answers at http://127.0."),
        (["tiny.toml"], 7, "no stack runs in .flashsale; start one with"),
        (["tiny.toml", "--tokens", "no.csv"], 2, "tokens file no.csv: No such file or directory"),
        (["huge.toml"], 2, "tokens.csv has tokens of 2,000 users, not 2,001; run `flashsale seed"),
        (["tiny.toml", "--nonsense"], 2, "No such option"),
        ([], 2, "give a scenario, such as `stampede`, or --replay RUN"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    desk: Path, sale: ScriptedSale, arguments: list[str], code: int, message: str
) -> None:
    (desk / "broken.toml").write_text(SCENARIO.replace("users =", "userz ="))
    (desk / "huge.toml").write_text(SCENARIO.replace("users = 60", "users = 2001"))
    given = list(arguments)
    if given and "--tokens" not in given:
        given += ["--tokens", "tokens.csv"]
    if given and "--base-url" not in given and arguments != ["tiny.toml"]:
        given += ["--base-url", sale.base_url]
    done = storm(desk, *given)
    assert done.returncode == code
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.startswith("flashsale: ")
    assert done.stderr.count("\n") == 1
    assert not (desk / "runs").exists()
    assert sale.claims == []


@pytest.mark.parametrize(
    ("reply", "code", "message"),
    [
        (http(401), 2, "does not know the tokens; run `flashsale seed` again"),
        (http(502), 7, "/healthz answers 502; wait until"),
    ],
)
def test_a_target_that_is_not_ready_is_found_before_the_storm(
    desk: Path, reply: bytes, code: int, message: str
) -> None:
    with ScriptedSale(lambda _: Act(reply)).open() as sale:
        done = storm(desk, *on(sale))
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sale.claims == []


def test_a_foreign_server_without_our_health_route_is_stormed_all_the_same(desk: Path) -> None:
    (desk / "tiny.toml").write_text(PLENTY)
    script: Callable[[Claim], Act] = lambda c: Act(order_of(c) if c.method == "POST" else http(404))  # noqa: E731
    with ScriptedSale(script).open() as sale:
        assert storm(desk, *on(sale)).returncode == 0


# Verdicts.


def test_a_threshold_that_does_not_hold_is_exit_4(desk: Path, sale: ScriptedSale) -> None:
    text = SCENARIO + '[thresholds]\n"buy.sold.count" = "== 11"\n"buy.sold_out.count" = "== 50"\n'
    (desk / "tiny.toml").write_text(text)
    done = storm(desk, *on(sale))
    assert done.returncode == 4
    assert "exit 4, threshold" in done.stdout
    assert Counter(line.split()[-1] for line in done.stdout.splitlines() if "count" in line) == {
        "FAIL": 1,
        "PASS": 1,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("borne", "code"), [("", 4), ('"error.share" = "<= 60%"', 0)])
def test_a_sale_that_breaks_down_is_no_pass_unless_its_scenario_bears_it(
    desk: Path, borne: str, code: int
) -> None:
    (desk / "tiny.toml").write_text(f"{PLENTY}resolve_ms = 100\n[thresholds]\n{borne}\n")

    def script(claim: Claim) -> Act:
        if claim.method != "POST":
            return Act(http(200, b'{"success":true,"data":{"state":"none"}}'))
        return Act(order_of(claim) if claim.number < 30 else http(502))

    with ScriptedSale(script).open() as sale:
        done = storm(desk, *on(sale))
    assert done.returncode == code, done.stdout
    assert "error.share" in done.stdout
    assert "50.00%" in done.stdout


def test_a_sale_that_refuses_everybody_is_nothing_to_judge(desk: Path) -> None:
    script = lambda claim: Act(http(403 if claim.method == "POST" else 200))  # noqa: E731
    with ScriptedSale(script).open() as sale:
        done = storm(desk, *on(sale))
    assert done.returncode == 8
    assert "refused" in done.stdout
    assert "UNKNOWN" in done.stdout


# Signals.


@pytest.fixture
def slow_sale(desk: Path) -> Iterator[ScriptedSale]:
    """A sale that answers 30 of 600 claims and leaves 20, one a connection, without an answer."""
    (desk / "tiny.toml").write_text(PLENTY.replace("users = 60", "users = 600"))

    def script(claim: Claim) -> Act:
        if claim.method != "POST":
            return Act(http(200))
        return Act(order_of(claim)) if claim.number < 30 else Act()

    with ScriptedSale(script).open() as sale:
        yield sale


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)],
    ids=["ctrl-c", "sigterm", "closed terminal"],
)
def test_a_signal_leaves_a_partial_report(
    desk: Path, slow_sale: ScriptedSale, number: signal.Signals, code: int
) -> None:
    process = begin(desk, *on(slow_sale))
    assert slow_sale.reached(50)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "interrupted: what stands here is a part" in out
    assert "Traceback" not in err
    summary = Summary.read(desk / "runs/latest/summary.json")
    assert summary.load.outcomes == {"sold": 30, "unsent": 550, "indeterminate": 20}
    assert summary.exit_code == code
    lines = (desk / "runs/latest/attempts.jsonl").read_bytes().splitlines()
    end = {"kind": "end", "planned": 600, "sent": 50, "interrupted": True}
    assert orjson.loads(lines[-1]) == end


def test_answers_that_came_while_the_storm_stood_still_are_read(desk: Path) -> None:
    """As where its process was stopped, or its machine slept: the target answered in time."""
    limits = "request_ms = 1000\nclaim_ms = 1"
    (desk / "tiny.toml").write_text(SCENARIO.replace("claim_ms = 1", limits))

    def script(claim: Claim) -> Act:
        if claim.method != "POST":
            return Act(http(200))
        return Act(order_of(claim) if claim.number < 10 else SOLD_OUT, delay_s=0.5)

    with ScriptedSale(script).open() as sale:
        process = begin(desk, *on(sale))
        assert sale.reached(20)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, out + err
    summary = Summary.read(desk / "runs/latest/summary.json")
    assert summary.load.outcomes == {"sold": 10, "sold_out": 50}, summary.load.errors


def test_an_impatient_user_does_no_harm(desk: Path, slow_sale: ScriptedSale) -> None:
    process = begin(desk, *on(slow_sale))
    assert slow_sale.reached(50)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(0.01)
        except subprocess.TimeoutExpired:
            continue
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    lines = (desk / "runs/latest/attempts.jsonl").read_bytes().splitlines()
    kinds = Counter(orjson.loads(line)["kind"] for line in lines)
    assert kinds == {"header": 1, "plan": 600, "barrier": 1, "result": 600, "end": 1}


def test_a_killed_storm_leaves_its_plan_and_what_it_knew(
    desk: Path, slow_sale: ScriptedSale
) -> None:
    process = begin(desk, *on(slow_sale))
    assert slow_sale.reached(50)
    process.kill()
    process.communicate(timeout=30)
    lines = (desk / "runs/latest/attempts.jsonl").read_bytes().splitlines()
    kinds = Counter(orjson.loads(line)["kind"] for line in lines)
    assert (kinds["plan"], kinds["barrier"], kinds["end"]) == (600, 1, 0)
    assert kinds["result"] <= 30
    assert not (desk / "runs/latest/summary.json").exists()


@pytest.fixture
def plenty(desk: Path) -> Iterator[ScriptedSale]:
    """A sale with units enough for several storms, and a scenario that says so."""
    (desk / "tiny.toml").write_text(PLENTY)
    with ScriptedSale(sell(units=10_000)).open() as sale:
        yield sale


def test_thresholds_of_the_command_line_have_to_hold(desk: Path, plenty: ScriptedSale) -> None:
    held = storm(desk, *on(plenty), "--require", "buy.p50<10s", "--require", "buy.error.share<=0%")
    assert held.returncode == 0, held.stderr
    broken = storm(desk, *on(plenty), "--require", "buy.p50<10s", "--require", "buy.p50 < 1us")
    assert broken.returncode == 4, broken.stderr
    figures = Summary.read(desk / "runs/latest/summary.json").thresholds
    assert {figure.metric + figure.condition: figure.verdict for figure in figures} == {
        "error.share<= 10%": "pass",  # the scenario's own
        "buy.response.p50< 10s": "pass",
        "buy.response.p50< 1us": "fail",
    }
    silent = storm(desk, *on(plenty), "--threshold", "buy.p99<10s")
    assert silent.returncode == 4
    assert "60 samples, and p99 needs 1,000" in silent.stdout


def test_a_threshold_that_nobody_can_judge_sends_nothing(desk: Path, sale: ScriptedSale) -> None:
    done = storm(desk, *on(sale), "--require", "buy.p98<5ms")
    assert (done.returncode, done.stdout) == (2, "")
    assert "flashsale: --require: no metric 'buy.p98', did you mean 'buy.p9" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (desk / "runs").exists()
    assert not sale.claims


def slow(delay_s: float) -> ScriptedSale:
    """A sale that answers late, always."""
    return ScriptedSale(
        lambda claim: Act(order_of(claim), delay_s if claim.method == "POST" else 0.0)
    )


def test_a_run_is_held_against_an_earlier_one(desk: Path) -> None:
    (desk / "tiny.toml").write_text(PLENTY)
    with slow(0.01).open() as sale:
        assert storm(desk, *on(sale)).returncode == 0
        baseline = (desk / "runs/latest").resolve()
    with slow(0.25).open() as sale:
        done = storm(desk, *on(sale), "--baseline", "runs/latest", "--max-regress", "100%")
    assert done.returncode == 5, done.stderr
    assert "exit 5, regression" in done.stdout
    summary = Summary.read(desk / "runs/latest/summary.json")
    assert summary.baseline is not None
    verdicts = {change.metric: change.verdict for change in summary.baseline.changes}
    assert verdicts["buy.response.p50"] == "fail"
    assert verdicts["buy.response.p99"] == "unknown"  # of 60 samples
    assert summary.baseline.folder == f"../{baseline.name}"
    junit = (desk / "runs/latest/junit.xml").read_text()
    assert 'name="buy.response.p50"' in junit
    with slow(0.0).open() as sale:
        assert storm(desk, *on(sale), "--baseline", str(baseline)).returncode == 0


def test_a_baseline_that_cannot_be_used_sends_nothing(desk: Path, sale: ScriptedSale) -> None:
    done = storm(desk, *on(sale), "--baseline", "no")
    assert (done.returncode, done.stdout) == (2, "")
    line = "flashsale: --baseline no: no summary.json, so no finished run; name a run's folder\n"
    assert done.stderr == line
    assert not (desk / "runs").exists()
    assert not sale.claims


@pytest.fixture
def failing_sale() -> Iterator[ScriptedSale]:
    """Healthy for a hundred claims, then every second one gets half an answer, and all are slow."""

    def act(claim: Claim) -> Act:
        if claim.number >= 100 and claim.number % 2 and claim.method == "POST":
            return Act(order_of(claim)[:-9], 0.02, then="close")
        return Act(order_of(claim), 0.02)

    with ScriptedSale(act).open() as sale:
        yield sale


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_condition_ends_the_storm_early(
    desk: Path, failing_sale: ScriptedSale, workers: str
) -> None:
    (desk / "long.toml").write_text(PLENTY.replace("users = 60", "users = 2000"))
    condition = "buy.indeterminate.share>20%"
    arguments = ["--abort-if", "buy.sold.count>5000", "--abort-if", condition]
    done = storm(desk, *on(failing_sale, "long.toml"), *arguments, "--workers", workers)
    assert done.returncode == 4, done.stderr
    assert "aborted: what stands here is a part" in done.stdout
    summary = Summary.read(desk / "runs/latest/summary.json")
    assert (summary.verdict, summary.exit_code) == ("fail", 4)
    assert summary.generator.complaints == [], "what was held back is no failure of the storm"
    (silent, met) = summary.aborts
    assert (silent.verdict, met.verdict, met.metric) == ("pass", "fail", "buy.indeterminate.share")
    assert met.value is not None
    assert met.value > 0.2
    outcomes = summary.load.outcomes
    assert outcomes["unsent"] == summary.load.errors["aborted"] > 1_000
    assert sum(outcomes.values()) == 2_000, "every attempt is accounted for"
    assert summary.load.sent == 2_000 - outcomes["unsent"]
    lines = (desk / "runs/latest/attempts.jsonl").read_bytes().splitlines()
    assert orjson.loads(lines[-1])["interrupted"] is False
    assert (desk / "runs/latest/report.html").exists()
    assert "not buy.indeterminate.share" in (desk / "runs/latest/junit.xml").read_text()


def test_under_github_actions_the_run_is_told_to_the_workflow(
    desk: Path, sale: ScriptedSale
) -> None:
    told = desk / "step.md"
    told.write_text("what another step said\n")
    actions = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(told)}
    demand = ["--require", "buy.p50<1us", "--csv", "--quiet"]
    done = run_flashsale(desk, "storm", *on(sale), *demand, **actions)
    assert done.returncode == 4
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("::")]
    assert line.startswith("::error title=flashsale tiny%3A buy.response.p50 < 1us does not hold::")
    assert "::" not in done.stdout
    assert told.read_text().startswith("what another step said\n## ❌ flashsale tiny: fail\n")
    assert (desk / "runs/latest/attempts.csv").exists()
    wrong = run_flashsale(desk, "storm", "no-such", **actions)
    assert "::error title=flashsale::no scenario 'no-such'" in wrong.stderr
    told.unlink()
    elsewhere = run_flashsale(desk, "storm", *on(sale), *demand, GITHUB_STEP_SUMMARY=str(told))
    assert "::error" not in elsewhere.stderr
    assert not told.exists()


def test_a_condition_that_is_true_at_the_end_fails_a_storm_that_was_over_between_two_looks(
    desk: Path, sale: ScriptedSale
) -> None:
    done = storm(desk, *on(sale), "--abort-if", "buy.sold_out.count>=50", "--quiet")
    assert done.returncode == 4, done.stderr
    assert "50 when the storm was over" in done.stdout
    assert "a part" not in done.stdout
    summary = Summary.read(desk / "runs/latest/summary.json")
    assert (summary.aborts[0].verdict, summary.aborts[0].at_end) == ("fail", True)
    assert not summary.aborted
    assert summary.generator.verdict == "valid"
    never = storm(desk, *on(sale), "--abort-if", "buy.sold.count>100", "--quiet")
    assert "did not become true" in never.stdout


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        (lambda number: sold(FIRST_ORDER + number), "no_oversell"),
        (lambda number: sold(FIRST_ORDER) if number < 2 else SOLD_OUT, "unique_ids"),
    ],
)
def test_what_the_answers_alone_prove_is_a_violation(
    desk: Path, answer: Callable[[int], bytes], broken: str
) -> None:
    """A target of which nothing is known but its answers sells more than there is, or twice."""

    def act(claim: Claim) -> Act:
        return Act(answer(claim.number) if claim.method == "POST" else http(200))

    with ScriptedSale(act).open() as sale:
        done = storm(desk, *on(sale), "--quiet")
    assert done.returncode == 3, done.stdout
    assert "exit 3, violation" in done.stdout
    summary = Summary.read(desk / "runs/latest/summary.json")
    verdicts = {check.name: check.verdict.value for check in summary.answers}
    assert verdicts == {
        name: "fail" if name == broken else "pass"
        for name in ("no_oversell", "one_per_user", "unique_ids")
    }
    assert broken in (desk / "runs/latest/report.html").read_text()
    assert f'name="{broken}"' in (desk / "runs/latest/junit.xml").read_text()


def test_a_user_who_is_sold_twice_is_a_violation(desk: Path) -> None:
    text = SCENARIO.replace('"stampede"', '"closed"').replace("units = 10", "units = 1000")
    (desk / "clicks.toml").write_text(text.replace("users = 60", "users = 30\nclicks = 2"))

    def act(claim: Claim) -> Act:
        return Act(sold(FIRST_ORDER + claim.number) if claim.method == "POST" else http(200))

    with ScriptedSale(act).open() as sale:
        done = storm(desk, *on(sale, "clicks.toml"), "--quiet")
    assert done.returncode == 3, done.stdout
    assert "was told of orders" in done.stdout
    summary = Summary.read(desk / "runs/latest/summary.json")
    assert [check.verdict.value for check in summary.answers] == ["pass", "fail", "pass"]


# A target that takes any method for a claim.


class Careless:
    """A foreign sale that sells to whoever comes to the claims' path, by whatever method."""

    def __init__(self) -> None:
        self.orders: list[Claim] = []

    def __call__(self, visit: Claim) -> Act:
        if not visit.path.startswith("/voucher-order/seckill/"):
            return Act(http(404))
        self.orders.append(visit)
        if len(self.orders) % 3 == 0 and visit.method == "POST":
            return Act(then="close")
        return Act(http(200, b'{"success":true,"data":%d}' % (FIRST_ORDER + len(self.orders))))


def test_neither_preflight_nor_questions_buy(desk: Path) -> None:
    (desk / "tiny.toml").write_text(PLENTY + '[thresholds]\n"error.share" = "<= 50%"\n')
    script = Careless()
    with ScriptedSale(script).open() as sale:
        done = storm(desk, *on(sale))
    assert done.returncode == 0, done.stderr
    assert {visit.method for visit in script.orders} == {"POST"}
    assert len(script.orders) == 60
    assert "has no /healthz, so claims in doubt stay so: target.status in the" in done.stderr
    summary = Summary.read(desk / "runs/latest/summary.json")
    assert (summary.load.indeterminate, summary.load.resolved) == (20, 0)


@pytest.mark.parametrize("status", ["/orders?of={voucher}", ""])
def test_a_scenario_names_the_routes_of_its_target(desk: Path, status: str) -> None:
    routes = f'[target]\nhealth = "/up"\nsession = ""\nstatus = "{status}"\n'
    text = PLENTY + '[thresholds]\n"error.share" = "<= 50%"\n'
    (desk / "tiny.toml").write_text(text + routes)
    none = http(200, b'{"success":true,"data":{"state":"none"}}')

    def act(visit: Claim) -> Act:
        if visit.method == "GET":
            return Act(none if visit.path != "/up" else http(200))
        return Act(order_of(visit)) if visit.number % 3 else Act(then="close")

    with ScriptedSale(act).open() as sale:
        done = storm(desk, *on(sale), "--quiet")
    assert done.returncode == 0, done.stdout
    load = Summary.read(desk / "runs/latest/summary.json").load
    assert load.resolved == (load.indeterminate if status else 0)
    asked = Counter(visit.path for visit in sale.others)
    expected = {"/up": 1, **({"/orders?of=1": load.indeterminate} if status else {})}
    assert asked == expected
