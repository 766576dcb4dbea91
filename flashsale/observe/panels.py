"""The panels of the dashboards that ship, asked of a Prometheus as Grafana would ask it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from flashsale.asking import UnansweredError, ask_once
from flashsale.errors import UnreachableError
from flashsale.files import resource
from flashsale.scenario.answer import excerpt, plain_text
from flashsale.stack.state import StackState

_TIMEOUT_S = 20.0
_BYTES_MAX = 64 * 1_048_576
_POINTS_MAX = 5_000
_RATE_SCRAPES = 4  # Grafana's own: a rate looks at four scrapes …
_PROVISIONED_S = 5.0  # … of this interval at least, as its data source is provisioned


@dataclass(frozen=True)
class PanelQuery:
    """One query of one panel."""

    dashboard: str
    panel: str
    legend: str
    expr: str


@dataclass(frozen=True)
class Filled:
    """What a query found: series, and samples that are numbers."""

    query: PanelQuery
    series: int
    samples: int
    highest: float | None  # of the samples; None where there is none


def queries() -> list[PanelQuery]:
    """Every query of every panel, in the dashboards' order of names."""
    found = []
    for path in sorted(resource("deploy/grafana/dashboards").glob("*.json")):
        board = orjson.loads(path.read_bytes())
        for panel in board["panels"]:
            found += [
                PanelQuery(path.stem, panel["title"], target["legendFormat"], target["expr"])
                for target in panel.get("targets", ())
            ]
    return found


def prometheus_url(state: StackState) -> str:
    """Where the Prometheus of a stack is. Raises UnreachableError where it is not observed."""
    for child in state.children:
        if child.kind == "prometheus" and child.url:
            return child.url
    raise UnreachableError(
        "this stack is not observed; start it with `flashsale serve --observe`, "
        "or give --prometheus-url"
    )


def substituted(expr: str, rate_s: float) -> str:
    """The expression with Grafana's variables filled in: all instances, that much time. Pure."""
    rate_interval = f"{round(rate_s * 1000)}ms"
    return expr.replace("$__rate_interval", rate_interval).replace("$instance", ".*")


def fill(url: str, wanted: Sequence[PanelQuery], window_s: float) -> list[Filled]:
    """What each query finds in the last `window_s`. Raises UnreachableError."""
    end_s, prometheus = time.time(), _Prometheus(url)
    try:
        interval_s = prometheus.interval_s()
        step_s = max(interval_s, window_s / _POINTS_MAX)
        rate_s = _RATE_SCRAPES * max(interval_s, _PROVISIONED_S)
        return [
            _filled(
                query,
                prometheus.range(substituted(query.expr, rate_s), end_s - window_s, end_s, step_s),
            )
            for query in wanted
        ]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UnreachableError(
            f"{url} answers, but not as a Prometheus does; check --prometheus-url"
        ) from error


def _filled(query: PanelQuery, found: Sequence[Mapping[str, Any]]) -> Filled:
    lines = [[float(v) for _, v in series["values"] if v != "NaN"] for series in found]
    samples = [value for line in lines for value in line]
    return Filled(query, sum(map(bool, lines)), len(samples), max(samples, default=None))


class _Prometheus:
    """Its HTTP API, as far as this goes."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def __repr__(self) -> str:
        return f"<_Prometheus {self._url}>"

    def interval_s(self) -> float:
        """How often it scrapes the replicas."""
        targets = self._get("targets", state="active")["activeTargets"]
        every = [target["scrapeInterval"] for target in targets] or ["5s"]
        return min(map(_seconds, every))

    def range(self, expr: str, start_s: float, end_s: float, step_s: float) -> Any:
        """The series that `expr` gives in a stretch of time."""
        return self._get(
            "query_range", query=expr, start=f"{start_s}", end=f"{end_s}", step=f"{step_s}"
        )["result"]

    def _get(self, path: str, **parameters: str) -> Any:
        try:
            answer = ask_once(
                f"{self._url}/api/v1/{path}",
                total_s=_TIMEOUT_S,
                bytes_max=_BYTES_MAX,
                parameters=parameters,
            )
        except UnansweredError as error:
            raise UnreachableError(
                f"no Prometheus answers at {self._url} ({error}); see `flashsale status`"
            ) from None
        told = answer.json()
        if told["status"] != "success":
            why = excerpt(plain_text(told["error"]) or answer.body)
            raise UnreachableError(f"Prometheus refused {parameters}: {why}")
        return told["data"]


_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(duration: str) -> float:
    """Prometheus' way to write durations: `5s`, `1m30s`, `500ms`."""
    return sum(_parts(duration))


def _parts(duration: str) -> Iterator[float]:
    number = unit = ""
    for sign in f"{duration}0":
        if sign.isdigit() and unit:
            yield float(number) * _UNITS_S[unit]
            number = unit = ""
        if sign.isdigit():
            number += sign
        else:
            unit += sign
