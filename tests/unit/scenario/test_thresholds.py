import pytest

from flashsale.scenario.thresholds import metrics, parse_expression, parse_threshold, short_names


@pytest.mark.parametrize(
    ("metric", "condition", "message"),
    [
        ("buy.respons.p99", "< 1ms", "did you mean 'buy.response.p99'"),
        ("buy.response.p98", "< 1ms", "no metric 'buy.response.p98'"),
        ("buy.count", "> 1", "no metric 'buy.count'"),
        ("", "> 1", "no metric ''"),
        ("buy.response.p99", "500ms", "expected a duration"),
        ("buy.response.p99", "< 500", "expected a duration"),
        ("buy.response.p99", "< -1ms", "expected a duration"),
        ("buy.response.p99", "< 5 ms and > 1 ms", "expected a duration"),
        ("buy.response.p99", 500, "found 500, expected a duration"),
        ("buy.sold.count", "== 5%", "expected a number"),
        ("buy.sold.share", "== 5", "expected a share"),
        ("rate", "> 5", "expected a rate"),
        ("stage1.rate", "> 5/s", "'rate' is of the whole run, and of no stage"),
        ("stage1.database.loads", "== 1", "is of the whole run"),
        ("stage0.buy.p99", "< 1s", "no metric 'stage0.buy.p99'"),
        ("stage2.buy.p99", "<= 3x stage1", "no metric 'stage1'"),
        ("stage2.buy.p99", "<= 3x stage1.buy.shed.count", "is a latency, .* a count"),
        ("stage2.buy.p99", "== 3x stage1.buy.p99", "expected a duration"),
    ],
)
def test_a_threshold_that_cannot_be_judged_is_refused_at_once(
    metric: str, condition: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parse_threshold(metric, condition)


@pytest.mark.parametrize("text", ["buy.p99<50ms", " buy.p99 < 50ms ", "buy.response.p99<50ms"])
def test_an_expression_is_a_threshold_in_one_word(text: str) -> None:
    assert parse_expression(text, "--require") == parse_threshold("buy.response.p99", "< 50ms")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected such as"),
        ("buy.p99", "expected such as"),
        ("< 5ms", "expected such as"),
        ("5ms > buy.p99", "no metric '5ms'"),
        ("buy.p99 = 5ms", "expected a duration"),
        ("buy.p98<5ms", "no metric 'buy.p98', did you mean 'buy.p9"),
        ("by.p99<5ms", "did you mean 'buy.p99'"),
        ("buy.shedd.share<5%", "did you mean 'buy.shed.share'"),
        ("buy.p99<5", "expected a duration"),
        ("buy.p99<5ms\nrate>5/s", "expected"),
    ],
)
def test_an_expression_that_says_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^--require: .*{message}"):
        parse_expression(text, "--require")


def test_a_short_name_is_never_another_metric_as_well() -> None:
    assert not short_names().keys() & metrics().keys()
