"""`flashsale stop`: end the stack of a state folder, gracefully."""

from typing import Annotated

import typer

from flashsale.cli.options import DEFAULT_STATE_DIR, StateDir

Timeout = Annotated[
    float, typer.Option("--timeout", min=1, help="Seconds of patience before it is killed.")
]


def command(state_dir: StateDir = DEFAULT_STATE_DIR, timeout: Timeout = 90.0) -> None:
    """Stop a stack: nginx first, then replicas and workers, then the stores."""
    from flashsale.stack.launch import stop_stack

    stopped = stop_stack(state_dir, timeout)
    typer.echo(f"stopped the stack in {state_dir}" if stopped else f"no stack runs in {state_dir}")
