"""What a campaign has come to, and who is told: a terminal, a log, or nobody."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flashsale.errors import ExitCode
from flashsale.model import Verdict
from flashsale.run.folder import RunFolder
from flashsale.run.summary import Summary
from flashsale.seeding.settings import Silent, StageProgress
from flashsale.stack.state import StackState
from flashsale.storm.attack.attack import ShowProgress
from flashsale.verify.finding import Judgement


@dataclass(frozen=True)
class StormRun:
    """A storm that is over, and where its files are."""

    summary: Summary
    folder: RunFolder


@dataclass(frozen=True)
class JudgedRun:
    """A run with its judgement. `summary` is None where the storm left none that can be read."""

    folder: RunFolder
    judgement: Judgement
    summary: Summary | None

    @property
    def verdict(self) -> Verdict:
        """Of the whole run, for which its own failings count beside the judgement."""
        return self.summary.verdict if self.summary else self.judgement.verdict

    @property
    def exit_code(self) -> ExitCode:
        """What the process that judged is to exit with."""
        return ExitCode(self.summary.exit_code) if self.summary else self.judgement.exit_code


class Teller:
    """Tells nobody; whoever wants to be told overrides what they want to hear of.

    Calls come in the order of the phases, from the thread that runs them.
    """

    def say(self, line: str) -> None:
        """One line worth reading."""

    @contextmanager
    def working(self, command: str) -> Iterator[StageProgress]:
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

    def stormed(self, run: StormRun) -> None:
        """A storm is over, and its files are written."""

    def judged(self, found: JudgedRun) -> None:
        """A sale is judged, and the files of its run are written."""

    def observed(self, state: StackState) -> None:
        """A stack with a Prometheus beside it has been stormed, and is still up."""


SILENT = Teller()
"""Nobody is told."""
