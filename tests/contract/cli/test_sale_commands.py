"""`flashsale sale` and `flashsale orders` on real stores: what they print, what they end with."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from redis import Redis
from rig.rows import add_order, add_sale
from rig.sale import claim, open_sale, stock
from sqlalchemy import Engine

from flashsale import keys
from flashsale.cli.tree import run
from flashsale.orders.stream import LOST, Malformed, OrderStream

Flashsale = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def flashsale(
    ledger: Redis,
    pool: Engine,
    ledger_url: str,
    mysql_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Flashsale:
    """A command on two sales of 10 units: its exit code, standard output and standard error."""
    monkeypatch.setenv("FLASHSALE_CLAIM_TIMEOUT_MS", "10")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    for voucher in (1, 2):
        open_sale(ledger, voucher)
        add_sale(pool, voucher, stock=10)

    def command(
        *words: str, stores: Sequence[str] = (ledger_url, mysql_url)
    ) -> tuple[int, str, str]:
        capsys.readouterr()
        urls = ("--ledger-url", stores[0], "--mysql-url", stores[1]) if stores else ()
        code = run([*words, *urls, "--state-dir", str(tmp_path)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def told(found: tuple[int, str, str]) -> Any:
    code, out, _ = found
    assert code == 0
    return json.loads(out)


def test_a_day_of_a_sale(flashsale: Flashsale, ledger: Redis) -> None:
    """The commands of the page on running a sale, in their order."""
    code, out, _ = flashsale("sale", "pause", "1", "--reason", "odd figures", "--by", "ann")
    assert code == 0
    assert re.match(r"voucher 1: open → paused \(line \d+ of the journal\)\n", out)
    assert claim(ledger, (7, 70)) == [(6, "")]
    assert flashsale("sale", "pause", "1")[1] == "voucher 1: paused already\n"
    assert flashsale("sale", "resume", "1")[0] == 0
    assert flashsale("sale", "restock", "1", "--add", "5")[1].startswith("voucher 1: 10 → 15")
    assert flashsale("sale", "restock", "1", "--remove", "7")[1].startswith("voucher 1: 15 → 8")
    assert stock(ledger) == 8
    code, out, err = flashsale("sale", "close", "1", "--reason", "over")
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == (
        "voucher 1: 0 of 8 units sold, the books agree; 0 entries trimmed"
    )
    assert claim(ledger, (7, 70)) == [(4, "")]
    shown = told(flashsale("sale", "show", "1", "--json"))
    assert (shown["state"], shown["claims_are_told"], shown["offered"]) == ("closed", "ended", 8)
    assert shown["mysql"] == {"initial": 8, "stock": 8, "live_orders": 0}
    assert shown["books"] == []
    first, *_, last = shown["journal"]
    assert (first["actor"], first["reason"], first["was"]) == ("ann", "odd figures", "open")
    assert (last["action"], last["step"]) == ("close", "done")
    code, out, _ = flashsale("sale", "show", "1")
    assert code == 0
    assert "ann  pause planned, open → paused: odd figures" in out
    assert flashsale("sale", "open", "1")[0] == 0
    assert claim(ledger, (7, 70)) == [(0, "70")]


def test_all_sales_at_once(flashsale: Flashsale, ledger: Redis) -> None:
    flashsale("sale", "close", "2")
    code, out, err = flashsale("sale", "pause", "--all")
    assert code == 2
    assert out.startswith("voucher 1: open → paused")
    assert "sale: voucher 2 is closed: pause is not possible" in err
    assert "1 of 2 sales were not changed" in err
    sales = told(flashsale("sale", "list", "--json"))["sales"]
    assert [(s["voucher_id"], s["state"]) for s in sales] == [(1, "paused"), (2, "closed")]
    _, out, _ = flashsale("sale", "list")
    assert "paused" in out
    assert "ended" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("sale", "pause"), 2, "expected vouchers or --all"),
        (("sale", "pause", "1", "--all"), 2, "expected vouchers or --all"),
        (("sale", "pause", "99"), 2, "voucher 99 is on sale nowhere; see `flashsale sale list`"),
        (("sale", "show", "99"), 2, "voucher 99 is on sale nowhere"),
        (("sale", "resume", "1", "--by", " "), 2, "--by: expected 1 to 128 characters"),
        (("sale", "pause", "1", "--reason", "x" * 513), 2, "512 characters at most"),
        (("sale", "restock", "1"), 2, "expected --add UNITS or --remove UNITS"),
        (("sale", "restock", "1", "--add", "1", "--remove", "1"), 2, "--add UNITS or"),
        (("sale", "restock", "1", "--remove", "11"), 3, "10 units; -11 would make -1"),
        (("sale", "restock", "1", "--add", "2147483647"), 3, "would make"),
        (("orders", "show", "5"), 8, "nobody knows order 5"),
        (("orders", "retry"), 2, "expected ids or --all"),
        (("orders", "retry", "5"), 2, "no dead letter has the id 5"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_one_line(
    flashsale: Flashsale, words: tuple[str, ...], code: int, message: str
) -> None:
    found, out, err = flashsale(*words)
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_units_that_are_sold_are_kept(flashsale: Flashsale, ledger: Redis) -> None:
    claim(ledger, *((n, n) for n in range(1, 9)))
    code, _, err = flashsale("sale", "restock", "1", "--remove", "3")
    assert code == 3
    assert "fewer than 3 units are left" in err
    assert told(flashsale("sale", "show", "1", "--json"))["journal"][-1]["step"] == "refused"


def test_a_sale_that_is_not_in_the_ledger_is_opened(flashsale: Flashsale, ledger: Redis) -> None:
    ledger.flushall()
    assert told(flashsale("sale", "list", "--json"))["sales"][0]["claims_are_told"] == "not_loaded"
    assert flashsale("sale", "pause", "1")[0] == 2
    assert flashsale("sale", "open", "1")[1].startswith("voucher 1: closed → open")
    assert claim(ledger, (7, 70)) == [(0, "70")]


def test_a_close_that_has_to_wait_too_long(flashsale: Flashsale, ledger: Redis) -> None:
    claim(ledger, (7, 70))
    code, _, err = flashsale("sale", "close", "1", "--drain-timeout", "0")
    assert code == 8
    assert "1 orders or units are under way" in err
    assert claim(ledger, (8, 80)) == [(4, "")], "closed it stays"


def test_a_close_whose_books_disagree(flashsale: Flashsale, ledger: Redis) -> None:
    ledger.decr(keys.seckill_stock(1))
    code, _, err = flashsale("sale", "close", "1")
    assert code == 3
    assert "9 left + 0 held = 9, but 10 offered" in err


@pytest.mark.parametrize("away", [0, 1], ids=["ledger", "MySQL"])
def test_a_store_that_is_away_is_7(
    flashsale: Flashsale, ledger_url: str, mysql_url: str, away: int
) -> None:
    stores = [ledger_url, mysql_url]
    stores[away] = ("redis://127.0.0.1:1/0", "mysql://u:p@127.0.0.1:1/d")[away]
    for words in (("sale", "pause", "1"), ("orders", "dead")):
        code, out, err = flashsale(*words, stores=stores)
        assert (code, out) == (7, "")
        assert len(err.splitlines()) == 1
    code, _, err = flashsale("sale", "list", stores=())
    assert code == 7
    assert "no stack runs in" in err


def test_dead_letters_are_settled(flashsale: Flashsale, ledger: Redis, pool: Engine) -> None:
    ledger.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)
    claim(ledger, (7, 70), (8, 80))
    stream = OrderStream(ledger, "c1")
    for entry in stream.fresh(10, 1):
        stream.set_aside(entry, "short")
    stream.journal_loss(Malformed("5-0", {}, LOST))
    letters = told(flashsale("orders", "dead", "--json"))["dead_letters"]
    assert [letter["order_id"] for letter in letters] == ["70", "80", None]
    assert "short" in flashsale("orders", "dead")[1]
    assert flashsale("orders", "show", "70")[1].startswith("order 70: FAILED")
    assert flashsale("orders", "retry", "70")[1] == "order 70: back in the stream\n"
    assert told(flashsale("orders", "show", "70", "--json"))["state"] == "QUEUED"
    code, _, err = flashsale("orders", "retry", letters[2]["letter"])
    assert code == 2
    assert "holds no order" in err
    assert "order 80: released" in flashsale("orders", "release", "--all", "--by", "ann")[1]
    assert stock(ledger) == 9
    assert "dropped" in flashsale("orders", "release", letters[2]["letter"])[1]
    assert flashsale("orders", "dead")[1] == "orders: no dead letter\n"
    code, out, _ = flashsale("orders", "show", "80")
    assert code == 0
    assert "cancelled" in out
    assert "ann  release order 80 done, dead → cancelled: short" in out


def test_an_order_whose_receipt_is_gone_is_told(
    flashsale: Flashsale, ledger: Redis, pool: Engine
) -> None:
    ledger.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)
    claim(ledger, (7, 70))
    stream = OrderStream(ledger, "c1")
    stream.set_aside(stream.fresh(1, 1)[0], "short")
    ledger.hdel(keys.seckill_receipt(1), "7")
    code, out, err = flashsale("orders", "retry", "--all")
    assert code == 2
    assert "its receipt is gone" in out
    assert "`flashsale orders release`" in err
    add_order(pool, order_id=70, user_id=7)
    assert "live row" in flashsale("orders", "release", "70")[1]
