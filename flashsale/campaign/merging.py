"""The shards that several machines fired become one run, for `verify` and `report`: merged by hand,
or by their rendezvous, which knows what is missing.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flashsale.campaign.campaign import StormRun, Teller, copy_stack
from flashsale.errors import UsageError
from flashsale.report.files import write_reports
from flashsale.run.attempts import Attempts
from flashsale.run.attempts_file import AttemptsFile
from flashsale.run.folder import RunFolder, create_run_folder, read_file, telling, write_file
from flashsale.scenario.answer import unsent
from flashsale.scenario.scenario import Scenario, scenario_document
from flashsale.storm.crew.merge import baseline_of, merge_runs
from flashsale.storm.crew.rendezvous import USERS_FILE, Participant
from flashsale.storm.crew.shard import (
    Shard,
    ShardRun,
    read_shard,
    record_header,
    shard_header,
    whole_plan,
)
from flashsale.storm.plan.plan import Plan
from flashsale.verify.ending import ended_last


def merge_shards(shards: Sequence[Path], out: Path | None, teller: Teller) -> StormRun:
    """One run of these shards' folders, in `out` or in a folder of its own.

    They have to be all of one storm, each once. Raises UsageError with one line.
    """
    runs = [read_shard(path) for path in shards]
    plan = whole_plan(runs)
    folder = create_run_folder(runs[0].scenario.name, out, datetime.now(UTC), teller.say)
    finished = merge_runs(runs, plan, folder)
    for line in finished.unwritten:
        teller.say(line)
    with telling(teller.say):
        _keep_stores(runs, folder, teller)
    write_reports(folder, finished.summary, teller.say, finished.figures)
    run = StormRun(finished.summary, folder)
    teller.stormed(run)
    return run


def _keep_stores(runs: Sequence[ShardRun], folder: RunFolder, teller: Teller) -> None:
    """Keep what the shards knew of the stores, for `verify`.

    The first baseline counts: all were taken before the instant at which anybody fired. The last
    ending counts, and only if every shard took one: else somebody may have fired on after it.
    """
    taken = baseline_of(runs)
    copy_stack((taken or runs[0]).path, folder.path)
    if taken is None:
        teller.say("no shard took a baseline, so verify will judge less")
        return
    write_file(folder.baseline, read_file(taken.folder.baseline))
    last = ended_last([run.path for run in runs])
    if last is not None:
        write_file(folder.ending, read_file(last / folder.ending.name))


# Of a storm whose shards met: it knows what each was to bring -----------------------------------


@dataclass(frozen=True)
class WholeStorm:
    """What is to be fired by all, at `base_url`, and what its shards leave in `folder`. `tokens` is
    the file of the users' sessions, and `units` what each voucher had before."""

    scenario: Scenario
    base_url: str
    tokens: Path
    plan: Plan
    folder: RunFolder
    units: Mapping[int, int]

    @property
    def name(self) -> str:
        """Of this storm and no other."""
        return self.folder.name

    @contextmanager
    def files(self) -> Iterator[dict[str, Path]]:
        """What shards fetch, by name; the plan lies in the run's folder for that long."""
        draft = RunFolder(self.folder.path / ".plan")
        draft.path.mkdir(mode=0o700)
        try:
            write_file(draft.scenario, scenario_document(self.scenario))
            with AttemptsFile(draft.attempts) as file:
                file.write_plan(self._header(self.plan), self.plan)
            found = {path.name: path for path in (draft.scenario, draft.attempts)}
            if self.scenario.needs_users and self.tokens.is_file():
                found[USERS_FILE] = self.tokens
            yield found
        finally:
            shutil.rmtree(draft.path, ignore_errors=True)

    def place_of(self, participant: Participant) -> RunFolder:
        """Where the record of a shard lies, once it is whole."""
        return RunFolder(self.folder.path / "shards" / str(participant.shard.number))

    def run_of(self, participant: Participant, losses: list[str]) -> ShardRun:
        """What a shard brought; where that cannot be used, what is known without it."""
        place = self.place_of(participant)
        if participant.is_done:
            try:
                run = read_shard(place.path)
                self._ensure_ours(participant.shard, run)
            except UsageError as error:
                losses.append(f"{participant} brought a record that cannot be used: {error}")
            else:
                return run
        shutil.rmtree(place.path, ignore_errors=True)
        place.path.mkdir(parents=True)
        self._suppose(participant, place)
        return read_shard(place.path)

    def _ensure_ours(self, shard: Shard, run: ShardRun) -> None:
        part = self.plan.part(shard.number, shard.of)
        if (
            run.shard != shard
            or run.header["shard"].get("rendezvous") != self.name
            or run.header["plan_hash"] != self.plan.digest
            or run.plan.digest != part.digest
            or run.plan.numbers != part.numbers
        ):
            raise UsageError(f"found shard {run.shard} of another storm")

    def _suppose(self, participant: Participant, place: RunFolder) -> None:
        """A record of whoever left none: each attempt unsent where there was no instant for it,
        and without a result where it may have left."""
        part = self.plan.part(participant.shard.number, participant.shard.of)
        shard = shard_header(participant.shard, len(self.plan), self.units, None, self.name)
        write_file(place.scenario, scenario_document(self.scenario))
        with AttemptsFile(place.attempts) as file:
            file.write_plan({**self._header(part), "shard": shard}, part)
            if participant.fired:
                return
            attempts = Attempts(len(part))
            for i in range(len(part)):
                if part.is_conditional(i):
                    attempts.spare(i)
                else:
                    attempts.settle(i, 0, unsent("barrier"))
            file.write_results(attempts)
            file.write_end(len(part), 0, interrupted=False)

    def _header(self, plan: Plan) -> dict[str, object]:
        header = record_header(
            self.scenario,
            plan,
            run=self.name,
            plan_hash=self.plan.digest,
            base_url=self.base_url,
        )
        return {key: value for key, value in header.items() if key != "units"}
