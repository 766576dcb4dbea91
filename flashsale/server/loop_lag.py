"""How late the event loop runs what is due: the wait that every request of this process shares."""

import asyncio
from collections.abc import Iterator
from typing import NoReturn

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from flashsale.buckets import LATENCY_S, Buckets

_INTERVAL_S = 0.1


class LoopLag(Collector):
    """Sleeps ten times a second and notes how late it wakes up."""

    def __init__(self) -> None:
        self.lags_s = Buckets(LATENCY_S)

    def __repr__(self) -> str:
        return f"<LoopLag {self.lags_s!r}>"

    async def keep(self) -> NoReturn:
        """Measure for as long as the process lives."""
        now_s = asyncio.get_running_loop().time
        while True:
            due_s = now_s() + _INTERVAL_S
            await asyncio.sleep(_INTERVAL_S)
            self.lags_s.add(max(0.0, now_s() - due_s))

    def collect(self) -> Iterator[Metric]:
        yield HistogramMetricFamily(
            "flashsale_event_loop_lag_seconds",
            "How late a timer of the event loop ran, ten times a second.",
            buckets=self.lags_s.cumulative(),
            sum_value=self.lags_s.sum,
        )
