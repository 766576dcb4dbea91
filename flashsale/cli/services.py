"""`flashsale services`: the programs that private servers run from."""

from typing import Annotated

import typer

from flashsale.cli.terminal import tell
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
    """Fetch what is missing or does not start: Debian and Ubuntu, no root, run twice safely.

    The programs go into a per-user cache (FLASHSALE_SERVICES_DIR names another). Each is started
    once.
    """
    programs = binaries.OBSERVERS if observe else binaries.PROGRAMS
    for program, binary in zip(programs, packages.install(_say, programs), strict=True):
        _say(f"{program.name} {binary}")


@command.command("list")
def list_(observe: Observe = False) -> None:
    """Show which programs are found, where, and for which release they were fetched."""
    programs = binaries.OBSERVERS if observe else binaries.PROGRAMS
    found = [binaries.look(program) for program in programs]
    for program, binary in zip(programs, found, strict=True):
        tell(f"{program.name}  {binary or 'missing'}")
    for tree in packages.trees():
        tell(f"fetched  {tree}")
    for program, binary in zip(programs, found, strict=True):
        if binary is None:
            binaries.find(program)  # says what is wrong with it, and the cure


@command.command("remove")
def remove() -> None:
    """Remove every program that `install` fetched, for this and other releases."""
    packages.remove(_say)


def _say(line: str) -> None:
    tell(f"services: {line}")
