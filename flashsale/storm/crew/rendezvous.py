"""A rendezvous of shards: who is here, what follows from it, and when the barrier opens.

Shards come, each with a ticket of its own, make ready and report a few times a second. When all are
ready they are told one instant. A shard that does not come, comes twice, brings another plan, falls
silent or does not end is named, and the others are told to stop: a run that cannot count is not
worth another claim. Pure: instants are handed in.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from flashsale.model import Ending
from flashsale.run.attempts import ClockReading
from flashsale.storm.attack.attack import Progress
from flashsale.storm.attack.instants import Hold
from flashsale.storm.crew.shard import Shard

USERS_FILE = "users.csv"
"""What the file of the users' sessions is called on its way to a shard."""


class Rendezvous(Protocol):
    """What a storm knows of the rendezvous that it is a shard of."""

    name: str
    clock: ClockReading | None
    """This machine's beside that of the rendezvous; known when the instant is."""
    interrupted: bool
    """Set by the storm when a signal ends it."""

    async def instant(self, hold: Hold) -> int:
        """The instant at which all begin, on the monotonic clock. Raises UnreachableError where
        there will be none."""

    def look(self, progress: Progress) -> bool:
        """Take how far the storm is; whether it is to stop."""


@dataclass(frozen=True)
class MeetingLimits:
    """How long a meeting waits, in ns: for all to be ready, for a word of each, from the barrier to
    the end, and from the word to stop to the end. `lead_us` is from the last that is ready to the
    barrier: all have heard of it by then, and have compared clocks."""

    gather_ns: int
    silence_ns: int
    run_ns: int
    stop_ns: int
    lead_us: int


@dataclass(frozen=True)
class Report:
    """What a shard tells of itself."""

    ticket: str
    plan_hash: str
    is_ready: bool = False
    interrupted: bool = False
    settled: int = 0
    in_flight: int = 0
    outcomes: Mapping[Ending, int] = field(default_factory=dict)


@dataclass
class Participant:
    """A shard as far as the meeting knows it. `fate` is why its part is lost, None while it is
    not; `fired` is whether any of it may have been sent."""

    shard: Shard
    ticket: str = ""
    who: str = ""
    heard_ns: int = 0
    is_ready: bool = False
    is_done: bool = False
    fired: bool = False
    fate: str | None = None
    last: Report | None = None

    def __str__(self) -> str:
        return f"shard {self.shard}{f' ({self.who})' if self.who else ''}"

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come of it."""
        return self.is_done or self.fate is not None


class Meeting:
    """The shards of one storm, from the first that comes to the last that ends."""

    def __init__(self, of: int, plan_hash: str, limits: MeetingLimits, now_ns: int) -> None:
        self.participants = [Participant(Shard(number, of)) for number in range(1, of + 1)]
        self.complaints: list[str] = []
        self.instant_us: int | None = None
        self.stopping: str | None = None
        """Why everybody is to stop."""
        self._plan_hash, self._limits = plan_hash, limits
        self._gather_by_ns = now_ns + limits.gather_ns
        self._end_by_ns: int | None = None

    def __repr__(self) -> str:
        ready = sum(participant.is_ready for participant in self.participants)
        return f"<Meeting ready={ready}/{len(self.participants)} stopping={self.stopping!r}>"

    # What shards say. Each answers with why it is not taken, or None.

    def join(self, ticket: str, shard: Shard, who: str, now_ns: int) -> str | None:
        """Somebody comes as `shard`; saying so again with the same ticket changes nothing."""
        if shard.of != len(self.participants):
            return f"found shard {shard}, expected one of {len(self.participants)}"
        participant = self.participants[shard.number - 1]
        if participant.ticket == ticket:
            return None
        if participant.ticket:
            told = f"shard {shard} came twice: from {participant.who}, and from {who}"
            if not participant.is_over:
                self._complain(told)
            return told
        if self.stopping is not None:
            return f"the storm was given up: {self.stopping}"
        participant.ticket, participant.who, participant.heard_ns = ticket, who, now_ns
        return None

    def report(self, told: Report, now_ns: int, now_us: int) -> str | None:
        """A shard is alive, and tells how far it is. `now_us` is the clock that the instant is
        by."""
        participant = self.participant(told.ticket)
        if participant is None or participant.is_over:
            return "this shard is not known here, or counts as lost"
        participant.heard_ns, participant.last = now_ns, told
        if told.plan_hash != self._plan_hash:
            why = f"has another plan: found {told.plan_hash}, expected {self._plan_hash}"
            self._lose(participant, why)
            return f"{participant} {why}; give all the same scenario, seed and tokens"
        participant.is_ready = participant.is_ready or told.is_ready
        if told.interrupted:
            self.stop(f"{participant} was interrupted")
        if self.instant_us is None and self.stopping is None and self._all_ready:
            self.instant_us = now_us + self._limits.lead_us
            self._end_by_ns = now_ns + self._limits.run_ns
            for each in self.participants:
                each.fired = True
        return None

    def leave(self, ticket: str, why: str | None, fired: bool) -> None:
        """A shard is done and has brought its record; or it gives up, and `why`."""
        participant = self.participant(ticket)
        if participant is None or participant.is_over:
            return
        if why is None:
            participant.is_done = True
            return
        participant.fired = fired
        self._lose(participant, f"gave up: {why}", quietly=self.stopping is not None)

    def participant(self, ticket: str) -> Participant | None:
        """The one that was taken with this ticket."""
        return next(
            (
                participant
                for participant in self.participants
                if ticket and participant.ticket == ticket
            ),
            None,
        )

    # What time says.

    def look(self, now_ns: int) -> bool:
        """Lose whoever is overdue; whether all is over."""
        left = [
            (participant, self._overdue(participant, now_ns))
            for participant in self.participants
            if not participant.is_over
        ]
        for participant, why in left:
            if why is not None:
                self._lose(participant, why)
        if self.stopping is not None and self._end_by_ns is None:
            self._end_by_ns = now_ns + self._limits.stop_ns
        return all(
            participant.is_over or (self.stopping is not None and not participant.ticket)
            for participant in self.participants
        )

    def stop(self, why: str) -> None:
        """Everybody is to stop; the first reason stands."""
        if self.stopping is None:
            self.stopping = why
            self._end_by_ns = None  # counted anew, from the next look

    def progress(self) -> tuple[int, int, Counter[Ending]]:
        """How many attempts are settled and in flight, and how they ended, by the last reports."""
        told = [
            participant.last for participant in self.participants if participant.last is not None
        ]
        outcomes: Counter[Ending] = Counter()
        for each in told:
            outcomes.update(each.outcomes)
        return sum(t.settled for t in told), sum(t.in_flight for t in told), outcomes

    @property
    def _all_ready(self) -> bool:
        return all(participant.is_ready for participant in self.participants)

    def _overdue(self, participant: Participant, now_ns: int) -> str | None:
        limits = self._limits
        if self.instant_us is None and self.stopping is None and now_ns >= self._gather_by_ns:
            within = f"within {limits.gather_ns / 1e9:g} s"
            if not participant.ticket:
                return f"never came, {within}"
            return None if participant.is_ready else f"was not ready {within}"
        if not participant.ticket:
            return None
        if now_ns - participant.heard_ns >= limits.silence_ns:
            return f"was not heard of for {limits.silence_ns / 1e9:g} s"
        if self._end_by_ns is not None and now_ns >= self._end_by_ns:
            return "did not end in time"
        return None

    def _lose(self, participant: Participant, why: str, quietly: bool = False) -> None:
        participant.fate = why
        if not quietly:
            self._complain(f"{participant} {why}")

    def _complain(self, told: str) -> None:
        self.complaints.append(told)
        self.stop(told)
