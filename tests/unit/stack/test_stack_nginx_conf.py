"""What the rendered nginx configuration must and must not say."""

import re
from dataclasses import replace

import pytest

from flashsale.stack.nginx import AddressLimits, NginxConf
from flashsale.stack.settings import StackSettings
from flashsale.stack.stack import _address_limits

CONF = NginxConf(
    listen="127.0.0.1:8080",
    status_listen="127.0.0.1:8090",
    replicas=["127.0.0.1:8081", "replica2:8082"],
)
LIMITS = AddressLimits(50, 200, 100, exempt=("10.0.0.0/8",))


def _lines(conf: NginxConf) -> list[str]:
    return [line.strip() for line in conf.render().splitlines()]


def test_every_replica_is_a_server() -> None:
    text = CONF.render()
    assert 'server "127.0.0.1:8081" ' in text
    assert 'server "replica2:8082" ' in text


def test_a_post_is_never_sent_twice() -> None:
    directives = [line for line in _lines(CONF) if line.startswith("proxy_next_upstream ")]
    assert directives == ["proxy_next_upstream error timeout;", "proxy_next_upstream off;"]


@pytest.mark.parametrize(("workers", "shared"), [(1, False), (2, True)])
def test_workers_share_what_they_know_of_replicas(workers: int, shared: bool) -> None:
    text = replace(CONF, workers=workers).render()
    assert ("zone replicas" in text) is shared
    assert ("reuseport" in text) is shared


def test_the_access_log_is_off_until_it_is_wanted() -> None:
    assert _lines(CONF).count("access_log off;") == 2  # the sale's, and the counters' own
    assert _lines(CONF).count("access_log /dev/stderr sale;") == 5
    logged = replace(CONF, access_log="/dev/stdout")
    assert 'access_log "/dev/stdout" sale buffer=64k flush=1s;' in _lines(logged)


def test_the_access_log_tells_no_query_and_no_session() -> None:
    text = replace(CONF, access_log="/dev/stdout").render()
    told = text[text.index("log_format") : text.index("access_log")]
    for secret in ("$request_uri", "$args", "$request ", '$request"', "$http_", "$uri"):
        assert secret not in told


def test_upstream_connections_outlive_a_storm() -> None:
    text = replace(CONF, upstream_keepalive=700).render()
    assert "keepalive 700;" in text
    assert text.count("keepalive_requests 100000000;") == 2


def test_a_storm_from_one_address_is_not_limited_by_default() -> None:
    assert _address_limits(StackSettings.load()) is None
    assert "limit_" not in CONF.render()
    assert "geo " not in CONF.render()


def test_limits_are_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASHSALE_STACK_NGINX_ADDRESS_REQUESTS_PER_S", "50")
    monkeypatch.setenv("FLASHSALE_STACK_NGINX_ADDRESS_CONNECTIONS", "7")
    assert _address_limits(StackSettings.load()) == AddressLimits(50, 200, 7)


def test_limits_count_by_address_but_for_the_exempt() -> None:
    lines = _lines(replace(CONF, limits=LIMITS))
    assert "limit_req_zone $limited_address zone=requests:16m rate=50r/s;" in lines
    assert "limit_req zone=requests burst=200 nodelay;" in lines
    assert "limit_conn connections 100;" in lines
    assert "10.0.0.0/8 0;" in lines


@pytest.mark.parametrize("limits", [None, LIMITS])
def test_no_browser_guesses_what_an_answer_is(limits: AddressLimits | None) -> None:
    """Each place says so, but that of orders, whose answers are so as replicas send them."""
    conf = replace(CONF, limits=limits).render()
    told = "add_header X-Content-Type-Options nosniff always;"
    places = re.findall(r"^        location ([^{]+) \{(.*?)^        \}", conf, re.M | re.S)
    answering = {where: rules for where, rules in places if not rules.strip().startswith("return")}
    assert len(answering) >= 15
    silent = [where for where, rules in answering.items() if told not in rules]
    assert silent == ["^~ /voucher-order/", "= /stub_status"]
    proxied = [where for where, rules in answering.items() if "proxy_pass" in rules]
    for where in set(proxied) - {"^~ /voucher-order/"}:
        assert "proxy_hide_header X-Content-Type-Options;" in answering[where], "once is enough"


def test_a_picture_alone_may_be_large() -> None:
    bounds = [line for line in _lines(CONF) if line.startswith("client_max_body_size")]
    assert bounds == ["client_max_body_size 64k;", "client_max_body_size 1052672;"]
    place = CONF.render().index("location = /upload/blog {")
    assert CONF.render().index(bounds[1]) > place


def test_pictures_are_shown_as_pictures_and_only_where_they_are_kept() -> None:
    assert "alias" not in CONF.render()
    shown = replace(CONF, pictures="/srv/pictures").render()
    place = shown[shown.index('location ~ "^/imgs') :].partition("location @one_replica")[0]
    assert 'alias "/srv/pictures$picture";' in place
    assert "nosniff always;" in place
    assert "sandbox" in place
    assert "default_type application/octet-stream;" in place
    assert "disable_symlinks on;" in place
