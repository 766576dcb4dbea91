"""A check decides by its snapshot alone: no store, no clock, no chance."""

import ast
from pathlib import Path

import pytest

import flashsale.verify.checks

FILES = sorted(Path(flashsale.verify.checks.__file__).parent.glob("*.py"))
PURE = {"flashsale", "collections", "dataclasses", "heapq", "itertools", "operator"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_check_imports_nothing_that_could_look_elsewhere(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert {module.partition(".")[0] for module in modules} <= PURE
