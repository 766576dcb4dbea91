"""The three stores of one system, opened for seeding, and the place where their trouble ends; and
what they already hold: one data set, and which sales. A different one is refused; ours can be taken
away, row by row and key by key, and nothing else with it.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import md5
from typing import Protocol

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine, insert, select, text

from flashsale import keys
from flashsale.errors import Indeterminate, Unavailable, UnreachableError, UsageError
from flashsale.primaries import told_of
from flashsale.seckill.journal import restocked
from flashsale.seeding.dataset import Dataset
from flashsale.seeding.ours import (
    Owned,
    check_phones,
    check_resettable,
    check_rows,
    check_tables,
    delete_rows,
    forget,
    ledger_keys,
    owned,
    unlink_all,
)
from flashsale.seeding.settings import SeedSettings, StageProgress
from flashsale.storage.mysql import check_writable, engine, transaction, translated
from flashsale.storage.roles import Ledgers
from flashsale.storage.tables import dataset, seckill_voucher, voucher
from flashsale.store_urls import (
    CONNECT_TIMEOUT_S,
    StoreUrl,
    lane_of,
    read_ledger_url,
    read_mysql_url,
)

_START = "start a stack with `flashsale serve --detach`, or check"


class StoreUrls(Protocol):
    """Where the three stores are; the ledger and the cache may be one Redis."""

    @property
    def ledger_url(self) -> str: ...
    @property
    def cache_url(self) -> str: ...
    @property
    def mysql_url(self) -> str: ...


@dataclass(frozen=True)
class OpenStores:
    """The stores, open. Their clients' errors end in `opened`."""

    pool: Engine
    ledgers: Ledgers
    cache: Redis

    @property
    def ledger(self) -> Redis:
        """The ledger where it is one server. Raises UsageError for a cluster's, of which whoever
        asks here would see a part."""
        if not self.ledgers.layout.is_whole:
            raise UsageError(
                "this knows no ledger on a Redis Cluster yet; docs/scaling.md lists what does"
            )
        return self.ledgers.home


@contextmanager
def opened(urls: StoreUrls) -> Iterator[OpenStores]:
    """The stores behind `urls`, each of which has answered.

    Raises UsageError for a malformed URL. Trouble with a store, now or inside the block, becomes
    an UnreachableError whose one line names the flag.
    """
    database = read_mysql_url(urls.mysql_url, "--mysql-url")
    places = [
        ("ledger", urls.ledger_url, read_ledger_url(urls.ledger_url, "--ledger-url")),
        ("cache", urls.cache_url, read_ledger_url(urls.cache_url, "--cache-url")),
    ]
    pool = engine(urls.mysql_url)
    ledger = Ledgers.at(urls.ledger_url)
    cache = Ledgers.at(urls.cache_url).home  # some name the ledger in its place, and ask nothing
    try:
        for role, url, place in places:
            _ping(role, url, place)
        _ask(pool, database)
        yield OpenStores(pool, ledger, cache)
    except RedisError as error:
        raise UnreachableError(f"Redis: {_line(error)}; the same command goes on from here") from (
            error
        )
    except (Unavailable, Indeterminate) as error:
        raise UnreachableError(f"{_line(error)}; {_START} --mysql-url") from error
    finally:
        ledger.close()
        cache.close()
        pool.dispose()


def _ping(role: str, url: str, place: StoreUrl) -> None:
    try:
        found = Ledgers.at(url, timeout_s=CONNECT_TIMEOUT_S)
        for client, lane in zip(found.clients, found.layout.lanes, strict=True):
            with client:
                client.delete(lane.probe)  # a replica refuses it, and nothing is written
    except RedisError as error:
        raise UnreachableError(
            f"the {role} at {place} does not answer: {_line(error)}; {_START} --{role}-url"
        ) from error


def _ask(pool: Engine, place: StoreUrl) -> None:
    try:
        check_writable(pool)
    except (Unavailable, Indeterminate) as error:
        raise UnreachableError(f"{place}: {_line(error)}; {_START} --mysql-url") from error


def _line(error: Exception) -> str:
    """The error on one line, without the driver's full stop."""
    return " ".join(told_of(error).split()).rstrip(".") or type(error).__name__


# What they hold ----------------------------------------------------------------------------------

_SCAN_COUNT = 2_000


def unlink(redis: Redis, is_ours: Callable[[str], bool]) -> int:
    """Delete the keys whose name `is_ours`; how many they were. May raise RedisError."""
    return unlink_all(redis, filter(is_ours, redis.scan_iter(count=_SCAN_COUNT)))


def reset(stores: OpenStores, known: Owned, progress: StageProgress) -> None:
    """Delete what `known` names; a second call completes one that was interrupted.

    The data set's id goes first, so that no run is ever judged against what is left of it. The
    ledger goes before MySQL's orders: a sale that is missing there sells nothing, while one that
    outlived its orders would.
    """
    if not known.ids:
        progress.note("reset: there is no data set yet")
        return
    forget(stores.pool)
    unlink(stores.cache, keys.belongs_to_cache)
    keys_gone = sum(unlink_all(each, ledger_keys(each, known)) for each in stores.ledgers.clients)
    rows_gone = delete_rows(stores.pool, known)
    unlink(stores.cache, keys.belongs_to_cache)  # what was read of the rows meanwhile
    progress.note(
        f"reset: {keys_gone:,} ledger keys and all rows of the data set ({rows_gone:,}) deleted"
    )


SALE_VOUCHER = 1
"""`tb_voucher.type` of a voucher that is sold in a sale."""

_GIVE_THE_SAME = "; give the same, or start anew with --reset"


@contextmanager
def alone(pool: Engine) -> Iterator[None]:
    """Be the only seeding of this database, so that nobody adds the rows found missing here.

    Raises UsageError where another one is at work.
    """
    with translated():
        connection = pool.connect()
        connection.detach()  # closing it ends its session, and with that the lock
    with connection:
        with translated():
            name = lock_name(connection.execute(text("SELECT DATABASE()")).scalar_one())
            held = connection.execute(text("SELECT GET_LOCK(:name, 0)"), {"name": name}).scalar()
            connection.rollback()
        if held != 1:
            raise UsageError("another `flashsale seed` is at work on this database; wait for it")
        yield


def lock_name(database: str) -> str:
    """The name of the lock that seeding `database` takes: a lock's has 64 characters at most.

    Hashed here, since MySQL has no MD5() from 9.6 on.
    """
    return f"flashsale.seed.{md5(database.encode(), usedforsecurity=False).hexdigest()}"


def check(
    stores: OpenStores, asked: SeedSettings, wanted: Dataset, now: datetime
) -> tuple[Owned, int]:
    """What data sets made here, and how many of the sales exist and have ended. Writes nothing.

    Raises UsageError where the stores hold what `asked` contradicts, or what others put there in
    the way of it; a reset, where anything but a data set's is there at all.
    """
    with transaction(stores.pool) as connection:
        known = owned(connection)
        is_complete = check_tables(connection, known)
        if not known.ids or not is_complete:
            _check_ledger(stores.ledgers, asked, {})
            return known, 0
        if asked.reset:
            check_resettable(connection, stores.ledgers, known)
            return known, 0
        ended = _check_same(connection, stores.ledgers, asked, now)
        for portion in wanted.portions():
            check_rows(connection, known, portion, portion.ids)
        check_phones(connection, known, wanted)
        return known, ended


def _check_same(connection: Connection, ledger: Ledgers, asked: SeedSettings, now: datetime) -> int:
    """How many of the sales exist and have ended."""
    if not connection.execute(select(dataset.c.id)).first():
        raise UsageError("a reset of this data set was interrupted; complete it with --reset")
    seeds = connection.execute(select(dataset.c.seed)).scalars().all()
    if seeds and asked.seed not in seeds:
        raise UsageError(
            f"--seed: this data set was made with {seeds[0]}, not {asked.seed}{_GIVE_THE_SAME}"
        )
    _check_ordinary(connection, asked)
    known = _check_terms(connection, asked)
    _check_ledger(ledger, asked, known)
    return sum(end <= now for end in known.values())


def dataset_id(pool: Engine, seed: int) -> str:
    """The id of the data set in this database; a new one where there is none."""
    with transaction(pool) as connection:
        query = select(dataset.c.id).order_by(dataset.c.create_time)
        found = connection.execute(query).scalars().first()
        if found is not None:
            return str(found)
        fresh = secrets.token_hex(16)
        connection.execute(insert(dataset).values(id=fresh, seed=seed))
        return fresh


def _check_ordinary(connection: Connection, asked: SeedSettings) -> None:
    others = connection.execute(
        select(voucher.c.id)
        .where(voucher.c.id.between(*_range(asked)), voucher.c.type != SALE_VOUCHER)
        .order_by(voucher.c.id)
    )
    first = others.scalars().first()
    if first is not None:
        raise UsageError(f"--first-voucher: {first} is an ordinary voucher; choose ids beyond it")


def _check_terms(connection: Connection, asked: SeedSettings) -> dict[int, datetime]:
    """The sales that exist, each with its end."""
    sale = seckill_voucher.c
    rows = connection.execute(
        select(sale.voucher_id, sale.initial_stock, sale.begin_time, sale.end_time)
        .where(sale.voucher_id.between(*_range(asked)))
        .order_by(sale.voucher_id)
    ).all()
    units, restocks = asked.voucher_units, restocked(connection)
    for row in rows:
        wanted = units[row.voucher_id] + restocks.get(row.voucher_id, 0)
        if row.initial_stock != wanted:
            raise UsageError(
                f"--units: voucher {row.voucher_id} exists with {row.initial_stock} units, "
                f"not {wanted}{_GIVE_THE_SAME}"
            )
        for flag, given, has in (
            ("--begin", asked.begin, row.begin_time),
            ("--end", asked.end, row.end_time),
        ):
            if given is not None and given != has.replace(tzinfo=UTC):
                raise UsageError(
                    f"{flag}: voucher {row.voucher_id} exists with {has.isoformat()}Z, "
                    f"not {given.isoformat()}{_GIVE_THE_SAME}"
                )
    return {row.voucher_id: row.end_time.replace(tzinfo=UTC) for row in rows}


def _check_ledger(every: Ledgers, asked: SeedSettings, known: dict[int, datetime]) -> None:
    """A sale that the ledger has and MySQL has not is a leftover, and would sell its old stock."""
    unknown = [voucher_id for voucher_id in asked.voucher_units if voucher_id not in known]
    for ledger, lane in zip(every.clients, every.layout.lanes, strict=True):
        _check_lane(ledger, [voucher_id for voucher_id in unknown if lane.sells(voucher_id)])


def _check_lane(ledger: Redis, unknown: Sequence[int]) -> None:
    lane = lane_of(ledger)
    pipeline = ledger.pipeline(transaction=False)
    for voucher_id in unknown:
        pipeline.exists(
            lane.seckill_stock(voucher_id),
            lane.seckill_sale(voucher_id),
            lane.seckill_order(voucher_id),
            lane.seckill_receipt(voucher_id),
        )
    for voucher_id, found in zip(unknown, pipeline.execute(), strict=True):
        if found:
            raise UsageError(
                f"the ledger holds a sale of voucher {voucher_id} that MySQL does not know; "
                "choose another --first-voucher, or another --ledger-url (--reset takes away only "
                "sales that this database knows)"
            )


def _range(asked: SeedSettings) -> tuple[int, int]:
    return asked.first_voucher, asked.first_voucher + asked.vouchers - 1
