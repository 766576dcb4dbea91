"""`flashsale services`: the programs that private servers run from."""

from typing import Annotated

import typer

from flashsale.stack import binaries, packages

Observe = Annotated[
    bool,
    typer.Option(
        "--observe", help="Those of `serve --observe`: Prometheus, its tool and its exporters."
    ),
]

command = typer.Typer(
    help="The Redis, MariaDB and nginx programs that private servers run from.",
)


@command.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@command.command("install")
def install(observe: Observe = False) -> None:
    """Fetch what is missing into a per-user cache: Debian and Ubuntu, no root, run twice safely."""
    programs = binaries.OBSERVERS if observe else binaries.PROGRAMS
    for binary in packages.install(lambda line: typer.echo(f"services: {line}"), programs):
        typer.echo(f"services: {binary.path} {binary.version_text}")


@command.command("list")
def list_(observe: Observe = False) -> None:
    """Show which programs are found, and where."""
    for program in binaries.OBSERVERS if observe else binaries.PROGRAMS:
        binary = binaries.find(program)
        typer.echo(f"{program.name}  {binary.version_text}  {binary.path}")
