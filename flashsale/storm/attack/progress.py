"""How far a storm has come, for whoever shows it live."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flashsale.model import Ending


@dataclass(frozen=True)
class Progress:
    """One look at a storm that is under way."""

    elapsed_s: float
    planned: int
    settled: int
    in_flight: int
    outcomes: Mapping[Ending, int]


ShowProgress = Callable[[Progress], None]
"""Called a few times a second from the storm's own loop: it has to be quick."""
