"""Reading attempts.jsonl: every kind of line, a torn end, and every way to be malformed."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.errors import ExitCode, NothingJudgedError
from flashsale.model import Outcome, parse_id
from flashsale.verify.attempts import (
    GARBLED,
    NEVER,
    NO_ORDER,
    OUTCOMES,
    ClaimColumns,
    _Record,
    ids_in,
    parse_attempts,
    read_attempts,
)

BIG = 2**63 - 1
HEADER = {
    "kind": "header",
    "schema": 1,
    "run": "r-1",
    "scenario": "s",
    "vouchers": [1],
    "planned": 2,
}
BARRIER = {"kind": "barrier", "unix_us": 1}
END = {"kind": "end", "planned": 2, "sent": 2, "interrupted": False}


def plan(i: int, user: int, voucher: int = 1) -> dict[str, Any]:
    return {"kind": "plan", "i": i, "user": user, "voucher": voucher, "conn": 0, "at_us": 0}


def result(i: int, outcome: str = "sold", **more: Any) -> dict[str, Any]:
    line = {"kind": "result", "i": i, "sent_us": 5, "done_us": 9, "outcome": outcome}
    return {**line, "status": 200, "order": None, **more}


def lines(*records: dict[str, Any]) -> list[bytes]:
    return [orjson.dumps(record) + b"\n" for record in records]


def good(*extra: dict[str, Any]) -> list[bytes]:
    return lines(HEADER, plan(0, 10), plan(1, 11), BARRIER, *extra)


def claims(content: list[bytes], voucher: int = 1) -> ClaimColumns:
    return parse_attempts(content).claims[voucher]


def cancels(i: int, claim: Any) -> dict[str, Any]:
    return {"kind": "plan", "ask": "cancel", "i": i, "user": 10, "voucher": 1, "given": claim}


@pytest.mark.parametrize(("told", "undone"), [("done", {1: [(10, 77)]}), ("refused", {})])
def test_an_order_that_was_cancelled_is_known(told: str, undone: dict[int, Any]) -> None:
    results = [result(0, order="77"), result(1, told)]
    content = lines(HEADER, plan(0, 10), cancels(1, 0), BARRIER, *results, END)
    assert parse_attempts(content).cancelled == undone


@pytest.mark.parametrize("claim", [1, -1, "0", None, 2.0])
def test_a_cancellation_of_no_claim_is_told(claim: Any) -> None:
    with pytest.raises(NothingJudgedError, match="line 3: given: expected an attempt before 1"):
        parse_attempts(lines(HEADER, plan(0, 10), cancels(1, claim)))


def test_a_result_tells_which_clock_it_was_read_from() -> None:
    found = claims(good(result(0, clock=3), result(1), END))
    assert list(found.clock) == [3, 0]


def test_a_shard_is_not_judged_by_itself() -> None:
    header = {**HEADER, "shard": {"number": 2, "of": 8}}
    with pytest.raises(NothingJudgedError, match="shard 2 of 8; judge what `flashsale report merg"):
        parse_attempts(lines(header, plan(0, 10), plan(1, 11)))


def test_a_whole_run() -> None:
    attempts = parse_attempts(
        good(result(1, order=str(BIG)), result(0, "sold_out", sent_us=7, done_us=8), END)
    )
    assert (attempts.run, attempts.vouchers, attempts.planned) == ("r-1", (1,), 2)
    assert attempts.complete
    found = attempts.claims[1]
    assert [OUTCOMES[code] for code in found.outcome] == [Outcome.SOLD_OUT, Outcome.SOLD]
    assert list(found.order) == [NO_ORDER, BIG]
    assert list(found.sent_us) == [7, 5]
    assert list(found.done_us) == [8, 9]


def test_claims_are_sorted_by_voucher() -> None:
    attempts = parse_attempts(
        lines({**HEADER, "vouchers": [1, 2, 3]}, plan(0, 10, 2), plan(1, 11), result(0))
    )
    assert attempts.vouchers == (1, 2, 3)
    assert [list(attempts.claims[v].user) for v in (1, 2, 3)] == [[11], [10], []]
    assert OUTCOMES[attempts.claims[2].outcome[0]] is Outcome.SOLD


def test_a_plan_without_a_result_is_indeterminate() -> None:
    found = claims(good(result(0)))
    assert OUTCOMES[found.outcome[1]] is Outcome.INDETERMINATE
    assert (found.sent_us[1], found.done_us[1]) == (NEVER, NEVER)
    assert list(found.open()) == [1]


def test_what_was_never_sent_has_no_instants() -> None:
    found = claims(good(result(0, "unsent", sent_us=None, done_us=None)))
    assert (found.sent_us[0], found.done_us[0]) == (NEVER, NEVER)


def test_the_first_outcome_stays_on_record_beside_the_resolution() -> None:
    resolved = {"kind": "resolved", "i": 0, "outcome": "sold", "order": "77"}
    found = claims(good(result(0, "unknown", order="55"), resolved))
    assert OUTCOMES[found.outcome[0]] is Outcome.UNKNOWN
    assert (found.order[0], found.resolved[0]) == (55, 77)
    assert list(found.promised()) == [(0, 77)]


def test_resolved_to_none_promises_nothing() -> None:
    resolved = {"kind": "resolved", "i": 0, "outcome": "none", "order": None}
    assert list(claims(good(result(0, "unknown"), resolved)).promised()) == []


def test_resolved_to_an_order_without_an_id_is_still_a_promise() -> None:
    resolved = {"kind": "resolved", "i": 0, "outcome": "sold", "order": None}
    assert list(claims(good(result(0, "unknown"), resolved)).promised()) == [(0, NO_ORDER)]


@pytest.mark.parametrize("text", ["0", "-1", "1e3", "", "9223372036854775808", "٣"])
def test_an_order_id_that_is_none_is_kept_as_text(text: str) -> None:
    found = claims(good(result(0, order=text)))
    assert (found.order[0], found.garbled[0]) == (GARBLED, text)


def test_garbled_ids_stay_with_their_claim() -> None:
    content = lines(
        {**HEADER, "vouchers": [1, 2]}, plan(0, 10, 2), plan(1, 11), result(1, order="x")
    )
    assert parse_attempts(content).claims[1].garbled == {0: "x"}
    assert parse_attempts(content).claims[2].garbled == {}


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_torn_last_line_is_passed_over(cut: int) -> None:
    content = good(result(0), result(1))
    content[-1] = content[-1][:-cut]
    attempts = parse_attempts(content)
    torn = OUTCOMES[attempts.claims[1].outcome[1]]
    assert torn is (Outcome.SOLD if cut == 1 else Outcome.INDETERMINATE)
    assert not attempts.complete


def test_a_storm_that_died_while_planning_has_fewer_claims() -> None:
    content = lines(HEADER, plan(0, 10), plan(1, 11))
    content[-1] = content[-1][:20]
    assert parse_attempts(content).planned == 1


@pytest.mark.parametrize(
    ("line", "number", "reason"),
    [
        (b"{]\n", 5, "not JSON"),
        (b"[]\n", 5, "expected an object, as a storm writes them"),
        (b"\x1f\x8b\x08\x00\n", 5, "not JSON"),
        (b'{"kind":"dance"}\n', 5, "kind 'dance' is not known here"),
        (b'{"i":0}\n', 5, "no 'kind'"),
        (b'{"kind":%s}\n' % (b"[" * 900 + b"]" * 900), 5, "nested too deep"),
        (b"[" * 30_000 + b"\n", 5, "nested too deep"),
        (*lines(plan(2, 12)), 5, "a plan after the barrier"),
        (*lines(result(2)), 5, "i: attempt 2 is not in the plan"),
        (*lines(result(-1)), 5, "i: attempt -1 is not in the plan"),
        (*lines(result(True)), 5, "i: attempt True is not in the plan"),
        (*lines(result(0, "bought")), 5, "outcome 'bought' is not known"),
        (*lines(result(0, order=7)), 5, "order: expected text, got 7"),
        (*lines(result(0, sent_us="now")), 5, "sent_us: expected microseconds, got 'now'"),
        (b'{"kind":"result","i":0,"outcome":"sold"}\n', 5, "no 'sent_us'"),
        (*lines({"kind": "resolved", "i": 0, "outcome": "maybe", "order": None}), 5, "outcome"),
    ],
)
def test_a_malformed_line_is_named(line: bytes, number: int, reason: str) -> None:
    content = [*good(), line, *lines(result(1))]
    with pytest.raises(NothingJudgedError) as raised:
        parse_attempts(content)
    assert f"line {number}: {reason}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == ExitCode.NOTHING_JUDGED


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (plan(5, 12), "i: expected 1, got 5"),
        (plan(1, 0), "user and voucher: expected positive integers"),
        (plan(1, 7, True), "user and voucher: expected positive integers"),
        (plan(1, 2**63), "user and voucher: expected positive integers"),
    ],
)
def test_a_malformed_plan_is_named(line: dict[str, Any], reason: str) -> None:
    with pytest.raises(NothingJudgedError, match=f"line 3: {reason}"):
        parse_attempts(lines(HEADER, plan(0, 10), line, BARRIER))


def test_a_second_result_is_malformed() -> None:
    with pytest.raises(NothingJudgedError, match="line 6: attempt 0 has a result already"):
        parse_attempts(good(result(0), result(0)))


def test_a_plan_shorter_than_promised_is_no_record_to_judge_by() -> None:
    with pytest.raises(NothingJudgedError, match="the header plans 2 attempts, not 1"):
        parse_attempts(lines(HEADER, plan(0, 10), BARRIER))


@pytest.mark.parametrize(
    "first",
    [
        plan(0, 10),
        {**HEADER, "schema": 2},
        {**HEADER, "vouchers": ["1"]},
        {**HEADER, "vouchers": 7},
        {**HEADER, "vouchers": [2**63]},
        {k: v for k, v in HEADER.items() if k != "planned"},
    ],
)
def test_a_record_begins_with_a_header(first: dict[str, Any]) -> None:
    with pytest.raises(NothingJudgedError, match="line 1: "):
        parse_attempts(lines(first))


def test_an_empty_file_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "attempts.jsonl").touch()
    with pytest.raises(NothingJudgedError, match="expected a header"):
        read_attempts(tmp_path)


def test_a_folder_without_attempts_says_so(tmp_path: Path) -> None:
    with pytest.raises(NothingJudgedError, match="no attempts to judge"):
        read_attempts(tmp_path / "nothing")


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "attempts.jsonl").write_bytes(b"".join(good(result(0, order="7"))))
    assert read_attempts(tmp_path).claims[1].order[0] == 7


def test_what_is_no_claim_is_passed_over() -> None:
    """A user's reads and sign-ins stand in the plan, too, and their results speak other words."""
    read = {"kind": "plan", "i": 1, "ask": "browse", "user": 10, "shop": 1, "conn": 0, "at_us": 0}
    sign = {"kind": "plan", "i": 2, "ask": "sign", "user": 10, "conn": 0, "after": 1, "think_us": 5}
    content = lines(
        {**HEADER, "planned": 4},
        *(plan(0, 10), read, sign, plan(3, 11)),
        *(BARRIER, result(1, "hit"), result(2, "signed"), result(3, order="7")),
    )
    attempts = parse_attempts(content)
    assert (attempts.vouchers, attempts.planned) == ((1,), 2)
    found = attempts.claims[1]
    assert list(found.user) == [10, 11]
    assert list(found.order) == [NO_ORDER, 7]
    assert list(found.open()) == [0]  # the claim without a result; the others are not in doubt
    with pytest.raises(NothingJudgedError, match="attempt 1 has a result already"):
        parse_attempts([*content, *lines(result(1, "hit"))])


def test_what_was_spared_was_never_a_claim() -> None:
    content = good({"kind": "spared", "i": 1}, result(0, order="7"), END)
    attempts = parse_attempts(content)
    assert (attempts.planned, list(attempts.claims[1].user)) == (1, [10])
    assert list(attempts.claims[1].open()) == []
    cut_short = parse_attempts(good(result(0, order="7")))
    assert list(cut_short.claims[1].open()) == [1]  # nobody wrote that it was spared


@pytest.mark.parametrize(
    "ends", [({"kind": "spared", "i": 0}, result(0)), (result(0), {"kind": "spared", "i": 0})]
)
def test_an_attempt_is_spared_or_made(ends: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(NothingJudgedError, match="attempt 0 "):
        parse_attempts(good(*ends))


def test_a_run_of_reads_is_nothing_to_judge() -> None:
    with pytest.raises(NothingJudgedError, match="line 1: this run sold nothing"):
        parse_attempts(lines({**HEADER, "asked": "browse", "vouchers": []}))


@pytest.mark.parametrize(
    "content", [lines(HEADER), lines({**HEADER, "planned": 0}, BARRIER, {**END, "planned": 0})]
)
def test_a_record_without_a_plan_is_nothing_to_judge(content: list[bytes]) -> None:
    with pytest.raises(NothingJudgedError, match="no attempt was planned"):
        parse_attempts(content)


# A storm that was cut short.


def test_a_record_without_its_end_says_how_much_is_missing() -> None:
    attempts = parse_attempts(good(result(0)))
    assert (attempts.cut, attempts.complete, attempts.unrecorded) == (True, False, 1)
    assert attempts.shortfall is not None
    assert "1 of 2 claims have no result" in attempts.shortfall


def test_a_record_that_lacks_nothing_but_its_end_says_so() -> None:
    attempts = parse_attempts(good(result(0), result(1)))
    assert (attempts.cut, attempts.unrecorded) == (True, 0)
    assert attempts.shortfall is not None
    assert "every result is there" in attempts.shortfall


def test_before_the_barrier_nothing_was_sent_and_nothing_is_missing() -> None:
    attempts = parse_attempts(lines(HEADER, plan(0, 10), plan(1, 11)))
    assert (attempts.cut, attempts.unrecorded) == (True, 0)


def test_an_interrupted_run_has_a_whole_record() -> None:
    attempts = parse_attempts(good(result(0), result(1), {**END, "interrupted": True}))
    assert (attempts.cut, attempts.complete, attempts.shortfall) == (False, False, None)


# A block of lines at a time -----------------------------------------------------------------------

_IDS = st.sampled_from(["1", "007", str(BIG), str(BIG + 1), "0", "x", "", chr(0x661), None, 5])
_RESULTS = st.builds(
    lambda i, outcome, order, more: {**result(i, outcome, order=order), **more},
    st.integers(-1, 6),
    st.sampled_from(["sold", "sold_out", "unknown", "nothing"]),
    _IDS,
    st.sampled_from([{}, {}, {}, {"clock": 2}, {"sent_us": None}, {"done_us": "9"}, {"i": "1"}]),
)
_PLANS = st.lists(
    st.sampled_from([{}, {}, {}, {"ask": "browse"}, {"voucher": 2}, {"user": 0}, {"i": 9}]),
    min_size=5,
    max_size=5,
)


def _outcome_of(blocks: list[bytes]) -> object:
    try:
        return parse_attempts(blocks)
    except NothingJudgedError as error:
        return str(error)


@given(_PLANS, st.lists(_RESULTS, max_size=6), st.booleans(), st.integers(0, 40))
def test_a_block_says_what_its_lines_say(
    plans: list[dict[str, Any]], results: list[dict[str, Any]], text_ids: bool, torn: int
) -> None:
    """Alike or not, whole or torn, right or wrong: the same record, or the same complaint."""
    header = {
        **HEADER,
        "vouchers": [1, 2],
        "planned": 5,
        **({"text_ids": True} if text_ids else {}),
    }
    planned = [{**plan(i, 10 + i), **more} for i, more in enumerate(plans)]
    content = lines(header, *planned, BARRIER, *results)
    if torn < 3:
        content[-1] = content[-1][: -1 - torn]
    with patch.object(_Record, "take_all", lambda *_: False):
        alone = _outcome_of(content)
    assert _outcome_of([b"".join(content)]) == alone
    for cut in range(len(content)):
        assert _outcome_of([b"".join(content[:cut]), b"".join(content[cut:])]) == alone


@given(
    st.lists(
        st.one_of(
            st.integers(0, 2**64 + 5).map(str),
            st.sampled_from(["", "007", "1,2", ",", "1e5", "1.5", "-3", " 4", "٣", "²", "[1]"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_many_ids_are_read_as_each_is(texts: list[str]) -> None:
    ids = ids_in(",".join(texts).encode(), len(texts))
    assert ids is None or ids == [parse_id(text) for text in texts]
    if all(text == str(parse_id(text)) for text in texts):
        assert ids is not None
