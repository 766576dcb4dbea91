"""A storm from scenario to summary: the phases in their order, and the files that each leaves.

plan on disk → connect → barrier → fire → drain → figures → resolve → summary.json, .hgrm, .hlog
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import uvloop

from flashsale.errors import FlashsaleError, UsageError
from flashsale.run.attempts import NEVER, Attempts, PlanColumns
from flashsale.run.attempts_file import AttemptsFile
from flashsale.run.folder import RunFolder, telling, write_file
from flashsale.run.parts import Machine
from flashsale.run.summary import ShardFigures, Summary
from flashsale.scenario.load import Step
from flashsale.scenario.scenario import Scenario, scenario_document
from flashsale.scenario.target import Target
from flashsale.scenario.thresholds import Threshold
from flashsale.storm.attack.attack import (
    Attack,
    Mission,
    Progress,
    Records,
    SelfWatch,
    ShowProgress,
)
from flashsale.storm.attack.connections import ensure_descriptors
from flashsale.storm.attack.engine import Engine
from flashsale.storm.attack.instants import (
    Hold,
    Interrupts,
    at_once,
    at_unix_us,
    interrupts,
    until_unix_us,
)
from flashsale.storm.attack.questions import Question, Resolver
from flashsale.storm.attack.requests import Values
from flashsale.storm.crew.crew import Crew, connections_each
from flashsale.storm.crew.rendezvous import Rendezvous
from flashsale.storm.crew.shard import Shard, record_header, shard_header, units_by_text
from flashsale.storm.figures.conclusion import Circumstances, Finished, conclude, write_results
from flashsale.storm.figures.figures import Figures
from flashsale.storm.figures.generator import Calibration, Effort, Room, room_of
from flashsale.storm.figures.judging import AbortWatch
from flashsale.storm.figures.sale import AskedVouchers, BuyAttempts, claims_by_voucher
from flashsale.storm.plan.plan import Plan
from flashsale.storm.plan.planning import plan_of

_MS = 1_000_000


@dataclass(frozen=True)
class Assignment:
    """What to storm, how, and where to leave the record.

    `units` is what each voucher has before the storm, where that is known better than by the
    scenario: a sale can have begun long ago.
    """

    scenario: Scenario
    target: Target
    folder: RunFolder
    units: Mapping[int, int] | None = None
    processes: int = 1
    aborts: Sequence[Threshold] = ()
    asks_after: bool = True  # whether the target has the route that tells of claims in doubt
    verify_awaited: bool = False
    shard: Shard | None = None
    plan: PlanColumns | None = None  # one that was fired before; else the scenario's
    calibration: Calibration | None = None
    start_at_us: int | None = None  # since 1970, UTC; else as soon as all connections stand
    rendezvous: Rendezvous | None = None  # who tells the instant, in place of that
    columns: Mapping[int, Mapping[str, str]] = field(default_factory=dict)  # of the users' file

    @property
    def connections(self) -> int:
        """How many connections are this machine's."""
        every = self.scenario.load.connections
        return every if self.shard is None else connections_each(every, self.shard.of)


def storm(assignment: Assignment, tokens: Mapping[int, str], show: ShowProgress) -> Finished:
    """Run the storm for the first users in `tokens` (user id → token).

    Ctrl-C and SIGTERM end it early with everything written; the summary then carries the exit
    code. Raises UnreachableError where the barrier cannot open, UsageError where the system does
    not allow enough open files.
    """
    ensure_descriptors(connections_each(assignment.connections, assignment.processes))
    _ensure_to_come(assignment.start_at_us)
    with interrupts() as taken, AttemptsFile(assignment.folder.attempts) as file:
        return _Storm(assignment, tokens, file, taken).run(show)


def _ensure_to_come(start_at_us: int | None) -> None:
    """Raises UsageError where the instant at which to start has passed."""
    if start_at_us is not None and until_unix_us(start_at_us) <= 0:
        raise UsageError("--start-at has passed while the storm was prepared; give it more time")


def _units(assignment: Assignment) -> Mapping[int, int]:
    if assignment.units is not None:
        return assignment.units
    sale = assignment.scenario.sale
    return {} if sale is None else sale.units_by_voucher()


class _Storm:
    """One storm; what it was given stays one value, and what is made of it lies beside."""

    def __init__(
        self,
        assignment: Assignment,
        tokens: Mapping[int, str],
        file: AttemptsFile,
        taken: Interrupts,
    ) -> None:
        self._given, self._tokens, self._file, self._taken = assignment, tokens, file, taken
        self._scenario, self._folder = assignment.scenario, assignment.folder
        self._units, self._shard = _units(assignment), assignment.shard
        fired_before = assignment.plan
        whole = (
            plan_of(self._scenario, list(tokens)) if fired_before is None else Plan.of(fired_before)
        )
        shard = self._shard
        self._plan = whole if shard is None else whole.part(shard.number, shard.of)
        self._plan_hash, self._planned = whole.digest, len(whole)
        start_at_us = assignment.start_at_us
        self._barrier = at_once if start_at_us is None else at_unix_us(start_at_us)
        self._rendezvous = assignment.rendezvous
        if self._rendezvous is not None:
            self._barrier = self._met
        self._attempts, self._watch = Attempts(len(self._plan)), SelfWatch()
        self._aborts = AbortWatch(assignment.aborts, self._attempts, self._plan.asks)

    def run(self, show: ShowProgress) -> Finished:
        write_file(self._folder.scenario, scenario_document(self._scenario))
        self._file.write_plan(self._header(), self._plan)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            attack = self._attack(show)
            try:
                runner.run(self._fire(attack))
            except FlashsaleError:
                self._write_end()
                raise
            with self._watch.counting():
                figures = Figures(self._attempts, self._plan.asks)
            if self._taken.exit_code is None:
                self._aborts.end(figures.duration_s)
            resolved = runner.run(self._resolve()) if self._taken.exit_code is None else 0
        self._write_end()
        effort = attack.effort()
        if self._file.trouble is not None:  # of what was sent there is a verdict all the same
            effort = replace(effort, losses=(*effort.losses, str(self._file.trouble)))
        summary = self._conclude(figures, effort, resolved)
        unwritten = write_results(self._folder, summary, figures)
        if self._shard is not None:
            with telling(unwritten.append):
                write_file(self._folder.effort, effort.to_json())
        return Finished(summary, figures, self._plan, tuple(unwritten))

    def _attack(self, show: ShowProgress) -> Attack:
        mission = self._mission()
        records, is_kept = Records(self._attempts, self._file, self._watch), True

        def look(progress: Progress) -> None:
            nonlocal is_kept
            show(progress)
            if self._aborts.look(progress.elapsed_s):
                attack.stop("aborted")
            if is_kept and self._file.trouble is not None:
                is_kept = False
                attack.stop("record")
            if self._rendezvous is not None and self._rendezvous.look(progress):
                attack.stop()

        attack: Attack = (
            Engine(mission, records, look, self._barrier)
            if self._given.processes == 1
            else Crew(mission, self._given.processes, records, look, self._barrier)
        )
        return attack

    def _mission(self) -> Mission:
        return Mission(
            self._scenario,
            self._given.target,
            self._plan,
            self._tokens,
            self._given.columns,
            self._folder.name,
        )

    async def _fire(self, attack: Attack) -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            # Not from within the handler: a signal may come between any two steps of a callback.
            loop.call_soon_threadsafe(attack.stop)
            if self._rendezvous is not None:
                self._rendezvous.interrupted = True

        with self._taken.told(stop):
            await attack.run()

    async def _met(self, hold: Hold) -> int:
        """The instant that all shards were told, with the clock that it is by on record."""
        assert self._rendezvous is not None
        instant_ns = await self._rendezvous.instant(hold)
        self._file.clock = self._rendezvous.clock
        return instant_ns

    async def _resolve(self) -> int:
        shop = self._scenario.target
        status, lookup = shop.routes.status, shop.lookup
        if lookup is None and not (self._given.asks_after and status):
            return 0
        loop = asyncio.get_running_loop()
        resolver = Resolver(
            self._given.target,
            status,
            self._scenario.timeouts.resolve_ms,
            self._resolved,
            None if lookup is None else lookup.meanings(),
        )
        asking = loop.create_task(resolver.run(self._questions()))
        with self._taken.told(lambda: loop.call_soon_threadsafe(asking.cancel)):
            await asyncio.wait([asking])
        if not asking.cancelled():
            asking.result()
        return resolver.answered

    def _resolved(self, attempt: int, outcome: str, order: str | None) -> None:
        self._file.write_resolved(attempt, outcome, order)
        self._attempts.resolve(attempt, outcome, order)

    def _questions(self) -> list[Question]:
        grace_ns = self._scenario.timeouts.claim_ms * _MS
        shop, values = self._scenario.target, Values(self._mission())
        lookup = shop.lookup
        return [
            Question(
                attempt=i,
                voucher=self._plan.things[i],
                token=self._tokens[self._plan.users[i]],
                not_before_ns=self._sent_by_ns(i) + grace_ns,
                asked=None if lookup is None else lookup.asked(values(i), shop.headers),
            )
            for i, answer in self._attempts.settled()
            if answer.outcome.is_indeterminate and self._plan.asks[i] == Step.BUY
        ]

    def _sent_by_ns(self, attempt: int) -> int:
        """No later than this, where the instant itself is lost with the process that sent it."""
        sent_ns = self._attempts.sent_ns[attempt]
        return self._attempts.done_ns[attempt] if sent_ns == NEVER else sent_ns

    def _conclude(self, figures: Figures, effort: Effort, resolved: int) -> Summary:
        scenario, shard = self._scenario, self._shard
        if shard is not None:  # what is demanded is demanded of all shards together
            scenario = scenario.model_copy(update={"thresholds": ()})
        started = self._attempts.barrier_unix_us / 1e6 or datetime.now(UTC).timestamp()
        circumstances = Circumstances(
            run=self._folder.name,
            base_url=self._given.target.base_url,
            plan_hash=self._plan_hash,
            started_at=datetime.fromtimestamp(started, UTC).isoformat(timespec="milliseconds"),
            resolved=resolved,
            interrupted_by=self._taken.exit_code,
            shard=None if shard is None else ShardFigures(number=shard.number, of=shard.of),
            claims=self._claims(),
            machine=Machine.here(),
            room=self._room(),
            late=self._attempts.late,
            aborts=self._aborts.judgements,
            verify_awaited=self._given.verify_awaited,
        )
        return conclude(scenario, figures, effort, circumstances)

    def _room(self) -> Room | None:
        if self._given.calibration is None:
            return None
        return room_of(
            self._given.calibration, self._given.processes, self._plan, self._scenario.load.open
        )

    def _claims(self) -> list[BuyAttempts]:
        sale, same = self._scenario.sale, dict[str, int]()
        if sale is not None:
            same = {"quantity": sale.quantity, "limit": sale.limit}
        asked = AskedVouchers(self._plan.users, self._plan.vouchers, self._units, **same)
        return claims_by_voucher(self._attempts, asked)

    def _header(self) -> dict[str, object]:
        header = record_header(
            self._scenario,
            self._plan,
            run=self._folder.name,
            plan_hash=self._plan_hash,
            base_url=self._given.target.base_url,
        )
        if self._shard is None:
            return {**header, "units": units_by_text(self._units)}
        met = None if self._rendezvous is None else self._rendezvous.name
        shard = shard_header(self._shard, self._planned, self._units, self._given.start_at_us, met)
        return {**header, "shard": shard}

    def _write_end(self) -> None:
        interrupted = self._taken.exit_code is not None
        self._file.write_end(len(self._plan), self._attempts.sent, interrupted)
