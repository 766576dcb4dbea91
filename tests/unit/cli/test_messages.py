"""Every command that a message of the package names can be given as it stands."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import flashsale
from flashsale.cli.tree import run, tree
from flashsale.errors import ExitCode

PACKAGE = Path(flashsale.__file__).parent
QUOTED = re.compile(r"`(flashsale [^`]+)`|: (flashsale [a-z].*)$|^(flashsale [a-z]+ -.*)$")


def messages(tree: ast.AST) -> Iterator[str]:
    """The strings of a module, but for its docstrings; `1` stands for what is filled in."""
    nodes = [*ast.walk(tree)]
    documents = {
        node.value
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    parts = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield filled(node)
        elif isinstance(node, ast.Constant) and node not in documents and node not in parts:
            yield node.value if isinstance(node.value, str) else ""


def filled(node: ast.JoinedStr) -> str:
    text = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
        elif isinstance(choice := getattr(part, "value", None), ast.IfExp):
            text += str(choice.body.value) if isinstance(choice.body, ast.Constant) else ""
        elif text.endswith((" ", "=")):
            text += "1"
    return text


@cache
def commands() -> list[str]:
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for message in messages(ast.parse(path.read_text())):
            found |= {one for match in QUOTED.findall(message) for one in match if one}
    return sorted(found)


def parse(command: Any, words: list[str], parent: Any = None) -> None:
    """Parse `words` as the command line does, down to the command that they name."""
    context = command.make_context(command.name, list(words), parent)
    if hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        _, inner, left = command.resolve_command(context, rest)
        parse(inner, left, context)


def test_every_command_named_in_a_message_parses() -> None:
    command, named = typer.main.get_command(tree()), commands()
    assert len(named) > 15
    refused = {}
    for line in named:
        try:
            parse(command, shlex.split(line)[1:])
        except typer.TyperException as error:
            refused[line] = str(error)
    assert refused == {}


@pytest.mark.parametrize("line", ["flashsale rebuilt", "flashsale seed --rest", "flashsale stop 1"])
def test_one_that_does_not_exist_would_be_found(line: str) -> None:
    with pytest.raises(typer.TyperException):
        parse(typer.main.get_command(tree()), shlex.split(line)[1:])


def test_too_little_memory_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def greedy(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("flashsale.cli.run._render", greedy)
    assert run(["report", "render", str(tmp_path)]) == ExitCode.INTERNAL
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "not enough memory" in said
