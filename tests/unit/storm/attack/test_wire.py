import asyncio
import gzip
import zlib
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale.model import Outcome
from flashsale.scenario.answer import Answer, indeterminate
from flashsale.scenario.rules import Meanings, Rule
from flashsale.storm.attack.requests import ShopReader
from flashsale.storm.attack.wire import IDLE, ClientConnection, Reader, SignReader, unpacked

ORDER = "515385561440059393"


def message(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}"])
    return head.encode() + b"\r\n\r\n" + body


def sold(order: str = ORDER) -> bytes:
    body = b'{"success":true,"data":%s}' % order.encode()
    return message(body, "Server: any", "x-outcome: sold", f"x-order-id: {order}")


SOLD_OUT = message(b'{"success":false}', "x-outcome: sold_out")


class Transport:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.is_closed = True

    abort = close


class Wire:
    """A connection whose other end is the test."""

    def __init__(self, reader: Reader | None = None) -> None:
        self.reader, self.transport = reader or Reader(), Transport()
        self.told: list[tuple[int, Answer]] = []
        self.connection = ClientConnection(0, self._ended)
        self.connection.connection_made(cast(asyncio.Transport, self.transport))

    def ask(self, *pieces: bytes, attempt: int = 7) -> list[tuple[int, Answer]]:
        self.connection.send(attempt, b"POST", self.reader)
        for piece in pieces:
            self.connection.data_received(piece)
        return self.told

    def _ended(self, connection: int, attempt: int, at_ns: int, answer: Answer) -> None:
        assert connection == self.connection.number
        self.told.append((attempt, answer))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 200), max_size=8), st.sampled_from([sold(), SOLD_OUT]))
def test_an_answer_reads_the_same_in_any_pieces(cuts: list[int], data: bytes) -> None:
    wire, edges = Wire(), [0, *sorted(c for c in set(cuts) if c < len(data)), len(data)]
    told = wire.ask(*(data[a:b] for a, b in pairwise(edges)))
    expected = (
        Answer(Outcome.SOLD, 200, ORDER) if data != SOLD_OUT else Answer(Outcome.SOLD_OUT, 200)
    )
    assert told == [(7, expected)]
    assert wire.connection.attempt == IDLE
    assert wire.connection.is_open


def test_answers_follow_one_another_on_one_connection() -> None:
    wire = Wire()
    for attempt, data in enumerate([sold(), SOLD_OUT, sold("515385561440059394"), SOLD_OUT]):
        wire.ask(data, attempt=attempt)
    outcomes = [(i, answer.outcome, answer.order) for i, answer in wire.told]
    assert outcomes == [
        (0, Outcome.SOLD, ORDER),
        (1, Outcome.SOLD_OUT, None),
        (2, Outcome.SOLD, "515385561440059394"),
        (3, Outcome.SOLD_OUT, None),
    ]


# What is recalled equals what is parsed.


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 2**63 - 1), st.integers(1, 2**63 - 1))
def test_a_recalled_answer_is_what_a_parser_makes_of_it(first: int, second: int) -> None:
    reader = Reader()
    Wire(reader).ask(sold(str(first)))
    assert Wire(reader).ask(sold(str(second))) == Wire().ask(sold(str(second)))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([sold(), SOLD_OUT]), st.integers(0, 300), st.integers(0, 255))
def test_a_changed_byte_is_never_recalled_as_the_original(
    data: bytes, place: int, byte: int
) -> None:
    changed = bytearray(data)
    changed[place % len(data)] = byte
    reader = Reader()
    Wire(reader).ask(data)
    recalled, parsed = Wire(reader), Wire()
    assert recalled.ask(bytes(changed)) == parsed.ask(bytes(changed))
    assert recalled.transport.is_closed == parsed.transport.is_closed


def test_only_whole_answers_alone_in_their_piece_are_remembered() -> None:
    reader = Reader()
    Wire(reader).ask(sold()[:50], sold()[50:])
    Wire(reader).ask(SOLD_OUT + SOLD_OUT)
    Wire(reader).ask(message(b"{}", "x-outcome: sold_out", "Connection: close"))
    assert repr(reader) == "<Reader shapes=0>"
    Wire(reader).ask(sold())
    assert repr(reader) == "<Reader shapes=1>"


@pytest.mark.parametrize("first", ["200", "40", "0000000000000053", "9223372036854775807"])
@pytest.mark.parametrize("second", ["204", "41", "0000000000000054", "9223372036854775808"])
def test_ids_that_could_be_something_else_are_read_as_a_parser_does(
    first: str, second: str
) -> None:
    reader = Reader()
    Wire(reader).ask(sold(first))
    assert Wire(reader).ask(sold(second)) == Wire().ask(sold(second))


_SHOPS = {
    "number": (message, b'{"ok":true,"id":%s}', {"order": "/id"}),
    "text": (message, b'{"ok":true,"id":"%s"}', {"order": "/id"}),
    "late": (message, b'{"ok":true,"was":"%s","id":"7"}', {"order": "/id"}),
    "twice": (message, b'{"ok":true,"id":"%s","id":"7"}', {"order": "/id"}),
    "message": (message, b'{"ok":true,"id":"%s","told":"order %s"}', {"order": "/id"}),
    "pattern": (message, b'{"ok":true,"id":"%s"}', {"order": 'body:"id":"([0-9a-f]{2})'}),
}
_IDS = st.one_of(
    st.integers(0, 10**20).map(str),
    st.from_regex(r"[0-9a-f]{1,8}(-[0-9a-f]{4})?", fullmatch=True),
    st.text("019aFz_-", min_size=1, max_size=20),
    st.sampled_from(["null", "true", "200", "7", "12.5", "\\u0031", "#", "\0"]),
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(_SHOPS)), st.lists(_IDS, min_size=2, max_size=6), st.booleans())
def test_a_shops_answer_is_recalled_as_its_rules_read_it(
    shop: str, ids: list[str], by_digits: bool
) -> None:
    made, body, places = _SHOPS[shop]
    sells = {"status": 200, "json": {"/ok": True}, "outcome": "sold"}
    rules = [{"status": 200, "matches": {"/id": "[13579]$"}, "outcome": "duplicate"}, sells]
    found = tuple(Rule.model_validate(rule) for rule in (rules if by_digits else [sells]))
    reader = ShopReader(Meanings(found, places["order"]))
    for one in ids:
        answer = made(body.replace(b"%s", one.encode()))
        afresh = ShopReader(Meanings(found, places["order"]))
        assert Wire(reader).ask(answer) == Wire(afresh).ask(answer), one


@pytest.mark.parametrize(
    ("body", "first", "second"),
    [
        (b'{"success":true,"data":%s}', "515385561440059393", "515385561440059394"),
        (b'{"success":true,"data":%s}', "71", "72"),
        (b'{"success":true,"data":"%s","at":3}', "84", "93"),
    ],
)
def test_an_answer_that_differs_in_its_order_alone_is_not_parsed_again(
    body: bytes, first: str, second: str
) -> None:
    reader = Reader()
    Wire(reader).ask(message(body % first.encode()))
    told = reader.recall(message(body % second.encode()))
    assert told == Answer(Outcome.SOLD, 200, second)
    assert reader.recall(message(body % b"0" * len(first))) is None


def test_where_nothing_is_alike_little_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, learned = Reader(), []
    monkeypatch.setattr(reader, "_learn", lambda *_: learned.append(1) or True)
    for at in range(4_000):
        Wire(reader).ask(message(b'{"success":true,"data":%d,"at":%d}' % (at + 5_000, at)))
    assert len(learned) < 4_000 / 8


def test_a_foreign_sale_is_recalled_only_byte_for_byte() -> None:
    body = b'{"success":true,"data":%s}'
    reader = Reader()
    Wire(reader).ask(message(body % ORDER.encode()))
    blank = message(body % (b"#" * 18))
    unread = Answer(Outcome.INDETERMINATE, 200, None, "body", (body % (b"#" * 18)).decode())
    assert Wire(reader).ask(blank) == [(7, unread)]
    told = Wire(reader).ask(message(body % b"515385561440059394"))
    assert told == [(7, Answer(Outcome.SOLD, 200, "515385561440059394"))]


def test_the_memory_is_bounded() -> None:
    reader = Reader()
    for second in range(3000):
        Wire(reader).ask(message(b"{}", f"Date: {second}", "x-outcome: ended"))
    assert int(repr(reader).partition("=")[2].rstrip(">")) <= 1024


# Framing.


@pytest.mark.parametrize("piece_length", [1, 7, 1000])
def test_chunks_are_put_together(piece_length: int) -> None:
    data = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'10\r\n{"success":true,\r\n1b\r\n"data": 515385561440059393}\r\n0\r\n\r\n'
    )
    pieces = [data[i : i + piece_length] for i in range(0, len(data), piece_length)]
    assert Wire().ask(*pieces) == [(7, Answer(Outcome.SOLD, 200, ORDER))]


def test_a_1xx_only_announces_the_answer() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nx-outcome: sold_out\r\n\r\n"
    wire = Wire()
    assert wire.ask(hints) == []
    wire.connection.data_received(sold())
    assert wire.told == [(7, Answer(Outcome.SOLD, 200, ORDER))]


def test_header_names_are_read_in_any_case() -> None:
    data = message(b"", "X-Outcome: sold", f"X-ORDER-ID: {ORDER}")
    assert Wire().ask(data) == [(7, Answer(Outcome.SOLD, 200, ORDER))]


def test_blanks_around_a_value_are_no_part_of_it() -> None:
    data = message(b"", "x-outcome: \t sold \t", f"x-order-id:{ORDER}  ")
    assert Wire().ask(data) == [(7, Answer(Outcome.SOLD, 200, ORDER))]


def test_a_trailer_says_nothing_of_an_answer() -> None:
    """It comes when the answer is decided, and proxies leave it out."""
    body = b'{"success":true,"data":%s}' % ORDER.encode()
    head = b"HTTP/1.1 200 OK\r\nx-outcome: sold\r\ntransfer-encoding: chunked\r\n\r\n"
    trailer = b"0\r\nx-outcome: sold_out\r\nx-order-id: 1\r\n\r\n"
    data = head + b"%x\r\n%s\r\n" % (len(body), body) + trailer
    assert Wire().ask(data) == [(7, Answer(Outcome.SOLD, 200, ORDER))]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_no_part_of_json(mark: bytes) -> None:
    body = mark + b'{"success":true,"data":%s}' % ORDER.encode()
    assert Wire().ask(message(body)) == [(7, Answer(Outcome.SOLD, 200, ORDER))]


def test_a_page_may_say_late_what_counts() -> None:
    body = b'{"pad":"%s","success":true,"data":%s}' % (b"x" * 300_000, ORDER.encode())
    assert Wire().ask(message(body)) == [(7, Answer(Outcome.SOLD, 200, ORDER))]


@pytest.mark.parametrize("piece_length", [7, 100_000])
@pytest.mark.parametrize("kind", ["gzip", "X-GZIP", "deflate", "identity"])
def test_a_body_that_was_packed_unasked_is_read(kind: str, piece_length: int) -> None:
    plain = b'{"success":true,"data":%s}' % ORDER.encode()
    packed = {"deflate": zlib.compress, "identity": bytes}.get(kind, gzip.compress)
    data = message(packed(plain), f"Content-Encoding: {kind}")
    pieces = [data[i : i + piece_length] for i in range(0, len(data), piece_length)]
    assert Wire().ask(*pieces) == [(7, Answer(Outcome.SOLD, 200, ORDER))]


@pytest.mark.parametrize("kind", ["br", "gzip"])
def test_a_body_that_cannot_be_unpacked_is_told_with_the_cure(kind: str) -> None:
    ((_, answer),) = Wire().ask(message(b"\x8b\x00", f"Content-Encoding: {kind}"))
    assert (answer.outcome, answer.error) == (Outcome.INDETERMINATE, "body")
    assert answer.said == (
        f"(a body packed as {kind}, which cannot be read; ask for it as it is, by headers = "
        '{ accept-encoding = "identity" })'
    )


def test_what_unpacks_to_gigabytes_is_read_as_far_as_any() -> None:
    packed = gzip.compress(bytes(50_000_000))
    assert len(unpacked(packed, "gzip")) == 1_048_576


def test_without_a_length_the_end_is_the_end() -> None:
    wire = Wire()
    wire.ask(b'HTTP/1.1 200 OK\r\n\r\n{"success":true,"data":', ORDER.encode() + b"}")
    assert wire.told == []
    wire.connection.eof_received()
    wire.connection.connection_lost(None)
    assert wire.told == [(7, Answer(Outcome.SOLD, 200, ORDER))]
    assert not wire.connection.is_open


def test_a_huge_body_is_not_kept() -> None:
    wire = Wire()
    wire.ask(b"HTTP/1.1 200 OK\r\nx-outcome: ended\r\nContent-Length: 10000000\r\n\r\n")
    for _ in range(100):
        wire.connection.data_received(b"x" * 100_000)
        assert len(wire.connection._body) <= 1_200_000
    assert wire.told == [(7, Answer(Outcome.ENDED, 200))]


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nx-endless: ", b"x" * 10_000),
        (b"", b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" * 1_000),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100_000),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"186A0\r\n%s\r\n" % (b"x" * 100_000),
        ),
    ],
)
def test_an_answer_without_an_end_is_given_up(head: bytes, piece: bytes) -> None:
    wire, received = Wire(), 0
    wire.ask(head + piece)
    while not wire.told and received < 100_000_000:
        wire.connection.data_received(piece)
        received += len(piece)
    ((_, answer),) = wire.told
    assert (answer.outcome, answer.error) == (Outcome.INDETERMINATE, "too_long")
    assert wire.transport.is_closed
    assert received <= 20_000_000


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [200, 900, 1_100, 30_000])
@pytest.mark.parametrize(
    "around",
    [b"%s", b'{"success":true,"data":%s}', b'{"success":false,"errorMsg":%s}', b'{"success":%s}'],
)
def test_json_of_any_depth_is_an_answer_that_cannot_be_read(
    opening: bytes, depth: int, around: bytes
) -> None:
    closing = b"]" if opening == b"[" else b"}"
    body = around % (opening * depth + b"1" * (opening != b"[") + closing * depth)
    for headers in ((), ("x-outcome: sold",), ("x-outcome: sold_out",)):
        ((_, answer),) = Wire().ask(message(body, *headers))
        assert answer.outcome is not Outcome.SOLD
        assert answer.order is None
        assert answer.error or headers == ("x-outcome: sold_out",)
    ((_, signed),) = Wire(SignReader()).ask(message(body))
    assert signed.error == "not_signed" or (b'true,"data"' in body and depth < 1_000)


def test_what_could_not_be_read_leaves_evidence_each_time() -> None:
    reader = Reader()
    for _ in range(3):
        told = Wire(reader).ask(message(b'{"success":false,"errorMsg":"Gone \\u001b[31m[b]"}'))
        assert told[0][1] == Answer(Outcome.UNKNOWN, 200, None, "message", "Gone \\x1b[31m[b]")


def test_evidence_is_bounded() -> None:
    reader = Reader()
    kept = set()
    for n in range(2_000):
        body = b'{"success":false,"errorMsg":"%06d%s"}' % (n, b"x" * 60_000)
        kept.add(Wire(reader).ask(message(body))[0][1].said)
    assert len(kept - {None}) == 256
    assert max(len(said) for said in kept if said) <= 200
    assert sum(map(len, reader._shapes)) <= 20_000_000


@pytest.mark.parametrize(
    "last", [message(b"", "x-outcome: ended", "Connection: close"), b"HTTP/1.0 401 No\r\n\r\n"]
)
def test_a_server_that_closes_after_its_answer_is_taken_at_its_word(last: bytes) -> None:
    wire = Wire()
    wire.ask(last)
    wire.connection.eof_received()
    wire.connection.connection_lost(None)
    assert len(wire.told) == 1
    assert wire.told[0][1].status in (200, 401)
    assert not wire.connection.is_open


# Trouble: the attempt is told of exactly once, and the connection is given up.


def test_a_connection_that_dies_unanswered_is_reset() -> None:
    wire = Wire()
    wire.ask()
    wire.connection.connection_lost(ConnectionResetError())
    assert wire.told == [(7, indeterminate("reset"))]


@pytest.mark.parametrize("length", [1, 20, 60, len(sold()) - 1])
def test_half_an_answer_is_truncated(length: int) -> None:
    wire = Wire()
    wire.ask(sold()[:length])
    wire.connection.eof_received()
    wire.connection.connection_lost(None)
    assert wire.told == [(7, indeterminate("truncated", sold()[:length]))]


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_malformed(data: bytes) -> None:
    wire = Wire()
    assert wire.ask(data) == [(7, indeterminate("malformed", data))]
    assert wire.transport.is_closed
    wire.connection.connection_lost(None)
    assert len(wire.told) == 1


@pytest.mark.parametrize("excess", [SOLD_OUT, SOLD_OUT[:9], b"rubbish"])
def test_bytes_beyond_the_answer_end_the_connection_and_not_the_answer(excess: bytes) -> None:
    wire = Wire()
    assert wire.ask(sold() + excess) == [(7, Answer(Outcome.SOLD, 200, ORDER))]
    assert wire.transport.is_closed
    assert not wire.connection.is_open


def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    wire = Wire()
    wire.connection.data_received(sold())
    assert wire.told == []
    assert wire.transport.is_closed


def test_an_abandoned_attempt_is_not_told_of_again() -> None:
    wire = Wire()
    wire.ask(sold()[:30])
    wire.connection.abandon()
    wire.connection.connection_lost(None)
    assert wire.told == []
