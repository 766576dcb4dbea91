from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale.errors import UsageError
from flashsale.model import Outcome
from flashsale.scenario.scenario import Sale, built_in_names, load_scenario, parse_scenario

GOOD = """
# Does it work?
schema = 1
name = "tiny"

[sale]
units = 3

[load]
model = "stampede"
users = 10
connections = 5
"""


def test_a_scenario_takes_its_question_from_its_first_comment_and_the_rest_from_defaults() -> None:
    scenario = parse_scenario(GOOD, "tiny.toml")
    assert scenario.question == "Does it work?"
    assert scenario.sale.voucher_ids == range(1, 2)
    assert scenario.load.closed
    assert scenario.timeouts.request_ms == 10_000
    assert [(each.name, each.condition) for each in scenario.thresholds] == [
        ("error.share", "<= 10%")
    ]


def test_the_built_in_scenarios_are_what_the_issue_says() -> None:
    assert {"stampede", "sellout"} <= set(built_in_names())
    stampede, sellout = load_scenario("stampede"), load_scenario("sellout")
    assert (stampede.load.users, stampede.load.connections, stampede.sale.units) == (
        2000,
        2000,
        100,
    )
    assert not stampede.load.closed
    assert (sellout.load.users, sellout.load.connections) == (30_000, 2000)
    assert sellout.load.closed
    assert sellout.load.users // sellout.load.connections == 15
    assert set(sellout.sale.units_by_voucher().values()) == {272, 273}


@settings(deadline=None, max_examples=60)
@given(vouchers=st.integers(1, 300), units=st.integers(0, 10_000), first=st.integers(1, 10**12))
def test_units_are_spread_evenly_and_none_is_lost(vouchers: int, units: int, first: int) -> None:
    shares = Sale(vouchers=vouchers, first_voucher=first, units=units).units_by_voucher()
    assert list(shares) == list(range(first, first + vouchers))
    assert sum(shares.values()) == units
    assert max(shares.values()) - min(shares.values()) <= 1
    assert sorted(shares.values(), reverse=True) == list(shares.values())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("users = 10", "userz = 10", "load.userz: no such key, did you mean 'users'?"),
        ("[load]", "[lod]", "lod: no such key, did you mean 'load'?"),
        ("users = 10", "users = 0", "load.users: found 0, expected at least 1"),
        ("users = 10", "users = 2000000", "load.users: found 2000000, expected at most 1,000,000"),
        ("users = 10", 'users = "ten"', "load.users: found 'ten', expected a whole number"),
        ("users = 10", "users = 1.5", "load.users: found 1.5, expected a whole number"),
        ("users = 10", "users = true", "load.users: found True, expected a whole number"),
        ("users = 10\n", "", "load.users: missing, expected users, each of whom buys once"),
        ("connections = 5", "connections = 11", "load.connections: found 11, expected at most"),
        ("units = 3", "units = -1", "sale.units: found -1, expected at least 0"),
        ("[sale]\nunits = 3\n", "", "sale: missing, expected the table [sale]"),
        ("[sale]\nunits = 3\n", "sale = 3\n", "sale: found 3, expected a table"),
        ("schema = 1", "schema = 2", "schema: found 2, expected 1"),
        ("schema = 1", "schema = true", "schema: found True, expected 1"),
        ("schema = 1\n", "", "schema: missing"),
        ('name = "tiny"', 'name = "../tiny"', "name: found '../tiny', expected lower-case letters"),
        ('"stampede"', '"panic"', "load.model: found 'panic', expected 'stampede'"),
        ("units = 3", "units = ", "tiny.toml is not TOML: "),
        ("units = 3", "units = 3\nunits = 4", "'units = 4'; the key stands twice, leave one out"),
        ("[load]", "[timeouts]\nrequest_ms = 0\n[load]", "timeouts.request_ms: found 0"),
        ("[load]", "thresholds = 1\n[load]", "sale.thresholds: no such key"),
        (
            "[load]",
            '[thresholds]\n"buy.p98" = "< 1ms"\n[load]',
            "no metric 'buy.p98', did you mean",
        ),
        ("[load]", '[thresholds]\n"zzz" = "< 1ms"\n[load]', "no metric 'zzz', expected such as"),
        (
            "[load]",
            '[messages]\nno = "sold"\n[load]',
            "messages.\"no\": found 'sold', expected one",
        ),
        ("[load]", '[messages]\nno = "gone"\n[load]', "found 'gone', expected one of sold_out"),
    ],
)
def test_a_wrong_scenario_is_one_line_that_names_the_field(
    old: str, new: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as error:
        parse_scenario(GOOD.replace(old, new), "tiny.toml")
    line = str(error.value)
    assert message in line
    assert line.startswith("tiny.toml")
    assert "\n" not in line


PLAIN = """schema = 1
name = "x"
[sale]
units = 1
[load]
model = "stampede"
users = 1
connections = 1
"""


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('[thresholds]\nbuy.response.p99 = "< 5ms"', 'write "buy.response.p99" = "< 5ms"'),
        ('[thresholds]\nbuy.sold.p99.9 = "<1s"\nbuy.p50 = "<1s"', 'write "buy.sold.p99.9" = "<1s"'),
        ('[thresholds]\nbuy = {p99 = "<1s"}', 'thresholds.buy.p99: a key with dots needs quotes'),
        ('[thresholds]\nbuy.p99 < 500ms', "'buy.p99 < 500ms'; write \"buy.p99\" = \"< 500ms\""),
        ('[thresholds]\n"buy.p99" < 500ms', 'write "buy.p99" = "< 500ms"'),
        ("[thresholds]\nbuy.p99 = < 500ms", 'write "buy.p99" = "< 500ms"'),
        ('[thresholds]\n"buuy.p99" = "<1ms"', "no metric 'buuy.p99', did you mean 'buy.p99'?"),
        ('[thresholds]\n"rate" = ' + "[" * 150 + "]" * 150, "found [[[[[[[...]]]]]]], expected"),
        ('[messages]\nSold out! = "sold_out"', 'write "Sold out!" = "sold_out"'),
        ('[messages]\nsold.out = "sold_out"', 'write "sold.out" = "sold_out"'),
        ('[messages]\n"x" = "soldout"', "found 'soldout', did you mean 'sold_out'?, expected one"),
        ('[messages]\n"x" = 5', 'messages."x": found 5, expected one of sold_out'),
        ('[load.retry]\non = "shed"', "found 'shed', expected a list, such as [\"shed\"]"),
        ("[retries]", "retries: no such key; expected one of schema"),
        ("x = " + "[" * 30_000, "nests too deep"),
    ],
)  # fmt: skip
def test_the_line_says_what_is_wrong_and_what_to_write(written: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_scenario(PLAIN + written, "x.toml")
    assert said in str(raised.value)
    assert len(str(raised.value)) < 500
    assert "\n" not in str(raised.value)


def test_a_byte_order_mark_is_no_part_of_a_scenario(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode())
    assert load_scenario(str(tmp_path / "x.toml")) == parse_scenario("\ufeff" + PLAIN, "x")
    (tmp_path / "x.toml").write_bytes(PLAIN.encode("utf-16"))
    with pytest.raises(UsageError, match="not UTF-8 text; save it as UTF-8"):
        load_scenario(str(tmp_path / "x.toml"))


def test_several_mistakes_are_counted() -> None:
    with pytest.raises(UsageError, match=r"\(and 1 more\)"):
        parse_scenario(
            GOOD.replace("users = 10", "users = 0").replace("units = 3", "units = -1"), ""
        )


def test_messages_and_thresholds_are_read() -> None:
    text = GOOD + '[messages]\n"卖完了" = "sold_out"\n[thresholds]\n"buy.sold.count" = "== 3"\n'
    scenario = parse_scenario(text, "tiny.toml")
    assert scenario.messages == {"卖完了": Outcome.SOLD_OUT}
    names = [threshold.name for threshold in scenario.thresholds]
    assert names == ["buy.sold.count", "error.share"]


def test_a_scenario_may_say_how_many_errors_it_bears() -> None:
    text = GOOD + '[thresholds]\n"error.share" = "< 50%"\n'
    (threshold,) = parse_scenario(text, "tiny.toml").thresholds
    assert (threshold.name, threshold.limit) == ("error.share", 0.5)


def test_an_unknown_name_lists_the_built_in_ones() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'stampede'.*built in: .*sellout"):
        load_scenario("stampedee")


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="No such file"):
        load_scenario(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_scenario(str(tmp_path / "binary.toml"))
    (tmp_path / "good.toml").write_text(GOOD)
    assert load_scenario(str(tmp_path / "good.toml")).name == "tiny"


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^scenario /dev/zero: more than .* a \.toml file$"):
        load_scenario("/dev/zero")
    with pytest.raises(UsageError, match=r"^target /dev/zero: more than .* a \.toml file$"):
        load_scenario("stampede", target="/dev/zero")
