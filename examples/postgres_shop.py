"""A shop on FastAPI and PostgreSQL that sells as it should.

    export DATABASE_URL=postgresql://localhost/shop
    python -m examples.postgres_shop 20        # puts 20 units on sale
    granian --interface asgi examples.postgres_shop:app

One transaction an order: the idempotency key first, then the user's limit under a lock of the user,
then the units by a conditional UPDATE. What cannot be served rolls all of it back.
"""

import os
import sys
import threading
import uuid

import psycopg
from fastapi import FastAPI, Header, Response
from pydantic import BaseModel

LIMIT = int(os.environ.get("LIMIT", "1"))
SCHEMA = """
CREATE TABLE IF NOT EXISTS skus (sku bigint PRIMARY KEY, stock int NOT NULL,
    initial int NOT NULL, opens timestamptz NOT NULL, closes timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS orders (id uuid PRIMARY KEY, key text UNIQUE, user_id text NOT NULL,
    sku bigint NOT NULL, quantity int NOT NULL, state text NOT NULL DEFAULT 'new',
    sold_at timestamptz NOT NULL DEFAULT clock_timestamp());
"""
app = FastAPI()
_own = threading.local()


class Wanted(BaseModel):
    """What somebody orders."""

    user: str
    sku: int
    quantity: int = 1


def database() -> psycopg.Connection:
    """This thread's connection."""
    if getattr(_own, "connection", None) is None:
        _own.connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    return _own.connection


@app.get("/health")
def health() -> dict[str, bool]:
    """Whether the database answers."""
    database().execute("SELECT 1")
    return {"ok": True}


@app.post("/orders", status_code=201)
def order(wanted: Wanted, response: Response, idempotency_key: str = Header()) -> dict[str, str]:
    """Sell, or say why not."""
    values = {**wanted.model_dump(), "id": str(uuid.uuid4()), "key": idempotency_key}
    with database().transaction(), database().cursor() as run:
        run.execute("SELECT pg_advisory_xact_lock(hashtext(%(user)s))", values)
        run.execute("SELECT id FROM orders WHERE key = %(key)s", values)
        if told := run.fetchone():
            return {"id": str(told[0])}
        run.execute(
            "SELECT count(*) FROM orders WHERE user_id = %(user)s AND sku = %(sku)s"
            " AND state <> 'cancelled'",
            values,
        )
        if run.fetchone()[0] >= LIMIT:
            response.status_code = 409
            return {"code": "limit"}
        run.execute(
            "UPDATE skus SET stock = stock - %(quantity)s"
            " WHERE sku = %(sku)s AND stock >= %(quantity)s",
            values,
        )
        if not run.rowcount:
            response.status_code = 409
            return {"code": "sold_out"}
        run.execute(
            "INSERT INTO orders (id, key, user_id, sku, quantity)"
            " VALUES (%(id)s, %(key)s, %(user)s, %(sku)s, %(quantity)s)",
            values,
        )
    return {"id": values["id"]}


@app.post("/orders/{number}/cancel", status_code=204)
def cancel(number: uuid.UUID) -> None:
    """Give the units back, once."""
    with database().transaction(), database().cursor() as run:
        run.execute(
            "UPDATE orders SET state = 'cancelled' WHERE id = %s AND state = 'new'"
            " RETURNING sku, quantity",
            (number,),
        )
        if gone := run.fetchone():
            run.execute("UPDATE skus SET stock = stock + %s WHERE sku = %s", (gone[1], gone[0]))


def open_sale(units: int) -> None:
    """Begin anew: one voucher with so many units, open today."""
    with database().transaction():
        database().execute(SCHEMA)
        database().execute("TRUNCATE orders, skus")
        database().execute(
            "INSERT INTO skus VALUES (1, %s, %s, now() - interval '1 hour',"
            " now() + interval '1 day')",
            (units, units),
        )


if __name__ == "__main__":  # python -m examples.postgres_shop 20
    open_sale(int(sys.argv[1]))
