"""`flashsale status`: how the stack of a state folder is."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flashsale.cli.options import DEFAULT_STATE_DIR, StateDir
from flashsale.errors import ExitCode, UnreachableError

if TYPE_CHECKING:
    from flashsale.stack.health import Health
    from flashsale.stack.state import StackState

Json = Annotated[bool, typer.Option("--json", help="Print JSON: the state and each answer.")]


def command(state_dir: StateDir = DEFAULT_STATE_DIR, json: Json = False) -> None:
    """Show every process of the stack and whether it answers: exit 0 if all do, else 7."""
    from flashsale.stack.health import check
    from flashsale.stack.state import read_state, supervisor_pid

    state = read_state(state_dir)
    if state is None:
        starting = supervisor_pid(state_dir)
        raise UnreachableError(
            f"the stack in {state_dir} is still starting (process {starting})"
            if starting
            else f"no stack runs in {state_dir}; start one with `flashsale serve --detach`"
        )
    health = check(state)
    _print_json(state, health) if json else _print_table(state, health)
    if not health.well:
        raise typer.Exit(ExitCode.UNREACHABLE)


def _print_json(state: "StackState", health: "Health") -> None:
    import orjson

    told = asdict(state) | {"healthy": health.well, "answers": health.answers}
    typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())


def _print_table(state: "StackState", health: "Health") -> None:
    from rich.console import Console

    from flashsale.cli.stack_view import Row, table

    rows = [
        Row(
            child.name,
            child.kind,
            "up" if health.answers[child.name] else "not answering",
            child.pid,
            child.port,
            child.restarts,
        )
        for child in state.children
    ]
    ready = "" if state.ready else "  (still starting)"
    Console().print(table(f"{state.base_url}{ready}", rows))
