"""The shops of examples/ on FastAPI and PostgreSQL, stormed and judged as a reader would."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from rig.child import free_port
from rig.command_line import run_flashsale
from rig.documents import ROOT, blocks
from rig.postgres import postgres
from rig.until import until

from examples.postgres_shop import SCHEMA
from flashsale.asking import UnansweredError, ask_once
from flashsale.books import Books, ShopBooks
from flashsale.verify import shop_tables
from flashsale.verify.shop_rows import UnfitError

pytestmark = pytest.mark.timeout(240)
SHOP = str(ROOT / "examples" / "postgres_shop.toml")
UNITS = 20


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE ROLE reader LOGIN")
            connection.execute(SCHEMA)
            connection.execute("GRANT SELECT ON orders, skus TO reader")
            connection.execute("CREATE TABLE secrets (n int); CREATE SEQUENCE numbers")
            connection.execute("GRANT ALL ON SEQUENCE numbers TO reader")
        yield url


class Run:
    """One storm on one shop, and what the judge said of it."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self.database = folder, database
        self._names = (f"run-{number}" for number in itertools.count())
        self.reader = database.replace("shop@", "reader@")

    def reset(self) -> None:
        with psycopg.connect(self.database) as connection:
            connection.execute(SCHEMA)
            connection.execute("TRUNCATE orders, skus")
            connection.execute(
                "INSERT INTO skus VALUES (1, %s, %s, now() - interval '1 hour',"
                " now() + interval '1 hour')",
                (UNITS, UNITS),
            )

    def scenario(self, **changes: Any) -> Path:
        load = {"clicks": 2, "steps": ["buy"], "users": 60, "connections": 60, **changes}
        sale = {name: load.pop(name) for name in ("quantity", "limit") if name in load}
        lines = [f"{name} = {orjson.dumps(value).decode()}" for name, value in load.items()]
        path = self.folder / "sale.toml"
        path.write_text(
            '# Is it sold right?\nschema = 1\nname = "own"\n[sale]\nunits = 20\n'
            + "".join(f"{name} = {value}\n" for name, value in sale.items())
            + '[load]\nmodel = "closed"\n'
            + "\n".join(lines)
            + '\n[timeouts]\nrequest_ms = 30000\n[thresholds]\n"error.share" = "<= 100%"\n'
        )
        return path

    def flashsale(self, *words: str) -> "subprocess.CompletedProcess[str]":
        done = run_flashsale(self.folder, *words, FLASHSALE_BOOKS_URL=self.reader)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def judged(self, base_url: str, target: str = SHOP, **changes: Any) -> dict[str, Any]:
        """Storm and judge; the judge's document."""
        self.reset()
        out = next(self._names)
        storm = self.flashsale(
            "storm",
            str(self.scenario(**changes)),
            *("--target", target, "--base-url", base_url, "--out", out),
            *("--quiet", "--no-calibrate"),
        )
        assert storm.returncode in (0, 3), storm.stderr
        assert "no baseline" not in storm.stderr, storm.stderr
        told = self.flashsale("verify", out, "--json")
        return {"storm": storm, "code": told.returncode, **orjson.loads(told.stdout)}


@pytest.fixture
def run(tmp_path: Path, database: str) -> Run:
    return Run(tmp_path, database)


Serve = Callable[..., str]


@pytest.fixture
def serve(database: str) -> Iterator[Serve]:
    servers, ports = [], ExitStack()

    def start(app: str, **environment: str) -> str:
        port = ports.enter_context(free_port())
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "granian", "--interface", "asgi", "--log-level", "error"),
                *("--host", "127.0.0.1", "--port", str(port), "--backlog", "4096"),
                f"examples.{app}:app",
            ],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": database, **environment},
        )
        servers.append(server)
        base_url = f"http://127.0.0.1:{port}"
        until(lambda: _answers(base_url), 90)
        return base_url

    yield start
    for server in servers:
        server.terminate()
        server.wait(60)
    ports.close()


def _answers(base_url: str) -> bool:
    try:
        return ask_once(f"{base_url}/health", total_s=2).status == 200
    except UnansweredError:
        return False


def verdicts(told: dict[str, Any], verdict: str) -> set[str]:
    return {check["name"] for check in told["checks"] if check["verdict"] == verdict}


def unproved(told: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What did not pass, with what was found, and how the storm went."""
    checks = [(c["name"], c["verdict"], c["detail"]) for c in told["checks"]]
    return [*(c for c in checks if c[1] != "pass"), ("storm", "", told["storm"].stdout[-2000:])]


def key_of_the_user(tmp_path: Path) -> str:
    """The same shop's file, but that a user's clicks have one idempotency key."""
    text = Path(SHOP).read_text().replace("{run}-{attempt}", "{run}-{user}")
    (tmp_path / "key.toml").write_text(text)
    return "key.toml"


def test_the_right_shop_is_not_accused_by_an_account_that_only_reads(
    run: Run, serve: Serve
) -> None:
    base_url = serve("postgres_shop")
    told = run.judged(base_url)
    with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(run.reader) as reader:
        reader.execute("DELETE FROM orders")
    assert (told["code"], told["verdict"]) == (0, "pass"), unproved(told)
    assert told["orders"]["accepted"] == told["orders"]["persisted"] == UNITS
    assert verdicts(told, "unknown") == {"redis_conservation", "queue_empty"}
    assert told["rests_on"] == ["orders of the shop's database", "stock of the shop's database"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1 AS user FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT buyer AS user FROM orders", 'column "buyer" does not exist'),
        ("SELECT n AS user FROM secrets", "permission denied for table secrets"),
        ("SELECT FROM WHERE", "syntax error"),
        ("SELECT 1 / 0 AS user", "division by zero"),
        ("SELECT nextval('numbers') AS user", "in a read-only transaction"),
        ("SELECT pg_sleep(9) AS user", "statement timeout, after 1 s; ask for less"),
        ("SELECT 1 AS user; COMMIT; DROP TABLE secrets", "cannot insert multiple commands"),
        ("SELECT 'infinity'::timestamptz AS time, 1 AS user", "timestamp too large"),
    ],
)
def test_what_the_database_refuses_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, query: str, said: str
) -> None:
    monkeypatch.setattr(shop_tables, "_READ_TIMEOUT_S", 1)
    books = Books.model_construct(orders=query, stock="", route="", names={})
    with pytest.raises(UnfitError) as error:
        shop_tables.read_tables(ShopBooks(books, run.reader), [1])
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    with psycopg.connect(run.database) as owner:
        owner.execute("SELECT FROM secrets")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": 3, "users": 12, "connections": 24},
        {"steps": ["buy", "cancel"]},
        {"clicks": 4, "users": 15},
    ],
    ids=str,
)
def test_the_right_shop_is_right_however_it_is_asked(
    run: Run, serve: Serve, changes: dict[str, Any]
) -> None:
    told = run.judged(serve("postgres_shop"), **changes)
    assert (told["code"], told["verdict"]) == (0, "pass"), unproved(told)


@pytest.mark.slow
def test_one_key_is_one_order_in_the_right_shop(run: Run, serve: Serve, tmp_path: Path) -> None:
    told = run.judged(serve("postgres_shop", LIMIT="5"), key_of_the_user(tmp_path))
    assert (told["code"], told["verdict"]) == (0, "pass"), unproved(told)


FAULTS = [
    ("check_then_insert", "no_oversell", {}),
    ("lost_update", "mysql_conservation", {}),
    ("limit_outside", "one_per_user", {"users": 15, "connections": 30}),
    ("decrement_after_commit", "no_oversell", {}),
    ("key_ignored", "one_per_user", {"users": 8, "connections": 16}),
    ("not_returned", "mysql_conservation", {"steps": ["buy", "cancel"]}),
    ("batch_summed", "mysql_conservation", {"quantity": 2, "users": 12, "connections": 24}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "owner", "changes"), FAULTS, ids=[f for f, _, _ in FAULTS])
def test_a_planted_fault_is_named_by_the_check_that_owns_it(
    run: Run, serve: Serve, tmp_path: Path, fault: str, owner: str, changes: dict[str, Any]
) -> None:
    begun = time.monotonic()
    limit = "5" if fault == "key_ignored" else "1"
    base_url = serve("postgres_shop_faulty", FAULT=fault, LIMIT=limit)
    target = key_of_the_user(tmp_path) if fault == "key_ignored" else SHOP
    told = run.judged(base_url, target, **changes)
    assert told["code"] == 3, (told["storm"].stdout, told["checks"], time.monotonic() - begun)
    assert owner in verdicts(told, "fail")
    (check,) = (check for check in told["checks"] if check["name"] == owner)
    assert check["findings"][0]["offences"][0]["voucher"] == 1


@pytest.mark.nightly
@pytest.mark.timeout(1_800)
def test_ten_runs_raise_no_false_alarm(run: Run, serve: Serve) -> None:
    base_url = serve("postgres_shop")
    for number in range(10):
        told = run.judged(base_url, steps=["buy", "cancel"] if number % 2 else ["buy"])
        assert (told["code"], told["verdict"]) == (0, "pass"), unproved(told)


@pytest.mark.nightly
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(("fault", "owner", "changes"), FAULTS, ids=[f for f, _, _ in FAULTS])
def test_each_of_ten_runs_names_the_fault(
    run: Run, serve: Serve, tmp_path: Path, fault: str, owner: str, changes: dict[str, Any]
) -> None:
    limit = "5" if fault == "key_ignored" else "1"
    base_url = serve("postgres_shop_faulty", FAULT=fault, LIMIT=limit)
    target = key_of_the_user(tmp_path) if fault == "key_ignored" else SHOP
    for _ in range(10):
        told = run.judged(base_url, target, **changes)
        assert told["code"] == 3, unproved(told)
        assert owner in verdicts(told, "fail"), unproved(told)


@pytest.mark.slow
def test_the_tutorial_finds_the_oversell(
    run: Run, serve: Serve, tmp_path: Path, database: str
) -> None:
    """docs/shops.md, word for word, but for the addresses."""
    page = ROOT / "docs" / "shops.md"
    mine = next(block for block in blocks("toml") if block.document == page)
    (tmp_path / "mine.toml").write_text(mine.text)
    commands = [words for b in blocks("console") if b.document == page for words, _ in b.commands()]
    spoken = [words[1:] for words in commands if words[0] == "flashsale"]
    assert [words[0] for words in spoken] == ["target", "storm", "verify"]

    def follow(app: str, **environment: str) -> "list[subprocess.CompletedProcess[str]]":
        base_url = serve(app, **environment)
        done = []
        put_on_sale = [sys.executable, "-m", "examples.postgres_shop", "20"]
        own = {**os.environ, "DATABASE_URL": database}
        for words in spoken:
            if words[0] != "verify":
                subprocess.run(put_on_sale, cwd=ROOT, env=own, check=True)
            there = [base_url if word.startswith("http://") else word for word in words]
            done.append(run.flashsale(*there))
        return done

    tried, _, judged = follow("postgres_shop_faulty", FAULT="check_then_insert")
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert tried.stdout.startswith("buy: POST /orders → 201: sold, order ")
    assert "books: its stock says voucher 1, stock 19, initial 20, opens_ms " in tried.stdout
    assert judged.returncode == 3, judged.stdout
    lines = judged.stdout.splitlines()
    assert "no_oversell" in [line.split()[1] for line in lines if line.startswith("fail")]
    *_, right = follow("postgres_shop")
    assert right.returncode == 0, right.stdout
    (shown,) = (b for b in blocks("text") if b.document == page)
    assert all(line in right.stdout.splitlines() for line in shown.text.splitlines())
