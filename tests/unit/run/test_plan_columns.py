"""Plans on disk: what is read back is the plan that was written, to the last column."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashsale.run.attempts import plan_lines
from flashsale.run.attempts_file import read_plan
from flashsale.scenario.scenario import Scenario
from flashsale.storm.plan.plan import Plan
from flashsale.storm.plan.planning import plan_of

SALE, BROWSE = {"vouchers": 2, "units": 5}, {"shops": 4, "unknown_share": 0.3}
RETRY = {"on": ["shed", "unknown"], "times": 2, "backoff_ms": 10}
CLOSED = {"model": "closed", "users": 6, "connections": 4, "think_ms": 5, "spread_ms": 9}
TABLES: list[dict[str, Any]] = [
    {"sale": SALE, "load": {"model": "stampede", "users": 6, "connections": 2}},
    {"sale": SALE, "load": {"model": "stampede", "users": 3, "connections": 3, "connect": "cold"}},
    {"sale": SALE, "load": {"model": "rate", "stages": ["1s:9"], "connections": 2}},
    {"browse": BROWSE, "load": {"model": "rate", "stages": ["1s:9"], "connections": 2}},
    {"browse": BROWSE, "load": {"model": "stampede", "users": 6, "connections": 2}},
    {"browse": BROWSE, "load": CLOSED},
    {"load": {**CLOSED, "steps": ["sign"]}},
    {
        "sale": SALE,
        "browse": BROWSE,
        "load": {
            "model": "rate",
            "stages": ["1s:9"],
            "connections": 2,
            "steps": ["browse", "buy"],
            "retry": RETRY,
        },
    },
    {"sale": SALE, "browse": BROWSE, "load": {**CLOSED, "steps": ["browse", "sign", "buy"]}},
    {"sale": SALE, "load": {**CLOSED, "clicks": 2, "retry": RETRY}},
    {
        "sale": SALE,
        "browse": BROWSE,
        "load": {**CLOSED, "clicks": 2, "retry": RETRY, "refresh": {"reads": 2, "between": 1}},
    },
]


def plan_from(tables: dict[str, Any], seed: int = 1) -> Plan:
    load = {**tables["load"], "seed": seed}
    given = Scenario.model_validate({"schema": 1, "name": "s", **tables, "load": load})
    return plan_of(given, range(1, 10))


def write(path: Path, plan: Plan, **changed: Any) -> Path:
    header = {
        "kind": "header",
        "schema": 1,
        "connections": plan.connection_count,
        "clicks": plan.clicks,
        "cold": plan.cold,
        "retry_on": plan.retry_on,
        "planned": len(plan),
        **changed,
    }
    lines = b"".join(line.encode() for line in plan_lines(plan))
    path.write_bytes(orjson.dumps(header) + b"\n" + lines + b'{"kind":"barrier","unix_us":1}\n')
    return path


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=st.sampled_from(TABLES), seed=st.integers(0, 2**32))
def test_a_plan_comes_back_as_it_was(tmp_path: Path, tables: dict[str, Any], seed: int) -> None:
    plan = plan_from(tables, seed)
    again = Plan.of(read_plan(write(tmp_path / "attempts.jsonl", plan)))
    assert again.digest == plan.digest
    assert again.first_attempts == plan.first_attempts
    assert (again.open, again.is_chained) == (plan.open, plan.is_chained)


def test_a_plan_of_before_has_its_columns(tmp_path: Path) -> None:
    """Schema 1 without connections in the header and without what an attempt waits for."""
    plan = plan_from(TABLES[0])
    path = write(tmp_path / "attempts.jsonl", plan)
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    lines[0] = {"kind": "header", "schema": 1, "planned": len(plan)}
    for line in lines:
        line.pop("after", None)
        if "think_us" in line:
            line["at_us"] = line.pop("think_us")
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    again = read_plan(path)
    assert (list(again.users), again.connection_count) == (list(plan.users), 2)


@pytest.mark.parametrize("damage", ["short", "gap", "no header", "nothing", "another version"])
def test_a_plan_that_is_not_whole_is_refused(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "attempts.jsonl", plan_from(TABLES[0]))
    lines = path.read_bytes().splitlines(keepends=True)
    wrong = {
        "short": [*lines[:3], lines[-1]],
        "gap": [*lines[:2], *lines[3:]],
        "no header": lines[1:],
        "nothing": [],
        "another version": [lines[0].replace(b'"schema":1', b'"schema":2'), *lines[1:]],
    }
    path.write_bytes(b"".join(wrong[damage]))
    with pytest.raises(ValueError, match=r"planned|expected|header|schema 2"):
        read_plan(path)


def edited(path: Path, **to: Any) -> Path:
    """The file with the last attempt that says something of each of these saying this instead."""
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    for name, value in to.items():
        [line for line in lines if name in line and line["kind"] == "plan"][-1][name] = value
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("conn", [-2, 4, 10**6, 2**62]),
        ("user", [-1]),
        ("voucher", [-1]),
        ("at_us", [-1, 10**16]),
        ("think_us", [-1, 10**16]),
        ("after", [-2, 10**7, "itself"]),
        ("given", [-2, 10**7, "itself"]),
    ],
)
def test_a_plan_that_nobody_can_fire_is_refused(
    tmp_path: Path, name: str, values: list[Any]
) -> None:
    """Its hash may be right: whoever wrote such a plan can hash it as well."""
    plan = plan_from(TABLES[9])
    path = write(tmp_path / "attempts.jsonl", plan)
    at = max(i for i, line in enumerate(plan_lines(plan)) if f'"{name}":' in line)
    for value in values:
        with pytest.raises(ValueError, match=r"expected|waits for"):
            read_plan(edited(path, **{name: at if value == "itself" else value}))
        write(path, plan)
        read_plan(path)


def test_a_plan_of_no_connection_is_refused(tmp_path: Path) -> None:
    for tables in (TABLES[0], TABLES[9]):
        path = write(tmp_path / "attempts.jsonl", plan_from(tables), connections=0)
        with pytest.raises(ValueError, match="connections"):
            read_plan(path)
