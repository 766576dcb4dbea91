"""What a command tells GitHub Actions, where it runs there."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from flashsale.run.summary import Summary


def tell_trouble(message: str) -> None:
    """Annotate what kept a command from its work, under GitHub Actions."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from flashsale.report.github import annotation

        typer.echo(annotation("flashsale", message), err=True)


def tell_workflow(summary: "Summary") -> None:
    """Append the run to the step's summary and annotate what did not pass, under GitHub Actions.

    Annotations go to standard error, so that standard output stays what it is.
    """
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    from flashsale.report.github import annotations, step_summary

    for line in annotations(summary):
        typer.echo(line, err=True)
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(step_summary(summary))
        except OSError as error:
            typer.echo(f"flashsale: no step summary: {path}: {error.strerror}", err=True)
