"""Every block of every document is loaded, parsed or run by what it is for."""

import ast
import importlib.util
import re
import shutil
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer
from rig.command_line import parse
from rig.documents import DOCUMENTS, ROOT, Block, Words, blocks, spans
from ruamel.yaml import YAML

from benchmarks.__main__ import IN_TURN
from benchmarks.__main__ import NAMES as BENCHMARKS
from flashsale.campaign.judging import exercising
from flashsale.errors import UsageError
from flashsale.scenario.scenario import built_in_names, load_scenario, parse_scenario
from flashsale.scenario.thresholds import parse_expression

NEEDS_A_STACK = "# needs a stack: "
CHECKED = {"toml", "console", "python", "json", "jsonl", "yaml"}
SHOWN = {"text", ""}
"""Pictures and output: nothing can be wrong in them that a program would find."""

INSTALLED = ".venv/.installed"
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SERVICES = set(
    re.findall(r"^  ([\w-]+):$", (ROOT / "deploy/compose.yaml").read_text(), re.MULTILINE)
)
OTHERS = {
    "apt",
    "curl",
    "git",
    "kubectl",
    "openssl",
    "pipx",
    "pre-commit",
    "sed",
    "sudo",
    "tar",
    ".",
}
"""Programs of others, whose command lines are theirs."""


def test_every_block_is_of_a_language_that_is_checked() -> None:
    assert [str(b) for b in blocks() if b.language not in CHECKED | SHOWN] == []


def test_there_are_blocks_of_each() -> None:
    for language in ("toml", "console", "python", "json", "jsonl"):
        assert blocks(language), language


# Scenarios.


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_a_scenario_is_loaded_or_refused_as_it_says(block: Block) -> None:
    if block.refused is None:
        scenario = parse_scenario(block.text, str(block))
        assert scenario.question
        return
    with pytest.raises(UsageError) as refused:
        parse_scenario(block.text, str(block))
    where, _, said = str(refused.value).partition(": ")
    assert where.startswith(f"{block} line ")
    assert said == block.refused


def test_one_that_is_meant_to_fail_is_among_them() -> None:
    assert [block for block in blocks("toml") if block.refused]


def test_every_built_in_scenario_is_in_the_table() -> None:
    page = (ROOT / "docs" / "scenarios.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", page, re.MULTILINE))
    assert rows == {name: load_scenario(name).question for name in built_in_names()}


# Commands.


def _flashsale(words: Words) -> None:
    name, parameters = parse(words)
    scenario = parameters.get("scenario")
    if name in ("storm", "rehearse") and scenario not in (None, "SCENARIO"):
        assert scenario.endswith(".toml") or scenario in built_in_names(), scenario
    for option in ("fail_if", "abort_if", "require"):
        for expression in exercising(parameters.get(option) or ())[0]:
            if expression != "…":
                parse_expression(expression, option)


def _make(words: Words) -> None:
    in_another = 2 if words[:1] == ["-C"] else 0
    targets = [word for word in words[in_another:] if "=" not in word]
    assert targets
    assert set(targets) <= {*TARGETS, *([INSTALLED] if in_another else [])}, targets


def _python(words: Words) -> None:
    if words[:1] != ["-m"]:
        return  # a file of the reader's own
    module, rest = words[1], words[2:]
    assert module == "venv" or importlib.util.find_spec(module) is not None, module
    if module == "benchmarks":
        named = list(takewhile(lambda word: not word.startswith("-"), rest))
        assert set(named) <= {*BENCHMARKS, IN_TURN, "NAME"}, named


def _docker(words: Words) -> None:
    if words[:1] != ["compose"]:
        image = next((i for i, word in enumerate(words) if word.startswith("flashsale:")), None)
        if words[0] == "run":
            assert image is not None
            _flashsale(words[image + 1 :])
        return
    file = words[words.index("-f") + 1]
    assert (ROOT / file).is_file(), file
    if "run" in words and "--entrypoint" not in words:
        service = next(i for i, word in enumerate(words) if word in SERVICES)
        _flashsale(words[service + 1 :])


def _pip(words: Words) -> None:
    assert words[0] == "install"


def _checks() -> dict[str, Callable[[Words], None]]:
    pythons = dict.fromkeys(("python", "python3", ".venv/bin/python"), _python)
    own = dict.fromkeys(("flashsale", "/tmp/fresh/bin/flashsale"), _flashsale)
    return {
        **pythons,
        **own,
        "make": _make,
        "export": lambda words: None,
        "docker": _docker,
        "/tmp/fresh/bin/pip": _pip,
        "uvx": lambda words: _flashsale(words[words.index("flashsale") + 1 :]),
    }


def look_at(words: Words) -> None:
    """See that a command of a document is one that there is."""
    program, *rest = words
    if re.match(r"[A-Z_]+=", program):
        return  # a variable of the shell
    if check := _checks().get(program):
        check(rest)
    elif program.startswith(".venv/bin/"):
        assert shutil.which(ROOT / program), program
    elif "/" in program:
        assert (ROOT / program).is_file(), program
    else:
        assert program in OTHERS, program


CONSOLE = [
    (block, words, output) for block in blocks("console") for words, output in block.commands()
]


@pytest.mark.parametrize(
    ("block", "words", "output"), CONSOLE, ids=[f"{b} {' '.join(w)}" for b, w, _ in CONSOLE]
)
def test_a_command_is_one_that_there_is(block: Block, words: Words, output: str) -> None:
    refusal = re.match(r"flashsale: (.*)", output)
    if refusal is None:
        look_at(words)
        return
    with pytest.raises((typer.TyperException, UsageError)) as refused:
        look_at(words)
    error: Any = refused.value
    said = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    assert said == refusal[1]


@pytest.mark.parametrize(
    "line",
    [
        "flashsale strom stampede",
        "flashsale storm stampeed",
        "flashsale storm stampede --require buy.p99",
        "flashsale report merge",
        "flashsale services instal",
        "make rehears",
        "docker compose -f deploy/compose.yaml run --rm toolkit wram",
        ".venv/bin/python -m benchmarks hole",
        "uvx --from x flashsale verfy",
        "flashsal verify",
    ],
)
def test_a_command_that_there_is_not_is_found_out(line: str) -> None:
    with pytest.raises((typer.TyperException, UsageError, AssertionError, ValueError)):
        look_at(line.split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_command_in_a_sentence_is_one_that_there_is(document: Path) -> None:
    for span in spans(document):
        words = span.replace(" …", "").split()
        if len(words) > 1 and (words[0] in ("flashsale", "make") or words[1] == "-m"):
            try:
                look_at(words)
            except typer.TyperException as error:
                if not error.format_message().startswith("Missing "):
                    raise  # a command may be named without being used


# Programs and data.


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_runs(block: Block) -> None:
    code = compile(ast.parse(block.text), str(block), "exec")
    if not block.text.startswith(NEEDS_A_STACK):  # that one is run in tests/e2e/docs
        exec(code, {"__name__": "document"})  # noqa: S102 - our own words


@pytest.mark.parametrize("block", blocks("json", "jsonl"), ids=str)
def test_json_parses(block: Block) -> None:
    whole = [block.text] if block.language == "json" else block.text.splitlines()
    for text in whole:
        orjson.loads(text)


@pytest.mark.parametrize("block", blocks("yaml") or [None], ids=str)
def test_yaml_parses(block: Block | None) -> None:
    if block is not None:
        YAML(typ="safe").load(block.text)


def test_the_attempts_that_are_shown_are_read_by_the_judge(tmp_path: Path) -> None:
    from flashsale.run.attempts_file import read_plan
    from flashsale.verify.attempts import read_attempts

    (block,) = blocks("jsonl")
    (tmp_path / "attempts.jsonl").write_text(block.text)
    attempts = read_attempts(tmp_path)
    assert (attempts.complete, attempts.planned, attempts.vouchers) == (True, 2, (1,))
    assert len(read_plan(tmp_path / "attempts.jsonl")) == 2
