"""The answer table of a claim: status, body and headers of every outcome."""

import json

import pytest

from flashsale.model import ID_MAX, Outcome
from flashsale.server.response import (
    BUSY,
    NOT_FOUND,
    NOT_LOADED,
    UNAUTHORIZED,
    UNKNOWN_VOUCHER,
    Response,
    as_family,
    claimed,
    empty,
    method_not_allowed,
    ok,
    rejected,
)

MINE = str(ID_MAX)


def headers(response: Response) -> dict[str, str]:
    names = [name for name, _ in response.headers]
    assert len(set(names)) == len(names)
    found = {name.decode(): value.decode() for name, value in response.headers}
    assert found.pop("content-length") == str(len(response.body))
    assert found.pop("x-content-type-options") == "nosniff"
    return found


JSON = {"content-type": "application/json"}


def test_sold() -> None:
    answer = claimed(Outcome.SOLD, MINE, 3)
    assert (answer.status, answer.body) == (200, b'{"success":true,"data":9223372036854775807}')
    assert headers(answer) == {**JSON, "x-outcome": "sold", "x-order-id": MINE}


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (Outcome.SOLD_OUT, "Insufficient inventory"),
        (Outcome.NOT_OPEN, "Sale has not started"),
        (Outcome.ENDED, "Sale has ended"),
        (Outcome.PAUSED, "Sale is paused"),
    ],
)
def test_business_rejections_are_200(outcome: Outcome, message: str) -> None:
    answer = claimed(outcome, "", 3)
    assert answer.status == 200
    assert json.loads(answer.body) == {"success": False, "errorMsg": message}
    assert headers(answer) == {**JSON, "x-outcome": outcome.value}


def test_what_somebody_else_wrote_in_the_place_of_an_order_id_splits_no_answer() -> None:
    for outcome in (Outcome.SOLD, Outcome.DUPLICATE):
        with pytest.raises(ValueError, match=r"order id|line break"):
            claimed(outcome, "17\r\nset-cookie: a", 3)


def test_a_header_is_added_without_touching_the_others() -> None:
    more = NOT_FOUND.adding((b"x-a", b"b: c"))
    assert more.headers == [*NOT_FOUND.headers, (b"x-a", b"b: c")]
    assert (more.status, more.body) == (NOT_FOUND.status, NOT_FOUND.body)


def test_duplicate_names_the_order_held() -> None:
    answer = claimed(Outcome.DUPLICATE, "17", 3)
    assert answer.status == 200
    assert json.loads(answer.body)["errorMsg"] == "Duplicate orders cannot be placed"
    assert headers(answer) == {**JSON, "x-outcome": "duplicate", "x-order-id": "17"}


def test_shed() -> None:
    answer = claimed(Outcome.SHED, "", 3)
    assert answer.status == 503
    assert json.loads(answer.body) == {"success": False, "errorMsg": "Busy, try again"}
    assert headers(answer) == {**JSON, "x-outcome": "shed", "retry-after": "1"}


def test_unknown_names_its_id_and_when_the_truth_is_final() -> None:
    answer = claimed(Outcome.UNKNOWN, "17", 3)
    assert answer.status == 503
    assert json.loads(answer.body)["errorMsg"] == "Outcome unknown, ask for your order"
    assert headers(answer) == {
        **JSON,
        "x-outcome": "unknown",
        "x-order-id": "17",
        "retry-after": "3",
    }


def test_not_loaded() -> None:
    assert UNKNOWN_VOUCHER.status == 404
    assert NOT_LOADED.status == 503
    assert headers(NOT_LOADED) == {**JSON, "x-outcome": "not_loaded", "retry-after": "1"}


def test_an_order_id_is_not_kept_for_the_next_answer() -> None:
    claimed(Outcome.DUPLICATE, "17", 3)
    claimed(Outcome.UNKNOWN, "17", 3)
    assert headers(claimed(Outcome.DUPLICATE, "18", 3))["x-order-id"] == "18"
    assert "x-order-id" not in headers(claimed(Outcome.SHED, "", 3))


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.INDETERMINATE, Outcome.NOT_LOADED])
def test_an_outcome_without_an_answer_is_a_bug(outcome: Outcome) -> None:
    with pytest.raises(KeyError):
        claimed(outcome, "", 3)


def test_envelope() -> None:
    assert json.loads(ok().body) == {"success": True}
    assert json.loads(ok([]).body) == {"success": True, "data": []}
    assert json.loads(rejected("No", 400).body) == {"success": False, "errorMsg": "No"}


def test_plain_answers() -> None:
    assert (UNAUTHORIZED.status, UNAUTHORIZED.body) == (401, b"")
    assert headers(UNAUTHORIZED) == {}
    assert empty(204).status == 204
    assert NOT_FOUND.status == 404
    assert headers(BUSY)["retry-after"] == "1"
    assert headers(method_not_allowed("GET", "POST"))["allow"] == "GET, POST"


def test_as_the_familys_servers_answer() -> None:
    """Refusals are 200, and an order's id is text; whatever says "not now" or "not you" stays."""
    sold = as_family(claimed(Outcome.SOLD, MINE, 3))
    assert (sold.status, json.loads(sold.body)) == (200, {"success": True, "data": MINE})
    assert headers(sold) == {**JSON, "x-outcome": "sold", "x-order-id": MINE}
    for refusal in (NOT_FOUND, UNKNOWN_VOUCHER, rejected("id: expected an id", 400)):
        answer = as_family(refusal)
        assert (answer.status, answer.body, answer.headers) == (200, refusal.body, refusal.headers)
    for answer in (UNAUTHORIZED, BUSY, NOT_LOADED, ok(1), rejected("no"), method_not_allowed()):
        assert as_family(answer) is answer
    for outcome in (Outcome.SOLD_OUT, Outcome.DUPLICATE, Outcome.UNKNOWN, Outcome.SHED):
        answer = claimed(outcome, MINE, 3)
        assert as_family(answer) is answer
