"""What a data set of ours made, and how it is taken away: rows by their ids, keys by what they say.

`tb_dataset_rows` says which ids were written, in the transaction that wrote them. A row that it
does not name, or that does not hang on one that it names, is somebody else's and is never touched.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from sqlalchemy import Connection, Engine, Table, bindparam, inspect, text

from flashsale import keys
from flashsale.errors import UsageError
from flashsale.model import parse_id
from flashsale.seeding.dataset import Dataset, Portion
from flashsale.seeding.settings import SeedSettings, Window
from flashsale.storage import tables
from flashsale.storage.mysql import transaction, translated
from flashsale.storage.roles import Ledgers
from flashsale.store_urls import lane_of

_AT_ONCE = 10_000
_KEYS_AT_ONCE = 1_000

_KEYS = {
    table.name: key
    for table, key in (
        (tables.shop_type, "id"),
        (tables.shop, "id"),
        (tables.user, "id"),
        (tables.user_info, "user_id"),
        (tables.blog, "id"),
        (tables.voucher, "id"),
        (tables.seckill_voucher, "voucher_id"),
    )
}
"""The tables of a data set, each with its key."""

_CURE = "give --mysql-url an empty database"


@dataclass(frozen=True)
class Owned:
    """The ids that data sets of one database wrote, by table, and the seed they were made from."""

    seed: int | None = None
    ids: Mapping[str, Sequence[range]] = field(default_factory=dict)

    def has(self, table: Table, row_id: int) -> bool:
        """Whether a data set made this row."""
        return any(row_id in ids for ids in self.ids.get(table.name, ()))

    def sql(self, column: str, table: Table) -> str:
        """The condition that `column` is the id of a row of `table` that a data set made."""
        ranges = self.ids.get(table.name, ())
        parts = [f"{column} BETWEEN {ids[0]} AND {ids[-1]}" for ids in ranges]
        return f"({' OR '.join(parts)})" if parts else "FALSE"


def owned(connection: Connection) -> Owned:
    """What is known of this database's data sets; nothing where it has no tables yet."""
    if not inspect(connection).has_table(tables.dataset_rows.name):
        return Owned()
    rows = connection.execute(
        text("SELECT seed, table_name, first_id, last_id FROM tb_dataset_rows ORDER BY 2, 3")
    ).all()
    ids: dict[str, list[range]] = {}
    for row in rows:
        ids.setdefault(row.table_name, []).append(range(row.first_id, row.last_id + 1))
    return Owned(rows[0].seed if rows else None, ids)


def record(connection: Connection, seed: int, portion: Portion, last_id: int) -> None:
    """Note, in the transaction that writes them, that the rows up to `last_id` are a data set's."""
    connection.execute(
        text(
            "INSERT INTO tb_dataset_rows (table_name, first_id, last_id, seed) "
            "VALUES (:name, :first, :last, :seed) "
            "ON DUPLICATE KEY UPDATE last_id = GREATEST(last_id, VALUES(last_id))"
        ),
        {"name": portion.table.name, "first": portion.first, "last": last_id, "seed": seed},
    )


def check_rows(connection: Connection, known: Owned, portion: Portion, ids: range) -> None:
    """Raises UsageError where one of these ids belongs to a row that no data set made."""
    name, key = portion.table.name, portion.columns[0]
    found = connection.execute(
        text(
            f"SELECT {key} FROM {name} WHERE {key} BETWEEN :first AND :last "  # noqa: S608 - names of ours
            f"AND NOT {known.sql(key, portion.table)} ORDER BY 1 LIMIT 1"
        ),
        {"first": ids[0], "last": ids[-1]},
    ).scalar()
    if found is not None:
        raise UsageError(
            f"{name} holds a row {found} that no data set made ({portion.name} of this one would "
            f"be {ids[0]} to {ids[-1]}); ask for fewer, for other ids, or {_CURE}"
        )


def check_tables(connection: Connection, known: Owned) -> bool:
    """Whether all tables are there. Writes nothing.

    Raises UsageError where one of them has other columns, or rows though no data set was made.
    """
    look = inspect(connection)
    present = [table for table in tables.metadata.sorted_tables if look.has_table(table.name)]
    for table in present:
        missing = set(table.columns.keys()) - {c["name"] for c in look.get_columns(table.name)}
        if missing:
            raise UsageError(
                f"{table.name} is another system's: it has no column {min(missing)}; {_CURE}"
            )
    for trigger, name in _foreign(connection, _TRIGGERS):
        raise UsageError(
            f"{name} has a trigger {trigger} of somebody else's, which our rows would set off; "
            f"drop it, or {_CURE}"
        )
    if not known.ids:
        for table in present:
            # A replica or worker that was there first has given the two stores their epoch, and
            # drawn a generation.
            names = ", ".join(f"'{lane.epoch}', '{lane.permit}'" for lane in keys.EVERY_LANE)
            marks = f"WHERE stream NOT IN ({names})"
            but = marks if table is tables.stream_position else ""
            if connection.execute(text(f"SELECT 1 FROM {table.name} {but} LIMIT 1")).first():  # noqa: S608 - as above
                raise UsageError(
                    f"{table.name} holds rows, and the database knows of no data set that made "
                    f"them: they are somebody else's; {_CURE}"
                )
    return len(present) == len(tables.metadata.sorted_tables)


_TRIGGERS = """SELECT trigger_name, event_object_table FROM information_schema.triggers
    WHERE event_object_schema = DATABASE() AND event_object_table IN :ours"""
_REFERENCES = """SELECT DISTINCT CONCAT(table_schema, '.', table_name), referenced_table_name
    FROM information_schema.key_column_usage WHERE referenced_table_schema = DATABASE()
    AND referenced_table_name IN :ours
    AND NOT (table_schema = DATABASE() AND table_name IN :ours)"""


def _foreign(connection: Connection, query: str) -> Iterator[tuple[str, str]]:
    """What others have tied to our tables: its name, and the table's."""
    asked = text(f"{query} ORDER BY 1, 2").bindparams(bindparam("ours", expanding=True))
    ours = [table.name for table in tables.metadata.sorted_tables]
    for row in connection.execute(asked, {"ours": ours}):
        yield row[0], row[1]


def check_phones(connection: Connection, known: Owned, dataset: Dataset) -> None:
    """Raises UsageError where somebody else signed in with the phone of a user to be made."""
    first, last = dataset.user(1)[1], dataset.user(dataset.users)[1]
    found = connection.execute(
        text(
            "SELECT id, phone FROM tb_user WHERE phone BETWEEN :first AND :last "  # noqa: S608 - as above
            f"AND NOT {known.sql('id', tables.user)} LIMIT 1"
        ),
        {"first": first, "last": last},
    ).first()
    if found is not None:
        raise UsageError(
            f"tb_user holds rows that clash with the data set (user {found.id} has a phone of it, "
            f"and signed in without it); {_CURE}: --reset takes nothing of others away"
        )


def check_resettable(connection: Connection, ledger: Ledgers, known: Owned) -> None:
    """Raises UsageError where MySQL or the ledger holds what no data set of ours made."""
    for other, name in _foreign(connection, _REFERENCES):
        raise UsageError(
            f"--reset: rows of {other}, which is another system's, hang on {name} and might go "
            f"along; nothing was deleted: drop its foreign key, or {_CURE}"
        )
    strangers = {}
    for name, is_ours in _conditions(known).items():
        count = connection.execute(
            text(f"SELECT COUNT(*) FROM {name} WHERE NOT ({is_ours})")  # noqa: S608 - as above
        ).scalar_one()
        if count:
            strangers[name] = count
    if strangers:
        told = ", ".join(f"{count:,} in {name}" for name, count in strangers.items())
        raise UsageError(
            f"--reset: the database holds rows that no data set made ({told}), of people who "
            f"signed in themselves perhaps; nothing was deleted: {_CURE}"
        )
    sale = next((sale for each in ledger.clients for sale in _foreign_sales(each, known)), None)
    if sale is not None:
        raise UsageError(
            f"--reset: the ledger holds a sale of voucher {sale}, which is none of this "
            "database's data set; nothing was deleted: give --ledger-url this database's ledger"
        )


def delete_rows(pool: Engine, known: Owned) -> int:
    """Delete the rows that `known` names and those that hang on them; how many they were.

    What names a row goes after it, so that a second call completes an interrupted one.
    """
    deleted = 0
    for name, is_ours in _conditions(known).items():
        for where in _pieces(known, name) if name in _KEYS else [is_ours]:
            while True:
                with transaction(pool) as connection:
                    gone = connection.execute(
                        text(f"DELETE FROM {name} WHERE {where} LIMIT {_AT_ONCE}")  # noqa: S608 - as above
                    ).rowcount
                deleted += gone
                if gone < _AT_ONCE:
                    break
    with transaction(pool) as connection:
        connection.execute(text("DELETE FROM tb_dataset_rows"))
    return deleted


def _conditions(known: Owned) -> dict[str, str]:
    """Which rows of each table are a data set's, what hangs on others first."""
    user, voucher = known.sql("user_id", tables.user), known.sql("voucher_id", tables.voucher)
    blog = known.sql("blog_id", tables.blog)
    marks = [(lane.stream_orders, lane.epoch, lane.permit) for lane in keys.EVERY_LANE]
    names = ", ".join(f"'{name}'" for some in marks for name in some)
    stream = (
        f"(stream IN ({names}) OR stream LIKE '{keys.ORDER_COUNTERS}')" if known.ids else "FALSE"
    )
    hanging = {
        tables.voucher_order: f"{user} AND {voucher}",
        tables.order_return: f"{user} AND {voucher}",
        tables.journal: voucher,
        tables.blog_like: f"{user} AND {blog}",
        tables.follow: f"{user} AND {known.sql('follow_user_id', tables.user)}",
        tables.sign: user,
        tables.stream_position: stream,
    }
    own = [table for table in reversed(tables.metadata.sorted_tables) if table.name in _KEYS]
    return {table.name: condition for table, condition in hanging.items()} | {
        table.name: known.sql(_KEYS[table.name], table) for table in own
    }


def _pieces(known: Owned, name: str) -> Iterator[str]:
    """The ids of a table a piece at a time, so that no piece looks at rows that are gone."""
    for ids in known.ids.get(name, ()):
        for start in range(ids[0], ids[-1] + 1, _AT_ONCE):
            yield f"{_KEYS[name]} BETWEEN {start} AND {min(start + _AT_ONCE - 1, ids[-1])}"


def _foreign_sales(ledger: Redis, known: Owned) -> Iterator[int]:
    """Vouchers that the ledger sells, or holds orders of, and that no data set made."""
    lane = lane_of(ledger)
    for name in ledger.scan_iter(match=keys.SALES, count=_KEYS_AT_ONCE):
        found = keys.voucher_of(name) if lane.has(name) else None
        if found is not None and not known.has(tables.voucher, found):
            yield found
    for stream in (lane.stream_orders, lane.stream_dead):
        for voucher_id in _ordered(ledger, stream):
            if not known.has(tables.voucher, voucher_id):
                yield voucher_id


def _ordered(ledger: Redis, stream: str) -> Iterator[int]:
    """The vouchers of a stream's entries, a portion at a time."""
    after = "-"
    while entries := cast(
        list[tuple[str, dict[str, str]]], ledger.xrange(stream, after, "+", count=_KEYS_AT_ONCE)
    ):
        for _, fields in entries:
            voucher_id = parse_id((fields or {}).get("voucherId", ""))
            if voucher_id is not None:
                yield voucher_id
        after = f"({entries[-1][0]}"


def unlink_all(redis: Redis, names: Iterable[str]) -> int:
    """Delete these keys, many at a time; how many they were. May raise RedisError."""
    rest, deleted = iter(names), 0
    while batch := list(islice(rest, _KEYS_AT_ONCE)):
        deleted += len(batch)
        redis.unlink(*batch)
    return deleted


def ledger_keys(ledger: Redis, known: Owned) -> Iterator[str]:
    """The keys of the ledger that a data set made: sales, orders, its users' sessions and days."""
    if not known.ids:
        return
    dataset = Dataset(SeedSettings(seed=known.seed or 0), Window.never())
    lane = lane_of(ledger)
    found = (
        name
        for name in ledger.scan_iter(count=2_000)
        if keys.belongs_to_data_set(name) and lane.has(name)
    )
    while batch := list(islice(found, _KEYS_AT_ONCE)):
        sessions = [name for name in batch if keys.is_session(name)]
        yield from _own_sessions(ledger, sessions, known, dataset)
        yield from (name for name in batch if _is_named(name, known, dataset))


def _is_named(name: str, known: Owned, dataset: Dataset) -> bool:
    """Whether the name of a key says by itself that a data set made it."""
    if name in keys.DATA_SET_KEYS:
        return True
    voucher_id, user_id = keys.voucher_of(name), keys.user_of(name)
    if voucher_id is not None:
        return known.has(tables.voucher, voucher_id)
    phone = keys.phone_of(name)
    if phone is not None:
        user_id = dataset.owner_of(phone)
    return user_id is not None and known.has(tables.user, user_id)


def _own_sessions(
    ledger: Redis, names: Sequence[str], known: Owned, dataset: Dataset
) -> Iterator[str]:
    """Sessions of the data set's users: by id, and by the name that only the data set gives."""
    if not names:
        return
    pipeline = ledger.pipeline(transaction=False)
    for name in names:
        pipeline.hmget(name, "id", "nickName")
    for name, reply in zip(names, pipeline.execute(raise_on_error=False), strict=True):
        if isinstance(reply, ResponseError):  # no session at all, so not ours
            continue
        if isinstance(reply, RedisError):
            raise reply
        user_id, nick_name = reply
        number = parse_id(user_id or "")
        if number is None or not known.has(tables.user, number):
            continue
        if nick_name == dataset.user(number)[2]:
            yield name


def forget(pool: Engine) -> None:
    """Take the data set's name away, so that no run is ever judged against what is left of it."""
    with translated(), transaction(pool) as connection:
        connection.execute(text(f"DELETE FROM {tables.dataset.name}"))  # noqa: S608 - as above
