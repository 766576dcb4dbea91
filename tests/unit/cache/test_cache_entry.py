"""The format of an entry: JSON whose parts can be cut out."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.cache.entry import NULL, Cached, Entry, Source, pack, unpack

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@given(JSON, st.integers(0, 10**15))
def test_pack_and_unpack(value: object, expires_ms: int) -> None:
    raw = pack(orjson.dumps(value), expires_ms)
    assert orjson.loads(raw) == {"expireTime": expires_ms, "data": value}
    assert unpack(raw) == Entry(expires_ms, orjson.dumps(value))


@given(st.binary(max_size=60))
def test_a_strangers_bytes_never_raise(raw: bytes) -> None:
    assert unpack(raw) is None or raw.startswith(b'{"expireTime":')


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"}",
        b'{"expireTime":0,"data":1',
        b'{"expireTime":-1,"data":1}',
        b'{"expireTime":,"data":1}',
        b'{"expireTime":1.5,"data":1}',
        b'{"data":1,"expireTime":0}',
        b'{"expireTime":12345678901234567890,"data":1}',
    ],
)
def test_not_an_entry(raw: bytes | None) -> None:
    assert unpack(raw) is None


def test_data_may_hold_what_looks_like_a_head() -> None:
    body = orjson.dumps({"expireTime": 5, "data": ',"data":'})
    assert unpack(pack(body, 7)) == Entry(7, body)


def test_an_answer_decodes_when_asked() -> None:
    assert Cached(Source.HIT, b'{"a":1}', orjson.loads).value == {"a": 1}
    assert Cached(Source.NULL, None, orjson.loads).value is None
    assert orjson.dumps(None) == NULL


def test_sources_are_the_headers_values() -> None:
    assert [source.value for source in Source] == [
        "hit",
        "stale",
        "load",
        "wait",
        "null",
        "bloom",
    ]
