"""The generator's own figures in summary.json: what it cost, how late it was, how it was judged."""

from flashsale.storm.figures.latency import Latency
from flashsale.storm.figures.part import Part
from flashsale.storm.health.health import Health


class CalibrationFigures(Part):
    """What the generator could send, measured before the run against a null responder.

    `headroom` is capacity for the plan's peak, null for a plan without a rate of its own;
    `burst_ms` is how long sending and reading takes that leaves at once.
    """

    requests: int
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
    in_flight: int


class WorkerFigures(Part):
    """How one of several processes did that fired the plan."""

    name: str
    connections: int
    planned: int
    sent: int
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
    descriptors_limit: int
    calibration: CalibrationFigures | None = None
    workers: list[WorkerFigures] = []
    samples: list[SampleFigures] = []
