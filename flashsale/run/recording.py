"""scenario.json, the scenario as a storm was given it; and a run read back to be fired again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from flashsale.errors import UsageError
from flashsale.run.attempts import PlanColumns
from flashsale.run.attempts_file import lines_of, read_plan
from flashsale.run.folder import RunFolder, read_file
from flashsale.scenario.scenario import Scenario
from flashsale.scenario.thresholds import parse_threshold


def scenario_document(scenario: Scenario) -> bytes:
    """The scenario with all that was demanded of it, on the command line, too."""
    document = scenario.model_dump(
        mode="json", by_alias=True, exclude_unset=True, exclude={"thresholds"}
    )
    demands = [[threshold.name, threshold.condition] for threshold in scenario.thresholds]
    return orjson.dumps({"scenario": document, "thresholds": demands}) + b"\n"


def scenario_of(document: bytes) -> Scenario:
    """The scenario that was written so. Raises ValueError where it is none."""
    found: Any = orjson.loads(document)
    try:
        scenario = Scenario.model_validate_json(orjson.dumps(found["scenario"]))
        demands = tuple(parse_threshold(name, text) for name, text in found["thresholds"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("not a scenario") from error
    return scenario.model_copy(update={"thresholds": demands})


@dataclass(frozen=True)
class Recording:
    """A plan that was fired, to be fired again as it is."""

    path: Path
    scenario: Scenario
    plan: PlanColumns


def read_recording(run: Path) -> Recording:
    """The recording in the folder of a run, whatever became of the run after its barrier.

    Raises UsageError with one line.
    """
    folder = RunFolder(run)
    try:
        plan, scenario = read_plan(folder.attempts), scenario_of(read_file(folder.scenario))
        header = next(lines_of(folder.attempts, 1))
        if header.get("shard") is not None:
            raise UsageError(f"{run} is a shard; merge all of them and replay what they make")
        if plan.digest != header.get("plan_hash"):
            raise UsageError(f"{run}: damaged, or of another version: it holds another plan")
        if not plan or plan.connection_count != scenario.load.connections:
            raise UsageError(f"{run}: damaged: its plan is not one of its scenario")
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise UsageError(f"{run}: no {missing}; name the folder of a storm's run") from error
    except OSError as error:
        raise UsageError(f"{run}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{run}: damaged, or of another version ({reason})") from error
    return Recording(run, scenario, plan)
