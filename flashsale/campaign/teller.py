"""Who is told what a campaign is at: a terminal, a log, or nobody."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flashsale.seeding.progress import Progress, Silent
from flashsale.storm.attack.progress import ShowProgress

if TYPE_CHECKING:
    from flashsale.campaign.judging import JudgedRun
    from flashsale.campaign.storming import StormRun
    from flashsale.stack.state import StackState


class Teller:
    """Tells nobody; whoever wants to be told overrides what they want to hear of.

    Calls come in the order of the phases, from the thread that runs them.
    """

    def say(self, line: str) -> None:
        """One line worth reading."""

    @contextmanager
    def working(self, command: str) -> Iterator[Progress]:
        """`seed` or `warm` is at work for the time of the block."""
        yield Silent()

    @contextmanager
    def storming(self, units: int | None) -> Iterator[ShowProgress]:
        """A storm is under way, on `units` that it alone sells; None where that is not known."""
        yield lambda progress: None

    @contextmanager
    def waiting(self) -> Iterator[Callable[[int], None]]:
        """The judge waits for the queue; the callable is told how many orders are left."""
        yield lambda left: None

    def stormed(self, run: "StormRun") -> None:
        """A storm is over, and its files are written."""

    def judged(self, found: "JudgedRun") -> None:
        """A sale is judged, and the files of its run are written."""

    def observed(self, state: "StackState") -> None:
        """A stack with a Prometheus beside it has been stormed, and is still up."""
