"""The workflows in deploy/: valid by GitHub's schema, their commands by our command line."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema.validators import validator_for
from rig import workflow
from rig.command_line import parse
from rig.workflow import commands, job, load, steps

WORKFLOW = load()
Change = Callable[[dict[str, Any]], None]


def violations(document: dict[str, Any]) -> list[str]:
    schema = get_builtin_schema("vendor.github-workflows")
    return [error.message for error in validator_for(schema)(schema).iter_errors(document)]


def test_accepted_by_githubs_schema() -> None:
    assert violations(WORKFLOW) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.pop("on"),
        lambda w: job(w)["services"]["ledger"].update(arguments="--appendonly yes"),
        lambda w: steps(w)[0].update(whith={}),
        lambda w: w["jobs"]["storm"].update({"timeout-minutes": "soon"}),
    ],
)
def test_a_wrong_workflow_is_not(change: Change) -> None:
    document = copy.deepcopy(WORKFLOW)
    change(document)
    assert violations(document)


# Commands.


def test_every_command_is_one_that_there_is() -> None:
    assert [parse(words)[0] for words in commands(WORKFLOW, "flashsale")] == [
        "doctor",
        "serve",
        "seed",
        "warm",
        "storm",
        "verify",
        "stop",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["strom", "stampede"],
        ["verify", "--drain-timeout", "soon"],
        ["storm", "stampede", "--outt", "x"],
        ["seed", "--users"],
    ],
)
def test_a_command_that_there_is_not_is_found_out(words: list[str]) -> None:
    with pytest.raises(typer.TyperException):
        parse(words)


def test_every_flashsale_line_is_looked_at() -> None:
    text = workflow.PATH.read_text(encoding="utf-8")
    lines = re.findall(r"^\s+(?:run: )?flashsale ", text, re.MULTILINE)
    assert len(lines) == len(list(commands(WORKFLOW, "flashsale")))


def test_the_nightly_one_is_valid_and_its_commands_are_ours() -> None:
    nightly = load(workflow.CHAOS)
    assert violations(nightly) == []
    found = list(commands(nightly, "flashsale"))
    assert [parse(words)[0] for words in found] == ["chaos", "chaos"]
    assert found[0][1:5] == ["--minutes", "20", "--from", "today"]
    assert found[1][1:3] == ["--control", "all"]


# Habits.


@pytest.mark.parametrize("path", [workflow.PATH, workflow.CHAOS], ids=lambda path: path.stem)
def test_actions_are_pinned_by_their_whole_commit(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    used = [step["uses"] for step in steps(load(path)) if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)
        assert re.search(rf"uses: {re.escape(action)} # v\d+\.\d+\.\d+\n", text)


@pytest.mark.parametrize("path", [workflow.PATH, workflow.CHAOS], ids=lambda path: path.stem)
def test_everything_has_an_end(path: Path) -> None:
    bounds = [step["timeout-minutes"] for step in steps(load(path))[2:]]
    assert sum(bounds) <= 60
    assert job(load(path))["timeout-minutes"] <= 50


def test_the_nightly_one_may_only_read_and_holds_no_secret() -> None:
    assert load(workflow.CHAOS)["permissions"] == {"contents": "read"}
    assert "permissions" not in job(load(workflow.CHAOS))
    assert "secrets." not in workflow.CHAOS.read_text(encoding="utf-8")


def test_it_may_do_no_more_than_it_needs_and_holds_no_secret() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert job(WORKFLOW)["permissions"] == {"contents": "read", "checks": "write"}
    text = workflow.PATH.read_text(encoding="utf-8")
    assert "secrets." not in text
    assert not re.search(r"(?i)(password|token):\s*(?!\"yes\")\S", text)
    for service in job(WORKFLOW)["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.parametrize("path", [workflow.PATH, workflow.CHAOS], ids=lambda path: path.stem)
def test_no_expression_is_pasted_into_a_shell(path: Path) -> None:
    assert not [step["name"] for step in steps(load(path)) if "${{" in step.get("run", "")]


def test_the_run_is_kept_whatever_happened_and_tokens_are_not() -> None:
    keep = steps(WORKFLOW)[-1]
    assert keep["if"] == "${{ always() }}"
    paths = keep["with"]["path"].split("\n")
    assert "${{ env.RUN }}" in paths
    assert not {".flashsale", ".flashsale/", "."} & set(paths)
    assert job(WORKFLOW)["env"]["RUN"] in " ".join(
        " ".join(words) for words in commands(WORKFLOW, "flashsale")
    )


def test_a_storm_that_fell_short_is_judged_and_published_all_the_same() -> None:
    by_name = {step.get("name"): step for step in steps(WORKFLOW)}
    for name in ("Verify", "Publish the verdict as JUnit"):
        assert by_name[name]["if"] == "${{ !cancelled() && steps.storm.outcome != 'skipped' }}"
