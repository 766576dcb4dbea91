"""The options by which a run is judged, as they are read before anything is sent."""

from pathlib import Path

import pytest

from flashsale.campaign.judging import MAX_REGRESS, aborting, parse_regress, requiring
from flashsale.cli.storm_options import doubtful, earlier, required
from flashsale.errors import UsageError
from flashsale.scenario.scenario import parse_scenario

SALE = parse_scenario(
    """
    schema = 1
    name = "tiny"
    [sale]
    units = 1
    [load]
    model = "stampede"
    users = 3
    connections = 3
    """,
    "tiny.toml",
)


@pytest.mark.parametrize(
    ("expression", "line"),
    [
        ("buy.p98<5ms", "no metric 'buy.p98', did you mean 'buy.p9"),
        ("browse.p99<5ms", "'browse.response.p99' has no samples in a scenario that asks for"),
        ("buy.p99<5", "\"buy.response.p99\": found '<5', expected a duration"),
    ],
)
def test_a_threshold_that_nobody_can_judge_is_refused(expression: str, line: str) -> None:
    with pytest.raises(UsageError, match=f"^--require: .*{line}"):
        requiring(SALE, ["buy.p50<1s", expression])


def test_thresholds_of_the_command_line_stand_beside_the_scenarios() -> None:
    both = requiring(SALE, ["buy.p50<1s", "buy.p50>1us"])
    assert both.thresholds[: len(SALE.thresholds)] == SALE.thresholds
    assert [t.condition for t in both.thresholds[len(SALE.thresholds) :]] == ["< 1s", "> 1us"]
    assert requiring(SALE, []) is SALE


def test_a_threshold_that_demands_a_slow_answer_is_read_back() -> None:
    assert not doubtful(requiring(SALE, ["buy.p99<1s", "rate>=5/s"]).thresholds)
    (told,) = doubtful(requiring(SALE, ["buy.p99>500ms"]).thresholds)
    assert "the run fails unless buy.response.p99 is > 500ms" in told


def test_the_old_names_of_require_are_taken_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert required(["rate>=5/s"], None) == ["rate>=5/s"]
    assert capsys.readouterr().err == ""
    assert required(["rate>=5/s"], ["buy.p99<1s"]) == ["rate>=5/s", "buy.p99<1s"]
    assert "are called --require now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("condition", "line"),
    [
        ("buy.sold.count<5", "a count is too small when a storm begins"),
        ("browse.hit.share<5%", "'browse.hit.share' has no samples"),
        ("database.loads>5", "is known only when the storm is over"),
    ],
)
def test_a_condition_that_nobody_can_judge_is_refused(condition: str, line: str) -> None:
    with pytest.raises(UsageError, match=f"^--abort-if: .*{line}"):
        aborting(SALE, [condition])


def test_conditions_are_as_many_as_were_given() -> None:
    assert len(aborting(SALE, ["buy.error.share>5%", "rate<5/s"])) == 2
    assert aborting(SALE, []) == ()


@pytest.mark.parametrize(
    ("run", "share", "line"),
    [
        (None, "15%", "--max-regress: this goes with --baseline RUN"),
        ("no", "15", "--max-regress: found '15', expected such as '15%'"),
        ("no", "-1%", "--max-regress: found '-1%', expected"),
        ("no", None, "--baseline .*no: no summary.json, so no finished run"),
        ("file", None, "--baseline .*file/summary.json: Not a directory"),
        ("bad", None, "--baseline .*bad/summary.json: damaged, or of another version"),
        ("newer", None, "--baseline .*newer/summary.json: damaged, or of another version"),
    ],
)
def test_a_baseline_that_cannot_be_used_is_one_line(
    tmp_path: Path, run: str | None, share: str | None, line: str
) -> None:
    (tmp_path / "file").write_text("")
    for name, text in (("bad", '{"schema": 1, "run": ["?"]}'), ("newer", '{"schema": 2}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(text)
    with pytest.raises(UsageError, match=line) as error:
        earlier(SALE, None if run is None else tmp_path / run, share)
    assert "\n" not in str(error.value)


def test_without_a_baseline_nothing_is_compared() -> None:
    assert earlier(SALE, None, None) is None
    assert (parse_regress(MAX_REGRESS), parse_regress(" 7.5 % ")) == (0.15, 0.075)
