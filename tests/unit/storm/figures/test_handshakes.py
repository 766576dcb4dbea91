import pytest

from flashsale.run.histogram import Histogram
from flashsale.storm.figures.conclusion import listen_queue_hint, retried


def connects(*times_ms: float) -> Histogram:
    return Histogram(int(time * 1000) for time in times_ms)


def test_handshakes_that_were_sent_again_stand_in_clusters() -> None:
    found = retried(connects(0.2, 3, 1001, 1020, 1249, 3005, 7010))
    assert found == {1: 3, 3: 1, 7: 1}


def test_a_kernel_that_tries_every_second_is_known_too() -> None:
    assert retried(connects(1002, 2003, 4004, 5001)) == {1: 1, 2: 1, 4: 1, 5: 1}


@pytest.mark.parametrize("time_ms", [0.1, 400, 998, 1260, 1700, 2900, 6050])
def test_a_slow_handshake_is_no_retry(time_ms: float) -> None:
    assert retried(connects(*[time_ms] * 50)) == {}
    assert listen_queue_hint(connects(*[time_ms] * 50)) is None


def test_the_hint_names_the_trouble_and_its_cure() -> None:
    hint = listen_queue_hint(connects(*[1] * 95, *[1005] * 3, *[3010] * 2))
    assert hint is not None
    assert "of 100 connections 3 took about 1 s, 2 took about 3 s" in hint
    assert hint.startswith("listen queue: ")
    assert "backlog and net.core.somaxconn" in hint


def test_no_connections_are_no_trouble() -> None:
    assert listen_queue_hint(Histogram()) is None
