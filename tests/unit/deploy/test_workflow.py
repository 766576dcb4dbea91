"""deploy/github-actions.yml: valid by GitHub's schema, its commands by our command line."""

import copy
import re
from collections.abc import Callable
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


# Habits.


def test_actions_are_pinned_by_their_whole_commit() -> None:
    text = workflow.PATH.read_text(encoding="utf-8")
    used = [step["uses"] for step in steps(WORKFLOW) if "uses" in step]
    assert len(used) == 4
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)
        assert re.search(rf"uses: {re.escape(action)} # v\d+\.\d+\.\d+\n", text)


def test_everything_has_an_end() -> None:
    assert job(WORKFLOW)["timeout-minutes"] <= 30
    assert all("timeout-minutes" in step for step in steps(WORKFLOW)[2:])


def test_it_may_do_no_more_than_it_needs_and_holds_no_secret() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert job(WORKFLOW)["permissions"] == {"contents": "read", "checks": "write"}
    text = workflow.PATH.read_text(encoding="utf-8")
    assert "secrets." not in text
    assert not re.search(r"(?i)(password|token):\s*(?!\"yes\")\S", text)
    for service in job(WORKFLOW)["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_no_expression_is_pasted_into_a_shell() -> None:
    assert not [step["name"] for step in steps(WORKFLOW) if "${{" in step.get("run", "")]


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
