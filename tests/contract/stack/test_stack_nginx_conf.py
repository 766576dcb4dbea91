"""What the rendered nginx configuration must and must not say."""

from pathlib import Path

import pytest

from flashsale.stack.nginx import Balancing, NginxServer


def _rendered(tmp_path: Path, **balancing: object) -> str:
    server = NginxServer(tmp_path, Balancing(replica_ports=(8081, 8082), **balancing))  # type: ignore[arg-type]
    server.port.close()
    return server.render()


def test_every_replica_is_a_server(tmp_path: Path) -> None:
    text = _rendered(tmp_path)
    assert "server 127.0.0.1:8081 " in text
    assert "server 127.0.0.1:8082 " in text


def test_a_post_is_never_sent_twice(tmp_path: Path) -> None:
    directives = [
        line.strip()
        for line in _rendered(tmp_path).splitlines()
        if line.strip().startswith("proxy_next_upstream ")
    ]
    assert directives == ["proxy_next_upstream error timeout;", "proxy_next_upstream off;"]


@pytest.mark.parametrize(("workers", "shared"), [(1, False), (2, True)])
def test_workers_share_what_they_know_of_replicas(
    tmp_path: Path, workers: int, shared: bool
) -> None:
    text = _rendered(tmp_path, workers=workers)
    assert ("zone replicas" in text) is shared
    assert ("reuseport" in text) is shared


def test_the_access_log_is_off_until_it_is_wanted(tmp_path: Path) -> None:
    assert "access_log off;" in _rendered(tmp_path)
    assert f'access_log "{tmp_path / "access.log"}";' in _rendered(tmp_path, access_log=True)


def test_upstream_connections_outlive_a_storm(tmp_path: Path) -> None:
    text = _rendered(tmp_path, upstream_keepalive=700)
    assert "keepalive 700;" in text
    assert text.count("keepalive_requests 100000000;") == 2
