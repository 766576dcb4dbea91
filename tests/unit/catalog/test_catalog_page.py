"""Pages and records: JSON put together without decoding any of it."""

import json
from datetime import datetime

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, literal, select

from flashsale.cache.entry import Cached, Source
from flashsale.catalog.json import assemble, bodies, extended, record, slowest
from flashsale.storage.mysql import unix_ms


@pytest.mark.parametrize(
    ("sources", "slow"),
    [
        ([], Source.HIT),
        ([Source.HIT, Source.HIT], Source.HIT),
        ([Source.HIT, Source.STALE], Source.STALE),
        ([Source.STALE, Source.WAIT, Source.HIT], Source.WAIT),
        ([Source.WAIT, Source.LOAD], Source.LOAD),
        ([Source.HIT, Source.BLOOM], Source.BLOOM),
        ([Source.BLOOM, Source.NULL], Source.NULL),
    ],
)
def test_a_page_is_as_slow_as_its_slowest_part(sources: list[Source], slow: Source) -> None:
    assert slowest(sources) is slow
    assert set(Source) == {*Source}, "every source has its place"
    for source in Source:
        slowest([source])


def test_a_page_leaves_out_what_does_not_exist() -> None:
    answers = [
        Cached(Source.HIT, b'{"id":1}'),
        Cached(Source.NULL, None),
        Cached(Source.LOAD, b'{"id":3}'),
    ]
    page = assemble(bodies(answers), [answer.source for answer in answers])
    assert json.loads(page.body) == [{"id": 1}, {"id": 3}]
    assert page.source is Source.LOAD
    assert assemble([], []).body == b"[]"


def test_an_object_gets_more_fields() -> None:
    body = extended(b'{"id":1,"name":"a}"}', distance=12.5, isLike=True)
    assert json.loads(body) == {"id": 1, "name": "a}", "distance": 12.5, "isLike": True}


def test_a_record_is_json_in_the_familys_names() -> None:
    table = Table("t", MetaData(), Column("avg_price", Integer), Column("type_id", Integer))
    engine = create_engine("sqlite://")
    moment = datetime(2030, 1, 31, 10, 0, 0, 120_000)
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert().values(avg_price=None, type_id=3))
        row = connection.execute(select(table, literal(moment).label("begin_time"))).one()
    engine.dispose()
    assert record(row) == {"typeId": 3, "beginTime": "2030-01-31T10:00:00.120Z"}
    assert all(type(name) is str for name in record(row)), "orjson takes no other"


def test_unix_ms_is_exact() -> None:
    assert unix_ms(datetime(2030, 1, 31, 10, 0, 0, 123_000)) == 1_896_084_000_123
    assert unix_ms(datetime(1970, 1, 1)) == 0
