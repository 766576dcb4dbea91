"""Where an attack leaves its traces."""

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from flashsale.model import Ending
from flashsale.run.attempts import Attempts
from flashsale.storm.attack.selfwatch import SelfWatch


class Chronicle(Protocol):
    """Who writes down what has happened, a few times a second."""

    @property
    def outcomes(self) -> Counter[Ending]:
        """How many attempts have ended how, as far as it was written."""

    def write_barrier(self, unix_us: int) -> None:
        """The barrier opens."""

    def write_results(self, ledger: Attempts) -> None:
        """Write every outcome that has come since the last time."""


@dataclass(frozen=True)
class Records:
    """Where an attack leaves its traces."""

    ledger: Attempts
    attempts: Chronicle
    watch: SelfWatch
