from collections.abc import Collection

import pytest

from flashsale.model import Outcome
from flashsale.scenario.answer import (
    REASONS,
    Answer,
    excerpt,
    indeterminate,
    read_answer,
    unsent,
    wants_retry,
)

ID = b"515385561440059393"
ORDER = ID.decode()


@pytest.mark.parametrize(
    ("status", "outcome", "order", "expected"),
    [
        (200, b"sold", ID, Answer(Outcome.SOLD, 200, ORDER)),
        (200, b"sold_out", None, Answer(Outcome.SOLD_OUT, 200)),
        (200, b"duplicate", ID, Answer(Outcome.DUPLICATE, 200, ORDER)),
        (200, b"duplicate", None, Answer(Outcome.DUPLICATE, 200)),
        (200, b"not_open", None, Answer(Outcome.NOT_OPEN, 200)),
        (200, b"ended", None, Answer(Outcome.ENDED, 200)),
        (200, b"paused", None, Answer(Outcome.PAUSED, 200)),
        (429, b"rate_limited", None, Answer(Outcome.RATE_LIMITED, 429)),
        (404, b"not_loaded", None, Answer(Outcome.NOT_LOADED, 404)),
        (503, b"not_loaded", None, Answer(Outcome.NOT_LOADED, 503)),
        (503, b"shed", None, Answer(Outcome.SHED, 503)),
        (503, b"unknown", ID, Answer(Outcome.UNKNOWN, 503, ORDER, "unknown")),
    ],
)
def test_the_table_of_answers(
    status: int, outcome: bytes, order: bytes | None, expected: Answer
) -> None:
    assert read_answer(status, outcome, order, b"") == expected


@pytest.mark.parametrize(
    ("status", "outcome", "order", "error"),
    [
        (200, b"sold", None, "order_id"),  # a sale that names no order
        (200, b"sold", b"0", "order_id"),
        (200, b"sold", b"9223372036854775808", "order_id"),  # 2^63
        (200, b"sold", b"12x", "order_id"),
        (200, b"duplicate", b"abc", "order_id"),
        (503, b"sold", ID, "status"),  # a sale that says that it failed
        (200, b"indeterminate", None, "outcome"),  # the storm's own word, not a server's
        (200, b"Sold", ID, "outcome"),
    ],
)
def test_an_answer_that_contradicts_itself_is_unknown(
    status: int, outcome: bytes, order: bytes | None, error: str
) -> None:
    answer = read_answer(status, outcome, order, b"")
    assert (answer.outcome, answer.error) == (Outcome.UNKNOWN, error)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Answer(Outcome.REFUSED, 400, None, "http_400")),
        (401, Answer(Outcome.REFUSED, 401, None, "http_401")),
        (404, Answer(Outcome.REFUSED, 404, None, "http_404")),
        (429, Answer(Outcome.RATE_LIMITED, 429)),
        (301, Answer(Outcome.INDETERMINATE, 301, None, "http_301")),
        (500, Answer(Outcome.INDETERMINATE, 500, None, "http_500")),
        (502, Answer(Outcome.INDETERMINATE, 502, None, "http_502")),
        (503, Answer(Outcome.INDETERMINATE, 503, None, "http_503")),
        (504, Answer(Outcome.INDETERMINATE, 504, None, "http_504")),
    ],
)
def test_without_an_outcome_the_status_decides(status: int, expected: Answer) -> None:
    evidence = None if status == 429 else "<html>"
    assert read_answer(status, None, None, b"<html>") == expected._replace(said=evidence)


@pytest.mark.parametrize(
    ("body", "outcome", "order", "error"),
    [
        (b'{"success":true,"data":515385561440059393}', Outcome.SOLD, ORDER, None),
        (b'{"success":true,"data":"515385561440059393"}', Outcome.SOLD, ORDER, None),
        ('{"success":false,"errorMsg":"库存不足"}'.encode(), Outcome.SOLD_OUT, None, None),
        (b'{"success":false,"errorMsg":"Insufficient inventory"}', Outcome.SOLD_OUT, None, None),
        (b'{"success":false,"errorMsg":"gone"}', Outcome.UNKNOWN, None, "message"),
        (b'{"success":false,"errorMsg":["gone"]}', Outcome.UNKNOWN, None, "no_message"),
        (b'{"success":false}', Outcome.UNKNOWN, None, "no_message"),
        (b'{"success":true}', Outcome.UNKNOWN, None, "order_id"),
        (b'{"success":true,"data":-1}', Outcome.UNKNOWN, None, "order_id"),
        (b'{"success":true,"data":5e17}', Outcome.UNKNOWN, None, "order_id"),
        (b'{"success":"true","data":1}', Outcome.INDETERMINATE, None, "body"),
        (b"[]", Outcome.INDETERMINATE, None, "body"),
        (b"", Outcome.INDETERMINATE, None, "body"),
    ],
)
def test_a_foreign_server_is_read_by_its_body(
    body: bytes, outcome: Outcome, order: str | None, error: str | None
) -> None:
    answer = read_answer(200, None, None, body)
    assert answer._replace(said=None) == Answer(outcome, 200, order, error)
    assert bool(answer.said) is (error is not None and body != b"")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"plain \xff\x1b[2J\r\n", "plain \\xff\\x1b[2J\\r\\n"),
        ("库存不足 [b]", "库存不足 [b]"),
        ("gnp.\u202efdp", "gnp.\\u202efdp"),
        (b"\x1f\x8b\x08" + b"\x00" * 1_000_000, "\\x1f\\x8b\\x08" + "\\x00" * 197),
    ],
)
def test_evidence_is_short_and_harmless(said: bytes | str, shown: str) -> None:
    assert excerpt(said) == shown


def test_a_scenario_can_name_the_messages_of_its_server() -> None:
    body = b'{"success":false,"errorMsg":"gone"}'
    assert read_answer(200, None, None, body, {"gone": Outcome.ENDED}).outcome is Outcome.ENDED


def test_a_sale_without_the_header_may_name_its_order_in_the_body() -> None:
    assert read_answer(200, b"sold", None, b'{"success":true,"data":7}').order == "7"


def test_what_was_not_answered_has_no_status() -> None:
    assert unsent("connect") == Answer(Outcome.UNSENT, None, None, "connect")
    assert indeterminate("reset") == Answer(Outcome.INDETERMINATE, None, None, "reset")
    assert not unsent("connect").outcome.is_indeterminate
    assert indeterminate("reset").outcome.is_indeterminate


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        (Answer(Outcome.SHED, 503), {"shed"}),
        (Answer(Outcome.RATE_LIMITED, 429), {"rate_limited"}),
        (Answer(Outcome.NOT_OPEN, 200), {"not_open"}),
        (Answer(Outcome.UNKNOWN, 503, "7", "unknown"), {"unknown"}),
        (indeterminate("timeout"), {"unknown"}),
        (unsent("connect"), {"connect"}),
        (unsent("interrupted"), set()),
        (Answer(Outcome.SOLD, 200, "7"), set()),
        (Answer(Outcome.SOLD_OUT, 200), set()),
        (Answer(Outcome.DUPLICATE, 200, "7"), set()),
        (Answer(Outcome.REFUSED, 401, None, "http_401"), set()),
    ],
)
def test_each_answer_calls_for_a_retry_for_its_own_reason_alone(
    answer: Answer, reasons: Collection[str]
) -> None:
    assert {reason for reason in REASONS if wants_retry(answer, {reason})} == reasons
    assert not wants_retry(answer, ())
