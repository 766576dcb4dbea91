"""Shards that several machines left become one run, or one line that says why not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from flashsale.errors import ExitCode, UsageError
from flashsale.model import Outcome, Verdict
from flashsale.run.attempts import Attempts, ClockReading
from flashsale.run.attempts_file import AttemptsFile, read_record
from flashsale.run.folder import RunFolder
from flashsale.run.histogram import Histogram, merged
from flashsale.scenario.answer import Answer
from flashsale.scenario.scenario import Scenario, parse_scenario, scenario_document
from flashsale.storm.crew.merge import baseline_of, merge_runs
from flashsale.storm.crew.shard import ShardRun, read_recording, read_shard, whole_plan
from flashsale.storm.figures.conclusion import Circumstances, conclude
from flashsale.storm.figures.figures import Figures
from flashsale.storm.figures.generator import Effort, SelfReport
from flashsale.storm.plan.planning import plan_of
from flashsale.verify.attempts import read_attempts

START_US = 1_795_428_000_000_000
SCENARIO = """
schema = 1
name = "tiny"
[sale]
units = 2
[load]
model = "stampede"
users = 12
connections = 4
seed = {seed}
[thresholds]
"buy.sold.count" = "== 2"
"""
SOLD = [Answer(Outcome.SOLD, 200, str(515385561440059393 + n)) for n in range(2)]
GONE = Answer(Outcome.SOLD_OUT, 200)
Leave = Callable[..., Path]


def scenario(seed: int = 1) -> Scenario:
    return parse_scenario(SCENARIO.format(seed=seed), "tiny")


@pytest.fixture
def leave(tmp_path: Path) -> Leave:
    """Leave a shard's run folder behind, as a storm does."""

    def leave_one(
        number: int,
        of: int = 2,
        *,
        name: str = "",
        seed: int = 1,
        late_us: int = 0,
        start_us: int = START_US,
        attempts_told: int | None = None,
        alive: bool = True,
        clock_error_us: int | None = 4_000,
        clock: ClockReading | None = None,
    ) -> Path:
        asked = scenario(seed)
        every = plan_of(asked, range(1, 13))
        plan = every.part(number, of)
        folder = RunFolder(tmp_path / (name or f"s{number}"))
        folder.path.mkdir()
        record = Attempts(len(plan))
        record.origin_ns = 5_000_000_000
        for i in range(len(plan) if attempts_told is None else attempts_told):
            due = record.origin_ns + 10_000 * i
            record.due_ns[i], record.sent_ns[i] = due, due + 1_000 * number
            answer = SOLD[number - 1] if i == 0 and number <= 2 else GONE
            record.settle(i, due + 100_000 * number + 1_000 * i, answer)
        shard = {
            "number": number,
            "of": of,
            "planned": len(every),
            "start_at_unix_us": start_us,
            "clock_error_us": clock_error_us,
            "units": {"1": 2 if number == 1 else 3},
        }
        header = {
            "run": folder.name,
            "scenario": "tiny",
            "seed": seed,
            "plan_hash": every.digest,
            "base_url": f"http://x:{number}",
            "asked": ["buy"],
            "vouchers": [1],
            "units": {},
            "connections": plan.connection_count,
            "planned": len(plan),
            "barrier_unix_us": None,
            "shard": shard,
        }
        folder.scenario.write_bytes(scenario_document(asked))
        with AttemptsFile(folder.attempts) as attempts:
            attempts.clock = clock
            attempts.write_plan(header, plan)
            attempts.write_barrier(start_us + late_us)
            attempts.write_results(record)
            if alive:
                attempts.write_end(len(plan), record.sent, interrupted=False)
        if alive:
            effort = Effort(SelfReport(7_000, 100_000, Histogram([number]), 1024), Histogram([9]))
            folder.effort.write_bytes(effort.to_json())
            conclude(
                asked.model_copy(update={"thresholds": ()}),
                Figures(record, plan.asks),
                effort,
                Circumstances(folder.name, "http://x", every.digest, "2026-11-23", 0, None),
            ).write(folder.summary)
        return folder.path

    return leave_one


def merged_run(tmp_path: Path, *paths: Path) -> tuple[RunFolder, Any, list[dict[str, Any]]]:
    runs = [read_shard(path) for path in paths]
    plan = whole_plan(runs)
    folder = RunFolder(tmp_path / "merged")
    folder.path.mkdir()
    finished = merge_runs(runs, plan, folder)
    lines = [orjson.loads(line) for line in folder.attempts.read_bytes().splitlines()]
    return folder, finished, lines


def test_shards_become_one_run(tmp_path: Path, leave: Leave) -> None:
    folder, finished, lines = merged_run(tmp_path, leave(2, late_us=50), leave(1))
    plan = plan_of(scenario(), range(1, 13))
    assert finished.plan.digest == finished.summary.plan_hash == plan.digest
    assert [line["user"] for line in lines if line["kind"] == "plan"] == list(plan.users)
    assert [line["conn"] for line in lines if line["kind"] == "plan"] == list(plan.connections)
    assert lines[0]["planned"] == 12
    assert lines[0]["units"] == {"1": 2}
    assert "shard" not in lines[0]
    assert lines[13] == {"kind": "barrier", "unix_us": START_US}
    assert lines[-1] == {"kind": "end", "planned": 12, "sent": 12, "interrupted": False}
    results = [line for line in lines if line["kind"] == "result"]
    assert sorted(line["i"] for line in results) == list(range(12))
    done = [line["done_us"] for line in results]
    assert done == sorted(done)
    # Whose barrier opened 50 µs later by its clock has all its instants 50 µs later.
    by_clock = {
        clock: min(line["due_us"] for line in results if line["clock"] == clock) for clock in (1, 2)
    }
    assert by_clock == {1: 0, 2: 50}
    assert {plan.connections[line["i"]] % 2 + 1 == line["clock"] for line in results} == {True}
    assert finished.summary.load.outcomes == {"sold": 2, "sold_out": 10}
    assert [t.verdict for t in finished.summary.thresholds] == [Verdict.PASS] * 2
    assert finished.summary.merged.barrier_spread_ms == 0.05
    assert finished.summary.exit_code == ExitCode.PASS
    assert read_record(folder.attempts).attempts.by_label() == finished.figures.attempts.by_label()


def test_merged_percentiles_are_those_of_all_records(tmp_path: Path, leave: Leave) -> None:
    paths = leave(1, 3), leave(2, 3), leave(3, 3, late_us=77)
    mine = [Figures(read_record(path / "attempts.jsonl").attempts) for path in paths]
    _, finished, _ = merged_run(tmp_path, *paths)
    for clock in ("response", "service"):
        both = merged(figures.latency(clock) for figures in mine)
        assert finished.figures.latency(clock).hgrm() == both.hgrm()
    generator = finished.summary.generator
    assert [share.name for share in generator.workers] == ["shard 1", "shard 2", "shard 3"]
    assert generator.loop_lag_ms.max == 0.003
    assert generator.cpu_us_per_request == round(3 * 7 / 12, 2)
    assert generator.start_lag_ms.count == 12


def test_what_was_merged_can_be_fired_once_more(tmp_path: Path, leave: Leave) -> None:
    folder, finished, _ = merged_run(tmp_path, leave(1), leave(2))
    recording = read_recording(folder.path)
    assert recording.plan.digest == finished.summary.plan_hash
    assert recording.scenario == scenario()


def test_verify_reads_what_was_merged(tmp_path: Path, leave: Leave) -> None:
    folder, *_ = merged_run(tmp_path, leave(1), leave(2))
    attempts = read_attempts(folder.path)
    assert attempts.complete
    assert (attempts.planned, attempts.vouchers) == (12, (1,))
    assert sorted(attempts.claims[1].clock) == [1] * 6 + [2] * 6


def test_a_shard_that_died_leaves_its_rest_indeterminate(tmp_path: Path, leave: Leave) -> None:
    folder, finished, lines = merged_run(tmp_path, leave(1), leave(2, attempts_told=2, alive=False))
    assert finished.summary.load.outcomes == {"sold": 2, "sold_out": 6, "indeterminate": 4}
    assert finished.summary.load.errors == {"shard": 4}
    assert finished.summary.exit_code == ExitCode.INVALID_RUN
    assert "shard 2/2 did not live to tell how it did" in finished.summary.generator.complaints
    assert lines[-1] == {"kind": "end", "planned": 12, "sent": 8, "interrupted": True}
    assert not read_attempts(folder.path).complete


def test_a_record_that_was_cut_off_is_read_up_to_there(tmp_path: Path, leave: Leave) -> None:
    whole, torn = leave(1), leave(2, alive=False)
    with (torn / "attempts.jsonl").open("ab") as file:
        file.write(b'{"kind":"resolved","i":')
    _, finished, _ = merged_run(tmp_path, whole, torn)
    assert finished.summary.load.sent == 12


def test_clocks_are_taken_at_what_the_kernel_says(tmp_path: Path, leave: Leave) -> None:
    _, finished, _ = merged_run(tmp_path, leave(1), leave(2, clock_error_us=1_500))
    clocks, addresses = finished.summary.merged.caveats
    assert clocks.startswith("shards' clocks may differ by up to 5.5 ms")
    assert addresses == "shards went to different addresses: http://x:1, http://x:2"


def test_a_clock_that_nothing_keeps_in_time_is_named(tmp_path: Path, leave: Leave) -> None:
    _, finished, _ = merged_run(tmp_path, leave(1), leave(2, clock_error_us=None))
    assert finished.summary.merged.caveats[0].startswith(
        "nothing keeps the clock of shard 2 in time"
    )


def test_the_first_baseline_counts(leave: Leave) -> None:
    runs = [read_shard(leave(number, 4)) for number in (3, 1, 2)]
    assert baseline_of(runs) is None
    for run in runs[:1] + runs[2:]:
        run.folder.baseline.write_text("{}")
    chosen = baseline_of(runs)
    assert chosen is not None
    assert chosen.shard.number == 2


# What cannot be merged: one line.


def refusal(*paths: Path) -> str:
    with pytest.raises(UsageError) as caught:
        whole_plan([read_shard(path) for path in paths])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_missing_is_named(leave: Leave) -> None:
    assert refusal(leave(1, 4), leave(3, 4)) == "2 of 4 shards are missing: 2, 4"


def test_what_is_given_twice_is_named(leave: Leave) -> None:
    one, two = leave(1), leave(2)
    again = leave(2, name="again")
    assert refusal(one, two, again) == f"shard 2/2 is given twice: {two} and {again}"


def test_another_plan_is_named(leave: Leave) -> None:
    one, two = leave(1), leave(2, seed=2)
    assert refusal(one, two).startswith(f"{two} fired another plan than {one}")


def test_another_division_is_named(leave: Leave) -> None:
    one, two = leave(1), leave(2, 3)
    assert refusal(one, two).startswith(f"{one} is shard 1/2 and {two} is 2/3")


def test_another_instant_is_named(leave: Leave) -> None:
    one, two = leave(1), leave(2, start_us=START_US + 1)
    assert refusal(one, two) == f"{two} and {one} had different --start-at"


def test_other_thresholds_are_named(leave: Leave) -> None:
    one, two = leave(1), leave(2)
    other = scenario().model_copy(update={"thresholds": ()})
    (two / "scenario.json").write_bytes(scenario_document(other))
    assert refusal(one, two) == f"{two} and {one} had different scenarios or thresholds"


def spoil_header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = path / "attempts.jsonl"
    head, _, rest = file.read_bytes().partition(b"\n")
    header = orjson.loads(head)
    change(header)
    file.write_bytes(orjson.dumps(header) + b"\n" + rest)


def test_a_whole_run_is_no_shard(leave: Leave) -> None:
    spoil_header(path := leave(1), lambda header: header.pop("shard"))
    assert refusal(path) == f"{path} is a whole run and no shard; there is nothing to merge"


@pytest.mark.parametrize("name", ["attempts.jsonl", "scenario.json"])
def test_a_file_that_is_missing_is_named(leave: Leave, name: str) -> None:
    (path := leave(1)).joinpath(name).unlink()
    assert refusal(path) == f"{path}: no {name}; name the folders that shards left"


@pytest.mark.parametrize("name", ["attempts.jsonl", "scenario.json", "summary.json", "effort.json"])
def test_a_file_that_is_damaged_is_one_line(leave: Leave, name: str) -> None:
    (path := leave(1)).joinpath(name).write_text('{"kind": "nonsense"}\n')
    assert refusal(path).startswith(f"{path}: damaged, or of another version (")


def test_a_damaged_result_is_one_line(tmp_path: Path, leave: Leave) -> None:
    one, two = leave(1), leave(2)
    text = (two / "attempts.jsonl").read_text()
    (two / "attempts.jsonl").write_text(text.replace('"kind":"result","i":3', '"kind":"result",'))
    with pytest.raises(UsageError, match=f"{two}: damaged"):
        merged_run(tmp_path, one, two)


def test_parts_that_do_not_make_their_plan_are_refused(tmp_path: Path, leave: Leave) -> None:
    one, two = leave(1), leave(2)
    text = (two / "attempts.jsonl").read_text()
    (two / "attempts.jsonl").write_text(text.replace('"conn":0', '"conn":1', 1))
    with pytest.raises(UsageError, match="do not make the plan that they name"):
        merged_run(tmp_path, one, two)


def test_a_shard_says_what_it_is(leave: Leave) -> None:
    assert "Shard(number=1, of=2)" in repr(read_shard(leave(1)))
    assert isinstance(read_shard(leave(2)), ShardRun)


def test_shards_whose_clocks_were_compared_are_aligned_by_that(
    tmp_path: Path, leave: Leave
) -> None:
    """The second one's clock is 40 ms behind, so its own word is that it began so much earlier."""
    first = leave(1, clock=ClockReading(0, 120))
    second = leave(2, late_us=-40_000, clock=ClockReading(40_000, 900))
    folder, finished, lines = merged_run(tmp_path, first, second)
    merged = finished.summary.merged
    assert merged.barrier_spread_ms == 0
    assert [shard.clock_offset_ms for shard in merged.shards] == [0, 40]
    assert merged.caveats[0].endswith("the order of events is good to 1.0 ms")
    due = {line["i"]: line["due_us"] for line in lines if line["kind"] == "result"}
    assert max(due.values()) < 40_000, "nothing is moved by what the clocks differ"
    assert read_record(folder.attempts).attempts.barrier_unix_us == START_US


def test_what_a_rendezvous_complains_of_makes_the_run_invalid(tmp_path: Path, leave: Leave) -> None:
    runs = [read_shard(leave(1)), read_shard(leave(2))]
    folder = RunFolder(tmp_path / "merged")
    folder.path.mkdir()
    told = "shard 2/2 (host:7) came twice"
    summary = merge_runs(runs, whole_plan(runs), folder, [told]).summary
    assert told in summary.generator.complaints
    assert summary.exit_code == ExitCode.INVALID_RUN


def test_a_storm_that_nobody_lived_to_tell_of_is_invalid(tmp_path: Path, leave: Leave) -> None:
    """There is nothing to judge, too; but why there is not is what counts."""
    shards = [leave(number, attempts_told=0, alive=False) for number in (1, 2)]
    _, finished, _ = merged_run(tmp_path, *shards)
    assert finished.summary.exit_code == ExitCode.INVALID_RUN
    assert finished.summary.verdict is Verdict.INVALID
