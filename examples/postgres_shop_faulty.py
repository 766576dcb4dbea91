"""The same shop with the faults that shops report, each a switch: FAULT=check_then_insert, …

    FAULT=lost_update DATABASE_URL=… granian --interface asgi examples.postgres_shop_faulty:app

A pause stands for the work that a real shop does between looking and acting.
"""

import os
import time
import uuid

from fastapi import FastAPI, Header, Response

from examples.postgres_shop import LIMIT, Wanted, database, health

FAULTS = {
    "check_then_insert": "looks whether a unit is left, and takes it later",
    "lost_update": "writes the stock that it has computed, whatever others wrote meanwhile",
    "limit_outside": "counts the user's orders before the transaction that adds one",
    "decrement_after_commit": "commits the order first, and takes its unit after that",
    "key_ignored": "takes the second request with an idempotency key for a new one",
    "not_returned": "cancels an order and keeps its unit",
    "batch_summed": "takes one unit for an order of several",
}
FAULT = os.environ["FAULT"]
PAUSE_S = 0.03
if FAULT not in FAULTS:
    raise SystemExit(f"FAULT: expected one of {', '.join(FAULTS)}")

app = FastAPI()
app.get("/health")(health)


def _one(query: str, values: dict) -> tuple | None:
    return database().execute(query, values).fetchone()


@app.post("/orders", status_code=201)
def order(wanted: Wanted, response: Response, idempotency_key: str = Header()) -> dict[str, str]:
    """Sell, or say why not."""
    values = {**wanted.model_dump(), "id": str(uuid.uuid4()), "key": idempotency_key}
    if FAULT == "key_ignored":
        values["key"] = values["id"]
    elif told := _one("SELECT id FROM orders WHERE key = %(key)s", values):
        return {"id": str(told[0])}
    if FAULT == "limit_outside" and (refusal := _limit(values, response)):
        return refusal
    if FAULT in ("check_then_insert", "lost_update", "decrement_after_commit"):
        left = _one("SELECT stock FROM skus WHERE sku = %(sku)s", values)[0]
        time.sleep(PAUSE_S)
        if left < wanted.quantity:
            response.status_code = 409
            return {"code": "sold_out"}
        values["left"] = left - wanted.quantity
    if FAULT == "decrement_after_commit":
        _insert(values)
        time.sleep(PAUSE_S)
        _take(values)
        return {"id": values["id"]}
    with database().transaction():
        if FAULT == "limit_outside":
            time.sleep(PAUSE_S)
        else:
            _one("SELECT pg_advisory_xact_lock(hashtext(%(user)s))", values)
            if refusal := _limit(values, response):
                return refusal
        if not _take(values):
            response.status_code = 409
            return {"code": "sold_out"}
        _insert(values)
    return {"id": values["id"]}


def _limit(values: dict, response: Response) -> dict[str, str]:
    held = _one(
        "SELECT count(*) FROM orders WHERE user_id = %(user)s AND sku = %(sku)s"
        " AND state <> 'cancelled'",
        values,
    )[0]
    if held < LIMIT:
        return {}
    response.status_code = 409
    return {"code": "limit"}


def _take(values: dict) -> bool:
    change = "stock - %(quantity)s WHERE sku = %(sku)s"
    if FAULT == "lost_update":
        change = "%(left)s WHERE sku = %(sku)s"
    elif FAULT == "batch_summed":
        change = "stock - 1 WHERE sku = %(sku)s AND stock >= %(quantity)s"
    elif FAULT not in ("check_then_insert", "decrement_after_commit"):
        change += " AND stock >= %(quantity)s"
    return database().execute(f"UPDATE skus SET stock = {change}", values).rowcount > 0  # noqa: S608


def _insert(values: dict) -> None:
    database().execute(
        "INSERT INTO orders (id, key, user_id, sku, quantity)"
        " VALUES (%(id)s, %(key)s, %(user)s, %(sku)s, %(quantity)s)",
        values,
    )


@app.post("/orders/{number}/cancel", status_code=204)
def cancel(number: uuid.UUID) -> None:
    """Give the units back, or not."""
    with database().transaction():
        gone = _one(
            "UPDATE orders SET state = 'cancelled' WHERE id = %(id)s AND state = 'new'"
            " RETURNING sku, quantity",
            {"id": number},
        )
        if gone and FAULT != "not_returned":
            database().execute(
                "UPDATE skus SET stock = stock + %s WHERE sku = %s", (gone[1], gone[0])
            )
