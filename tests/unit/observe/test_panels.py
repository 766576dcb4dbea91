"""Asking panels' queries: Grafana's variables, Prometheus' durations, what counts as a sample."""

import math

import pytest
from rig.documents import ROOT
from rig.hostile_server import answering, http

from flashsale.errors import UnreachableError
from flashsale.observe.panels import _filled, _seconds, fill, prometheus_url, queries, substituted
from flashsale.stack.state import StackState

QUERY = queries()[0]


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("5s", 5), ("500ms", 0.5), ("1m", 60), ("1m30s", 90), ("1h", 3600), ("1s500ms", 1.5)],
)
def test_durations(told: str, seconds: float) -> None:
    assert math.isclose(_seconds(told), seconds)


def test_variables_are_filled_in() -> None:
    expr = 'rate(x{instance=~"$instance"}[$__rate_interval])'
    assert substituted(expr, 2) == 'rate(x{instance=~".*"}[2000ms])'
    left = [query for query in queries() if "$" in substituted(query.expr, 5)]
    assert not left


def test_the_page_counts_what_there_is() -> None:
    asked = queries()
    boards, shown = {q.dashboard for q in asked}, {(q.dashboard, q.panel) for q in asked}
    counted = f"{len(boards)} dashboards, {len(shown)} panels, {len(asked)} queries"
    assert counted in (ROOT / "docs/observe.md").read_text()


def test_a_value_that_is_no_number_is_no_sample() -> None:
    found = [
        {"values": [[1, "NaN"], [2, "3"], [3, "0"]]},
        {"values": [[1, "NaN"]]},
        {"values": []},
    ]
    filled = _filled(QUERY, found)
    assert (filled.series, filled.samples, filled.highest) == (1, 2, 3.0)
    assert _filled(QUERY, []).highest is None


def test_a_stack_that_nobody_observes() -> None:
    state = StackState(1, 1, "", True, "", "", "", "", ())
    with pytest.raises(UnreachableError, match="serve --observe"):
        prometheus_url(state)


def test_nobody_answers() -> None:
    with pytest.raises(UnreachableError, match="no Prometheus answers"):
        fill("http://127.0.0.1:1", [QUERY], 60)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"not JSON",
        b"[" * 30_000,
        b'{"status":"success","data":%s}' % (b"[" * 900 + b"]" * 900),
        b'{"status":"error","error":%s}' % (b"[" * 900 + b"]" * 900),
        b'{"status":"success","data":{"activeTargets":[{"scrapeInterval":5}]}}',
        b'{"status":"success","data":{"activeTargets":[{"scrapeInterval":"5 parsecs"}]}}',
        b'{"status":"success","data":{"activeTargets":[{"scrapeInterval":"%bs"}]}}' % (b"9" * 400),
        b'{"status":"success","data":{"activeTargets":[],"result":[{"values":[["x","y"]]}]}}',
    ],
)
def test_what_is_no_prometheus_is_told_in_one_line(body: bytes) -> None:
    with answering(http("200 OK", body)) as url, pytest.raises(UnreachableError) as raised:
        fill(url, [QUERY], 60)
    assert len(str(raised.value).splitlines()) == 1


def test_a_prometheus_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashsale.observe.panels._TIMEOUT_S", 0.3)
    with (
        answering(b"HTTP/1.1 200 OK\r\n", b"x", pause_s=0.05) as url,
        pytest.raises(UnreachableError, match=r"no whole answer within 0\.3 s"),
    ):
        fill(url, [QUERY], 60)
