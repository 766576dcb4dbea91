"""What goes over the wire: the answer to every outcome, made once where it can be.

What came through the cache is JSON as it was stored, and `x-cache` says how it came.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from flashsale.cache.entry import Source
from flashsale.catalog.json import Page
from flashsale.model import Outcome

Header = tuple[bytes, bytes]
NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
_JSON: Header = (b"content-type", b"application/json")
_CACHED: dict[Source, Header] = {source: (b"x-cache", source.encode()) for source in Source}


class Response(NamedTuple):
    """One HTTP answer, ready to send; a tuple, since one is made for every request.

    `head` is its header lines as they go out, each with its end, the body's length among them: to
    write them anew for each answer costs more than everything else about it.
    """

    status: int
    body: bytes
    head: bytes

    @property
    def headers(self) -> list[Header]:
        """The header lines as ASGI has them."""
        lines = self.head.split(_LINE_END)[:-1]
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]

    def adding(self, *extra: Header) -> "Response":
        """The same with more headers. Raises ValueError for one that holds a line break."""
        return self._replace(head=self.head + written(extra))


_LINE_END = b"\r\n"


def respond(status: int, body: bytes, *headers: Header) -> Response:
    """An answer with these headers, its length and what every answer of ours says. Raises
    ValueError for a header that holds a line break."""
    length = (b"content-length", b"%d" % len(body))
    return Response(status, body, written((*headers, length, NOSNIFF)))


def written(headers: Iterable[Header]) -> bytes:
    """Header lines as they go out. Raises ValueError for one that holds a line break."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    head = b"".join(lines)
    if not head.count(b"\n") == head.count(b"\r") == len(lines):
        raise ValueError("a header holds a line break")
    return head


def ok(data: Any = None) -> Response:
    """The family's envelope around `data`; absent where it is None."""
    body = {"success": True} if data is None else {"success": True, "data": data}
    return respond(200, orjson.dumps(body), _JSON)


def rejected(message: str, status: int = 200, *extra: Header) -> Response:
    """The family's envelope around a rejection; a business rejection is HTTP 200."""
    body = orjson.dumps({"success": False, "errorMsg": message})
    return respond(status, body, _JSON, *extra)


def ok_json(data: bytes, *extra: Header) -> Response:
    """The family's envelope around `data`, which is JSON already."""
    return respond(200, b'{"success":true,"data":%b}' % data, _JSON, *extra)


def empty(status: int, *extra: Header) -> Response:
    """An answer without a body."""
    return respond(status, b"", *extra)


_CACHED_HEADS = {source: written((_JSON, NOSNIFF, header)) for source, header in _CACHED.items()}


def _cached(data: bytes, source: Source) -> Response:
    """`data`, JSON already, in the family's envelope, and how it came."""
    body = b'{"success":true,"data":%b}' % data
    return Response(200, body, b"%bcontent-length: %d\r\n" % (_CACHED_HEADS[source], len(body)))


_PERSONAL: Header = (b"cache-control", b"no-store")


def personal(answer: Response) -> Response:
    """`answer`, which is one user's alone: no cache on its way may keep it."""
    return answer.adding(_PERSONAL)


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
    return too_many(retry_after_s).adding(_outcome(Outcome.RATE_LIMITED))


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
_SOLD_HEAD = written((_JSON, NOSNIFF, _SOLD_HEADER))


def claimed(outcome: Outcome, order_id: str, retry_after_s: int) -> Response:
    """The answer to a claim (the table of the design, section 3), but for one not loaded.

    `retry_after_s` is when the status of an unknown outcome is final.
    """
    if outcome is Outcome.SOLD:
        if not order_id.isdigit():  # of a receipt that somebody else wrote
            raise ValueError(f"expected an order id, got {order_id!r}")
        number = order_id.encode()
        body = b'{"success":true,"data":%b}' % number
        head = b"%bcontent-length: %d\r\nx-order-id: %b\r\n" % (_SOLD_HEAD, len(body), number)
        return Response(200, body, head)
    fixed = _FIXED.get(outcome)
    if fixed is not None:
        return fixed
    order = (b"x-order-id", order_id.encode())
    if outcome is Outcome.DUPLICATE:
        return _DUPLICATE.adding(order)
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
        order = (b"x-order-id", order_id)
        return ok_json(b'"%b"' % order_id, _SOLD_HEADER, order)
    return answer


def answered(body: bytes | None, source: Source, absent: Response = NOT_FOUND) -> Response:
    """The thing in `body`, or `absent` where there is none."""
    return absent.adding(_CACHED[source]) if body is None else _cached(body, source)


def listed(page: Page) -> Response:
    """A page of a list."""
    return _cached(page.body, page.source)
