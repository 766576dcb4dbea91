"""scenario.json: the scenario as a storm was given it, for whoever replays or merges its run."""

from typing import Any

import orjson

from flashsale.storm.figures.thresholds import parse_threshold
from flashsale.storm.workload.scenario import Scenario


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
    except (KeyError, TypeError) as error:
        raise ValueError("not a scenario") from error
    return scenario.model_copy(update={"thresholds": demands})
