"""What a run fired, read back from its folder: its scenario and its plan, attempt by attempt."""

from dataclasses import dataclass
from pathlib import Path

import orjson

from flashsale.errors import UsageError
from flashsale.storm.record.plan_lines import read_plan
from flashsale.storm.record.runfolder import RunFolder
from flashsale.storm.record.scenario_file import scenario_of
from flashsale.storm.workload.plan import Plan
from flashsale.storm.workload.scenario import Scenario


@dataclass(frozen=True)
class Recording:
    """A plan that was fired, to be fired again as it is."""

    path: Path
    scenario: Scenario
    plan: Plan


def read_recording(run: Path) -> Recording:
    """The recording in the folder of a run, whatever became of the run after its barrier.

    Raises UsageError with one line.
    """
    folder = RunFolder(run)
    try:
        with folder.attempts.open("rb") as lines:
            header = orjson.loads(next(lines, b"null"))
        plan, scenario = read_plan(folder.attempts), scenario_of(folder.scenario.read_bytes())
        if "shard" in header:
            raise UsageError(f"{run} is a shard; merge all of them and replay what they make")
        if plan.digest != header["plan_hash"]:
            raise UsageError(f"{run}: damaged, or of another version: it holds another plan")
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise UsageError(f"{run}: no {missing}; name the folder of a storm's run") from error
    except OSError as error:
        raise UsageError(f"{run}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{run}: damaged, or of another version ({reason})") from error
    return Recording(run, scenario, plan)
