"""A replica on real stores, sent what follows from its description: right, wrong and odd requests.

Every answer has a status, headers and a shape that `/openapi.json` tells for the route, 503 is the
only 5xx, and the replica lives on. Through nginx it is the same.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from redis import Redis
from rig.api_cases import OPERATOR, USER, send_cases
from rig.child import START_TIMEOUT_S, Child, answers, child, free_port
from rig.http_servers import http_server
from rig.rows import add_sale
from rig.sale import open_sale, permit, sign_in
from rig.shops import ShopStores
from rig.until import until
from sqlalchemy import Engine

from flashsale.stack.nginx import Balancing, NginxServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HERE_ALONE = r"readyz|metrics|openapi\.json"
"""What nginx does not pass on."""
ALLOW_ASIDE = ("--exclude-checks", "allow_header_conformance")
PARTS = {"blog|follow|upload": 5_000, "shop|shop-type": 1_500, "user": 3_000, "voucher": 1_000}
PARTS |= {"voucher-order": 1_500, "healthz|readyz|metrics|openapi\\.json": 50}
"""The routes by the first word of their path, and how many cases there are of them at least."""
ENDS_SESSIONS = r"user/logout|user/logout/everywhere"
"""Asked last: whoever asked is signed out."""


class Front(NamedTuple):
    """A replica, and nginx before it."""

    replica: Child
    direct: str
    through_nginx: str

    @property
    def document(self) -> str:
        return f"{self.direct}/openapi.json"

    def send(
        self, folder: Path, to: str, *options: str, part: str = "", without: str = "", examples: int
    ) -> int:
        """Send cases for every route, or for those of one part, but some, to that address; how
        many there were."""
        last = ("--include-path-regex", f"^/({ENDS_SESSIONS})$")
        left_out = "|".join(filter(None, (ENDS_SESSIONS, without)))
        before = ["--exclude-path-regex", f"^/({left_out})$"]
        if part:
            before += ["--include-path-regex", f"^/({part})(/|$)"]
        cases = 0
        for chosen in (before, last) if part in ("", "user") else (before,):
            sent = send_cases(
                folder, self.document, "--url", to, *options, *chosen, examples=examples
            )
            assert sent.passed, sent.told
            cases += sent.cases
        return cases

    def assert_well(self) -> None:
        """It answers, and has logged no trouble."""
        assert httpx.get(f"{self.direct}/readyz").status_code == 200
        assert httpx.get(f"{self.through_nginx}/healthz").status_code == 200
        assert "Traceback" not in self.replica.output
        assert "internal error" not in self.replica.output


@pytest.fixture
def settings(ledger_url: str, cache_url: str, mysql_url: str) -> dict[str, str]:
    """Of a replica: where the stores are, an operator, and somewhere for codes to go."""
    return {
        "FLASHSALE_LEDGER_URL": ledger_url,
        "FLASHSALE_CACHE_URL": cache_url,
        "FLASHSALE_MYSQL_URL": mysql_url,
        "FLASHSALE_OPERATOR_TOKEN": OPERATOR,
        "FLASHSALE_LOGIN_LOG_CODES": "1",
    }


@pytest.fixture
def front(
    settings: dict[str, str], ledger: Redis, cache: Redis, pool: Engine, tmp_path: Path
) -> Iterator[Front]:
    """Three sales, shops and blogs, two users, one of them signed in; nothing warmed."""
    stock(ledger, cache, pool)
    with ExitStack() as up:
        port = up.enter_context(free_port())
        command = ("replica", "--port", str(port), "--name", "r1")
        replica = up.enter_context(child(tmp_path / "replica.log", *command, **settings))
        until(lambda: answers(port) or replica.process.poll() is not None, START_TIMEOUT_S)
        nginx = up.enter_context(NginxServer(tmp_path / "nginx", Balancing(replica_ports=(port,))))
        yield Front(replica, f"http://127.0.0.1:{port}", nginx.url)


def stock(ledger: Redis, cache: Redis, pool: Engine) -> None:
    """Put something behind every route."""
    sign_in(ledger, USER)
    permit(ledger)
    shops = ShopStores(pool, cache, ledger)
    shops.sql("INSERT INTO tb_dataset (id, seed) VALUES ('d', 1)")
    shops.sql("INSERT INTO tb_shop_type (id, name, sort) VALUES (1, 'A', 2), (2, 'B', 1)")
    shops.sql("INSERT INTO tb_user (id, phone, nick_name) VALUES (1, '1', 'Ann'), (2, '2', 'Bob')")
    for number in (1, 2, 3):
        shops.add_shop(number, y=30 + number / 100)
        shops.add_blog(number, liked=number)
        shops.sql(
            "INSERT INTO tb_voucher (id, shop_id, title, pay_value, actual_value, type) "
            "VALUES (:id, 1, 'a voucher', 100, 200, 1)",
            id=number,
        )
        open_sale(ledger, number, units=100)
        add_sale(pool, number)


def test_every_answer_is_as_described(front: Front, tmp_path: Path) -> None:
    assert front.send(tmp_path, front.direct, "--seed", "1", examples=4) > 1_000
    front.assert_well()


def test_and_through_nginx(front: Front, tmp_path: Path) -> None:
    """But for one header: nginx, which refuses some methods itself, does not know the routes, and
    its `Allow` names all that it passes on anywhere."""
    options = ("--seed", "2", "--phases", "fuzzing", *ALLOW_ASIDE)
    to = front.through_nginx
    assert front.send(tmp_path, to, *options, without=HERE_ALONE, examples=6) > 200
    front.assert_well()


def test_a_wrong_description_is_found_out(front: Front, tmp_path: Path) -> None:
    """So the proofs above can fail: shops whose name is a number, and no word of a 404."""
    document = httpx.get(front.document).json()
    shop = document["paths"]["/shop/{id}"]["get"]["responses"]["200"]["content"]
    data = shop["application/json"]["schema"]["properties"]["data"]
    data["properties"]["name"] = {"type": "integer"}
    del document["paths"]["/blog/{id}"]["get"]["responses"]["404"]
    wrong = tmp_path / "wrong.json"
    wrong.write_text(httpx.Response(200, json=document).text)
    options = ("--url", front.direct, "--include-path-regex", r"^/(shop|blog)/\{id\}$")
    sent = send_cases(tmp_path, str(wrong), *options, examples=10)
    assert not sent.passed
    assert "GET /shop/{id}" in sent.told
    assert "GET /blog/{id}" in sent.told


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(("part", "least"), PARTS.items())
def test_ten_thousand_cases(front: Front, part: str, least: int, tmp_path: Path) -> None:
    """All parts together. Another seed each time: it is told where something is found."""
    assert front.send(tmp_path, front.direct, part=part, examples=250) >= least
    front.assert_well()


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
def test_thousands_through_nginx(front: Front, tmp_path: Path) -> None:
    """The same verdict as directly."""
    to = front.through_nginx
    cases = front.send(tmp_path, to, *ALLOW_ASIDE, without=HERE_ALONE, examples=50)
    assert cases >= 2_000
    front.assert_well()


@pytest.mark.nightly
@pytest.mark.parametrize("server", ["granian", "uvicorn"])
def test_the_application_behind_another_server(
    front: Front, settings: dict[str, str], server: str, tmp_path: Path
) -> None:
    """What the application answers is as described whoever serves it."""
    with http_server(server, "sale", **settings) as port:
        to = f"http://127.0.0.1:{port}"
        assert front.send(tmp_path, to, "--seed", "3", examples=2) > 1_000
        assert httpx.get(f"{to}/readyz").status_code == 200
