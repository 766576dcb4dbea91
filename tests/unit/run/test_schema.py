"""The published schema of summary.json equals the model, and real summaries are valid by it."""

import copy
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator
from unit.report.test_junit import ABORTED, COMPARED
from unit.report.test_pages import BAD, GOOD, verified

from flashsale.model import Reading
from flashsale.run.parts import Machine, ReadFigures
from flashsale.run.summary import PUBLISHED, DatabaseFigures, Summary, summary_schema

READ = GOOD.model_copy(
    update={
        "reads": ReadFigures.of({Reading.HIT: 3, Reading.LOAD: 1}),
        "database": DatabaseFigures(loads=1, shops=1, unknown=0),
        "machine": Machine.here(),
    }
)
SUMMARIES = [GOOD, BAD, verified(GOOD, "pass"), verified(BAD, "unknown"), COMPARED, ABORTED, READ]


def document(summary: Summary) -> dict[str, Any]:
    """The summary as it is written."""
    found: dict[str, Any] = orjson.loads(summary.model_dump_json(by_alias=True))
    return found


def complaints(found: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft202012Validator(summary_schema()).iter_errors(found)]


def test_the_published_schema_is_the_models() -> None:
    assert orjson.loads(PUBLISHED.read_bytes()) == summary_schema(), "run `make schema`"


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(summary_schema())


@pytest.mark.parametrize("summary", SUMMARIES)
def test_summaries_are_valid(summary: Summary) -> None:
    assert complaints(document(summary)) == []


@pytest.mark.parametrize("lacking", ["reads", "baseline", "machine", "aborts", "endpoints"])
def test_a_summary_of_an_earlier_version_is_valid(lacking: str) -> None:
    found = document(READ)
    del found[lacking]
    assert complaints(found) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema"], 2, "1 was expected"),
        (["verdict"], "fine", "is not one of"),
        (["exit_code"], "0", "is not of type 'integer'"),
        (["load", "planned"], None, "is not of type 'integer'"),
        (["latency_ms", "response", "p99.9"], "1", "is not valid under any"),
        (["more"], 1, "were unexpected"),
        (["load", "more"], 1, "were unexpected"),
    ],
)
def test_what_is_no_summary_is_invalid(path: list[str], value: object, message: str) -> None:
    found = copy.deepcopy(document(GOOD))
    part = found
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    (complaint,) = complaints(found)
    assert message.removesuffix("were unexpected") in complaint
    assert message in complaint or "unexpected" in complaint
    assert complaints({}), "nothing at all is no summary"
