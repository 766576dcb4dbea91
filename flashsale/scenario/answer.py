"""What an answer means: status, headers and body become one outcome. Pure.

A server of the family that sends no `x-outcome` is read by its body: `success` with an order id
in `data` sold, and its error messages map to outcomes, which a scenario can extend.

Which answers make a user try again follows from that.
"""

import codecs
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

import orjson

from flashsale.model import Ending, Outcome, Reading, Signing, parse_id

OUTCOME_HEADER = b"x-outcome"
ORDER_HEADER = b"x-order-id"
CACHE_HEADER = b"x-cache"

REJECTIONS = (
    Outcome.SOLD_OUT,
    Outcome.DUPLICATE,
    Outcome.NOT_OPEN,
    Outcome.ENDED,
    Outcome.PAUSED,
    Outcome.RATE_LIMITED,
    Outcome.NOT_LOADED,
    Outcome.SHED,
    Outcome.UNKNOWN,
)
"""What a server can say of a claim that did not sell."""

CONNECT, SILENT = "connect", "silent"
TARGETS_DOING = (CONNECT, SILENT)
"""Why an attempt was not sent, where that is the target's doing: it took no connection, or whoever
came before still waited for an answer of a target that had fallen silent when the time was up."""

REASONS = (
    Outcome.SHED.value,
    Outcome.RATE_LIMITED.value,
    Outcome.UNKNOWN.value,
    Outcome.NOT_OPEN.value,
    CONNECT,
)
"""What can make a user try again; `unknown` is also no answer at all, `connect` no connection to
ask over."""

_FAMILY = {
    "库存不足": Outcome.SOLD_OUT,
    "不能重复下单": Outcome.DUPLICATE,
    "不允许重复下单": Outcome.DUPLICATE,
    "用户已经购买过一次": Outcome.DUPLICATE,
    "秒杀尚未开始": Outcome.NOT_OPEN,
    "秒杀已经结束": Outcome.ENDED,
}
"""What the family's own servers say, some of them with a mark behind it."""

MESSAGES: Mapping[str, Outcome] = {
    "Insufficient inventory": Outcome.SOLD_OUT,
    "Duplicate orders cannot be placed": Outcome.DUPLICATE,
    "Sale has not started": Outcome.NOT_OPEN,
    "Sale has ended": Outcome.ENDED,
    "Sale is paused": Outcome.PAUSED,
    "Busy, try again": Outcome.SHED,
    "Outcome unknown, ask for your order": Outcome.UNKNOWN,
    **{f"{message}{mark}": outcome for message, outcome in _FAMILY.items() for mark in ("", "！")},
}
"""Error messages of servers that send no `x-outcome`."""

_BY_HEADER = {outcome.value.encode(): outcome for outcome in (Outcome.SOLD, *REJECTIONS)}
_BY_CACHE = {reading.value.encode(): reading for reading in Reading if reading != "answered"}


SAID_BYTES = 200
"""So many first bytes of an answer that could not be read, or of its message, are kept."""


class Answer(NamedTuple):
    """What became of an attempt. `error` says what went wrong, if anything did; `said` is the
    evidence where an answer came that could not be read or mapped (`excerpt`)."""

    outcome: Ending
    status: int | None = None
    order: str | None = None
    error: str | None = None
    said: str | None = None


new_answer: Callable[[tuple[Ending, int | None, str | None, str | None, str | None]], Answer] = (
    partial(tuple.__new__, Answer)
)
"""An answer from its fields, for where each request pays for it."""


def excerpt(said: bytes | str) -> str:
    """The beginning of what a server said, fit to be shown and written down: on one line, without
    control characters or such as turn the direction of writing."""
    text = said[:SAID_BYTES]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def unsent(error: str) -> Answer:
    """Never written to a connection: certainly not done."""
    return Answer(Outcome.UNSENT, None, None, error)


def indeterminate(error: str, said: bytes = b"") -> Answer:
    """Sent, and no answer that could be read; `said` is what came of one."""
    return Answer(Outcome.INDETERMINATE, None, None, error, excerpt(said) or None)


def wants_retry(answer: Answer | None, reasons: Collection[str]) -> bool:
    """Whether a claim that ended so is made again. None: it was never made, so there is nothing
    to make again."""
    if answer is None:
        return False
    if answer.outcome.is_indeterminate:
        return Outcome.UNKNOWN.value in reasons
    return answer.outcome.value in reasons or (answer.error == CONNECT and CONNECT in reasons)


def read_answer(
    status: int,
    outcome: bytes | None,
    order: bytes | None,
    body: bytes,
    messages: Mapping[str, Outcome] = MESSAGES,
) -> Answer:
    """The answer with this status, these headers (None where absent) and this body."""
    if outcome is None:
        return _by_status(status, body, messages)
    said = _BY_HEADER.get(outcome)
    if said is None:
        return Answer(Outcome.UNKNOWN, status, None, "outcome", excerpt(outcome))
    number = None if order is None else order.decode("latin-1")
    if said is Outcome.SOLD:
        return _sold(status, number or _order_in(body), body)
    if number is not None and parse_id(number) is None:
        return Answer(Outcome.UNKNOWN, status, None, "order_id", excerpt(number))
    return Answer(said, status, number, "unknown" if said is Outcome.UNKNOWN else None)


def read_reading(status: int, cache: bytes | None, body: bytes = b"") -> Answer:
    """The answer to a read with this status, this `x-cache` (None where absent) and this body.

    A thing that is not there is an answer like any other.
    """
    if status in (200, 404):
        return Answer(_BY_CACHE.get(cache or b"", Reading.ANSWERED), status)
    return _unserved(status, body)


def read_signing(status: int, body: bytes) -> Answer:
    """The answer to a daily sign-in with this status and this body."""
    if status != 200:
        return _unserved(status, body)
    if (_parsed(body) or {}).get("success") is True:
        return Answer(Signing.SIGNED, status)
    return Answer(Outcome.REFUSED, status, None, "not_signed", excerpt(body) or None)


def _unserved(status: int, body: bytes) -> Answer:
    """What is not a claim and did not get what it asked for."""
    if status == 429:
        return Answer(Outcome.RATE_LIMITED, status)
    if status == 503:
        return Answer(Outcome.SHED, status)
    failed = Outcome.REFUSED if 400 <= status < 500 else Outcome.INDETERMINATE
    return Answer(failed, status, None, f"http_{status}", excerpt(body) or None)


def _sold(status: int, order: str | None, body: bytes) -> Answer:
    """A sale counts only with status 200 and an order id to hold the server to."""
    if order is None or parse_id(order) is None:
        return Answer(Outcome.UNKNOWN, status, None, "order_id", excerpt(order or body))
    if status != 200:
        return Answer(Outcome.UNKNOWN, status, order, "status", excerpt(body) or None)
    return Answer(Outcome.SOLD, status, order)


def _by_status(status: int, body: bytes, messages: Mapping[str, Outcome]) -> Answer:
    if status == 200:
        return _by_body(body, messages)
    if status == 429:
        return Answer(Outcome.RATE_LIMITED, status)
    failed = Outcome.REFUSED if 400 <= status < 500 else Outcome.INDETERMINATE
    return Answer(failed, status, None, f"http_{status}", excerpt(body) or None)


def _by_body(body: bytes, messages: Mapping[str, Outcome]) -> Answer:
    envelope = _parsed(body)
    if envelope is None or not isinstance(envelope.get("success"), bool):
        return Answer(Outcome.INDETERMINATE, 200, None, "body", excerpt(body) or None)
    if envelope["success"]:
        return _sold(200, plain_text(envelope.get("data")), body)
    message = plain_text(envelope.get("errorMsg"))
    if message is None:
        return Answer(Outcome.UNKNOWN, 200, None, "no_message", excerpt(body))
    said = messages.get(message)
    if said is None:
        return Answer(Outcome.UNKNOWN, 200, None, "message", excerpt(message))
    return Answer(said, 200)


def plain_text(value: Any) -> str | None:
    """A JSON value that is text or a whole number, as text; None for any other, which may be
    nested deeper than Python can write down."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def document_of(body: bytes) -> Any:
    """A body as JSON, with or without a byte-order mark, as browsers read it. Raises ValueError."""
    return orjson.loads(body.removeprefix(codecs.BOM_UTF8))


def _parsed(body: bytes) -> Mapping[str, Any] | None:
    try:
        document = document_of(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _order_in(body: bytes) -> str | None:
    """The order id in `data`, where an answer names its outcome but sends no `x-order-id`."""
    return plain_text((_parsed(body) or {}).get("data"))
