"""Rows in MySQL for a test to start from, and what is there at its end."""

from datetime import datetime
from typing import Any

from sqlalchemy import Engine, insert, select

from flashsale import keys
from flashsale.orders.persistence import read_generation
from flashsale.storage.tables import seckill_voucher, stream_position, voucher_order

LONG_AGO, FAR_AWAY = "2020-01-01 00:00:00.000", "2090-01-01 00:00:00.000"


def add_sale(
    pool: Engine,
    voucher_id: int = 1,
    *,
    stock: int = 100,
    initial: int | None = None,
    begin: str = LONG_AGO,
    end: str = FAR_AWAY,
) -> None:
    with pool.begin() as connection:
        connection.execute(
            insert(seckill_voucher).values(
                voucher_id=voucher_id,
                stock=stock,
                initial_stock=stock if initial is None else initial,
                begin_time=datetime.fromisoformat(begin),
                end_time=datetime.fromisoformat(end),
            )
        )


def add_order(
    pool: Engine, *, order_id: int, user_id: int, voucher_id: int = 1, status: int = 1
) -> None:
    with pool.begin() as connection:
        connection.execute(
            insert(voucher_order).values(
                id=order_id,
                user_id=user_id,
                voucher_id=voucher_id,
                status=status,
                create_time=datetime.fromisoformat(LONG_AGO),
            )
        )


def orders(pool: Engine) -> dict[int, tuple[int, int]]:
    """Order id → user and voucher, of every row."""
    column = voucher_order.c
    with pool.connect() as connection:
        found = connection.execute(select(column.id, column.user_id, column.voucher_id))
        return {row.id: (row.user_id, row.voucher_id) for row in found}


def order_row(pool: Engine, order_id: int) -> Any:
    with pool.connect() as connection:
        return connection.execute(select(voucher_order).where(voucher_order.c.id == order_id)).one()


def units(pool: Engine, voucher_id: int = 1) -> int:
    """What MySQL has left of a voucher."""
    query = select(seckill_voucher.c.stock).where(seckill_voucher.c.voucher_id == voucher_id)
    with pool.connect() as connection:
        return int(connection.execute(query).scalar_one())


def position(pool: Engine) -> tuple[int, int] | None:
    """Where in the stream the newest written entry is."""
    return marks(pool).get(keys.STREAM_ORDERS)


def generation(pool: Engine) -> int:
    """Under which a worker that reads now may write."""
    with pool.connect() as connection:
        return read_generation(connection)


def marks(pool: Engine) -> dict[str, tuple[int, int]]:
    """How far MySQL has seen the ledger, by key."""
    with pool.connect() as connection:
        rows = connection.execute(select(stream_position))
        return {row.stream: (row.last_ms, row.last_seq) for row in rows}
