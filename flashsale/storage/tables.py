"""The tables, in the SQL that MySQL 8 and MariaDB 10.6 both take, and how they are created. All
times are UTC.
"""

from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.mysql import CHAR, DATE, DATETIME, DOUBLE, TINYINT
from sqlalchemy.schema import SchemaItem

from flashsale.errors import Indeterminate, Unavailable, UnreachableError
from flashsale.storage.mysql import engine, translated

metadata = MetaData()


def _moment(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DATETIME(fsp=3), nullable=nullable)


def _stamp(name: str, *, on_update: bool = False) -> Column[object]:
    default = "CURRENT_TIMESTAMP(3)" + (" ON UPDATE CURRENT_TIMESTAMP(3)" if on_update else "")
    return Column(name, DATETIME(fsp=3), nullable=False, server_default=text(default))


def _stamps() -> tuple[Column[object], Column[object]]:
    return _stamp("create_time"), _stamp("update_time", on_update=True)


def _table(name: str, *items: SchemaItem) -> Table:
    return Table(
        name,
        metadata,
        *items,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_unicode_ci",
    )


def _id(name: str = "id", *, generated: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=True, autoincrement=generated)


user = _table(
    "tb_user",
    _id(generated=True),
    Column("phone", String(11), nullable=False),
    Column("password", String(128), nullable=False, server_default=""),
    Column("nick_name", String(32), nullable=False, server_default=""),
    Column("icon", String(255), nullable=False, server_default=""),
    *_stamps(),
    UniqueConstraint("phone", name="uk_phone"),
)

user_info = _table(
    "tb_user_info",
    _id("user_id"),
    Column("city", String(64), nullable=False, server_default=""),
    Column("introduce", String(128)),
    Column("fans", Integer, nullable=False, server_default="0"),
    Column("followee", Integer, nullable=False, server_default="0"),
    Column("gender", TINYINT, nullable=False, server_default="0"),
    Column("birthday", DATE),
    Column("credits", Integer, nullable=False, server_default="0"),
    Column("level", TINYINT, nullable=False, server_default="0"),
    *_stamps(),
)

shop_type = _table(
    "tb_shop_type",
    _id(generated=True),
    Column("name", String(32), nullable=False),
    Column("icon", String(255), nullable=False, server_default=""),
    Column("sort", Integer, nullable=False, server_default="0"),
    *_stamps(),
)

shop = _table(
    "tb_shop",
    _id(generated=True),
    Column("name", String(128), nullable=False),
    Column("type_id", BigInteger, nullable=False),
    Column("images", String(1024), nullable=False, server_default=""),
    Column("area", String(128)),
    Column("address", String(255), nullable=False, server_default=""),
    Column("x", DOUBLE(asdecimal=False), nullable=False),
    Column("y", DOUBLE(asdecimal=False), nullable=False),
    Column("avg_price", BigInteger),
    Column("sold", Integer, nullable=False, server_default="0"),
    Column("comments", Integer, nullable=False, server_default="0"),
    Column("score", SmallInteger, nullable=False, server_default="0"),
    Column("open_hours", String(32)),
    *_stamps(),
    Index("ix_shop_type", "type_id"),
    Index("ix_shop_name", "name"),
    Index("ix_shop_changed", "update_time"),
)

blog = _table(
    "tb_blog",
    _id(generated=True),
    Column("shop_id", BigInteger, nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("title", String(255), nullable=False),
    Column("images", String(2048), nullable=False, server_default=""),
    Column("content", String(2048), nullable=False, server_default=""),
    Column("liked", Integer, nullable=False, server_default="0"),
    Column("comments", Integer, nullable=False, server_default="0"),
    *_stamps(),
    Index("ix_blog_liked", "liked"),
    Index("ix_blog_user", "user_id", "create_time"),
)

blog_like = _table(
    "tb_blog_like",
    _id("user_id"),
    _id("blog_id"),
    _stamp("create_time"),
    Index("ix_like_blog", "blog_id", "create_time"),
)

follow = _table(
    "tb_follow",
    _id(generated=True),
    Column("user_id", BigInteger, nullable=False),
    Column("follow_user_id", BigInteger, nullable=False),
    _stamp("create_time"),
    UniqueConstraint("user_id", "follow_user_id", name="uk_follow"),
    Index("ix_follow_followed", "follow_user_id"),
)

voucher = _table(
    "tb_voucher",
    _id(generated=True),
    Column("shop_id", BigInteger, nullable=False),
    Column("title", String(255), nullable=False),
    Column("sub_title", String(255)),
    Column("rules", String(1024)),
    Column("pay_value", BigInteger, nullable=False),
    Column("actual_value", BigInteger, nullable=False),
    Column("type", TINYINT, nullable=False, server_default="0"),
    Column("status", TINYINT, nullable=False, server_default="1"),
    *_stamps(),
    Index("ix_voucher_shop", "shop_id"),
)

seckill_voucher = _table(
    "tb_seckill_voucher",
    _id("voucher_id"),
    Column("stock", Integer, nullable=False),
    Column("initial_stock", Integer, nullable=False),
    _moment("begin_time", nullable=False),
    _moment("end_time", nullable=False),
    *_stamps(),
    CheckConstraint("stock >= 0", name="ck_stock"),
)

voucher_order = _table(
    "tb_voucher_order",
    _id(),
    Column("user_id", BigInteger, nullable=False),
    Column("voucher_id", BigInteger, nullable=False),
    Column("pay_type", TINYINT, nullable=False, server_default="1"),
    Column("status", TINYINT, nullable=False, server_default="1"),
    _moment("create_time", nullable=False),
    _stamp("persisted_at"),
    _moment("pay_time"),
    _moment("use_time"),
    _moment("refund_time"),
    _stamp("update_time", on_update=True),
    Column(
        "live",
        TINYINT,
        Computed("CASE WHEN status IN (4,6) THEN NULL ELSE 1 END", persisted=True),
    ),
    UniqueConstraint("user_id", "voucher_id", "live", name="uk_live_order"),
    Index("ix_order_voucher", "voucher_id"),
)

order_return = _table(  # units of cancelled orders that the ledger is still to be given back
    "tb_order_return",
    _id("order_id"),
    Column("user_id", BigInteger, nullable=False),
    Column("voucher_id", BigInteger, nullable=False),
    _stamp("create_time"),
)

journal = _table(  # what was done to sales and orders by hand: lines are added, never changed
    "tb_journal",
    _id(generated=True),
    Column("ends", BigInteger),  # the planned line that this one ends
    Column("step", String(8), nullable=False),  # planned, done, refused
    Column("action", String(16), nullable=False),
    Column("voucher_id", BigInteger, nullable=False),
    Column("order_id", BigInteger),
    Column("units", Integer, nullable=False, server_default="0"),
    Column("was", String(64), nullable=False, server_default=""),
    Column("becomes", String(64), nullable=False, server_default=""),
    Column("actor", String(128), nullable=False),
    Column("reason", String(512), nullable=False, server_default=""),
    _stamp("create_time"),
    UniqueConstraint("ends", name="uk_journal_ends"),
    Index("ix_journal_voucher", "voucher_id"),
    Index("ix_journal_order", "order_id"),
    Index("ix_journal_step", "step"),
)

sign = _table(
    "tb_sign",
    _id(generated=True),
    Column("user_id", BigInteger, nullable=False),
    Column("date", DATE, nullable=False),
    UniqueConstraint("user_id", "date", name="uk_sign"),
)

stream_position = _table(  # what of the ledger only rises, and how far MySQL has seen it: the
    # stream's entries, the order ids of a day (its counter, and 0); the ledger's epoch, and the
    # generation of its permit, which are random
    "tb_stream_position",
    Column("stream", String(64), primary_key=True),
    Column("last_ms", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    _stamp("update_time", on_update=True),
)

dataset = _table(
    "tb_dataset",
    Column("id", CHAR(32), primary_key=True),
    Column("seed", BigInteger, nullable=False),
    _stamp("create_time"),
)

dataset_rows = _table(  # which ids data sets wrote, so that a reset can name what it deletes
    "tb_dataset_rows",
    Column("table_name", String(64), primary_key=True),
    _id("first_id"),
    Column("last_id", BigInteger, nullable=False),
    Column("seed", BigInteger, nullable=False),
)


def keys_missing(connection: Connection) -> Sequence[str] | None:
    """Statements that make the unique keys which tables that are there ought to have, and have not;
    None where the orders' is not there. To create what is missing leaves tables as they are."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in connection.execute(_UNIQUE_KEYS):
        found.setdefault(row.of_table, {}).setdefault(row.of_key, []).append(row.of_column)
    tables = {row.of_table for row in connection.execute(_TABLES)}
    if voucher_order.name not in tables:
        return None
    missing = []
    for table in metadata.sorted_tables:
        there = [set(columns) for columns in found.get(table.name, {}).values()]
        for constraint in table.constraints:
            if not isinstance(constraint, (UniqueConstraint, PrimaryKeyConstraint)):
                continue
            wanted = [column.name for column in constraint.columns]
            if table.name in tables and wanted and set(wanted) not in there:
                named = f"UNIQUE KEY {constraint.name}"
                kind = named if isinstance(constraint, UniqueConstraint) else "PRIMARY KEY"
                missing.append(f"ALTER TABLE {table.name} ADD {kind} ({', '.join(wanted)})")
    return sorted(missing)


_TABLES = text(
    "SELECT table_name AS of_table FROM information_schema.tables WHERE table_schema = DATABASE()"
)
_UNIQUE_KEYS = text(
    "SELECT table_name AS of_table, index_name AS of_key, column_name AS of_column "
    "FROM information_schema.statistics WHERE table_schema = DATABASE() AND non_unique = 0"
)


def create_all(engine: Engine) -> None:
    """Create every table that is missing. Raises Unavailable where MySQL cannot be reached."""
    with translated():
        metadata.create_all(engine)


def create_schema(mysql_url: str) -> None:
    """Create every table that is missing. Raises UnreachableError with the cure."""
    pool = engine(mysql_url)
    try:
        create_all(pool)
    except (Unavailable, Indeterminate) as error:
        raise UnreachableError(
            f"cannot create the tables: {error}; give --mysql-url a user who may create them"
        ) from None
    finally:
        pool.dispose()
