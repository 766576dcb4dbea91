"""What the processes of a crew tell each other. To a worker, its `Mission` comes first."""

from dataclasses import dataclass

from flashsale.errors import FlashsaleError
from flashsale.storm.crew.haul import Haul
from flashsale.storm.health.effort import Share


@dataclass(frozen=True)
class Go:
    """To a worker: the barrier opens at this instant of the clock that all processes share."""

    at_ns: int


@dataclass(frozen=True)
class Stop:
    """To a worker: send nothing more. Told twice, do not wait for answers either."""

    reason: str


@dataclass(frozen=True)
class Standing:
    """From a worker: every connection is up."""


@dataclass(frozen=True)
class Told:
    """From a worker: new outcomes, and how many attempts wait for an answer."""

    haul: Haul
    in_flight: int


@dataclass(frozen=True)
class Trouble:
    """From a worker: it cannot go on, for a reason that the user can cure, or by a defect."""

    error: FlashsaleError | None
    trace: str = ""


@dataclass(frozen=True)
class Done:
    """From a worker: every attempt of its part has an outcome; how it did."""

    share: Share
