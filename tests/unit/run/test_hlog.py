"""A run's .hlog and .hgrm as HdrHistogram's own reader finds them, endpoint by endpoint."""

from collections import defaultdict
from pathlib import Path

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from flashsale.model import Outcome, Reading
from flashsale.run.attempts import Attempts
from flashsale.run.histogram import DIGITS, HIGHEST_US
from flashsale.scenario.answer import Answer, indeterminate
from flashsale.scenario.load import Step
from flashsale.storm.figures.figures import Figures

MS = 1_000_000
SOLD, HIT, LATE = Answer(Outcome.SOLD, 200, "1"), Answer(Reading.HIT, 200), indeterminate("timeout")


def run(attempts: int) -> Figures:
    """Claims and reads in turn over three seconds, some of them given up on."""
    record = Attempts(attempts)
    record.origin_ns, record.barrier_unix_us = 5, 1_700_000_000_000_000
    asks = [Step.BROWSE if i % 2 else Step.BUY for i in range(attempts)]
    for i in range(attempts):
        due = 5 + i * 3_000 * MS // attempts
        record.due_ns[i], record.sent_ns[i] = due, due + MS
        answer = LATE if i % 100 == 0 else HIT if i % 2 else SOLD
        record.settle(i, due + (2 + i % 97) * MS, answer)
    return Figures(record, asks)


def added_up(path: Path) -> dict[str, HdrHistogram]:
    """The intervals of each tag in one histogram."""
    found: dict[str, HdrHistogram] = defaultdict(lambda: HdrHistogram(1, HIGHEST_US, DIGITS))
    reader = HistogramLogReader(str(path), HdrHistogram(1, HIGHEST_US, DIGITS))
    while (interval := reader.get_next_interval_histogram()) is not None:
        found[interval.get_tag()].add(interval)
    reader.close()
    return dict(found)


def test_the_log_of_a_run_adds_up_to_its_figures(tmp_path: Path) -> None:
    figures = run(3_000)
    path = tmp_path / "latency.hlog"
    path.write_text(figures.hlog())
    found = added_up(path)
    assert set(found) == {
        f"{what}.{clock}"
        for what in ("buy.sold", "buy.censored", "browse.hit")
        for clock in ("response", "service")
    }
    for endpoint, outcome in (("buy", Outcome.SOLD), ("browse", Reading.HIT)):
        for clock in ("response", "service"):
            theirs = found[f"{endpoint}.{outcome}.{clock}"]
            ours = figures.of(endpoint).latency(clock, outcome)
            assert theirs.get_total_count() == ours.count
            same = HdrHistogram.decode(ours.encoded().encode())
            for percentile in (0.0, 50.0, 90.0, 99.0, 99.9, 100.0):
                value = theirs.get_value_at_percentile(percentile)
                assert value == same.get_value_at_percentile(percentile)
    whole = HdrHistogram(1, HIGHEST_US, DIGITS)
    for tag, histogram in found.items():
        if tag.endswith(".response"):
            whole.add(histogram)
    assert whole.get_total_count() == figures.latency("response").count == 3_000
    last = [line for line in figures.latency("response").hgrm().splitlines() if "1.00000" in line]
    assert float(last[0].split()[0]) * 1000 == figures.latency("response").max_us
