"""What a store's URL may look like, and that a wrong one is one line that gives nothing away."""

import ssl
from pathlib import Path
from urllib.parse import quote

import pytest
from rig.private_ca import certify

from flashsale.errors import UsageError
from flashsale.keys import CLUSTER, SINGLE
from flashsale.store_urls import (
    StoreUrl,
    at_port,
    in_layout,
    layout_of,
    mysql_arguments,
    nodes_of,
    of_node,
    open_mysql,
    read_ledger_url,
    read_mysql_url,
    read_redis_url,
    sentinel_url,
    server_url,
)

SECRET = "s3cret"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:6379",
        f"http://:{SECRET}@h/0",
        f"redis:/:{SECRET}@h/0",
        f"redis://:{SECRET}@h:port/0",
        f"redis://:{SECRET}@h:70000/0",
        f"redis://:{SECRET}@[::1/0",
        f"redis://:p@{SECRET}@h/0",
        f"redis://:p/{SECRET}@h/0",
        f"redis://:6379/{SECRET}@h/0",
        f"redis://:p#{SECRET}@h/0",
        f"redis://:p?{SECRET}@h/0",
        f"redis://:{SECRET}@h/zero",
        f"redis://:{SECRET}@h/-1",
        f"redis://:{SECRET}@h/0?db=x",
        f"redis://:{SECRET}@h/0?nonsense=1",
        f"redis://h/0?password={SECRET}",
        f"redis://:{SECRET}@h/0?ssl_cert_reqs=none",
        f"redis://:{SECRET}@h/0 ",
        f"rediss://:{SECRET}@h/0?ssl_ca_certs=/nowhere/ca.pem",
        f"rediss://:{SECRET}@h/0?ssl_cert_reqs=perhaps",
        "unix://",
        f"unix://:{SECRET}@/path?db=x",
        f"redis+sentinel://:{SECRET}@h:26379",
        f"redis+sentinel://:{SECRET}@h:26379/na me",
        f"redis+sentinel://:{SECRET}@h:26379/sale/x",
        f"redis+sentinel://:{SECRET}@h:26379/sale/0/1",
        f"redis+sentinel://:{SECRET}@h,{SECRET}:port/sale",
        f"redis+sentinel://:{SECRET}@h,,i/sale",
        f"redis+sentinel://:{SECRET}@h,{SECRET}@i/sale",
        f"redis+sentinel://:p/{SECRET}@h,i/sale",
        f"redis+sentinel://h,i/sale?password={SECRET}",
        f"redis://:{SECRET}@h,i/0",
    ],
)
def test_what_is_no_url_of_a_redis(url: str) -> None:
    with pytest.raises(UsageError, match=r"^--ledger-url: expected ") as raised:
        read_redis_url(url, "--ledger-url")
    _gives_nothing_away(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        f"postgresql://u:{SECRET}@h/d",
        f"mysql://u:{SECRET}@h",
        f"mysql://u:{SECRET}@h/",
        f"mysql://u:{SECRET}@h/d/e",
        f"mysql://u:{SECRET}@h:port/d",
        f"mysql://u:p@{SECRET}@h/d",
        f"mysql://u:p/{SECRET}@h/d",
        f"mysql://u:12/{SECRET}@h/d",
        f"mysql://u:p#{SECRET}@h/d",
        f"mysql://u:p?{SECRET}@h/d",
        f"mysql://u:{SECRET}@h/d?nonsense=1",
        f"mysql://u@h/d?passwd={SECRET}",
        f"mysql://u:{SECRET}@h/d?charset=latin1",
        f"mysql://u:{SECRET}@h/d?ssl_mode=perhaps",
        f"mysql://u:{SECRET}@h/d?ssl_ca=/nowhere/ca.pem",
        f"mysql://u:{SECRET}@h/d?ssl_ca={__file__}",
    ],
)
def test_what_is_no_url_of_a_mysql(url: str) -> None:
    with pytest.raises(UsageError, match=r"^--mysql-url: expected ") as raised:
        read_mysql_url(url, "--mysql-url")
    _gives_nothing_away(raised.value)


@pytest.mark.parametrize("read", [read_redis_url, read_mysql_url])
def test_any_password_arrives_percent_encoded(read: object) -> None:
    hard = "a:b@c/d?e#f%41 +ü"
    url = f"{'redis' if read is read_redis_url else 'mysql'}://s%40le:{quote(hard, safe='')}@h:1/0"
    found = read_redis_url(url) if read is read_redis_url else read_mysql_url(url)
    assert (found.user, found.password) == ("s@le", hard)
    for shown in (str(found), repr(found)):
        assert "s@le" not in shown
        assert hard not in shown
        assert quote(hard) not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p@h", "redis://h:6379/0"),
        ("redis://h:7000/3", "redis://h:7000/3"),
        ("redis://h/3?db=4", "redis://h:6379/4"),
        ("rediss://:p@[::1]:7000", "rediss://[::1]:7000/0"),
        ("unix://:p@/run/redis.sock?db=2", "unix:///run/redis.sock/2"),
        ("redis+sentinel://u:p@h/sale", "redis+sentinel://h:26379/sale/0"),
        (
            "redis+sentinel://h:7000,[::1]:7001,i/sale/3?sentinel_password=p",
            "redis+sentinel://h:7000,[::1]:7001,i:26379/sale/3",
        ),
        ("rediss+sentinel://h,i/sale?db=4", "rediss+sentinel://h:26379,i:26379/sale/4"),
    ],
)
def test_how_a_redis_is_shown(url: str, shown: str) -> None:
    assert str(read_redis_url(url)) == shown


def test_what_stands_behind_sentinels() -> None:
    url = (
        "redis+sentinel://u:p%40s@a:1,[::1]:2/sale/3"
        "?sentinel_user=s&sentinel_password=q%2F&ssl_cert_reqs=none"
    )
    place = read_redis_url(url.replace("redis+", "rediss+"))
    assert (place.sentinels, place.primary) == ((("a", 1), ("::1", 2)), "sale")
    for shown in (str(place), repr(place)):
        assert "q/" not in shown
        assert "p@s" not in shown
    server = read_redis_url(server_url(place, "b", 4))
    assert str(server) == "rediss://b:4/3"
    assert (server.user, server.password) == ("u", "p@s")
    sentinel = read_redis_url(sentinel_url(place, "::1", 2))
    assert str(sentinel) == "rediss://[::1]:2/0"
    assert (sentinel.user, sentinel.password) == ("s", "q/")
    assert server.parameters == sentinel.parameters == {"ssl_cert_reqs": "none"}
    plain = read_redis_url("redis+sentinel://a/sale")
    assert server_url(plain) == "redis://a:26379/0", "no account, where none is named"
    assert sentinel_url(plain, "a", 1) == "redis://a:1/0"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql://u:p@h:3307/d?charset=utf8mb4", "mysql://h:3307/d"),
        ("mariadb+pymysql://u@[::1]/d", "mysql://[::1]:3306/d"),
        ("mysql:///d?unix_socket=/run/m.sock", "mysql:///run/m.sock/d"),
    ],
)
def test_how_a_mysql_is_shown(url: str, shown: str) -> None:
    assert str(read_mysql_url(url)) == shown


@pytest.mark.parametrize(
    ("mode", "verify", "hostname"),
    [
        ("?ssl-mode=REQUIRED", ssl.CERT_NONE, False),
        ("?ssl_ca={ca}", ssl.CERT_REQUIRED, False),
        ("?ssl_ca={ca}&ssl_mode=verify_identity", ssl.CERT_REQUIRED, True),
        ("?ssl_cert={certificate}&ssl_key={key}", ssl.CERT_NONE, False),
        ("?ssl_mode=verify_identity", ssl.CERT_REQUIRED, True),
    ],
)
def test_tls_in_the_words_of_mysqls_client(
    tmp_path: Path, mode: str, verify: ssl.VerifyMode, hostname: bool
) -> None:
    context = _arguments(f"mysql://u@h/d{mode.format(**certify(tmp_path)._asdict())}")["ssl"]
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (verify, hostname)


def test_tls_where_it_is_not_demanded() -> None:
    assert "ssl" not in _arguments("mysql://u@h/d?ssl_mode=preferred")
    assert "ssl" not in _arguments("mysql://u@h/d")
    assert _arguments("mysql://u@h/d?ssl_mode=disabled")["ssl_disabled"] is True


@pytest.mark.parametrize("mode", ["", "?ssl_mode=required"])
def test_no_authorities_are_read_where_none_is_checked(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(context: ssl.SSLContext, *_: object) -> None:
        raise AssertionError("authorities are read")

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", read)
    connection = open_mysql(**_arguments(f"mysql://u@h/d{mode}"), defer_connect=True)
    assert connection.ssl
    assert vars(connection)["ctx"].verify_mode is ssl.CERT_NONE


def _arguments(url: str) -> dict[str, object]:
    found: StoreUrl = read_mysql_url(url)
    return mysql_arguments(found, read_timeout_s=1)


def _gives_nothing_away(error: UsageError) -> None:
    assert SECRET not in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("url", "by_port"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:4711/0"),
        ("redis://me:a%40b@host:6379/3", "redis://me:a%40b@127.0.0.1:4711/3"),
        ("unix://me:secret@/run/a%20b/s.sock?db=2", "redis://me:secret@127.0.0.1:4711/2"),
        (
            "mysql+pymysql://me:pw@127.0.0.1:3306/sale?charset=utf8mb4",
            "mysql+pymysql://me:pw@127.0.0.1:4711/sale?charset=utf8mb4",
        ),
        (
            "mysql+pymysql://me:pw@localhost/sale?charset=utf8mb4&unix_socket=/run/my.sock",
            "mysql+pymysql://me:pw@127.0.0.1:4711/sale?charset=utf8mb4",
        ),
    ],
)
def test_a_store_by_a_port_keeps_account_and_database(url: str, by_port: str) -> None:
    assert at_port(url, 4711) == by_port


SENTINELS = in_layout("redis+sentinel://h:1,i:2/primary/0", "cluster")


# Layouts of the ledger ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "layout", "laid_out"),
    [
        ("redis://h:1/0", "single", "redis://h:1/0"),
        ("redis://u:p@h:1", "cluster", "redis+cluster://u:p@h:1"),
        ("rediss://h:1", "cluster", "rediss+cluster://h:1"),
        ("redis+cluster://h:1", "cluster", "redis+cluster://h:1"),
        ("redis+cluster://h:1", "single", "redis+cluster://h:1"),
        ("no url", "cluster", "no url"),
    ],
)
def test_a_layout_is_told_by_the_scheme(url: str, layout: str, laid_out: str) -> None:
    assert in_layout(url, layout) == laid_out
    assert layout_of(laid_out) is (CLUSTER if "+cluster" in laid_out else SINGLE)


def test_a_clusters_url_names_a_node_and_any_other() -> None:
    url = "rediss+cluster://u:p%40@h:1?ssl_cert_reqs=none"
    assert of_node(url) == "rediss://u:p%40@h:1?ssl_cert_reqs=none"
    assert of_node(url, ("10.0.0.2", 7)) == "rediss://u:p%40@10.0.0.2:7?ssl_cert_reqs=none"
    assert of_node("redis+cluster://h", ("::1", 7)) == "redis://[::1]:7"
    read = read_ledger_url(url)
    assert (read.scheme, read.user, read.port) == ("rediss+cluster", "u", 1)
    assert "p@" not in f"{read} {read!r}"
    assert read_ledger_url("redis://h:1/3").database == "3"


def test_a_clusters_url_names_as_many_nodes_as_one_likes() -> None:
    url = "rediss+cluster://u:p%2C@h:1,[::1]:2,g?ssl_cert_reqs=none"
    first = "rediss://u:p%2C@h:1?ssl_cert_reqs=none"
    assert [of_node(url), of_node(url, ("j", 7))] == [first, first.replace("h:1", "j:7")]
    assert list(nodes_of(url)) == [
        first,
        first.replace("h:1", "[::1]:2"),
        first.replace("h:1", "g"),
    ]
    assert list(nodes_of("redis+cluster://h:1")) == ["redis://h:1"]
    read = read_ledger_url(url)
    assert (read.host, read.port, read.password) == ("h", 1, "p,")
    assert str(read) == "rediss+cluster://h:1,[::1]:2,g:6379/0"
    with pytest.raises(UsageError, match="--ledger-url: expected redis"):
        read_ledger_url("redis+cluster://h:1,g:x", "--ledger-url")


@pytest.mark.parametrize(
    "url", ["unix+cluster:///s", "redis+cluster://h:1/1", "redis+cluster://h:x", SENTINELS]
)
def test_what_no_cluster_has_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--ledger-url: expected redis"):
        read_ledger_url(url, "--ledger-url")


def test_who_knows_one_server_alone_refuses_a_cluster() -> None:
    with pytest.raises(UsageError, match="it is a cluster's, which this does not know yet"):
        read_redis_url("redis+cluster://h:1", "--cache-url")
