"""A storm on a shop that is nothing like ours: log in, fill a cart, wait in a queue, pay."""

from pathlib import Path

from rig.shop_server import Asked, Reply, ShopServer

from flashsale.campaign.campaign import StormRun
from flashsale.campaign.storming import StormRequest, run_storm
from flashsale.model import Verdict
from flashsale.run.attempts_file import read_record
from flashsale.scenario.scenario import parse_scenario

HEAD = """\
# Does each customer get what they are told?
schema = 1
name = "own"
[sale]
units = 3
[load]
model = "closed"
users = 6
connections = 3
"""
SHOP = """\
steps = ["login", "cart", "buy", "pay"]

[target.login]
path = "/login"
form = { email = "{user.email}" }
take = { token = "/data/token" }

[target.cart]
path = "/cart"
headers = { authorization = "Bearer {token}" }
json = { sku = "{voucher}", n = "{quantity:number}" }
take = { cart = "header:location" }

[target.buy]
path = "/checkout"
query = { cart = "{cart}" }
headers = { authorization = "Bearer {token}", idempotency-key = "{run}-{user}" }
order = "/ticket"
outcomes = [
    { status = 202, outcome = "queued" },
    { status = 409, json = { "/code" = "GONE" }, outcome = "sold_out" },
]

[target.buy.poll]
path = "/tickets/{order}"
every_ms = 10
order = "/order"
outcomes = [
    { json = { "/state" = "wait" }, outcome = "queued" },
    { json = { "/state" = "done" }, outcome = "sold" },
    { json = { "/state" = "gone" }, outcome = "sold_out" },
]

[target.pay]
path = "/orders/{order}/pay"
headers = { authorization = "Bearer {token}" }
"""


class Shop:
    """Three units; the fourth that is queued is told "gone" by its ticket, and the rest at once."""

    def __init__(self, close: bool) -> None:
        self.close, self.tickets, self.looks = close, 0, dict[str, int]()
        self.paid: list[tuple[str, str]] = []

    def answer(self, asked: Asked) -> Reply:
        head, _, tail = asked.path[1:].partition("/")
        who = asked.headers.get("authorization", "")
        if head == "login":
            token = asked.body.decode().removeprefix("email=").partition("%40")[0]
            return Reply(200, {"data": {"token": f"t-{token}"}})
        if head == "cart":
            assert asked.json == {"sku": "1", "n": 1}
            return Reply(201, {}, {"location": f"/c/{who[-2:]}"})
        if head.startswith("checkout?cart=%2Fc%2F"):
            assert asked.headers["idempotency-key"].startswith("run-")
            if self.tickets == 4:
                return Reply(409, {"code": "GONE"})
            self.tickets += 1
            return Reply(202, {"ticket": f"no-{self.tickets}"}, close=self.close)
        if head == "tickets":
            assert who.startswith("Bearer t-")
            self.looks[tail] = self.looks.get(tail, 0) + 1
            if self.looks[tail] < 3:
                return Reply(200, {"state": "wait"}, close=self.close)
            state = "done" if tail != "no-4" else "gone"
            return Reply(200, {"state": state, "order": f"ord-{tail}"})
        assert tail.endswith("/pay")
        self.paid.append((who, tail))
        return Reply(204)


def stormed(tmp_path: Path, shop: Shop, text: str = HEAD + SHOP, processes: int = 1) -> StormRun:
    users = "".join(f"u-{i},e{i}@x\n" for i in range(9))
    (tmp_path / "users.csv").write_text("user_id,email\n" + users)
    with ShopServer(shop.answer).open() as server:
        return run_storm(
            StormRequest(
                scenario=parse_scenario(text, "own.toml"),
                base_url=server.base_url,
                tokens=tmp_path / "users.csv",
                out=tmp_path / "run",
                calibrate=False,
                processes=processes,
            )
        )


def check(run: StormRun, shop: Shop) -> None:
    found = {name: dict(figures.outcomes) for name, figures in run.summary.endpoints.items()}
    assert found == {
        "buy": {"sold": 3, "sold_out": 3},
        "login": {"done": 6},
        "cart": {"done": 6},
        "pay": {"done": 3},
    }
    assert run.summary.verdict is Verdict.PASS
    assert run.summary.load.spared == 3  # who was sold nothing pays nothing
    record = read_record(run.folder.attempts)
    told = {a.order for _, a in record.attempts.settled() if a.order}
    assert told == {"ord-no-1", "ord-no-2", "ord-no-3"}
    assert {order for _, order in shop.paid} == {f"{order}/pay" for order in told}
    assert len({who for who, _ in shop.paid}) == 3


def test_each_step_gets_what_the_one_before_was_told(tmp_path: Path) -> None:
    shop = Shop(close=False)
    run = stormed(tmp_path, shop)
    check(run, shop)
    # The response of a queued claim is the whole time: three questions, 10 ms apart.
    sold = run.summary.endpoints["buy"].service
    assert sold.max is not None
    assert sold.max >= 30


def test_a_shop_that_hangs_up_after_each_answer_is_asked_over_new_connections(
    tmp_path: Path,
) -> None:
    shop = Shop(close=True)
    check(stormed(tmp_path, shop), shop)


def test_several_processes_carry_values_each_for_its_own_users(tmp_path: Path) -> None:
    shop = Shop(close=False)
    check(stormed(tmp_path, shop, processes=2), shop)


def test_a_ticket_that_is_never_called_is_bounded(tmp_path: Path) -> None:
    shop = Shop(close=False)
    waiting = SHOP.replace('"/state" = "wait"', '"/order" = "ord-no-1"').replace(
        '{ json = { "/order"',
        '{ json = { "/state" = "wait" }, outcome = "queued" },\n    { json = { "/order"',
    )
    run = stormed(tmp_path, shop, HEAD + waiting + "[timeouts]\nrequest_ms = 300\n")
    buy = run.summary.endpoints["buy"]
    assert buy.outcomes == {"sold": 2, "sold_out": 3, "indeterminate": 1}
    assert buy.censored == 1


LOST = """\
[timeouts]
request_ms = 200
claim_ms = 300
[target]
headers = { authorization = "Bearer {user.email}" }
[target.buy]
path = "/buy"
order = "/id"
outcomes = [{ status = 201, outcome = "sold" }, { status = 409, outcome = "sold_out" }]
[target.lookup]
path = "/mine"
query = { sku = "{voucher}" }
order = "/order"
outcomes = [
    { status = 404, outcome = "none" },
    { status = 200, json = { "/state" = "sold" }, outcome = "sold" },
    { status = 200, outcome = "later" },
]
"""


def test_what_became_of_claims_in_doubt_is_asked_as_the_shop_tells_it(tmp_path: Path) -> None:
    looks: list[str] = []

    def answer(asked: Asked) -> Reply:
        who = asked.headers["authorization"].removeprefix("Bearer ")
        if asked.method == "POST":
            return Reply(504 if who[:2] in ("e1", "e2") else 409)
        assert asked.path == "/mine?sku=1"
        looks.append(who)
        if who.startswith("e2"):
            return Reply(404)
        return Reply(200, {"state": "sold", "order": "o-1"} if looks.count(who) > 1 else {})

    shop = Shop(close=False)
    shop.answer = answer  # type: ignore[method-assign]
    run = stormed(tmp_path, shop, HEAD + LOST)
    assert run.summary.load.resolved == 2
    attempts = read_record(run.folder.attempts).attempts
    assert sorted(attempts.resolved.values()) == ["none", "sold"]
    assert list(attempts.found.values()) == ["o-1"]
