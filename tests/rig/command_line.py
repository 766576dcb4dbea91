"""The command line: as a user runs it, in a process of its own and without this one's settings; and
as it takes a line apart, without running it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer

from flashsale.cli.tree import tree


def run_flashsale(
    folder: Path, *arguments: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """`flashsale ARGUMENTS` in `folder`, to its end: without colours, 120 columns wide."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLASHSALE_", "GITHUB_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "flashsale", *arguments],
        cwd=folder,
        env={**own, "COLUMNS": "120", "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@cache
def _tree() -> Any:
    return typer.main.get_command(tree())


def parse(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The command that `words` name after `flashsale`, and its parameters, all of them taken.

    Raises what a user sees (typer.TyperException) where there is no such command, option or value.
    """
    command, name, rest, context = _tree(), "flashsale", list(words), None
    try:
        while True:
            context = command.make_context(name, rest, parent=context)
            left = [*context._protected_args, *context.args]
            if not hasattr(command, "resolve_command") or not left:
                return " ".join(context.command_path.split()[1:]), context.params
            name, command, rest = command.resolve_command(context, left)
    except typer.Exit:  # --help and --version say something and are done
        return name, {}
