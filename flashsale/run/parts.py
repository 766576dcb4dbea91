"""What summary.json tells of the target (latencies, answers to reads, how a sale went, faults) and
of the generator: what it cost, how late it was, how it was judged, and the machine that it ran on.

Each is a part of `Summary`: frozen, and nothing in it that its model does not name. The faults that
were made under a storm, and when each was over, have a file of their own: faults.json.
"""

import os
import platform
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flashsale.model import Ending, Reading
from flashsale.run.folder import RunFolder, read_file, write_file
from flashsale.run.histogram import Histogram

_PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


class Part(BaseModel):
    """What every table of a summary is. Its fields' docstrings go into the JSON Schema."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        defer_build=True,
    )


COUNT_MAX = 10**15
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
"""How many there are of something: far more than any run has, and few enough to reckon with."""

Whole = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
"""A number that is no count, such as an id: what JSON's readers and writers agree on."""


def _writable(found: list[Any]) -> list[Any]:
    try:
        orjson.dumps(found)
    except TypeError as error:  # numbers of more than 64 bits, above all
        raise ValueError(str(error)) from error
    return found


Anything = Annotated[list[Any], AfterValidator(_writable)]
"""What another part wrote, kept as it is: whatever it holds can be written again."""


class Latency(Part):
    """A distribution in ms. A percentile is null without enough samples behind it."""

    count: Count
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None = Field(validation_alias="p99.9", serialization_alias="p99.9")
    max: float | None

    @classmethod
    def of(cls, histogram: Histogram) -> Self:
        """The statistics of `histogram`."""
        some = bool(histogram.count)
        p50, p90, p95, p99, p999 = map(_ms, histogram.percentiles_us(*_PERCENTILES))
        return cls(
            count=histogram.count,
            mean=_ms(histogram.mean_us if some else None),
            max=_ms(histogram.max_us if some else None),
            p50=p50, p90=p90, p95=p95, p99=p99, p999=p999,
        )  # fmt: skip


class PersistedLatency(Latency):
    """From acceptance to row, with the offset of the two clocks that it is read from."""

    clock_offset_ms: float | None = None
    clock_error_ms: float | None = None


def _ms(value_us: float | None) -> float | None:
    return None if value_us is None else round(value_us / 1000, 3)


_FROM_CACHE = (Reading.HIT, Reading.STALE, Reading.NULL)
_PAST_CACHE = (Reading.LOAD, Reading.WAIT)


class ReadFigures(Part):
    """The reads of a run, each under one of the numbers from `hits` on."""

    hit_ratio: float | None
    """Of the answers that asked the cache, the share that it gave at once: fresh, stale or known
    to be absent. What the Bloom filter turned away never asked it. None where none did."""

    hits: Count
    stale: Count
    """Logically expired, answered at once and rebuilt behind the answer."""

    nulls: Count
    """Remembered as absent."""

    loads: Count
    """Answered from the database by the very request."""

    waits: Count
    """Answered by a load that another request had begun."""

    rejected: Count
    """Turned away by the Bloom filter: the id does not exist."""

    unmarked: Count
    """Answered without a word in `x-cache`."""

    @classmethod
    def of(cls, outcomes: Mapping[Ending, int]) -> Self | None:
        """The figures of a run with these endings, None where it had no answer to a read. Pure."""
        counts = {reading: outcomes.get(reading, 0) for reading in Reading}
        if not any(counts.values()):
            return None
        given = sum(counts[reading] for reading in _FROM_CACHE)
        asked = given + sum(counts[reading] for reading in _PAST_CACHE)
        return cls(
            hit_ratio=round(given / asked, 6) if asked else None,
            hits=counts[Reading.HIT],
            stale=counts[Reading.STALE],
            nulls=counts[Reading.NULL],
            loads=counts[Reading.LOAD],
            waits=counts[Reading.WAIT],
            rejected=counts[Reading.BLOOM],
            unmarked=counts[Reading.ANSWERED],
        )


class FairnessFigures(Part):
    """Who won, by arrival: `win_rates` of the ten tenths of the buyers in the order in which they
    came (null where nobody did), each voucher's buyers among themselves.

    `precedence` is the share of pairs of a winner and a loser in which the winner had come first:
    1 is strictly first come, first served, 0.5 a lottery. Null where nobody lost, or nobody won.
    """

    buyers: Count
    winners: Count
    win_rates: list[float | None] = Field(min_length=10, max_length=10)
    precedence: float | None


class Selling(Part):
    """How units went. Instants are ms after the barrier, null where that did not happen.

    `refused` buyers were told "sold out"; `untold` ones were told nothing final though the stock
    was gone. `left` units are not sold, `undersold` of them though buyers were refused.

    `sold_out_ms` is the last order's arrival where nothing is left, `first_told_ms` that of the
    first "sold out". `propagation_ms` is the longest that a buyer who had asked was kept waiting
    for it once the stock was gone, beside the median; `late_sold` orders arrived after the first
    "sold out" had, the latest of them by `late_by_ms`.
    """

    units: Count | None
    sold: Count
    refused: Count
    untold: Count
    left: Whole | None
    undersold: Count | None
    sold_out_ms: float | None
    first_told_ms: float | None
    propagation_ms: float | None
    propagation_p50_ms: float | None
    late_sold: Count
    late_by_ms: float | None
    fairness: FairnessFigures


class VoucherFigures(Selling):
    """One voucher of several."""

    voucher: Whole


class SaleFigures(Selling):
    """The whole sale: sums over all vouchers, and the slowest of them where a time is told.

    It is sold out when each of `vouchers` is; `sold_out_vouchers` are. `by_voucher` is empty where
    there is only one, and holds at most VOUCHERS_MAX, by ascending id.
    """

    vouchers: Count
    sold_out_vouchers: Count
    by_voucher: list[VoucherFigures] = []


class FaultRecord(Part):
    """One fault as it was made. Instants are ms after the barrier, None where they never came."""

    what: str
    whom: str
    told: str
    """What was done, in a line."""

    planned_ms: float
    done_ms: float | None = None
    healed_ms: float | None = None
    """When what it befell did its work again."""

    found: str = ""
    """What it came to, in a line."""

    gone: tuple[str, ...] = ()
    """Acknowledged orders that the ledger has forgotten and nothing brings back."""

    behind_ms: tuple[float, float] | None = None
    """From when until when the ledger was behind, and had to sell nothing."""

    trouble: str = ""
    """Why it was not made, or not healed."""

    @property
    def was_made(self) -> bool:
        """Whether it was made and healed."""
        return self.done_ms is not None and self.healed_ms is not None and not self.trouble


class FaultRecords(Part):
    """All faults of a run."""

    schema_version: Literal[1] = Field(
        default=1, validation_alias="schema", serialization_alias="schema"
    )
    faults: list[FaultRecord]


def write_faults(folder: RunFolder, records: list[FaultRecord]) -> None:
    """Write faults.json. Raises NotWrittenError."""
    document = FaultRecords(faults=records).model_dump(mode="json", by_alias=True)
    write_file(folder.faults, orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def read_faults(folder: RunFolder) -> list[FaultRecord]:
    """The faults of a run; none where it has no such file, or one that cannot be read."""
    try:
        return FaultRecords.model_validate_json(read_file(folder.faults)).faults
    except (OSError, ValueError):
        return []


# The generator -----------------------------------------------------------------------------------

_CPUINFO = Path("/proc/cpuinfo")


class Health(StrEnum):
    """Whether the generator did what the plan said, and had the room to."""

    VALID = "valid"
    SUSPECT = "suspect"
    INVALID = "invalid"


class CalibrationFigures(Part):
    """What the generator could send, measured before the run against a null responder.

    `headroom` is capacity for the plan's peak, null for a plan without a rate of its own;
    `burst_ms` is how long sending and reading takes that leaves at once.
    """

    requests: Count
    took_ms: float
    us_per_request: float
    capacity_per_s: float
    peak_per_s: float | None
    headroom: float | None
    burst_ms: float | None


class SampleFigures(Part):
    """A tenth of a second of the generator, or more of a long run."""

    at_ms: float
    cpu_share: float
    waited_share: float
    loop_lag_ms: float
    in_flight: Count


class WorkerFigures(Part):
    """How one of several processes did that fired the plan."""

    name: str
    connections: Count
    planned: Count
    sent: Count
    cpu_us_per_request: float | None
    cpu_share: float
    start_lag_ms: Latency
    loop_lag_ms: Latency
    connect_ms: Latency
    samples: list[SampleFigures] = []


class GeneratorFigures(Part):
    """How the storm itself did: in all, and each of its `workers` where there were several.

    `complaints` make a run invalid, `doubts` make it suspect.
    """

    verdict: Health
    complaints: list[str]
    doubts: list[str] = []
    cpu_us_per_request: float | None
    cpu_share: float
    start_lag_ms: Latency
    loop_lag_ms: Latency
    connect_ms: Latency
    descriptors_limit: Count
    calibration: CalibrationFigures | None = None
    workers: list[WorkerFigures] = []
    samples: list[SampleFigures] = []


class Machine(Part):
    """What a load test's figures depend on, apart from its target."""

    system: str
    processor: str
    cpus: Count
    """Those that this process may run on."""

    python: str

    @classmethod
    def here(cls) -> Self:
        """The machine that this process runs on."""
        return cls(
            system=f"{platform.system()} {platform.release()}",
            processor=_processor() or platform.processor() or platform.machine(),
            cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cpus(),
            python=platform.python_version(),
        )

    def differences(self, other: "Machine") -> list[str]:
        """How `other` differs, a word or two each. Pure."""
        theirs = other.model_dump()
        return [
            f"{name} {value!r}, was {theirs[name]!r}"
            for name, value in self.model_dump().items()
            if value != theirs[name]
        ]


def _cpus() -> int:
    return os.cpu_count() or 1


def _processor() -> str:
    """The processor's own name; Python knows only the architecture on Linux."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")
