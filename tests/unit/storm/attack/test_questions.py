from typing import Any

import pytest

from flashsale.storm.attack.questions import Reply, read_reply


@pytest.mark.parametrize(
    ("status", "body", "reply"),
    [
        (200, {"success": True, "data": {"state": "none"}}, Reply.NONE),
        (200, {"success": True, "data": {"state": "row", "orderId": "7", "status": 1}}, "7"),
        (200, {"success": True, "data": {"state": "receipt", "orderId": "9"}}, "9"),
        (200, {"success": True, "data": {"state": "row"}}, Reply.NEVER),
        (200, {"success": True, "data": {"state": "row", "orderId": "x"}}, Reply.NEVER),
        (200, {"success": True, "data": 7}, Reply.NEVER),
        (200, {"success": False, "errorMsg": "no"}, Reply.NEVER),
        (200, None, Reply.NEVER),
        (200, [], Reply.NEVER),
        (401, None, Reply.NEVER),
        (404, None, Reply.NEVER),
        (429, None, Reply.LATER),
        (500, None, Reply.LATER),
        (503, {"success": False}, Reply.LATER),
    ],
)
def test_a_status_is_an_order_or_none_or_later_or_never(
    status: int, body: Any, reply: str | Reply
) -> None:
    assert read_reply(status, body) == reply
