"""Each preset on a server with its shapes: tried by one request, stormed, and understood."""

import itertools
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from rig.command_line import run_flashsale
from rig.documents import ROOT
from rig.shop_server import Answer, Asked, Reply, ShopServer

from flashsale.campaign.campaign import shop_books
from flashsale.campaign.judging import judge_run
from flashsale.campaign.storming import StormRequest, run_storm
from flashsale.model import Verdict
from flashsale.run.folder import SUMMARY_FILE
from flashsale.run.summary import Summary
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.table import preset_names

HEAD = '# Is it sold?\nschema = 1\nname = "preset"\n[sale]\nunits = 3\n[load]\n'
LOAD = 'model = "closed"\nusers = 6\nconnections = 3\n'
USERS = "user_id,token,username,password\n" + "".join(
    f"{n},token-{n},u{n},p&{n}\n" for n in range(1, 9)
)


@dataclass
class Sold:
    """A few units, one a user."""

    units: int = 3
    of: dict[str, str] = field(default_factory=dict)

    def to(self, user: str) -> str:
        """The order, `duplicate` or `sold_out`."""
        if user in self.of:
            return "duplicate"
        if len(self.of) == self.units:
            return "sold_out"
        return self.of.setdefault(user, f"ord_{len(self.of) + 1:04}-é")

    def told(self, asked: Asked) -> Reply:
        """The books, as a route of the shop."""
        orders = [{"id": each, "user": user.strip("u"), "sku": 1} for user, each in self.of.items()]
        stock = {"sku": 1, "left": self.units - len(self.of), "units": self.units}
        return Reply(200, {"orders": orders, "stock": [stock]})


def bearer(sold: Sold) -> Answer:
    def answer(asked: Asked) -> Reply:
        assert asked.json == {"item": "1", "quantity": 1}
        found = sold.to(asked.headers["authorization"].removeprefix("Bearer token-"))
        if found in ("duplicate", "sold_out"):
            told = {"duplicate": "Already bought", "sold_out": "Sold out!"}[found]
            return Reply(409, {"error": told})
        return Reply(201, {"id": found})

    return answer


def unnamed(sold: Sold) -> Answer:
    def answer(asked: Asked) -> Reply:
        form = parse_qs(asked.body.decode())
        assert form["voucher"] == ["1"]
        found = sold.to(form["user"][0])
        if found in ("duplicate", "sold_out"):
            return Reply(200, {"success": False, "why": found.replace("_", " ")})
        return Reply(200, {"success": True})

    return answer


def cookie(sold: Sold) -> Answer:
    sessions = itertools.count()
    users: dict[str, str] = {}

    def answer(asked: Asked) -> Reply:
        form = parse_qs(asked.body.decode())
        if asked.path == "/login":
            session = f"s{next(sessions)}"
            users[session] = form["username"][0]
            assert form["password"] == [f"p&{form['username'][0][1:]}"]
            return Reply(303, b"", {"set-cookie": f"session={session}; HttpOnly", "location": "/"})
        found = sold.to(users[asked.headers["cookie"].removeprefix("session=")])
        if found in ("duplicate", "sold_out"):
            return Reply(200, {"ok": False, "why": found.replace("_", " ")})
        return Reply(200, {"ok": True, "order": found})

    return answer


def mq(sold: Sold) -> Answer:
    looks = dict[str, int]()

    def answer(asked: Asked) -> Reply:
        user = asked.headers["authorization"].removeprefix("Bearer token-")
        if asked.method == "POST":
            return Reply(202, {"ticket": f"t-{user}"})
        ticket = asked.path.rpartition("/")[2]
        looks[ticket] = looks.get(ticket, 0) + 1
        if looks[ticket] < 2:
            return Reply(200, {"state": "queued"})
        found = sold.to(user)
        if found in ("duplicate", "sold_out"):
            return Reply(200, {"state": found})
        return Reply(200, {"state": "confirmed", "id": found})

    return answer


def family(sold: Sold) -> Answer:
    """As published: no `x-outcome`, a number for an id, messages with a mark, no health route."""

    def answer(asked: Asked) -> Reply:
        if asked.path == "/user/me":
            return Reply(200, {"success": True, "data": {}})
        if asked.method != "POST":
            return Reply(404)
        found = sold.to(asked.headers["authorization"])
        if found in ("duplicate", "sold_out"):
            message = {"duplicate": "不允许重复下单！", "sold_out": "库存不足！"}[found]
            return Reply(200, {"success": False, "errorMsg": message})
        return Reply(200, {"success": True, "data": 421_000_000_000_000_000 + len(sold.of)})

    return answer


SHAPES: dict[str, Callable[[Sold], Answer]] = {
    "bearer": bearer,
    "unnamed": unnamed,
    "cookie": cookie,
    "mq": mq,
    "flashsale": family,
    "hm-dianping": family,
}


def flashsale(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return run_flashsale(folder, *words)


def test_there_is_a_shape_for_each_and_a_line_in_the_document() -> None:
    assert sorted(SHAPES) == preset_names()
    page = (ROOT / "docs" / "shops.md").read_text()
    assert all(f"| `{name}` |" in page for name in SHAPES)


@pytest.mark.parametrize("preset", SHAPES)
def test_a_preset_is_stormed_and_each_answer_understood(preset: str, tmp_path: Path) -> None:
    steps = (
        'steps = ["login", "buy", "buy"]\n' if preset == "cookie" else 'steps = ["buy", "buy"]\n'
    )
    (tmp_path / "sale.toml").write_text(HEAD + LOAD + steps)
    tokens = (
        USERS
        if preset not in ("flashsale", "hm-dianping")
        else "user_id,token\n" + "".join(f"{n},token-{n}\n" for n in range(1, 9))
    )
    (tmp_path / "users.csv").write_text(tokens)
    where = ["--target", preset, "--tokens", "users.csv", "--state-dir", "none"]
    with ShopServer(SHAPES[preset](Sold())).open() as server:
        done = flashsale(
            tmp_path,
            *("storm", "sale.toml", "--base-url", server.base_url, "--out", "run", "--quiet"),
            *("--no-calibrate", *where),
        )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = Summary.read(tmp_path / "run" / SUMMARY_FILE)
    # Who was sold nothing is told "sold out" twice, who was sold something "duplicate".
    assert summary.endpoints["buy"].outcomes == {"sold": 3, "sold_out": 6, "duplicate": 3}


BOOKS = """\
[target]
preset = "{preset}"
[books]
route = "/books"
orders = "/orders"
stock = "/stock"
names = {{ voucher = "sku", stock = "left", initial = "units"{id} }}
rest_ms = 300
"""


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("preset", ["bearer", "unnamed", "cookie", "mq"])
def test_ten_runs_raise_no_false_alarm(preset: str, tmp_path: Path) -> None:
    steps = '"login", "buy", "buy"' if preset == "cookie" else '"buy", "buy"'
    no_id = ', id = "none"' if preset == "unnamed" else ""
    text = HEAD.replace("units = 3", "units = 12") + (
        f'model = "closed"\nusers = 40\nconnections = 20\nsteps = [{steps}]\n'
    )
    scenario = parse_scenario(text + BOOKS.format(preset=preset, id=no_id), "sale.toml")
    assert scenario.books is not None
    users = "".join(f"{n},token-{n},u{n},p&{n}\n" for n in range(1, 41))
    (tmp_path / "users.csv").write_text("user_id,token,username,password\n" + users)
    for number in range(10):
        sold = Sold(12)
        shape = SHAPES[preset](sold)

        def answer(asked: Asked, sold: Sold = sold, shape: Answer = shape) -> Reply:
            return sold.told(asked) if asked.path == "/books" else shape(asked)

        with ShopServer(answer).open() as server:
            stores = shop_books(scenario.books, server.base_url)
            out = tmp_path / f"run-{number}"
            request = StormRequest(
                scenario=scenario,
                base_url=server.base_url,
                tokens=tmp_path / "users.csv",
                stores=stores,
                out=out,
                calibrate=False,
            )
            run_storm(request)
            found = judge_run(out, stores).judgement
        assert found.verdict is Verdict.PASS, [str(check) for check in found.checks]
        assert (found.accepted, found.persisted) == (12, 12)


@pytest.mark.parametrize("preset", ["bearer", "cookie", "mq"])
def test_one_of_each_is_sent_and_what_was_understood_is_shown(preset: str, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(USERS)
    with ShopServer(SHAPES[preset](Sold())).open() as server:
        done = flashsale(
            tmp_path,
            *("target", "check", preset, "--base-url", server.base_url, "--tokens", "users.csv"),
        )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("buy: POST /")
    assert ": sold, order ord_0001-" in lines[-1]
    assert len(lines) == (2 if preset == "cookie" else 1)


def test_what_was_not_understood_is_shown_and_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(USERS)
    with ShopServer(lambda asked: Reply(200, {"what": "ever"})).open() as server:
        done = flashsale(
            tmp_path,
            *("target", "check", "bearer", "--base-url", server.base_url),
            *("--tokens", "users.csv"),
        )
    assert done.returncode == 2
    assert 'buy: POST /orders → 200: unknown (order_id: {"what": "ever"})' in done.stdout
    assert "not understood: buy; no order's id is at target.buy.order ('/id')" in done.stderr


SMALL = "users = 300\nconnections = 100\n"


@pytest.mark.nightly
@pytest.mark.timeout(1_800)
def test_ten_runs_of_a_stack_of_ours_raise_no_false_alarm(tmp_path: Path) -> None:
    """The preset `flashsale`, as the document has it: each run sells a voucher of its own."""
    load = f'model = "stampede"\n{SMALL}'
    for number in range(1, 11):
        sale = f"units = 20\nfirst_voucher = {number}"
        (tmp_path / f"sale-{number}.toml").write_text(HEAD.replace("units = 3", sale) + load)
    storm = ("--target", "flashsale", "--quiet", "--no-calibrate", "--out")
    try:
        for words in (
            ("serve", "--detach", "--port", "0", "--replicas", "1"),
            ("seed", "--users", "300", "--vouchers", "10", "--units", "200", "--shops", "5"),
            ("warm",),
        ):
            done = flashsale(tmp_path, *words)
            assert done.returncode == 0, (words, done.stdout, done.stderr)
        for number in range(1, 11):
            done = flashsale(tmp_path, "storm", f"sale-{number}.toml", *storm, f"run-{number}")
            assert done.returncode == 0, (number, done.stdout, done.stderr)
            done = flashsale(tmp_path, "verify", f"run-{number}")
            assert done.returncode == 0, (number, done.stdout, done.stderr)
            assert "orders 20 accepted, 20 rows" in done.stdout
    finally:
        flashsale(tmp_path, "stop")
