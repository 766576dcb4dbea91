"""Scenario files that are almost right: a scenario, or one line that says what is wrong."""

import tomllib
from datetime import date, datetime
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rig.odd import MOMENTS, ODD, TEXTS, disturbed, table

from flashsale.errors import UsageError, one_line
from flashsale.files import resource
from flashsale.scenario.fault import PlannedFault
from flashsale.scenario.load import Load
from flashsale.scenario.rules import Rule
from flashsale.scenario.scenario import Scenario, parse_scenario
from flashsale.scenario.shop import Shop

FILES = sorted(resource("scenarios").rglob("*.toml"))
SCENARIOS = [path.read_text() for path in FILES if path.parent.name == "scenarios"]
SHOPS = [path.read_text() for path in FILES if path.parent.name == "targets"]
DOCUMENTS = [tomllib.loads(text) for text in SCENARIOS]
PLAIN = next(one for one in DOCUMENTS if one["name"] == "stampede")
for shop in map(tomllib.loads, SHOPS):
    steps = [step for step in ("login", "buy") if step in shop.get("target", {})]
    load = {"model": "rate", "stages": ["2s:10"], "connections": 4, "steps": steps or ["buy"]}
    DOCUMENTS.append({**PLAIN, **shop, "load": load})
LINE_MAX = 2_000


def accepted(text: str) -> bool:
    """Whether it is a scenario; if not, it is told in one line, and quickly read."""
    try:
        scenario = parse_scenario(text, "a.toml")
    except UsageError as error:
        told = one_line(str(error))
        assert told.startswith("a.toml")
        assert len(told) < LINE_MAX
        return False
    assert scenario.steps
    assert scenario.endpoints
    assert scenario.last_s > 0
    assert repr(scenario)
    return True


def toml(value: Any) -> str:
    """A value as TOML has it, in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime | date):
        return value.isoformat()
    return repr(value) if isinstance(value, int | float) else _text(value)


def _text(text: str) -> str:
    return orjson.dumps(text).decode().replace("\x7f", "\\u007f")


def document(tables: dict[str, Any]) -> str:
    return "".join(f"{_text(name)} = {toml(value)}\n" for name, value in tables.items())


def test_what_is_disturbed_here_is_right_before() -> None:
    assert len(DOCUMENTS) > 12
    assert all(accepted(document(one)) for one in DOCUMENTS)


@settings(max_examples=120)
@given(disturbed(DOCUMENTS, st.one_of(ODD, MOMENTS)))
def test_a_file_with_a_few_places_changed(tables: Any) -> None:
    accepted(document(tables))


@settings(max_examples=60)
@given(table(Scenario))
def test_any_file_of_the_right_names(tables: dict[str, Any]) -> None:
    accepted(document({**tables, "schema": 1, "name": "made"}))


@pytest.mark.parametrize(
    ("name", "model"), [("load", Load), ("target", Shop), ("fault", PlannedFault), ("rule", Rule)]
)
def test_one_table_of_the_right_names(name: str, model: Any) -> None:
    @settings(max_examples=60)
    @given(table(model, 4))
    def check(made: dict[str, Any]) -> None:
        if name == "rule":
            buy = {"path": "/buy", "outcomes": [made, {"outcome": "refused"}]}
            accepted(document({**PLAIN, "target": {"buy": buy}}))
        else:
            tables = [made] if name == "fault" else made
            accepted(document({**PLAIN, name: tables}))

    check()


@settings(max_examples=60)
@given(st.sampled_from(SCENARIOS + SHOPS), st.data())
@example("a = " + "[" * 100_000, None)
@example("a = " + "9" * 5_000, None)
def test_text_that_is_cut_or_spliced(text: str, data: Any) -> None:
    if data is not None:
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(len(text), begin + 40)))
        text = (
            text[:begin] + data.draw(st.sampled_from([*TEXTS, '"', "'''", "[[", "\r"])) + text[end:]
        )
    accepted(text)
