"""What the processes of a crew tell each other becomes one record, in one order."""

import asyncio
import pickle
import socket
from array import array
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.model import Outcome
from flashsale.run.attempts import NEVER, Attempts
from flashsale.run.histogram import Histogram, merged
from flashsale.scenario.answer import Answer, indeterminate
from flashsale.storm.crew.crew import connections_each
from flashsale.storm.crew.messages import EventOrder, OutcomeColumns, Pipe, outcomes_since
from flashsale.storm.figures.generator import Effort, ProcessEffort, Sample, SelfReport, together

ANSWERS = [
    Answer(Outcome.SOLD, 200, "515385561440059393"),
    Answer(Outcome.SOLD_OUT, 200),
    indeterminate("reset"),
    Answer(Outcome.UNKNOWN, 200, None, "message", "库存 \\x1b"),
]


def record_of(instants: Sequence[int], waits: bool = False) -> Attempts:
    """One worker's: its attempts were answered at these instants, one after another."""
    record = Attempts(len(instants))
    if waits:
        record.free_ns = array("q", [NEVER]) * len(instants)
    for i, instant in enumerate(instants):
        record.due_ns[i], record.sent_ns[i] = instant - 9, instant - 8
        if waits and i % 2:
            record.free_ns[i] = instant - 9
        record.settle(i, instant, ANSWERS[(instant + i) % len(ANSWERS)])
    return record


@st.composite
def told(draw: st.DrawFn) -> tuple[list[Attempts], list[tuple[int, OutcomeColumns]]]:
    """Workers' records, and their outcomes in an order in which they may well arrive."""
    instants = st.lists(st.integers(10, 400), max_size=25).map(sorted)
    records = [
        record_of(each, draw(st.booleans()))
        for each in draw(st.lists(instants, min_size=1, max_size=4))
    ]
    queues: list[list[tuple[int, OutcomeColumns]]] = []
    for worker, record in enumerate(records):
        numbers = range(worker, 10_000, len(records))
        cuts = sorted(draw(st.sets(st.integers(0, len(record.arrivals)), max_size=4)))
        queue, since = [], 0
        for cut in [*cuts, len(record.arrivals)]:
            part = record_of([record.done_ns[i] for i in range(cut)], bool(record.free_ns))
            until = record.done_ns[cut - 1] if cut else 0
            queue.append((worker, outcomes_since(part, since, numbers, until)))
            since = cut
        queues.append(queue)
    arrived = []
    while any(queues):
        arrived.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    return records, arrived


@given(told())
def test_all_that_is_told_becomes_one_order_of_events(
    story: tuple[list[Attempts], list[tuple[int, OutcomeColumns]]],
) -> None:
    records, arrived = story
    count = len(records)
    whole = Attempts(count * max(len(record.answers) for record in records))
    order = EventOrder(whole, count)
    until = [0] * count
    for worker, each in arrived:
        order.take(worker, pickle.loads(pickle.dumps(each)))  # noqa: S301 - our own
        until[worker] = each.until_ns
        assert all(whole.done_ns[i] <= min(until) for i in whole.arrivals)
    for worker in range(count):
        order.end(worker)
    instants = [whole.done_ns[i] for i in whole.arrivals]
    assert instants == sorted(instants)
    assert sorted(whole.arrivals) == sorted(
        i * count + worker
        for worker, record in enumerate(records)
        for i in range(len(record.answers))
    )
    for worker, record in enumerate(records):
        for i, answer in record.settled():
            there = i * count + worker
            assert whole.answers[there] == answer
            for name in ("due_ns", "sent_ns", "done_ns", "free_ns"):
                column, mine = getattr(whole, name), getattr(record, name)
                if mine:
                    assert column[there] == mine[i]


def test_an_early_outcome_is_waited_for() -> None:
    whole = Attempts(4)
    order = EventOrder(whole, 2)
    order.take(0, outcomes_since(record_of([50, 90]), 0, [0, 2], until_ns=80))
    assert whole.arrivals == []  # the other may yet tell of an instant before 50
    order.take(1, outcomes_since(record_of([20, 60]), 0, [1, 3], until_ns=55))
    assert whole.arrivals == [1, 0]
    order.end(1)
    assert whole.arrivals == [1, 0, 3]
    order.end(0)
    assert whole.arrivals == [1, 0, 3, 2]


def test_what_a_dead_worker_did_not_tell_is_supposed_once() -> None:
    whole = Attempts(4)
    order = EventOrder(whole, 2)
    order.take(0, outcomes_since(record_of([50]), 0, [0, 2], until_ns=10))
    order.take(1, outcomes_since(record_of([60]), 0, [1, 3], until_ns=10))
    assert order.untold([0, 2]) == [2]  # 0 is told, though it has no place yet
    order.suppose(2, 70, indeterminate("worker"))
    order.end(0)
    order.end(1)
    assert whole.arrivals == [0, 1, 2]
    assert whole.answers[2] == indeterminate("worker")
    assert order.untold(range(4)) == [3]


LATENCIES = st.lists(st.integers(0, 10_000_000), max_size=300)


@given(LATENCIES, LATENCIES)
def test_merged_percentiles_are_those_of_one_histogram_fed_with_both(
    mine: list[int], yours: list[int]
) -> None:
    both = merged([Histogram(mine), Histogram(yours)])
    one = Histogram(mine + yours)
    points = (0.0, 50.0, 90.0, 95.0, 99.0, 99.9)
    assert both.percentiles_us(*points) == one.percentiles_us(*points)
    assert (both.count, both.max_us, both.mean_us) == (one.count, one.max_us, one.mean_us)
    assert both.hgrm() == one.hgrm()
    assert both.encoded() == one.encoded()


def share(name: str, cpu_ns: int, wall_ns: int, lags: list[int]) -> ProcessEffort:
    watch = SelfReport(cpu_ns, wall_ns, Histogram(lags), 1024, (Sample(100.0, 0.5, 0.1, 2.5, 7),))
    return ProcessEffort(name, 1, 1, 1, watch, Histogram([1]), Histogram(lags))


def test_efforts_add_up_and_last_as_long_as_the_slowest() -> None:
    own = SelfReport(5, 900, Histogram([7_000]), 4096)
    effort = together(own, [share("a", 10, 100, [1, 2]), share("b", 20, 200, [3])], ["c died"])
    assert (effort.watch.cpu_ns, effort.watch.wall_ns) == (35, 200)
    assert effort.watch.descriptors_limit == 1024
    assert effort.watch.loop_lag.hgrm() == effort.connect.hgrm() == Histogram([1, 2, 3]).hgrm()
    assert [each.name for each in effort.processes] == ["a", "b"]
    assert effort.losses == ("c died",)


def test_without_a_worker_that_lives_there_is_still_an_effort() -> None:
    effort = together(SelfReport(5, 900, Histogram(), 4096), [], ["both died"])
    assert (effort.watch.cpu_ns, effort.watch.wall_ns, effort.connect.count) == (5, 900, 0)


@pytest.mark.parametrize(("workers", "each"), [(1, 10), (3, 4), (10, 1)])
def test_the_busiest_worker_decides_on_descriptors(workers: int, each: int) -> None:
    assert connections_each(10, workers) == each


@pytest.mark.anyio
async def test_messages_arrive_whole_however_they_are_cut() -> None:
    ours, theirs = socket.socketpair()
    heard: list[object] = []
    lost = asyncio.Event()
    loop = asyncio.get_running_loop()
    channel = Pipe(heard.append, lost.set)
    await loop.create_unix_connection(lambda: channel, sock=ours)
    messages: list[object] = ["x" * 300_000, {"a": 1}, None]
    with theirs:
        theirs.setblocking(False)
        for message in messages:
            data = pickle.dumps(message)
            framed = len(data).to_bytes(8, "big") + data
            for start in range(0, len(framed), 50_001):
                await loop.sock_sendall(theirs, framed[start : start + 50_001])
                await asyncio.sleep(0)
    with anyio.fail_after(10):
        await lost.wait()
    assert heard == messages


@given(LATENCIES, LATENCIES)
def test_an_effort_is_written_and_read_back_exactly(mine: list[int], yours: list[int]) -> None:
    own = SelfReport(5, 900, Histogram(mine), 4096)
    effort = together(own, [share("a", 10, 100, mine), share("b", 20, 200, yours)], ["c died"])
    again = Effort.of_json(effort.to_json())
    assert again.to_json() == effort.to_json()
    assert again.watch.samples == effort.watch.samples != ()
    assert again.connect.hgrm() == effort.connect.hgrm()
    assert again.processes[1].watch.loop_lag.max_us == max(yours, default=0)


@pytest.mark.parametrize(
    "document",
    [{}, [], {"max_us": 3}, {"max_us": 9, "buckets": [[2049, 1]]}, {"max_us": 1, "buckets": [[1]]}],
)
def test_what_is_no_histogram_is_refused(document: object) -> None:
    with pytest.raises(ValueError):
        Histogram.of_document(document)
