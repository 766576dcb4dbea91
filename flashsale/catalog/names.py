"""Shops by a part of their name: the names of all of them, kept in the memory of each replica.

No index of MySQL's or MariaDB's bounds what `LIKE '%…%'` costs: MySQL has n-grams, MariaDB has
none, and of common ones a search reads most of the table in both. In memory a search of 60,000
names takes about a millisecond, whatever is searched for, and asks no database. More shops than
are to be kept in mind, and MySQL looks at its index of names.
"""

import asyncio
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import accumulate
from time import monotonic, perf_counter

import structlog
from sqlalchemy import Connection, func, select

from flashsale.cache.entry import Limit
from flashsale.storage.mysql import Database
from flashsale.storage.tables import shop

log = structlog.get_logger(__name__)

_WAITING_MAX, _WAIT_S = 4, 2.0
_SHARE = 0.1
"""Searches take at most this share of a replica's time: one rests nine times as long as the last
one took before it begins. Few wait, and one more is 503."""

_PIECE_IDS = 4_096
"""Ids whose names are searched at a stretch, a tenth of a millisecond; claims come in between."""

_CHUNK_ROWS, _CHUNK_PAUSE_S = 1_000, 0.005
_FRESH_S = 5.0
_TOO_MANY_S = 60.0
_SETTLE = timedelta(seconds=5)
"""Longer than a transaction that writes a shop: what was written by then is seen by then."""

_MARKS = re.compile(r"[\u0300-\u036f\u3099\u309a]")
_END = "\0"


def folded(text: str) -> str:
    """`text` without case, accents and width, as the collation of the table compares it. Pure."""
    if not text.isascii():
        text = _MARKS.sub("", unicodedata.normalize("NFKD", text)).casefold()
    return text.lower().replace(_END, "")


@dataclass(slots=True)
class Piece:
    """The names of neighbouring ids, end to end."""

    names: dict[int, str] = field(default_factory=dict)  # folded
    _ids: Sequence[int] = ()
    _starts: Sequence[int] = ()
    _text: str | None = None

    def put(self, shop_id: int, name: str) -> None:
        """Add a name, or change it."""
        if self.names.get(shop_id) != name:
            self.names[shop_id] = name
            self._text = None

    def find(self, part: str, most: int) -> list[int]:
        """The ids, ascending and at most so many, of names that contain `part`, which is folded and
        not empty."""
        text = self._joined() if self._text is None else self._text
        starts = self._starts
        found: list[int] = []
        at = text.find(part)
        while at >= 0 and len(found) < most:
            place = bisect_right(starts, at) - 1
            found.append(self._ids[place])
            at = text.find(part, starts[place + 1])
        return found

    def _joined(self) -> str:
        self._ids = sorted(self.names)
        parts = [self.names[shop_id] + _END for shop_id in self._ids]
        self._starts = [0, *accumulate(map(len, parts))]
        self._text = "".join(parts)
        return self._text


class ShopNames:
    """Every shop's name, as fresh as a few seconds. Calls may raise Unavailable, Indeterminate."""

    def __init__(self, database: Database, *, names_max: int) -> None:
        self._database = database
        self._names_max = names_max
        self._pieces: dict[int, Piece] = {}
        self._loading: asyncio.Task[None] | None = None
        self._since = datetime.min  # by MySQL's clock
        self._look_s = 0.0  # when to look for changes again
        self._free_s = 0.0  # when the next search may begin
        self._missed = False
        self._limit = Limit(1, waiting_max=_WAITING_MAX, wait_s=_WAIT_S)
        self.too_many = False

    def __repr__(self) -> str:
        return f"<ShopNames {len(self)} {self._limit!r}>"

    def __len__(self) -> int:
        return sum(len(piece.names) for piece in self._pieces.values())

    async def find(self, text: str, places: range) -> list[int] | None:
        """The ids at `places` among those of the shops whose name contains `text`, by id.

        None where there are more shops than are kept in mind.
        """
        async with self._limit.turn():
            await self._fresh()
            if self.too_many:
                return None
            await asyncio.sleep(max(0.0, self._free_s - monotonic()))
            part = folded(text)
            return (await self._search(part, places.stop))[places.start :] if part else []

    async def aclose(self) -> None:
        """End what is under way."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)

    async def _search(self, part: str, most: int) -> list[int]:
        found: list[int] = []
        took_s = 0.0
        for number in sorted(self._pieces):
            began_s = perf_counter()
            found += self._pieces[number].find(part, most - len(found))
            took_s += perf_counter() - began_s
            if len(found) == most:
                break
            await asyncio.sleep(0)
        self._free_s = monotonic() + took_s * (1 / _SHARE - 1)
        return found

    async def _fresh(self) -> None:
        """See to it that names are there and recent. A look goes on where its search is cut off."""
        if self._loading is None:
            if monotonic() < self._look_s:
                return
            self._loading = asyncio.get_running_loop().create_task(self._look())
            self._loading.add_done_callback(self._looked)
        await asyncio.shield(self._loading)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._loading = None
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have

    async def _look(self) -> None:
        count, now = await self._database.run(_count_and_time)
        self.too_many = count > self._names_max
        if self.too_many:
            self._pieces.clear()
        elif not self._pieces:
            await self._load()
        else:
            self._put(await self._database.run(partial(_changed, since=self._since)))
            missing = len(self) != count  # or somebody else wrote just between
            if missing and self._missed:
                await self._load()
                missing = False
            self._missed = missing
        self._since = now - _SETTLE
        self._look_s = monotonic() + (_TOO_MANY_S if self.too_many else _FRESH_S)

    async def _load(self) -> None:
        """Read all names, in chunks with room for others between them."""
        fresh: dict[int, Piece] = {}
        after = 0
        while rows := await self._database.run(partial(_chunk, after=after)):
            _put(fresh, rows)
            after = max(rows)
            await asyncio.sleep(_CHUNK_PAUSE_S)
        self._pieces = fresh
        log.info("read the names of all shops", names=len(self))

    def _put(self, rows: Mapping[int, str]) -> None:
        _put(self._pieces, rows)


def _put(pieces: dict[int, Piece], rows: Mapping[int, str]) -> None:
    for shop_id, name in rows.items():
        pieces.setdefault(shop_id // _PIECE_IDS, Piece()).put(shop_id, folded(name))


def _count_and_time(connection: Connection) -> tuple[int, datetime]:
    count = select(func.count()).select_from(shop).scalar_subquery()
    row = connection.execute(select(count, func.now(3))).one()
    return row[0], row[1]


def _chunk(connection: Connection, after: int) -> dict[int, str]:
    query = select(shop.c.id, shop.c.name).where(shop.c.id > after).order_by(shop.c.id)
    return {row.id: row.name for row in connection.execute(query.limit(_CHUNK_ROWS))}


def _changed(connection: Connection, since: datetime) -> dict[int, str]:
    query = select(shop.c.id, shop.c.name).where(shop.c.update_time >= since)
    return {row.id: row.name for row in connection.execute(query)}
