"""What goes over the wire: the answer to every outcome, made once where it can be.

What came through the cache is JSON as it was stored, and `x-cache` says how it came.
"""

from typing import Any, NamedTuple

import orjson

from flashsale.cache.entry import Source
from flashsale.catalog.page import Page
from flashsale.model import Outcome

Header = tuple[bytes, bytes]
_JSON: Header = (b"content-type", b"application/json")
_CACHED: dict[Source, Header] = {source: (b"x-cache", source.encode()) for source in Source}


class Response(NamedTuple):
    """One HTTP answer, ready to send; a tuple, since one is made for every request."""

    status: int
    body: bytes
    headers: list[Header]


def ok(data: Any = None) -> Response:
    """The family's envelope around `data`; absent where it is None."""
    body = {"success": True} if data is None else {"success": True, "data": data}
    return _with_body(200, orjson.dumps(body))


def rejected(message: str, status: int = 200, *extra: Header) -> Response:
    """The family's envelope around a rejection; a business rejection is HTTP 200."""
    return _with_body(status, orjson.dumps({"success": False, "errorMsg": message}), *extra)


def ok_json(data: bytes, *extra: Header) -> Response:
    """The family's envelope around `data`, which is JSON already."""
    return _with_body(200, b'{"success":true,"data":%b}' % data, *extra)


def _with_body(status: int, body: bytes, *extra: Header) -> Response:
    length = (b"content-length", b"%d" % len(body))
    return Response(status, body, [_JSON, length, *extra])


def empty(status: int, *extra: Header) -> Response:
    """An answer without a body."""
    return Response(status, b"", [(b"content-length", b"0"), *extra])


_PERSONAL: tuple[Header, ...] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


def personal(answer: Response) -> Response:
    """`answer`, which is one user's alone: no cache on its way may keep it."""
    return answer._replace(headers=[*answer.headers, *_PERSONAL])


def too_many(retry_after_s: int) -> Response:
    """429, naming when to ask again."""
    return rejected("Too many requests, try again later", 429, _retry_after(retry_after_s))


def _retry_after(seconds: int) -> Header:
    return (b"retry-after", str(seconds).encode())


RETRY_SOON = _retry_after(1)
UNAUTHORIZED = empty(401)
BAD_ID = rejected("Expected an id from 1 to 9223372036854775807", 400)
NOT_FOUND = rejected("Not found", 404)
BUSY = rejected("Busy, try again", 503, RETRY_SOON)


def method_not_allowed(*allowed: str) -> Response:
    """405, naming what is allowed."""
    return rejected("Method not allowed", 405, (b"allow", ", ".join(allowed).encode()))


def _outcome(outcome: Outcome) -> Header:
    return (b"x-outcome", outcome.value.encode())


def too_many_claims(retry_after_s: int) -> Response:
    """429 to a claim: certainly not done."""
    answer = too_many(retry_after_s)
    return answer._replace(headers=[*answer.headers, _outcome(Outcome.RATE_LIMITED)])


_MESSAGES = {
    Outcome.SOLD_OUT: "Insufficient inventory",
    Outcome.NOT_OPEN: "Sale has not started",
    Outcome.ENDED: "Sale has ended",
    Outcome.PAUSED: "Sale is paused",
}
_FIXED = {
    **{
        outcome: rejected(message, 200, _outcome(outcome)) for outcome, message in _MESSAGES.items()
    },
    Outcome.SHED: rejected("Busy, try again", 503, RETRY_SOON, _outcome(Outcome.SHED)),
}
_DUPLICATE = rejected("Duplicate orders cannot be placed", 200, _outcome(Outcome.DUPLICATE))
UNKNOWN_VOUCHER = rejected("Voucher does not exist", 404, _outcome(Outcome.NOT_LOADED))
BEHIND = rejected(
    "Sale is under repair, nothing was bought, try again later",
    503,
    _retry_after(5),
    _outcome(Outcome.SHED),
    (b"x-reason", b"behind"),
)
"""Of a ledger that is behind, or a sale whose books disagree: certainly not done."""
NOT_LOADED = rejected("Busy, try again", 503, RETRY_SOON, _outcome(Outcome.NOT_LOADED))
_SOLD_HEADER = _outcome(Outcome.SOLD)


def claimed(outcome: Outcome, order_id: str, retry_after_s: int) -> Response:
    """The answer to a claim (the table of the design, section 3), but for one not loaded.

    `retry_after_s` is when the status of an unknown outcome is final.
    """
    if outcome is Outcome.SOLD:
        number = order_id.encode()
        body = b'{"success":true,"data":' + number + b"}"
        length = (b"content-length", str(len(body)).encode())
        return Response(200, body, [_JSON, length, _SOLD_HEADER, (b"x-order-id", number)])
    fixed = _FIXED.get(outcome)
    if fixed is not None:
        return fixed
    order = (b"x-order-id", order_id.encode())
    if outcome is Outcome.DUPLICATE:
        return Response(200, _DUPLICATE.body, [*_DUPLICATE.headers, order])
    if outcome is Outcome.UNKNOWN:
        retry = _retry_after(retry_after_s)
        message = "Outcome unknown, ask for your order"
        return rejected(message, 503, retry, _outcome(outcome), order)
    raise KeyError(f"no answer is defined for the outcome {outcome!r}")


CLAIM_ANSWERS = (
    *_FIXED.values(),
    *(claimed(one, "1", 1) for one in (Outcome.SOLD, Outcome.DUPLICATE, Outcome.UNKNOWN)),
    *(UNKNOWN_VOUCHER, BEHIND, NOT_LOADED, too_many_claims(1)),
)
"""Every one, by example."""


_REFUSED_BY_THE_FAMILY_WITH_200 = (400, 404)


def as_family(answer: Response) -> Response:
    """`answer` as the family's servers would give it where ours are stricter: what is malformed or
    not there is a rejection with HTTP 200, and the id of an order is text, which JavaScript holds
    whole."""
    if answer.status in _REFUSED_BY_THE_FAMILY_WITH_200:
        return answer._replace(status=200)
    if _SOLD_HEADER in answer.headers:
        order_id = next(value for name, value in answer.headers if name == b"x-order-id")
        others = [header for header in answer.headers if header[0] not in _OF_BODY]
        return _with_body(200, b'{"success":true,"data":"%b"}' % order_id, *others)
    return answer


_OF_BODY = (b"content-type", b"content-length")


def answered(body: bytes | None, source: Source, absent: Response = NOT_FOUND) -> Response:
    """The thing in `body`, or `absent` where there is none."""
    header = _CACHED[source]
    if body is None:
        return Response(absent.status, absent.body, [*absent.headers, header])
    return ok_json(body, header)


def listed(page: Page) -> Response:
    """A page of a list."""
    return ok_json(page.body, _CACHED[page.source])
