"""What exporters are run with: everything they need, and no password that `ps` would show."""

import pytest

from flashsale.errors import UnreachableError
from flashsale.observe.prometheus import (
    Export,
    ledger_exports,
    mysql_export,
    nginx_export,
    redis_export,
)
from flashsale.primaries import Primary, Sentinels
from flashsale.stack.redis import RedisRole, account_rules
from flashsale.stack.service import Account

SECRET = "s3/cr#et`s"


@pytest.mark.parametrize(
    "export",
    [
        redis_export("ledger", "rediss://sale:s3%2Fcr%23et%60s@host:7000/0"),
        mysql_export("mysql+pymysql://sale:s3%2Fcr%23ets@host:3307/flashsale?charset=utf8mb4"),
        nginx_export("http://127.0.0.1:9/stub_status"),
    ],
    ids=lambda export: export.job,
)
def test_no_secret_is_an_argument(export: Export) -> None:
    assert not any("s3" in argument for argument in export.arguments)


def test_redis() -> None:
    export = redis_export("cache", "redis://sale:s3%2Fcr%23et%60s@host:7000/0")
    assert export.environment == {
        "REDIS_ADDR": "redis://host:7000",
        "REDIS_USER": "sale",
        "REDIS_PASSWORD": SECRET,
    }
    assert (export.job, export.instance) == ("redis", "cache")


def test_redis_behind_sentinels_is_who_is_the_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "redis+sentinel://sale:s3%2Fcr%23et%60s@s1,s2/sale/0?sentinel_password=x"
    monkeypatch.setattr(Sentinels, "ask", lambda self: Primary("10.0.0.1", 7000, 1))
    assert redis_export("ledger", url).environment == {
        "REDIS_ADDR": "redis://10.0.0.1:7000",
        "REDIS_USER": "sale",
        "REDIS_PASSWORD": SECRET,
    }


def test_redis_whose_primary_nobody_knows_cannot_be_observed() -> None:
    with pytest.raises(UnreachableError, match=r"the ledger at .* cannot be observed"):
        redis_export("ledger", "redis+sentinel://127.0.0.1:1/sale/0")


def test_each_server_of_a_private_ledger_has_an_exporter() -> None:
    nodes = {f"ledger-{n}": f"redis://exporter:s3@127.0.0.1:700{n}/0" for n in range(1, 7)}
    exports = ledger_exports("redis+cluster://exporter:s3@127.0.0.1:7001", nodes)
    assert [export.instance for export in exports] == list(nodes)
    assert [export.environment["REDIS_ADDR"] for export in exports] == [
        f"redis://127.0.0.1:700{n}" for n in range(1, 7)
    ]
    (only,) = ledger_exports("redis://127.0.0.1:6379/0", {})
    assert only.instance == "ledger"


def test_a_cluster_that_nobody_reaches_cannot_be_observed() -> None:
    with pytest.raises(UnreachableError, match="the ledger cannot be observed: no node"):
        ledger_exports("redis+cluster://exporter:s3@127.0.0.1:1", {})


def test_who_counts_may_ask_a_node_how_its_cluster_is() -> None:
    rules = {on: account_rules(RedisRole.LEDGER, in_cluster=on) for on in (False, True)}
    assert "+cluster|info" in rules[True][Account.EXPORTER]
    assert "cluster" not in rules[False][Account.EXPORTER]


def test_redis_without_an_account() -> None:
    environment = redis_export("ledger", "redis://127.0.0.1:6379/0").environment
    assert environment["REDIS_ADDR"] == "redis://127.0.0.1:6379"
    assert environment["REDIS_PASSWORD"] == ""


def test_mysql() -> None:
    export = mysql_export("mysql+pymysql://sale:s3%2Fcr%23ets@host:3307/flashsale?charset=utf8mb4")
    assert export.file is not None
    name, text = export.file
    assert f"--config.my-cnf={name}" in export.arguments
    assert text == (
        "[client]\nuser = `sale`\npassword = `s3/cr#ets`\nhost = `host`\nport = `3307`\n"
    )
