"""What ends a storm before its plan does: a signal, a condition of the user's, its own deadlines.

A condition is that of `--abort-if 'buy.indeterminate.share>20%'`: a metric like those of
thresholds, but of the attempts that have ended so far, and it is to become true, where a threshold
has to hold. It is judged a few times a second beside the storm, and once more on all of it when it
is over; without a condition there is nothing to count.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import current_thread, main_thread
from types import FrameType

from flashsale.errors import ExitCode
from flashsale.model import Verdict
from flashsale.run.attempts import Attempts
from flashsale.scenario.scenario import Timeouts
from flashsale.scenario.thresholds import DATABASE, Threshold, parse_expression
from flashsale.storm.figures.figures import RunningFigures
from flashsale.storm.figures.judging import Judgement, judge

INTERRUPT_GRACE_S = 1.0
"""What answers that are out get when the attack is told to stop."""

LOOK_S = 0.25
SETTLING_S = 1.0
"""A rate is not judged before: nothing has been answered when the barrier opens."""

ENDED_MIN, ENDED_SHARE_MIN = 100, 0.1
"""So many attempts, or such a share of a small plan, have to have ended before shares and latencies
are judged: the first answers of a storm are no sample of it."""

_EXIT_CODES = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGHUP: ExitCode.TERMINATED,  # the terminal is gone, and the verdict is for the files
}
_MS = 1_000_000


class Deadlines:
    """When an attack gives up on what is out: told to stop, at the end of the run or of the drain.
    Pure: instants are handed in."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._run_ns, self._drain_ns = timeouts.run_ms * _MS, timeouts.drain_ms * _MS
        self._origin_ns = 0
        self._drained_ns: int | None = None
        self._stopped_ns: int | None = None  # when the grace ends
        self._reason = ""

    def __repr__(self) -> str:
        return f"<Deadlines {self._reason or 'running'}>"

    @property
    def stopped(self) -> bool:
        """Whether the attack was told to stop."""
        return self._stopped_ns is not None

    def start(self, origin_ns: int) -> None:
        """The barrier opens at `origin_ns`."""
        self._origin_ns = origin_ns

    def stop(self, now_ns: int, reason: str) -> bool:
        """Told to stop: what is out gets a moment; told twice, none. True for the first time."""
        is_first, self._reason = not self.stopped, reason
        self._stopped_ns = now_ns + round(INTERRUPT_GRACE_S * 1e9) if is_first else now_ns
        return is_first

    def passed(self, now_ns: int, all_sent: bool) -> str | None:
        """Why to give up now, None where there is time left; `all_sent` begins the drain."""
        if self._stopped_ns is not None:
            return self._reason if now_ns >= self._stopped_ns else None
        if now_ns >= self._origin_ns + self._run_ns:
            return "deadline"
        if all_sent:
            self._drained_ns = self._drained_ns or now_ns + self._drain_ns
            return "deadline" if now_ns >= self._drained_ns else None
        return None


class Interrupts:
    """The first signal that came, and what to call for each."""

    def __init__(self) -> None:
        self.exit_code: ExitCode | None = None
        self._stop: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<Interrupts {self.exit_code!r}>"

    @contextmanager
    def told(self, stop: Callable[[], object]) -> Iterator[None]:
        """Call `stop` for every signal while this lasts; at once if one has already come."""
        self._stop = stop
        if self.exit_code is not None:
            stop()
        try:
            yield
        finally:
            self._stop = None

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.exit_code is None:
            self.exit_code = _EXIT_CODES[signal.Signals(number)]
        if self._stop is not None:
            self._stop()


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Take the signals that end a storm for as long as this lasts, so that no file is left half
    written; SIGHUP not where it is ignored, as under nohup.

    Outside the main thread Python hands out no signals, and none are taken.
    """
    taken = Interrupts()
    if current_thread() is not main_thread():
        yield taken
        return
    is_left_alone = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    heard = _EXIT_CODES.keys() - ({signal.SIGHUP} if is_left_alone else set())
    before = {number: signal.signal(number, taken._take) for number in heard}
    try:
        yield taken
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Ignore them for the rest of the process, which is short: the work is done."""
    for number in _EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)


def parse_abort(text: str, where: str) -> Threshold:
    """The condition written as `metric condition`. Raises ValueError with one line."""
    condition = parse_expression(text, where)
    if condition.metric.clock == DATABASE or condition.stage:
        raise ValueError(f"{where}: {condition.name!r} is known only when the storm is over")
    if condition.metric.kind == "count" and condition.comparison not in (">", ">="):
        raise ValueError(
            f"{where}: a count is too small when a storm begins: found {text!r}, expected > or >="
        )
    return condition


class AbortWatch:
    """Looks whether some of its conditions have become true. `judgements` says what became of each:
    FAIL for those that ended the storm, or that were true when it was over."""

    def __init__(
        self, conditions: Sequence[Threshold], attempts: Attempts, asks: Sequence[int]
    ) -> None:
        self._conditions = conditions
        metrics = [condition.metric for condition in conditions]
        self._figures = RunningFigures(attempts, asks, metrics)
        self._next_s = 0.0
        self._ended_min = max(1, min(ENDED_MIN, round(ENDED_SHARE_MIN * len(attempts.answers))))
        self.met: dict[int, Judgement] = {}

    def __repr__(self) -> str:
        return f"<AbortWatch {len(self._conditions)} conditions met={[*self.met.values()]}>"

    def look(self, elapsed_s: float) -> bool:
        """Whether the storm is to end now; True at most once."""
        if not self._conditions or self.met:
            return False
        self._figures.take_new(elapsed_s)  # every time: less at once keeps nobody waiting
        if elapsed_s < self._next_s:
            return False
        self._next_s = elapsed_s + LOOK_S
        ended = f"{self._figures.planned:,} attempts had ended after {elapsed_s:.1f} s"
        for number, condition in enumerate(self._conditions):
            if self._can_be_told(condition):
                self._judge(number, f"when {ended}")
        return bool(self.met)

    def end(self, elapsed_s: float) -> None:
        """The storm has ended by itself after so long: judge the whole of it, however short."""
        if not self._conditions or self.met:
            return
        self._figures.take_new(elapsed_s)
        for number in range(len(self._conditions)):
            self._judge(number, "when the storm was over", at_end=True)

    @property
    def judgements(self) -> list[Judgement]:
        """One for each condition."""
        early = any(not judgement.at_end for judgement in self.met.values())
        untrue = "was not true when another ended the storm" if early else "did not become true"
        return [
            self.met.get(number) or Judgement(condition, Verdict.PASS, None, untrue)
            for number, condition in enumerate(self._conditions)
        ]

    def _judge(self, number: int, when: str, at_end: bool = False) -> None:
        found = judge(self._conditions[number], self._figures)
        if found.verdict is Verdict.PASS:
            detail = f"{found.detail} {when}"
            self.met[number] = replace(found, verdict=Verdict.FAIL, detail=detail, at_end=at_end)

    def _can_be_told(self, condition: Threshold) -> bool:
        match condition.metric.kind:
            case "count":
                return True
            case "rate":
                return self._figures.elapsed_s >= SETTLING_S
            case _:
                endpoint = condition.metric.endpoint
                part = self._figures.of(endpoint) if endpoint else self._figures
                return part.planned >= self._ended_min
